"""Errors that a user can act on, and the checks that raise them."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Mapping
from typing import TypeVar

T = TypeVar("T")


class CommandError(ValueError):
    """The request itself is wrong (a flag, a name, a setting): exit code 2."""


class RunError(RuntimeError):
    """A sound request that could not be carried out (data, disk, divergence): exit code 1."""


class Interrupted(Exception):  # noqa: N818 - it is no error
    """SIGINT or SIGTERM asked the run to stop and it did, with everything saved."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signal_number).name}, run again to go on")
        self.signal_number = signal_number


def unknown_name(kind: str, name: str, names: Iterable[str]) -> str:
    """Says that `name` is no `kind`, which name is nearest, and what there is.

    >>> unknown_name("model", "wnr", ["allconv", "wrn"])
    "unknown model 'wnr', did you mean 'wrn'? Known: allconv, wrn"
    """
    known = sorted(names)
    return f"unknown {kind} {name!r}{nearest_name(name, known)} Known: {', '.join(known)}"


def nearest_name(name: str, names: Iterable[str]) -> str:
    """Returns ", did you mean 'x'?" for the nearest name, or "." where none is near.

    >>> nearest_name("modle", ["method", "mode", "model"])
    ", did you mean 'model'?"
    """
    ranked = [(_edits(name, other), abs(len(name) - len(other)), other) for other in names]
    edits, _, near = min(ranked, default=(len(name), 0, ""))
    return f", did you mean {near!r}?" if near and edits <= max(2, len(near) // 2) else "."


def _edits(name: str, other: str) -> int:
    """Letters to insert, delete, replace or swap to come from one name to the other."""
    before: list[int] = []
    last = list(range(len(other) + 1))
    for i, letter in enumerate(name, 1):
        row = [i]
        for j, wanted in enumerate(other, 1):
            edits = [row[-1] + 1, last[j] + 1, last[j - 1] + (letter != wanted)]
            if i > 1 and j > 1 and letter == other[j - 2] and wanted == name[i - 2]:
                edits.append(before[j - 2] + 1)
            row.append(min(edits))
        before, last = last, row
    return last[-1]


def lookup(kind: str, name: str, table: Mapping[str, T]) -> T:
    """Returns `table[name]`.

    Raises:
        CommandError: no such name; the message holds the nearest one.
    """
    if name not in table:
        raise CommandError(unknown_name(kind, name, table))
    return table[name]


def require(condition: bool, wanted: str, got: object) -> None:
    """Raises `CommandError("want <wanted>, got <got>")` unless `condition` holds."""
    if not condition:
        raise CommandError(f"want {wanted}, got {got}")
