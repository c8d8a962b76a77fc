"""How a setting is declared: once, as a field of a frozen dataclass that carries its metadata.

Flags, `--help`, range checks, the refusal of settings that a command does not use, the identity of
a run, what workers must agree on, and the columns of a comparison are all derived from it.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import numbers
import types
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from augmix_tf.errors import SettingError, unknown_name

Record = TypeVar("Record")
Resume = Literal["fixed", "evaluation", "free"]

GROUPS = ("Request", "Data", "Model", "Method", "Training", "Devices", "Evaluation", "Benchmarks")

# Modes that a setting may belong to. `evaluate_model` is `--mode=evaluate` of a saved model;
# `--mode=config` takes what `train` takes.
RUN_MODES = ("train", "evaluate", "export")
USES = (*RUN_MODES, "evaluate_model", "corrupt", "report", "views")


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is known of a setting beside its name, type and default.

    Attributes:
        help: noun phrase with unit; the command line adds the default.
        group: heading of `--help`, one of `GROUPS`.
        low, high: bounds of a number, included.
        above: bound of a number, excluded.
        choices: names that a text may have.
        modes: modes of the program that use it.
        needs: name of another setting -> its values under which this one is used; the value
            `...` stands for any that is set.
        datasets: kinds of datasets that it applies to (`recipes.dataset_kind`); empty: all.
        resume: "fixed": another value makes another run; "evaluation": a finished run may be
            evaluated with another value; "free": a run may also be resumed with another value.
        names_run: whether a comparison names it when runs differ in it.
        path: whether it is a path (or several), which may differ between machines.
        per_worker: whether workers that train together may differ in it.
    """

    help: str
    group: str
    low: float | None = None
    high: float | None = None
    above: float | None = None
    choices: tuple[str, ...] = ()
    modes: tuple[str, ...] = RUN_MODES
    needs: Mapping[str, tuple[Any, ...]] = dataclasses.field(default_factory=dict)
    datasets: tuple[str, ...] = ()
    resume: Resume = "fixed"
    names_run: bool = True
    path: bool = False
    per_worker: bool = False


def setting(default: Any, help: str, group: str, **facts: Any) -> Any:
    """Declares a field of a frozen dataclass as a setting; `facts` are fields of `Setting`."""
    if group == "Method":  # `--mode=views` shows what a method does
        facts = {"modes": (*RUN_MODES, "views")} | facts
    if isinstance(default, list | dict):
        raise TypeError("The default of a setting must be immutable.")
    metadata = {"setting": Setting(help, group, **facts)}
    return dataclasses.field(default=default, metadata=metadata)


def alias(record: Any, name: str, **changes: Any) -> Any:
    """Declares a field as a setting of another record, with the same default and metadata.

    Args:
        record: the dataclass that declares the setting.
        name: its name there.
        changes: fields of `Setting` that differ here.
    """
    field = next(f for f in dataclasses.fields(record) if f.name == name)
    declared = dataclasses.replace(field.metadata["setting"], **changes)
    return dataclasses.field(default=field.default, metadata={"setting": declared})


def settings_of(record: Any) -> dict[str, Setting]:
    """Returns name -> `Setting` of the fields of a dataclass or its instance that are settings."""
    fields = dataclasses.fields(record)
    return {f.name: f.metadata["setting"] for f in fields if "setting" in f.metadata}


def kinds_of(record: Any) -> dict[str, tuple[type, ...]]:
    """Returns name -> types that the value of a setting may have, such as `(int, NoneType)`."""
    return _kinds_of(record if isinstance(record, type) else type(record))


@functools.cache
def _kinds_of(record: type) -> dict[str, tuple[type, ...]]:
    hints = get_type_hints(record)
    kinds: dict[str, tuple[type, ...]] = {}
    for name in settings_of(record):
        union = get_origin(hints[name]) in (Union, types.UnionType)
        members = get_args(hints[name]) if union else (hints[name],)
        kinds[name] = tuple(get_origin(member) or member for member in members)
    return kinds


def values_of(record: Any) -> dict[str, Any]:
    """Returns name -> value of the settings of a record."""
    return {name: getattr(record, name) for name in settings_of(record)}


def check(record: Any) -> None:
    """Checks every setting of a record against its declaration; called by `__post_init__`.

    Raises:
        SettingError: a value of another type, out of range or not among the choices.
    """
    kinds = kinds_of(record)
    for name, declared in settings_of(record).items():
        value = getattr(record, name)
        check_value(name, value, declared, kinds[name])


def check_value(name: str, value: Any, declared: Setting, kinds: tuple[type, ...]) -> None:
    """Raises `SettingError` unless a value has one of its types and keeps within its bounds."""
    if value is None and type(None) in kinds:
        return
    if not _has_kind(value, kinds):
        wanted = next(kind.__name__ for kind in kinds if kind is not type(None))
        raise SettingError(name, f"must be of type {wanted}; received {value!r}.")
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if number and not math.isfinite(value):
        raise SettingError(name, f"must be finite; received {value}.")
    if declared.choices and value not in declared.choices:
        raise SettingError(name, f"is not valid: {unknown_name('name', value, declared.choices)}")
    if isinstance(value, str) and not value:
        raise SettingError(name, "must not be empty.")
    low, above, high = declared.low, declared.above, declared.high
    if number and not _within(value, low, above, high):
        raise SettingError(name, f"must be {range_text(declared)}; received {value}.")


def _has_kind(value: Any, kinds: tuple[type, ...]) -> bool:
    """Whether a value has one of the types; NumPy's numbers count, and a bool is no number."""
    if isinstance(value, bool):
        return bool in kinds
    if float in kinds and isinstance(value, numbers.Real):
        return True
    if int in kinds and isinstance(value, numbers.Integral):
        return True
    return isinstance(value, kinds)


def _within(value: float, low: float | None, above: float | None, high: float | None) -> bool:
    return (
        (low is None or value >= low)
        and (above is None or value > above)
        and (high is None or value <= high)
    )


def range_text(declared: Setting) -> str:
    """Returns the bounds of a number in words, such as "0 to 255", or "" where it has none."""
    low, above, high = declared.low, declared.above, declared.high
    least = f"above {above:g}" if above is not None else f"{low:g}" if low is not None else ""
    if high is None:
        return f"{least} or more" if low is not None else least
    return f"{least}{', at most' if above is not None else ' to'} {high:g}"


def unused_because(needs: Mapping[str, tuple[Any, ...]], values: Mapping[str, Any]) -> str | None:
    """Returns the name of the first setting whose value makes another one unused, or None."""
    for name, wanted in needs.items():
        value = values[name]
        if value not in wanted and not (... in wanted and value is not None):
            return name
    return None
