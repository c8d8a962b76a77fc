"""`results.json`: all that was measured of one run, and where it comes from.

The contract between evaluation and reports, described in `docs/results-schema.md`; `SCHEMA`
changes when a reader would break.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from augmix_tf import checks, files, metrics

SCHEMA = 2
_PACKAGES = ("tensorflow", "keras", "tensorflow-datasets", "numpy")
_BINS = 15
_VALUES_AT_A_TIME = 2**22
MOST_CONFUSED = 100


def measures(
    logits: np.ndarray, labels: np.ndarray, temperature: float | None = None
) -> dict[str, Any]:
    """Returns the measures of one set: fractions, 0..1, except `nll` (nats) and `brier` (0..2).

    Args:
        logits: [M, K].
        labels: [M].
        temperature: fitted on held-out images; unless it is None or 1, "calibrated" holds the
            measures that it changes, of logits / temperature.

    Raises:
        CommandError: a temperature that is not above 0.
        RunError: a logit is NaN or infinite.
    """
    sums, confidence, correct = _sums(logits, labels, None)
    measured = {
        "images": len(labels),
        **sums,
        **_calibration(confidence, correct),
        "aurra": metrics.aurra(confidence, correct),
        "reliability": _reliability(confidence, correct),
    }
    if temperature is None or temperature == 1.0:
        return measured
    checks.require(temperature > 0.0, "temperature above 0", temperature)
    return measured | {"calibrated": _calibrated(logits, labels, temperature)}


def confusion(logits: np.ndarray, labels: np.ndarray, class_names: Sequence[str]) -> dict[str, Any]:
    """Returns which class was taken for which.

    Args:
        logits: [M, K].
        labels: [M].
        class_names: K of them.

    Returns:
        "confusion": the "class_names" and the "counts", [K][K]: images of the row's class that were
        taken for the column's. Nothing for more than 100 classes.
    """
    classes = len(class_names)
    if classes > MOST_CONFUSED:
        return {}
    cells = np.asarray(labels, np.int64) * classes + logits.argmax(axis=1)
    counts = np.bincount(cells, minlength=classes**2).reshape(classes, classes)
    return {"confusion": {"class_names": list(class_names), "counts": counts.tolist()}}


def _calibrated(logits: np.ndarray, labels: np.ndarray, temperature: float) -> dict[str, float]:
    sums, confidence, correct = _sums(logits, labels, temperature)
    del sums["error"]  # a temperature changes no answer
    return sums | _calibration(confidence, correct)


def _sums(
    logits: np.ndarray, labels: np.ndarray, temperature: float | None
) -> tuple[dict[str, float], np.ndarray, np.ndarray]:
    """Error, nll and Brier score; confidence [M]; whether the answer is right [M]."""
    scores = np.asarray(logits)
    # In float64 the logits of ImageNet, and all that is made of them, are 400 MB each.
    pieces = max(1, -(-scores.size // _VALUES_AT_A_TIME))
    sums, confidences, rights = metrics.ClassificationSums.empty(), [], []
    parts = zip(np.array_split(scores, pieces), np.array_split(labels, pieces), strict=True)
    for part, classes in parts:
        scaled = part if temperature is None else np.asarray(part, np.float64) / temperature
        sums = sums.update(scaled, classes)
        confidence, right = metrics.top1_confidence(scaled, classes)
        confidences.append(confidence)
        rights.append(right)
    return sums.compute(), np.concatenate(confidences), np.concatenate(rights)


def _calibration(confidence: np.ndarray, correct: np.ndarray) -> dict[str, float]:
    return {
        "rms_calibration_error": metrics.rms_calibration_error(confidence, correct),
        "expected_calibration_error": metrics.expected_calibration_error(confidence, correct),
    }


def _reliability(confidence: np.ndarray, correct: np.ndarray) -> list[dict[str, float]]:
    """Mean confidence and accuracy in each of 15 equal bins of confidence that is not empty."""
    bins = np.clip(np.ceil(confidence * _BINS).astype(int) - 1, 0, _BINS - 1)
    return [
        {
            "confidence": float(confidence[bins == b].mean()),
            "accuracy": float(correct[bins == b].mean()),
            "count": int((bins == b).sum()),
        }
        for b in np.unique(bins)
    ]


def versions() -> dict[str, str]:
    """What the numbers were computed with."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        found[package] = importlib.metadata.version(package)
    return found


def write(path: Path, measured: dict[str, Any], provenance: dict[str, Any]) -> None:
    """Writes `results.json`, whole or not at all.

    Args:
        path: the file.
        measured: the parts "clean" and, where they were measured, "temperature", "corrupted" and
            "perturbed".
        provenance: of the run; the versions are added.

    Raises:
        RunError: it cannot be written.
    """
    document = {"schema": SCHEMA, **measured, "provenance": provenance | {"versions": versions()}}
    text = json.dumps(document, indent=2)
    # A row of whole numbers stands on one line.
    text = re.sub(r"\[[\d,\s]+\]", lambda row: " ".join(row.group().split()), text)
    files.write_text_atomically(path, text + "\n")
