"""Metrics of the -C and -P benchmarks.

-C: two metrics share the name "mCE". On CIFAR-10-C and CIFAR-100-C it is a plain mean of errors, a
fraction (`unnormalized_corruption_error`); on ImageNet-C the mean of errors that are divided by
AlexNet's (`alexnet_corruption_error`). Errors are given as corruption -> errors at its severities,
as fractions (0 to 1); a single number is taken as the mean over severities.

-P: stability of predictions along sequences of perturbed frames, without labels. In sequences of
noise (`is_noise`) each frame is a fresh draw, so every frame is compared with frame 0, at any
difficulty (harder noise is other data). In all others frame t is compared with frame
t + difficulty. Arrays are [S, T] (S sequences of T frames) or [S, T, K] (K classes).

Metrics relative to a baseline network are percentages of that network, as published: 100 equals the
baseline, lower is better. AlexNet's results are in `robustness`.

Names that are missing, extra or unknown, and values, shapes or types that do not fit are
`ArgumentError`s; logits that are NaN or infinite are a `RunError`.

Source: Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations, ICLR 2019 (arXiv 1903.12261), section 4.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from augmix_tf.errors import ArgumentError, RunError, require, unknown_name
from augmix_tf.metrics.uncertainty import Interval, mean_interval
from augmix_tf.robustness import (
    ALEXNET_CLEAN_ERROR,
    ALEXNET_ERRORS,
    CORRUPTIONS,
    IMAGENET_CLASSES,
    PERTURBATIONS,
    SEVERITIES,
    alexnet_errors,
)

Errors = Mapping[str, ArrayLike]
Values = Mapping[str, float]

TOP = 5
# Where the first four leave the top five (5 + 4 + 3 + 2) and the fifth becomes the best (4).
LARGEST_TOP5_DISTANCE = 18.0


def mean_corruption_error(errors: Errors, baseline: Errors | None = None) -> float:
    """Mean over corruptions of the mean error over severities, plain or relative to a baseline.

        plain:     (1/C) sum_c mean_s E[c, s]
        relative:  (100/C) sum_c (mean_s E[c, s] / mean_s B[c, s])

    A fraction without a `baseline` (errors of another network, above 0), else a percentage of it.
    The mean is over the keys of `errors`, which must be those of `baseline`. For the published
    metrics over all 15 corruptions use `unnormalized_corruption_error` or
    `alexnet_corruption_error`.

    >>> errors = {"fog": [0.1, 0.3], "snow": [0.5, 0.7]}
    >>> round(mean_corruption_error(errors), 3)
    0.4
    >>> round(mean_corruption_error(errors, baseline={"fog": 0.4, "snow": 0.6}), 3)  # 50 and 100 %
    75.0
    """
    if baseline is None:
        return unnormalized_corruption_error(errors, errors)
    return _relative("corruption", "error", errors, baseline)


def unnormalized_corruption_error(errors: Errors, names: Iterable[str] = CORRUPTIONS) -> float:
    """Mean over the corruptions `names` of the mean error over severities, a fraction.

    As published for CIFAR-10-C and CIFAR-100-C. It has no baseline, so it is not comparable with
    the mCE of ImageNet-C.

    Source: Hendrycks et al., AugMix, ICLR 2020 (arXiv 1912.02781), section 4.1.
    """
    return float(np.mean(_means("corruption", "error", errors, names)))


def alexnet_corruption_error(errors: Errors) -> float:
    """Mean corruption error relative to AlexNet (mCE), as published for ImageNet-C.

        mCE = (100/15) sum_c (mean_s E[c, s] / mean_s AlexNet[c, s])

    A percentage of AlexNet's error; `errors` are those of each of the 15 corruptions.
    """
    return mean_corruption_error(errors, ALEXNET_ERRORS)


def relative_corruption_error(
    errors: Errors,
    clean_error: float,
    baseline: Errors = ALEXNET_ERRORS,
    baseline_clean_error: float = ALEXNET_CLEAN_ERROR,
) -> float:
    """Increase of the error under corruption relative to a baseline network's (relative mCE).

        (100/C) sum_c (mean_s E[c, s] - E_clean) / (mean_s B[c, s] - B_clean)

    A percentage of the baseline's increase. The clean errors are those on clean images, 0 to 1;
    `baseline_clean_error` is below all means of `baseline`.
    """
    require(0.0 <= clean_error <= 1.0, "clean error of 0 to 1", clean_error)
    added = _means("corruption", "error", errors, baseline) - clean_error
    baseline_added = _means("corruption", "baseline error", baseline, baseline)
    baseline_added -= baseline_clean_error
    require(
        bool((baseline_added > 0.0).all()),
        "baseline errors above the baseline's clean error",
        baseline_added.min() + baseline_clean_error,
    )
    return float(100.0 * np.mean(added / baseline_added))


def flip_probability(predictions: ArrayLike, is_noise: bool, difficulty: int = 1) -> float:
    """Fraction of the compared pairs of frames with different predictions, mean over sequences.

    `predictions` are int [S, T], the predicted class of each frame. The result is 0 to 1.

    >>> flip_probability([[3, 3, 5, 5], [1, 1, 1, 1]], is_noise=False)  # 1 of 3 pairs, 0 of 3
    0.16666666666666666
    """
    answers = np.asarray(predictions)
    require(answers.ndim == 2 and len(answers) > 0, "predictions [S, T]", answers.shape)
    require(np.issubdtype(answers.dtype, np.integer), "predictions of integers", answers.dtype)
    first, second = _pairs(answers, is_noise, difficulty)
    return float((first != second).mean())


def top5_distance(logits: ArrayLike, is_noise: bool, difficulty: int = 1) -> float:
    """Top-5 distance (T5D): how far the top five classes of one frame move in the other's ranking.

        d(a, b) = sum_{j=0..4} |j - min(s_j, 5)|

    where s_j is the rank in b, from 0, of the class that a ranks j-th; equal logits rank by class
    index. Mean over the compared pairs of frames and over sequences. Not symmetric: a is frame 0
    (noise) or the earlier frame. `logits` are float [S, T, K], K of 5 or more; the result is 0
    (same five in the same order) to 18; 15 where all five are gone.

    >>> frames = [[6.0, 5.0, 4.0, 3.0, 2.0, 1.0], [5.0, 6.0, 4.0, 3.0, 2.0, 1.0]]
    >>> top5_distance([frames], is_noise=False)  # the first two change places
    2.0
    """
    return SequenceSums().update(logits, is_noise, difficulty).compute()["top5_distance"]


def mean_flip_probability(probabilities: Values, names: Iterable[str] = PERTURBATIONS) -> float:
    """Mean over the perturbations `names` of the flip probability (mFP), 0 to 1."""
    return float(np.mean(_means("perturbation", "flip probability", probabilities, names)))


def mean_flip_rate(probabilities: Values, baseline: Values) -> float:
    """Mean over perturbations of the flip probability relative to a baseline network's (mFR).

    A percentage of the baseline, whose flip probabilities are above 0. Published: of
    `robustness.ALEXNET_RATES["flip_probability"]`.
    """
    return _relative("perturbation", "flip probability", probabilities, baseline)


def unnormalized_top5_distance(distances: Values, names: Iterable[str] = PERTURBATIONS) -> float:
    """Mean over the perturbations `names` of the top-5 distance (uT5D), 0 to 18."""
    largest = LARGEST_TOP5_DISTANCE
    return float(np.mean(_means("perturbation", "top-5 distance", distances, names, largest)))


def mean_top5_distance(distances: Values, baseline: Values) -> float:
    """Mean over perturbations of the top-5 distance relative to a baseline (mT5D), a percentage."""
    largest = LARGEST_TOP5_DISTANCE
    return _relative("perturbation", "top-5 distance", distances, baseline, largest)


@dataclass(frozen=True)
class SequenceSums:
    """Sums over pairs of frames; sums of disjoint sets of sequences can be merged.

    Pairs are not weighted by sequence, so all sequences should have the same length.
    """

    pairs: int = 0
    flips: int = 0
    distance_sum: float = 0.0

    def update(self, logits: ArrayLike, is_noise: bool, difficulty: int = 1) -> SequenceSums:
        """Returns these sums with a batch of sequences added; arguments as for `top5_distance`."""
        flips, distances = _compared(np.asarray(logits), is_noise, difficulty)
        return self.merge(SequenceSums(flips.size, int(flips.sum()), float(distances.sum())))

    def merge(self, other: SequenceSums) -> SequenceSums:
        return SequenceSums(*map(operator.add, astuple(self), astuple(other)))

    def compute(self) -> dict[str, float]:
        """Returns the means: `flip_probability` (0..1) and `top5_distance` (0..18)."""
        require(self.pairs > 0, "at least one pair of frames", self.pairs)
        return {
            "flip_probability": self.flips / self.pairs,
            "top5_distance": self.distance_sum / self.pairs,
        }


@dataclass(frozen=True)
class CorruptionErrors:
    """Errors on a -C or C-bar benchmark, from which its metrics are computed."""

    errors: Errors  # of those of `counted` that were evaluated
    clean_error: float | None
    classes: int  # of the model
    counted: Sequence[str] = CORRUPTIONS  # that the benchmark's means are over
    error_on_c: float | None = None  # mean error on -C, where this is C-bar
    # Corruption -> mean error of each image over severities, float [N]; None where the corruptions
    # are not known to show the same images.
    per_image: Mapping[str, np.ndarray] | None = None

    def interval(self, baseline: Values | None = None) -> Interval | None:
        """95 % interval of the mean corruption error, plain or relative to a baseline."""
        if not self.per_image or len(next(iter(self.per_image.values()))) < 2:
            return None
        scale = {name: 100.0 / baseline[name] if baseline else 1.0 for name in self.per_image}
        rows = [scale[name] * values for name, values in self.per_image.items()]
        return mean_interval(np.mean(rows, axis=0))

    @property
    def complete(self) -> bool:
        """Whether all counted corruptions were evaluated at all severities."""
        has_all = all(np.size(row) == len(SEVERITIES) for row in self.errors.values())
        return has_all and len(self.errors) == len(self.counted)

    @property
    def alexnet(self) -> Errors | None:
        """AlexNet's errors on the same benchmark, if it is one of ImageNet and complete."""
        return (
            alexnet_errors(self.counted)
            if self.complete and self.classes == IMAGENET_CLASSES
            else None
        )


