"""Run directories: reads their files, names the runs and averages over seeds."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from augmix_tf import recipes
from augmix_tf.errors import ArgumentError, FileError, require
from augmix_tf.evaluation.results import CorruptedResults, ImageResults, Results
from augmix_tf.files import PathLike
from augmix_tf.report import plain
from augmix_tf.robustness import CORRUPTIONS

CONFIG, RESULTS, METRICS = "config.json", "results.json", "metrics.csv"
# Settings that the name of the model contains.
_MODEL_SIZES = ("depth", "widen_factor")

Content = TypeVar("Content")


@dataclasses.dataclass(frozen=True)
class Run:
    """Content of the files of a run directory, empty where a file does not exist."""

    folder: Path
    config: Mapping[str, Any]
    results: Results
    metrics: Mapping[str, list[float]]  # columns of equal length; NaN for empty cells
    model: str = ""  # in comparisons
    method: str = ""

    @property
    def dataset(self) -> str:
        """Name of the dataset."""
        return plain(self.config["dataset"])

    @property
    def clean(self) -> ImageResults:
        """Results on the clean test images, empty where there are none."""
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
        spans = zip(steps, steps[1:], speeds, strict=False)
        return math.fsum((after - before) * batch / speed for before, after, speed in spans)


class Estimate(NamedTuple):
    """A mean over seeds."""

    mean: float | None
    deviation: float | None = None  # sample standard deviation; None for fewer than two runs
    runs: int = 0


def estimate(values: Iterable[float | None]) -> Estimate:
    """Returns mean and sample standard deviation of the values that are not None."""
    known = [value for value in values if value is not None]
    deviation = statistics.stdev(known) if len(known) > 1 else None
    return Estimate(statistics.fmean(known) if known else None, deviation, len(known))


def read(folder: PathLike) -> Run:
    """Reads a run directory's `config.json`, `results.json` and `metrics.csv`.

    Raises:
        ArgumentError: the directory has none of them.
        FileError: one of them is damaged, or of another schema.
    """
    folder = Path(folder)
    if not any((folder / name).exists() for name in (CONFIG, RESULTS, METRICS)):
        expected = f"a run directory with {CONFIG}, {RESULTS} or {METRICS}"
        raise ArgumentError(f"Expected {expected}; received {folder}, which has none of them.")
    document = _read_file(folder / RESULTS, _parse_object)
    return Run(
        folder,
        _read_file(folder / CONFIG, _parse_object) or {},
        Results() if document is None else Results.from_json(document, folder / RESULTS),
        _read_file(folder / METRICS, _parse_columns) or {},
    )


def read_runs(folders: Sequence[PathLike]) -> list[Run]:
    """Reads evaluated runs: directories with `config.json` and the clean error in `results.json`.

    Returns them by dataset, model, method (in the paper's order), seed and directory. Names of
    methods have the settings in which runs differ otherwise.

    Raises:
        ArgumentError: no directory, one given twice, or one without an evaluated run.
        FileError: a file is damaged.
    """
    require(len(folders) > 0, "at least one run directory", "none")
    seen: dict[Path, PathLike] = {}
    for folder in folders:
        path = Path(folder).resolve()
        repeated = f"{folder} twice (also as {seen.get(path)})"
        require(path not in seen, "each run directory once", repeated)
        seen[path] = folder
    return _with_different_settings([_read_evaluated(Path(folder)) for folder in folders])


def common_corruptions(runs: Sequence[Run]) -> list[str]:
    """Returns those of the 15 that all runs with results on corrupted images have."""
    sets = [run.corrupted.evaluated for run in runs if run.results.corrupted]
    return [name for name in CORRUPTIONS if sets and all(name in names for names in sets)]


def grouped(runs: Sequence[Run], key: Callable[[Run], str]) -> dict[str, list[Run]]:
    """Returns key -> the runs that have it, both in the order of `runs`."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(key(run), []).append(run)
    return groups


def method_order(run: Run) -> tuple[Any, ...]:
    """Sort key of a run's method: in the order of the recipes, with AugMix last."""
    kind, known = plain(run.config["method"]), list(recipes.METHODS)
    rank = (known.index(kind), "") if kind in known else (len(known), kind)
    is_augmix = kind == "augmix"
    is_plain = is_augmix and run.method.startswith("augmix") and "no JSD" not in run.method
    return is_augmix, rank, is_plain, run.method


def _read_evaluated(folder: Path) -> Run:
    run = read(folder)
    for name in (CONFIG, RESULTS):
        if not (folder / name).exists():
            raise ArgumentError(
                f"Expected evaluated runs; received {folder}, which has no {name}."
                + " Evaluate the run." * (name == RESULTS)
            )
    if run.clean.metric("error") is None:
        raise _damaged(folder / RESULTS, "clean.error must be a number; received none")
    for name in ("dataset", "model", "method"):
        if not run.config.get(name):
            raise _damaged(folder / CONFIG, f"{name} is missing")
    sizes = [run.config[name] for name in _MODEL_SIZES if run.config.get(name) is not None]
    model = "-".join(map(plain, [run.config["model"], *sizes]))
    row = recipes.METHODS.get(run.config["method"])
    method = plain(row.method.label(run.config) if row else run.config["method"])
    return dataclasses.replace(run, model=model, method=method)


def _with_different_settings(runs: Sequence[Run]) -> list[Run]:
    """Adds the settings in which runs with the same name differ to their methods; sorts."""
    named = []
    for alike in grouped(runs, lambda run: repr((run.dataset, run.model, run.method))).values():
        settings = [_compared_settings(run.config) for run in alike]
        # A setting that only newer versions of the program have is no difference.
        values = {
            name: {plain(entries[name]) for entries in settings if name in entries}
            for name in sorted({name for entries in settings for name in entries})
        }
        differing = [name for name, texts in values.items() if len(texts) > 1]
        for run in alike:
            texts = [f"{n} {plain(run.config[n])}" for n in differing if n in run.config]
            named.append(dataclasses.replace(run, method=", ".join([run.method, *texts])))
    return sorted(named, key=_order)


def _compared_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that make another method where they differ."""
    declared = recipes.declarations()

    def is_compared(name: str) -> bool:
        setting = declared.get(name)
        return setting is None or (setting.resume != "free" and setting.names_run)

    named = ("model", "method", *_MODEL_SIZES)
    return {n: value for n, value in config.items() if n not in named and is_compared(n)}


def _order(run: Run) -> tuple[Any, ...]:
    seed = run.config.get("seed")
    number = seed if isinstance(seed, int) else -1
    return run.dataset, run.model, method_order(run), number, str(run.folder)


def _damaged(path: Path, reason: object) -> FileError:
    return FileError(f"Cannot read {path}: {reason}.")


def _read_file(path: Path, parse: Callable[[str], Content]) -> Content | None:
    """Returns the parsed text of a file, None where it does not exist."""
    try:
        return parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _damaged(path, error.strerror or error) from error
    except ValueError as error:  # not UTF-8, or refused by `parse`
        raise _damaged(path, error) from error


def _parse_object(text: str) -> dict[str, Any]:
    content = json.loads(text)
    if not isinstance(content, dict):
        raise ValueError(f"it must be an object; received {type(content).__name__}")
    return content


def _parse_columns(text: str) -> dict[str, list[float]]:
    header, *rows = list(csv.reader(text.splitlines())) or [[]]
    if "epoch" not in header:
        raise ValueError(f"it must have a column epoch; received {','.join(header)!r}")
    for line, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise ValueError(f"line {line} must have {len(header)} values; received {len(row)}")
    return {
        name: [float(row[column].strip() or "nan") for row in rows]
        for column, name in enumerate(header)
    }
