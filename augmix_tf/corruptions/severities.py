"""Strength of every corruption at severities 1 to 5, for CIFAR (32x32) and ImageNet (224x224).

Source: constants of the authors' scripts `make_cifar_c.py` and `make_imagenet_c.py`
(github.com/hendrycks/robustness); Hendrycks and Dietterich, ICLR 2019 (arXiv 1903.12261).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from augmix_tf import checks

# A picture with no longer side takes CIFAR's table unless told otherwise.
LARGEST_CIFAR_SIDE = 64


class Defocus(NamedTuple):
    """Disk radius in pixels, and sigma of the Gaussian that smooths its edge."""

    radius: float
    edge_sigma: float


class Glass(NamedTuple):
    """Sigma of the blur in pixels, largest shift of a pixel, passes of the shuffle."""

    sigma: float
    max_shift: int
    passes: int


class Motion(NamedTuple):
    """Radius and sigma of the one-sided kernel, in pixels."""

    radius: int
    sigma: float


class Zoom(NamedTuple):
    """Factors 1, 1 + step, ...: so many of them, as numpy's arange includes the end at times."""

    step: float
    factors: int


class Snow(NamedTuple):
    """Normal layer (mean, std), zoomed, cut below the threshold, motion-blurred, added."""

    mean: float
    std: float
    zoom: float
    threshold: float
    motion: Motion
    image_share: float


class Frost(NamedTuple):
    """Weights of image and photograph; photographs shrink by `photo_scale` at `side` pixels."""

    image_weight: float
    frost_weight: float
    photo_scale: float
    side: int


class Fog(NamedTuple):
    """Strength of the fog, and how fast its fractal's detail fades."""

    strength: float
    decay: float


class Elastic(NamedTuple):
    """Displacement, its smoothing, jitter of the affine part: shares of the picture's side.

    The side counts `stretch[0] / stretch[1]` times: ImageNet's script says 244 for 224.
    """

    alpha: float
    sigma: float
    jitter: float
    stretch: tuple[int, int]


class Spatter(NamedTuple):
    """Normal layer (mean, std) blurred by sigma, cut below the threshold.

    `strength` is the weight of water, or the sigma that smooths the edge of mud.
    """

    mean: float
    std: float
    sigma: float
    threshold: float
    strength: float
    is_mud: bool


class Saturation(NamedTuple):
    """New saturation = factor * saturation + offset."""

    factor: float
    offset: float


def _snow(*row: float) -> Snow:
    mean, std, zoom, threshold, radius, sigma, image_share = row
    return Snow(mean, std, zoom, threshold, Motion(int(radius), sigma), image_share)


CIFAR: dict[str, tuple[Any, ...]] = {
    "gaussian_noise": (0.04, 0.06, 0.08, 0.09, 0.10),
    "shot_noise": (500, 250, 100, 75, 50),
    "impulse_noise": (0.01, 0.02, 0.03, 0.05, 0.07),
    "speckle_noise": (0.06, 0.1, 0.12, 0.16, 0.2),
    "gaussian_blur": (0.4, 0.6, 0.7, 0.8, 1.0),
    "defocus_blur": (
        Defocus(0.3, 0.4),
        Defocus(0.4, 0.5),
        Defocus(0.5, 0.6),
        Defocus(1, 0.2),
        Defocus(1.5, 0.1),
    ),
    "glass_blur": (
        Glass(0.05, 1, 1),
        Glass(0.25, 1, 1),
        Glass(0.4, 1, 1),
        Glass(0.25, 1, 2),
        Glass(0.4, 1, 2),
    ),
    "motion_blur": (Motion(6, 1), Motion(6, 1.5), Motion(6, 2), Motion(8, 2), Motion(9, 2.5)),
    "zoom_blur": tuple(Zoom(0.01, count) for count in (7, 12, 16, 21, 26)),
    "snow": (
        _snow(0.1, 0.2, 1, 0.6, 8, 3, 0.95),
        _snow(0.1, 0.2, 1, 0.5, 10, 4, 0.9),
        _snow(0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        _snow(0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        _snow(0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    ),
    "frost": tuple(
        Frost(image, frost, 0.2, 32)
        for image, frost in ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45))
    ),
    "fog": (Fog(0.2, 3), Fog(0.5, 3), Fog(0.75, 2.5), Fog(1, 2), Fog(1.5, 1.75)),
    "spatter": (
        Spatter(0.62, 0.1, 0.7, 0.7, 0.5, False),
        Spatter(0.65, 0.1, 0.8, 0.7, 0.5, False),
        Spatter(0.65, 0.3, 1, 0.69, 0.5, False),
        Spatter(0.65, 0.1, 0.7, 0.69, 0.6, True),
        Spatter(0.65, 0.1, 0.5, 0.68, 0.6, True),
    ),
    "brightness": (0.05, 0.1, 0.15, 0.2, 0.3),
    "contrast": (0.75, 0.5, 0.4, 0.3, 0.15),
    "elastic_transform": tuple(
        Elastic(alpha, sigma, jitter, (32, 32))
        for alpha, sigma, jitter in (
            (0, 0, 0.08),
            (0.05, 0.2, 0.07),
            (0.08, 0.06, 0.06),
            (0.1, 0.04, 0.05),
            (0.1, 0.03, 0.03),
        )
    ),
    "pixelate": (0.95, 0.9, 0.85, 0.75, 0.65),
    "jpeg_compression": (80, 65, 58, 50, 40),
    "saturate": tuple(Saturation(*p) for p in ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2))),
}

