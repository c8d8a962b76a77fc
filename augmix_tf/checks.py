"""Errors that a user can act on, and the checks that raise them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar

T = TypeVar("T")


class CommandError(ValueError):
    """The request itself is wrong (a flag, a name, a setting): exit code 2."""


class RunError(RuntimeError):
    """A sound request that could not be carried out (data, disk, divergence): exit code 1."""


def unknown_name(kind: str, name: str, names: Iterable[str]) -> str:
    """Says that `name` is no `kind`, which name is nearest, and what there is.

    >>> unknown_name("model", "wnr", ["allconv", "wrn"])
    "unknown model 'wnr', did you mean 'wrn'? Known: allconv, wrn"
    """
    known = sorted(names)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f", did you mean {near[0]!r}?" if near else "."
    return f"unknown {kind} {name!r}{hint} Known: {', '.join(known)}"


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
