"""AutoAugment with the policies found for CIFAR-10 and for ImageNet, and with random ones.

A policy is a list of sub-policies, of which each image draws one. A sub-policy is two operations,
each with a probability and a magnitude from 0 to 9.

Source: Cubuk et al., AutoAugment, CVPR 2019 (arXiv 1805.09501). The tables are those of the widely
used port DeepVoltaire/AutoAugment; torchvision has the same two, and timm the same for ImageNet as
its policy "original". What a magnitude means is the port's choice too (`parameter_of`), and ports
differ: a higher magnitude is stronger here and in torchvision, which starts solarize at 255 instead
of 256; timm lets posterize and solarize become weaker.
"""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

from etils import epy

from augmix_tf.augment import erasing
from augmix_tf.augment.method import BatchShape, Histogram, Method, Views, operation_histogram
from augmix_tf.runtime import compiled
from augmix_tf.settings import setting

with epy.lazy_imports():  # the command line reads the settings without loading TensorFlow
    import numpy as np
    import tensorflow as tf

    from augmix_tf import ops, seeds
    from augmix_tf.ops import packed

Call: TypeAlias = tuple[str, float, int]
"""Operation (of `POLICY_OPERATIONS`), probability in whole tenths, magnitude 0 to 9."""

LEVELS = 10
LONGEST = 2

POLICIES: dict[str, tuple[tuple[Call, Call], ...]] = {
    "cifar10": (
        (("invert", 0.1, 7), ("contrast", 0.2, 6)),
        (("rotate", 0.7, 2), ("translate_x", 0.3, 9)),
        (("sharpness", 0.8, 1), ("sharpness", 0.9, 3)),
        (("shear_y", 0.5, 8), ("translate_y", 0.7, 9)),
        (("autocontrast", 0.5, 8), ("equalize", 0.9, 2)),
        (("shear_y", 0.2, 7), ("posterize", 0.3, 7)),
        (("color", 0.4, 3), ("brightness", 0.6, 7)),
        (("sharpness", 0.3, 9), ("brightness", 0.7, 9)),
        (("equalize", 0.6, 5), ("equalize", 0.5, 1)),
        (("contrast", 0.6, 7), ("sharpness", 0.6, 5)),
        (("color", 0.7, 7), ("translate_x", 0.5, 8)),
        (("equalize", 0.3, 7), ("autocontrast", 0.4, 8)),
        (("translate_y", 0.4, 3), ("sharpness", 0.2, 6)),
        (("brightness", 0.9, 6), ("color", 0.2, 8)),
        (("solarize", 0.5, 2), ("invert", 0.0, 3)),
        (("equalize", 0.2, 0), ("autocontrast", 0.6, 0)),
        (("equalize", 0.2, 8), ("equalize", 0.6, 4)),
        (("color", 0.9, 9), ("equalize", 0.6, 6)),
        (("autocontrast", 0.8, 4), ("solarize", 0.2, 8)),
        (("brightness", 0.1, 3), ("color", 0.7, 0)),
        (("solarize", 0.4, 5), ("autocontrast", 0.9, 3)),
        (("translate_y", 0.9, 9), ("translate_y", 0.7, 9)),
        (("autocontrast", 0.9, 2), ("solarize", 0.8, 3)),
        (("equalize", 0.8, 8), ("invert", 0.1, 3)),
        (("translate_y", 0.7, 9), ("autocontrast", 0.9, 1)),
    ),
    "imagenet": (
        (("posterize", 0.4, 8), ("rotate", 0.6, 9)),
        (("solarize", 0.6, 5), ("autocontrast", 0.6, 5)),
        (("equalize", 0.8, 8), ("equalize", 0.6, 3)),
        (("posterize", 0.6, 7), ("posterize", 0.6, 6)),
        (("equalize", 0.4, 7), ("solarize", 0.2, 4)),
        (("equalize", 0.4, 4), ("rotate", 0.8, 8)),
        (("solarize", 0.6, 3), ("equalize", 0.6, 7)),
        (("posterize", 0.8, 5), ("equalize", 1.0, 2)),
        (("rotate", 0.2, 3), ("solarize", 0.6, 8)),
        (("equalize", 0.6, 8), ("posterize", 0.4, 6)),
        (("rotate", 0.8, 8), ("color", 0.4, 0)),
        (("rotate", 0.4, 9), ("equalize", 0.6, 2)),
        (("equalize", 0.0, 7), ("equalize", 0.8, 8)),
        (("invert", 0.6, 4), ("equalize", 1.0, 8)),
        (("color", 0.6, 4), ("contrast", 1.0, 8)),
        (("rotate", 0.8, 8), ("color", 1.0, 2)),
        (("color", 0.8, 8), ("solarize", 0.8, 7)),
        (("sharpness", 0.4, 7), ("invert", 0.6, 8)),
        (("shear_x", 0.6, 5), ("equalize", 1.0, 9)),
        (("color", 0.4, 0), ("equalize", 0.6, 3)),
        # The list has five of them twice.
        (("equalize", 0.4, 7), ("solarize", 0.2, 4)),
        (("solarize", 0.6, 5), ("autocontrast", 0.6, 5)),
        (("invert", 0.6, 4), ("equalize", 1.0, 8)),
        (("color", 0.6, 4), ("contrast", 1.0, 8)),
        (("equalize", 0.8, 8), ("equalize", 0.6, 3)),
    ),
}
"""The sub-policies by the data for which they were found, 25 each."""


