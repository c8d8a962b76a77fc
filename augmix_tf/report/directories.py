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
from augmix_tf.errors import FileError, first_line, require
from augmix_tf.evaluation.results import CorruptedResults, ImageResults, Results
from augmix_tf.files import PathLike
from augmix_tf.metrics import Interval, mean_interval
from augmix_tf.metrics.table import Metric
from augmix_tf.report import plain

CONFIG, RESULTS, METRICS = "config.json", "results.json", "metrics.csv"
# Settings that the name of the model contains.
_MODEL_SIZES = ("depth", "widen_factor")
# What every evaluated run has.
_NAMES = ("dataset", "model", "method")


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
        return self.results.part("corrupted")

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
    interval: Interval | None = None  # 95 %; None where it is not known


def estimate(
    values: Iterable[float | None],
    intervals: Iterable[Iterable[float] | None] = (),
    *,
    metric: Metric | None = None,
) -> Estimate:
    """Returns mean and sample standard deviation of the values that are not None.

    The 95 % interval of one run is over test images, that of several over seeds: the wider one of
    the mean of their `intervals` and the one by their deviation, which is cut to the values that
    `metric` can have.
    """
    known = [value for value in values if value is not None]
    mean = statistics.fmean(known) if known else None
    bounds = [interval for interval in intervals if interval is not None]
    every = [list(map(statistics.fmean, zip(*bounds, strict=True)))] if bounds else []
    if len(known) < 2:
        return Estimate(mean, None, len(known), Interval(*every[0]) if every else None)
    over_seeds = mean_interval(known)
    every.append(list(metric.clipped(over_seeds) if metric else over_seeds))
    interval = Interval(min(low for low, _ in every), max(high for _, high in every))
    return Estimate(mean, statistics.stdev(known), len(known), interval)


def is_run(folder: Path) -> bool:
    """Whether a directory has a file that `read` reads."""
    return any((folder / name).exists() for name in (CONFIG, RESULTS, METRICS))


def read(folder: PathLike) -> Run:
    """Reads a run directory's `config.json`, `results.json` and `metrics.csv`; one is enough."""
    folder = Path(folder)
    require(is_run(folder), f"a run directory with {CONFIG}, {RESULTS} or {METRICS}", folder)
    results = _read(folder / RESULTS, json.loads)
    return Run(
        folder,
        _read(folder / CONFIG, lambda text: dict(json.loads(text))) or {},
        Results() if results is None else Results.from_json(results, folder / RESULTS),
        _read(folder / METRICS, _columns) or {},
    )


def read_runs(folders: Sequence[PathLike]) -> list[Run]:
    """Reads evaluated runs: directories with the clean error in `results.json`.

    Dataset, model and method are those of `config.json`; where there is none, as of saved models,
    of the provenance in `results.json`. Such runs are never averaged with each other.

    Returns them by dataset, model, method (in the paper's order), seed and directory. Names of
    methods have the settings in which runs differ otherwise.
    """
    require(len(folders) > 0, "at least one run directory", "none")
    once = len({Path(folder).resolve() for folder in folders}) == len(folders)
    require(once, "each run directory once", ", ".join(map(str, folders)))
    return _with_different_settings([_read_evaluated(Path(folder)) for folder in folders])


def common_corruptions(runs: Sequence[Run], part: str = "corrupted") -> list[str]:
    """Returns those of a benchmark's corruptions that all runs with results on it have.

    `part` is one of `results.CORRUPTED_PARTS`.
    """
    sets = [names for run in runs if (names := run.results.part(part).counted)]
    return [name for name in (sets[0] if sets else ()) if all(name in names for names in sets)]


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
    has_config = (folder / CONFIG).exists()
    if not has_config:
        config = {name: run.results.provenance.get(name) for name in _NAMES}
        run = dataclasses.replace(run, config=config | {"directory": str(folder)})
    known = all(map(run.config.get, _NAMES))
    expected = f"evaluated runs, with {CONFIG} and the clean error in {RESULTS}"
    require(known and run.clean.metric("error") is not None, expected, folder)
    sizes = [run.config[name] for name in _MODEL_SIZES if run.config.get(name) is not None]
    model = "-".join(map(plain, [run.config["model"], *sizes]))
    row = recipes.METHODS.get(run.config["method"])
    method = plain(row.method.label(run.config) if row and has_config else run.config["method"])
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


def _read(path: Path, parse: Callable[[str], Any]) -> Any:
    """Returns the parsed text of a file, None where it does not exist."""
    try:
        return parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise FileError(f"Cannot read {path}: {first_line(error)}.") from error


def _columns(text: str) -> dict[str, list[float]]:
    rows = list(csv.DictReader(text.splitlines()))
    return {name: [float(row[name] or "nan") for row in rows] for name in (rows or [{}])[0]}
