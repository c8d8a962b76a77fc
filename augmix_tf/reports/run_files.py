"""Reads the files of one run folder, and names the one that is damaged."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from augmix_tf.checks import CommandError, RunError

SCHEMA = 1
CONFIG, RESULTS, METRICS = "config.json", "results.json", "metrics.csv"
MEASURES = (
    "images",
    "error",
    "nll",
    "brier",
    "rms_calibration_error",
    "expected_calibration_error",
    "temperature",
)
BIN_KEYS = ("confidence", "accuracy", "count")


@dataclasses.dataclass(frozen=True)
class RunFiles:
    """What the files of a run say; what is not there is empty."""

    config: Mapping[str, Any]
    results: Mapping[str, Any]
    metrics: Mapping[str, list[float]]  # columns, equally long; NaN where a cell is empty


def read(workdir: Path) -> RunFiles:
    """Reads a run folder's `config.json`, `results.json` and `metrics.csv`.

    Raises:
        CommandError: the folder holds none of them.
        RunError: one of them is damaged, or of another schema.
    """
    if not any((workdir / name).exists() for name in (CONFIG, RESULTS, METRICS)):
        wanted = f"a run folder with {CONFIG}, {RESULTS} or {METRICS}"
        raise CommandError(f"want {wanted}, got {workdir}, which holds none of them")
    results = _read_object(workdir / RESULTS)
    _check_results(workdir / RESULTS, results)
    return RunFiles(_read_object(workdir / CONFIG), results, _read_columns(workdir / METRICS))


def flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns nested mappings as one, their keys joined by dots."""
    found: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def _read_text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise damaged(path, getattr(error, "strerror", None) or "it is not UTF-8 text") from error


def _read_object(path: Path) -> dict[str, Any]:
    text = _read_text(path)
    if text is None:
        return {}
    try:
        content = json.loads(text)
    except ValueError as error:
        raise damaged(path, f"it is not JSON: {error}") from error
    _demand(path, isinstance(content, dict), "an object", type(content).__name__)
    return content


def _check_results(path: Path, results: Mapping[str, Any]) -> None:
    if not results:
        return
    schema = results.get("schema")
    _demand(path, schema == SCHEMA, f"schema {SCHEMA}", f"schema {schema!r}")
    for part in ("clean", "corrupted", "provenance"):
        value = results.get(part) or {}
        _demand(path, isinstance(value, dict), f"{part} to be an object", type(value).__name__)
    clean = results.get("clean") or {}
    for name in MEASURES:
        value = clean.get(name)
        _demand(path, value is None or _is_number(value), f"a number as {name}", repr(value))
    bins = clean.get("reliability") or []
    _demand(path, isinstance(bins, list), "a list of bins as reliability", repr(bins))
    for entry in bins:
        # An empty bin has no mean confidence.
        keys = BIN_KEYS if isinstance(entry, dict) and entry.get("count") != 0 else ("count",)
        sound = isinstance(entry, dict) and all(_is_number(entry.get(key)) for key in keys)
        _demand(path, sound, f"bins with {', '.join(BIN_KEYS)}", repr(entry))


def _read_columns(path: Path) -> dict[str, list[float]]:
    text = _read_text(path)
    if text is None:
        return {}
    rows = list(csv.reader(text.splitlines()))
    header = rows[0] if rows else []
    _demand(path, "epoch" in header, "a header with a column epoch", repr(",".join(header)))
    columns: dict[str, list[float]] = {name: [] for name in header}
    for number, row in enumerate(rows[1:], start=2):
        wanted = f"{len(header)} values in line {number}"
        _demand(path, len(row) == len(header), wanted, str(len(row)))
        for name, cell in zip(header, row, strict=True):
            columns[name].append(_number(path, number, cell))
    return columns


def _number(path: Path, line: int, cell: str) -> float:
    if not cell.strip():
        return math.nan
    try:
        return float(cell)
    except ValueError as error:
        raise damaged(path, f"want a number in line {line}, got {cell!r}") from error


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def damaged(path: Path, reason: str) -> RunError:
    """Returns the error that says what is wrong with `path`."""
    return RunError(f"cannot read {path}: {reason}")


def _demand(path: Path, condition: bool, wanted: str, got: str) -> None:
    if not condition:
        raise damaged(path, f"want {wanted}, got {got}")
