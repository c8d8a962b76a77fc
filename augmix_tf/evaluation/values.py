"""All values of metrics in the results of a model, with their names in tables and dashboards."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from augmix_tf import robustness
from augmix_tf.evaluation.results import (
    CORRUPTED_PARTS,
    CorruptedResults,
    ImageResults,
    Measured,
    PerturbedResults,
    Results,
)
from augmix_tf.metrics import Interval
from augmix_tf.metrics.table import Metric, select

ADAPTED = ", adapted batch normalization"  # end of the titles of such values


class Value(NamedTuple):
    """One value of a metric in `results.json`."""

    metric: Metric
    title: str  # what it is of, such as "RMS calibration error, mean over 15 corruptions"
    short: str  # the same for the terminal, such as "corrupted RMS calibration error"
    column: str  # name in `comparison.csv`
    tag: str  # name in TensorBoard
    value: float | None  # None where it was not evaluated
    interval: Interval | None = None  # 95 %, None where it is not known
    with_temperature: bool = False
    optional: bool = False  # tables have it only where it was evaluated
    adapted: bool = False  # with adapted batch normalization


def metric_values(
    results: Results, corruptions: Mapping[str, Sequence[str]] | None = None
) -> list[Value]:
    """Returns the values of all metrics by which runs can be compared.

    `corruptions` are those that means are over, for each of `CORRUPTED_PARTS`; None takes the ones
    of the benchmark that were evaluated. The last values are those with adapted batch
    normalization that were evaluated.
    """
    values = list(_of_network(results, corruptions))
    adapted = _of_network(results.adapted.results, corruptions) if results.adapted else ()
    return values + [
        entry._replace(
            title=entry.title + ADAPTED,
            short=f"{entry.short}, adapted",
            column=f"adapted_{entry.column}",
            tag=f"adapted/{entry.tag}",
            optional=True,
            adapted=True,
        )
        for entry in adapted
        if entry.value is not None
    ]


def compared(values: Iterable[Value]) -> list[Value]:
    """Returns the evaluated values without a temperature of metrics that are `compared`."""
    return [
        entry
        for entry in values
        if entry.metric.compared and entry.value is not None and not entry.with_temperature
    ]


def scalars(results: Results) -> dict[str, float]:
    """Returns tag -> value of the most important metrics, for TensorBoard."""
    entries = [entry for entry in compared(metric_values(results)) if not entry.adapted]
    return {entry.tag: entry.value for entry in entries if entry.value is not None}


def _of_network(
    results: Results, corruptions: Mapping[str, Sequence[str]] | None
) -> Iterator[Value]:
    """Values of `results` itself, without those that are adapted."""
    over = corruptions or {part: results.part(part).counted for part in CORRUPTED_PARTS}
    for metric in select("images"):
        yield from _of_images(metric, results, over)
        if metric.calibrated:
            yield from _of_images(metric, results, over, "calibrated.", " with temperature")
    parts: dict[str, Measured] = {part: results.part(part) for part in CORRUPTED_PARTS}
    parts["perturbed"] = results.perturbed or PerturbedResults()
    for part, measured in parts.items():
        before, column_before = ("C-bar ", "cbar_") if part == "cbar" else ("", "")
        for metric in select("perturbed" if part == "perturbed" else "corrupted"):
            name = metric.name.replace(".", "_")
            yield Value(
                metric,
                before + metric.title,
                before + metric.short_title,
                column_before + name,
                f"{part}/{name}",
                measured.metric(metric.name),
                measured.interval(metric.name),
                optional=part == "cbar" or metric.applies is not None,
            )
    for name, shifted in results.shifted.items():
        for metric in select("images"):
            yield Value(
                metric,
                f"{metric.title} on {name}",
                f"{metric.short_title} on {name}",
                f"{metric.name}_on_{name}",
                f"shifted/{name}/{metric.name}",
                shifted.metric(metric.name),
                shifted.interval(metric.name),
                optional=True,
            )


def _of_images(
    metric: Metric,
    results: Results,
    over: Mapping[str, Sequence[str]],
    prefix: str = "",
    suffix: str = "",
) -> Iterator[Value]:
    """Values on clean images and means over corruptions, without or with a temperature."""
    path, with_temperature = prefix + metric.name, bool(prefix)
    column = path.replace(".", "_")
    title, short = metric.title + suffix, metric.short_title + suffix
    clean = results.clean or ImageResults()
    texts = f"clean {title}", f"clean {short}", f"clean_{column}", f"test/{column}"
    value, interval = clean.metric(path), clean.interval(path)
    yield Value(metric, *texts, value, interval, with_temperature, with_temperature)
    for part in CORRUPTED_PARTS if metric.per_severity else ():
        corrupted, names = results.part(part), over[part]
        texts = _of_corruptions(part, corrupted, names, title, short, column)
        value, interval = corrupted.mean_over(names, path), corrupted.interval_over(names, path)
        optional = with_temperature or part == "cbar"
        yield Value(metric, *texts, value, interval, with_temperature, optional)


def _of_corruptions(
    part: str,
    corrupted: CorruptedResults,
    names: Sequence[str],
    title: str,
    short: str,
    column: str,
) -> tuple[str, str, str, str]:
    """Title, short title, column and tag of a mean over corruptions."""
    benchmark, at = corrupted.benchmark, robustness.at_severities(corrupted.severities)
    over = f"{title}, mean over {robustness.describe_corruptions(names, benchmark)}{at}"
    is_complete = len(names) == len(benchmark) and not at
    some = f" on {len(names)} corruptions{at}"
    last = "mean_error" if column == "error" else column
    if part == "cbar":
        short = f"C-bar {short}{'' if is_complete else some}"
        return f"C-bar {over}", short, f"cbar_{last}", f"cbar/{last}"
    if column != "error":
        return over, f"corrupted {short}{at}", f"corrupted_{last}", f"corrupted/{last}"
    if is_complete:
        over = short = "mean corruption error"
    else:
        short += some
    return over, short, last, f"corrupted/{last}"
