"""Reports and comparisons of runs, from the files of their directories: text, tables and plots.

This file has the text and tables in Markdown that they share.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from augmix_tf.evaluation.results import Data

ABSENT = "–"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], numbers_from: int = 1) -> str:
    """Returns a Markdown table of texts from `cell`, right-aligned from a column on."""
    rule = ["---" if i < numbers_from else "---:" for i in range(len(head))]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *rows))


def csv_text(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """Returns a CSV with these columns of the rows; others are left out, missing ones empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def plain(value: Any) -> str:
    """Returns the value of a setting as text."""
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return ", ".join(map(plain, value)) or "none"
    return cell(value)


def cell(value: object) -> str:
    """Returns text that is safe in a cell of a Markdown table."""
    return " ".join(str(value).split()).replace("|", "\\|")


def heading(title: str) -> str:
    """Returns a title with a capital first letter; words such as mCE stay as they are."""
    return title if title[1:2].isupper() else title[:1].upper() + title[1:]


def spoken(name: str) -> str:
    """Returns a name without underscores, such as `gaussian noise`."""
    return cell(name.replace("_", " "))


def integer(value: int | None) -> str:
    """Returns an integer with separators for thousands."""
    return ABSENT if value is None else f"{value:,}"


def describe(data: Data, unit: str) -> str:
    """Describes in one line where images come from; `unit` is what `data.images` counts."""
    facts = [data.description or data.source or "of unknown source"]
    if data.source and data.source not in facts[0]:
        facts.insert(0, data.source)
    if data.images is not None:
        facts.append(f"{data.images:,} {unit}")
    facts += [f"{n} {getattr(data, n)}" for n in ("seed", "table") if getattr(data, n) is not None]
    return " ".join(", ".join(facts).split())
