"""Plots of results, drawn with matplotlib, and a grid of views, returned as PNG files.

Plots take fractions and draw percentages. They are drawn without `pyplot`, which keeps global state
and may select a backend that needs a screen, and in the style below whatever matplotlib's own
configuration file says. Equal values give equal bytes.
"""

from __future__ import annotations

import functools
import inspect
import io
import math
import textwrap
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ParamSpec

import numpy as np
import numpy.typing as npt

from augmix_tf import robustness
from augmix_tf.metrics import ReliabilityBin
from augmix_tf.report.directories import Estimate
from augmix_tf.robustness import CORRUPTION_GROUPS, CORRUPTIONS, SEVERITIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Bins = Sequence[ReliabilityBin]
Arguments = ParamSpec("Arguments")

BLUE, ORANGE, GREEN, GREY = "#0b6fb5", "#d9640c", "#2a8a4a", "#767676"
STYLE = {
    # Names of classes and runs may contain `$`, which would start a formula.
    "text.parse_math": False,
    "figure.dpi": 120,
    "figure.constrained_layout.use": True,
    "figure.titlesize": 13,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
}
PANELS_PER_ROW = 4
# Up to so many points of a curve have markers.
MAX_MARKED_POINTS = 40
# Up to so many classes of a confusion matrix, each cell shows its number.
MAX_NUMBERED_CLASSES = 12
# Between groups of bars, in widths of a corruption.
GROUP_GAP = 0.6
# Of the grid of views: height in pixels; longer titles of rows are cut.
SMALLEST_CELL, MAX_LETTERS = 96, 24


# Color, marker, line and hatch of each series. The colors are those of Okabe and Ito, for all kinds
# of color vision; neighbors differ in lightness.
LOOKS = (
    ("#0072b2", "o", "-", ""),
    ("#e69f00", "s", "--", "////"),
    ("#009e73", "^", "-.", ""),
    ("#cc79a7", "D", ":", "...."),
    ("#333333", "v", "-", ""),
    ("#56b4e9", "P", "--", "\\\\\\\\"),
    ("#d55e00", "X", "-.", ""),
    ("#999999", "*", ":", "xxxx"),
    ("#8a4f9e", "<", "-", ""),
    ("#b8d67a", ">", "--", "----"),
)

# Panel of `curves`: y axis, factor on the values, and its lines as (column, label, color).
PANELS: Sequence[tuple[str, float, Sequence[tuple[str, str, str]]]] = (
    ("loss (nats)", 1.0, (("loss", "loss", BLUE), ("cross_entropy", "cross-entropy", ORANGE))),
    ("error (%)", 100.0, (("train_error", "train", BLUE), ("test_error", "test", ORANGE))),
    # In a panel of its own: it is far smaller than the loss.
    ("Jensen-Shannon divergence (nats)", 1.0, (("jsd", "Jensen-Shannon divergence", GREEN),)),
    ("learning rate", 1.0, (("learning_rate", "learning rate", GREY),)),
)


def styled(draw: Callable[Arguments, Figure]) -> Callable[Arguments, bytes]:
    """Decorator: draws a figure in `STYLE` and returns it as a PNG."""

    @functools.wraps(draw)
    def call(*args: Arguments.args, **kwargs: Arguments.kwargs) -> bytes:
        from matplotlib import style

        with style.context(["default", STYLE]):
            return png(draw(*args, **kwargs))

    return call


def as_figure(draw: Callable[Arguments, bytes], *args: Any) -> Figure:
    """Returns what a function of this module draws as a figure, which notebooks show."""
    from matplotlib import style

    with style.context(["default", STYLE]):
        drawn: Any = inspect.unwrap(draw)(*args)
    # Notebooks know figures of `pyplot` only.
    drawn._repr_png_ = functools.partial(png, drawn)
    return drawn


def png(drawn: Figure) -> bytes:
    """Returns a figure as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    content = io.BytesIO()
    FigureCanvasAgg(drawn).print_png(content)
    return content.getvalue()


def figure(width: float, height: float) -> Figure:
    """Returns an empty figure of this size in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height))


