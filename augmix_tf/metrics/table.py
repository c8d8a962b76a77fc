"""The table of metrics: `results.json`, reports, tables and model cards are derived from it.

To add a metric, write its function in this package and add one row to `METRICS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from augmix_tf import robustness
from augmix_tf.metrics import benchmarks, calibration
from augmix_tf.metrics.uncertainty import Interval, mean_interval, wilson_interval

# What a metric is computed from:
# - images: logits and labels of a set of images (`classification.Predictions`);
# - corrupted: the errors on all corruptions (`benchmarks.CorruptionErrors`);
# - sequences: predictions for one perturbation (`benchmarks.SequencePredictions`);
# - perturbed: the metrics of all perturbations (`benchmarks.PerturbationRates`).
Inputs = Literal["images", "corrupted", "sequences", "perturbed"]
# Units of the values in `results.json`. Reports show fractions as percentages.
Unit = Literal["fraction", "nats", "% of AlexNet", ""]


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
    signed: bool = False  # below 0 as well; all others are 0 or more
    # Shown in the terminal, in comparisons, on model cards and among the hyperparameters of the
    # dashboard; all metrics are in `report.md` and `comparison.csv`.
    compared: bool = True
    per_severity: bool = True  # of "images": also computed for each cell, and averaged
    calibrated: bool = True  # of "images": also computed with the temperature
    # Whether `results.json` has it for these inputs; None: always.
    applies: Callable[[Any], bool] | None = None
    interval: Callable[[Any], Interval | None] | None = None  # 95 %, from the same inputs

    @property
    def short_title(self) -> str:
        return self.short or self.title

    @property
    def _shown_unit(self) -> str:
        return "%" if self.unit == "fraction" else self.unit

    @property
    def heading_unit(self) -> str:
        """Unit and direction for the head of a column or section, such as " (%)"."""
        facts = [self._shown_unit, "higher is better" if self.higher_is_better else ""]
        return f" ({'; '.join(filter(None, facts))})" if any(facts) else ""

    def clipped(self, interval: Interval) -> Interval:
        """Returns the part of an interval that the values can be in.

        Student's intervals of a few images or seeds go beyond 0 and 1.
        """
        highest = 1.0 if self.unit == "fraction" else math.inf
        lowest = -highest if self.signed else 0.0
        return Interval(max(lowest, interval.low), min(highest, interval.high))

    def scaled(self, value: float) -> float:
        return 100 * value if self.unit == "fraction" else value

    def number(self, value: float | None, interval: Iterable[float] | None = None) -> str:
        """Returns a value and its interval without the unit, such as "4.60 (4.10 to 5.20)"."""
        text = "–" if value is None else f"{self.scaled(value):z.{self.digits}f}"  # z: no -0.00
        return text if interval is None else f"{text} ({self.range(interval)})"

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
        interval=lambda p: interval_of_mean(p.per_image["nll"]),
    ),
    Metric(
        "brier", "images", lambda p: p.means["brier"], "Brier score", unit="", digits=4,
        interval=lambda p: interval_of_mean(p.per_image["brier"]),
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
        signed=True,
        interval=lambda p: interval_of_mean(p.confidence - p.correct),
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
        "gap to -C", signed=True,
        applies=lambda c: c.error_on_c is not None,
    ),
    Metric(
        "flip_probability", "sequences",
        lambda s: benchmarks.flip_probability(s.predictions, s.is_noise), "flip probability",
        interval=lambda s: interval_of_mean(s.per_sequence["flip_probability"]),
    ),
    Metric(
        "top5_distance", "sequences", lambda s: s.top5_distance,
        "top-5 distance", unit="", digits=3,
        interval=lambda s: interval_of_mean(s.per_sequence.get("top5_distance", ())),
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


def interval_of_mean(per_image: Sequence[float] | np.ndarray) -> Interval | None:
    """Returns the 95 % interval of the mean of one value per image; None for a single image."""
    return None if len(per_image) < 2 else mean_interval(per_image)


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


def compute(
    metrics: Iterable[Metric], inputs: Any
) -> tuple[dict[str, float | None], dict[str, Interval]]:
    """Returns name -> value and name -> 95 % interval of the metrics that apply to `inputs`.

    Those without an interval are left out of the second.
    """
    applying = [m for m in metrics if m.applies is None or m.applies(inputs)]
    intervals = {
        metric.name: metric.clipped(interval)
        for metric in applying
        if metric.interval is not None and (interval := metric.interval(inputs)) is not None
    }
    return {metric.name: metric.function(inputs) for metric in applying}, intervals