class SequencePredictions:
    """Predictions on all sequences of one perturbation, from which its metrics are computed."""

    def __init__(self, is_noise: bool) -> None:
        self.is_noise = is_noise
        self._batches: list[np.ndarray] = []
        self._distances: list[np.ndarray] = []

    def add(self, logits: np.ndarray) -> None:
        """Adds the logits [S, T, K] of some sequences; raises `RunError` unless they are finite."""
        _check_finite(logits)
        self._batches.append(logits.argmax(axis=2))
        if logits.shape[2] > TOP:
            self._distances.append(_compared(logits, self.is_noise, 1)[1].mean(axis=1))

    @property
    def predictions(self) -> np.ndarray:
        return np.concatenate(self._batches)

    @property
    def top5_distance(self) -> float | None:
        """Mean over the compared pairs; None with 5 classes or fewer, all of them the top five."""
        return float(np.concatenate(self._distances).mean()) if self._distances else None

    @property
    def per_sequence(self) -> dict[str, np.ndarray]:
        """`flip_probability` and, with 6 classes or more, `top5_distance` of each: float [S]."""
        first, second = _pairs(self.predictions, self.is_noise, 1)
        found = {"flip_probability": (first != second).mean(axis=1)}
        if self._distances:
            found["top5_distance"] = np.concatenate(self._distances)
        return found


