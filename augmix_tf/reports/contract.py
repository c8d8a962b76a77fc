"""What `results.json` must look like to be reported: the reader's side of its schema."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from augmix_tf.checks import RunError
from augmix_tf.reports.cells import COUNTED, SEVERITIES

# Documents of schema 1 have the parts `clean` and `provenance` only.
SCHEMAS = (1, 2)
MEASURES = (
    "images",
    "error",
    "nll",
    "brier",
    "rms_calibration_error",
    "expected_calibration_error",
    "aurra",
    "temperature",
)
BIN_KEYS = ("confidence", "accuracy", "count")
CORRUPTED_MEANS = ("mean_corruption_error", "mean_error")
PERTURBED_MEANS = (
    "mean_flip_probability",
    "mean_flip_probability_of_script",
    "unnormalized_top5_distance",
    "mean_flip_rate",
    "mean_top5_distance",
)


def check_results(path: Path, results: Mapping[str, Any]) -> None:
    """Refuses a document that a report could not be made of.

    Args:
        path: of the file, which the error names.
        results: what it holds; {} where there is no file.

    Raises:
        RunError: another schema, or a part of another kind.
    """
    if not results:
        return
    schema = results.get("schema")
    known = " or ".join(map(str, SCHEMAS))
    demand(path, schema in SCHEMAS, f"schema {known}", f"schema {schema!r}")
    for part in ("clean", "temperature", "corrupted", "perturbed", "shifted", "provenance"):
        _check_object(path, part, results.get(part))
    _check_measures(path, "clean", results.get("clean") or {})
    _check_confusion(path, (results.get("clean") or {}).get("confusion"))
    _check_numbers(path, "temperature", results.get("temperature") or {}, ("value", "images"))
    if results.get("corrupted"):
        _check_corrupted(path, results["corrupted"])
    if results.get("perturbed"):
        _check_perturbed(path, results["perturbed"])
    for name, measures in (results.get("shifted") or {}).items():
        _check_shifted(path, f"shifted.{name}", measures)


def damaged(path: Path, reason: str) -> RunError:
    """Returns the error that says what is wrong with `path`."""
    return RunError(f"cannot read {path}: {reason}")


def demand(path: Path, condition: bool, wanted: str, got: str) -> None:
    """Raises the `RunError` that names `path` unless `condition` holds."""
    if not condition:
        raise damaged(path, f"want {wanted}, got {got}")


def _check_measures(path: Path, where: str, measures: Mapping[str, Any]) -> None:
    _check_numbers(path, where, measures, MEASURES)
    calibrated = measures.get("calibrated")
    _check_object(path, f"{where}.calibrated", calibrated)
    _check_numbers(path, f"{where}.calibrated", calibrated or {}, MEASURES)
    bins = measures.get("reliability") or []
    demand(path, isinstance(bins, list), f"a list of bins as {where}.reliability", repr(bins))
    for entry in bins:
        # An empty bin has no mean confidence.
        keys = BIN_KEYS if isinstance(entry, dict) and entry.get("count") != 0 else ("count",)
        sound = isinstance(entry, dict) and all(_is_number(entry.get(key)) for key in keys)
        demand(path, sound, f"bins with {', '.join(BIN_KEYS)} in {where}", repr(entry))


def _check_confusion(path: Path, confusion: Any) -> None:
    _check_object(path, "clean.confusion", confusion)
    if confusion is None:
        return
    names, counts = confusion.get("class_names"), confusion.get("counts")
    lists = isinstance(names, list) and isinstance(counts, list) and len(names) > 0
    demand(path, lists, "class_names and counts in clean.confusion", ", ".join(confusion) or "none")
    rows = [row if isinstance(row, list) else [] for row in counts]
    square = len(rows) == len(names) and all(len(row) == len(names) for row in rows)
    wanted = f"{len(names)} rows of {len(names)} counts in clean.confusion"
    demand(path, square, wanted, str([len(row) for row in rows]))
    sound = all(_is_number(count) and count >= 0 for row in rows for count in row)
    demand(path, sound, "counts from 0 on in clean.confusion", "others")


def _check_corrupted(path: Path, corrupted: Mapping[str, Any]) -> None:
    _check_numbers(path, "corrupted", corrupted, CORRUPTED_MEANS)
    for part in ("data", "mean", "alexnet", "corruptions"):
        _check_object(path, f"corrupted.{part}", corrupted.get(part))
    for part in ("mean", "alexnet"):
        values = corrupted.get(part) or {}
        _check_numbers(path, f"corrupted.{part}", values, tuple(values))
    cells = corrupted.get("corruptions") or {}
    for name, row in cells.items():
        where = f"corrupted.corruptions.{name}"
        sound = isinstance(row, list) and len(row) == SEVERITIES
        got = f"{len(row)}" if isinstance(row, list) else type(row).__name__
        demand(path, sound, f"a list of {SEVERITIES} severities as {where}", got)
        for cell in row:
            demand(path, isinstance(cell, dict), f"measures in {where}", repr(cell))
            demand(path, _is_number(cell.get("error")), f"an error in {where}", repr(cell))
            _check_measures(path, where, cell)
    counted, missing = (_names(path, part, corrupted) for part in ("counted", "missing"))
    for name in counted:
        demand(path, name in COUNTED, "the corruptions of the benchmark as counted", name)
        demand(path, name in cells, f"{name}, which is counted, in corrupted.corruptions", "none")
    both = sorted(set(counted) & set(missing))
    demand(path, not both, "no corruption both counted and missing", ", ".join(both))


def _check_perturbed(path: Path, perturbed: Mapping[str, Any]) -> None:
    _check_numbers(path, "perturbed", perturbed, PERTURBED_MEANS)
    for part in ("data", "perturbations"):
        _check_object(path, f"perturbed.{part}", perturbed.get(part))
    for name, row in (perturbed.get("perturbations") or {}).items():
        where = f"perturbed.perturbations.{name}"
        demand(path, isinstance(row, dict), f"an object as {where}", type(row).__name__)
        flips = row.get("flip_probability")
        demand(path, _is_number(flips), f"a flip_probability in {where}", repr(flips))
        _check_numbers(path, where, row, ("top5_distance", "sequences", "frames"))
    _names(path, "perturbations_counted", perturbed)


def _check_shifted(path: Path, where: str, measures: Any) -> None:
    demand(path, isinstance(measures, dict), f"an object as {where}", type(measures).__name__)
    error = measures.get("error")
    demand(path, _is_number(error), f"an error in {where}", repr(error))
    _check_measures(path, where, measures)
    _check_numbers(path, where, measures, ("classes",))
    _check_object(path, f"{where}.data", measures.get("data"))


def _check_object(path: Path, where: str, value: object) -> None:
    sound = value is None or isinstance(value, dict)
    demand(path, sound, f"{where} to be an object", type(value).__name__)


def _check_numbers(
    path: Path, where: str, values: Mapping[str, Any], names: tuple[str, ...]
) -> None:
    for name in names:
        value = values.get(name)
        sound = value is None or _is_number(value)
        demand(path, sound, f"a number as {where}.{name}", repr(value))


def _names(path: Path, part: str, values: Mapping[str, Any]) -> list[str]:
    names = values.get(part) or []
    sound = isinstance(names, list) and all(isinstance(name, str) for name in names)
    demand(path, sound, f"a list of names as {part}", repr(names))
    return names


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