@styled
def curves(columns: Mapping[str, Sequence[float]]) -> Figure:
    """Plots the columns of `metrics.csv` that `PANELS` names over the epochs; NaN: no value."""
    drawn = figure(8.6, 5.6)
    grid = drawn.subplots(2, 2, sharex=True)
    for panel, (y_label, factor, lines) in zip(grid.flat, PANELS, strict=True):
        for column, label, color in lines:
            values = factor * np.array(columns.get(column, ()), float)
            # The test error may be in every fifth row only: its points are joined over the gaps.
            known = np.isfinite(values)
            if known.any():
                epochs, marker = np.array(columns["epoch"])[known], "o"
                # Not clipped: markers on the axes stay whole.
                panel.plot(
                    epochs, values[known], color=color, label=label, clip_on=False, markersize=3,
                    marker=marker if len(epochs) <= MAX_MARKED_POINTS else None,
                )  # fmt: skip
        panel.set(xlabel="epoch" if panel in grid[-1] else "", ylabel=y_label)
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.set_ylim(bottom=0)
        if len(panel.get_lines()) > 1:
            panel.legend()
        elif not panel.get_lines():
            panel.text(0.5, 0.5, "not recorded", transform=panel.transAxes, color=GREY, ha="center")
    return drawn


@styled
def confusion_matrix(class_names: Sequence[str], counts: Sequence[Sequence[int]]) -> Figure:
    """Plots a confusion matrix, in percent of the images of each class.

    `counts[i][j]` images of class i were predicted as class j. Colors follow the square root, so
    that rare errors are visible.
    """
    from matplotlib.colors import PowerNorm

    table = np.asarray(counts, np.float64)
    images = table.sum(axis=1, keepdims=True)
    share = 100 * np.divide(table, images, out=np.zeros_like(table), where=images > 0)
    few = len(class_names) <= MAX_NUMBERED_CLASSES
    side = 2.6 + 0.55 * len(class_names) if few else 3.0 + 0.11 * len(class_names)
    drawn = figure(side + 1.0, side)
    axes = drawn.subplots()
    axes.grid(False)
    axes.spines[:].set_visible(True)
    shown = axes.imshow(share, cmap="Blues", norm=PowerNorm(0.5, 0, 100))
    ticks = [0, 1, 5, 10, 25, 50, 75, 100]
    bar = drawn.colorbar(shown, ax=axes, shrink=0.8, aspect=30, ticks=ticks)
    bar.set_label("% of the class's images")
    size, places = 9 if few else 6, range(len(class_names))
    axes.set_xticks(places, class_names, rotation=90, fontsize=size)
    axes.set_yticks(places, class_names, fontsize=size)
    axes.set(xlabel="predicted class", ylabel="class")
    axes.set_title("Confusion matrix of the clean test images")
    if not few:
        axes.tick_params(length=1, pad=1)
        return drawn
    for (row, column), value in np.ndenumerate(share):
        if value > 0:
            text = f"{value:.0f}" if value >= 0.5 else "<1"
            color = "white" if value > 35 else "#222222"
            axes.text(column, row, text, ha="center", va="center", fontsize=9, color=color)
    return drawn


@styled
def corruption_bars(methods: Mapping[str, Mapping[str, Estimate]], title: str) -> Figure:
    """Plots errors by corruption, `clean` and `mean`, one bar per method.

    Corruptions of the benchmark that no method has are marked as excluded.
    """
    drawn = figure(13.5, 5.2)
    axes = drawn.subplots()
    places, centers = _bar_places({name for errors in methods.values() for name in errors})
    width = 0.84 / max(len(methods), 1)
    for number, (label, errors) in enumerate(methods.items()):
        (color, *_, hatch), shift = LOOKS[number % len(LOOKS)], number - (len(methods) - 1) / 2
        known = {name: error for name, error in errors.items() if error.mean is not None}
        if not known:
            continue
        means, deviations = 100 * np.array([(e.mean, e.deviation or 0) for e in known.values()]).T
        bars = axes.bar(
            [places[name] + shift * width for name in known], means, width, label=label,
            yerr=deviations if any(deviations) else None, linewidth=0.5,
            color=color, hatch=hatch,
            edgecolor="white" if not hatch else "#00000066",
            error_kw={"elinewidth": 1, "capsize": 2, "ecolor": "#222222"},
        )  # fmt: skip
        if len(methods) == 1:
            axes.bar_label(bars, fmt="%.1f", padding=2, fontsize=9)
    axes.set_ylabel("error (%)")
    axes.grid(visible=False, axis="x")
    axes.set_xticks(list(places.values()), [name.partition("_")[0] for name in places])
    axes.set_xlim(-0.7, max(places.values()) + 0.7)
    axes.tick_params(axis="x", length=0)
    above: dict[str, Any] = {"ha": "center", "va": "bottom", "color": GREY}
    above["transform"] = axes.get_xaxis_transform()
    for group, center in centers.items():
        axes.text(center, 1.01, group, fontsize=11, **above)
    for name, place in places.items():
        if all(errors.get(name, Estimate(None)).mean is None for errors in methods.values()):
            axes.text(place, 0.01, "excluded", rotation=90, **above)
    _add_title_and_legend(drawn, axes, title)
    return drawn


