"""Error, negative log likelihood and Brier score, from logits, in float64.

Errors and probabilities are fractions (0 to 1), never per cent. `ClassificationSums` holds sums
and a count and divides once, at the end, so that a smaller last batch weighs what it should.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from augmix_tf import checks

# Rows of bfloat16 or float16 probabilities miss a sum of one by up to this much.
SUM_TOLERANCE = 1e-2


@dataclass(frozen=True)
class ClassificationSums:
    """Sums over examples: those of two disjoint sets add up to those of their union.

    >>> first = ClassificationSums.empty().update([[2.0, 0.0], [0.0, 1.0]], [0, 0])
    >>> second = ClassificationSums.empty().update([[0.0, 3.0]], [1])
    >>> first.merge(second).compute()["error"]
    0.3333333333333333
    """

    count: int = 0
    wrong: int = 0
    nll_sum: float = 0.0
    brier_sum: float = 0.0

    @classmethod
    def empty(cls) -> ClassificationSums:
        """Returns the sums over no example."""
        return cls()

    def update(self, logits: ArrayLike, labels: ArrayLike) -> ClassificationSums:
        """Returns these sums with a batch added.

        Args:
            logits: float [N, K], finite; N may be 0.
            labels: int [N], 0 to K - 1.

        Raises:
            CommandError: shapes or labels do not fit.
            RunError: a logit is NaN or infinite.
        """
        scores, classes = checked_logits(logits, labels)
        log_p = log_softmax(scores)
        wrong = scores.argmax(axis=1) != classes
        batch = ClassificationSums(
            count=len(classes),
            wrong=int(wrong.sum()),
            nll_sum=float(-_of_label(log_p, classes).sum()),
            brier_sum=float(_brier(np.exp(log_p), classes).sum()),
        )
        return self.merge(batch)

    def merge(self, other: ClassificationSums) -> ClassificationSums:
        """Returns the sums over the examples of both."""
        return ClassificationSums(
            count=self.count + other.count,
            wrong=self.wrong + other.wrong,
            nll_sum=self.nll_sum + other.nll_sum,
            brier_sum=self.brier_sum + other.brier_sum,
        )

    def compute(self) -> dict[str, float]:
        """Returns the means: `error` (0..1), `nll` (nats), `brier` (0..2).

        Raises:
            CommandError: there was no example.
        """
        checks.require(self.count > 0, "at least one example", self.count)
        return {
            "error": self.wrong / self.count,
            "nll": self.nll_sum / self.count,
            "brier": self.brier_sum / self.count,
        }


def error_rate(logits: ArrayLike, labels: ArrayLike) -> float:
    """Share of examples whose highest logit is not the label's; of equal logits the first counts.

    Args:
        logits: float [N, K]; probabilities do as well.
        labels: int [N], 0 to K - 1.

    Returns:
        0 to 1.

    Raises:
        CommandError: shapes or labels do not fit, or N = 0.
        RunError: a logit is NaN or infinite.
    """
    return ClassificationSums.empty().update(logits, labels).compute()["error"]


def negative_log_likelihood(logits: ArrayLike, labels: ArrayLike) -> float:
    """Mean over examples of -ln p(label), p = softmax(logits), in nats, 0 or more.

    Arguments and errors as for `error_rate`.
    """
    return ClassificationSums.empty().update(logits, labels).compute()["nll"]


def brier_score(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Mean over examples of the squared distance between probabilities and the one-hot label.

        Brier = (1/N) sum_n sum_k (p_nk - [k = label_n])^2

    Between 0 (sure and right) and 2 (sure and wrong): the sum over classes, not their mean.

    Args:
        probabilities: float [N, K], rows sum to 1.
        labels: int [N], 0 to K - 1.

    Raises:
        CommandError: shapes or labels do not fit, N = 0, or rows are no distributions.
        RunError: a probability is NaN or infinite.

    Source: Brier, Monthly Weather Review 78, 1950.

    >>> brier_score([[1.0, 0.0], [0.5, 0.5]], [0, 0])  # 0 and 0.5^2 + 0.5^2
    0.25
    """
    p, classes = checked_logits(probabilities, labels)
    checks.require(len(p) > 0, "at least one example", 0)
    lowest, sums = p.min(), p.sum(axis=1)
    checks.require(lowest >= 0.0, "probabilities of 0 or more", lowest)
    off = sums[np.abs(sums - 1.0).argmax()]
    checks.require(abs(off - 1.0) <= SUM_TOLERANCE, "probabilities with sum 1 in each row", off)
    return float(_brier(p, classes).mean())


def log_softmax(logits: ArrayLike) -> np.ndarray:
    """ln softmax over the last axis, float64, finite for finite logits of any size."""
    scores = np.asarray(logits, np.float64)
    # With the largest score at zero no exponential overflows and their sum is at least one.
    scores = scores - scores.max(axis=-1, keepdims=True)
    return scores - np.log(np.exp(scores).sum(axis=-1, keepdims=True))


def top1_confidence(logits: ArrayLike, labels: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Probability of the class a model answers, and whether that answer is right.

    Args:
        logits: float [N, K], finite.
        labels: int [N], 0 to K - 1.

    Returns:
        confidence float64 [N], 1/K to 1; correct bool [N].

    Raises:
        CommandError, RunError: as for `ClassificationSums.update`.
    """
    scores, classes = checked_logits(logits, labels)
    answers = scores.argmax(axis=1)
    return np.exp(_of_label(log_softmax(scores), answers)), answers == classes


def checked_logits(logits: ArrayLike, labels: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Returns scores float64 [N, K] and labels int64 [N] that belong together, or refuses."""
    scores, classes = np.asarray(logits, np.float64), np.asarray(labels)
    checks.require(scores.ndim == 2 and scores.shape[1] > 0, "scores [N, K]", scores.shape)
    checks.require(
        classes.shape == scores.shape[:1], f"{len(scores)} labels, one for each row", classes.shape
    )
    if not np.isfinite(scores).all():
        row = int(np.flatnonzero(~np.isfinite(scores).all(axis=1))[0])
        raise checks.RunError(f"want finite scores, got {scores[row]} in row {row}")
    if classes.size:
        checks.require(
            np.issubdtype(classes.dtype, np.integer), "labels of integers", classes.dtype
        )
        last = scores.shape[1] - 1
        outside = classes[(classes < 0) | (classes > last)]
        checks.require(not outside.size, f"labels of 0 to {last}", outside[:1])
    return scores, classes.astype(np.int64)


def _of_label(values: np.ndarray, classes: np.ndarray) -> np.ndarray:
    return values[np.arange(len(classes)), classes]


def _brier(probabilities: np.ndarray, classes: np.ndarray) -> np.ndarray:
    off = probabilities.copy()
    off[np.arange(len(classes)), classes] -= 1.0
    return (off * off).sum(axis=1)
