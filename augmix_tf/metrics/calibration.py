"""How far a model's confidence is from how often it is right.

`confidence` is the probability of the answered class, `correct` whether the answer is right
(`classification.top1_confidence` makes both). Everything is a fraction, not per cent.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize

from augmix_tf import checks
from augmix_tf.metrics import classification

# A fitted temperature is at most this many times larger or smaller than the logits' spread.
TEMPERATURE_RANGE = 100.0
# A float32 softmax may come out this much above one.
ROUNDING = 1e-5


def rms_calibration_error(
    confidence: ArrayLike, correct: ArrayLike, bin_size: int = 100, drop_last_bin: bool = False
) -> float:
    """Root mean square calibration error over bins of equally many examples.

        sqrt(sum_b (n_b / n) (mean confidence in b - mean correct in b)^2)

    Examples are sorted by confidence (equal ones keep their order) and cut into n // bin_size
    consecutive bins; the last, most confident one takes the remainder. Fewer examples than
    `bin_size` make a single bin.

    Args:
        confidence: float [N], 0 to 1.
        correct: bool or 0/1 [N].
        bin_size: examples in a bin.
        drop_last_bin: leave the last bin's term out of the sum, still dividing by n, as the
            public code of the metric's authors does.

    Returns:
        0 to 1.

    Raises:
        CommandError: shapes or values do not fit, or N = 0.

    Source: Hendrycks, Mazeika, Dietterich, Deep Anomaly Detection with Outlier Exposure, ICLR
    2019; adaptive bins after Nguyen and O'Connor, EMNLP 2015.

    >>> confidence, correct = [0.9, 0.9, 0.6, 0.6], [1, 1, 1, 0]
    >>> round(rms_calibration_error(confidence, correct, bin_size=2), 3)  # gaps 0.1 and 0.1
    0.1
    """
    confidence, correct = _checked(confidence, correct)
    checks.require(bin_size >= 1, "bins of at least one example", bin_size)
    order = np.argsort(confidence, kind="stable")
    starts = np.arange(max(len(order) // bin_size, 1)) * bin_size
    counts = np.diff(np.append(starts, len(order)))
    gaps = np.add.reduceat((confidence - correct)[order], starts) / counts
    terms = counts / len(order) * gaps**2
    return math.sqrt(terms[:-1].sum() if drop_last_bin else terms.sum())


def expected_calibration_error(confidence: ArrayLike, correct: ArrayLike, bins: int = 15) -> float:
    """Expected calibration error over equally wide bins.

        sum_b (n_b / n) |mean correct in b - mean confidence in b|,  bin b = (b/bins, (b+1)/bins]

    A confidence of 0 counts to the first bin; empty bins count nothing.

    Args:
        confidence: float [N], 0 to 1.
        correct: bool or 0/1 [N].
        bins: number of bins.

    Returns:
        0 to 1.

    Raises:
        CommandError: shapes or values do not fit, or N = 0.

    Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017 (arXiv 1706.04599).

    >>> round(expected_calibration_error([0.9, 0.9, 0.6, 0.6], [1, 1, 0, 0]), 3)  # gaps 0.1, 0.6
    0.35
    """
    confidence, correct = _checked(confidence, correct)
    checks.require(bins >= 1, "at least one bin", bins)
    inner_edges = np.arange(1, bins) / bins
    index = np.searchsorted(inner_edges, confidence, side="left")
    # n_b |mean difference in b| = |sum of differences in b|: empty bins need no care.
    sums = np.bincount(index, weights=confidence - correct, minlength=bins)
    return float(np.abs(sums).sum() / len(confidence))


def aurra(confidence: ArrayLike, correct: ArrayLike) -> float:
    """Area under the response rate accuracy curve.

    The mean over n = 1..N of the accuracy on the n most confident examples (equal confidences
    keep their order): how right a model is that may stay silent when in doubt.

    Args:
        confidence: float [N], 0 to 1.
        correct: bool or 0/1 [N].

    Returns:
        0 to 1, higher is better.

    Raises:
        CommandError: shapes or values do not fit, or N = 0.

    Source: Hendrycks et al., Natural Adversarial Examples, CVPR 2021 (arXiv 1907.07174).
    """
    confidence, correct = _checked(confidence, correct)
    right = np.cumsum(correct[np.argsort(-confidence, kind="stable")])
    return float((right / np.arange(1, len(right) + 1)).mean())


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """The temperature T that minimises the negative log likelihood of softmax(logits / T).

    Fit it on held-out data, then divide all logits by it: answers stay, confidence changes.
    T scales with the logits: c times the logits give c times T.

    The search covers 1/100 to 100 times the logits' standard deviation within a row, so T stays
    bounded where none is best (every answer right: the smaller the better; worse than chance:
    the larger). Where the logits of each row are all equal every T is as good, and it is 1.

    Args:
        logits: float [N, K], finite.
        labels: int [N], 0 to K - 1.

    Returns:
        A number above 0.

    Raises:
        CommandError: shapes or labels do not fit, or N = 0.
        RunError: a logit is NaN or infinite.

    Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017, section 4.2.
    """
    scores, classes = classification.checked_logits(logits, labels)
    checks.require(len(classes) > 0, "at least one example", 0)
    # Working in units of the spread makes the search the same for logits of any size. Scaling by
    # the largest logit first keeps the squares from overflowing.
    scores = scores - scores.max(axis=1, keepdims=True)
    largest = np.abs(scores).max()
    if largest == 0.0:
        return 1.0
    spread = float(largest * np.sqrt((scores / largest).var(axis=1).mean()))
    scores = scores / spread

    def loss(log_temperature: float) -> float:
        return classification.negative_log_likelihood(scores / math.exp(log_temperature), classes)

    bound = math.log(TEMPERATURE_RANGE)
    # The loss is convex in 1/T, so in ln T it has one valley and a bounded search finds it.
    best = optimize.minimize_scalar(
        loss, bounds=(-bound, bound), method="bounded", options={"xatol": 1e-7}
    )
    return spread * math.exp(best.x)


def _checked(confidence: ArrayLike, correct: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Returns both as float64 [N], N > 0, with values they may have, or refuses."""
    sure, right = np.asarray(confidence, np.float64), np.asarray(correct, np.float64)
    checks.require(sure.ndim == 1 and sure.size > 0, "confidence [N], N of 1 or more", sure.shape)
    checks.require(right.shape == sure.shape, f"correct {list(sure.shape)}", right.shape)
    # Written so that NaN fails too.
    inside = (sure >= 0.0) & (sure <= 1.0 + ROUNDING)
    checks.require(bool(inside.all()), "confidence of 0 to 1", sure[~inside][:1])
    binary = (right == 0.0) | (right == 1.0)
    checks.require(bool(binary.all()), "correct of 0 or 1", right[~binary][:1])
    return np.minimum(sure, 1.0), right
