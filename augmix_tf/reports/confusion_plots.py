"""A plot of which class is taken for which."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from augmix_tf.reports import drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Up to so many classes, each cell has its number written in it.
NUMBERED = 12


def confusion_matrix(class_names: Sequence[str], counts: Sequence[Sequence[int]]) -> bytes:
    """Draws what the images of each class are taken for, in per cent of the class.

    Colours follow the square root, so that rare errors are seen beside the right answers.

    Args:
        class_names: of the K classes.
        counts: [K, K], images of the row's class that were taken for the column's.

    Returns:
        A PNG. Rows of classes without an image are empty.
    """
    from matplotlib.colors import PowerNorm

    table = np.asarray(counts, np.float64)
    images = table.sum(axis=1, keepdims=True)
    share = 100 * np.divide(table, images, out=np.zeros_like(table), where=images > 0)
    few = len(class_names) <= NUMBERED
    side = 2.6 + 0.55 * len(class_names) if few else 3.0 + 0.11 * len(class_names)
    figure = drawing.figure(side + 1.0, side)
    axes = figure.subplots()
    shown = axes.imshow(share, cmap="Blues", norm=PowerNorm(0.5, 0, 100))
    bar = figure.colorbar(
        shown, ax=axes, shrink=0.8, aspect=30, ticks=[0, 1, 5, 10, 25, 50, 75, 100]
    )
    bar.set_label("% of the class's images")
    size = 9 if few else 6
    places = range(len(class_names))
    axes.set_xticks(places, class_names, rotation=90, fontsize=size)
    axes.set_yticks(places, class_names, fontsize=size)
    axes.set_xlabel("answer")
    axes.set_ylabel("class")
    axes.set_title("What the clean test images of a class are taken for")
    if few:
        _numbers(axes, share)
    else:
        axes.tick_params(length=1, pad=1)
    return drawing.png(figure)


def _numbers(axes: Axes, share: np.ndarray) -> None:
    for (row, column), value in np.ndenumerate(share):
        if value > 0:
            text = f"{value:.0f}" if value >= 0.5 else "<1"
            colour = "white" if value > 35 else "#222222"
            axes.text(column, row, text, ha="center", va="center", fontsize=9, color=colour)
