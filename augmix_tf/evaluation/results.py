"""The results of a run, and `results.json`, which holds them (`docs/results-schema.md`)."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import math
import platform
import re
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from augmix_tf import files
from augmix_tf.errors import FileError
from augmix_tf.metrics import ReliabilityBin, pool_bins, table
from augmix_tf.metrics.table import Inputs, Value
from augmix_tf.robustness import CORRUPTIONS, SEVERITIES

SCHEMA = 2
# Files of schema 1 have `clean` and `provenance` only, and the temperature in `clean`.
READABLE_SCHEMAS = (1, SCHEMA)
_PACKAGES = ("tensorflow", "keras", "tensorflow-datasets", "numpy")

Metrics = dict[str, float | None]
"""Name -> value. In `results.json` the names are keys of the object that a field of metrics is in,
and those that the table of metrics does not have are ignored."""
Record = TypeVar("Record")


@dataclasses.dataclass(frozen=True)
class Data:
    """Where the images of a benchmark come from."""

    source: str | None = None
    description: str | None = None
    images: int | None = None
    seed: int | None = None
    table: str | None = None
    versions: dict[str, Any] | None = None


@dataclasses.dataclass(frozen=True)
class Confusion:
    """Confusion matrix: `counts[i][j]` images of class i were predicted as class j."""

    class_names: list[str]
    counts: list[list[int]]

    def check(self, path: str) -> None:
        """Checks that there is one row and one column per class."""
        classes, rows = len(self.class_names), [len(row) for row in self.counts]
        _demand(classes > 0, f"{path}.class_names", "must not be empty")
        square = rows == [classes] * classes
        wanted = f"must have {classes} rows of {classes} counts"
        _demand(square, f"{path}.counts", f"{wanted}; received rows of {rows}")
        least = min(min(row) for row in self.counts)
        _demand(least >= 0, f"{path}.counts", f"must not be negative; received {least}")


@dataclasses.dataclass(frozen=True)
class ImageResults:
    """Results on one set of images."""

    images: int | None = None
    metrics: Metrics = dataclasses.field(default_factory=dict, metadata={"inputs": "images"})
    reliability: list[ReliabilityBin] | None = None
    confusion: Confusion | None = None
    calibrated: Metrics | None = None  # of the logits divided by the temperature

    def metric(self, name: str) -> float | None:
        """Returns a metric, None where it was not evaluated; `calibrated.nll` is also a name."""
        prefix, _, last = name.rpartition(".")
        return ((self.calibrated or {}) if prefix else self.metrics).get(last)


@dataclasses.dataclass(frozen=True)
class ShiftedResults(ImageResults):
    """Results on another test set, of which the model may have more classes."""

    classes: int | None = None
    data: Data | None = None

    def check(self, path: str) -> None:
        """Checks that there is an error."""
        _demand_metric(self.metrics, path, "error")


@dataclasses.dataclass(frozen=True)
class Temperature:
    """Temperature that the logits are divided by, fitted on held-out images."""

    value: float | None = None
    images: int | None = None
    held_out_of: str | None = None


@dataclasses.dataclass(frozen=True)
class CorruptedResults:
    """Results on corrupted images."""

    data: Data | None = None
    metrics: Metrics = dataclasses.field(default_factory=dict, metadata={"inputs": "corrupted"})
    counted: list[str] = dataclasses.field(default_factory=list)
    missing: list[str] = dataclasses.field(default_factory=list)
    mean: Metrics = dataclasses.field(default_factory=dict)
    corruptions: dict[str, list[ImageResults]] = dataclasses.field(default_factory=dict)

    def check(self, path: str) -> None:
        """Checks that the severities are complete and the names consistent."""
        for name, row in self.corruptions.items():
            place = f"{path}.corruptions.{name}"
            wanted = f"must have {len(SEVERITIES)} severities; received {len(row)}"
            _demand(len(row) == len(SEVERITIES), place, wanted)
            for number, cell in enumerate(row):
                _demand_metric(cell.metrics, f"{place}[{number}]", "error")
        for name in self.counted:
            known = name in CORRUPTIONS
            wanted = "must have corruptions of the benchmark only"
            _demand(known, f"{path}.counted", f"{wanted}; received {name!r}")
            there = name in self.corruptions
            _demand(there, f"{path}.counted", f"has {name!r}, which {path}.corruptions lacks")
        both = sorted(set(self.counted) & set(self.missing))
        _demand(not both, f"{path}.missing", f"has {both}, which {path}.counted has as well")

    @property
    def evaluated(self) -> list[str]:
        """Those of the 15 corruptions that were evaluated, in the benchmark's order."""
        return [name for name in CORRUPTIONS if name in self.counted]

    @property
    def extra(self) -> list[str]:
        """Corruptions that were evaluated but are in no mean."""
        return [name for name in self.corruptions if name not in CORRUPTIONS]

    def over_severities(self, name: str, metric: str) -> float | None:
        """Returns the mean over the severities of one corruption."""
        return mean(cell.metric(metric) for cell in self.corruptions.get(name, []))

    def mean_over(self, names: Iterable[str], metric: str) -> float | None:
        """Returns the mean over corruptions of the mean over severities."""
        rows = [[c.metric(metric) for c in self.corruptions.get(n, [])] or [None] for n in names]
        return table.mean_over_severities(rows)

    def at_severity(self, names: Iterable[str], metric: str, severity: int) -> float | None:
        """Returns the mean over corruptions at one severity, 1 to 5."""
        rows = [self.corruptions.get(name) for name in names]
        return mean(row[severity - 1].metric(metric) if row else None for row in rows)

    def reliability(self, names: Iterable[str]) -> list[ReliabilityBin]:
        """Returns the reliability diagram of all images under these corruptions."""
        return pool_bins(
            cell.reliability or [] for name in names for cell in self.corruptions.get(name, [])
        )


