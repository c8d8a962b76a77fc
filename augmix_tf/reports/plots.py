"""Plots of one run: its curves over the epochs, and how calibrated it is.

Everything goes through matplotlib's object interface: `pyplot` would keep global state, and pick a
backend that may want a screen.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, GREY = "#0b6fb5", "#d9640c", "#2a8a4a", "#767676"
DPI = 120
FEW_POINTS = 40  # up to so many, each is marked

# Panel: y axis, factor on the values, and its lines as (column, label, colour).
PANELS: Sequence[tuple[str, float, Sequence[tuple[str, str, str]]]] = (
    (
        "loss (nats)",
        1.0,
        (("loss", "loss", BLUE), ("cross_entropy", "cross-entropy", ORANGE)),
    ),
    ("error (%)", 100.0, (("train_error", "train", BLUE), ("test_error", "test", ORANGE))),
    # Far smaller than the loss, which holds it times its weight.
    ("Jensen-Shannon divergence (nats)", 1.0, (("jsd", "Jensen-Shannon divergence", GREEN),)),
    ("learning rate", 1.0, (("learning_rate", "learning rate", GREY),)),
)


def curves(columns: Mapping[str, Sequence[float]]) -> bytes:
    """Draws loss, error, divergence and learning rate over the epochs.

    Args:
        columns: equally long; `epoch` and any of loss, cross_entropy, jsd (nats), train_error,
            test_error (shares) and learning_rate. NaN where there is no value.

    Returns:
        A PNG.
    """
    figure = _figure(8.6, 5.6)
    axes = figure.subplots(2, 2, sharex=True)
    for panel, (y_label, factor, lines) in zip(axes.flat, PANELS, strict=True):
        for column, label, colour in lines:
            _line(panel, columns["epoch"], columns.get(column, ()), factor, label, colour)
        _finish(panel, "epoch" if panel in axes[-1] else "", y_label)
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.set_ylim(bottom=0)
        if len(panel.get_lines()) > 1:
            panel.legend(frameon=False)
        elif not panel.get_lines():
            panel.text(0.5, 0.5, "not recorded", transform=panel.transAxes, color=GREY, ha="center")
    return _png(figure)


def reliability(bins: Sequence[Mapping[str, float]], caption: str) -> bytes:
    """Draws a reliability diagram: accuracy against confidence, bin by bin.

    A point on the diagonal is a bin whose answers are right as often as the model says; the line
    from a point to the diagonal is the bin's gap. A point's area follows the images in its bin.

    Args:
        bins: each with `confidence`, `accuracy` (shares) and `count`; bins of count 0 are left out.
        caption: a line over the diagram.

    Returns:
        A PNG.
    """
    filled = sorted((b for b in bins if b["count"] > 0), key=lambda b: b["confidence"])
    confidence = [b["confidence"] for b in filled]
    accuracy = [b["accuracy"] for b in filled]
    most = max((b["count"] for b in filled), default=1)
    area = [14 + 76 * b["count"] / most for b in filled]

    figure = _figure(4.8, 4.9)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--", label="perfectly calibrated")
    axes.vlines(confidence, confidence, accuracy, color=ORANGE, linewidth=2, label="gap")
    axes.plot(confidence, accuracy, color=BLUE, linewidth=1, alpha=0.5)
    axes.scatter(confidence, accuracy, s=area, color=BLUE, zorder=3, label="images of one bin")
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02), aspect="equal")
    axes.set_title(caption, fontsize=10)
    _finish(axes, "confidence", "accuracy")
    axes.legend(frameon=False, loc="upper left")
    return _png(figure)


def _line(
    panel: Axes,
    epochs: Sequence[float],
    values: Sequence[float],
    factor: float,
    label: str,
    colour: str,
) -> None:
    # Test error may stand in every fifth row only: its points are still to be joined.
    points = [
        (epoch, factor * value)
        for epoch, value in zip(epochs, values, strict=False)
        if math.isfinite(value)
    ]
    if points:
        marker = "o" if len(points) <= FEW_POINTS else None
        x, y = zip(*points, strict=True)
        panel.plot(x, y, color=colour, label=label, marker=marker, markersize=3)


def _finish(axes: Axes, x_label: str, y_label: str) -> None:
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(color="#e4e4e4", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")


def _png(figure: Figure) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    png = io.BytesIO()
    FigureCanvasAgg(figure).print_png(png)
    return png.getvalue()
