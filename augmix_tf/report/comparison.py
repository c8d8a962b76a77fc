"""Comparison of several runs: methods by models, mean and standard deviation over seeds."""

from __future__ import annotations

import collections
import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from augmix_tf import files
from augmix_tf.evaluation.results import Data, mean
from augmix_tf.metrics import pool_bins
from augmix_tf.metrics.table import Metric, Value, select
from augmix_tf.report import ABSENT, cell, describe, directories, heading, plain, plots, table
from augmix_tf.report.directories import Estimate, Run, common_corruptions, estimate, grouped
from augmix_tf.report.run import GROUPS, IMAGES_PER_CELL, SEQUENCES, TITLE_WIDTH, corruption_figures
from augmix_tf.robustness import CORRUPTIONS, describe_corruptions

REPORT, ROWS = "comparison.md", "comparison.csv"
# Up to so many directories are listed in a warning.
MAX_LISTED = 3


class Benchmark(NamedTuple):
    """A set of images that runs may have been evaluated on beside the clean test images."""

    title: str
    images: str  # what they are
    unit: str  # what is counted
    results: Callable[[Run], Any]  # None: not evaluated


def write(workdirs: Sequence[files.PathLike], out: files.PathLike) -> Path:
    """Writes `comparison.md`, `comparison.csv` and `plots/*.png` over evaluated runs into `out`.

    Runs that differ only in the seed are averaged: mean and sample standard deviation. Means over
    corruptions are over those that all runs of a dataset have.

    Returns:
        Path of `comparison.md`.

    Raises:
        ArgumentError: no directory, one given twice, or one without an evaluated run.
        FileError: a file is damaged, or one cannot be written.
    """
    runs, folder = directories.read_runs(workdirs), Path(out)
    sections = [
        f"# Comparison of {len(runs)} runs",
        "Lower is better unless a title says otherwise. **Bold**: best value of the column. "
        "±: sample standard deviation over seeds.",
    ]
    for dataset, members in grouped(runs, lambda run: run.dataset).items():
        drawn = figures(dataset, members)
        for name, png in drawn.items():
            files.write_bytes_atomically(folder / "plots" / name, png)
        sections += _dataset(dataset, members)
        captions = {name: name.removesuffix(".png").replace("_", " ") for name in drawn}
        sections += [f"![{caption}](plots/{name})" for name, caption in captions.items()]
    sections += ["## Runs", _runs_table(runs), f"`{ROWS}` has one row for each run."]
    files.write_text_atomically(folder / ROWS, csv_rows(runs))
    files.write_text_atomically(folder / REPORT, "\n\n".join(sections) + "\n")
    return folder / REPORT


def csv_rows(runs: Sequence[Run]) -> str:
    """Returns a CSV with one row for each run; fractions, empty where nothing was evaluated.

    Columns `error_<corruption>` are means over severities, of all corruptions that any run has.
    """
    rows_by_run = [{value.column: value for value in run.results.values()} for run in runs]
    every = [value for row in rows_by_run for value in row.values()]
    shown = {v.column for v in every if v.value is not None or not v.optional}
    columns = [column for column in dict.fromkeys(v.column for v in every) if column in shown]
    names = {name for run in runs for name in run.corrupted.corruptions}
    ordered = [name for name in CORRUPTIONS if name in names] + sorted(names - set(CORRUPTIONS))
    rows = [
        _facts(run)
        | {column: row[column].value if column in row else None for column in columns}
        | {f"error_{name}": run.corrupted.over_severities(name, "error") for name in ordered}
        for run, row in zip(runs, rows_by_run, strict=True)
    ]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _facts(run: Run) -> dict[str, Any]:
    """What `comparison.csv` has besides the metrics."""
    results = run.results
    corrupted, perturbed = _data(results.corrupted), _data(results.perturbed)
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


