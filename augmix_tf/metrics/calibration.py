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
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize

from augmix_tf import errors
from augmix_tf.metrics import classification
from augmix_tf.metrics.uncertainty import STANDARD_ERRORS, Interval, mean_interval

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
    bins, count = _equal_bins(confidence, correct, bin_size), np.size(confidence)
    enough = count >= 2 * bin_size or not drop_last_bin
    errors.require(enough, f"{2 * bin_size} or more examples to drop the last bin", count)
    terms = bins.shares * bins.gaps**2
    return math.sqrt(terms[:-1].sum() if drop_last_bin else terms.sum())


def rms_noise_floor(confidence: ArrayLike, bin_size: int = 100) -> float:
    """RMS calibration error that a perfectly calibrated network with these confidences measures.

        sqrt(sum_b (n_b / n) mean over b of c (1 - c) / n_b)

    The root of the expected squared error where each prediction is correct with probability c, its
    confidence. With bins of 100 it is about 4.6 % at confidence 0.7 however many images there are;
    an RMS calibration error near it says that no error is seen, not that there is one.
    """
    bins = _equal_bins(confidence, np.zeros(np.shape(confidence)), bin_size)
    return math.sqrt((bins.shares * bins.calibrated_variance).sum())


def debiased_rms_calibration_error(
    confidence: ArrayLike, correct: ArrayLike, bin_size: int = 100
) -> float:
    """RMS calibration error without the part that noise adds, 0 to 1.

        sqrt(max(0, sum_b (n_b / n) (gap_b^2 - a_b (1 - a_b) / (n_b - 1)))),  a_b the accuracy in b

    Apart from the cut at 0 its square is unbiased where accuracy is constant within each bin.

    Source: Kumar, Liang, Ma, Verified Uncertainty Calibration, NeurIPS 2019 (arXiv 1909.10155).
    """
    bins = _equal_bins(confidence, correct, bin_size)
    return math.sqrt(max(0.0, (bins.shares * (bins.gaps**2 - bins.variance)).sum()))


def rms_calibration_interval(
    confidence: ArrayLike, correct: ArrayLike, bin_size: int = 100, debiased: bool = False
) -> Interval:
    """95 % interval of the RMS calibration error, measured or debiased.

    The squared error is a weighted sum of squares of gaps that are nearly normal, with variances
    v_b, so its own variance is estimated, without bias, by

        sum_b (n_b / n)^2 (4 gap_b^2 v_b - 2 v_b^2),  at least sum_b (n_b / n)^2 2 v_b^2

    The interval of the measured error contains its noise floor. Both are wider than needed where
    the network is calibrated.
    """
    bins = _equal_bins(confidence, correct, bin_size)
    squared = bins.gaps**2 - (bins.variance if debiased else 0.0)
    spread = np.maximum(
        (bins.shares**2 * (4 * bins.gaps**2 * bins.variance - 2 * bins.variance**2)).sum(),
        (bins.shares**2 * 2 * bins.variance**2).sum(),
    )
    centre, half = (bins.shares * squared).sum(), STANDARD_ERRORS * math.sqrt(spread)
    return Interval(*(math.sqrt(max(0.0, bound)) for bound in (centre - half, centre + half)))


def overconfidence(confidence: ArrayLike, correct: ArrayLike) -> float:
    """Mean confidence - accuracy: above 0 overconfident, below 0 underconfident.

    Errors of opposite sign cancel: 0 does not say that a network is calibrated.

    >>> overconfidence([0.75, 1.0], [1, 0])
    0.375
    """
    confidence, correct = _checked(confidence, correct)
    return float(confidence.mean() - correct.mean())


def overconfidence_interval(confidence: ArrayLike, correct: ArrayLike) -> Interval:
    """95 % interval of `overconfidence`, by its standard error."""
    confidence, correct = _checked(confidence, correct)
    return mean_interval(confidence - correct)


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


class _EqualBins(NamedTuple):
    """Bins of `rms_calibration_error`, arrays [bins]."""

    shares: np.ndarray  # of all examples; their sum is 1
    gaps: np.ndarray  # mean confidence - mean correct
    # Of the mean of `correct` in a bin: as estimated, and of a perfectly calibrated network.
    variance: np.ndarray
    calibrated_variance: np.ndarray


def _equal_bins(confidence: ArrayLike, correct: ArrayLike, bin_size: int) -> _EqualBins:
    errors.require(bin_size >= 1, "bins of at least one example", bin_size)
    confidence, correct = _sorted(*_checked(confidence, correct))
    starts = np.arange(max(len(confidence) // bin_size, 1)) * bin_size
    counts = np.diff(np.append(starts, len(confidence)))

    def mean(values: np.ndarray) -> np.ndarray:
        return np.add.reduceat(values, starts) / counts

    # Examples of the same confidence share their mean of `correct`, which varies less the more of
    # them are in other bins: by the share of them that is in this one.
    is_start = np.diff(confidence, prepend=-1.0) > 0
    group = np.cumsum(is_start) - 1
    is_start[starts] = True
    piece = np.cumsum(is_start) - 1
    inside = np.bincount(piece)[piece] / np.bincount(group)[group]
    accuracy = mean(correct)
    return _EqualBins(
        shares=counts / len(confidence),
        gaps=mean(confidence - correct),
        # A bin of one example has no variance to estimate.
        variance=accuracy * (1 - accuracy) * mean(inside) / np.maximum(counts - 1, 1),
        calibrated_variance=mean(confidence * (1 - confidence) * inside) / counts,
    )


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
