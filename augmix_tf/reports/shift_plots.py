"""Plots of what corruption does to error and calibration, for one run or several methods.

Shares go in as fractions and are drawn in per cent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from augmix_tf.reports import cells, drawing
from augmix_tf.reports.drawing import BLUE, GREY, ORANGE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Estimate = tuple[float | None, float | None]  # mean, standard deviation where there is one
Points = Sequence[tuple[int, float | None, float | None]]  # severity, mean, standard deviation

PANELS_IN_A_ROW = 4
BAR_GROUPS = {"": {"clean": "clean"}, **cells.GROUPS, " ": {"mean": "mean"}}
GAP = 0.6  # between groups, in widths of a corruption


def corruption_bars(methods: Mapping[str, Mapping[str, Estimate]], title: str) -> bytes:
    """Draws the error on clean images and on each corruption, a bar for each method.

    Args:
        methods: label -> corruption, `clean` or `mean` -> (error, its standard deviation or None);
            what is missing leaves a gap, and a corruption that all lack is marked.
        title: over the plot.

    Returns:
        A PNG.
    """
    figure = drawing.figure(13.5, 5.2)
    axes = figure.subplots()
    places, centres = _bar_places()
    width = 0.84 / max(len(methods), 1)
    for number, (label, errors) in enumerate(methods.items()):
        shift = (number - (len(methods) - 1) / 2) * width
        drawn = [
            (places[name] + shift, 100 * mean, 100 * (spread or 0.0))
            for name, (mean, spread) in errors.items()
            if mean is not None
        ]
        _bars(axes, drawn, width, label, drawing.look(number), with_values=len(methods) == 1)
    drawing.finish(axes, "", "error (%)")
    axes.grid(visible=False, axis="x")
    names = {name: short for group in BAR_GROUPS.values() for name, short in group.items()}
    axes.set_xticks(list(places.values()), list(names.values()))
    axes.set_xlim(-0.7, max(places.values()) + 0.7)
    axes.tick_params(axis="x", length=0)
    above = {"transform": axes.get_xaxis_transform(), "ha": "center", "va": "bottom"}
    for group, centre in centres.items():
        axes.text(centre, 1.01, group, color=GREY, fontsize=11, **above)
    for name, place in places.items():
        if all(errors.get(name, (None, None))[0] is None for errors in methods.values()):
            axes.text(place, 0.01, "left out", color=GREY, rotation=90, **above)
    figure.suptitle(title, fontsize=13)
    _legend(figure, axes, len(methods))
    return drawing.png(figure)


def severity_curves(methods: Mapping[str, Points], title: str) -> bytes:
    """Draws the error over the severity of the corruption, 0 (clean) to 5, a line each.

    Args:
        methods: label -> (severity, error, its standard deviation or None); no line where an error
            is None.
        title: over the plot.

    Returns:
        A PNG.
    """
    return _over_severity(methods, title, "error (%)")


def calibration_under_shift(methods: Mapping[str, Points], title: str) -> bytes:
    """Draws the RMS calibration error over the severity; as `severity_curves`."""
    return _over_severity(methods, title, "RMS calibration error (%)")


def reliability(panels: Mapping[str, Mapping[str, cells.Bins]], title: str = "") -> bytes:
    """Draws reliability diagrams side by side: accuracy against confidence, bin by bin.

    A point on the diagonal is a bin whose answers are right as often as the model says; below it,
    the model is too sure. A point's area follows the images in its bin. Where a panel has one
    series, a line from each point to the diagonal shows the bin's gap.

    Args:
        panels: title -> series -> bins, each with `confidence`, `accuracy` (shares) and `count`;
            bins of count 0 are left out. The first two series of a panel are drawn.
        title: over all panels.

    Returns:
        A PNG.
    """
    columns = min(len(panels), PANELS_IN_A_ROW)
    rows = math.ceil(len(panels) / columns)
    # Three or more panels are read against each other, one or two by themselves.
    side = 4.8 if columns < 3 else 3.7
    figure = drawing.figure(side * columns, (side + 0.45) * rows)
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for place, (axes, panel) in enumerate(zip(grid.flat, panels.items(), strict=False)):
        _diagram(axes, *panel)
        lowest = place + columns >= len(panels)
        drawing.finish(
            axes, "confidence" if lowest else "", "accuracy" if place % columns == 0 else ""
        )
        if place == 0 or columns < 3:
            axes.legend(frameon=False, loc="upper left", fontsize=9)
    for axes in list(grid.flat)[len(panels) :]:
        axes.set_visible(False)
    if title:
        figure.suptitle(title, fontsize=13)
    return drawing.png(figure)


def _bar_places() -> tuple[dict[str, float], dict[str, float]]:
    """Where each corruption's bars stand, and the middle of each group."""
    places: dict[str, float] = {}
    centres = {}
    start = 0.0
    for group, names in BAR_GROUPS.items():
        places |= {name: start + i for i, name in enumerate(names)}
        centres[group] = start + (len(names) - 1) / 2
        start += len(names) + GAP
    return places, centres


