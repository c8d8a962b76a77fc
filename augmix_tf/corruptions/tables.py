"""Types of the constants of corruptions, and the constants of every perturbation.

Each has a table for CIFAR (32x32) and one for ImageNet (224x224).

Source: the authors' scripts `make_cifar_c.py`, `make_imagenet_c.py`, `make_cifar_p.py` and
`make_imagenet_p.py` (github.com/hendrycks/robustness); Hendrycks and Dietterich, ICLR 2019
(arXiv 1903.12261).
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar

from augmix_tf import errors

T = TypeVar("T")

# Images with no longer side use CIFAR's table by default.
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
    """Factors 1, 1 + step, ...

    Their number is stored because rounding makes numpy.arange include the end in some rows.
    """

    step: float
    factors: int


class Snow(NamedTuple):
    """Normal layer (mean, std), zoomed, set to 0 below the threshold, motion-blurred, added."""

    mean: float
    std: float
    zoom: float
    threshold: float
    motion: Motion
    image_weight: float


class Frost(NamedTuple):
    """Weights of image and photograph; photographs shrink by `photo_scale` at `side` pixels."""

    image_weight: float
    frost_weight: float
    photo_scale: float
    side: int


class Fog(NamedTuple):
    """Strength of the fog, and the factor by which finer detail of its fractal is weaker."""

    strength: float
    decay: float


class Elastic(NamedTuple):
    """Displacement, its smoothing and the jitter of the affine part, as fractions of the side.

    The side is multiplied by `stretch[0] / stretch[1]`: ImageNet's script has 244 for 224.
    """

    alpha: float
    sigma: float
    jitter: float
    stretch: tuple[int, int] = (1, 1)


class Spatter(NamedTuple):
    """Normal layer (mean, std) blurred by sigma, set to 0 below the threshold.

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


class Ramp(NamedTuple):
    """Frame i of `frames` has the value (first + step i) / divisor."""

    frames: int
    first: float
    step: float
    divisor: float = 1

    def values(self) -> list[float]:
        """Returns the values of all frames."""
        return [(self.first + self.step * i) / self.divisor for i in range(self.frames)]


class MotionRamp(NamedTuple):
    """Motion blur whose direction turns."""

    motion: Motion
    degrees: Ramp


class BlurRamp(NamedTuple):
    """Gaussian blur of growing sigma, its kernel cut off at `truncate` sigma."""

    sigma: Ramp
    truncate: float


class SnowSequence(NamedTuple):
    """Normal layer (mean, std), zoomed, set to 0 below the threshold, blurred as `fall` turns."""

    mean: float
    std: float
    zoom: float
    threshold: float
    fall: MotionRamp
    image_weight: float


class SpatterSequence(NamedTuple):
    """Normal layer (mean, std), blurred, set to 0 below the threshold; `kernel` moves it down."""

    mean: float
    std: float
    sigma: float
    threshold: float
    strength: float
    kernel: tuple[float, ...]
    frames: int


def _noise_levels(name: str, *levels: float) -> dict[str, float]:
    """Constants of a noise and of its harder levels "<name>_2" and "<name>_3"."""
    return dict(zip((name, f"{name}_2", f"{name}_3"), levels, strict=True))


# table -> perturbation -> constants.
SEQUENCE_TABLES: dict[str, dict[str, Any]] = {
    "cifar": {
        **_noise_levels("gaussian_noise", 0.02, 0.04, 0.06),
        **_noise_levels("shot_noise", 700, 400, 200),
        **_noise_levels("speckle_noise", 0.05, 0.07, 0.1),
        "motion_blur": MotionRamp(Motion(6, 1.8), Ramp(21, -180, 9)),
        "zoom_blur": Ramp(31, 1, 0.004),
        "snow": SnowSequence(0.05, 0.3, 2, 0.5, MotionRamp(Motion(10, 2), Ramp(31, -150, 4)), 0.85),
        "brightness": Ramp(31, -22.5, 1.5, 100),
        "translate": Ramp(16, -7, 1),
        "rotate": Ramp(31, -15, 1),
        "tilt": Ramp(31, -11.25, 0.75),
        "scale": Ramp(31, 70, 2, 100),
        "gaussian_blur": BlurRamp(Ramp(31, 0.3, 0.015), 7),
        "spatter": SpatterSequence(0.6, 0.265, 1.75, 0.7, 0.6, (0.2, 0.8), 31),
        "shear": Ramp(31, -15, 1),
    },
    "imagenet": {
        **_noise_levels("gaussian_noise", 0.03, 0.05, 0.08),
        **_noise_levels("shot_noise", 300, 120, 60),
        **_noise_levels("speckle_noise", 0.05, 0.1, 0.15),
        "motion_blur": MotionRamp(Motion(10, 3), Ramp(31, -120, 4)),
        "zoom_blur": Ramp(31, 1, 0.004),
        "snow": SnowSequence(0.05, 0.3, 3, 0.5, MotionRamp(Motion(14, 4), Ramp(31, -150, 4)), 0.85),
        "brightness": Ramp(31, -30, 2, 100),
        "translate": Ramp(41, -20, 1),
        "rotate": Ramp(31, -15, 1),
        "tilt": Ramp(31, -15, 1),
        "scale": Ramp(31, 40, 2.5, 100),
        "gaussian_blur": BlurRamp(Ramp(31, 0.25, 0.035), 6),
        "spatter": SpatterSequence(0.65, 0.27, 3.7, 0.69, 0.6, (0.05, 0.1, 0.15, 0.7), 31),
        "shear": Ramp(31, -15, 1),
    },
}


def table_name(table: str | None, height: int, width: int) -> str:
    """Returns `table`, or by size "cifar" (up to 64 pixels a side) or "imagenet".

    Raises:
        ArgumentError: no table of that name.
    """
    if table is None:
        return "cifar" if max(height, width) <= LARGEST_CIFAR_SIDE else "imagenet"
    errors.lookup("severity table", table, SEQUENCE_TABLES)
    return table