@dataclasses.dataclass(frozen=True)
class PerturbationResults:
    """Results on the sequences of one perturbation."""

    metrics: Metrics = dataclasses.field(default_factory=dict, metadata={"inputs": "sequences"})
    sequences: int | None = None
    frames: int | None = None

    def check(self, path: str) -> None:
        """Checks that there is a flip probability."""
        _demand_metric(self.metrics, path, "flip_probability")


@dataclasses.dataclass(frozen=True)
class PerturbedResults:
    """Results on perturbation sequences."""

    data: Data | None = None
    metrics: Metrics = dataclasses.field(default_factory=dict, metadata={"inputs": "perturbed"})
    perturbations_counted: list[str] = dataclasses.field(default_factory=list)
    perturbations: dict[str, PerturbationResults] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Results:
    """All results of one model: the content of `results.json`."""

    clean: ImageResults | None = None
    temperature: Temperature | None = None
    corrupted: CorruptedResults | None = None
    perturbed: PerturbedResults | None = None
    shifted: dict[str, ShiftedResults] = dataclasses.field(default_factory=dict)
    provenance: dict[str, Any] = dataclasses.field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Returns the content of `results.json`."""
        parts = {name: part for name, part in _encode(self).items() if part}
        return {"schema": SCHEMA, **parts}

    @classmethod
    def from_json(cls, document: Any, path: Path | str = "results.json") -> Results:
        """Returns the results in the content of a `results.json`.

        Args:
            document: parsed JSON.
            path: of the file, for error messages.

        Raises:
            FileError: another schema, or a part that is missing or of another type; the message
                has its path in the document.
        """
        try:
            _demand(isinstance(document, dict), "it", f"must be an object; received {document!r}")
            schema = document.get("schema")
            wanted = f"must be {' or '.join(map(str, READABLE_SCHEMAS))}; received {schema!r}"
            _demand(schema in READABLE_SCHEMAS, "schema", wanted)
            clean = document.get("clean")
            if schema == 1 and isinstance(clean, dict) and "temperature" in clean:
                document = {"temperature": {"value": clean["temperature"]}, **document}
            return _decode(cls, document, "")
        except _DocumentError as error:
            raise FileError(f"Cannot read {path}: {error}.") from error

    def write(self, path: Path) -> None:
        """Writes `results.json` atomically, with the versions of the software in `provenance`.

        Raises:
            FileError: it cannot be written.
        """
        provenance = self.provenance | {"versions": versions()}
        document = dataclasses.replace(self, provenance=provenance).to_json()
        text = json.dumps(document, indent=2)
        # Rows of integers on one line.
        text = re.sub(r"\[[\d,\s]+\]", lambda row: " ".join(row.group().split()), text)
        files.write_text_atomically(path, text + "\n")

    def values(self, corruptions: Sequence[str] | None = None) -> list[Value]:
        """Returns the values of all metrics; see `metrics.table.values`."""
        return table.values(self.to_json(), corruptions)


def mean(values: Iterable[float | None]) -> float | None:
    """Returns the mean, None where a value is missing or there is none."""
    found = list(values)
    known = [value for value in found if value is not None]
    return math.fsum(known) / len(known) if known and len(known) == len(found) else None


def versions() -> dict[str, str]:
    """Returns the versions of Python and the packages that results depend on."""
    return {"python": platform.python_version()} | {
        package: importlib.metadata.version(package) for package in _PACKAGES
    }


class _DocumentError(ValueError):
    """A part of a document is wrong."""


def _demand(condition: bool, path: str, problem: str) -> None:
    if not condition:
        raise _DocumentError(f"{path} {problem}")


def _demand_metric(metrics: Metrics, path: str, name: str) -> None:
    value = metrics.get(name)
    _demand(value is not None, f"{path}.{name}", "must be a number; received none")


def _encode(value: Any) -> Any:
    """Returns a dataclass as JSON: without fields that are None, its metrics as its own keys."""
    if isinstance(value, Mapping):
        return {name: _encode(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_encode(entry) for entry in value]
    if not dataclasses.is_dataclass(value):
        return value
    found: dict[str, Any] = {}
    for field in dataclasses.fields(value):
        entry = getattr(value, field.name)
        if "inputs" in field.metadata:
            for name, number in entry.items():
                group, _, last = name.rpartition(".")
                (found.setdefault(group, {}) if group else found)[last] = number
        elif entry is not None:
            found[field.name] = _encode(entry)
    return found


def _decode(kind: Any, value: Any, path: str) -> Any:
    """Returns JSON as a value of type `kind`, checked.

    Args:
        kind: a dataclass, `float`, `int`, `str`, `Any`, a list, a dict with names as keys, or one
            of these or None.
        value: parsed JSON.
        path: of the value in the document, for error messages.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return None if value is None else _decode(arguments[0], value, path)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return _decode_object(kind, _of_type(dict, "an object", value, path), path)
    if origin is list:
        entries = _of_type(list, "a list", value, path)
        return [_decode(arguments[0], e, f"{path}[{i}]") for i, e in enumerate(entries)]
    if origin is dict:
        entries = _of_type(dict, "an object", value, path)
        return {name: _decode(arguments[1], e, f"{path}.{name}") for name, e in entries.items()}
    if kind is float:
        number = _of_type((int, float), "a number", value, path)
        _demand(math.isfinite(number), path, f"must be a finite number; received {value}")
        return number
    if kind is int:
        return _of_type(int, "an integer", value, path)
    return _of_type(str, "text", value, path) if kind is str else value