def comparison_table(folders: Sequence[files.PathLike]) -> str:
    """Returns the results of several runs side by side, one column per run, for the terminal.

    Columns are in the order of `folders`, named after the methods, or the directories if two runs
    have the same method. Means over corruptions are over those that all runs have.

    Raises:
        ArgumentError, FileError: as `write`.
    """
    by_folder = {run.folder: run for run in directories.read_runs(folders)}
    runs = [by_folder[Path(folder)] for folder in folders]
    titles = [run.method for run in runs]
    if len(set(titles)) < len(titles):
        titles = [str(run.folder) for run in runs]
    rows = [("", titles)]
    for values in values_by_run(runs, common_corruptions(runs)).values():
        first = next(value for value in values if value)
        if not first.with_temperature:
            texts = [first.metric.text(value.value) if value else ABSENT for value in values]
            rows.append((first.short, texts))
    times = [_clock(run.training_seconds) for run in runs]
    rows += [("training time, about", times)] if set(times) != {ABSENT} else []
    width = max(TITLE_WIDTH, *(len(title) for title, _ in rows))
    widths = [max(map(len, column)) for column in zip(*(texts for _, texts in rows), strict=True)]
    return "\n" + "\n".join(
        f"  {title:<{width}}  " + "  ".join(f"{v:>{w}}" for v, w in zip(texts, widths, strict=True))
        for title, texts in rows
    )


def _clock(seconds: float | None) -> str:
    if seconds is None:
        return ABSENT
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d} h" if hours else f"{minutes}:{rest:02d} min"


def values_by_run(runs: Sequence[Run], names: Sequence[str]) -> dict[str, list[Value | None]]:
    """Returns title -> that value of each run, of the metrics by which runs are compared.

    Means are over the corruptions `names`.
    """
    every = [run.results.values(names) for run in runs]
    shown = [
        {v.title: v for v in values if v.metric.compared and v.value is not None}
        for values in every
    ]
    titles = dict.fromkeys(value.title for values in every for value in values)
    rows = {title: [row.get(title) for row in shown] for title in titles}
    return {title: values for title, values in rows.items() if any(values)}


def figures(dataset: str, runs: Sequence[Run]) -> dict[str, bytes]:
    """Plots the runs of one dataset, for each model: file name -> PNG."""
    drawn: dict[str, bytes] = {}
    names = common_corruptions(runs)
    for model, alike in grouped(runs, lambda run: run.model).items():
        stem = re.sub(r"[^A-Za-z0-9_.]+", "-", f"{dataset}-{model}").strip("-.")
        subject = f"{dataset}, {model}"
        methods = grouped(alike, lambda run: run.method)
        diagrams = {method: _diagram(members, names) for method, members in methods.items()}
        if panels := {method: series for method, series in diagrams.items() if series}:
            title = f"Reliability: {subject}"
            drawn[f"{stem}-reliability.png"] = plots.reliability(panels, title)
        shifted = grouped([run for run in alike if run.results.corrupted], lambda run: run.method)
        if names and shifted:
            lines = {method: (members, names) for method, members in shifted.items()}
            over = f"severity: {subject}\nmean over {describe_corruptions(names)}"
            plotted = corruption_figures(shifted, lines, names, f": {subject}", over)
            drawn |= {f"{stem}-{name}.png": png for name, png in plotted.items()}
    return drawn


def _diagram(runs: Sequence[Run], names: Sequence[str]) -> dict[str, plots.Bins]:
    """Clean and corrupted reliability diagrams of the images of all seeds."""
    series = {
        "clean": pool_bins(run.clean.reliability or [] for run in runs),
        "corrupted": pool_bins(run.corrupted.reliability(names) for run in runs),
    }
    return {label: bins for label, bins in series.items() if bins}


