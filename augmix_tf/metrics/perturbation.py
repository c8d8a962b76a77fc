"""Stability of predictions along sequences of perturbed frames (the -P benchmarks).

Which frames are compared: in sequences of noise each frame is a fresh draw, so every frame is
compared with frame 0, at any difficulty (harder noise is other data). In all other sequences frame
t is compared with frame t + difficulty. No labels are needed.

Arrays are [S, T] (S sequences of T frames) or [S, T, K] (K classes). Metrics relative to a baseline
network are percentages of that network: 100 equals the baseline, lower is better. AlexNet's rates
on ImageNet-P are in no public repository, so the user provides them.

Source: Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations, ICLR 2019 (arXiv 1903.12261), section 4.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from augmix_tf import errors
from augmix_tf.metrics import corruption
from augmix_tf.robustness import PERTURBATIONS

TOP = 5
LARGEST_TOP5_DISTANCE = TOP * (TOP + 1) / 2


@dataclass(frozen=True)
class SequenceSums:
    """Sums over pairs of frames; sums of disjoint sets of sequences can be merged.

    Pairs are not weighted by sequence, so all sequences should have the same length.
    """

    pairs: int = 0
    flips: int = 0
    distance_sum: float = 0.0

    @classmethod
    def empty(cls) -> SequenceSums:
        """Returns the sums over no sequence."""
        return cls()

    def update(self, logits: ArrayLike, is_noise: bool, difficulty: int = 1) -> SequenceSums:
        """Returns these sums with a batch of sequences added.

        Args:
            logits: float [S, T, K], K of 5 or more.
            is_noise: compare every frame with frame 0.
            difficulty: distance in frames between the two of a pair, unless `is_noise`.

        Raises:
            ArgumentError: shapes do not fit, or there are too few frames or classes.
            RunError: a logit is NaN or infinite.
        """
        ranking = _ranking(logits)
        flips = _flips(ranking[..., 0], is_noise, difficulty)
        distances = _top5_distances(ranking, is_noise, difficulty)
        batch = SequenceSums(flips.size, int(flips.sum()), float(distances.sum()))
        return self.merge(batch)

    def merge(self, other: SequenceSums) -> SequenceSums:
        """Returns the sums over the pairs of both."""
        return SequenceSums(
            pairs=self.pairs + other.pairs,
            flips=self.flips + other.flips,
            distance_sum=self.distance_sum + other.distance_sum,
        )

    def compute(self) -> dict[str, float]:
        """Returns the means: `flip_probability` (0..1) and `top5_distance` (0..15).

        Raises:
            ArgumentError: there was no pair of frames.
        """
        errors.require(self.pairs > 0, "at least one pair of frames", self.pairs)
        return {
            "flip_probability": self.flips / self.pairs,
            "top5_distance": self.distance_sum / self.pairs,
        }


def flip_probability(predictions: ArrayLike, is_noise: bool, difficulty: int = 1) -> float:
    """Fraction of the compared pairs of frames with different predictions, mean over sequences.

    Args:
        predictions: int [S, T], the predicted class of each frame.
        is_noise: compare every frame with frame 0.
        difficulty: distance in frames between the two of a pair, unless `is_noise`.

    Returns:
        0 to 1.

    Raises:
        ArgumentError: not [S, T] of integers, S = 0, or too few frames for one pair.

    >>> flip_probability([[3, 3, 5, 5], [1, 1, 1, 1]], is_noise=False)  # 1 of 3 pairs, 0 of 3
    0.16666666666666666
    """
    answers = np.asarray(predictions)
    errors.require(answers.ndim == 2 and len(answers) > 0, "predictions [S, T]", answers.shape)
    errors.require(
        np.issubdtype(answers.dtype, np.integer), "predictions of integers", answers.dtype
    )
    return float(_flips(answers, is_noise, difficulty).mean())


def top5_distance(logits: ArrayLike, is_noise: bool, difficulty: int = 1) -> float:
    """Top-5 distance (T5D): how far the top five classes of one frame move in the other's ranking.

        d(a, b) = sum_{j=0..4} |j - min(s_j, 5)|

    where s_j is the rank in b, from 0, of the class that a ranks j-th; equal logits rank by class
    index. Mean over the compared pairs of frames and over sequences. Not symmetric: a is frame 0
    (noise) or the earlier frame.

    Args:
        logits: float [S, T, K], K of 5 or more.
        is_noise: compare every frame with frame 0.
        difficulty: distance in frames between the two of a pair, unless `is_noise`.

    Returns:
        0 (same five in the same order) to 15 (all five gone).

    Raises:
        ArgumentError: shapes do not fit, S = 0, or too few frames or classes.
        RunError: a logit is NaN or infinite.

    >>> frames = [[6.0, 5.0, 4.0, 3.0, 2.0, 1.0], [5.0, 6.0, 4.0, 3.0, 2.0, 1.0]]
    >>> top5_distance([frames], is_noise=False)  # the first two change places
    2.0
    """
    return SequenceSums.empty().update(logits, is_noise, difficulty).compute()["top5_distance"]


def mean_flip_probability(
    probabilities: Mapping[str, float], names: Iterable[str] = PERTURBATIONS
) -> float:
    """Mean over perturbations of the flip probability (mFP), as published for CIFAR-10-P.

    Args:
        probabilities: perturbation -> flip probability, 0 to 1.
        names: the perturbations that `probabilities` must have.

    Returns:
        A fraction, 0 to 1.

    Raises:
        ArgumentError: missing, extra or unknown names; probabilities out of range.
    """
    return float(np.mean(_values("flip probability", probabilities, names, 1.0)))


def mean_flip_rate(probabilities: Mapping[str, float], baseline: Mapping[str, float]) -> float:
    """Mean over perturbations of the flip probability relative to a baseline network's (mFR).

    Args:
        probabilities: perturbation -> flip probability, 0 to 1.
        baseline: flip probabilities of the baseline network (published: AlexNet), above 0.

    Returns:
        A percentage of the baseline.

    Raises:
        ArgumentError: missing, extra or unknown names; probabilities out of range.
    """
    return _relative("flip probability", probabilities, baseline, 1.0)


def unnormalized_top5_distance(
    distances: Mapping[str, float], names: Iterable[str] = PERTURBATIONS
) -> float:
    """Mean over perturbations of the top-5 distance (uT5D), 0 to 15.

    Arguments and errors as for `mean_flip_probability`, with distances of 0 to 15.
    """
    return float(np.mean(_values("top-5 distance", distances, names, LARGEST_TOP5_DISTANCE)))


def mean_top5_distance(distances: Mapping[str, float], baseline: Mapping[str, float]) -> float:
    """Mean over perturbations of the top-5 distance relative to a baseline network's (mT5D).

    Arguments, result and errors as for `mean_flip_rate`, with distances of 0 to 15.
    """
    return _relative("top-5 distance", distances, baseline, LARGEST_TOP5_DISTANCE)


class SequencePredictions:
    """Predictions on all sequences of one perturbation, from which its metrics are computed.

    Attributes:
        is_noise: whether every frame is compared with frame 0.
    """

    def __init__(self, is_noise: bool) -> None:
        self.is_noise = is_noise
        self._batches: list[np.ndarray] = []
        self._sums = SequenceSums.empty()

    def add(self, logits: np.ndarray) -> None:
        """Adds the logits [S, T, K] of some sequences.

        Raises:
            RunError: a logit is NaN or infinite.
        """
        if not np.isfinite(logits).all():
            raise errors.RunError("Expected finite logits; received NaN or infinity.")
        self._batches.append(logits.argmax(axis=2))
        if logits.shape[2] > TOP:
            self._sums = self._sums.update(logits, self.is_noise)

    @property
    def predictions(self) -> np.ndarray:
        """The predicted class of each frame, int [S, T]."""
        return np.concatenate(self._batches)

    @property
    def top5_distance(self) -> float | None:
        """Mean over the compared pairs; None with 5 classes or fewer, all of them the top five."""
        return self._sums.compute()["top5_distance"] if self._sums.pairs else None


@dataclass(frozen=True)
class PerturbationRates:
    """Metrics of each perturbation of a -P benchmark, from which its means are computed.

    Attributes:
        values: perturbation -> "flip_probability" and "top5_distance" (None: not defined).
        baseline: metric -> perturbation -> value of a baseline network (published: AlexNet); {}
            where none is given.
    """

    values: Mapping[str, Mapping[str, float | None]]
    baseline: Mapping[str, Mapping[str, float]]

    def of(self, metric: str, names: Iterable[str] = PERTURBATIONS) -> dict[str, float] | None:
        """Returns perturbation -> value for all `names`; None where one of them is missing."""
        found: dict[str, float] = {}
        for name in names:
            value = self.values.get(name, {}).get(metric)
            if value is None:
                return None
            found[name] = value
        return found


def _ranking(logits: ArrayLike) -> np.ndarray:
    """Returns the classes from best to worst, int64 [S, T, K]; equal logits go by class index."""
    scores = np.asarray(logits)
    errors.require(scores.ndim == 3, "logits [S, T, K]", scores.shape)
    errors.require(scores.shape[2] >= TOP, f"at least {TOP} classes", scores.shape[2])
    if not np.isfinite(scores).all():
        raise errors.RunError("Expected finite logits; received NaN or infinity.")
    return np.argsort(-scores.astype(np.float64), axis=-1, kind="stable")


def _pairs(frames: np.ndarray, is_noise: bool, difficulty: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the first and the second frames of all pairs: [S, 1 or P, ...] and [S, P, ...]."""
    errors.require(difficulty >= 1, "difficulty of 1 or more", difficulty)
    step = 1 if is_noise else difficulty
    count = frames.shape[1]
    errors.require(count > step, f"sequences of {step + 1} or more frames", count)
    first = frames[:, :1] if is_noise else frames[:, :-step]
    return first, frames[:, step:]


