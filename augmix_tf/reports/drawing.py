"""What all plots share: canvas, colours, marks.

Everything goes through matplotlib's object interface: `pyplot` would keep global state, and pick a
backend that may want a screen.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, GREY = "#0b6fb5", "#d9640c", "#2a8a4a", "#767676"
DPI = 120


class Look(NamedTuple):
    """How one of several series is told from the others, also without colours."""

    colour: str
    marker: str
    line: str
    hatch: str


# Okabe and Ito's colours for all kinds of colour vision; neighbours differ in lightness.
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


def look(number: int) -> Look:
    """Returns the look of a series; from the eleventh on they come again."""
    return LOOKS[number % len(LOOKS)]


def figure(width: float, height: float) -> Any:
    """Returns an empty figure of this size in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")


def finish(axes: Axes, x_label: str, y_label: str) -> None:
    """Labels a panel and takes away what is not needed to read it."""
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(color="#e4e4e4", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def png(drawn: Figure) -> bytes:
    """Returns a figure as a PNG; the same figure gives the same bytes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    content = io.BytesIO()
    FigureCanvasAgg(drawn).print_png(content)
    return content.getvalue()
