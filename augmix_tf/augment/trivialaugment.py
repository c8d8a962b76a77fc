"""TrivialAugment and RandAugment: operations of one table, at one of 31 levels.

TrivialAugment applies one operation at a random level to each image, RandAugment some operations
at one level, the magnitude, to all images.

Sources: Mueller and Hutter, TrivialAugment, ICCV 2021 (arXiv 2103.10158); Cubuk et al., RandAugment
(arXiv 1909.13719). The table is that of the code of TrivialAugment's authors, which has both
methods. RandAugment in torchvision differs: its factors of color, contrast, brightness and
sharpness are 1 + 0.9 v or 1 - 0.9 v, and translations scale with the image.
"""

from __future__ import annotations

import dataclasses
import functools

from etils import epy

from augmix_tf.augment.autoaugment import PolicyMethod, PolicyPlan
from augmix_tf.augment.method import BatchShape
from augmix_tf.settings import setting

with epy.lazy_imports():  # the command line reads the settings without loading TensorFlow
    import numpy as np
    import tensorflow as tf

    from augmix_tf import ops, seeds
    from augmix_tf.ops import registry

LEVELS = 31


def _space(
    degrees: int, bits: int, shear: float, pixels: int, factors: tuple[float, float]
) -> dict[str, tuple[float, float]]:
    """Operation -> its parameter at level 0, and what is added to it up to the highest level."""
    factor = (factors[0], factors[1] - factors[0])
    return {
        "identity": (0, 0),
        "autocontrast": (0, 0),
        "equalize": (0, 0),
        "rotate": (0, degrees),
        "solarize": (256, -256),
        "color": factor,
        "posterize": (8, -bits),
        "contrast": factor,
        "brightness": factor,
        "sharpness": factor,
        "shear_x": (0, shear),
        "shear_y": (0, shear),
        "translate_x": (0, pixels),
        "translate_y": (0, pixels),
    }


SPACES = {
    "standard": _space(degrees=30, bits=4, shear=0.3, pixels=10, factors=(0.1, 1.9)),
    "wide": _space(degrees=135, bits=6, shear=0.99, pixels=32, factors=(0.01, 2.0)),
}
"""RandAugment's ranges, and the wider ones of TrivialAugment's second version."""


def parameter_of(operation: str, level: int, negative: bool, space: str) -> float:
    """Returns the parameter of an operation at a level of 0 to 30, in the units of `ops.apply_op`.

    With v = level / 30 and wide ranges in parentheses: rotation 30 v (135 v) degrees, translations
    10 v (32 v) pixels whatever the size of the image, shears 0.3 v (0.99 v); solarize from
    256 - 256 v on; posterize 8 - 4 v (8 - 6 v) bits; color, contrast, brightness and sharpness
    0.1 + 1.8 v (0.01 + 1.99 v). What is added is truncated where parameters are whole. A negative
    sign turns rotations, translations and shears around and does not affect other operations.
    """
    start, added = SPACES[space][operation]
    if operation == "identity":
        return 0.0
    declared = ops.REGISTRY[operation]
    amount = level * added / (LEVELS - 1)
    value = start + (int(amount) if declared.whole else amount)
    return -value if negative and declared.direction == registry.EITHER else value


@functools.cache
def _parameters(space: str) -> np.ndarray:
    """Returns `parameter_of` by operation, level and sign, float64 [14, 31, 2]."""
    signs = (False, True)
    rows = [
        [
            [parameter_of(name, level, negative, space) for negative in signs]
            for level in range(LEVELS)
        ]
        for name in SPACES[space]
    ]
    return np.array(rows, np.float64)


def draw_operations(
    seed: tf.Tensor, batch_size: int | tf.Tensor, count: int, levels: range, space: str
) -> PolicyPlan:
    """Draws `count` operations on each image, with repetition, each with a level and a sign.

    All operations are as likely, and so are all `levels`, and both signs.
    """
    for_operation, for_level, for_sign = seeds.split(seed, 3)
    shape = [batch_size, count]
    names = list(SPACES[space])
    drawn = seeds.integers(for_operation, shape, 0, len(names))
    level = seeds.integers(for_level, shape, levels.start, levels.stop)
    negative = seeds.integers(for_sign, shape, 0, 2)
    # A plan has the operations that are applied first, in their order.
    order = tf.argsort(tf.cast(drawn == names.index("identity"), tf.int32), axis=1, stable=True)
    drawn = tf.gather(drawn, order, batch_dims=1)
    numbers = [0 if name == "identity" else ops.OPERATIONS.index(name) for name in names]
    return PolicyPlan(
        operation=tf.gather(tf.constant(numbers), drawn),
        parameter=tf.gather_nd(_parameters(space), tf.stack([drawn, level, negative], axis=-1)),
        depth=tf.math.count_nonzero(drawn != names.index("identity"), axis=1, dtype=tf.int32),
    )


@dataclasses.dataclass(frozen=True)
class LevelMethod(PolicyMethod):
    """The settings that TrivialAugment and RandAugment share."""

    interpolation: str = setting(
        "nearest", "How rotations and shears read pixels", choices=("nearest", "bilinear")
    )
    fill: int = setting(
        0, "Value of pixels outside the image in geometric operations", low=0, high=255
    )
    cutout_size: int = setting(16, "Side of the erased square, in pixels (0: none)", low=0)


@dataclasses.dataclass(frozen=True)
class TrivialAugmentMethod(LevelMethod):
    """TrivialAugment (Mueller and Hutter, 2021): one operation at a random level on each image.

    Cutout comes after it, as in the authors' recipe. Their code crops and flips after it; here
    crop and flip come first.
    """

    name = "trivialaugment"

    space: str = setting("wide", "Ranges of the operations", choices=tuple(SPACES))

    def draw_policy(self, seed: tf.Tensor, batch: BatchShape) -> PolicyPlan:
        return draw_operations(seed, batch.size, 1, range(LEVELS), self.space)


@dataclasses.dataclass(frozen=True)
class RandAugmentMethod(LevelMethod):
    """RandAugment (Cubuk et al., 2019): some operations on each image, all at one magnitude."""

    name = "randaugment"

    num_ops: int = setting(3, "Operations on each image", low=1)
    magnitude: int = setting(5, "Level of the operations", low=0, high=LEVELS - 1)

    def draw_policy(self, seed: tf.Tensor, batch: BatchShape) -> PolicyPlan:
        levels = range(self.magnitude, self.magnitude + 1)
        return draw_operations(seed, batch.size, self.num_ops, levels, "standard")
