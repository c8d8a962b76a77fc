"""Plots of results, drawn with matplotlib and returned as PNG files.

All functions take fractions and draw percentages. Figures are made without `pyplot`, which keeps
global state and may select a backend that needs a screen.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from augmix_tf.metrics import ReliabilityBin
from augmix_tf.report.tables import short_name
from augmix_tf.robustness import CORRUPTION_GROUPS, SEVERITIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Estimate = tuple[float | None, float | None]
"""Mean and standard deviation; None where there is none."""
Points = Sequence[tuple[int, float | None, float | None]]
"""Severity, mean and standard deviation."""
Bins = Sequence[ReliabilityBin]

BLUE, ORANGE, GREEN, GREY = "#0b6fb5", "#d9640c", "#2a8a4a", "#767676"
DPI = 120
PANELS_PER_ROW = 4
# Up to so many points of a curve have markers.
MAX_MARKED_POINTS = 40
# Up to so many classes of a confusion matrix, each cell shows its number.
MAX_NUMBERED_CLASSES = 12
# Between groups of bars, in widths of a corruption.
GROUP_GAP = 0.6


class Look(NamedTuple):
    """How a series is distinguished from the others, also without colors."""

    color: str
    marker: str
    line: str
    hatch: str


# The colors of Okabe and Ito, for all kinds of color vision; neighbors differ in lightness.
LOOKS = (
    Look("#0072b2", "o", "-", ""),
    Look("#e69f00", "s", "--", "////"),
    Look("#009e73", "^", "-.", ""),
    Look("#cc79a7", "D", ":", "...."),
    Look("#333333", "v", "-", ""),
    Look("#56b4e9", "P", "--", "\\\\\\\\"),
    Look("#d55e00", "X", "-.", ""),
    Look("#999999", "*", ":", "xxxx"),
    Look("#8a4f9e", "<", "-", ""),
    Look("#b8d67a", ">", "--", "----"),
)

# Panel of `curves`: y axis, factor on the values, and its lines as (column, label, color).
PANELS: Sequence[tuple[str, float, Sequence[tuple[str, str, str]]]] = (
    ("loss (nats)", 1.0, (("loss", "loss", BLUE), ("cross_entropy", "cross-entropy", ORANGE))),
    ("error (%)", 100.0, (("train_error", "train", BLUE), ("test_error", "test", ORANGE))),
    # In a panel of its own: it is far smaller than the loss.
    ("Jensen-Shannon divergence (nats)", 1.0, (("jsd", "Jensen-Shannon divergence", GREEN),)),
    ("learning rate", 1.0, (("learning_rate", "learning rate", GREY),)),
)


def look(number: int) -> Look:
    """Returns the look of a series; they repeat after the tenth."""
    return LOOKS[number % len(LOOKS)]


def figure(width: float, height: float) -> Any:
    """Returns an empty figure of this size in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")