def _flips(answers: np.ndarray, is_noise: bool, difficulty: int) -> np.ndarray:
    first, second = _pairs(answers, is_noise, difficulty)
    return first != second


def _top5_distances(ranking: np.ndarray, is_noise: bool, difficulty: int) -> np.ndarray:
    """Returns the distance of each pair, int64 [S, P]."""
    first, second = _pairs(ranking, is_noise, difficulty)
    ranks = np.argsort(second, axis=-1)
    best = np.broadcast_to(first[..., :TOP], (*ranks.shape[:-1], TOP))
    moved = np.take_along_axis(ranks, best, axis=-1)
    return np.abs(np.arange(TOP) - np.minimum(moved, TOP)).sum(axis=-1)


def _values(
    what: str, table: Mapping[str, float], names: Iterable[str], largest: float
) -> np.ndarray:
    """Returns the numbers of `names`, float64 [C], each 0 to `largest`, or refuses."""
    wanted = list(names)
    corruption.check_names("perturbation", table, wanted)
    values = np.array([table[name] for name in wanted], np.float64)
    inside = (values >= 0.0) & (values <= largest)
    errors.require(bool(inside.all()), f"{what} of 0 to {largest:g}", values[~inside][:1])
    return values


def _relative(
    what: str, table: Mapping[str, float], baseline: Mapping[str, float], largest: float
) -> float:
    ours = _values(what, table, baseline, largest)
    theirs = _values(f"baseline {what}", baseline, baseline, largest)
    errors.require(bool((theirs > 0.0).all()), f"baseline {what} above 0", theirs.min())
    return float(100.0 * np.mean(ours / theirs))