def _dataset(dataset: str, runs: Sequence[Run]) -> Iterator[str]:
    yield f"## {dataset}"
    if lines := warnings(runs):
        bullets = (f"> - {line}" for line in lines)
        yield "\n".join(["> **The runs are not all comparable.**", *bullets])
    for benchmark in _benchmarks(runs):
        entries = [part.data for part in map(benchmark.results, runs) if part and part.data]
        if entries:
            texts = dict.fromkeys(describe(data, benchmark.unit) for data in entries)
            yield f"{benchmark.title}: {'; '.join(texts)}."
    names = common_corruptions(runs)
    for title, values in values_by_run(runs, names).items():
        metric = next(value.metric for value in values if value)
        yield f"### {heading(cell(title))}{metric.heading_unit}"
        yield _methods_by_models(runs, metric, [value and value.value for value in values])
    for model, alike in grouped(runs, lambda run: run.model).items():
        if names and any(run.results.corrupted for run in alike):
            yield f"### Error on each corruption (%): {model}"
            yield _by_corruption(alike, names)


def _benchmarks(runs: Sequence[Run]) -> list[Benchmark]:
    def shifted(name: str) -> Benchmark:
        return Benchmark(
            cell(name), cell(name), "images", lambda run: run.results.shifted.get(name)
        )

    corrupted = ("Corrupted", "corrupted images", IMAGES_PER_CELL)
    perturbed = ("Perturbed", "perturbation sequences", SEQUENCES)
    return [
        Benchmark(*corrupted, lambda run: run.results.corrupted),
        Benchmark(*perturbed, lambda run: run.results.perturbed),
        *map(shifted, dict.fromkeys(name for run in runs for name in run.results.shifted)),
    ]


def _methods_by_models(runs: Sequence[Run], metric: Metric, values: Sequence[float | None]) -> str:
    models = list(grouped(runs, lambda run: run.model))
    cells = collections.defaultdict(list)
    for run, value in zip(runs, values, strict=True):
        cells[run.method, run.model].append(value)
    methods = grouped(sorted(runs, key=directories.method_order), lambda run: run.method)
    rows = {method: [estimate(cells[method, model]) for model in models] for method in methods}
    counts = {value.runs for row in rows.values() for value in row if value.runs}
    if len(models) > 1:
        for row in rows.values():
            row.append(Estimate(mean(value.mean for value in row)))
        models.append("mean")
    texts = _marked(rows, metric, metric.digits, with_counts=len(counts) > 1)
    note = f"n = {counts.pop()} in each cell." if len(counts) == 1 else "n: number of runs."
    return table(("method", *models), texts) + f"\n\n{note}"


def _by_corruption(runs: Sequence[Run], names: Sequence[str]) -> str:
    (error,) = select("images", name="error")
    rows = {}
    for method, members in grouped(runs, lambda run: run.method).items():
        shifted = [run for run in members if run.results.corrupted]
        means = [
            estimate(run.corrupted.over_severities(name, "error") for run in shifted).mean
            for name in names
        ]
        clean = estimate(run.clean.metric("error") for run in members).mean
        rows[method] = [Estimate(value) for value in (clean, mean(means), *means)]
    short = {name: name.partition("_")[0] for name in names}
    groups = {group: [short[n] for n in members if n in short] for group, members in GROUPS}
    listed = "; ".join(f"{group}: {' '.join(m)}" for group, m in groups.items() if m)
    texts = _marked(rows, error, digits=1, with_counts=False)
    head = ("method", "clean", "mean", *short.values())
    return table(head, texts) + f"\n\nMeans over seeds. {listed}."


def _marked(
    rows: Mapping[str, Sequence[Estimate]], metric: Metric, digits: int, with_counts: bool
) -> list[tuple[str, ...]]:
    """Rows of text, with the best value of each column in bold if it has several."""

    def text(value: float) -> str:
        return f"{metric.scaled(value):.{digits}f}"

    best: list[float | None] = []
    for column in zip(*rows.values(), strict=True):
        shown = [float(text(value.mean)) for value in column if value.mean is not None]
        choose = max if metric.higher_is_better else min
        best.append(choose(shown) if len(shown) > 1 else None)

    def marked(value: Estimate, best_shown: float | None) -> str:
        if value.mean is None:
            return ABSENT
        bold = "**" if float(text(value.mean)) == best_shown else ""
        deviation = "" if value.deviation is None else f" ± {text(value.deviation)}"
        count = f" (n = {value.runs})" if with_counts and value.runs else ""
        return f"{bold}{text(value.mean)}{deviation}{bold}{count}"

    return [(cell(method), *map(marked, row, best)) for method, row in rows.items()]


