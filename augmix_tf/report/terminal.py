"""Results as aligned tables for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from augmix_tf.files import PathLike
from augmix_tf.metrics.table import compared
from augmix_tf.report.comparison import values_by_run
from augmix_tf.report.directories import common_corruptions, read_files, read_runs
from augmix_tf.report.tables import ABSENT

WIDTH = 24  # of the titles; longer ones widen it
_FILES = (
    ("report and plots", "report.md"),
    ("Keras model", "model.keras"),
    ("TensorFlow Serving", "export"),
)


def results_table(folder: Path) -> str:
    """Returns the results of a run, those files of it that exist, and the next commands.

    Args:
        folder: of an evaluated run.

    Raises:
        ArgumentError: the directory has no run.
        FileError: a file is damaged.
    """
    results = read_files(folder).results
    rows = [(entry.short, entry.metric.text(entry.value)) for entry in compared(results.values())]
    images = results.clean.images if results.clean else None
    rows.append(("test images", ABSENT if images is None else str(images)))
    rows += [(title, str(folder / name)) for title, name in _FILES if (folder / name).exists()]
    if (folder / "logs").exists():
        rows.append(("dashboard", f"tensorboard --logdir {folder / 'logs'}"))
    rows += [
        ("augmented views", "python main.py --mode=views"),
        ("train on CIFAR-10", "python main.py --dataset=cifar10 --model=wrn"),
    ]
    width = max(WIDTH, *(len(title) for title, _ in rows))
    return "\n" + "\n".join(f"  {title:<{width}}  {value}" for title, value in rows)


def comparison_table(folders: Sequence[PathLike]) -> str:
    """Returns the results of several runs side by side, one column per run.

    Columns are named after the methods, or the directories if two runs have the same method. Means
    over corruptions are over those that all runs have.

    Args:
        folders: of evaluated runs, in the order of the columns.

    Raises:
        ArgumentError: no directory, one given twice, or one without an evaluated run.
        FileError: a file is damaged.
    """
    found = {run.folder: run for run in read_runs(folders)}
    columns = [found[Path(folder)] for folder in folders]
    titles = [run.method for run in columns]
    if len(set(titles)) < len(titles):
        titles = [str(run.folder) for run in columns]
    lines = [("", titles)]
    for values in values_by_run(columns, common_corruptions(columns)).values():
        first = next(value for value in values if value)
        if not first.with_temperature:
            texts = [first.metric.text(value.value) if value else ABSENT for value in values]
            lines.append((first.short, texts))
    times = [_clock(run.training_seconds) for run in columns]
    lines += [("training time, about", times)] if set(times) != {ABSENT} else []
    width = max(WIDTH, *(len(title) for title, _ in lines))
    widths = [max(len(row[1][i]) for row in lines) for i in range(len(columns))]
    return "\n" + "\n".join(
        f"  {title:<{width}}  " + "  ".join(f"{v:>{w}}" for v, w in zip(row, widths, strict=True))
        for title, row in lines
    )


def _clock(seconds: float | None) -> str:
    if seconds is None:
        return ABSENT
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d} h" if hours else f"{minutes}:{rest:02d} min"