def finish(axes: Axes, x_label: str, y_label: str) -> None:
    """Labels the axes, draws a grid and removes the upper and right borders."""
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(color="#e4e4e4", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def png(drawn: Figure) -> bytes:
    """Returns a figure as a PNG. Equal figures give equal bytes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text

    # Names of classes and runs may contain `$`, which would start a formula.
    for text in drawn.findobj(Text):
        text.set_parse_math(False)
    content = io.BytesIO()
    FigureCanvasAgg(drawn).print_png(content)
    return content.getvalue()


def curves(columns: Mapping[str, Sequence[float]]) -> bytes:
    """Plots loss, error, Jensen-Shannon divergence and learning rate over the epochs.

    Args:
        columns: `epoch` and any of loss, cross_entropy, jsd (nats), train_error, test_error
            (fractions) and learning_rate, all of one length. NaN where there is no value.
    """
    drawn = figure(8.6, 5.6)
    grid = drawn.subplots(2, 2, sharex=True)
    for panel, (y_label, factor, lines) in zip(grid.flat, PANELS, strict=True):
        for column, label, color in lines:
            _curve(panel, columns["epoch"], columns.get(column, ()), factor, label, color)
        finish(panel, "epoch" if panel in grid[-1] else "", y_label)
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.set_ylim(bottom=0)
        if len(panel.get_lines()) > 1:
            panel.legend(frameon=False)
        elif not panel.get_lines():
            panel.text(0.5, 0.5, "not recorded", transform=panel.transAxes, color=GREY, ha="center")
    return png(drawn)


def confusion_matrix(class_names: Sequence[str], counts: Sequence[Sequence[int]]) -> bytes:
    """Plots a confusion matrix, in percent of the images of each class.

    Colors follow the square root, so that rare errors are visible.

    Args:
        class_names: K of them.
        counts: [K, K], images of the row's class that were predicted as the column's.
    """
    from matplotlib.colors import PowerNorm

    table = np.asarray(counts, np.float64)
    images = table.sum(axis=1, keepdims=True)
    share = 100 * np.divide(table, images, out=np.zeros_like(table), where=images > 0)
    few = len(class_names) <= MAX_NUMBERED_CLASSES
    side = 2.6 + 0.55 * len(class_names) if few else 3.0 + 0.11 * len(class_names)
    drawn = figure(side + 1.0, side)
    axes = drawn.subplots()
    shown = axes.imshow(share, cmap="Blues", norm=PowerNorm(0.5, 0, 100))
    ticks = [0, 1, 5, 10, 25, 50, 75, 100]
    bar = drawn.colorbar(shown, ax=axes, shrink=0.8, aspect=30, ticks=ticks)
    bar.set_label("% of the class's images")
    size, places = 9 if few else 6, range(len(class_names))
    axes.set_xticks(places, class_names, rotation=90, fontsize=size)
    axes.set_yticks(places, class_names, fontsize=size)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("class")
    axes.set_title("Confusion matrix of the clean test images")
    if not few:
        axes.tick_params(length=1, pad=1)
        return png(drawn)
    for (row, column), value in np.ndenumerate(share):
        if value > 0:
            text = f"{value:.0f}" if value >= 0.5 else "<1"
            color = "white" if value > 35 else "#222222"
            axes.text(column, row, text, ha="center", va="center", fontsize=9, color=color)
    return png(drawn)


def operation_bars(counts: Mapping[str, int]) -> bytes:
    """Plots how often each operation was applied, and the mean over operations as a line.

    Args:
        counts: operation -> number of applications.
    """
    drawn = figure(4.6, 0.8 + 0.26 * len(counts))
    axes = drawn.subplots()
    bars = axes.barh(list(counts), list(counts.values()), color=BLUE)
    axes.bar_label(bars, padding=3, fontsize=9)
    axes.invert_yaxis()
    axes.margins(x=0.1)
    total = sum(counts.values())
    axes.axvline(total / len(counts), color=GREY, linestyle="--", linewidth=1)
    finish(axes, f"applied in one batch ({total:,}; dashed: mean)", "")
    axes.grid(visible=False, axis="y")
    return png(drawn)


def corruption_bars(methods: Mapping[str, Mapping[str, Estimate]], title: str) -> bytes:
    """Plots the error on clean images and on each corruption, one bar per method.

    Args:
        methods: label -> corruption, `clean` or `mean` -> error and standard deviation. Corruptions
            that no method has are marked as excluded.
        title: of the figure.
    """
    drawn = figure(13.5, 5.2)
    axes = drawn.subplots()
    places, centers = _bar_places()
    width = 0.84 / max(len(methods), 1)
    for number, (label, errors) in enumerate(methods.items()):
        shift = (number - (len(methods) - 1) / 2) * width
        bars = [
            (places[name] + shift, 100 * mean, 100 * (deviation or 0.0))
            for name, (mean, deviation) in errors.items()
            if mean is not None
        ]
        _bars(axes, bars, width, label, look(number), with_values=len(methods) == 1)
    finish(axes, "", "error (%)")
    axes.grid(visible=False, axis="x")
    axes.set_xticks(list(places.values()), [short_name(name) for name in places])
    axes.set_xlim(-0.7, max(places.values()) + 0.7)
    axes.tick_params(axis="x", length=0)
    above = {"transform": axes.get_xaxis_transform(), "ha": "center", "va": "bottom"}
    for group, center in centers.items():
        axes.text(center, 1.01, group, color=GREY, fontsize=11, **above)
    for name, place in places.items():
        if all(errors.get(name, (None, None))[0] is None for errors in methods.values()):
            axes.text(place, 0.01, "excluded", color=GREY, rotation=90, **above)
    drawn.suptitle(title, fontsize=13)
    _legend(drawn, axes, len(methods))
    return png(drawn)


def severity_curves(methods: Mapping[str, Points], title: str, y_label: str) -> bytes:
    """Plots a metric over the severity of the corruption, 0 (clean) to 5, one line per method.

    Args:
        methods: label -> points; a point without a mean is left out.
        title: of the figure.
        y_label: metric and unit (%).
    """
    drawn = figure(7.4, 5.0)
    axes = drawn.subplots()
    for number, (label, points) in enumerate(methods.items()):
        known = [(s, 100 * mean, 100 * (std or 0)) for s, mean, std in points if mean is not None]
        if not known:
            continue
        severities, means, deviations = zip(*known, strict=True)
        style = look(number)
        axes.errorbar(
            severities, means, yerr=deviations if any(deviations) else None, label=label,
            color=style.color, marker=style.marker, linestyle=style.line, linewidth=2, markersize=7,
            markeredgecolor="#333333", markeredgewidth=0.6, capsize=3, elinewidth=1, clip_on=False,
        )  # fmt: skip
    finish(axes, "severity of the corruption", y_label)
    axes.set_xticks([0, *SEVERITIES], ["clean", *map(str, SEVERITIES)])
    axes.set_ylim(bottom=0)
    drawn.suptitle(title, fontsize=13)
    _legend(drawn, axes, len(methods))
    return png(drawn)


def reliability(panels: Mapping[str, Mapping[str, Bins]], title: str = "") -> bytes:
    """Plots reliability diagrams side by side: accuracy over confidence of each bin.

    Points below the diagonal are overconfident. The area of a point is proportional to the images
    in its bin. With a single series, lines show the gap between points and diagonal.

    Args:
        panels: title -> series -> bins. The first two series of a panel are drawn.
        title: of the figure.
    """
    columns = min(len(panels), PANELS_PER_ROW)
    rows = math.ceil(len(panels) / columns)
    side = 4.8 if columns < 3 else 3.7
    drawn = figure(side * columns, (side + 0.45) * rows)
    grid = drawn.subplots(rows, columns, squeeze=False, sharey=True)
    for number, (axes, panel) in enumerate(zip(grid.flat, panels.items(), strict=False)):
        _diagram(axes, *panel)
        lowest = number + columns >= len(panels)
        y_label = "accuracy" if number % columns == 0 else ""
        finish(axes, "confidence" if lowest else "", y_label)
        if number == 0 or columns < 3:
            axes.legend(frameon=False, loc="upper left", fontsize=9)
    for axes in list(grid.flat)[len(panels) :]:
        axes.set_visible(False)
    if title:
        drawn.suptitle(title, fontsize=13)
    return png(drawn)


def _curve(
    panel: Axes,
    epochs: Sequence[float],
    values: Sequence[float],
    factor: float,
    label: str,
    color: str,
) -> None:
    # The test error may be in every fifth row only: its points are joined over the gaps.
    points = [
        (epoch, factor * value)
        for epoch, value in zip(epochs, values, strict=False)
        if math.isfinite(value)
    ]
    if points:
        marker = "o" if len(points) <= MAX_MARKED_POINTS else None
        x, y = zip(*points, strict=True)
        # Not clipped: markers on the axes stay whole.
        panel.plot(x, y, color=color, label=label, marker=marker, markersize=3, clip_on=False)


def _bar_places() -> tuple[dict[str, float], dict[str, float]]:
    """Position of each corruption's bars, and the center of each group."""
    places: dict[str, float] = {}
    centers = {}
    start = 0.0
    for group, names in ({"": ("clean",)} | CORRUPTION_GROUPS | {" ": ("mean",)}).items():
        places |= {name: start + i for i, name in enumerate(names)}
        centers[group] = start + (len(names) - 1) / 2
        start += len(names) + GROUP_GAP
    return places, centers


def _bars(
    axes: Axes,
    bars: Sequence[tuple[float, float, float]],
    width: float,
    label: str,
    style: Look,
    with_values: bool,
) -> None:
    if not bars:
        return
    places, heights, deviations = zip(*bars, strict=True)
    drawn = axes.bar(
        places, heights, width, yerr=deviations if any(deviations) else None, label=label,
        color=style.color, hatch=style.hatch, linewidth=0.5,
        edgecolor="white" if not style.hatch else "#00000066",
        error_kw={"elinewidth": 1, "capsize": 2, "ecolor": "#222222"},
    )  # fmt: skip
    if with_values:
        axes.bar_label(drawn, fmt="%.1f", padding=2, fontsize=9)


def _legend(drawn: Figure, axes: Axes, count: int) -> None:
    if count > 1:
        handles, labels = axes.get_legend_handles_labels()
        columns = min(count, 5)
        drawn.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)


def _diagram(axes: Axes, caption: str, series: Mapping[str, Bins]) -> None:
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--", label="perfectly calibrated")
    styles = ((BLUE, "o"), (ORANGE, "s"))
    for (label, bins), (color, marker) in zip(series.items(), styles, strict=False):
        filled = sorted(
            (b.confidence, b.accuracy, b.count)
            for b in bins
            if b.count > 0 and b.confidence is not None and b.accuracy is not None
        )
        if not filled:
            continue
        confidence, accuracy, counts = zip(*filled, strict=True)
        area = [14 + 76 * count / max(counts) for count in counts]
        if len(series) == 1:
            axes.vlines(confidence, confidence, accuracy, color=ORANGE, linewidth=2, label="gap")
        axes.plot(confidence, accuracy, color=color, linewidth=1, alpha=0.5)
        axes.scatter(
            confidence, accuracy, s=area, color=color, marker=marker, zorder=3, clip_on=False,
            label=label or "images of one bin", edgecolors="white", linewidths=0.5,
        )  # fmt: skip
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02), aspect="equal")
    axes.set_title(caption, fontsize=10)
