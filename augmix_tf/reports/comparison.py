"""Tables and plots over many runs: methods by models, mean and deviation over seeds."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from augmix_tf import files
from augmix_tf.reports import cells, comparison_files
from augmix_tf.reports.comparability import warnings
from augmix_tf.reports.runs import (
    Estimate,
    Run,
    common_corruptions,
    estimate,
    grouped,
    read,
    shifted_names,
)
from augmix_tf.reports.tables import ABSENT, cell, percent, plain, table

REPORT, ROWS = "comparison.md", "comparison.csv"
# Title -> key of the part's values that are per cent of AlexNet's.
ALEXNET_CORRUPTED = {
    "mCE, relative to AlexNet (%)": "mce",
    "Relative mCE, relative to AlexNet (%)": "relative_mce",
}
ALEXNET_PERTURBED = {
    "Mean flip rate, relative to AlexNet (%)": "mean_flip_rate",
    "Mean top-5 distance, relative to AlexNet (%)": "mean_top5_distance",
}


class Measure(NamedTuple):
    """One quantity of a run; lower is better."""

    title: str  # with the unit
    of: Callable[[Run], float | None]
    digits: int = 2
    factor: float = 100.0  # fractions are shown in per cent


def write(workdirs: Sequence[files.PathLike], out: files.PathLike) -> Path:
    """Writes `comparison.md`, `comparison.csv` and `plots/*.png` over several runs.

    Runs that differ in nothing but the seed are averaged: mean and sample standard deviation.
    Means over corruptions are over those that all runs of a dataset have; where these are fewer
    than 15, the title says which. Nothing but the runs' own numbers is shown.

    Args:
        workdirs: run folders with `config.json` and `results.json`.
        out: the folder to write into; made if need be.

    Returns:
        The path of `comparison.md`.

    Raises:
        CommandError: no folder, one given twice, or one that holds no evaluated run.
        RunError: a file is damaged, or one cannot be written.
    """
    runs, folder = read(workdirs), Path(out)
    sections = [
        f"# Comparison of {len(runs)} runs",
        "Lower is better in every table. **Bold**: the lowest of its column. ± is the sample "
        "standard deviation over seeds.",
    ]
    for dataset, members in grouped(runs, lambda run: run.dataset).items():
        pictures = comparison_files.pictures(dataset, members)
        for name, picture in pictures.items():
            files.write_bytes_atomically(folder / "plots" / name, picture)
        sections += _dataset(dataset, members, pictures)
    sections += ["## Runs", _runs_table(runs), f"One row for each run in `{ROWS}`."]
    files.write_text_atomically(folder / ROWS, comparison_files.rows(runs))
    files.write_text_atomically(folder / REPORT, "\n\n".join(filter(None, sections)) + "\n")
    return folder / REPORT


def measures(runs: Sequence[Run]) -> list[Measure]:
    """Returns what can be compared among runs of one dataset, in the order of the report."""
    names = common_corruptions(runs)
    over = f"mean over {cells.set_name(names)}"
    whole = len(names) == len(cells.COUNTED)
    title = "Mean corruption error (%)" if whole else f"Error, {over} (%)"

    def clean(key: str) -> Callable[[Run], float | None]:
        return lambda run: cells.measure(run.clean, key)

    def shifted(key: str) -> Callable[[Run], float | None]:
        return lambda run: cells.over_corruptions(run.corrupted, names, key)

    rms, scaled = "rms_calibration_error", "calibrated.rms_calibration_error"
    found = [
        Measure("Clean error (%)", clean("error")),
        Measure(title, shifted("error")),
        *(
            _against_alexnet(title, "corrupted", f"alexnet.{key}")
            for title, key in ALEXNET_CORRUPTED.items()
            if whole
        ),
        Measure("RMS calibration error, clean (%)", clean(rms)),
        Measure(f"RMS calibration error, {over} (%)", shifted(rms)),
        Measure("RMS calibration error with temperature, clean (%)", clean(scaled)),
        Measure(f"RMS calibration error with temperature, {over} (%)", shifted(scaled)),
        Measure("Brier score, clean", clean("brier"), 4, 1.0),
        Measure(f"Brier score, {over}", shifted("brier"), 4, 1.0),
        Measure(
            "Mean flip probability, ten perturbations (%)",
            lambda run: run.perturbed.get("mean_flip_probability"),
        ),
        *(_against_alexnet(title, "perturbed", key) for title, key in ALEXNET_PERTURBED.items()),
        *(
            Measure(f"Error on {cell(name)} (%)", functools.partial(_shifted_error, name))
            for name in shifted_names(runs)
        ),
    ]
    return [entry for entry in found if any(entry.of(run) is not None for run in runs)]


def _against_alexnet(title: str, part: str, key: str) -> Measure:
    return Measure(title, lambda run: cells.measure(getattr(run, part), key), 1, 1.0)


def _shifted_error(name: str, run: Run) -> float | None:
    return cells.measure(run.shifted.get(name) or {}, "error")


def _dataset(dataset: str, runs: Sequence[Run], pictures: dict[str, bytes]) -> list[str]:
    parts = [f"## {dataset}"]
    lines = warnings(runs)
    if lines:
        parts.append("\n".join(["> **Not all alike.**", *(f"> - {line}" for line in lines)]))
    sets = {
        "Corrupted": (cells.describe, "images of each corruption and severity", "corrupted"),
        "Perturbed": (cells.describe, "sequences of each kind", "perturbed"),
    }
    for title, (describe, per, part) in sets.items():
        found = [getattr(run, part).get("data") for run in runs]
        lines = list(dict.fromkeys(describe(data, per) for data in found if data))
        if lines:
            parts.append(f"{title}: {'; '.join(lines)}.")
    for name in shifted_names(runs):
        found = [(run.shifted.get(name) or {}).get("data") for run in runs]
        lines = list(dict.fromkeys(cells.describe(data, "images") for data in found if data))
        parts += [f"{cell(name)}: {'; '.join(lines)}."] if lines else []
    for entry in measures(runs):
        parts += [f"### {entry.title}", _methods_by_models(runs, entry)]
    names = common_corruptions(runs)
    for model, alike in grouped(runs, lambda run: run.model).items():
        if names and any(run.corrupted for run in alike):
            parts += [f"### Error on each corruption (%): {model}", _by_corruption(alike, names)]
    parts += [f"![{_alternative(name)}](plots/{name})" for name in pictures]
    return parts


def _alternative(name: str) -> str:
    return name.removesuffix(".png").replace("_", " ")


def _methods_by_models(runs: Sequence[Run], entry: Measure) -> str:
    models = list(grouped(runs, lambda run: run.model))
    methods = list(grouped(runs, lambda run: run.method))
    found = {
        method: [
            estimate(entry.of(run) for run in runs if (run.method, run.model) == (method, model))
            for model in models
        ]
        for method in _ordered(methods, runs)
    }
    if len(models) > 1:
        for row in found.values():
            row.append(Estimate(cells.mean_of(value.mean for value in row), None, 0))
    counts = {value.runs for row in found.values() for value in row if value.runs}
    rows = _marked(found, entry.digits, entry.factor, with_counts=len(counts) > 1)
    head = ("method", *models, *(["mean"] if len(models) > 1 else []))
    each = f"n = {counts.pop()} in each cell." if len(counts) == 1 else "n: the runs in a cell."
    return table(head, rows) + f"\n\n{each}"


def _ordered(methods: Sequence[str], runs: Sequence[Run]) -> list[str]:
    """The methods in the order that they have within the models, whichever comes first."""
    order: list[str] = []
    for alike in grouped(runs, lambda run: run.model).values():
        place = 0
        for method in grouped(alike, lambda run: run.method):
            if method in order:
                place = order.index(method) + 1
            else:
                order.insert(place, method)
                place += 1
    return [method for method in order if method in methods]


def _by_corruption(runs: Sequence[Run], names: Sequence[str]) -> str:
    def errors(run: Run) -> list[float | None]:
        return [cells.over_severities(run.corrupted, name, "error") for name in names]

    found = {}
    for method, members in grouped(runs, lambda run: run.method).items():
        columns = list(zip(*(errors(run) for run in members if run.corrupted), strict=True))
        means = [estimate(values)._replace(spread=None) for values in columns]
        clean = estimate(run.clean["error"] for run in members)._replace(spread=None)
        over = Estimate(cells.mean_of(value.mean for value in means), None, 0)
        found[method] = [clean, over, *(means or [Estimate(None, None, 0)] * len(names))]
    groups = [
        f"{group}: {' '.join(short for name, short in members.items() if name in names)}"
        for group, members in cells.GROUPS.items()
        if any(name in names for name in members)
    ]
    head = ("method", "clean", "mean", *(cells.SHORT[name] for name in names))
    rows = _marked(found, digits=1, factor=100.0, with_counts=False)
    return table(head, rows) + f"\n\nMeans over seeds. {'; '.join(groups)}."


def _marked(
    found: dict[str, list[Estimate]], digits: int, factor: float, with_counts: bool
) -> list[tuple[str, ...]]:
    """Rows of text, the lowest of each column in bold where there is more than one."""
    rows = []
    for method, row in found.items():
        texts = [cell(method)]
        for column, value in enumerate(row):
            if value.mean is None:
                texts.append(ABSENT)
                continue
            text = f"{factor * value.mean:.{digits}f}"
            others = [other[column].mean for other in found.values()]
            known = [f"{factor * mean:.{digits}f}" for mean in others if mean is not None]
            best = len(known) > 1 and float(text) == min(map(float, known))
            if value.spread is not None:
                text += f" ± {factor * value.spread:.{digits}f}"
            text = f"**{text}**" if best else text
            texts.append(text + (f" (n = {value.runs})" if with_counts and value.runs else ""))
        rows.append(tuple(texts))
    return rows


def _runs_table(runs: Sequence[Run]) -> str:
    head = ("folder", "dataset", "model", "method", "seed", "epochs", "clean error (%)")
    rows = [
        (
            f"`{cell(run.folder)}`",
            run.dataset,
            run.model,
            run.method,
            *(plain(run.config.get(name)) for name in ("seed", "epochs")),
            percent(run.clean["error"]),
        )
        for run in runs
    ]
    return table(head, rows, numbers_from=4)