@dataclass(frozen=True)
class PerturbationRates:
    """Metrics of each perturbation of a -P benchmark, from which its means are computed."""

    # Perturbation -> "flip_probability" and "top5_distance" (None: not defined).
    values: Mapping[str, Mapping[str, float | None]]
    baseline: Mapping[str, Values]  # metric -> perturbation -> value of a baseline network
    # Perturbation -> metric -> value of each sequence, float [S], in the order of the images.
    per_sequence: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict)

    def interval(
        self, metric: str, names: Iterable[str] = PERTURBATIONS, is_relative: bool = False
    ) -> Interval | None:
        """95 % interval of a mean over perturbations, which show the same images."""
        rows = {name: self.per_sequence.get(name, {}).get(metric) for name in names}
        known = {name: row for name, row in rows.items() if row is not None}
        if len(known) < len(rows) or len({len(row) for row in known.values()} | {1}) != 2:
            return None
        scale = {n: 100.0 / self.baseline[metric][n] if is_relative else 1.0 for n in known}
        return mean_interval(np.mean([scale[n] * row for n, row in known.items()], axis=0))

    def of(self, metric: str, names: Iterable[str] = PERTURBATIONS) -> dict[str, float] | None:
        """Returns perturbation -> value for all `names`; None where one of them is missing."""
        values = {name: self.values.get(name, {}).get(metric) for name in names}
        known = {name: value for name, value in values.items() if value is not None}
        return known if len(known) == len(values) else None


