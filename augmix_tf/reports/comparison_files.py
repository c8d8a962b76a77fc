"""What lies beside the tables of a comparison: its plots, and a row for each run."""

from __future__ import annotations

import csv
import functools
import io
import re
from collections.abc import Callable, Sequence
from typing import Any

from augmix_tf.reports import cells, shift_plots
from augmix_tf.reports.runs import Run, common_corruptions, estimate, grouped, shifted_names
from augmix_tf.reports.shift_sections import CALIBRATION

RMS = "rms_calibration_error"


def rows(runs: Sequence[Run]) -> str:
    """Returns a CSV with one row for each run; fractions, empty where nothing was measured.

    Columns `error_<corruption>` are means over severities, of all corruptions that any run has.
    What only networks for ImageNet have, and `error_on_<set>` of other test sets, are columns only
    where a run has them.
    """
    names = [name for name in cells.COUNTED if any(name in _cells(run) for run in runs)]
    extra = {name for run in runs for name in cells.uncounted_in(run.corrupted)}
    found = [_row(run, [*names, *sorted(extra)]) for run in runs]
    for title, of in _only_where_measured(runs).items():
        values = [of(run) for run in runs]
        if any(value is not None for value in values):
            for row, value in zip(found, values, strict=True):
                row[title] = value
    text = io.StringIO()
    writer = csv.DictWriter(text, list(found[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(found)
    return text.getvalue()


def pictures(dataset: str, runs: Sequence[Run]) -> dict[str, bytes]:
    """Draws the plots of one dataset, a set of them for each model.

    Args:
        dataset: its name.
        runs: of this dataset.

    Returns:
        File name -> PNG.
    """
    drawn: dict[str, bytes] = {}
    names = common_corruptions(runs)
    for model, alike in grouped(runs, lambda run: run.model).items():
        stem = re.sub(r"[^A-Za-z0-9_.]+", "-", f"{dataset}-{model}").strip("-.")
        where = f"{dataset}, {model}"
        methods = grouped(alike, lambda run: run.method)
        panels = {method: _diagram(members, names) for method, members in methods.items()}
        panels = {method: series for method, series in panels.items() if series}
        if panels:
            picture = shift_plots.reliability(panels, f"Reliability: {where}")
            drawn[f"{stem}-reliability.png"] = picture
        shifted = [run for run in alike if run.corrupted]
        if names and shifted:
            drawn |= _shift_pictures(stem, where, shifted, names)
    return drawn


def _shift_pictures(
    stem: str, where: str, runs: Sequence[Run], names: Sequence[str]
) -> dict[str, bytes]:
    methods = grouped(runs, lambda run: run.method)
    over = cells.set_name(names)
    bars = {method: _bars(members, names) for method, members in methods.items()}
    errors = {method: _points(members, names, "error") for method, members in methods.items()}
    gaps = {method: _points(members, names, RMS) for method, members in methods.items()}
    drawn = {
        "corruption_errors": shift_plots.corruption_bars(
            bars, f"Error on each corruption, mean over severities 1 to 5: {where}"
        ),
        "error_over_severity": shift_plots.severity_curves(
            errors, f"Error over severity: {where}\nmean over {over}"
        ),
    }
    if any(mean is not None for points in gaps.values() for _, mean, _ in points):
        drawn["calibration_over_severity"] = shift_plots.calibration_under_shift(
            gaps, f"Calibration over severity: {where}\nmean over {over}"
        )
    return {f"{stem}-{name}.png": picture for name, picture in drawn.items()}


def _bars(runs: Sequence[Run], names: Sequence[str]) -> dict[str, shift_plots.Estimate]:
    values = {"clean": [run.clean["error"] for run in runs]}
    for name in names:
        values[name] = [cells.over_severities(run.corrupted, name, "error") for run in runs]
    values["mean"] = [cells.over_corruptions(run.corrupted, names, "error") for run in runs]
    return {name: estimate(found)[:2] for name, found in values.items()}


def _points(runs: Sequence[Run], names: Sequence[str], key: str) -> shift_plots.Points:
    profiles = [cells.profile(run.content.results, names, key) for run in runs]
    return [
        (severity, *estimate(profile[severity][1] for profile in profiles)[:2])
        for severity in range(cells.SEVERITIES + 1)
    ]


def _diagram(runs: Sequence[Run], names: Sequence[str]) -> dict[str, cells.Bins]:
    """Clean and corrupted bins of all seeds together."""
    series = {
        "clean": cells.pooled(run.clean.get("reliability") or [] for run in runs),
        "corrupted": cells.pooled(cells.reliability_of(run.corrupted, names) for run in runs),
    }
    return {label: bins for label, bins in series.items() if bins}


def _cells(run: Run) -> dict[str, Any]:
    return run.corrupted.get("corruptions") or {}


def _only_where_measured(runs: Sequence[Run]) -> dict[str, Callable[[Run], float | None]]:
    columns: dict[str, Callable[[Run], float | None]] = {
        "alexnet_relative_mce": lambda run: cells.measure(run.corrupted, "alexnet.relative_mce"),
        "mean_flip_rate": lambda run: run.perturbed.get("mean_flip_rate"),
        "mean_top5_distance": lambda run: run.perturbed.get("mean_top5_distance"),
    }
    for name in shifted_names(runs):
        columns[f"error_on_{name}"] = functools.partial(_error_on, name)
    return columns


def _error_on(name: str, run: Run) -> float | None:
    return cells.measure(run.shifted.get(name) or {}, "error")


def _row(run: Run, names: Sequence[str]) -> dict[str, Any]:
    corrupted, perturbed = run.corrupted, run.perturbed
    mean = corrupted.get("mean") or {}
    row: dict[str, Any] = {
        "workdir": str(run.folder),
        "dataset": run.dataset,
        "model": run.model,
        "method": run.method,
        "seed": run.config.get("seed"),
        "epochs": run.config.get("epochs"),
        "images": run.clean.get("images"),
        "clean_error": run.clean["error"],
        **{f"clean_{key}": run.clean.get(key) for key in CALIBRATION},
        "temperature": (run.content.results.get("temperature") or {}).get("value"),
        "corrupted_source": (corrupted.get("data") or {}).get("source"),
        "corrupted_images": (corrupted.get("data") or {}).get("images"),
        "corruptions_counted": len(cells.counted_in(corrupted)) if corrupted else None,
        "mean_corruption_error": corrupted.get("mean_corruption_error"),
        "mean_error": corrupted.get("mean_error"),
        "alexnet_mce": cells.measure(corrupted, "alexnet.mce"),
        **{f"corrupted_{key}": mean.get(key) for key in CALIBRATION},
        "perturbed_source": (perturbed.get("data") or {}).get("source"),
        "mean_flip_probability": perturbed.get("mean_flip_probability"),
    }
    return row | {
        f"error_{name}": cells.over_severities(corrupted, name, "error") for name in names
    }