@styled
def severity_curves(methods: Mapping[str, Sequence[Estimate]], title: str, y_label: str) -> Figure:
    """Plots a metric over the severity of the corruption, 0 (clean) to 5, one line per method."""
    drawn = figure(7.4, 5.0)
    axes = drawn.subplots()
    for number, (label, points) in enumerate(methods.items()):
        known = [(s, p.mean, p.deviation or 0) for s, p in enumerate(points) if p.mean is not None]
        if not known:
            continue
        severities, means, deviations = np.array(known).T * [[1], [100], [100]]
        color, marker, line, _ = LOOKS[number % len(LOOKS)]
        axes.errorbar(
            severities, means, yerr=deviations if any(deviations) else None, label=label,
            color=color, marker=marker, linestyle=line, linewidth=2, markersize=7,
            markeredgecolor="#333333", markeredgewidth=0.6, capsize=3, elinewidth=1, clip_on=False,
        )  # fmt: skip
    axes.set(xlabel="severity of the corruption", ylabel=y_label)
    axes.set_xticks([0, *SEVERITIES], ["clean", *map(str, SEVERITIES)])
    axes.set_ylim(bottom=0)
    _add_title_and_legend(drawn, axes, title)
    return drawn


@styled
def reliability(panels: Mapping[str, Mapping[str, Bins]], title: str = "") -> Figure:
    """Plots reliability diagrams side by side: accuracy over confidence of each bin.

    Points below the diagonal are overconfident. The area of a point is proportional to the images
    in its bin. With a single series, lines show the gap between points and diagonal.
    """
    columns = min(len(panels), PANELS_PER_ROW)
    rows = math.ceil(len(panels) / columns)
    side = 4.8 if columns < 3 else 3.7
    drawn = figure(side * columns, (side + 0.45) * rows)
    grid = drawn.subplots(rows, columns, squeeze=False, sharey=True)
    for number, (axes, panel) in enumerate(zip(grid.flat, panels.items(), strict=False)):
        _diagram(axes, *panel)
        is_lowest = number + columns >= len(panels)
        axes.set_xlabel("confidence" if is_lowest else "")
        axes.set_ylabel("accuracy" if number % columns == 0 else "")
        if number == 0 or columns < 3:
            axes.legend(loc="upper left", fontsize=9)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    if title:
        drawn.suptitle(title)
    return drawn


def _bar_places(names: Collection[str]) -> tuple[dict[str, float], dict[str, float]]:
    """Position of each corruption's bars, and the center of each group, of the names' benchmark."""
    benchmark = robustness.counted(names)
    groups = CORRUPTION_GROUPS
    if benchmark != CORRUPTIONS:
        groups = {robustness.title(names): benchmark}
    places: dict[str, float] = {}
    centers = {}
    start = 0.0
    for group, members in ({"": ("clean",)} | groups | {" ": ("mean",)}).items():
        places |= {name: start + i for i, name in enumerate(members)}
        centers[group] = start + (len(members) - 1) / 2
        start += len(members) + GROUP_GAP
    return places, centers


def _add_title_and_legend(drawn: Figure, axes: Axes, title: str) -> None:
    drawn.suptitle(title)
    handles, labels = axes.get_legend_handles_labels()
    if len(labels) > 1:
        drawn.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 5))


def _diagram(axes: Axes, caption: str, series: Mapping[str, Bins]) -> None:
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--", label="perfectly calibrated")
    styles = ((BLUE, "o"), (ORANGE, "s"))
    for (label, bins), (color, marker) in zip(series.items(), styles, strict=False):
        filled = sorted((b.confidence, b.accuracy, b.count) for b in bins if b.count > 0)
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


@styled
def views_grid(views: npt.ArrayLike, titles: Sequence[str]) -> Figure:
    """Draws one row per image with its title: the original, then its augmented views.

    `views` are [N, V, H, W, 3], 0..255, with the original first.
    """
    pixels = np.rint(np.clip(np.asarray(views), 0, 255)).astype(np.uint8)
    rows, columns, height, width, _ = pixels.shape
    scale = max(SMALLEST_CELL, height) / height / STYLE["figure.dpi"]
    drawn = figure(columns * width * scale + 1.5, rows * height * scale + 0.5)
    grid = drawn.subplots(rows, columns, squeeze=False)
    for (row, column), axes in np.ndenumerate(grid):
        axes.imshow(pixels[row, column])
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        if row == 0:
            axes.set_title(f"view {column}" if column else "original", fontsize=10)
    for axes, title in zip(grid[:, 0], titles, strict=True):
        text = textwrap.shorten(title, MAX_LETTERS, placeholder="…")
        axes.set_ylabel(text, rotation=0, ha="right", va="center")
    return drawn
