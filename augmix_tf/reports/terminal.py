"""What a person reads at the end of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from augmix_tf.files import PathLike
from augmix_tf.reports import cells, run_files, runs
from augmix_tf.reports.tables import ABSENT

WIDTH = 24  # of the names; longer ones widen it
# Row: where in `results.json` it stands; per cent of AlexNet's value.
AGAINST_ALEXNET: dict[str, Callable[[Mapping[str, Any]], float | None]] = {
    "mCE, of AlexNet's": lambda results: cells.measure(results, "corrupted.alexnet.mce"),
    "relative mCE": lambda results: cells.measure(results, "corrupted.alexnet.relative_mce"),
    "mFR, of AlexNet's": lambda results: cells.measure(results, "perturbed.mean_flip_rate"),
    "mT5D, of AlexNet's": lambda results: cells.measure(results, "perturbed.mean_top5_distance"),
}


def results_table(folder: Path) -> str:
    """Returns the results of a run, what lies where, and what to try next, as an aligned table.

    Args:
        folder: of a run that was evaluated.

    Raises:
        CommandError, RunError: the folder holds no run, or damaged files.
    """
    results = run_files.read(folder).results
    clean, corrupted = results["clean"], results.get("corrupted") or {}
    perturbed = results.get("perturbed") or {}
    names = cells.counted_in(corrupted)
    shifted_rms = cells.over_corruptions(corrupted, names, "rms_calibration_error")
    measured = [
        ("clean error", _percent(clean["error"])),
        (_error_title(names), _percent(cells.over_corruptions(corrupted, names, "error"))),
        ("calibration error (RMS)", _percent(clean["rms_calibration_error"])),
        ("the same, corrupted", _percent(shifted_rms)),
        ("flip probability", _percent(perturbed.get("mean_flip_probability"))),
        *((title, _ratio(of(results))) for title, of in AGAINST_ALEXNET.items()),
        *(
            (f"error on {name}", _percent(part["error"]))
            for name, part in (results.get("shifted") or {}).items()
        ),
    ]
    places = [
        ("Brier score", f"{clean['brier']:.3f}"),
        ("test images", str(clean["images"])),
        ("report, plots", str(folder / "report.md")),
        ("Keras model", str(folder / "model.keras")),
        ("TensorFlow Serving", str(folder / "export")),
        ("dashboard", f"tensorboard --logdir {folder / 'logs'}"),
        ("see the views", "python main.py --mode=views"),
        ("real pictures", "python main.py --dataset=cifar10 --model=wrn"),
    ]
    rows = [(name, value) for name, value in measured if value != ABSENT] + places
    first = max(WIDTH, *(len(name) for name, _ in rows))
    return "\n" + "\n".join(f"  {name:<{first}} {value}" for name, value in rows)


def comparison_table(folders: Sequence[PathLike]) -> str:
    """Returns the results of several runs side by side, a column each, as an aligned table.

    Columns are named after the methods, or the folders where methods repeat. A mean over
    corruptions is over those that all runs have.

    Args:
        folders: of runs that were evaluated; the columns come in this order.

    Raises:
        CommandError, RunError: no folder, one given twice, one without results, damaged files.
    """
    found = {run.folder: run for run in runs.read(folders)}
    columns = [found[Path(folder)] for folder in folders]
    names = runs.common_corruptions(columns)
    titles = [run.method for run in columns]
    if len(set(titles)) < len(titles):
        titles = [str(run.folder) for run in columns]

    def shifted(key: str) -> Callable[[runs.Run], float | None]:
        return lambda run: cells.over_corruptions(run.corrupted, names, key)

    lines: list[tuple[str, Callable[[runs.Run], str]]] = [
        ("clean error", lambda run: _percent(run.clean["error"])),
        (_error_title(names), lambda run: _percent(shifted("error")(run))),
        ("calibration error (RMS)", lambda run: _percent(run.clean.get("rms_calibration_error"))),
        ("the same, corrupted", lambda run: _percent(shifted("rms_calibration_error")(run))),
        ("Brier score", lambda run: _score(run.clean.get("brier"))),
        ("the same, corrupted", lambda run: _score(shifted("brier")(run))),
        *_of_imagenet(columns),
        ("training, about", lambda run: _clock(run.training_seconds)),
    ]
    table = [("", titles)] + [(title, [of(run) for run in columns]) for title, of in lines]
    shown = [row for row in table if not row[0] or any(value != ABSENT for value in row[1])]
    first = max(WIDTH, *(len(title) for title, _ in shown))
    widths = [max(len(row[1][i]) for row in shown) for i in range(len(columns))]
    return "\n" + "\n".join(
        f"  {title:<{first}}  "
        + "  ".join(f"{value:>{width}}" for value, width in zip(values, widths, strict=True))
        for title, values in shown
    )


def _of_imagenet(columns: Sequence[runs.Run]) -> list[tuple[str, Callable[[runs.Run], str]]]:
    """The rows that only networks for ImageNet have, and those of other test sets."""

    def ratio(of: Callable[[Mapping[str, Any]], float | None]) -> Callable[[runs.Run], str]:
        return lambda run: _ratio(of(run.content.results))

    def error(name: str) -> Callable[[runs.Run], str]:
        return lambda run: _percent(cells.measure(run.shifted.get(name, {}), "error"))

    return [
        *((title, ratio(of)) for title, of in AGAINST_ALEXNET.items()),
        *((f"error on {name}", error(name)) for name in runs.shifted_names(columns)),
    ]


def _error_title(names: Sequence[str]) -> str:
    whole = len(names) == len(cells.COUNTED)
    return "mean corruption error" if whole else f"error on {len(names)} corruptions"


def _percent(share: float | None) -> str:
    return ABSENT if share is None else f"{100 * share:.2f} %"


def _ratio(percent_of_alexnet: float | None) -> str:
    return ABSENT if percent_of_alexnet is None else f"{percent_of_alexnet:.1f} %"


def _score(value: float | None) -> str:
    return ABSENT if value is None else f"{value:.3f}"


def _clock(seconds: float | None) -> str:
    if seconds is None:
        return ABSENT
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d} h" if hours else f"{minutes}:{rest:02d} min"