def _check_names(kind: str, given: Iterable[str], expected: Iterable[str]) -> list[str]:
    """Returns the names `expected`; refuses an unknown name in `given`, or missing ones."""
    names, expected = list(given), list(expected)
    require(bool(expected), f"at least one {kind}", "none")
    for name in names:
        if name not in expected:
            raise ArgumentError(unknown_name(kind, name, expected))
    missing = [name for name in expected if name not in names]
    received = f"{len(names)} of {len(expected)} without {', '.join(missing)}"
    require(not missing, f"every {kind} of {', '.join(expected)}", received)
    return expected


def _means(
    kind: str, what: str, table: Errors, names: Iterable[str], largest: float = 1.0
) -> np.ndarray:
    """Mean over severities, if there are some, of each of `names`: float64 [C]."""
    names = _check_names(kind, table, names)
    return np.array([_mean(f"{what} on {name}", table[name], largest) for name in names])


def _mean(what: str, values: ArrayLike, largest: float) -> float:
    cells = np.atleast_1d(np.asarray(values, np.float64))
    require(cells.ndim == 1 and cells.size > 0, f"{what} [severities] or one number", cells.shape)
    inside = (cells >= 0.0) & (cells <= largest)
    require(bool(inside.all()), f"{what} of 0 to {largest:g}", cells[~inside][:1])
    return float(cells.mean())


def _relative(kind: str, what: str, table: Errors, baseline: Errors, largest: float = 1.0) -> float:
    """Mean of the values divided by those of a baseline, in percent."""
    ours = _means(kind, what, table, baseline, largest)
    theirs = _means(kind, f"baseline {what}", baseline, baseline, largest)
    require(bool((theirs > 0.0).all()), f"baseline {what} above 0", theirs.min())
    return float(100.0 * np.mean(ours / theirs))


def _compared(scores: np.ndarray, is_noise: bool, difficulty: int) -> tuple[np.ndarray, np.ndarray]:
    """Whether predictions differ, and the top-5 distance, of all pairs of frames: [S, P] each."""
    require(scores.ndim == 3, "logits [S, T, K]", scores.shape)
    require(scores.shape[2] >= TOP, f"at least {TOP} classes", scores.shape[2])
    _check_finite(scores)
    ranking = np.argsort(-scores.astype(np.float64), axis=-1, kind="stable")
    first, second = _pairs(ranking, is_noise, difficulty)
    ranks = np.argsort(second, axis=-1)
    best = np.broadcast_to(first[..., :TOP], (*ranks.shape[:-1], TOP))
    moved = np.minimum(np.take_along_axis(ranks, best, axis=-1), TOP)
    return first[..., 0] != second[..., 0], np.abs(np.arange(TOP) - moved).sum(axis=-1)


def _check_finite(logits: np.ndarray) -> None:
    if not np.isfinite(logits).all():
        raise RunError("Expected finite logits; received NaN or infinity.")


def _pairs(frames: np.ndarray, is_noise: bool, difficulty: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the first and the second frames of all pairs: [S, 1 or P, ...] and [S, P, ...]."""
    require(difficulty >= 1, "difficulty of 1 or more", difficulty)
    step = 1 if is_noise else difficulty
    count = frames.shape[1]
    require(count > step, f"sequences of {step + 1} or more frames", count)
    first = frames[:, :1] if is_noise else frames[:, :-step]
    return first, frames[:, step:]
