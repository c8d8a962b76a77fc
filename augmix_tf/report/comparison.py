"""Comparison of several runs: methods by models, mean and standard deviation over seeds."""

from __future__ import annotations

import collections
import dataclasses
import re
import statistics
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from augmix_tf import files, robustness
from augmix_tf.evaluation.results import CORRUPTED_PARTS, CorruptedResults, Data, mean
from augmix_tf.evaluation.values import Value, metric_values
from augmix_tf.metrics import Interval, pool_bins
from augmix_tf.metrics.table import Metric, select
from augmix_tf.report import (
    ABSENT,
    adapted,
    cell,
    csv_text,
    describe,
    directories,
    heading,
    literature,
    plain,
    plots,
    table,
)
from augmix_tf.report.directories import Estimate, Run, common_corruptions, estimate, grouped
from augmix_tf.report.run import (
    GROUPS,
    IMAGES_PER_CELL,
    NOISE_FLOOR,
    SEQUENCES,
    bars,
    corruption_figures,
    errors_on_each,
    terminal_table,
)
from augmix_tf.report.significance import TITLES, clearly_best, paired
from augmix_tf.robustness import CORRUPTIONS, at_severities, describe_corruptions

REPORT, ROWS = "comparison.md", "comparison.csv"
# What the terminal shows besides the metrics by which runs are compared.
ALSO_IN_TERMINAL = ("rms_noise_floor", "overconfidence")
# Up to so many runs fit side by side with their intervals.
MAX_WITH_INTERVALS = 3
# Up to so many directories are listed in a warning.
MAX_LISTED = 3


def write(workdirs: Sequence[files.PathLike], out: files.PathLike) -> Path:
    """Writes `comparison.md`, `comparison.csv` and `plots/*.png` over evaluated runs into `out`.

    Runs that differ only in the seed are averaged: mean and sample standard deviation. Means over
    corruptions are over those that all runs of a dataset have. Returns the path of the first.
    """
    runs, folder = directories.read_runs(workdirs), Path(out)
    sections = [
        f"# Comparison of {len(runs)} runs",
        "Lower is better unless a title says otherwise. ±: sample standard deviation over seeds. "
        "In parentheses: 95 % interval of one run, over test images. **Bold**: the best value of "
        "the column, if the 95 % interval of its difference to the next best excludes 0; for "
        "several seeds this interval is over seeds.",
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
    rows_by_run = [{value.column: value for value in metric_values(run.results)} for run in runs]
    every = [value for row in rows_by_run for value in row.values()]
    shown = {v.column for v in every if v.value is not None or not v.optional}
    columns = [column for column in dict.fromkeys(v.column for v in every) if column in shown]
    errors = [_errors(run) for run in runs]
    names = {name for row in errors for name in row}
    ordered = [name for name in CORRUPTIONS if name in names] + sorted(names - set(CORRUPTIONS))
    rows = [
        _facts(run)
        | {column: row[column].value if column in row else None for column in columns}
        | {f"error_{name}": own.get(name) for name in ordered}
        for run, row, own in zip(runs, rows_by_run, errors, strict=True)
    ]
    return csv_text(list(rows[0]), rows)


def _errors(run: Run) -> dict[str, float | None]:
    """Mean error over severities of every corruption."""
    parts = map(run.results.part, CORRUPTED_PARTS)
    return {n: part.over_severities(n, "error") for part in parts for n in part.corruptions}


def _facts(run: Run) -> dict[str, Any]:
    """What `comparison.csv` has besides the metrics."""
    results = run.results
    parts = results.corrupted, results.cbar, results.perturbed
    corrupted, cbar, perturbed = [(part and part.data) or Data() for part in parts]
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
        "corruptions_counted": len(run.corrupted.counted) if results.corrupted else None,
        "severities": " ".join(map(str, run.corrupted.evaluated_severities))
        if results.corrupted
        else None,
        "cbar_source": cbar.source,
        "perturbed_source": perturbed.source,
    }


