"""Run directories: reads their files, names the runs and averages over seeds."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from augmix_tf import recipes
from augmix_tf.errors import ArgumentError, FileError, require
from augmix_tf.evaluation.results import CorruptedResults, ImageResults, Results
from augmix_tf.files import PathLike
from augmix_tf.report.tables import plain
from augmix_tf.robustness import CORRUPTIONS

CONFIG, RESULTS, METRICS = "config.json", "results.json", "metrics.csv"

# Settings that the name of the model contains.
_MODEL_SIZES = ("depth", "widen_factor")


def run_name(config: Mapping[str, Any]) -> tuple[str, str]:
    """Returns the names of the model and of the method in reports, from a run's settings."""
    sizes = [config[name] for name in _MODEL_SIZES if config.get(name) is not None]
    model = "-".join(map(plain, [config["model"], *sizes]))
    row = recipes.METHODS.get(config["method"])
    return model, plain(row.method.label(config) if row else config["method"])


def compared_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings that make another method where they differ."""
    declared = recipes.declarations()

    def compared(name: str) -> bool:
        setting = declared[name].setting if name in declared else None
        return setting is None or (setting.resume != "free" and setting.names_run)

    named = ("model", "method", *_MODEL_SIZES)
    return {n: value for n, value in config.items() if n not in named and compared(n)}


def method_order(config: Mapping[str, Any], method: str) -> tuple[Any, ...]:
    """Returns the sort key of a method with these settings and this name: AugMix is last."""
    kind, known = plain(config["method"]), list(recipes.METHODS)
    rank = (known.index(kind), "") if kind in known else (len(known), kind)
    is_augmix = kind == "augmix"
    plainest = is_augmix and method.startswith("augmix") and "no JSD" not in method
    return is_augmix, rank, plainest, method


@dataclasses.dataclass(frozen=True)
class RunFiles:
    """Content of the files of a run directory; empty where a file does not exist."""

    config: Mapping[str, Any]
    results: Results
    metrics: Mapping[str, list[float]]  # columns of equal length; NaN for empty cells


@dataclasses.dataclass(frozen=True)
class Run:
    """An evaluated run; `model` and `method` are its names in reports."""

    folder: Path
    config: Mapping[str, Any]
    results: Results
    metrics: Mapping[str, list[float]]
    model: str
    method: str

    @property
    def dataset(self) -> str:
        """Name of the dataset."""
        return plain(self.config["dataset"])

    @property
    def clean(self) -> ImageResults:
        """Results on the clean test images."""
        return self.results.clean or ImageResults()

    @property
    def corrupted(self) -> CorruptedResults:
        """Results on corrupted images, empty where there are none."""
        return self.results.corrupted or CorruptedResults()

    @property
    def training_seconds(self) -> float | None:
        """Approximate training time: the sum over epochs of images / throughput."""
        batch, speeds = self.config.get("batch_size"), self.metrics.get("images_per_second") or []
        if not batch or not speeds or not all(speed > 0 for speed in speeds):
            return None
        steps = [0.0, *self.metrics.get("step", [])]
        return math.fsum(
            (after - before) * batch / speed
            for before, after, speed in zip(steps, steps[1:], speeds, strict=False)
        )


class Estimate(NamedTuple):
    """A mean over seeds."""

    mean: float | None
    deviation: float | None  # sample standard deviation; None for fewer than two runs
    runs: int


def estimate(values: Iterable[float | None]) -> Estimate:
    """Returns mean and sample standard deviation of the values that are not None."""
    known = [value for value in values if value is not None]
    deviation = statistics.stdev(known) if len(known) > 1 else None
    return Estimate(statistics.fmean(known) if known else None, deviation, len(known))


def read_files(folder: PathLike) -> RunFiles:
    """Reads a run directory's `config.json`, `results.json` and `metrics.csv`.

    Raises:
        ArgumentError: the directory has none of them.
        FileError: one of them is damaged, or of another schema.
    """
    folder = Path(folder)
    if not any((folder / name).exists() for name in (CONFIG, RESULTS, METRICS)):
        wanted = f"a run directory with {CONFIG}, {RESULTS} or {METRICS}"
        raise ArgumentError(f"Expected {wanted}; received {folder}, which has none of them.")
    document = _read_json(folder / RESULTS)
    return RunFiles(
        _read_json(folder / CONFIG) or {},
        Results() if document is None else Results.from_json(document, folder / RESULTS),
        _read_columns(folder / METRICS),
    )


def read_runs(folders: Sequence[PathLike]) -> list[Run]:
    """Reads evaluated runs: directories with `config.json` and the clean error in `results.json`.

    Args:
        folders: at least one, none of them twice.

    Returns:
        The runs by dataset, model, method (in the paper's order), seed and directory. Names of
        methods have the settings in which runs differ otherwise.

    Raises:
        ArgumentError: no directory, one given twice, or one without an evaluated run.
        FileError: a file is damaged.
    """
    require(len(folders) > 0, "at least one run directory", "none")
    seen: dict[Path, PathLike] = {}
    for folder in folders:
        place = Path(folder).resolve()
        again = f"{folder} twice" + (f" (also as {seen[place]})" if place in seen else "")
        require(place not in seen, "each run directory once", again)
        seen[place] = folder
    return _with_different_settings([_read_run(Path(folder)) for folder in folders])


def common_corruptions(runs: Sequence[Run]) -> list[str]:
    """Returns those of the 15 that all runs with results on corrupted images have."""
    sets = [run.corrupted.evaluated for run in runs if run.results.corrupted]
    return [name for name in CORRUPTIONS if sets and all(name in names for names in sets)]


def grouped(runs: Sequence[Run], key: Callable[[Run], str]) -> dict[str, list[Run]]:
    """Returns key -> the runs that have it, both in the order of `runs`."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(key(run), []).append(run)
    return found


def _read_run(folder: Path) -> Run:
    content = read_files(folder)
    if not content.config:
        raise ArgumentError(f"Expected evaluated runs; received {folder}, which has no {CONFIG}.")
    if not (folder / RESULTS).exists():
        raise ArgumentError(
            f"Expected evaluated runs; received {folder}, which has no {RESULTS}. Evaluate the run."
        )
    clean = content.results.clean
    if clean is None or clean.metrics.get("error") is None:
        raise _damaged(folder / RESULTS, "clean.error must be a number; received none")
    for name in ("dataset", "model", "method"):
        if not content.config.get(name):
            raise _damaged(folder / CONFIG, f"{name} is missing")
    model, method = run_name(content.config)
    return Run(folder, content.config, content.results, content.metrics, model, method)


def _with_different_settings(runs: list[Run]) -> list[Run]:
    """Adds the settings in which runs with the same name differ to their methods; sorts."""
    named = []
    for alike in grouped(runs, lambda run: repr((run.dataset, run.model, run.method))).values():
        settings = [compared_settings(run.config) for run in alike]
        # A setting that only newer versions of the program have is no difference.
        values = {
            name: {plain(found[name]) for found in settings if name in found}
            for name in sorted({name for found in settings for name in found})
        }
        differing = [name for name, found in values.items() if len(found) > 1]
        for run in alike:
            texts = [f"{n} {plain(run.config[n])}" for n in differing if n in run.config]
            named.append(dataclasses.replace(run, method=", ".join([run.method, *texts])))
    return sorted(named, key=_order)


def _order(run: Run) -> tuple[Any, ...]:
    seed = run.config.get("seed")
    order = method_order(run.config, run.method)
    return run.dataset, run.model, order, seed if isinstance(seed, int) else -1, str(run.folder)


def _damaged(path: Path, reason: str) -> FileError:
    return FileError(f"Cannot read {path}: {reason}.")


def _read_text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _damaged(path, error.strerror or str(error)) from error
    except UnicodeDecodeError as error:
        raise _damaged(path, "it is not UTF-8 text") from error


def _read_json(path: Path) -> dict[str, Any] | None:
    text = _read_text(path)
    if text is None:
        return None
    try:
        content = json.loads(text)
    except ValueError as error:
        raise _damaged(path, f"it is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise _damaged(path, f"it must be an object; received {type(content).__name__}")
    return content


def _read_columns(path: Path) -> dict[str, list[float]]:
    text = _read_text(path)
    if text is None:
        return {}
    rows = list(csv.reader(text.splitlines()))
    header = rows[0] if rows else []
    if "epoch" not in header:
        raise _damaged(path, f"it must have a column epoch; received {','.join(header)!r}")
    columns: dict[str, list[float]] = {name: [] for name in header}
    for line, row in enumerate(rows[1:], start=2):
        if len(row) != len(header):
            wanted = f"line {line} must have {len(header)} values"
            raise _damaged(path, f"{wanted}; received {len(row)}")
        for name, text in zip(header, row, strict=True):
            columns[name].append(_number(path, line, text))
    return columns


def _number(path: Path, line: int, text: str) -> float:
    if not text.strip():
        return math.nan
    try:
        return float(text)
    except ValueError as error:
        raise _damaged(path, f"line {line} must have numbers; received {text!r}") from error