IMAGENET: dict[str, tuple[Any, ...]] = {
    "gaussian_noise": (0.08, 0.12, 0.18, 0.26, 0.38),
    "shot_noise": (60, 25, 12, 5, 3),
    "impulse_noise": (0.03, 0.06, 0.09, 0.17, 0.27),
    "speckle_noise": (0.15, 0.2, 0.35, 0.45, 0.6),
    "gaussian_blur": (1, 2, 3, 4, 6),
    "defocus_blur": (
        Defocus(3, 0.1),
        Defocus(4, 0.5),
        Defocus(6, 0.5),
        Defocus(8, 0.5),
        Defocus(10, 0.5),
    ),
    "glass_blur": (
        Glass(0.7, 1, 2),
        Glass(0.9, 2, 1),
        Glass(1, 2, 3),
        Glass(1.1, 3, 2),
        Glass(1.5, 4, 2),
    ),
    "motion_blur": (Motion(10, 3), Motion(15, 5), Motion(15, 8), Motion(15, 12), Motion(20, 15)),
    "zoom_blur": (Zoom(0.01, 12), Zoom(0.01, 16), Zoom(0.02, 11), Zoom(0.02, 13), Zoom(0.03, 11)),
    "snow": (
        _snow(0.1, 0.3, 3, 0.5, 10, 4, 0.8),
        _snow(0.2, 0.3, 2, 0.5, 12, 4, 0.7),
        _snow(0.55, 0.3, 4, 0.9, 12, 8, 0.7),
        _snow(0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
        _snow(0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    ),
    "frost": tuple(
        Frost(image, frost, 1.0, 224)
        for image, frost in ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))
    ),
    "fog": (Fog(1.5, 2), Fog(2, 2), Fog(2.5, 1.7), Fog(2.5, 1.5), Fog(3, 1.4)),
    "spatter": (
        Spatter(0.65, 0.3, 4, 0.69, 0.6, False),
        Spatter(0.65, 0.3, 3, 0.68, 0.6, False),
        Spatter(0.65, 0.3, 2, 0.68, 0.5, False),
        Spatter(0.65, 0.3, 1, 0.65, 1.5, True),
        Spatter(0.67, 0.4, 1, 0.65, 1.5, True),
    ),
    "brightness": (0.1, 0.2, 0.3, 0.4, 0.5),
    "contrast": (0.4, 0.3, 0.2, 0.1, 0.05),
    "elastic_transform": tuple(
        Elastic(alpha, sigma, jitter, (244, 224))
        for alpha, sigma, jitter in (
            (2, 0.7, 0.1),
            (2, 0.08, 0.2),
            (0.05, 0.01, 0.02),
            (0.07, 0.01, 0.02),
            (0.12, 0.01, 0.02),
        )
    ),
    "pixelate": (0.6, 0.5, 0.4, 0.3, 0.25),
    "jpeg_compression": (25, 18, 15, 10, 7),
    "saturate": tuple(Saturation(*p) for p in ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2))),
}

# The stand-in for the photographs is mixed in with the same weights.
TABLES = {
    "cifar": CIFAR | {"frost_synthetic": CIFAR["frost"]},
    "imagenet": IMAGENET | {"frost_synthetic": IMAGENET["frost"]},
}


def table_name(table: str | None, height: int, width: int) -> str:
    """Returns `table`, or the one that fits the size: CIFAR's up to 64 pixels a side.

    Raises:
        CommandError: no table of that name.
    """
    if table is None:
        return "cifar" if max(height, width) <= LARGEST_CIFAR_SIDE else "imagenet"
    checks.lookup("severity table", table, TABLES)
    return table