def _bars(
    axes: Axes,
    drawn: Sequence[tuple[float, float, float]],
    width: float,
    label: str,
    look: drawing.Look,
    with_values: bool,
) -> None:
    if not drawn:
        return
    places, heights, spreads = zip(*drawn, strict=True)
    bars = axes.bar(
        places,
        heights,
        width,
        yerr=spreads if any(spreads) else None,
        label=label,
        color=look.colour,
        hatch=look.hatch,
        edgecolor="white" if not look.hatch else "#00000066",
        linewidth=0.5,
        error_kw={"elinewidth": 1, "capsize": 2, "ecolor": "#222222"},
    )
    if with_values:
        axes.bar_label(bars, fmt="%.1f", padding=2, fontsize=9)


def _over_severity(methods: Mapping[str, Points], title: str, y_label: str) -> bytes:
    figure = drawing.figure(7.4, 5.0)
    axes = figure.subplots()
    for number, (label, points) in enumerate(methods.items()):
        known = [(s, 100 * mean, 100 * (std or 0)) for s, mean, std in points if mean is not None]
        if not known:
            continue
        severities, means, spreads = zip(*known, strict=True)
        look = drawing.look(number)
        axes.errorbar(
            severities,
            means,
            yerr=spreads if any(spreads) else None,
            label=label,
            color=look.colour,
            marker=look.marker,
            linestyle=look.line,
            linewidth=2,
            markersize=7,
            markeredgecolor="#333333",
            markeredgewidth=0.6,
            capsize=3,
            elinewidth=1,
        )
    drawing.finish(axes, "severity of the corruption", y_label)
    axes.set_xticks(range(cells.SEVERITIES + 1), ["clean", *"12345"])
    axes.set_ylim(bottom=0)
    figure.suptitle(title, fontsize=13)
    _legend(figure, axes, len(methods))
    return drawing.png(figure)


def _legend(figure: Figure, axes: Axes, count: int) -> None:
    if count > 1:
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="outside lower center", ncols=min(count, 5), frameon=False
        )


def _diagram(axes: Axes, caption: str, series: Mapping[str, cells.Bins]) -> None:
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--", label="perfectly calibrated")
    looks = ((BLUE, "o"), (ORANGE, "s"))
    for (label, bins), (colour, marker) in zip(series.items(), looks, strict=False):
        filled = sorted((b for b in bins if b["count"] > 0), key=lambda b: b["confidence"])
        confidence = [b["confidence"] for b in filled]
        accuracy = [b["accuracy"] for b in filled]
        most = max((b["count"] for b in filled), default=1)
        area = [14 + 76 * b["count"] / most for b in filled]
        if len(series) == 1:
            axes.vlines(confidence, confidence, accuracy, color=ORANGE, linewidth=2, label="gap")
        axes.plot(confidence, accuracy, color=colour, linewidth=1, alpha=0.5)
        axes.scatter(
            confidence, accuracy, s=area, color=colour, marker=marker, zorder=3,
            label=label or "images of one bin", edgecolors="white", linewidths=0.5,
        )  # fmt: skip
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02), aspect="equal")
    axes.set_title(caption, fontsize=10)
