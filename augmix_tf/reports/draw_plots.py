"""A plot of the operations that chance chose."""

from __future__ import annotations

from collections.abc import Mapping

from augmix_tf.reports import drawing
from augmix_tf.reports.drawing import BLUE, GREY


def operation_bars(counts: Mapping[str, int]) -> bytes:
    """Draws how often each operation was applied, and the mean over all of them as a line.

    Args:
        counts: operation -> how often.

    Returns:
        A PNG.
    """
    figure = drawing.figure(4.6, 0.8 + 0.26 * len(counts))
    axes = figure.subplots()
    bars = axes.barh(list(counts), list(counts.values()), color=BLUE)
    axes.bar_label(bars, padding=3, fontsize=9)
    axes.invert_yaxis()
    axes.margins(x=0.1)
    total = sum(counts.values())
    axes.axvline(total / len(counts), color=GREY, linestyle="--", linewidth=1)
    drawing.finish(axes, f"applied in one batch ({total:,}; dashed: mean)", "")
    axes.grid(visible=False, axis="y")
    return drawing.png(figure)