def comparison_table(folders: Sequence[files.PathLike]) -> str:
    """Returns the results of several runs side by side, one column per run, for the terminal.

    Columns are in the order of `folders`, named after the methods, or the directories if two runs
    have the same method. Means over corruptions are over those that all runs have. Numbers are
    those of the exported models, with the temperature, and few runs have 95 % intervals.
    """
    by_folder = {run.folder: run for run in _delivered(folders)}
    runs = [by_folder[Path(folder)] for folder in folders]
    titles = [run.method for run in runs]
    if len(set(titles)) < len(titles):
        titles = [str(run.folder) for run in runs]
    rows, few = [("", titles)], len(runs) <= MAX_WITH_INTERVALS
    for values in values_by_run(runs, also=ALSO_IN_TERMINAL).values():
        first = next(value for value in values if value)
        texts = [
            ABSENT if v is None else v.metric.text(v.value, v.interval if few else None)
            for v in values
        ]
        rows.append((first.short, texts))
    times = [run.training_seconds for run in runs]
    if any(times):
        texts = [f"{seconds / 60:.1f} min" if seconds else ABSENT for seconds in times]
        rows.append(("training time, about", texts))
    return terminal_table(rows)


def summary(folders: Sequence[files.PathLike]) -> dict[str, dict[str, float | None]]:
    """Returns the most important of these numbers by method, as fractions, and seconds of training.

    Means are over the corruptions of each run.
    """
    parts: dict[str, dict[str, float | None]] = {}
    for run in _delivered(folders):
        names = run.corrupted.counted
        parts[run.method] = {"clean_error": run.clean.metric("error")}
        for metric in ("error", "rms_calibration_error"):
            parts[run.method][f"corrupted_{metric}"] = run.corrupted.mean_over(names, metric)
        parts[run.method]["seconds"] = run.training_seconds
    return parts


def _delivered(folders: Sequence[files.PathLike]) -> list[Run]:
    runs = directories.read_runs(folders)
    return [dataclasses.replace(run, results=run.results.delivered()) for run in runs]


