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
from typing import Any

import numpy as np

from augmix_tf import files, robustness
from augmix_tf.errors import FileError
from augmix_tf.metrics import (
    Interval,
    Outcomes,
    ReliabilityBin,
    errors_per_image,
    pool_bins,
    table,
)
from augmix_tf.metrics.table import Inputs
from augmix_tf.robustness import SEVERITIES

SCHEMA = 2  # files of schema 1 have `clean` and `provenance`, and the temperature in `clean`
Metrics = dict[str, float | None]
"""Name -> value. In `results.json` the names are keys of the object that a field of metrics is in,
and those that the table of metrics does not have are ignored."""

Intervals = dict[str, Interval]
"""Name of a metric -> its 95 % interval."""

CORRUPTED_PARTS = ("corrupted", "cbar")
"""The parts of the results that are on corrupted images: -C and C-bar."""


class Measured:
    """Metrics that were computed from the same inputs."""

    metrics: Metrics
    intervals: Intervals | None

    def metric(self, name: str) -> float | None:
        """Returns a metric, None where it was not evaluated."""
        return self.metrics.get(name)

    def interval(self, name: str) -> Interval | None:
        """Returns the 95 % interval of a metric, None where it is not known."""
        return (self.intervals or {}).get(name)


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


@dataclasses.dataclass(frozen=True)
class ImageResults(Measured):
    """Results on one set of images."""

    images: int | None = None
    metrics: Metrics = dataclasses.field(default_factory=dict, metadata={"inputs": "images"})
    intervals: Intervals | None = None
    outcomes: Outcomes | None = None
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


@dataclasses.dataclass(frozen=True)
class Temperature:
    """Temperature that the logits are divided by, fitted on held-out images."""

    value: float | None = None
    images: int | None = None
    held_out_of: str | None = None


@dataclasses.dataclass(frozen=True)
class CorruptedResults(Measured):
    """Results on corrupted images, of -C or C-bar."""

    data: Data | None = None
    metrics: Metrics = dataclasses.field(default_factory=dict, metadata={"inputs": "corrupted"})
    intervals: Intervals | None = None
    # Those of `benchmark` that were evaluated, and the others, in its order.
    counted: list[str] = dataclasses.field(default_factory=list)
    missing: list[str] = dataclasses.field(default_factory=list)
    mean: Metrics = dataclasses.field(default_factory=dict)
    corruptions: dict[str, list[ImageResults]] = dataclasses.field(default_factory=dict)
    severities: list[int] | None = None  # None: all five

    @property
    def benchmark(self) -> Sequence[str]:
        """The corruptions that the benchmark's means are over."""
        return robustness.counted([*self.counted, *self.missing])

    @property
    def evaluated_severities(self) -> Sequence[int]:
        """The severities of each row of `corruptions`."""
        return self.severities or SEVERITIES

    @property
    def extra(self) -> list[str]:
        """Corruptions that were evaluated but are in no mean."""
        return [name for name in self.corruptions if name not in self.counted]

    def errors_per_image(self, names: Iterable[str]) -> np.ndarray | None:
        """Returns the mean error of each image over corruptions and severities, float [N].

        None where outcomes are missing or the corruptions do not show the same images.
        """
        cells = (cell for name in names for cell in self.corruptions.get(name, []))
        return errors_per_image(cell.outcomes for cell in cells)

    def over_severities(self, name: str, metric: str) -> float | None:
        """Returns the mean over the severities of one corruption."""
        return mean(cell.metric(metric) for cell in self.corruptions.get(name, []))

    def mean_over(self, names: Iterable[str], metric: str) -> float | None:
        """Returns the mean over corruptions of the mean over severities."""
        rows = [[c.metric(metric) for c in self.corruptions.get(n, [])] or [None] for n in names]
        if not rows or any(value is None for row in rows for value in row):
            return None
        return float(np.mean([np.mean(np.array(row, np.float64)) for row in rows]))

    def interval_over(self, names: Iterable[str], metric: str) -> Interval | None:
        """Returns the 95 % interval of `mean_over`, where all cells show the same images.

        That of the error is computed from the outcomes. Of other metrics it is the mean of the
        cells' intervals: no narrower than the exact one, which needs the covariances of the cells.
        """
        if metric == "error":
            per_image = self.errors_per_image(names)
            interval = None if per_image is None else table.interval_of_mean(per_image)
            (error,) = table.select("images", name="error")
            return None if interval is None else error.clipped(interval)
        known = [cell.interval(metric) for n in names for cell in self.corruptions.get(n, [])]
        bounds = [interval for interval in known if interval is not None]
        if not known or len(bounds) < len(known):
            return None
        return Interval(*np.mean(bounds, axis=0).tolist())

    def at_severity(self, names: Iterable[str], metric: str, severity: int) -> float | None:
        """Returns the mean over corruptions at one severity, None if it was not evaluated."""
        if severity not in self.evaluated_severities:
            return None
        rows, column = map(self.corruptions.get, names), self.evaluated_severities.index(severity)
        return mean(row[column].metric(metric) if row else None for row in rows)

    def reliability(self, names: Iterable[str]) -> list[ReliabilityBin]:
        """Returns the reliability diagram of all images under these corruptions."""
        return pool_bins(
            cell.reliability or [] for name in names for cell in self.corruptions.get(name, [])
        )


