"""Errors and calibration on a -C set: part "corrupted" of `results.json`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from augmix_tf import checks, metrics
from augmix_tf.data.benchmark import CorruptedSet
from augmix_tf.evaluation import predict, results
from augmix_tf.metrics.names import SEVERITIES

Progress = Callable[[int, int], None]

AVERAGED = ("error", "nll", "brier", "rms_calibration_error", "expected_calibration_error")
_IMAGENET_CLASSES = 1000


def evaluate(
    program: predict.Predictor,
    corrupted_set: CorruptedSet,
    *,
    temperature: float | None = None,
    clean_error: float | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Predicts each corruption and severity once and measures all from the logits.

    Args:
        program: of `predict.predictor`.
        corrupted_set: of `data.corrupted.open_set` or `generated.corrupted_set`.
        temperature: fitted on held-out images; adds the calibrated measures.
        clean_error: on the clean images, 0..1, for the relative mCE of ImageNet-C.
        progress: called with the cells done and the cells in all, first with none done.

    Returns:
        Part "corrupted" of `docs/results-schema.md`.

    Raises:
        RunError: a file is damaged, or a logit is NaN or infinite; names the cell.
    """
    report = progress or (lambda done, total: None)
    total = len(corrupted_set.names) * len(SEVERITIES)
    report(0, total)
    cells: dict[str, list[dict[str, Any]]] = {name: [] for name in corrupted_set.names}
    classes = 0
    for name, measured in cells.items():
        for severity in SEVERITIES:
            batches = corrupted_set.cell(name, severity)
            logits, labels = predict.predict_labelled(program, batches)
            try:
                measures = results.measures(logits, labels, temperature)
            except checks.RunError as error:
                raise checks.RunError(f"{name}, severity {severity}: {error}") from error
            measured.append({key: measures[key] for key in measures if key != "aurra"})
            classes = logits.shape[1]
            report(sum(map(len, cells.values())), total)
    document = {"data": dict(corrupted_set.data), **summary(cells)}
    if classes == _IMAGENET_CLASSES and not document["missing"]:
        document["alexnet"] = _against_alexnet(cells, clean_error)
    return {**document, "corruptions": cells}


def summary(cells: Mapping[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Returns the means over the cells: over severities first, then over corruptions.

    Only the 15 corruptions that count enter them, never the extra ones nor frost's stand-in.

    Args:
        cells: corruption -> measures of each severity.

    Returns:
        "mean_corruption_error" (None unless all 15 are there), "mean_error", "counted",
        "missing" and "mean" of `docs/results-schema.md`.
    """
    counted = [name for name in metrics.COUNTED_CORRUPTIONS if name in cells]
    missing = [name for name in metrics.COUNTED_CORRUPTIONS if name not in cells]
    errors = _errors(cells, counted)
    return {
        "mean_corruption_error": (
            None if missing else metrics.unnormalized_corruption_error(errors)
        ),
        "mean_error": metrics.mean_corruption_error(errors) if counted else None,
        "counted": counted,
        "missing": missing,
        "mean": {key: _mean(cells, counted, key) for key in AVERAGED},
    }


def _errors(
    cells: Mapping[str, list[dict[str, Any]]], names: Iterable[str]
) -> dict[str, list[float]]:
    return {name: [cell["error"] for cell in cells[name]] for name in names}


def _mean(cells: Mapping[str, list[dict[str, Any]]], names: list[str], key: str) -> float | None:
    if not names:
        return None
    return float(np.mean([np.mean([cell[key] for cell in cells[name]]) for name in names]))


def _against_alexnet(
    cells: Mapping[str, list[dict[str, Any]]], clean_error: float | None
) -> dict[str, float | None]:
    errors = _errors(cells, metrics.COUNTED_CORRUPTIONS)
    relative = (
        None if clean_error is None else metrics.relative_corruption_error(errors, clean_error)
    )
    return {"mce": metrics.alexnet_corruption_error(errors), "relative_mce": relative}
