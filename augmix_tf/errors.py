"""Errors that a user can act on, and the checks that raise them.

Each is a kind of a built-in error and says what is wrong, what was received and what to do. The
command line turns them into one line and an exit code.
"""

from __future__ import annotations

import difflib
import re
import signal
from collections.abc import Iterable, Mapping
from typing import TypeVar

T = TypeVar("T")

LONGEST_LINE = 240  # of another package's message that is quoted


class ArgumentError(ValueError):
    """An argument, a setting or a name is wrong (exit code 2)."""


class SettingError(ArgumentError):
    """A setting has a wrong value; the command line names its flag.

    `setting` is its name and `problem` what is wrong with it.
    """

    def __init__(self, setting: str, problem: str) -> None:
        super().__init__(f"{setting} {problem}")
        self.setting, self.problem = setting, problem


class CommandError(ArgumentError):
    """A command line is wrong; only the commands raise it, and only its message names flags."""


class FileError(OSError):
    """A file or dataset is missing or unreadable, or cannot be written (exit code 1)."""


class RunError(RuntimeError):
    """Training or evaluation cannot continue, as when the loss is not finite (exit code 1)."""


class Interrupted(Exception):  # noqa: N818 - it is no error
    """SIGINT or SIGTERM stopped the run after its state was saved."""

    def __init__(self, signal_number: int) -> None:
        name = signal.Signals(signal_number).name
        super().__init__(f"Stopped by {name}. Run the same command again to resume.")
        self.signal_number = signal_number


def unknown_name(kind: str, name: str, names: Iterable[str]) -> str:
    """Returns a message for a `name` that is no `kind`, with the nearest name and all known ones.

    >>> unknown_name("model", "wnr", ["allconv", "wrn"])
    "Unknown model 'wnr'. Did you mean 'wrn'? Known: allconv, wrn."
    """
    known = sorted(names)
    return f"Unknown {kind} {name!r}.{nearest_name(name, known)} Known: {', '.join(known)}."


def nearest_name(name: str, names: Iterable[str]) -> str:
    """Returns " Did you mean 'x'?" with the one or two nearest names, or "" where none is near.

    >>> nearest_name("modle", ["method", "mode", "model"])
    " Did you mean 'mode' or 'model'?"
    """
    near = difflib.get_close_matches(name, list(names), n=2)
    return f" Did you mean {' or '.join(map(repr, near))}?" if near else ""


def lookup(kind: str, name: str, table: Mapping[str, T]) -> T:
    """Returns `table[name]`, or raises `ArgumentError` with the nearest name."""
    if name not in table:
        raise ArgumentError(unknown_name(kind, name, table))
    return table[name]


def require(condition: bool, expected: str, received: object) -> None:
    """Raises `ArgumentError("Expected <expected>; received <received>.")` unless `condition`."""
    if not condition:
        raise ArgumentError(f"Expected {expected}; received {received}.")


def first_line(error: BaseException) -> str:
    """Returns what happened, the first line of an error's message; its type without a message."""
    text = str(getattr(error, "message", error)).strip()
    # What TensorFlow says of its graph, and TFDS of its builders.
    text = re.sub(r"^Failed to construct dataset .*?}\": |{{.*?}} ?| ?\[Op:.*", "", text)
    line = (text.strip().splitlines() or [type(error).__name__])[0].strip().rstrip(":.")
    return line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]}..."
