"""Comparison of several runs: methods by models, mean and standard deviation over seeds."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from augmix_tf import files
from augmix_tf.evaluation.results import Data, ShiftedResults, mean
from augmix_tf.metrics import pool_bins
from augmix_tf.metrics.table import Metric, Value, select
from augmix_tf.report import plots
from augmix_tf.report.directories import (
    Estimate,
    Run,
    common_corruptions,
    estimate,
    grouped,
    read_runs,
)
from augmix_tf.report.run import IMAGES_PER_CELL, SEQUENCES, SEVERITY_CURVES, over_severities
from augmix_tf.report.tables import ABSENT, cell, describe, heading, plain, short_name, table
from augmix_tf.robustness import (
    CORRUPTION_GROUPS,
    CORRUPTIONS,
    SEVERITIES,
    describe_corruptions,
)

REPORT, ROWS = "comparison.md", "comparison.csv"
# Up to so many directories are listed in a warning.
MAX_LISTED = 3


def write(workdirs: Sequence[files.PathLike], out: files.PathLike) -> Path:
    """Writes `comparison.md`, `comparison.csv` and `plots/*.png` over several runs.

    Runs that differ only in the seed are averaged: mean and sample standard deviation. Means over
    corruptions are over those that all runs of a dataset have.

    Args:
        workdirs: run directories with `config.json` and `results.json`.
        out: directory to write into.

    Returns:
        Path of `comparison.md`.

    Raises:
        ArgumentError: no directory, one given twice, or one without an evaluated run.
        FileError: a file is damaged, or one cannot be written.
    """
    runs, folder = read_runs(workdirs), Path(out)
    sections = [
        f"# Comparison of {len(runs)} runs",
        "Lower is better unless a title says otherwise. **Bold**: best value of the column. "
        "±: sample standard deviation over seeds.",
    ]
    for dataset, members in grouped(runs, lambda run: run.dataset).items():
        drawn = figures(dataset, members)
        for name, png in drawn.items():
            files.write_bytes_atomically(folder / "plots" / name, png)
        sections += _dataset(dataset, members, list(drawn))
    sections += ["## Runs", _runs_table(runs), f"`{ROWS}` has one row for each run."]
    files.write_text_atomically(folder / ROWS, csv_rows(runs))
    files.write_text_atomically(folder / REPORT, "\n\n".join(sections) + "\n")
    return folder / REPORT


def csv_rows(runs: Sequence[Run]) -> str:
    """Returns a CSV with one row for each run; fractions, empty where nothing was evaluated.

    Columns `error_<corruption>` are means over severities, of all corruptions that any run has.
    """
    found = [{value.column: value for value in run.results.values()} for run in runs]
    everything = [value for row in found for value in row.values()]
    shown = [v.column for v in everything if v.value is not None or not v.optional]
    columns = dict.fromkeys(v.column for v in everything if v.column in shown)
    names = [name for run in runs for name in run.corrupted.corruptions]
    ordered = [name for name in CORRUPTIONS if name in names]
    ordered += sorted(set(names) - set(CORRUPTIONS))
    text = io.StringIO()
    rows = [
        _facts(run)
        | {column: row[column].value if column in row else None for column in columns}
        | {f"error_{name}": run.corrupted.over_severities(name, "error") for name in ordered}
        for run, row in zip(runs, found, strict=True)
    ]
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def values_by_run(runs: Sequence[Run], names: Sequence[str]) -> dict[str, list[Value | None]]:
    """Returns title -> that value of each run, of the metrics by which runs are compared.

    Args:
        runs: of one dataset.
        names: corruptions that means are over.
    """
    everything = [run.results.values(names) for run in runs]
    found = [
        {v.title: v for v in values if v.metric.compared and v.value is not None}
        for values in everything
    ]
    titles = dict.fromkeys(value.title for values in everything for value in values)
    rows = {title: [row.get(title) for row in found] for title in titles}
    return {title: values for title, values in rows.items() if any(values)}


def figures(dataset: str, runs: Sequence[Run]) -> dict[str, bytes]:
    """Plots the runs of one dataset, for each model.

    Returns:
        File name -> PNG.
    """
    drawn: dict[str, bytes] = {}
    names = common_corruptions(runs)
    for model, alike in grouped(runs, lambda run: run.model).items():
        stem = re.sub(r"[^A-Za-z0-9_.]+", "-", f"{dataset}-{model}").strip("-.")
        subject = f"{dataset}, {model}"
        methods = grouped(alike, lambda run: run.method)
        panels = {method: _diagram(members, names) for method, members in methods.items()}
        panels = {method: series for method, series in panels.items() if series}
        if panels:
            png = plots.reliability(panels, f"Reliability: {subject}")
            drawn[f"{stem}-reliability.png"] = png
        shifted = [run for run in alike if run.results.corrupted]
        if names and shifted:
            for name, png in _corruption_figures(subject, shifted, names).items():
                drawn[f"{stem}-{name}.png"] = png
    return drawn


def _corruption_figures(
    subject: str, runs: Sequence[Run], names: Sequence[str]
) -> dict[str, bytes]:
    methods = grouped(runs, lambda run: run.method)
    bars = {method: _bars(members, names) for method, members in methods.items()}
    title = f"Error on each corruption, mean over severities 1 to 5: {subject}"
    drawn = {"corruption_errors": plots.corruption_bars(bars, title)}
    for name, key, title, y_label in SEVERITY_CURVES:
        lines = {method: _points(members, names, key) for method, members in methods.items()}
        if any(value is not None for points in lines.values() for _, value, _ in points):
            over = describe_corruptions(names)
            title = f"{title} over severity: {subject}\nmean over {over}"
            drawn[name] = plots.severity_curves(lines, title, y_label)
    return drawn


def _bars(runs: Sequence[Run], names: Sequence[str]) -> dict[str, plots.Estimate]:
    values = {"clean": [run.clean.metric("error") for run in runs]}
    for name in names:
        values[name] = [run.corrupted.over_severities(name, "error") for run in runs]
    values["mean"] = [run.corrupted.mean_over(names, "error") for run in runs]
    return {name: estimate(found)[:2] for name, found in values.items()}


def _points(runs: Sequence[Run], names: Sequence[str], metric: str) -> plots.Points:
    rows = [over_severities(run.clean, run.corrupted, names, metric) for run in runs]
    columns = zip(*rows, strict=True)
    return [(s, *estimate(column)[:2]) for s, column in zip((0, *SEVERITIES), columns, strict=True)]


def _diagram(runs: Sequence[Run], names: Sequence[str]) -> dict[str, plots.Bins]:
    """Clean and corrupted reliability diagrams of the images of all seeds."""
    series = {
        "clean": pool_bins(run.clean.reliability or [] for run in runs),
        "corrupted": pool_bins(run.corrupted.reliability(names) for run in runs),
    }
    return {label: bins for label, bins in series.items() if bins}


def _dataset(dataset: str, runs: Sequence[Run], drawn: Sequence[str]) -> list[str]:
    parts = [f"## {dataset}"]
    lines = warnings(runs)
    if lines:
        parts.append("\n".join(["> **The runs are not all comparable.**",
                                *(f"> - {line}" for line in lines)]))  # fmt: skip
    for title, (data, per) in _origins(runs).items():
        texts = dict.fromkeys(describe(entry, per) for entry in map(data, runs) if entry)
        parts += [f"{title}: {'; '.join(texts)}."] if texts else []
    names = common_corruptions(runs)
    for title, values in values_by_run(runs, names).items():
        metric = next(value.metric for value in values if value)
        by_run = {id(run): value and value.value for run, value in zip(runs, values, strict=True)}
        title = heading(cell(title)) + metric.heading_unit
        parts += [f"### {title}", _methods_by_models(runs, metric, by_run)]
    for model, alike in grouped(runs, lambda run: run.model).items():
        if names and any(run.results.corrupted for run in alike):
            parts += [f"### Error on each corruption (%): {model}", _by_corruption(alike, names)]
    captions = [name.removesuffix(".png").replace("_", " ") for name in drawn]
    images = zip(captions, drawn, strict=True)
    return [*parts, *(f"![{caption}](plots/{name})" for caption, name in images)]


def _shifted_names(runs: Sequence[Run]) -> list[str]:
    return list(dict.fromkeys(name for run in runs for name in run.results.shifted))


def _origins(runs: Sequence[Run]) -> dict[str, tuple[Callable[[Run], Data | None], str]]:
    """Title of each benchmark -> where its images come from, and what is counted."""

    def of_shifted(name: str) -> Callable[[Run], Data | None]:
        return lambda run: run.results.shifted.get(name, ShiftedResults()).data

    return {
        "Corrupted": (lambda run: run.corrupted.data, IMAGES_PER_CELL),
        "Perturbed": (
            lambda run: run.results.perturbed and run.results.perturbed.data, SEQUENCES
        ),
        **{cell(name): (of_shifted(name), "images") for name in _shifted_names(runs)},
    }  # fmt: skip


def _methods_by_models(
    runs: Sequence[Run], metric: Metric, by_run: Mapping[int, float | None]
) -> str:
    models = list(grouped(runs, lambda run: run.model))
    found = {
        method: [
            estimate(by_run[id(r)] for r in runs if (r.method, r.model) == (method, model))
            for model in models
        ]
        for method in _ordered_methods(runs)
    }
    if len(models) > 1:
        for row in found.values():
            row.append(Estimate(mean(value.mean for value in row), None, 0))
    counts = {value.runs for row in found.values() for value in row if value.runs}
    rows = _marked(found, metric, with_counts=len(counts) > 1)
    head = ("method", *models, *(["mean"] if len(models) > 1 else []))
    note = f"n = {counts.pop()} in each cell." if len(counts) == 1 else "n: number of runs."
    return table(head, rows) + f"\n\n{note}"


def _ordered_methods(runs: Sequence[Run]) -> list[str]:
    """The methods, in an order that agrees with the order within each model."""
    order: list[str] = []
    for alike in grouped(runs, lambda run: run.model).values():
        place = 0
        for method in grouped(alike, lambda run: run.method):
            if method in order:
                place = order.index(method) + 1
            else:
                order.insert(place, method)
                place += 1
    return order


def _by_corruption(runs: Sequence[Run], names: Sequence[str]) -> str:
    (error,) = select("images", name="error")
    found = {}
    for method, members in grouped(runs, lambda run: run.method).items():
        shifted = [run for run in members if run.results.corrupted]
        means = [
            estimate(run.corrupted.over_severities(name, "error") for run in shifted).mean
            for name in names
        ]
        clean = estimate(run.clean.metric("error") for run in members).mean
        found[method] = [Estimate(value, None, 0) for value in (clean, mean(means), *means)]
    groups = [
        f"{group}: {' '.join(short_name(name) for name in members if name in names)}"
        for group, members in CORRUPTION_GROUPS.items()
        if any(name in names for name in members)
    ]
    head = ("method", "clean", "mean", *(short_name(name) for name in names))
    rows = _marked(found, error, with_counts=False, digits=1)
    return table(head, rows) + f"\n\nMeans over seeds. {'; '.join(groups)}."


def _marked(
    found: Mapping[str, Sequence[Estimate]],
    metric: Metric,
    with_counts: bool,
    digits: int | None = None,
) -> list[tuple[str, ...]]:
    """Rows of text, with the best value of each column in bold if it has several."""
    digits = metric.digits if digits is None else digits

    def text(value: float) -> str:
        return f"{metric.scaled(value):.{digits}f}"

    best: list[float | None] = []
    for column in zip(*found.values(), strict=True):
        shown = [float(text(value.mean)) for value in column if value.mean is not None]
        choose = max if metric.higher_is_better else min
        best.append(choose(shown) if len(shown) > 1 else None)
    rows = []
    for method, row in found.items():
        texts = [cell(method)]
        for value, best_shown in zip(row, best, strict=True):
            if value.mean is None:
                texts.append(ABSENT)
                continue
            shown_text = text(value.mean)
            bold = "**" if float(shown_text) == best_shown else ""
            deviation = "" if value.deviation is None else f" ± {text(value.deviation)}"
            count = f" (n = {value.runs})" if with_counts and value.runs else ""
            texts.append(f"{bold}{shown_text}{deviation}{bold}{count}")
        rows.append(tuple(texts))
    return rows


def _runs_table(runs: Sequence[Run]) -> str:
    (error,) = select("images", name="error")
    head = ("directory", "dataset", "model", "method", "seed", "epochs", "clean error (%)")
    rows = [
        (
            f"`{cell(run.folder)}`",
            run.dataset,
            run.model,
            run.method,
            *(plain(run.config.get(name)) for name in ("seed", "epochs")),
            error.number(run.clean.metric("error")),
        )
        for run in runs
    ]
    return table(head, rows, numbers_from=4)


def _facts(run: Run) -> dict[str, Any]:
    """What `comparison.csv` has besides the metrics."""
    results = run.results
    corrupted, perturbed = (
        (part and part.data) or Data() for part in (results.corrupted, results.perturbed)
    )
    return {
        "workdir": str(run.folder),
        "dataset": run.dataset,
        "model": run.model,
        "method": run.method,
        "seed": run.config.get("seed"),
        "epochs": run.config.get("epochs"),
        "images": run.clean.images,
        "temperature": results.temperature and results.temperature.value,
        "corrupted_source": corrupted.source,
        "corrupted_images": corrupted.images,
        "corruptions_counted": len(run.corrupted.evaluated) if results.corrupted else None,
        "perturbed_source": perturbed.source,
    }


def warnings(runs: Sequence[Run]) -> list[str]:
    """Returns the differences of runs on one dataset that make their comparison unfair."""
    found = []
    for what, of in _shared_facts(runs).items():
        found += _difference(what, "", runs, of)
    for model, alike in grouped(runs, lambda run: run.model).items():
        limits = {"the epochs": "epochs", "the limit on training images": "train_limit"}
        for what, name in limits.items():
            found += _difference(what, f" of {model}", alike, _setting(name))
        for method, members in grouped(alike, lambda run: run.method).items():
            seeds = [run.config.get("seed") for run in members]
            for seed in sorted({seed for seed in seeds if seeds.count(seed) > 1}, key=repr):
                found.append(f"several runs of {method} of {model} have seed {plain(seed)}")
    parts: dict[str, Callable[[Run], Any]] = {
        "corrupted images": lambda run: run.results.corrupted,
        "perturbation sequences": lambda run: run.results.perturbed,
    }
    parts |= {cell(name): _shifted(name, "metrics") for name in _shifted_names(runs)}
    for part, of in parts.items():
        absent = [run for run in runs if of(run) is None]
        if 0 < len(absent) < len(runs):
            found.append(f"not evaluated on {part}: {_directories(absent)}")
    return found


def _shared_facts(runs: Sequence[Run]) -> dict[str, Callable[[Run], Any]]:
    """What all runs on a dataset should have in common; None: unknown."""
    facts: dict[str, Callable[[Run], Any]] = {
        "the number of clean test images": lambda run: run.clean.images,
        "the source of the corrupted images": lambda run: _source(run.results.corrupted),
        f"the number of {IMAGES_PER_CELL}": lambda run: _images(run.results.corrupted),
        "the evaluated corruptions": lambda run: (
            describe_corruptions(run.corrupted.evaluated) if run.results.corrupted else None
        ),
        "the source of the perturbation sequences": lambda run: _source(run.results.perturbed),
        f"the number of {SEQUENCES}": lambda run: _images(run.results.perturbed),
    }
    for name in _shifted_names(runs):
        for key in ("images", "classes"):
            facts[f"the {key} of {cell(name)}"] = _shifted(name, key)
    return facts


def _setting(name: str) -> Callable[[Run], Any]:
    return lambda run: run.config.get(name)


def _shifted(name: str, fact: str) -> Callable[[Run], Any]:
    return lambda run: getattr(run.results.shifted.get(name), fact, None)


def _source(part: Any) -> str | None:
    data = (part and part.data) or Data()
    facts = [data.source]
    facts += [f"{key} {getattr(data, key)}" for key in ("seed", "table") if getattr(data, key)
              is not None]  # fmt: skip
    return ", ".join(filter(None, facts)) or None


def _images(part: Any) -> int | None:
    return ((part and part.data) or Data()).images


def _difference(what: str, of: str, runs: Sequence[Run], read: Callable[[Run], Any]) -> list[str]:
    values = grouped(runs, lambda run: "" if read(run) is None else plain(read(run)))
    values.pop("", None)
    if len(values) < 2:
        return []
    texts = (f"{value} ({_directories(members)})" for value, members in values.items())
    return [f"runs{of} differ in {what}: {'; '.join(texts)}"]


def _directories(runs: Sequence[Run]) -> str:
    folders = ", ".join(f"`{cell(run.folder)}`" for run in runs)
    return folders if len(runs) <= MAX_LISTED else f"{len(runs)} runs"
