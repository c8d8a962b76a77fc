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
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from augmix_tf.errors import SettingError, unknown_name

Resume = Literal["fixed", "evaluation", "free"]

GROUPS = ("Request", "Data", "Model", "Method", "Training", "Devices", "Evaluation", "Benchmarks")

# Modes that a setting may belong to. `evaluate_model` is `--mode=evaluate` of a saved model;
# `--mode=config` takes what `train` takes.
RUN_MODES = ("train", "evaluate", "export")
USES = (*RUN_MODES, "evaluate_model", "corrupt", "report", "views")


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is known of a setting beside its name and default.

    `models` and `methods` are the names of those that declare it; empty for settings of every
    experiment.
    """

    help: str  # noun phrase with unit; the command line adds the default
    group: str  # heading of `--help`, one of `GROUPS`
    low: float | None = None  # bounds of a number, included
    high: float | None = None
    above: float | None = None  # excluded
    choices: tuple[str, ...] = ()
    modes: tuple[str, ...] = RUN_MODES  # that use it
    # Name of another setting -> its values under which this one is used; `...`: any that is set.
    needs: Mapping[str, tuple[Any, ...]] = dataclasses.field(default_factory=dict)
    datasets: tuple[str, ...] = ()  # kinds (`recipes.dataset_kind`) it applies to; empty: all
    # "fixed": another value makes another run; "evaluation": a finished run may be evaluated with
    # another value; "free": a run may also be resumed with another value.
    resume: Resume = "fixed"
    names_run: bool = True  # whether a comparison names it when runs differ in it
    path: bool = False  # whether it is a path (or several), which may differ between machines
    per_worker: bool = False  # whether workers that train together may differ in it
    kinds: tuple[type, ...] = ()  # types of its values; follow from the field's type
    models: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()

    @property
    def owners(self) -> tuple[str, ...]:
        """The models or methods that declare it."""
        return self.models or self.methods

    @property
    def range_text(self) -> str:
        """The bounds of a number in words, such as "0 to 255", or "" where it has none."""
        if self.above is not None:
            limit = "" if self.high is None else f", at most {self.high:g}"
            return f"above {self.above:g}{limit}"
        if self.low is None:
            return ""
        return f"{self.low:g} or more" if self.high is None else f"{self.low:g} to {self.high:g}"


def setting(default: Any, help: str, group: str = "Method", **facts: Any) -> Any:
    """Declares a field of a frozen dataclass as a setting; `facts` are fields of `Setting`."""
    if group == "Method":  # `--mode=views` shows what a method does
        facts = {"modes": (*RUN_MODES, "views")} | facts
    if group == "Model":  # of stored weights
        facts = {"modes": (*RUN_MODES, "evaluate_model")} | facts
    metadata = {"setting": Setting(help, group, **facts)}
    return dataclasses.field(default=default, metadata=metadata)


def alias(record: Any, name: str, default: Any = ..., **changes: Any) -> Any:
    """Declares a field as the setting `name` of another record, with `changes` of its facts.

    The default is the other's unless it is given.
    """
    field = next(f for f in dataclasses.fields(record) if f.name == name)
    declared = dataclasses.replace(field.metadata["setting"], **changes)
    value = field.default if default is ... else default
    return dataclasses.field(default=value, metadata={"setting": declared})


def settings_of(record: Any) -> dict[str, Setting]:
    """Returns name -> `Setting` of the fields of a dataclass or its instance that are settings."""
    return _settings_of(record if isinstance(record, type) else type(record))


@functools.cache
def _settings_of(record: type) -> dict[str, Setting]:
    hints = get_type_hints(record)
    settings = {}
    for field in dataclasses.fields(record):
        if "setting" in field.metadata:
            kind = hints[field.name]
            members = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
            kinds = tuple(get_origin(member) or member for member in members)
            settings[field.name] = dataclasses.replace(field.metadata["setting"], kinds=kinds)
    return settings


def values_of(record: Any) -> dict[str, Any]:
    """Returns name -> value of the settings of a record."""
    return {name: getattr(record, name) for name in settings_of(record)}


def check(record: Any) -> None:
    """Checks every setting of a record against its declaration; called by `__post_init__`."""
    for name, declared in settings_of(record).items():
        check_value(name, getattr(record, name), declared)


def check_value(name: str, value: Any, declared: Setting) -> None:
    """Raises `SettingError` unless a value has one of its types and keeps within its bounds."""
    kinds = declared.kinds
    if value is None and type(None) in kinds:
        return
    if not _has_kind(value, kinds):
        expected = next(kind.__name__ for kind in kinds if kind is not type(None))
        raise SettingError(name, f"must be of type {expected}; received {value!r}.")
    if declared.choices and value not in declared.choices:
        raise SettingError(name, f"is not valid: {unknown_name('name', value, declared.choices)}")
    if isinstance(value, str) and not value:
        raise SettingError(name, "must not be empty.")
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        number = float(value)
        if not math.isfinite(number):
            raise SettingError(name, f"must be finite; received {value}.")
        is_low = declared.low is not None and number < declared.low
        is_low |= declared.above is not None and number <= declared.above
        if is_low or (declared.high is not None and number > declared.high):
            raise SettingError(name, f"must be {declared.range_text}; received {value}.")


def _has_kind(value: Any, kinds: tuple[type, ...]) -> bool:
    """Whether a value has one of the types; NumPy's numbers count, and a bool is no number."""
    if isinstance(value, bool):
        return bool in kinds
    if float in kinds and isinstance(value, numbers.Real):
        return True
    if int in kinds and isinstance(value, numbers.Integral):
        return True
    return isinstance(value, kinds)


def unused_because(needs: Mapping[str, tuple[Any, ...]], values: Mapping[str, Any]) -> str | None:
    """Returns the name of the first setting whose value makes another one unused, or None."""
    for name, used in needs.items():
        value = values[name]
        if value not in used and not (... in used and value is not None):
            return name
    return None
