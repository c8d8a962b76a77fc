"""The curves of one run over its epochs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from augmix_tf.reports import drawing
from augmix_tf.reports.drawing import BLUE, GREEN, GREY, ORANGE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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
    figure = drawing.figure(8.6, 5.6)
    axes = figure.subplots(2, 2, sharex=True)
    for panel, (y_label, factor, lines) in zip(axes.flat, PANELS, strict=True):
        for column, label, colour in lines:
            _line(panel, columns["epoch"], columns.get(column, ()), factor, label, colour)
        drawing.finish(panel, "epoch" if panel in axes[-1] else "", y_label)
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.set_ylim(bottom=0)
        if len(panel.get_lines()) > 1:
            panel.legend(frameon=False)
        elif not panel.get_lines():
            panel.text(0.5, 0.5, "not recorded", transform=panel.transAxes, color=GREY, ha="center")
    return drawing.png(figure)


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