def values_by_run(runs: Sequence[Run], also: Collection[str] = ()) -> dict[str, list[Value | None]]:
    """Returns title -> that value of each run, of the metrics by which runs are compared.

    The metrics in `also` are shown as well. Means are over the corruptions that all runs have.
    """
    names = {part: common_corruptions(runs, part) for part in CORRUPTED_PARTS}
    every = [metric_values(run.results, names) for run in runs]
    shown = [
        {
            value.title: value
            for value in values
            if value.value is not None and (value.metric.compared or value.metric.name in also)
        }
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
            mean_over = describe_corruptions(names, robustness.counted(names))
            over = f"severity: {subject}\nmean over {mean_over}"
            plotted = corruption_figures(shifted, lines, names, f": {subject}", over)
            drawn |= {f"{stem}-{name}.png": png for name, png in plotted.items()}
        on_cbar = grouped([run for run in alike if run.results.cbar], lambda run: run.method)
        if on_cbar and (cbar := common_corruptions(runs, "cbar")):
            plotted_bars = bars(on_cbar, cbar, f": {subject}", "cbar")
            drawn[f"{stem}-cbar_errors.png"] = plots.corruption_bars(*plotted_bars)
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
    for title, (unit, parts) in _benchmarks(runs).items():
        texts = dict.fromkeys(describe(part.data, unit) for part in parts if part and part.data)
        if texts:
            yield f"{title}: {'; '.join(texts)}."
    for title, values in values_by_run(runs).items():
        metric = next(value.metric for value in values if value)
        yield f"### {heading(cell(title))}{metric.heading_unit}"
        yield _methods_by_models(runs, metric, values)
    for model, alike in grouped(runs, lambda run: run.model).items():
        evaluated = {}
        for part in CORRUPTED_PARTS:
            if any(run.results.part(part).counted for run in alike):
                evaluated[part] = common_corruptions(runs, part)
        for part, names in evaluated.items():
            if names:
                kind = "C-bar corruption" if part == "cbar" else "corruption"
                yield f"### Error on each {kind} (%): {model}"
                yield _by_corruption(alike, part, names)
        yield from _calibration(model, alike, evaluated)
        yield from paired(model, grouped(alike, lambda run: run.method), evaluated)
        if published := literature.beside(alike):
            yield from (f"### Published results: {model}", published)


def _benchmarks(runs: Sequence[Run]) -> dict[str, tuple[str, list[Any]]]:
    """Title -> what is counted, and the results of each run, None where it was not evaluated."""
    benchmarks: dict[str, tuple[str, list[Any]]] = {
        "Corrupted": (IMAGES_PER_CELL, [run.results.corrupted for run in runs]),
        "C-bar": (IMAGES_PER_CELL, [run.results.cbar for run in runs]),
        "Perturbed": (SEQUENCES, [run.results.perturbed for run in runs]),
    }
    for name in dict.fromkeys(name for run in runs for name in run.results.shifted):
        benchmarks[cell(name)] = ("images", [run.results.shifted.get(name) for run in runs])
    return benchmarks


def _methods_by_models(runs: Sequence[Run], metric: Metric, values: Sequence[Value | None]) -> str:
    models = list(grouped(runs, lambda run: run.model))
    cells: dict[tuple[str, str], list[Value | None]] = collections.defaultdict(list)
    for run, value in zip(runs, values, strict=True):
        cells[run.method, run.model].append(value)
    methods = grouped(sorted(runs, key=directories.method_order), lambda run: run.method)
    rows = {
        method: [_estimate(metric, cells[method, model]) for model in models] for method in methods
    }
    counts = {value.runs for row in rows.values() for value in row if value.runs}
    if len(models) > 1:
        for row in rows.values():
            bounds = [value.interval for value in row if value.interval]
            every = zip(*bounds, strict=True) if len(bounds) == len(row) else ()
            within = Interval(*map(statistics.fmean, every)) if every else None
            row.append(Estimate(mean(value.mean for value in row), interval=within))
        models.append("mean")
    texts = _marked(rows, metric, metric.digits, len(counts) > 1)
    note = f"n = {counts.pop()} in each cell." if len(counts) == 1 else "n: number of runs."
    return table(("method", *models), texts) + f"\n\n{note}"


def _estimate(metric: Metric, values: Sequence[Value | None]) -> Estimate:
    return estimate(
        (v and v.value for v in values), (v and v.interval for v in values), metric=metric
    )


def _by_corruption(runs: Sequence[Run], part: str, names: Sequence[str]) -> str:
    (error,) = select("images", name="error")
    rows = {}
    for method, members in grouped(runs, lambda run: run.method).items():
        errors = errors_on_each(members, names, part)
        rows[method] = [errors[column] for column in ("clean", "mean", *names)]
    short = {name: name.partition("_")[0] for name in names}
    groups = {group: [short[n] for n in members if n in short] for group, members in GROUPS}
    listed = "; ".join(f"{group}: {' '.join(m)}" for group, m in groups.items() if m)
    texts = _marked(rows, error, digits=1, means_only=True)
    head = ("method", "clean", "mean", *short.values())
    note = "Means over seeds." + (f" {listed}." if listed else "")
    return table(head, texts) + f"\n\n{note}"


def _marked(
    rows: Mapping[str, Sequence[Estimate]],
    metric: Metric,
    digits: int,
    with_counts: bool = False,
    means_only: bool = False,
) -> list[tuple[str, ...]]:
    """Rows of text, with the value of each column in bold that is clearly the best."""

    def text(value: float) -> str:
        return f"{metric.scaled(value):.{digits}f}"

    def marked(value: Estimate, best: Estimate | None) -> str:
        if value.mean is None:
            return ABSENT
        bold = "**" if value is best else ""
        around = "" if value.deviation is None else f" ± {text(value.deviation)}"
        if value.runs == 1 and value.interval:
            around = " ({} to {})".format(*map(text, value.interval))
        around = "" if means_only else around
        count = f" (n = {value.runs})" if with_counts and value.runs else ""
        return f"{bold}{text(value.mean)}{around}{bold}{count}"

    columns = zip(*rows.values(), strict=True)
    best = [clearly_best(column, metric.higher_is_better) for column in columns]
    return [(cell(method), *map(marked, row, best)) for method, row in rows.items()]


# Metrics of the table on calibration: those that explain the first one.
CALIBRATION = (
    "rms_calibration_error",
    "rms_noise_floor",
    "debiased_rms_calibration_error",
    "overconfidence",
)


def _calibration(
    model: str, runs: Sequence[Run], evaluated: Mapping[str, Sequence[str]]
) -> Iterator[str]:
    """What of the calibration error is noise, and its direction."""
    rows, chosen = [], [select("images", name=name)[0] for name in CALIBRATION]
    for method, members in grouped(runs, lambda run: run.method).items():
        columns = {"clean": [[run.clean.metric(name) for name in CALIBRATION] for run in members]}
        for part, names in evaluated.items():
            parts = [run.results.part(part) for run in members]
            columns[TITLES[part]] = [
                [results.mean_over(names, name) for name in CALIBRATION] for results in parts
            ]
        for title, values in columns.items():
            means = [estimate(column).mean for column in zip(*values, strict=True)]
            if means[1] is not None:
                numbers = (m.number(mean) for m, mean in zip(chosen, means, strict=True))
                rows.append((cell(method), title, *numbers))
    if not rows:
        return
    yield f"### Calibration (%): {model}"
    head = [metric.short_title for metric in chosen]
    yield table(("method", "images", *head), rows, numbers_from=2)
    yield f"Means over seeds. {NOISE_FLOOR}"


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
    lines = _differences(
        runs,
        {
            "Clean test images": [run.clean.images for run in runs],
            "Adapted batch normalization": [
                run.results.adapted and adapted.protocol(run.results.adapted) for run in runs
            ],
            "Limit on training images": [run.config.get("train_limit") for run in runs],
            **{title: list(map(_benchmark_facts, parts))
               for title, (_, parts) in _benchmarks(runs).items()},
        },
    )  # fmt: skip
    for model, alike in grouped(runs, lambda run: run.model).items():
        epochs = [run.config.get("epochs") for run in alike]
        lines += _differences(alike, {f"Epochs of {model}": epochs})
        for method, members in grouped(alike, lambda run: run.method).items():
            seeds = collections.Counter(plain(run.config.get("seed")) for run in members)
            for seed in sorted(seed for seed, count in seeds.items() if count > 1):
                lines.append(f"Several runs of {method} of {model} have seed {seed}")
    return lines


def _benchmark_facts(results: Any) -> str:
    """What results on a benchmark should have in common."""
    if results is None:
        return "not evaluated"
    data = results.data or Data()
    facts = [data.source, f"{data.images} images"]
    facts += [f"{n} {getattr(data, n)}" for n in ("seed", "table") if getattr(data, n) is not None]
    if isinstance(results, CorruptedResults):
        names = describe_corruptions(results.counted, results.benchmark)
        facts.append(names + at_severities(results.severities))
    return ", ".join(filter(None, facts))


def _differences(runs: Sequence[Run], facts: Mapping[str, Sequence[Any]]) -> list[str]:
    lines = []
    for what, values in facts.items():
        members: dict[str, list[str]] = {}
        for run, value in zip(runs, values, strict=True):
            if value is not None:  # unknown, as of networks trained elsewhere
                members.setdefault(plain(value), []).append(f"`{cell(run.folder)}`")
        if len(members) > 1:
            texts = (
                f"{value} ({', '.join(folders) if len(folders) <= MAX_LISTED else len(folders)})"
                for value, folders in members.items()
            )
            lines.append(f"{what}: {'; '.join(texts)}")
    return lines
