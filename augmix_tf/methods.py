"""Every training method: its class, the settings that differ in its recipes, published errors.

How sure each number is: `docs/reproducing.md`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from augmix_tf.augment.augmix import AugMixMethod
from augmix_tf.augment.augmix_textures import AugMixTexturesMethod
from augmix_tf.augment.autoaugment import AutoAugmentMethod, RandomAutoAugmentMethod
from augmix_tf.augment.erasing import CutoutMethod, PatchUniformMethod
from augmix_tf.augment.ipmix import IPMixMethod
from augmix_tf.augment.method import AdversarialMethod, Method, StandardMethod
from augmix_tf.augment.mixing import CutmixMethod, MixupMethod
from augmix_tf.augment.pixmix import PixMixMethod
from augmix_tf.augment.trivialaugment import RandAugmentMethod, TrivialAugmentMethod


@dataclasses.dataclass(frozen=True)
class MethodRecipe:
    """A method, the settings that differ in its recipes, and its results in the paper."""

    method: type[Method]
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    cifar100: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    imagenet: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    # Model -> mean error in % on CIFAR-10-C and on CIFAR-100-C.
    cifar_errors: Mapping[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    imagenet_errors: tuple[float, float] | None = None  # clean error in % and mCE of ResNet-50


def _cifar(*errors: tuple[float, float]) -> dict[str, tuple[float, float]]:
    return dict(zip(("allconv", "densenet", "wrn", "resnext"), errors, strict=True))


METHODS: dict[str, MethodRecipe] = {
    "standard": MethodRecipe(
        StandardMethod,
        cifar_errors=_cifar((30.8, 56.4), (30.7, 59.3), (26.9, 53.3), (27.5, 53.4)),
        imagenet_errors=(23.9, 80.6),
    ),
    # Which side AugMix's comparison used is not stated in its code; these are the Cutout paper's.
    "cutout": MethodRecipe(
        CutoutMethod,
        cifar100={"cutout_size": 8},
        imagenet={"cutout_size": 112},
        cifar_errors=_cifar((32.9, 56.8), (32.1, 59.6), (26.8, 53.5), (28.9, 54.6)),
    ),
    # The weight decay is as remembered from the mixup paper, not checked against code.
    "mixup": MethodRecipe(
        MixupMethod,
        {"weight_decay": 1e-4},
        cifar_errors=_cifar((24.6, 53.4), (24.6, 55.4), (22.3, 50.4), (22.6, 51.4)),
    ),
    "cutmix": MethodRecipe(
        CutmixMethod,
        imagenet={"cutmix_probability": 1.0},
        cifar_errors=_cifar((31.3, 56.0), (33.5, 59.2), (27.1, 52.9), (29.5, 54.1)),
    ),
    "autoaugment": MethodRecipe(
        AutoAugmentMethod,
        cifar_errors=_cifar((29.2, 55.1), (26.6, 53.9), (23.9, 49.6), (24.2, 51.3)),
        imagenet_errors=(22.8, 72.7),
    ),
    "random_autoaugment": MethodRecipe(
        RandomAutoAugmentMethod, cifar_errors={"wrn": (17.0, 43.6)}, imagenet_errors=(23.6, 76.1)
    ),
    # Steps and radius as remembered from the paper; Madry et al. used 7 steps on CIFAR.
    "adversarial": MethodRecipe(
        AdversarialMethod,
        cifar_errors=_cifar((28.1, 56.0), (27.6, 55.2), (26.2, 55.1), (27.0, 54.4)),
    ),
    # Side and strength are guesses; the paper has it for ImageNet only.
    "patch_uniform": MethodRecipe(PatchUniformMethod, imagenet_errors=(24.5, 74.3)),
    # The papers' networks are WideResNet-40-4 with dropout 0.3, which the recipes leave alone.
    "pixmix": MethodRecipe(PixMixMethod, imagenet={"pixmix_beta": 4.0, "mixing_images": 512}),
    "ipmix": MethodRecipe(
        IPMixMethod,
        imagenet={"patch_sides": "4,8,16,32,64,224", "mixing_images": 512},
    ),
    "augmix_textures": MethodRecipe(
        AugMixTexturesMethod,
        imagenet={"patch_sides": "4,8,16,32,64,224", "mixing_images": 512},
    ),
    "augmix": MethodRecipe(
        AugMixMethod,
        cifar_errors=_cifar((15.0, 42.7), (12.7, 39.6), (11.2, 35.9), (10.9, 34.9)),
        imagenet_errors=(22.4, 68.4),
    ),
    # Methods that came after the paper. TrivialAugment's runs on CIFAR had 200 epochs and gradients
    # clipped to a norm of 5.
    "trivialaugment": MethodRecipe(TrivialAugmentMethod, imagenet={"cutout_size": 0}),
    # For WRN-28-10; that of CIFAR-100 is as remembered, that of ImageNet torchvision's default.
    "randaugment": MethodRecipe(
        RandAugmentMethod,
        cifar100={"num_ops": 2, "magnitude": 14},
        imagenet={"num_ops": 2, "magnitude": 9, "cutout_size": 0},
    ),
}