class PolicyPlan(NamedTuple):
    """Operations on N images, in order; tests write it by hand."""

    operation: tf.Tensor  # int32 [N, D], indexes into ops.OPERATIONS
    parameter: tf.Tensor  # float64 [N, D], in the units of ops.apply_op
    depth: tf.Tensor  # int32 [N], how many are applied; skipped ones come last


def draw_policy(
    seed: tf.Tensor, batch_size: int | tf.Tensor, image_size: tuple[int, int], policy: str
) -> PolicyPlan:
    """Draws a sub-policy of `POLICIES` for each image, which operations fire, and their signs."""
    calls = [call for pair in POLICIES[policy] for call in pair]
    for_policy, for_firing, for_sign = seeds.split(seed, 3)
    first = LONGEST * seeds.integers(for_policy, [batch_size, 1], 0, len(calls) // LONGEST)
    call = first + tf.range(LONGEST)
    # All probabilities are tenths, and integers, unlike floats, are drawn alike under XLA.
    tenths = tf.constant([round(10 * probability) for _, probability, _ in calls])
    two = [batch_size, LONGEST]
    fires = seeds.integers(for_firing, two, 0, 10) < tf.gather(tenths, call)
    return _plan(calls, call, fires, seeds.integers(for_sign, two, 0, 2), image_size)


def draw_random_policy(
    seed: tf.Tensor, batch_size: int | tf.Tensor, image_size: tuple[int, int]
) -> PolicyPlan:
    """Draws a sub-policy at random for each image: two operations, all as likely, with repetition.

    Magnitudes are uniform over 0 to 9. So are probabilities over 0, 0.1, ..., 1; as they are drawn
    anew for each image, an operation fires with one half. The paper describes its comparison in one
    sentence: random instead of learned policies. Whether it left out the operations that overlap
    with the -C benchmarks is not known.
    """
    calls = [(name, 0.5, magnitude) for name in POLICY_OPERATIONS for magnitude in range(LEVELS)]
    for_call, for_firing, for_sign = seeds.split(seed, 3)
    two = [batch_size, LONGEST]
    call = seeds.integers(for_call, two, 0, len(calls))
    fires = seeds.integers(for_firing, two, 0, 2) == 1
    return _plan(calls, call, fires, seeds.integers(for_sign, two, 0, 2), image_size)


def apply_policy(
    images: tf.Tensor, plan: PolicyPlan, fill: int = 128, interpolation: str = "bilinear"
) -> tf.Tensor:
    """Applies the operations of a plan to uint8 [N, H, W, 3], equal to Pillow in every value.

    Pixels outside the image have the value `fill`. `interpolation` is "bilinear" or "nearest"; the
    port shears bicubically and rotates with the nearest pixel.
    """
    return tf.ensure_shape(_apply_policy(images, plan, fill, interpolation), images.shape)


@compiled
def _apply_policy(images: tf.Tensor, plan: PolicyPlan, fill: int, interpolation: str) -> tf.Tensor:
    source = tf.range(tf.shape(images)[0])
    done = ops.run_chains(packed.pack(images), source, *plan, fill, interpolation)
    return tf.cast(packed.unpack(done), tf.uint8)


# From the signed magnitude v, -1..1, and (height, width) to the operation's own parameter.
_RANGES: dict[str, Callable[[float, tuple[int, int]], float]] = {
    **dict.fromkeys(("autocontrast", "equalize"), lambda v, _: 0.0),
    "posterize": lambda v, _: round(8 - 4 * abs(v)),
    "rotate": lambda v, _: 30 * v,
    # Values are whole: from 227.56 on is from 228 on.
    "solarize": lambda v, _: math.ceil(256 - 256 * abs(v)),
    **dict.fromkeys(("shear_x", "shear_y"), lambda v, _: 0.3 * v),
    # Rounding is what the port's nearest neighbour comes to: pixel x shows floor(x + 0.5 + shift).
    "translate_x": lambda v, size: math.floor(0.5 + 150 / 331 * v * size[1]),
    "translate_y": lambda v, size: math.floor(0.5 + 150 / 331 * v * size[0]),
    **dict.fromkeys(("color", "contrast", "brightness", "sharpness"), lambda v, _: 1 + 0.9 * v),
    "invert": lambda v, _: 0.0,
}
POLICY_OPERATIONS = tuple(_RANGES)
"""What a policy may call: `ops.OPERATIONS` and invert. AutoAugment's search also had cutout and
sample pairing."""


def parameter_of(
    operation: str, magnitude: int, negative: bool, image_size: tuple[int, int]
) -> float:
    """Returns the parameter of one call at a magnitude of 0 to 9, in the units of `ops.apply_op`.

    With v = magnitude / 9: shears 0.3 v; translations 150 / 331 v of the side, in whole pixels;
    rotation 30 v degrees; posterize 8 - 4 v bits, rounded; solarize from 256 - 256 v on; color,
    contrast, brightness, sharpness 1 + 0.9 v. A negative sign takes -v for the moves and for these
    last four, which AutoAugment's search ran from 0.1 to 1.9 in ten steps without a sign; at
    magnitude 0 they change nothing here. The port of this module's source has one rotation without
    a sign, against its other one; here it has a sign.
    """
    strength = magnitude / (LEVELS - 1)
    return float(_RANGES[operation](-strength if negative else strength, image_size))


def _plan(
    calls: Sequence[Call],
    call: tf.Tensor,
    fires: tf.Tensor,
    sign: tf.Tensor,
    image_size: tuple[int, int],
) -> PolicyPlan:
    """Looks up what was drawn, [N, 2] each: places in `calls`, whether they fire, 1 for minus."""
    names = ["solarize" if name == "invert" else name for name, _, _ in calls]
    parameters = [
        parameter_of(name, magnitude, negative, image_size)
        for name, _, magnitude in calls
        for negative in (False, True)
    ]
    # Where the first is skipped, the second comes first.
    call = tf.where(fires[:, :1], call, tf.reverse(call, [1]))
    return PolicyPlan(
        operation=tf.gather(tf.constant([ops.OPERATIONS.index(name) for name in names]), call),
        parameter=tf.gather(tf.constant(parameters, tf.float64), 2 * call + sign),
        depth=tf.reduce_sum(tf.cast(fires, tf.int32), axis=1),
    )


def policy_histograms(plans: Sequence[PolicyPlan]) -> dict[str, Histogram]:
    """Counts the operations that several plans apply."""
    operation, depth = (np.stack([plan[part].numpy() for plan in plans], axis=1) for part in (0, 2))
    return {"draws/operation": operation_histogram(operation, depth, ops.OPERATIONS)}


class PolicyPlans(NamedTuple):
    """What is done to N images: operations, and perhaps a square that is erased."""

    policy: PolicyPlan
    cutout: erasing.CutoutPlan | None


class PolicyMethod(Method):
    """A method that applies operations drawn for each image, and may erase a square after them."""

    fill: int
    cutout_size: int
    interpolation: str = "bilinear"
    compiled = True

    @abc.abstractmethod
    def draw_policy(self, seed: tf.Tensor, batch: BatchShape) -> PolicyPlan:
        """Draws the operations on each image."""

    def draw(self, streams: seeds.BatchSeeds, batch: BatchShape) -> PolicyPlans:
        first, *rest = seeds.split(streams.stream(seeds.METHOD), 2 if self.cutout_size else 1)
        cutout = erasing.draw_cutout(rest[0], *batch) if rest else None
        return PolicyPlans(self.draw_policy(first, batch), cutout)

    def apply(self, images: tf.Tensor, labels: tf.Tensor, plan: PolicyPlans) -> Views:
        changed = apply_policy(images, plan.policy, self.fill, self.interpolation)
        view = tf.cast(changed, tf.float32)
        if plan.cutout is not None:
            view = erasing.apply_cutout(view, plan.cutout, self.cutout_size)
        return Views(view[:, None], labels)

    def histograms(self, plan: PolicyPlans) -> dict[str, Histogram]:
        return policy_histograms([plan.policy])


@dataclasses.dataclass(frozen=True)
class RandomAutoAugmentMethod(PolicyMethod):
    """Policies of AutoAugment's form that are drawn at random, one for each image."""

    name = "random_autoaugment"

    fill: int = setting(
        128, "Value of pixels outside the image in geometric operations", low=0, high=255
    )
    cutout_size: int = setting(0, "Side of the erased square, in pixels (0: none)", low=0)

    def draw_policy(self, seed: tf.Tensor, batch: BatchShape) -> PolicyPlan:
        return draw_random_policy(seed, *batch)


@dataclasses.dataclass(frozen=True)
class AutoAugmentMethod(RandomAutoAugmentMethod):
    """AutoAugment (Cubuk et al., 2019): one learned sub-policy for each image.

    The Cutout that AutoAugment's paper adds is off by default. Whether AugMix's comparison used it
    is not known.
    """

    name = "autoaugment"

    policy: str = setting(
        "cifar10",
        "Sub-policies of AutoAugment, by the dataset they were found for",
        choices=tuple(POLICIES),
    )

    def draw_policy(self, seed: tf.Tensor, batch: BatchShape) -> PolicyPlan:
        return draw_policy(seed, *batch, self.policy)
