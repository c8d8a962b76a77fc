"""Words and tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

ABSENT = "–"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], numbers_from: int = 1) -> str:
    """Returns a Markdown table.

    Args:
        head: the title of each column.
        rows: cells, which hold neither line ends nor bare bars.
        numbers_from: columns from this one on are set to the right.
    """
    rule = ["---" if i < numbers_from else "---:" for i in range(len(head))]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *rows))


def percent(share: float | None, digits: int = 2) -> str:
    """Writes a fraction in per cent, without the sign: 0.25 is `25.00`."""
    return ABSENT if share is None else f"{100 * share:.{digits}f}"


def plain(value: Any) -> str:
    """Writes a setting for people."""
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return ", ".join(plain(entry) for entry in value) or "none"
    return cell(value)


def cell(value: object) -> str:
    """Text that stays within its cell of a Markdown table."""
    return " ".join(str(value).split()).replace("|", "\\|")


def spoken(name: str) -> str:
    """`gaussian_noise` as a person writes it."""
    return cell(name.replace("_", " "))
