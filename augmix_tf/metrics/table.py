"""The table of metrics: `results.json`, reports, tables and model cards are derived from it.

To add a metric, write its function in this package and add one row to `METRICS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from augmix_tf import robustness
from augmix_tf.metrics import benchmarks, calibration
from augmix_tf.metrics.uncertainty import (
    Interval,
    Outcomes,
    errors_per_image,
    mean_interval,
    wilson_interval,
)

# What a metric is computed from:
# - images: logits and labels of a set of images (`classification.Predictions`);
# - corrupted: the errors on all corruptions (`benchmarks.CorruptionErrors`);
# - sequences: predictions for one perturbation (`benchmarks.SequencePredictions`);
# - perturbed: the metrics of all perturbations (`benchmarks.PerturbationRates`).
Inputs = Literal["images", "corrupted", "sequences", "perturbed"]
# Units of the values in `results.json`. Reports show fractions as percentages.
Unit = Literal["fraction", "nats", "% of AlexNet", ""]
# Keys of `results.json` of results on corrupted images: -C and C-bar.
CORRUPTED_PARTS = ("corrupted", "cbar")
ADAPTED = ", adapted batch normalization"  # end of the titles of such values


def _always(inputs: Any) -> bool:
    return True


def _unknown(inputs: Any) -> None:
    return None


@dataclass(frozen=True)
class Metric:
    """One metric; tables, terminal, dashboard and model cards follow from these facts."""

    name: str  # key in `results.json`; a dot stands for a nested object
    inputs: Inputs
    function: Callable[[Any], float | None]  # None where the metric is not defined
    title: str  # in running text and in the rows of tables
    short: str = ""  # in the terminal and at the head of columns; the title if empty
    unit: Unit = "fraction"
    digits: int = 2  # decimals shown in reports
    higher_is_better: bool = False
    # Shown in the terminal, in comparisons, on model cards and among the hyperparameters of the
    # dashboard; all metrics are in `report.md` and `comparison.csv`.
    compared: bool = True
    per_severity: bool = True  # of "images": also computed for each cell, and averaged
    calibrated: bool = True  # of "images": also computed with the temperature
    applies: Callable[[Any], bool] = _always  # whether `results.json` has it for these inputs
    interval: Callable[[Any], Interval | None] = _unknown  # 95 %, from the same inputs

    @property
    def _shown_unit(self) -> str:
        return "%" if self.unit == "fraction" else self.unit

    @property
    def heading_unit(self) -> str:
        """Unit and direction for the head of a column or section, such as " (%)"."""
        facts = [self._shown_unit, "higher is better" if self.higher_is_better else ""]
        return f" ({'; '.join(filter(None, facts))})" if any(facts) else ""

    def scaled(self, value: float) -> float:
        return 100 * value if self.unit == "fraction" else value

    def number(self, value: float | None) -> str:
        """Returns a value without its unit, `–` for None."""
        return "–" if value is None else f"{self.scaled(value):z.{self.digits}f}"  # z: no -0.00

    def range(self, interval: Iterable[float] | None) -> str:
        """Returns an interval without its unit, such as "4.10 to 5.20"; empty for None."""
        return "" if interval is None else " to ".join(map(self.number, interval))

    def text(self, value: float | None, interval: Iterable[float] | None = None) -> str:
        """Returns a value with its unit and interval, such as "4.60 % (4.10 to 5.20)"."""
        text = self.number(value)
        text = text if value is None else f"{text} {self._shown_unit}".rstrip()
        return text if interval is None else f"{text} ({self.range(interval)})"


METRICS: tuple[Metric, ...] = (
    Metric(
        "error", "images", lambda p: p.means["error"], "error", calibrated=False,
        interval=lambda p: wilson_interval(int((~p.correct).sum()), len(p.correct)),
    ),
    Metric(
        "nll", "images", lambda p: p.means["nll"],
        "negative log-likelihood", "NLL", "nats", digits=4, compared=False,
        interval=lambda p: _of_mean(p.per_image["nll"]),
    ),
    Metric(
        "brier", "images", lambda p: p.means["brier"], "Brier score", unit="", digits=4,
        interval=lambda p: _of_mean(p.per_image["brier"]),
    ),
    Metric(
        "rms_calibration_error", "images",
        lambda p: calibration.rms_calibration_error(p.confidence, p.correct),
        "RMS calibration error",
        interval=lambda p: calibration.rms_calibration_interval(p.confidence, p.correct),
    ),
    Metric(
        "rms_noise_floor", "images", lambda p: calibration.rms_noise_floor(p.confidence),
        "noise floor of the RMS calibration error", "RMS noise floor", compared=False,
    ),
    Metric(
        "debiased_rms_calibration_error", "images",
        lambda p: calibration.debiased_rms_calibration_error(p.confidence, p.correct),
        "RMS calibration error, debiased", "debiased RMS", compared=False,
        interval=lambda p: calibration.rms_calibration_interval(
            p.confidence, p.correct, debiased=True
        ),
    ),
    Metric(
        "expected_calibration_error", "images",
        lambda p: calibration.expected_calibration_error(p.confidence, p.correct),
        "expected calibration error", "ECE", compared=False,
    ),
    Metric(
        "overconfidence", "images",
        lambda p: calibration.overconfidence(p.confidence, p.correct),
        "overconfidence (mean confidence - accuracy)", "overconfidence", compared=False,
        interval=lambda p: _of_mean(p.confidence - p.correct),
    ),
    Metric(
        "aurra", "images", lambda p: calibration.aurra(p.confidence, p.correct),
        "AURRA (area under the response rate accuracy curve)", "AURRA",
        higher_is_better=True, compared=False, per_severity=False, calibrated=False,
    ),
    Metric(
        "mean_corruption_error", "corrupted",
        lambda c: benchmarks.mean_corruption_error(c.errors) if c.complete else None,
        # Reports show the mean of `error` over the corruptions that all runs have.
        "mean corruption error", compared=False,
        interval=lambda c: c.interval() if c.complete else None,
    ),
    Metric(
        "mean_error", "corrupted",
        lambda c: benchmarks.mean_corruption_error(c.errors) if c.errors else None,
        "mean error over the evaluated corruptions", compared=False,
        interval=lambda c: c.interval(),
    ),
    Metric(
        "alexnet.mce", "corrupted",
        lambda c: benchmarks.mean_corruption_error(c.errors, c.alexnet),
        "mCE", unit="% of AlexNet", digits=1, applies=lambda c: c.alexnet is not None,
        interval=lambda c: c.interval(c.alexnet),
    ),
    Metric(
        "alexnet.relative_mce", "corrupted",
        lambda c: None if c.clean_error is None
        else benchmarks.relative_corruption_error(c.errors, c.clean_error),
        "relative mCE", unit="% of AlexNet", digits=1,
        applies=lambda c: c.alexnet is robustness.ALEXNET_ERRORS,
    ),
    Metric(
        "gap", "corrupted",
        lambda c: benchmarks.mean_corruption_error(c.errors) - c.error_on_c if c.errors else None,
        "gap to -C",
        applies=lambda c: c.error_on_c is not None,
    ),
    Metric(
        "flip_probability", "sequences",
        lambda s: benchmarks.flip_probability(s.predictions, s.is_noise), "flip probability",
        interval=lambda s: _of_mean(s.per_sequence["flip_probability"]),
    ),
    Metric(
        "top5_distance", "sequences", lambda s: s.top5_distance,
        "top-5 distance", unit="", digits=3,
        interval=lambda s: _of_mean(s.per_sequence.get("top5_distance", ())),
    ),
    Metric(
        "mean_flip_probability", "perturbed",
        lambda p: _mean(benchmarks.mean_flip_probability, p.of("flip_probability")),
        "mean flip probability",
        interval=lambda p: p.interval("flip_probability"),
    ),
    Metric(
        "mean_flip_probability_of_script", "perturbed",
        lambda p: _mean(
            benchmarks.mean_flip_probability,
            p.of("flip_probability", robustness.CIFAR_SCRIPT_PERTURBATIONS),
            robustness.CIFAR_SCRIPT_PERTURBATIONS,
        ),
        "mean flip probability over the perturbations of the CIFAR script (spatter, not snow)",
        "mean flip probability (CIFAR script)", compared=False,
        interval=lambda p: p.interval("flip_probability", robustness.CIFAR_SCRIPT_PERTURBATIONS),
    ),
    Metric(
        "unnormalized_top5_distance", "perturbed",
        lambda p: _mean(benchmarks.unnormalized_top5_distance, p.of("top5_distance")),
        "mean top-5 distance, unnormalized", unit="", digits=3, compared=False,
        interval=lambda p: p.interval("top5_distance"),
    ),
    Metric(
        "mean_flip_rate", "perturbed",
        lambda p: _mean(
            benchmarks.mean_flip_rate,
            p.of("flip_probability"), p.baseline["flip_probability"],
        ),
        "mean flip rate", "mFR", "% of AlexNet", digits=1,
        applies=lambda p: "flip_probability" in p.baseline,
        interval=lambda p: p.interval("flip_probability", is_relative=True),
    ),
    Metric(
        "mean_top5_distance", "perturbed",
        lambda p: _mean(
            benchmarks.mean_top5_distance, p.of("top5_distance"), p.baseline["top5_distance"]
        ),
        "mean top-5 distance", "mT5D", "% of AlexNet", digits=1,
        applies=lambda p: "top5_distance" in p.baseline,
        interval=lambda p: p.interval("top5_distance", is_relative=True),
    ),
)  # fmt: skip


def _of_mean(per_image: Sequence[float] | np.ndarray) -> Interval | None:
    if len(per_image) < 2:
        return None
    interval = mean_interval(per_image)
    # Values of 0 or more have no negative mean.
    return interval._replace(low=max(interval.low, min(0.0, float(np.min(per_image)))))


def _mean(
    function: Callable[..., float], values: Mapping[str, float] | None, *arguments: Any
) -> float | None:
    return None if values is None else function(values, *arguments)


def select(inputs: Inputs, **attributes: Any) -> list[Metric]:
    """Returns the metrics computed from `inputs` with these attributes, in table order."""
    return [
        metric
        for metric in METRICS
        if metric.inputs == inputs
        and all(getattr(metric, name) == value for name, value in attributes.items())
    ]


def compute(metrics: Iterable[Metric], inputs: Any) -> dict[str, float | None]:
    """Returns name -> value of the metrics that apply to `inputs`."""
    return {m.name: m.function(inputs) for m in metrics if m.applies(inputs)}


def intervals(metrics: Iterable[Metric], inputs: Any) -> dict[str, Interval]:
    """Returns name -> 95 % interval of the metrics that apply to `inputs` and have one."""
    by_name = {m.name: m.interval(inputs) for m in metrics if m.applies(inputs)}
    return {name: interval for name, interval in by_name.items() if interval is not None}


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


def values(
    results: Mapping[str, Any], corruptions: Mapping[str, Sequence[str]] | None = None
) -> list[Value]:
    """Returns the values of all metrics by which runs can be compared, of a valid `results.json`.

    `corruptions` are those that means are over, for each of `CORRUPTED_PARTS`; None takes the ones
    of the benchmark that were evaluated.
    """
    names = {
        part: (results.get(part) or {}).get("counted") or [] if corruptions is None
        else corruptions[part]
        for part in CORRUPTED_PARTS
    }  # fmt: skip
    entries: list[Value] = []
    for metric in select("images"):
        entries += _of_images(metric, results, names)
    inputs: dict[str, Inputs] = {"corrupted": "corrupted", "cbar": "corrupted"}
    for part, kind in (inputs | {"perturbed": "perturbed"}).items():
        before, column_before = ("C-bar ", "cbar_") if part == "cbar" else ("", "")
        for metric in select(kind):
            name = metric.name.replace(".", "_")
            title, short = (before + text for text in (metric.title, metric.short or metric.title))
            value = lookup(results.get(part) or {}, metric.name)
            interval = interval_of(results.get(part) or {}, metric.name)
            optional = part == "cbar" or metric.applies is not _always
            texts = title, short, column_before + name, f"{part}/{name}"
            entries.append(Value(metric, *texts, value, interval, optional=optional))
    for name, part in (results.get("shifted") or {}).items():
        for metric in select("images"):
            title, short = (f"{t} on {name}" for t in (metric.title, metric.short or metric.title))
            column, tag = f"{metric.name}_on_{name}", f"shifted/{name}/{metric.name}"
            texts, value = (title, short, column, tag), lookup(part, metric.name)
            interval = interval_of(part, metric.name)
            entries.append(Value(metric, *texts, value, interval, optional=True))
    return entries


def adapted_values(
    results: Mapping[str, Any], corruptions: Mapping[str, Sequence[str]] | None = None
) -> list[Value]:
    """Returns the values with adapted batch normalization, named as such; as of `values`."""
    return [
        entry._replace(
            title=entry.title + ADAPTED,
            short=f"{entry.short}, adapted",
            column=f"adapted_{entry.column}",
            tag=f"adapted/{entry.tag}",
            optional=True,
        )
        for entry in values(results.get("adapted") or {}, corruptions)
        if entry.value is not None
    ]


def compared(values: Iterable[Value]) -> list[Value]:
    """Returns the evaluated values without a temperature of metrics that are `compared`."""
    return [
        entry
        for entry in values
        if entry.metric.compared and entry.value is not None and not entry.with_temperature
    ]


def scalars(results: Mapping[str, Any]) -> dict[str, float]:
    """Returns tag -> value of the most important metrics in a `results.json`, for TensorBoard."""
    entries = compared(values(results))
    return {entry.tag: entry.value for entry in entries if entry.value is not None}


def lookup(part: Mapping[str, Any], name: str) -> Any:
    """Returns the value of a dotted name in nested objects; None where there is none."""
    value: Any = part
    for key in name.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def interval_of(part: Mapping[str, Any], name: str) -> Interval | None:
    """Returns the interval of a metric in a part of `results.json`; None where there is none."""
    bounds = (part.get("intervals") or {}).get(name)
    return None if bounds is None else Interval(*bounds)


def mean_over_severities(rows: Iterable[Sequence[float | None]]) -> float | None:
    """Returns the mean over corruptions (rows) of the mean over severities; None if one lacks."""
    values = [list(row) for row in rows]
    if not values or any(value is None for row in values for value in row):
        return None
    return float(np.mean([np.mean(np.array(row, np.float64)) for row in values]))


def _of_images(
    metric: Metric, results: Mapping[str, Any], names: Mapping[str, Sequence[str]]
) -> list[Value]:
    """Values on clean images and means over corruptions, without and with a temperature."""
    entries = []
    for prefix, suffix in (("", ""), ("calibrated.", " with temperature"))[: 1 + metric.calibrated]:
        path, column = prefix + metric.name, prefix.replace(".", "_") + metric.name
        title, short = metric.title + suffix, (metric.short or metric.title) + suffix
        clean = results.get("clean") or {}
        value, interval = lookup(clean, path), interval_of(clean, path)
        texts = f"clean {title}", f"clean {short}", f"clean_{column}", f"test/{column}"
        entries.append(Value(metric, *texts, value, interval, bool(prefix), bool(prefix)))
        for part in CORRUPTED_PARTS if metric.per_severity else ():
            corrupted = results.get(part) or {}
            cells = corrupted.get("corruptions") or {}
            members = [cells.get(name) or [{}] for name in names[part]]
            mean = mean_over_severities([[lookup(c, path) for c in row] for row in members])
            interval = _over_corruptions(path, [cell for row in members for cell in row])
            texts = _of_corruptions(part, corrupted, names[part], title, short, column)
            optional = bool(prefix) or part == "cbar"
            entries.append(Value(metric, *texts, mean, interval, bool(prefix), optional))
    return entries


def _over_corruptions(path: str, cells: Sequence[Mapping[str, Any]]) -> Interval | None:
    """Interval of the mean over cells, which show the same images.

    That of the error is computed from the outcomes. Of other metrics it is the mean of the cells'
    intervals: no narrower than the exact one, which needs the covariances of the cells.
    """
    if path == "error":
        outcomes = [cell.get("outcomes") for cell in cells]
        per_image = errors_per_image(None if o is None else Outcomes(**o) for o in outcomes)
        return None if per_image is None else _of_mean(per_image)
    known = [interval_of(cell, path) for cell in cells]
    bounds = [interval for interval in known if interval is not None]
    if not known or len(bounds) < len(known):
        return None
    return Interval(*np.mean(bounds, axis=0).tolist())


def _of_corruptions(
    part: str,
    corrupted: Mapping[str, Any],
    names: Sequence[str],
    title: str,
    short: str,
    column: str,
) -> tuple[str, str, str, str]:
    """Title, short title, column and tag of a mean over corruptions."""
    counted, missing = (corrupted.get(key) or [] for key in ("counted", "missing"))
    benchmark = robustness.counted([*counted, *missing])
    at = robustness.at_severities(corrupted.get("severities"))
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
