"""The robustness benchmarks: names, groups and severities, and AlexNet's results on them.

-C: each test image under 15 corruptions at 5 severities. -P: sequences of frames in which one
image is perturbed step by step. C-bar: as -C, with corruptions unlike those.

Source: Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations, ICLR 2019 (arXiv 1903.12261). C-bar: Mintun, Kirillov and Xie, On Interaction Between
Augmentations and Corruptions in Natural Corruption Robustness, NeurIPS 2021 (arXiv 2102.11273).
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

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

# The corruptions of CIFAR-10-C-bar and of ImageNet-C-bar, by table of severities, with the spelling
# and in the order of the original code.
CBAR_BENCHMARKS: dict[str, tuple[str, ...]] = {
    "cifar": (
        "blue_noise_sample",
        "checkerboard_cutout",
        "inverse_sparkles",
        "pinch_and_twirl",
        "ripple",
        "brownish_noise",
        "circular_motion_blur",
        "lines",
        "sparkles",
        "transverse_chromatic_abberation",
    ),
    "imagenet": (
        "caustic_refraction",
        "inverse_sparkles",
        "sparkles",
        "perlin_noise",
        "blue_noise_sample",
        "plasma_noise",
        "checkerboard_cutout",
        "cocentric_sine_waves",
        "single_frequency_greyscale",
        "brownish_noise",
    ),
}
CBAR_CORRUPTIONS = tuple(dict.fromkeys(n for names in CBAR_BENCHMARKS.values() for n in names))


class CorruptionBenchmark(NamedTuple):
    """A kind of benchmark of corrupted images."""

    title: str
    variants: tuple[tuple[str, ...], ...]  # the corruptions that the means of each variant are over
    extra: tuple[str, ...] = ()  # others that sets have and no mean contains

    @property
    def names(self) -> tuple[str, ...]:
        """All corruptions that sets may have."""
        counted = itertools.chain(*self.variants)
        return *dict.fromkeys(counted), *self.extra


C = CorruptionBenchmark("C", (CORRUPTIONS,), (*EXTRA_CORRUPTIONS, FROST_SYNTHETIC))
CBAR = CorruptionBenchmark("C-bar", tuple(CBAR_BENCHMARKS.values()))
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

# AlexNet's top-1 error on ImageNet-C-bar (50,000 images), mean over the five severities.
# Source: results/summaryImageNet_C_bar_baseline.csv of nis-research/afa-augment, commit 7dcf705.
ALEXNET_CBAR_ERRORS: dict[str, float] = {
    "blue_noise_sample": 0.815036,
    "plasma_noise": 0.882188,
    "checkerboard_cutout": 0.701648,
    "cocentric_sine_waves": 0.878124,
    "single_frequency_greyscale": 0.828760,
    "brownish_noise": 0.638460,
    "perlin_noise": 0.580912,
    "sparkles": 0.579924,
    "inverse_sparkles": 0.871228,
    "caustic_refraction": 0.619036,
}
# The same on ImageNet-3DCC, over RobustBench's 5,000 images, with a sampling error of 0.003 to
# 0.005. Source: unaggregated_results_3d.csv of RobustBench/robustbench, commit 78fcc9e.
ALEXNET_3DCC_ERRORS: dict[str, float] = {
    "near_focus": 0.61068,
    "far_focus": 0.65152,
    "bit_error": 0.68336,
    "color_quant": 0.59620,
    "flash": 0.80124,
    "fog_3d": 0.77356,
    "h265_abr": 0.56740,
    "h265_crf": 0.52520,
    "iso_noise": 0.93152,
    "low_light": 0.82248,
    "xy_motion_blur": 0.82484,
    "z_motion_blur": 0.79588,
}
# Kar et al., 3D Common Corruptions and Data Augmentation, CVPR 2022 (arXiv 2203.01441).
THREE_D = CorruptionBenchmark("3DCC", (tuple(ALEXNET_3DCC_ERRORS),))

# AlexNet on ImageNet-P, all 50,000 sequences: flips, sum of top-5 distances, and compared pairs.
# Source: results/summaryImageNet_P_baseline.csv of nis-research/afa-augment, commit 7dcf705; its
# decimals are these fractions.
_ALEXNET_SEQUENCES = {
    "gaussian_noise": (354_756, 7_147_814, 1_500_000),
    "shot_noise": (450_902, 8_637_234, 1_500_000),
    "motion_blur": (139_447, 2_894_739, 1_500_000),
    "zoom_blur": (89_136, 2_009_339, 1_500_000),
    "snow": (178_919, 3_626_456, 1_500_000),
    "brightness": (73_346, 1_789_904, 1_500_000),
    "translate": (220_139, 5_250_318, 2_000_000),
    "rotate": (196_561, 4_427_861, 1_500_000),
    "tilt": (105_757, 2_617_938, 1_500_000),
    "scale": (352_975, 6_716_878, 1_500_000),
}
# Metric -> perturbation -> AlexNet's value.
ALEXNET_RATES: dict[str, dict[str, float]] = {
    "flip_probability": {n: flips / pairs for n, (flips, _, pairs) in _ALEXNET_SEQUENCES.items()},
    "top5_distance": {n: moved / pairs for n, (_, moved, pairs) in _ALEXNET_SEQUENCES.items()},
}


def is_noise(perturbation: str) -> bool:
    """Whether every frame is a fresh draw of noise, to be compared with the first frame."""
    return "noise" in perturbation


def counted(names: Collection[str]) -> tuple[str, ...]:
    """Returns the corruptions that the means of the benchmark with most of `names` are over.

    >>> counted(["lines", "sparkles"]) == CBAR_BENCHMARKS["cifar"]
    True
    """
    variants = (*C.variants, *CBAR.variants, *THREE_D.variants)
    return max(variants, key=lambda variant: len(set(variant) & set(names)))


def title(names: Collection[str]) -> str:
    """Returns the title of the benchmark with most of `names`.

    >>> title(["fog_3d"])
    '3DCC'
    """
    variant = counted(names)
    return next(kind.title for kind in (C, CBAR, THREE_D) if variant in kind.variants)


def alexnet_errors(names: Collection[str]) -> Mapping[str, float] | None:
    """Returns AlexNet's errors on the benchmark with these corruptions; None where unknown."""
    known = ALEXNET_ERRORS, ALEXNET_CBAR_ERRORS, ALEXNET_3DCC_ERRORS
    return next((errors for errors in known if errors.keys() == set(names)), None)


def describe_corruptions(names: Collection[str], benchmark: Sequence[str] = CORRUPTIONS) -> str:
    """Describes which of the corruptions of a benchmark a mean is over.

    >>> describe_corruptions(CORRUPTIONS)
    '15 corruptions'
    >>> describe_corruptions(CORRUPTIONS[:-1])
    '14 of 15 corruptions, jpeg_compression excluded'
    >>> describe_corruptions(["fog", "frost"])
    '2 of 15 corruptions: fog, frost'
    """
    excluded = [name for name in benchmark if name not in names]
    if not excluded:
        return f"{len(benchmark)} corruptions"
    count = f"{len(benchmark) - len(excluded)} of {len(benchmark)} corruptions"
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
