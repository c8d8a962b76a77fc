"""The figures of one run by name, for its report and for TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from augmix_tf.reports import cells, confusion_plots, plots, shift_plots
from augmix_tf.reports.run_files import RunFiles


def figures(run: RunFiles) -> dict[str, bytes]:
    """Draws what the files of a run allow.

    Args:
        run: as `run_files.read` returns it.

    Returns:
        Name -> PNG, in the order of the report: any of `curves`, `confusion`, `reliability`,
        `corruption_errors`, `error_over_severity` and `calibration_over_severity`.
    """
    drawn: dict[str, bytes] = {}
    results, corrupted = run.results, run.results.get("corrupted") or {}
    names = cells.counted_in(corrupted)
    if run.metrics.get("epoch"):
        drawn["curves"] = plots.curves(run.metrics)
    confusion = (results.get("clean") or {}).get("confusion")
    if confusion:
        drawn["confusion"] = confusion_plots.confusion_matrix(**confusion)
    panels = _reliability_panels(results, names)
    if panels:
        drawn["reliability"] = shift_plots.reliability(panels)
    if names:
        clean = cells.measure(results.get("clean") or {}, "error")
        rows = {name: (cells.over_severities(corrupted, name, "error"), None) for name in names}
        mean = cells.over_corruptions(corrupted, names, "error")
        bars = {"error": {"clean": (clean, None), **rows, "mean": (mean, None)}}
        drawn["corruption_errors"] = shift_plots.corruption_bars(
            bars, "Error on each corruption, mean over severities 1 to 5"
        )
        drawn["error_over_severity"] = shift_plots.severity_curves(
            _by_group(results, names, "error"), "Error over the severity of the corruption"
        )
        lines = _by_group(results, names, "rms_calibration_error")
        if any(value is not None for points in lines.values() for _, value, _ in points):
            drawn["calibration_over_severity"] = shift_plots.calibration_under_shift(
                lines, "Calibration over the severity of the corruption"
            )
    return drawn


def _reliability_panels(
    results: Mapping[str, Any], names: Sequence[str]
) -> dict[str, dict[str, cells.Bins]]:
    clean, corrupted = results.get("clean") or {}, results.get("corrupted") or {}
    sets = {
        "Clean test images\nRMS calibration error": (
            clean.get("reliability") or [],
            cells.measure(clean, "rms_calibration_error"),
        ),
        "Corrupted test images, all together\nmean RMS calibration error": (
            cells.reliability_of(corrupted, names),
            cells.over_corruptions(corrupted, names, "rms_calibration_error"),
        ),
    }
    return {
        title.partition("\n")[0] if error is None else f"{title} {error:.2%}": {"": bins}
        for title, (bins, error) in sets.items()
        if bins
    }


def _by_group(
    results: Mapping[str, Any], names: Sequence[str], key: str
) -> dict[str, shift_plots.Points]:
    """The mean over all counted corruptions, and over those of each group."""
    sets = {f"mean of {len(names)}": names}
    for group in cells.GROUPS:
        members = [name for name in names if cells.GROUP_OF[name] == group]
        sets |= {group: members} if members else {}
    return {
        title: [(severity, value, None) for severity, value in cells.profile(results, members, key)]
        for title, members in sets.items()
    }
