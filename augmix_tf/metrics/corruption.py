"""Errors on corrupted pictures (the -C benchmarks): two quantities that share the name "mCE".

- CIFAR-10-C and CIFAR-100-C: `unnormalized_corruption_error`, a plain mean of errors, a fraction.
- ImageNet-C: `alexnet_corruption_error`, each corruption's error as a percentage of AlexNet's
  before the mean is taken.

Errors go in as a mapping from corruption to the errors of its severities, as fractions (0 to 1);
one number stands for a mean over severities. What comes out relative to a baseline network is in
per cent of that network, as published: 100 is as good as the baseline, lower is better.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import ArrayLike

from augmix_tf import checks

Errors = Mapping[str, ArrayLike]

# AlexNet's top-1 error on ImageNet-C, mean over the five severities, in the canonical order.
# Source: Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common Corruptions
# and Perturbations, ICLR 2019; digits as in the public ImageNet script of AugMix
# (google-research/augmix, imagenet.py, commit 9b9824c).
ALEXNET_ERRORS: dict[str, float] = {
    "gaussian_noise": 0.886428,
    "shot_noise": 0.894468,
    "impulse_noise": 0.922640,
    "defocus_blur": 0.819880,
    "glass_blur": 0.826268,
    "motion_blur": 0.785948,
    "zoom_blur": 0.798360,
    "snow": 0.866816,
    "frost": 0.826572,
    "fog": 0.819324,
    "brightness": 0.564592,
    "contrast": 0.853204,
    "elastic_transform": 0.646056,
    "pixelate": 0.717840,
    "jpeg_compression": 0.606500,
}
# AlexNet's top-1 error on the clean ImageNet validation set; sources as above.
ALEXNET_CLEAN_ERROR = 0.4348
# The corruptions that count; the four extra ones (for validation) never do.
COUNTED_CORRUPTIONS = tuple(ALEXNET_ERRORS)


def mean_corruption_error(errors: Errors, baseline: Errors | None = None) -> float:
    """Mean over corruptions of the mean error over severities, plain or relative to a baseline.

        plain:     (1/C) sum_c mean_s E[c, s]
        relative:  (100/C) sum_c (mean_s E[c, s] / mean_s B[c, s])

    The caller chooses the set of corruptions: the keys of `errors`, which must be those of
    `baseline`. For the published quantities, which insist on the 15 that count, call
    `unnormalized_corruption_error` or `alexnet_corruption_error`.

    Args:
        errors: corruption -> errors of its severities, float [S] or one float, 0 to 1.
        baseline: the same of the network to compare with, such as `ALEXNET_ERRORS`, above 0.

    Returns:
        A fraction, 0 to 1, without a baseline; per cent of the baseline's error with one.

    Raises:
        CommandError: names missing, left over or wrong; no error at all; errors out of range.

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


def unnormalized_corruption_error(
    errors: Errors, names: Iterable[str] = COUNTED_CORRUPTIONS
) -> float:
    """The number published for CIFAR-10-C and CIFAR-100-C: the mean error over all cells.

    The mean over corruptions of the mean over severities. No baseline: not comparable with
    ImageNet-C's mCE.

    Args:
        errors: corruption -> errors of its severities, float [S] or one float, 0 to 1.
        names: the corruptions wanted, neither more nor fewer; the 15 that count by default.

    Returns:
        A fraction, 0 to 1.

    Raises:
        CommandError: names missing, left over or wrong; errors out of range.

    Source: Hendrycks et al., AugMix, ICLR 2020 (arXiv 1912.02781), section 4.1.
    """
    return float(np.mean(_severity_means("error", errors, names)))


def alexnet_corruption_error(errors: Errors) -> float:
    """The mCE published for ImageNet-C: `mean_corruption_error` relative to AlexNet.

        mCE = (100/15) sum_c (mean_s E[c, s] / mean_s AlexNet[c, s])

    Args:
        errors: each of the 15 corruptions -> errors of its severities, 0 to 1.

    Returns:
        Per cent of AlexNet's error.

    Raises:
        CommandError: names missing, left over or wrong; errors out of range.

    Source: Hendrycks and Dietterich, ICLR 2019 (arXiv 1903.12261), section 4.
    """
    return mean_corruption_error(errors, ALEXNET_ERRORS)


def relative_corruption_error(
    errors: Errors,
    clean_error: float,
    baseline: Errors = ALEXNET_ERRORS,
    baseline_clean_error: float = ALEXNET_CLEAN_ERROR,
) -> float:
    """Relative mCE: what corruption adds to the clean error, compared with a baseline's.

        (100/C) sum_c (mean_s E[c, s] - E_clean) / (mean_s B[c, s] - B_clean)

    Args:
        errors: corruption -> errors of its severities, float [S] or one float, 0 to 1.
        clean_error: the error on clean pictures, 0 to 1.
        baseline: the same as `errors` of the network to compare with.
        baseline_clean_error: its error on clean pictures, below all of `baseline`'s means.

    Returns:
        Per cent of what the baseline loses.

    Raises:
        CommandError: names missing, left over or wrong; errors out of range.

    Source: Hendrycks and Dietterich, ICLR 2019 (arXiv 1903.12261), section 4.
    """
    checks.require(0.0 <= clean_error <= 1.0, "clean error of 0 to 1", clean_error)
    added = _severity_means("error", errors, baseline) - clean_error
    baseline_added = _baseline_means(baseline) - baseline_clean_error
    checks.require(
        bool((baseline_added > 0.0).all()),
        "baseline errors above the baseline's clean error",
        baseline_added.min() + baseline_clean_error,
    )
    return float(100.0 * np.mean(added / baseline_added))


def check_names(kind: str, given: Iterable[str], wanted: Iterable[str]) -> None:
    """Refuses unless `given` holds exactly the names `wanted`, in any order.

    Raises:
        CommandError: an unknown name (with the nearest valid one), else the missing ones.
    """
    names, needed = list(given), list(wanted)
    checks.require(bool(needed), f"at least one {kind}", "none")
    for name in names:
        if name not in needed:
            raise checks.CommandError(checks.unknown_name(kind, name, needed))
    missing = [name for name in needed if name not in names]
    checks.require(
        not missing,
        f"every {kind} of {', '.join(needed)}",
        f"{len(names)} of {len(needed)} without {', '.join(missing)}",
    )


def _severity_means(kind: str, errors: Errors, names: Iterable[str]) -> np.ndarray:
    """Returns the mean over severities of each of `names`, float64 [C], in their order."""
    wanted = list(names)
    check_names("corruption", errors, wanted)
    return np.array([_mean(f"{kind} on {name}", errors[name]) for name in wanted])


def _baseline_means(baseline: Errors) -> np.ndarray:
    means = _severity_means("baseline error", baseline, baseline)
    checks.require(bool((means > 0.0).all()), "baseline errors above 0", means.min())
    return means


def _mean(what: str, values: ArrayLike) -> float:
    cells = np.atleast_1d(np.asarray(values, np.float64))
    checks.require(
        cells.ndim == 1 and cells.size > 0, f"{what} [severities] or one number", cells.shape
    )
    inside = (cells >= 0.0) & (cells <= 1.0)
    checks.require(bool(inside.all()), f"{what} of 0 to 1 (a fraction)", cells[~inside][:1])
    return float(cells.mean())
