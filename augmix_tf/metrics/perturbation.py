"""Stability of answers along sequences of slightly changing pictures (the -P benchmarks).

Which frames are compared: in sequences of noise each frame is a fresh draw, so every later frame
is held against frame 0, whatever the difficulty (harder noise is other data). In all others frame
t is held against frame t + difficulty. No labels are needed.

Arrays are [S, T] (S sequences of T frames) or [S, T, K] (K classes). What comes out relative to a
baseline network is in per cent of that network: 100 is as good as the baseline, lower is better.
No baseline table is shipped: AlexNet's rates on ImageNet-P are in no public repository.

Source: Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations, ICLR 2019 (arXiv 1903.12261), section 4.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from augmix_tf import checks
from augmix_tf.metrics import corruption

TOP = 5
LARGEST_TOP5_DISTANCE = TOP * (TOP + 1) / 2

# The ten of the paper and of ImageNet-P.
PAPER_PERTURBATIONS = (
    "gaussian_noise",
    "shot_noise",
    "motion_blur",
    "zoom_blur",
    "snow",
    "brightness",
    "translate",
    "rotate",
    "tilt",
    "scale",
)
# The ten that the benchmark's public CIFAR script averages, with spatter in place of snow. A
# reported mean must say which of the two sets it is of.
CIFAR_SCRIPT_PERTURBATIONS = tuple(
    "spatter" if name == "snow" else name for name in PAPER_PERTURBATIONS
)


@dataclass(frozen=True)
class SequenceSums:
    """Sums over pairs of frames: those of two sets of sequences add up to those of both.

    Pairs are not weighted by sequence, so all sequences of one sum should have one length.
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
            is_noise: hold every frame against frame 0.
            difficulty: how many frames apart the two of a pair are, unless `is_noise`.

        Raises:
            CommandError: shapes do not fit, or there are too few frames or classes.
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
            CommandError: there was no pair of frames.
        """
        checks.require(self.pairs > 0, "at least one pair of frames", self.pairs)
        return {
            "flip_probability": self.flips / self.pairs,
            "top5_distance": self.distance_sum / self.pairs,
        }


def flip_probability(predictions: ArrayLike, is_noise: bool, difficulty: int = 1) -> float:
    """Share of the compared pairs of frames whose answers differ, mean over sequences.

    Args:
        predictions: int [S, T], the class answered on each frame.
        is_noise: hold every frame against frame 0.
        difficulty: how many frames apart the two of a pair are, unless `is_noise`.

    Returns:
        0 to 1.

    Raises:
        CommandError: not [S, T] of integers, S = 0, or too few frames for one pair.

    >>> flip_probability([[3, 3, 5, 5], [1, 1, 1, 1]], is_noise=False)  # 1 of 3 pairs, 0 of 3
    0.16666666666666666
    """
    answers = np.asarray(predictions)
    checks.require(answers.ndim == 2 and len(answers) > 0, "predictions [S, T]", answers.shape)
    checks.require(
        np.issubdtype(answers.dtype, np.integer), "predictions of integers", answers.dtype
    )
    return float(_flips(answers, is_noise, difficulty).mean())


def top5_distance(logits: ArrayLike, is_noise: bool, difficulty: int = 1) -> float:
    """T5D: how far the five best classes of one frame move in the ranking of the other.

        d(a, b) = sum_{j=0..4} |j - min(s_j, 5)|

    where s_j is the rank in b, from 0, of the class that a ranks j-th; equal logits rank by class
    index. Mean over the compared pairs of frames and over sequences. Not symmetric: a is frame 0
    (noise) or the earlier frame.

    Args:
        logits: float [S, T, K], K of 5 or more.
        is_noise: hold every frame against frame 0.
        difficulty: how many frames apart the two of a pair are, unless `is_noise`.

    Returns:
        0 (same five in the same order) to 15 (all five gone).

    Raises:
        CommandError: shapes do not fit, S = 0, or too few frames or classes.
        RunError: a logit is NaN or infinite.

    >>> frames = [[6.0, 5.0, 4.0, 3.0, 2.0, 1.0], [5.0, 6.0, 4.0, 3.0, 2.0, 1.0]]
    >>> top5_distance([frames], is_noise=False)  # the first two change places
    2.0
    """
    return SequenceSums.empty().update(logits, is_noise, difficulty).compute()["top5_distance"]


def mean_flip_probability(
    probabilities: Mapping[str, float], names: Iterable[str] = PAPER_PERTURBATIONS
) -> float:
    """mFP: the mean over perturbations of their flip probabilities, the number for CIFAR-P.

    Args:
        probabilities: perturbation -> flip probability, 0 to 1.
        names: the perturbations wanted, neither more nor fewer.

    Returns:
        A fraction, 0 to 1.

    Raises:
        CommandError: names missing, left over or wrong; probabilities out of range.
    """
    return float(np.mean(_values("flip probability", probabilities, names, 1.0)))


def mean_flip_rate(probabilities: Mapping[str, float], baseline: Mapping[str, float]) -> float:
    """mFR: the mean over perturbations of flip probability relative to a baseline network's.

    Args:
        probabilities: perturbation -> flip probability, 0 to 1.
        baseline: the same of the network to compare with (published: AlexNet), above 0.

    Returns:
        Per cent of the baseline.

    Raises:
        CommandError: names missing, left over or wrong; probabilities out of range.
    """
    return _relative("flip probability", probabilities, baseline, 1.0)


def unnormalized_top5_distance(
    distances: Mapping[str, float], names: Iterable[str] = PAPER_PERTURBATIONS
) -> float:
    """uT5D: the mean over perturbations of their top-5 distances, 0 to 15.

    Arguments and errors as for `mean_flip_probability`, with distances of 0 to 15.
    """
    return float(np.mean(_values("top-5 distance", distances, names, LARGEST_TOP5_DISTANCE)))


def mean_top5_distance(distances: Mapping[str, float], baseline: Mapping[str, float]) -> float:
    """mT5D: the mean over perturbations of top-5 distance relative to a baseline network's.

    Arguments and errors as for `mean_flip_rate`, with distances of 0 to 15; per cent.
    """
    return _relative("top-5 distance", distances, baseline, LARGEST_TOP5_DISTANCE)


def _ranking(logits: ArrayLike) -> np.ndarray:
    """Returns the classes from best to worst, int64 [S, T, K]; equal logits go by class index."""
    scores = np.asarray(logits)
    checks.require(scores.ndim == 3, "logits [S, T, K]", scores.shape)
    checks.require(scores.shape[2] >= TOP, f"at least {TOP} classes", scores.shape[2])
    if not np.isfinite(scores).all():
        raise checks.RunError("want finite logits, got NaN or infinity")
    return np.argsort(-scores.astype(np.float64), axis=-1, kind="stable")


def _pairs(frames: np.ndarray, is_noise: bool, difficulty: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the first and the second frames of all pairs: [S, 1 or P, ...] and [S, P, ...]."""
    checks.require(difficulty >= 1, "difficulty of 1 or more", difficulty)
    step = 1 if is_noise else difficulty
    count = frames.shape[1]
    checks.require(count > step, f"sequences of {step + 1} or more frames", count)
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
    checks.require(bool(inside.all()), f"{what} of 0 to {largest:g}", values[~inside][:1])
    return values


def _relative(
    what: str, table: Mapping[str, float], baseline: Mapping[str, float], largest: float
) -> float:
    ours = _values(what, table, baseline, largest)
    theirs = _values(f"baseline {what}", baseline, baseline, largest)
    checks.require(bool((theirs > 0.0).all()), f"baseline {what} above 0", theirs.min())
    return float(100.0 * np.mean(ours / theirs))
