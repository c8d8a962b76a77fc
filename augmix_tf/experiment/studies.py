"""What is asked of the program beside single runs: sets, comparisons, pictures, the quick start."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from augmix_tf import corruptions, files, presets
from augmix_tf.checks import CommandError, require
from augmix_tf.config import ExperimentConfig
from augmix_tf.evaluation import loaded, results
from augmix_tf.experiment import assembly, measuring, runs
from augmix_tf.reports import comparison, pictures, summary, terminal
from augmix_tf.request import SetRequest
from augmix_tf.training import strategy
from augmix_tf.training.progress import Counter
from augmix_tf.workdir import Workdir, default_root

_PICTURES_SHOWN = 6
_COMPARED = ("standard", "augmix")


def quick_start(config: ExperimentConfig, devices: tf.distribute.Strategy) -> None:
    """Trains standard and with AugMix, and shows both side by side."""
    roots = []
    for method in _COMPARED:
        chosen = presets.METHODS[method](config)
        roots.append(default_root(chosen))
        runs.train(chosen, Workdir(roots[-1]), devices)
    if not strategy.is_chief(devices):
        return
    written = comparison.write(roots, Path("runs") / "quick_start")
    print(terminal.comparison_table(roots))
    print(f"\n  side by side, with plots: {written}")


def corrupt(config: ExperimentConfig, part: SetRequest, seed: int) -> None:
    """Writes a -C set, a -P set or both of the test images."""
    if not (config.corrupted_dir or config.perturbed_dir):
        raise CommandError(
            "--mode=corrupt wants --corrupted_dir (for a -C set) or --perturbed_dir (for a -P set)"
        )
    source = assembly.load(dataclasses.replace(config, train_limit=1, calibration_images=0)).source
    test = source.test
    shared: dict[str, Any] = {
        "seed": seed,
        "ids": test.ids,
        "table": part.table,
        "source": {"dataset": source.name, "split": "test", "data": source.description},
        "workers": part.workers,
        "shard_index": part.shard_index,
        "shard_count": part.shard_count,
    }
    plain = part.layout == "npy" or bool(config.corrupted_dir)
    require(plain, "--corrupted_dir for --layout", f"--layout={part.layout}")
    if part.names and config.corrupted_dir and config.perturbed_dir:
        raise CommandError("--names is for one set: want --corrupted_dir or --perturbed_dir")
    if config.corrupted_dir:
        names = part.names or corruptions.CORRUPTIONS
        manifest = corruptions.write_corrupted(
            config.corrupted_dir,
            test.images,
            test.labels,
            names,
            frost_dir=config.frost_dir,
            layout=part.layout,
            class_names=source.class_names,
            progress=Counter("corrupted images"),
            **shared,
        )
        _say_written(config.corrupted_dir, manifest)
    if config.perturbed_dir:
        names = part.names or corruptions.PERTURBATIONS
        manifest = corruptions.write_perturbed(
            config.perturbed_dir,
            test.images,
            names,
            progress=Counter("sequences"),
            **shared,
        )
        _say_written(config.perturbed_dir, manifest)


def evaluate_saved(config: ExperimentConfig, path: Path, folder: Path | None) -> None:
    """Measures a saved model of any origin and writes results and report."""
    if folder is None:
        raise CommandError("--model_path wants --workdir, the folder of its results")
    place = Workdir(folder)
    if place.config.exists():
        raise CommandError(f"--model_path wants a --workdir of its own, got the run in {folder}")
    limited = dataclasses.replace(config, train_limit=1, calibration_images=0)
    data = assembly.load(limited)
    sets = measuring.open_sets(config, data)
    program = loaded.program(path, data.source.image_size, data.source.num_classes)
    measured = measuring.measure(program, data, sets, None)
    provenance = {
        "dataset": config.dataset,
        "data": data.source.description,
        "model": path.name,
        "method": "saved model",
    }
    with files.explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    results.write(place.results, measured, provenance)
    summary.write(folder)
    print(terminal.results_table(folder))


def report(folders: Sequence[Path], out: Path | None) -> None:
    """Compares finished runs in tables and plots; without any, writes the report in `out` anew."""
    if not folders and out is not None:
        print(f"wrote {summary.write(out)}")
        return
    if not folders:
        raise CommandError("--mode=report wants --workdirs=a,b,c (or --workdir of one run)")
    written = comparison.write(folders, out or Path("runs") / "comparison")
    print(terminal.comparison_table(folders))
    print(f"\nwrote {written}")


def save_views(config: ExperimentConfig, root: Path | None) -> None:
    """Draws some training images and their augmented views."""
    if config.method != "augmix":
        raise CommandError(f"--mode=views shows AugMix, got --method={config.method}")
    limited = dataclasses.replace(
        config, train_limit=config.train_limit or 64, calibration_images=0
    )
    data = assembly.load(limited)
    data.require_training()
    source = data.source
    shown = source.train.images[:_PICTURES_SHOWN]
    views = assembly.example_views(config, shown)
    names = [source.class_names[label] for label in source.train.labels[: len(shown)]]
    path = pictures.save_views((root or Path()) / "views.png", views, names)
    print(f"wrote {path}: {len(shown)} images of {source.description}, {views.shape[1]} views")


def _say_written(place: str, manifest: dict) -> None:
    print(f"wrote {place}: {', '.join(sorted(manifest['files']))}")
