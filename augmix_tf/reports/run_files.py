"""Reads the files of one run folder, and names the one that is damaged."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from augmix_tf.checks import CommandError
from augmix_tf.reports.contract import check_results, damaged, demand

CONFIG, RESULTS, METRICS = "config.json", "results.json", "metrics.csv"


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
    check_results(workdir / RESULTS, results)
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
    demand(path, isinstance(content, dict), "an object", type(content).__name__)
    return content


def _read_columns(path: Path) -> dict[str, list[float]]:
    text = _read_text(path)
    if text is None:
        return {}
    rows = list(csv.reader(text.splitlines()))
    header = rows[0] if rows else []
    demand(path, "epoch" in header, "a header with a column epoch", repr(",".join(header)))
    columns: dict[str, list[float]] = {name: [] for name in header}
    for number, row in enumerate(rows[1:], start=2):
        wanted = f"{len(header)} values in line {number}"
        demand(path, len(row) == len(header), wanted, str(len(row)))
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
