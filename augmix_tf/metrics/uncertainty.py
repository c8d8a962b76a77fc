"""How sure a number is: 95 % intervals, and paired tests of two networks on the same images.

Intervals over test images say how much a number of this network would change on other images of the
same kind. They do not contain the variation between training seeds.

`correct` is bool or 0/1 [N], whether the prediction for each image is correct. Counts, shapes and
values that do not fit are `ArgumentError`s.
"""

from __future__ import annotations

import base64
import binascii
import math
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from augmix_tf import errors

LEVEL = 0.95
# Half width of the interval of a normally distributed estimate, in standard errors.
STANDARD_ERRORS = float(special.ndtri((1 + LEVEL) / 2))


class Interval(NamedTuple):
    """A 95 % interval."""

    low: float
    high: float


class McNemar(NamedTuple):
    """McNemar's test: the images that only one of two networks gets right."""

    only_first: int
    only_second: int
    p_value: float  # two-sided, exact


class PairedDifference(NamedTuple):
    """Mean difference of two networks on the same images, with its 95 % interval."""

    difference: float
    low: float
    high: float


@dataclass(frozen=True)
class Outcomes:
    """Which images of a set a network gets right, in the order of the set."""

    images: int
    labels: str  # checksum of the labels; equal ones are taken for the same images
    correct: str  # one bit per image, the first one highest, in base64

    def __post_init__(self) -> None:
        try:
            size = len(base64.b64decode(self.correct, validate=True))
        except binascii.Error as error:
            raise errors.ArgumentError(f"Expected outcomes in base64 ({error}).") from error
        expected = f"outcomes of {self.images} images"
        errors.require(size == -(-self.images // 8), expected, f"{size} bytes")

    @classmethod
    def of(cls, correct: np.ndarray, labels: np.ndarray) -> Outcomes:
        """Returns the outcomes `correct`, bool [N], of images with these labels, int [N]."""
        bits = base64.b64encode(np.packbits(correct).tobytes()).decode()
        checksum = zlib.crc32(np.asarray(labels, "<i8").tobytes())
        return cls(len(correct), f"{checksum:08x}", bits)

    @property
    def is_correct(self) -> np.ndarray:
        """Whether the prediction for each image is correct, bool [N]."""
        packed = np.frombuffer(base64.b64decode(self.correct), np.uint8)
        return np.unpackbits(packed, count=self.images).astype(bool)

    def same_images(self, other: Outcomes) -> bool:
        """Whether these are outcomes of the same images in the same order."""
        return (self.images, self.labels) == (other.images, other.labels)


def errors_per_image(outcomes: Iterable[Outcomes | None]) -> np.ndarray | None:
    """Mean error of each image over several sets that show the same images, float [N].

    None where outcomes are missing or are of other images.
    """
    known: list[Outcomes] = []
    for entry in outcomes:
        if entry is None or (known and not entry.same_images(known[0])):
            return None
        known.append(entry)
    if not known:
        return None
    return 1.0 - np.mean([entry.is_correct for entry in known], axis=0)


def wilson_interval(wrong: int, count: int) -> Interval:
    """95 % interval of an error of `wrong` out of `count` images (Wilson's score interval).

        (p + z^2/2n -+ z sqrt(p (1 - p) / n + z^2/4n^2)) / (1 + z^2/n),  p = wrong / n, z = 1.96

    Within 0 to 1, and of positive width also where none or all are wrong.

    Source: Wilson, Journal of the American Statistical Association 22, 1927.

    >>> low, high = wilson_interval(5, 100)
    >>> round(low, 3), round(high, 3)
    (0.022, 0.112)
    """
    errors.require(count >= 1, "at least one image", count)
    errors.require(0 <= wrong <= count, f"0 to {count} wrong predictions", wrong)
    z2 = STANDARD_ERRORS**2
    centre = wrong + z2 / 2
    half = STANDARD_ERRORS * math.sqrt(wrong * (count - wrong) / count + z2 / 4)
    low, high = ((centre + side * half) / (count + z2) for side in (-1, 1))
    return Interval(max(0.0, low), min(1.0, high))


def mean_interval(values: ArrayLike) -> Interval:
    """95 % interval of the mean of N values, one per image or one per seed, by Student's t.

        mean -+ t s / sqrt(N),  s the sample standard deviation, t = 12.7 (N = 2), 4.3, ..., 1.96

    Of corruption errors the value of an image is its mean over corruptions and severities, because
    the cells of a benchmark show the same images. N is 2 or more.
    """
    numbers = _checked(values)
    errors.require(len(numbers) > 1, "2 or more values", len(numbers))
    mean = float(numbers.mean())
    quantile = float(special.stdtrit(len(numbers) - 1, (1 + LEVEL) / 2))
    half = quantile * float(numbers.std(ddof=1)) / math.sqrt(len(numbers))
    return Interval(mean - half, mean + half)


def mcnemar(first_correct: ArrayLike, second_correct: ArrayLike) -> McNemar:
    """Tests whether two networks have the same error, on the same images in the same order.

    Only images that one network gets right and the other wrong count. If both networks are equally
    good, each such image favours either of them with probability 1/2: the p-value is that of the
    exact binomial test.

    Source: McNemar, Psychometrika 12, 1947; Dietterich, Neural Computation 10, 1998.

    >>> mcnemar([1, 1, 1, 1, 0], [0, 0, 0, 1, 1])
    McNemar(only_first=3, only_second=1, p_value=0.625)
    """
    first, second = _pair(first_correct, second_correct)
    only_first = int(((first == 1) & (second == 0)).sum())
    only_second = int(((first == 0) & (second == 1)).sum())
    both = only_first + only_second
    p_value = min(1.0, 2.0 * float(special.bdtr(min(only_first, only_second), both, 0.5)))
    return McNemar(only_first, only_second, p_value)


def paired_bootstrap(
    first: ArrayLike, second: ArrayLike, draws: int = 5000, seed: int = 0
) -> PairedDifference:
    """Mean of `first` - `second` over images, with a bootstrap interval (percentiles).

    Both are float [N], one value per image in the same order, such as the mean error of each image
    over corruptions and severities. Images are drawn with replacement; both networks are compared
    on the same draws. Equal arguments give equal results.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.
    """
    errors.require(draws >= 1, "at least one draw", draws)
    ours, theirs = _pair(first, second)
    # Few differences are distinct, so their counts are drawn instead of the images themselves.
    # The rounding makes equal the sums of equal numbers in another order.
    values, counts = np.unique(np.round(ours - theirs, 12), return_counts=True)
    random = np.random.default_rng(seed)
    shares = counts / len(ours)
    means = [random.multinomial(len(ours), shares) @ values / len(ours) for _ in range(draws)]
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return PairedDifference(float((ours - theirs).mean()), float(low), float(high))


def _pair(first: ArrayLike, second: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    ours, theirs = _checked(first), _checked(second)
    errors.require(len(ours) == len(theirs), f"{len(ours)} values as of the other", len(theirs))
    return ours, theirs


def _checked(values: ArrayLike) -> np.ndarray:
    numbers = np.asarray(values, np.float64)
    valid = numbers.ndim == 1 and numbers.size > 0
    errors.require(valid, "values [N], N of 1 or more", numbers.shape)
    errors.require(bool(np.isfinite(numbers).all()), "finite values", "NaN or infinity")
    return numbers
