"""Calibration: how far a model's confidence is from its accuracy.

`confidence`, float [N] from 0 to 1, is the probability of the predicted class, `correct`, bool or
0/1 [N], whether the prediction is correct (`classification.top1_confidence` returns both). All
values are fractions. Shapes or values that do not fit, and N = 0, are `ArgumentError`s.

The order of the examples does not matter: where several have the same confidence, each counts with
the mean of their `correct`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize

from augmix_tf import errors
from augmix_tf.metrics import classification

# A fitted temperature is at most this many times larger or smaller than the logits' deviation.
TEMPERATURE_RANGE = 100.0
# A float32 softmax can exceed one by this much.
ROUNDING = 1e-5
BINS = 15


def rms_calibration_error(
    confidence: ArrayLike, correct: ArrayLike, bin_size: int = 100, drop_last_bin: bool = False
) -> float:
    """Root mean square (RMS) calibration error over bins with equally many examples, 0 to 1.

        sqrt(sum_b (n_b / n) (mean confidence in b - mean correct in b)^2)

    Examples are sorted by confidence and cut into n // bin_size consecutive bins; the last, most
    confident bin takes the remainder. Fewer examples than `bin_size` make one bin.
    `drop_last_bin` omits the last bin's term but still divides by n, as the authors' public code;
    it needs at least two bins.

    Source: Hendrycks, Mazeika, Dietterich, Deep Anomaly Detection with Outlier Exposure, ICLR
    2019; adaptive bins after Nguyen and O'Connor, EMNLP 2015.

    >>> confidence, correct = [0.9, 0.9, 0.6, 0.6], [1, 1, 1, 0]
    >>> round(rms_calibration_error(confidence, correct, bin_size=2), 3)  # gaps 0.1 and 0.1
    0.1
    """
    confidence, correct = _checked(confidence, correct)
    errors.require(bin_size >= 1, "bins of at least one example", bin_size)
    count = len(confidence)
    enough = count >= 2 * bin_size or not drop_last_bin
    errors.require(enough, f"{2 * bin_size} or more examples to drop the last bin", count)
    confidence, correct = _sorted(confidence, correct)
    starts = np.arange(max(count // bin_size, 1)) * bin_size
    counts = np.diff(np.append(starts, count))
    gaps = np.add.reduceat(confidence - correct, starts) / counts
    terms = counts / count * gaps**2
    return math.sqrt(terms[:-1].sum() if drop_last_bin else terms.sum())


def expected_calibration_error(
    confidence: ArrayLike, correct: ArrayLike, bins: int = BINS
) -> float:
    """Expected calibration error (ECE) over bins of equal width, 0 to 1.

        sum_b (n_b / n) |mean correct in b - mean confidence in b|,  bin b = (b/bins, (b+1)/bins]

    A confidence of 0 belongs to the first bin; empty bins contribute nothing.

    Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017 (arXiv 1706.04599).

    >>> round(expected_calibration_error([0.9, 0.9, 0.6, 0.6], [1, 1, 0, 0]), 3)  # gaps 0.1, 0.6
    0.35
    """
    confidence, correct = _checked(confidence, correct)
    errors.require(bins >= 1, "at least one bin", bins)
    inner_edges = np.arange(1, bins) / bins
    index = np.searchsorted(inner_edges, confidence, side="left")
    # n_b |mean difference in b| = |sum of differences in b|: empty bins need no care.
    sums = np.bincount(index, weights=confidence - correct, minlength=bins)
    return float(np.abs(sums).sum() / len(confidence))


@dataclass(frozen=True)
class ReliabilityBin:
    """One bin of a reliability diagram: mean confidence and accuracy of `count` images."""

    confidence: float | None  # None: an empty bin of an older file
    accuracy: float | None
    count: int


def reliability_bins(confidence: np.ndarray, correct: np.ndarray) -> list[ReliabilityBin]:
    """Returns the bins of a reliability diagram that are not empty, of 15 of equal width."""
    index = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    return [
        ReliabilityBin(
            confidence=float(confidence[index == b].mean()),
            accuracy=float(correct[index == b].mean()),
            count=int((index == b).sum()),
        )
        for b in np.unique(index)
    ]


def pool_bins(diagrams: Iterable[Sequence[ReliabilityBin]]) -> list[ReliabilityBin]:
    """Returns the reliability diagram of all images of several diagrams of `reliability_bins`."""
    sums: dict[int, np.ndarray] = {}
    for entry in (entry for bins in diagrams for entry in bins):
        if entry.count > 0 and entry.confidence is not None and entry.accuracy is not None:
            index = min(max(math.ceil(entry.confidence * BINS), 1), BINS)
            row = entry.count * np.array([entry.confidence, entry.accuracy, 1.0])
            sums[index] = sums.get(index, 0.0) + row
    return [
        ReliabilityBin(float(confidence / count), float(accuracy / count), int(count))
        for _, (confidence, accuracy, count) in sorted(sums.items())
    ]


def aurra(confidence: ArrayLike, correct: ArrayLike) -> float:
    """Area under the response rate accuracy curve (AURRA), 0 to 1, higher is better.

    The mean over n = 1..N of the accuracy on the n most confident examples: the accuracy of a model
    that may abstain when it is not confident.

    Source: Hendrycks et al., Natural Adversarial Examples, CVPR 2021 (arXiv 1907.07174).
    """
    _, correct = _sorted(*_checked(confidence, correct))
    right = np.cumsum(correct[::-1])
    return float((right / np.arange(1, len(right) + 1)).mean())


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """Temperature T > 0 that minimizes the negative log-likelihood of softmax(logits / T).

    Fit it on held-out images, logits float [N, K] and labels int [N], then divide all logits by it:
    predictions stay the same, confidence changes. T is proportional to the logits.

    The search covers 1/100 to 100 times the standard deviation of the logits within a row, so T is
    bounded where no minimum exists (all predictions correct: 0; worse than chance: infinity). It is
    1 where all logits of each row are equal.

    Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017, section 4.2.
    """
    scores, classes = classification.checked_logits(logits, labels)
    errors.require(len(classes) > 0, "at least one example", 0)
    # In units of the standard deviation the search is the same for logits of any scale. Dividing
    # by the largest logit first keeps the squares from overflowing.
    scores = scores - scores.max(axis=1, keepdims=True)
    largest = np.abs(scores).max()
    if largest == 0.0:
        return 1.0
    spread = float(largest * np.sqrt((scores / largest).var(axis=1).mean()))
    scores = scores / spread

    def loss(log_temperature: float) -> float:
        return classification.negative_log_likelihood(scores / math.exp(log_temperature), classes)

    bound = math.log(TEMPERATURE_RANGE)
    # The loss is convex in 1/T, so it has a single minimum in ln T.
    best = optimize.minimize_scalar(
        loss, bounds=(-bound, bound), method="bounded", options={"xatol": 1e-7}
    )
    return spread * math.exp(best.x)


def _sorted(confidence: np.ndarray, correct: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns both by rising confidence, and for equal confidences the mean of `correct`."""
    values, group, counts = np.unique(confidence, return_inverse=True, return_counts=True)
    accuracy = np.bincount(group, weights=correct) / counts
    return np.repeat(values, counts), np.repeat(accuracy, counts)


def _checked(confidence: ArrayLike, correct: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Returns both as float64 [N], checked: N > 0, 0 to 1 and 0 or 1."""
    sure, right = np.asarray(confidence, np.float64), np.asarray(correct, np.float64)
    errors.require(sure.ndim == 1 and sure.size > 0, "confidence [N], N of 1 or more", sure.shape)
    errors.require(right.shape == sure.shape, f"correct {list(sure.shape)}", right.shape)
    # Written so that NaN fails too.
    inside = (sure >= 0.0) & (sure <= 1.0 + ROUNDING)
    errors.require(bool(inside.all()), "confidence of 0 to 1", sure[~inside][:1])
    binary = (right == 0.0) | (right == 1.0)
    errors.require(bool(binary.all()), "correct of 0 or 1", right[~binary][:1])
    return np.minimum(sure, 1.0), right