def _decode_object(kind: type[Record], entries: dict[str, Any], path: str) -> Record:
    hints, arguments = typing.get_type_hints(kind), {}
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        place = f"{path}.{field.name}".lstrip(".")
        if "inputs" in field.metadata:
            arguments[field.name] = _decode_metrics(field.metadata["inputs"], entries, path)
            continue
        missing = dataclasses.MISSING
        optional = field.default is not missing or field.default_factory is not missing
        if optional and entries.get(field.name) is None:
            continue
        _demand(field.name in entries, place, "is missing")
        arguments[field.name] = _decode(hints[field.name], entries[field.name], place)
    record = kind(**arguments)
    if hasattr(record, "check"):
        record.check(path)
    return record


def _decode_metrics(inputs: Inputs, entries: dict[str, Any], path: str) -> Metrics:
    found: Metrics = {}
    for metric in table.select(inputs):
        group, _, last = metric.name.rpartition(".")
        nested = _decode(dict[str, Any] | None, entries.get(group), f"{path}.{group}")
        part = (nested or {}) if group else entries
        if last in part:
            found[metric.name] = _decode(float | None, part[last], f"{path}.{metric.name}")
    return found


def _of_type(kind: Any, name: str, value: Any, path: str) -> Any:
    # In Python a bool is an int.
    sound = isinstance(value, kind) and not isinstance(value, bool)
    _demand(sound, path or "it", f"must be {name}; received {value!r}"[:200])
    return value
