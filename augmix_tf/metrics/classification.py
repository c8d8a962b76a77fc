"""Error, negative log-likelihood and Brier score, from logits, in float64.

Logits are float [N, K], labels int [N], 0 to K - 1; errors and probabilities are fractions, 0 to 1.
Shapes or labels that do not fit, N = 0 and K = 1 are `ArgumentError`s; a logit that is NaN or
infinite is a `RunError`. `ClassificationSums` keeps sums and a count and divides once at the end,
so that a smaller last batch has the right weight.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import astuple, dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from augmix_tf import errors

# Rows of bfloat16 or float16 probabilities miss a sum of one by up to this much.
SUM_TOLERANCE = 1e-2
# Logits that are worked on together.
VALUES_PER_BATCH = 2**22


@dataclass(frozen=True)
class ClassificationSums:
    """Sums over examples; sums of disjoint sets of examples can be merged.

    >>> first = ClassificationSums().update([[2.0, 0.0], [0.0, 1.0]], [0, 0])
    >>> second = ClassificationSums().update([[0.0, 3.0]], [1])
    >>> first.merge(second).compute()["error"]
    0.3333333333333333
    """

    count: int = 0
    wrong: int = 0
    nll_sum: float = 0.0
    brier_sum: float = 0.0

    def update(self, logits: ArrayLike, labels: ArrayLike) -> ClassificationSums:
        """Returns these sums with a batch added; N may be 0."""
        values = _per_example(*checked_logits(logits, labels))
        batch = ClassificationSums(
            count=len(values["error"]),
            wrong=int(values["error"].sum()),
            nll_sum=float(values["nll"].sum()),
            brier_sum=float(values["brier"].sum()),
        )
        return self.merge(batch)

    def merge(self, other: ClassificationSums) -> ClassificationSums:
        return ClassificationSums(*map(operator.add, astuple(self), astuple(other)))

    def compute(self) -> dict[str, float]:
        """Returns the means: `error` (0..1), `nll` (nats), `brier` (0..2)."""
        errors.require(self.count > 0, "at least one example", self.count)
        return {
            "error": self.wrong / self.count,
            "nll": self.nll_sum / self.count,
            "brier": self.brier_sum / self.count,
        }


class Predictions:
    """Logits of labelled images, with what most metrics are computed from.

    `per_image` has `error` (0 or 1), `nll` (nats) and `brier` (0..2), float64 [M], and `means`
    their means; `confidence`, float64 [M], is the probability of the predicted class, `correct`,
    bool [M], whether it is the label. A temperature divides the logits.
    """

    def __init__(
        self, logits: ArrayLike, labels: ArrayLike, temperature: float | None = None
    ) -> None:
        if temperature is not None:
            errors.require(temperature > 0.0, "temperature above 0", temperature)
        self._logits, self._labels = np.asarray(logits), np.asarray(labels)
        self._temperature = temperature
        parts = [_per_example(*checked_logits(*batch)) for batch in self.batches()]
        self.per_image = {n: np.concatenate([part[n] for part in parts]) for n in parts[0]}
        self.confidence = self.per_image.pop("confidence")
        errors.require(len(self.per_image["error"]) > 0, "at least one example", 0)
        self.means = {name: float(column.mean()) for name, column in self.per_image.items()}
        self.correct = self.per_image["error"] == 0.0

    def batches(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields all logits, divided by the temperature, and labels: [m, K] and [m] at a time."""
        # In float64 the logits of ImageNet, and every array computed from them, are 400 MB.
        count = max(1, -(-self._logits.size // VALUES_PER_BATCH))
        parts = (np.array_split(array, count) for array in (self._logits, self._labels))
        for logits, labels in zip(*parts, strict=True):
            if self._temperature is not None:
                logits = np.asarray(logits, np.float64) / self._temperature
            yield logits, labels


def error_rate(logits: ArrayLike, labels: ArrayLike) -> float:
    """Fraction of examples whose predicted class is not the label, 0 to 1.

    The predicted class is the one with the highest logit (or probability), the first of equal ones.
    """
    return ClassificationSums().update(logits, labels).compute()["error"]


def negative_log_likelihood(logits: ArrayLike, labels: ArrayLike) -> float:
    """Mean over examples of -ln p(label), p = softmax(logits), in nats, at least 0."""
    return ClassificationSums().update(logits, labels).compute()["nll"]


def brier_score(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Mean over examples of the squared distance between probabilities and the one-hot label.

        Brier = (1/N) sum_n sum_k (p_nk - [k = label_n])^2

    Between 0 (certain and correct) and 2 (certain and wrong): a sum over classes, not a mean. The
    rows of `probabilities` sum to 1.

    Source: Brier, Monthly Weather Review 78, 1950.

    >>> brier_score([[1.0, 0.0], [0.5, 0.5]], [0, 0])  # 0 and 0.5^2 + 0.5^2
    0.25
    """
    p, classes = checked_logits(probabilities, labels)
    errors.require(len(p) > 0, "at least one example", 0)
    lowest, sums = p.min(), p.sum(axis=1)
    errors.require(lowest >= 0.0, "probabilities of 0 or more", lowest)
    off = sums[np.abs(sums - 1.0).argmax()]
    errors.require(abs(off - 1.0) <= SUM_TOLERANCE, "probabilities with sum 1 in each row", off)
    return float(_brier(p, classes).mean())


def log_softmax(logits: ArrayLike) -> np.ndarray:
    """ln softmax over the last axis, float64, finite for finite logits of any size."""
    return special.log_softmax(np.asarray(logits, np.float64), axis=-1)


def top1_confidence(logits: ArrayLike, labels: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Probability of the predicted class, float64 [N], and whether it is the label, bool [N]."""
    values = _per_example(*checked_logits(logits, labels))
    return values["confidence"], values["error"] == 0.0


def checked_logits(logits: ArrayLike, labels: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Returns scores float64 [N, K] and labels int64 [N], checked."""
    scores, classes = np.asarray(logits, np.float64), np.asarray(labels)
    errors.require(scores.ndim == 2, "scores [N, K]", scores.shape)
    errors.require(scores.shape[1] > 1, "scores of at least 2 classes", scores.shape[1])
    errors.require(
        classes.shape == scores.shape[:1], f"{len(scores)} labels, one for each row", classes.shape
    )
    if not np.isfinite(scores).all():
        row = int(np.flatnonzero(~np.isfinite(scores).all(axis=1))[0])
        raise errors.RunError(f"Expected finite scores; received {scores[row]} in row {row}.")
    if classes.size:
        is_integer = np.issubdtype(classes.dtype, np.integer)
        errors.require(is_integer, "labels of integers", classes.dtype)
        last = scores.shape[1] - 1
        outside = classes[(classes < 0) | (classes > last)]
        errors.require(not outside.size, f"labels of 0 to {last}", outside[:1])
    return scores, classes.astype(np.int64)


def _per_example(scores: np.ndarray, classes: np.ndarray) -> dict[str, np.ndarray]:
    """Returns `error`, `nll`, `brier` and `confidence` of each row, float64 [N]."""
    log_p = log_softmax(scores)
    p = np.exp(log_p)
    return {
        "error": (scores.argmax(axis=1) != classes).astype(np.float64),
        "nll": -_of_label(log_p, classes),
        "brier": _brier(p, classes),
        "confidence": p.max(axis=1),
    }


def _of_label(values: np.ndarray, classes: np.ndarray) -> np.ndarray:
    return values[np.arange(len(classes)), classes]


def _brier(probabilities: np.ndarray, classes: np.ndarray) -> np.ndarray:
    off = probabilities.copy()
    off[np.arange(len(classes)), classes] -= 1.0
    return (off * off).sum(axis=1)