@dataclasses.dataclass(frozen=True)
class AdaptedResults:
    """Results with batch normalisation adapted to the test images (`evaluation.adaptation`)."""

    prior: float  # in images
    batch_size: int
    smallest_batch: int
    shuffled: bool = False  # whether a set was in the order of classes
    few_classes: bool = False  # whether batches of a set still had few classes
    clean: ImageResults | None = None
    corrupted: CorruptedResults | None = None
    cbar: CorruptedResults | None = None

    @property
    def results(self) -> Results:
        """The same results, as those of any network."""
        return Results(self.clean, corrupted=self.corrupted, cbar=self.cbar)


@dataclasses.dataclass(frozen=True)
class PerturbationResults(Measured):
    """Results on the sequences of one perturbation."""

    metrics: Metrics = dataclasses.field(default_factory=dict, metadata={"inputs": "sequences"})
    intervals: Intervals | None = None
    sequences: int | None = None
    frames: int | None = None


@dataclasses.dataclass(frozen=True)
class PerturbedResults(Measured):
    """Results on perturbation sequences."""

    data: Data | None = None
    metrics: Metrics = dataclasses.field(default_factory=dict, metadata={"inputs": "perturbed"})
    intervals: Intervals | None = None
    perturbations_counted: list[str] = dataclasses.field(default_factory=list)
    perturbations: dict[str, PerturbationResults] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Results:
    """All results of one model: the content of `results.json`."""

    clean: ImageResults | None = None
    temperature: Temperature | None = None
    corrupted: CorruptedResults | None = None
    cbar: CorruptedResults | None = None
    perturbed: PerturbedResults | None = None
    shifted: dict[str, ShiftedResults] = dataclasses.field(default_factory=dict)
    adapted: AdaptedResults | None = None
    provenance: dict[str, Any] = dataclasses.field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Returns the content of `results.json`."""
        parts = {name: part for name, part in _encode(self).items() if part}
        return {"schema": SCHEMA, **parts}

    @classmethod
    def from_json(cls, document: Any, path: Path | str = "results.json") -> Results:
        """Returns the results in the parsed content of a `results.json`."""
        try:
            if document["schema"] not in (1, SCHEMA):
                raise ValueError(f"schema must be 1 or 2; received {document['schema']!r}")
            if temperature := (document.get("clean") or {}).get("temperature"):
                document = {"temperature": {"value": temperature}, **document}
            return _decode(cls, document)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise FileError(f"Cannot read {path}: {error!r}.") from error

    def write(self, path: files.PathLike) -> None:
        """Writes `results.json` atomically, with the versions of the software in `provenance`."""
        provenance = self.provenance | {"versions": versions()}
        document = dataclasses.replace(self, provenance=provenance).to_json()
        text = json.dumps(document, indent=2)
        # Rows of numbers on one line.
        text = re.sub(r"\[[-+.e\d,\s]+\]", lambda row: " ".join(row.group().split()), text)
        files.write_text_atomically(path, text + "\n")

    def delivered(self) -> Results:
        """Returns the results of the exported model, whose logits the temperature divides."""
        return _delivered(self)

    def part(self, name: str) -> CorruptedResults:
        """Returns one of `CORRUPTED_PARTS`, empty where there is none."""
        return getattr(self, name) or CorruptedResults()


def mean(values: Iterable[float | None]) -> float | None:
    """Returns the mean, None where a value is missing or there is none."""
    numbers = list(values)
    known = [value for value in numbers if value is not None]
    return math.fsum(known) / len(known) if known and len(known) == len(numbers) else None


def versions() -> dict[str, str]:
    """Returns the versions of Python and the packages that results depend on."""
    packages = ("tensorflow", "keras", "tensorflow-datasets", "numpy")
    installed = {package: importlib.metadata.version(package) for package in packages}
    return {"python": platform.python_version()} | installed


def _delivered(part: Any) -> Any:
    """Takes metrics with the temperature, where there are some, for those without."""
    if isinstance(part, dict):
        return {name: _delivered(entry) for name, entry in part.items()}
    if isinstance(part, list):
        return [_delivered(entry) for entry in part]
    if not dataclasses.is_dataclass(part):
        return part
    changed = {f.name: _delivered(getattr(part, f.name)) for f in dataclasses.fields(part)}
    if isinstance(part, ImageResults) and part.calibrated:
        changed |= {"metrics": part.metrics | part.calibrated, "calibrated": None}
        known, prefix = part.intervals or {}, "calibrated."
        kept = {n: e for n, e in known.items() if n not in part.calibrated and prefix not in n}
        scaled = {n.removeprefix(prefix): e for n, e in known.items() if prefix in n}
        changed["intervals"] = kept | scaled or None
    return dataclasses.replace(part, **changed)


def _encode(value: Any) -> Any:
    """A dataclass as JSON: without fields that are None, its metrics as its own keys."""
    if isinstance(value, Mapping):
        return {name: _encode(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_encode(entry) for entry in value]
    if not dataclasses.is_dataclass(value):
        return value
    entries: dict[str, Any] = {}
    for field in dataclasses.fields(value):
        entry = getattr(value, field.name)
        if "inputs" in field.metadata:
            for name, number in entry.items():
                group, _, last = name.rpartition(".")
                (entries.setdefault(group, {}) if group else entries)[last] = number
        elif entry is not None:
            entries[field.name] = _encode(entry)
    return entries


def _decode(kind: Any, value: Any) -> Any:
    """JSON as a value of the type `kind`; unknown names are ignored."""
    origin, arguments = typing.get_origin(kind) or kind, typing.get_args(kind)
    if value is None or origin is Any:
        return value
    if origin in (types.UnionType, typing.Union):  # of a type and None
        return _decode(arguments[0], value)
    if origin is Interval:
        return Interval(*_decode(list[float], value))
    if origin is list:
        return [_decode(arguments[0], entry) for entry in value]
    if origin is dict:
        return {name: _decode(arguments[1], entry) for name, entry in value.items()}
    if dataclasses.is_dataclass(origin):
        return _decode_object(origin, value)
    if not isinstance(value, (int, float) if origin is float else origin):
        raise TypeError(f"expected {origin.__name__}, received {value!r}"[:200])
    return value


def _decode_object(kind: Any, entries: Mapping[str, Any]) -> Any:
    hints, arguments = typing.get_type_hints(kind), {}
    for field in dataclasses.fields(kind):
        if "inputs" in field.metadata:
            arguments[field.name] = _decode_metrics(field.metadata["inputs"], entries)
        elif field.name in entries:
            arguments[field.name] = _decode(hints[field.name], entries[field.name])
    return kind(**arguments)


def _decode_metrics(inputs: Inputs, entries: Mapping[str, Any]) -> Metrics:
    metrics: Metrics = {}
    for metric in table.select(inputs):
        group, _, last = metric.name.rpartition(".")
        part = (entries.get(group) or {}) if group else entries
        if last in part:
            metrics[metric.name] = _decode(float, part[last])
    return metrics