def _runs_table(runs: Sequence[Run]) -> str:
    (error,) = select("images", name="error")
    head = ("directory", "dataset", "model", "method", "seed", "epochs", "clean error (%)")
    rows = []
    for run in runs:
        names = (f"`{cell(run.folder)}`", run.dataset, run.model, run.method)
        facts = (plain(run.config.get(name)) for name in ("seed", "epochs"))
        rows.append((*names, *facts, error.number(run.clean.metric("error"))))
    return table(head, rows, numbers_from=4)


def warnings(runs: Sequence[Run]) -> list[str]:
    """Returns the differences of runs on one dataset that make their comparison unfair."""
    lines = _differences("", runs, _shared_facts(runs))
    for model, alike in grouped(runs, lambda run: run.model).items():
        settings = {"the epochs": "epochs", "the limit on training images": "train_limit"}
        facts = {what: [run.config.get(name) for run in alike] for what, name in settings.items()}
        lines += _differences(f" of {model}", alike, facts)
        for method, members in grouped(alike, lambda run: run.method).items():
            seeds = collections.Counter(run.config.get("seed") for run in members)
            for seed in sorted((seed for seed, n in seeds.items() if n > 1), key=repr):
                lines.append(f"several runs of {method} of {model} have seed {plain(seed)}")
    for benchmark in _benchmarks(runs):
        absent = [run for run in runs if benchmark.results(run) is None]
        if 0 < len(absent) < len(runs):
            lines.append(f"not evaluated on {benchmark.images}: {_directories(absent)}")
    return lines


def _shared_facts(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """What all runs on a dataset should have in common, of each run; None: unknown."""
    facts: dict[str, list[Any]] = {
        "the number of clean test images": [run.clean.images for run in runs]
    }
    corrupted, perturbed, *shifted = _benchmarks(runs)
    for benchmark in (corrupted, perturbed):
        data = [_data(benchmark.results(run)) for run in runs]
        facts[f"the source of the {benchmark.images}"] = list(map(_source, data))
        facts[f"the number of {benchmark.unit}"] = [entry.images for entry in data]
        if benchmark is corrupted:
            facts["the evaluated corruptions"] = [
                describe_corruptions(part.evaluated) if part else None
                for part in map(corrupted.results, runs)
            ]
    for benchmark in shifted:
        for fact in ("images", "classes"):
            values = [getattr(benchmark.results(run), fact, None) for run in runs]
            facts[f"the {fact} of {benchmark.title}"] = values
    return facts


def _data(results: Any) -> Data:
    return (results and results.data) or Data()


def _source(data: Data) -> str | None:
    facts = {name: getattr(data, name) for name in ("seed", "table")}
    texts = [f"{name} {value}" for name, value in facts.items() if value is not None]
    return ", ".join(filter(None, [data.source, *texts])) or None


def _differences(of: str, runs: Sequence[Run], facts: Mapping[str, Sequence[Any]]) -> list[str]:
    lines = []
    for what, values in facts.items():
        members = collections.defaultdict(list)
        for run, value in zip(runs, values, strict=True):
            if value is not None:
                members[plain(value)].append(run)
        if len(members) > 1:
            texts = (f"{value} ({_directories(alike)})" for value, alike in members.items())
            lines.append(f"runs{of} differ in {what}: {'; '.join(texts)}")
    return lines


def _directories(runs: Sequence[Run]) -> str:
    folders = ", ".join(f"`{cell(run.folder)}`" for run in runs)
    return folders if len(runs) <= MAX_LISTED else f"{len(runs)} runs"
