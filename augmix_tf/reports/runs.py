"""Several runs at once: read, named after what sets them apart, averaged over seeds."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from augmix_tf.checks import CommandError, require
from augmix_tf.config import FREE_TO_CHANGE
from augmix_tf.files import PathLike
from augmix_tf.reports import cells, run_files
from augmix_tf.reports.contract import demand
from augmix_tf.reports.tables import plain

# As the paper orders them; others follow, AugMix comes last.
METHODS = (
    "standard",
    "cutout",
    "mixup",
    "cutmix",
    "autoaugment",
    "random_autoaugment",
    "adversarial",
    "patch_uniform",
)
# Settings that are in the names of method and model already, or do not change what is measured.
# Any other setting that differs makes another method: its runs are not averaged.
NOT_IN_METHOD = {
    "dataset", "model", "depth", "widen_factor", "method", "jsd", "views", "mix_ops", "split_bn",
    "seed", "deterministic", "eval_limit", *FREE_TO_CHANGE,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Run:
    """One run folder, read; `model` and `method` are names for people."""

    folder: Path
    content: run_files.RunFiles
    dataset: str
    model: str
    method: str

    @property
    def config(self) -> Mapping[str, Any]:
        """The settings."""
        return self.content.config

    @property
    def clean(self) -> Mapping[str, Any]:
        """The measures on clean images."""
        return self.content.results.get("clean") or {}

    @property
    def corrupted(self) -> Mapping[str, Any]:
        """The part of `results.json` on corrupted images, {} where there is none."""
        return self.content.results.get("corrupted") or {}

    @property
    def perturbed(self) -> Mapping[str, Any]:
        """The part of `results.json` on perturbed sequences, {} where there is none."""
        return self.content.results.get("perturbed") or {}

    @property
    def shifted(self) -> Mapping[str, Mapping[str, Any]]:
        """The measures on other test sets by their names, {} where there are none."""
        return self.content.results.get("shifted") or {}

    @property
    def training_seconds(self) -> float | None:
        """About how long the training took: images over speed, epoch by epoch."""
        columns, batch = self.content.metrics, self.config.get("batch_size")
        speeds = columns.get("images_per_second") or []
        if not batch or not speeds or not all(speed > 0 for speed in speeds):
            return None
        steps = [0.0, *columns.get("step", [])]
        return math.fsum(
            (after - before) * batch / speed
            for before, after, speed in zip(steps, steps[1:], speeds, strict=False)
        )


class Estimate(NamedTuple):
    """A mean over seeds."""

    mean: float | None
    spread: float | None  # sample standard deviation; None for fewer than two runs
    runs: int


def estimate(values: Iterable[float | None]) -> Estimate:
    """Returns mean and sample standard deviation of the values that are there."""
    known = [value for value in values if value is not None]
    spread = statistics.stdev(known) if len(known) > 1 else None
    return Estimate(cells.mean_of(known), spread, len(known))


def read(workdirs: Sequence[PathLike]) -> list[Run]:
    """Reads run folders, each with `config.json` and the clean measures of `results.json`.

    Args:
        workdirs: at least one, none twice.

    Returns:
        The runs by dataset, model, method (in the paper's order), seed and folder.

    Raises:
        CommandError: no folder, one given twice, or one that holds no evaluated run.
        RunError: a file is damaged.
    """
    require(len(workdirs) > 0, "at least one run folder", "none")
    seen: dict[Path, PathLike] = {}
    for workdir in workdirs:
        place = Path(workdir).resolve()
        again = f"{workdir} twice" + (f" (also as {seen[place]})" if place in seen else "")
        require(place not in seen, "each run folder once", again)
        seen[place] = workdir
    return _told_apart([_read_one(Path(workdir)) for workdir in workdirs])


def common_corruptions(runs: Sequence[Run]) -> list[str]:
    """Returns the corruptions that all runs count which were evaluated on corrupted images."""
    sets = [cells.counted_in(run.corrupted) for run in runs if run.corrupted]
    return [name for name in cells.COUNTED if sets and all(name in names for names in sets)]


def shifted_names(runs: Sequence[Run]) -> list[str]:
    """Returns the other test sets that any of the runs was evaluated on."""
    return list(dict.fromkeys(name for run in runs for name in run.shifted))


def grouped(runs: Sequence[Run], key: Callable[[Run], str]) -> dict[str, list[Run]]:
    """Returns key -> the runs that have it, both in the order in which they come."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(key(run), []).append(run)
    return found


def _read_one(folder: Path) -> Run:
    content = run_files.read(folder)
    for name, there in ((run_files.CONFIG, content.config), (run_files.RESULTS, content.results)):
        if not there:
            hint = f"; python main.py --mode=evaluate --workdir={folder} writes it"
            hint = hint if name == run_files.RESULTS else ""
            raise CommandError(f"want evaluated runs, got {folder}, which has no {name}{hint}")
    path = folder / run_files.RESULTS
    error = (content.results.get("clean") or {}).get("error")
    demand(path, error is not None, "an error on the clean images", "none")
    config = content.config
    for name in ("dataset", "model", "method"):
        demand(folder / run_files.CONFIG, bool(config.get(name)), f"a {name}", "none")
    return Run(folder, content, plain(config["dataset"]), _model(config), _method(config))


def _model(config: Mapping[str, Any]) -> str:
    depth, widen = config.get("depth"), config.get("widen_factor")
    if depth is not None and widen is not None:
        return f"{plain(config['model'])}-{depth}-{widen}"
    said = [("depth", depth), ("widen factor", widen)]
    sizes = [f"{name} {value}" for name, value in said if value is not None]
    return ", ".join([plain(config["model"]), *sizes])


def _method(config: Mapping[str, Any]) -> str:
    method = plain(config["method"])
    if method != "augmix":
        return method
    jsd, operations = config.get("jsd", True), config.get("mix_ops")
    if operations and operations != "augmix":
        method = plain(operations) + (" + JSD" if jsd else ", no JSD")
    elif not jsd:
        method = "augmix, no JSD"
    if jsd and config.get("views", 3) != 3:
        method += f", {config['views']} views"
    return method + (", split BN" if config.get("split_bn") else "")


def _told_apart(runs: list[Run]) -> list[Run]:
    """Adds to the methods' names the settings in which runs of one name differ; sorts."""
    named = []
    for alike in grouped(runs, lambda run: repr((run.dataset, run.model, run.method))).values():
        settings = {name for run in alike for name in run.config} - NOT_IN_METHOD
        # A setting that one of two versions of the program does not know tells nothing.
        values = {
            name: {plain(run.config[name]) for run in alike if name in run.config}
            for name in sorted(settings)
        }
        differing = [name for name, found in values.items() if len(found) > 1]
        for run in alike:
            said = [f"{n} {plain(run.config[n])}" for n in differing if n in run.config]
            named.append(dataclasses.replace(run, method=", ".join([run.method, *said])))
    return sorted(named, key=_order)


def _order(run: Run) -> tuple[Any, ...]:
    kind = plain(run.config["method"])
    own = (METHODS.index(kind), "") if kind in METHODS else (len(METHODS), kind)
    last = kind == "augmix"
    plainest = last and run.method.startswith("augmix") and "no JSD" not in run.method
    seed = run.config.get("seed")
    seed = seed if isinstance(seed, int) else -1
    return run.dataset, run.model, last, own, plainest, run.method, seed, str(run.folder)
