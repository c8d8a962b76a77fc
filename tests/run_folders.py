"""Run folders for tests of reports: documents with numbers that can be checked by hand."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from augmix_tf.robustness import CORRUPTIONS, PERTURBATIONS

METRICS = """\
epoch,step,loss,cross_entropy,jsd,train_error,test_error,learning_rate,images_per_second
1,40,2.5,2.25,0.02,0.8,,0.1,800
2,80,2.0,1.75,0.02,0.6,0.55,0.05,1600
"""


def measures(error: float, rms: float = 0.05, brier: float = 0.2, **more: Any) -> dict[str, Any]:
    """What is measured on one set of 100 images."""
    return {
        "images": 100,
        "error": error,
        "nll": 0.5,
        "brier": brier,
        "rms_calibration_error": rms,
        "expected_calibration_error": rms / 2,
        "reliability": [
            {"confidence": 0.5, "accuracy": 0.25, "count": 40},
            {"confidence": 0.9, "accuracy": 1 - error, "count": 60},
        ],
    } | more


def corrupted(
    errors: Mapping[str, Sequence[float]], extra: Mapping[str, Sequence[float]] | None = None
) -> dict[str, Any]:
    """The part on corrupted images; RMS calibration errors are half the errors."""
    cells = {
        name: [measures(error, rms=error / 2) for error in row]
        for name, row in {**errors, **(extra or {})}.items()
    }
    mean = sum(sum(row) / len(row) for row in errors.values()) / len(errors)
    missing = [name for name in CORRUPTIONS if name not in errors]
    return {
        "data": {"source": "generated", "description": "made here", "images": 100, "seed": 0},
        "mean_corruption_error": None if missing else mean,
        "mean_error": mean,
        "counted": list(errors),
        "missing": missing,
        "mean": {"error": mean, "rms_calibration_error": mean / 2},
        "corruptions": cells,
    }


def alike(error: float, names: Sequence[str] = CORRUPTIONS) -> dict[str, list[float]]:
    """The same error in each cell."""
    return {name: [error] * 5 for name in names}


def perturbed(flips: Mapping[str, float]) -> dict[str, Any]:
    """The part on sequences."""
    rows = {
        name: {"flip_probability": value, "top5_distance": 1.5, "sequences": 1200, "frames": 31}
        for name, value in flips.items()
    }
    ten = all(name in flips for name in PERTURBATIONS)
    mean = sum(flips[name] for name in PERTURBATIONS) / 10 if ten else None
    return {
        "data": {"source": "official", "description": "CIFAR-10-P", "images": 1200},
        "mean_flip_probability": mean,
        "perturbations_counted": PERTURBATIONS,
        "mean_flip_probability_of_script": None,
        "perturbations": rows,
    }


def write_run(folder: Path, parts: Mapping[str, Any], **config: Any) -> Path:
    """Writes a run of AugMix on CIFAR-10 with 2 epochs; `config` says what is different."""
    settings = {
        "dataset": "cifar10",
        "model": "wrn",
        "depth": None,
        "widen_factor": None,
        "method": "augmix",
        "epochs": 2,
        "batch_size": 100,
        "jsd": True,
        "views": 3,
        "seed": 1,
        "train_limit": 0,
        "eval_limit": 0,
    } | config
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(settings))
    (folder / "results.json").write_text(json.dumps({"schema": 2, **parts}))
    (folder / "metrics.csv").write_text(METRICS)
    return folder


def shifted(error: float, classes: int = 200, images: int = 30_000) -> dict[str, Any]:
    """What is measured on another test set."""
    data = {"source": "folder", "description": "the folder sets/r", "images": images}
    measured = measures(error, rms=error / 4, aurra=0.625)
    return measured | {"images": images, "classes": classes, "data": data}


def imagenet_parts(**more: Any) -> dict[str, Any]:
    """Results of a network for ImageNet, relative to AlexNet and on two other test sets."""
    flips = dict.fromkeys(PERTURBATIONS, 0.125)
    return {
        "clean": measures(0.25),
        "corrupted": corrupted(alike(0.5)) | {"alexnet": {"mce": 68.44, "relative_mce": 77.96}},
        "perturbed": perturbed(flips) | {"mean_flip_rate": 37.44, "mean_top5_distance": 52.16},
        "shifted": {"imagenet-r": shifted(0.5625), "imagenetv2-matched|1": shifted(0.375, 1000)},
        "provenance": {},
    } | more
