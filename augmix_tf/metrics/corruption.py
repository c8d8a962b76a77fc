"""Errors on corrupted images (the -C benchmarks). Two metrics share the name "mCE":

- CIFAR-10-C and CIFAR-100-C: `unnormalized_corruption_error`, a plain mean of errors, a fraction.
- ImageNet-C: `alexnet_corruption_error`, the mean of each corruption's error divided by AlexNet's.

Errors are given as corruption -> errors at its severities, as fractions (0 to 1); a single number
is taken as the mean over severities. Metrics relative to a baseline network are percentages of
that network, as published: 100 equals the baseline, lower is better.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from augmix_tf.errors import ArgumentError, require, unknown_name
from augmix_tf.robustness import ALEXNET_CLEAN_ERROR, ALEXNET_ERRORS, CORRUPTIONS

Errors = Mapping[str, ArrayLike]


def mean_corruption_error(errors: Errors, baseline: Errors | None = None) -> float:
    """Mean over corruptions of the mean error over severities, plain or relative to a baseline.

        plain:     (1/C) sum_c mean_s E[c, s]
        relative:  (100/C) sum_c (mean_s E[c, s] / mean_s B[c, s])

    The mean is over the keys of `errors`, which must be those of `baseline`. For the published
    metrics over all 15 corruptions use `unnormalized_corruption_error` or
    `alexnet_corruption_error`.

    Args:
        errors: corruption -> errors at its severities, float [S] or one float, 0 to 1.
        baseline: errors of the baseline network, such as `ALEXNET_ERRORS`, above 0.

    Returns:
        A fraction, 0 to 1, without a baseline; a percentage of the baseline's error with one.

    Raises:
        ArgumentError: missing, extra or unknown names; no errors; errors out of range.

    >>> errors = {"fog": [0.1, 0.3], "snow": [0.5, 0.7]}
    >>> round(mean_corruption_error(errors), 3)
    0.4
    >>> round(mean_corruption_error(errors, baseline={"fog": 0.4, "snow": 0.6}), 3)  # 50 and 100 %
    75.0
    """
    if baseline is None:
        return float(np.mean(_severity_means("error", errors, errors)))
    ours = _severity_means("error", errors, baseline)
    return float(100.0 * np.mean(ours / _baseline_means(baseline)))


def unnormalized_corruption_error(errors: Errors, names: Iterable[str] = CORRUPTIONS) -> float:
    """Mean corruption error as published for CIFAR-10-C and CIFAR-100-C.

    The mean over corruptions of the mean over severities. It has no baseline, so it is not
    comparable with the mCE of ImageNet-C.

    Args:
        errors: corruption -> errors at its severities, float [S] or one float, 0 to 1.
        names: the corruptions that `errors` must have; the 15 of the benchmark by default.

    Returns:
        A fraction, 0 to 1.

    Raises:
        ArgumentError: missing, extra or unknown names; errors out of range.

    Source: Hendrycks et al., AugMix, ICLR 2020 (arXiv 1912.02781), section 4.1.
    """
    return float(np.mean(_severity_means("error", errors, names)))


def alexnet_corruption_error(errors: Errors) -> float:
    """Mean corruption error relative to AlexNet (mCE), as published for ImageNet-C.

        mCE = (100/15) sum_c (mean_s E[c, s] / mean_s AlexNet[c, s])

    Args:
        errors: each of the 15 corruptions -> errors at its severities, 0 to 1.

    Returns:
        A percentage of AlexNet's error.

    Raises:
        ArgumentError: missing, extra or unknown names; errors out of range.

    Source: Hendrycks and Dietterich, ICLR 2019 (arXiv 1903.12261), section 4.
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

    Args:
        errors: corruption -> errors at its severities, float [S] or one float, 0 to 1.
        clean_error: error on clean images, 0 to 1.
        baseline: errors of the baseline network, in the form of `errors`.
        baseline_clean_error: its error on clean images, below all means of `baseline`.

    Returns:
        A percentage of the baseline's increase.

    Raises:
        ArgumentError: missing, extra or unknown names; errors out of range.

    Source: Hendrycks and Dietterich, ICLR 2019 (arXiv 1903.12261), section 4.
    """
    require(0.0 <= clean_error <= 1.0, "clean error of 0 to 1", clean_error)
    added = _severity_means("error", errors, baseline) - clean_error
    baseline_added = _baseline_means(baseline) - baseline_clean_error
    require(
        bool((baseline_added > 0.0).all()),
        "baseline errors above the baseline's clean error",
        baseline_added.min() + baseline_clean_error,
    )
    return float(100.0 * np.mean(added / baseline_added))


@dataclass(frozen=True)
class CorruptionErrors:
    """Errors on a -C benchmark, from which its metrics are computed.

    Attributes:
        errors: corruption -> errors at its severities, of those of the 15 that were evaluated.
        clean_error: error on the clean images, None where it is not known.
        classes: number of classes of the model.
    """

    errors: Errors
    clean_error: float | None
    classes: int

    @property
    def complete(self) -> bool:
        """Whether all 15 corruptions were evaluated."""
        return len(self.errors) == len(CORRUPTIONS)


def check_names(kind: str, given: Iterable[str], wanted: Iterable[str]) -> None:
    """Checks that `given` holds exactly the names `wanted`, in any order.

    Raises:
        ArgumentError: an unknown name (the message has the nearest one) or missing names.
    """
    names, needed = list(given), list(wanted)
    require(bool(needed), f"at least one {kind}", "none")
    for name in names:
        if name not in needed:
            raise ArgumentError(unknown_name(kind, name, needed))
    missing = [name for name in needed if name not in names]
    require(
        not missing,
        f"every {kind} of {', '.join(needed)}",
        f"{len(names)} of {len(needed)} without {', '.join(missing)}",
    )


def _severity_means(kind: str, errors: Errors, names: Iterable[str]) -> np.ndarray:
    """Mean over severities of each of `names`, float64 [C]."""
    wanted = list(names)
    check_names("corruption", errors, wanted)
    return np.array([_mean(f"{kind} on {name}", errors[name]) for name in wanted])


def _baseline_means(baseline: Errors) -> np.ndarray:
    means = _severity_means("baseline error", baseline, baseline)
    require(bool((means > 0.0).all()), "baseline errors above 0", means.min())
    return means


def _mean(what: str, values: ArrayLike) -> float:
    cells = np.atleast_1d(np.asarray(values, np.float64))
    require(cells.ndim == 1 and cells.size > 0, f"{what} [severities] or one number", cells.shape)
    inside = (cells >= 0.0) & (cells <= 1.0)
    require(bool(inside.all()), f"{what} of 0 to 1 (a fraction)", cells[~inside][:1])
    return float(cells.mean())
