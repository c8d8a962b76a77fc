"""The robustness benchmarks: names, groups and severities, and AlexNet's errors on them.

-C: each test image under 15 corruptions at 5 severities. -P: sequences of frames in which one
image is perturbed step by step.

Source: Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations, ICLR 2019 (arXiv 1903.12261).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

SEVERITIES = (1, 2, 3, 4, 5)

# The corruptions of the benchmark's mean, in its order.
CORRUPTION_GROUPS: dict[str, tuple[str, ...]] = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    "weather": ("snow", "frost", "fog", "brightness"),
    "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
}
CORRUPTIONS = tuple(name for group in CORRUPTION_GROUPS.values() for name in group)
# For validation: no mean contains them.
EXTRA_CORRUPTIONS = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
# Replaces frost where its photographs are not available. No mean contains it.
FROST_SYNTHETIC = "frost_synthetic"

# The perturbations of the paper's means, and of ImageNet-P.
PERTURBATIONS: tuple[str, ...] = ("gaussian_noise", "shot_noise", "motion_blur", "zoom_blur")
PERTURBATIONS += ("snow", "brightness", "translate", "rotate", "tilt", "scale")
# The public CIFAR script averages over spatter instead of snow.
CIFAR_SCRIPT_PERTURBATIONS = tuple("spatter" if name == "snow" else name for name in PERTURBATIONS)
EXTRA_PERTURBATIONS = ("speckle_noise", "gaussian_blur", "spatter", "shear")
# The noises at higher levels.
HARDER_PERTURBATIONS = tuple(
    f"{kind}_noise_{level}" for kind in ("gaussian", "shot", "speckle") for level in (2, 3)
)

# Classes of ImageNet: AlexNet's errors apply to them only.
IMAGENET_CLASSES = 1000
# AlexNet's top-1 error on ImageNet-C, mean over the five severities. Digits as in the public
# ImageNet script of AugMix (google-research/augmix, imagenet.py, commit 9b9824c).
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
# AlexNet's top-1 error on the clean ImageNet validation set; same source.
ALEXNET_CLEAN_ERROR = 0.4348


def is_noise(perturbation: str) -> bool:
    """Whether every frame is a fresh draw of noise, to be compared with the first frame."""
    return "noise" in perturbation


def describe_corruptions(names: Collection[str]) -> str:
    """Describes which of the 15 corruptions a mean is over.

    >>> describe_corruptions(CORRUPTIONS)
    '15 corruptions'
    >>> describe_corruptions(CORRUPTIONS[:-1])
    '14 of 15 corruptions, jpeg_compression excluded'
    >>> describe_corruptions(["fog", "frost"])
    '2 of 15 corruptions: fog, frost'
    """
    excluded = [name for name in CORRUPTIONS if name not in names]
    if not excluded:
        return f"{len(CORRUPTIONS)} corruptions"
    count = f"{len(CORRUPTIONS) - len(excluded)} of {len(CORRUPTIONS)} corruptions"
    if len(excluded) > len(names):
        return f"{count}: {', '.join(names)}" if names else count
    return f"{count}, {', '.join(excluded)} excluded"


def at_severities(severities: Sequence[int] | None) -> str:
    """Describes at which severities corruptions were evaluated, "" for all of them (None).

    >>> at_severities([5]), at_severities([1, 3])
    (' at severity 5', ' at severities 1, 3')
    """
    if severities is None or tuple(severities) == SEVERITIES:
        return ""
    word = "severity" if len(severities) == 1 else "severities"
    return f" at {word} {', '.join(map(str, severities))}"
