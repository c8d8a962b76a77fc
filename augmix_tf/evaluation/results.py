"""`results.json`: all that was measured of one run, and where it comes from.

The contract between evaluation and reports; `SCHEMA` changes when a reader would break.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
from pathlib import Path
from typing import Any

import numpy as np

from augmix_tf import files, metrics

SCHEMA = 1
_PACKAGES = ("tensorflow", "keras", "tensorflow-datasets", "numpy")
_BINS = 15


def clean(logits: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Returns the measures of one set: fractions, 0..1, except `nll` (nats) and `brier` (0..2).

    Args:
        logits: [M, K].
        labels: [M].
    """
    confidence, correct = metrics.top1_confidence(logits, labels)
    return {
        "images": len(labels),
        **metrics.ClassificationSums.empty().update(logits, labels).compute(),
        "rms_calibration_error": metrics.rms_calibration_error(confidence, correct),
        "expected_calibration_error": metrics.expected_calibration_error(confidence, correct),
        "reliability": _reliability(confidence, correct),
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
    """Writes `results.json`, whole or not at all."""
    document = {"schema": SCHEMA, **measured, "provenance": provenance | {"versions": versions()}}
    files.write_text_atomically(path, json.dumps(document, indent=2) + "\n")
