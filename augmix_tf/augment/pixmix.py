"""PixMix: mix an image in several rounds with itself and with images that have complex structure.

The image, in half of the cases after one operation, is mixed 0 to 4 times with a partner: an image
of the mixing set, or the original image after another operation. A round adds or multiplies, on
the scale 0 to 1 and clipped to it:

    add: (a (2x - 1) + b (2y - 1) + 1) / 2,    multiply: (2x)^a (2y)^b / 2,
    (a, b) = (A, B) or (1 + B, -B'),    A ~ Beta(beta, 1), B and B' ~ Beta(1, beta)

Source: Hendrycks et al., PixMix, CVPR 2022 (arXiv 2112.05135), and the authors' code.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

from etils import epy

from augmix_tf.augment import method, mixing_set
from augmix_tf.augment.augmix import LOWEST_LEVEL, AugMixSettings
from augmix_tf.augment.method import BatchShape, Histogram, Views
from augmix_tf.augment.mixing_set import MixingMethod, MixingSet
from augmix_tf.runtime import compiled
from augmix_tf.settings import alias, setting

with epy.lazy_imports():  # the command line reads the settings without loading TensorFlow
    import numpy as np
    import tensorflow as tf

    from augmix_tf import ops, seeds
    from augmix_tf.ops import packed, registry

ROUNDS = 4  # at most


class PixMixPlan(NamedTuple):
    """Every random choice of V augmented views of N images; tests write it by hand.

    The first of the operations is for the image that the rounds start from, the others are for
    their partners.
    """

    number: tf.Tensor  # int32 [N, V], which mixing image
    place: tf.Tensor  # float64 [N, V, 2], where it is cropped, see `mixing_set.crop`
    rounds: tf.Tensor  # int32 [N, V], 0 to ROUNDS
    # bool [N, V, 1 + ROUNDS]; else the start is the image itself, a partner the mixing image
    operates: tf.Tensor
    operation: tf.Tensor  # int32 [N, V, 1 + ROUNDS], indexes into OPERATIONS
    parameter: tf.Tensor  # float64 [N, V, 1 + ROUNDS], in the units of ops.apply_op
    multiplies: tf.Tensor  # bool [N, V, ROUNDS], else adds
    weights: tf.Tensor  # float32 [N, V, ROUNDS, 2], a and b


def draw_pixmix(
    view_seeds: list[tf.Tensor],
    batch: BatchShape,
    settings: AugMixSettings,
    beta: float,
    mixing_images: int,
) -> PixMixPlan:
    """Draws a view of each image for each of the seeds.

    Of `settings` the severity and the operations count.
    """
    sizes = (1, 2, 1, *[1 + ROUNDS] * 4, *[ROUNDS] * 4)
    uniform = [seeds.uniform(seed, [batch.size, sum(sizes)]) for seed in view_seeds]
    parts = tf.split(tf.stack(uniform, axis=1), sizes, axis=-1)
    number, place, rounds, operates, operation, level, sign, multiplies, kind, *betas = parts
    operation = seeds.below(len(settings.operations), operation)
    level = LOWEST_LEVEL + level * (settings.severity - LOWEST_LEVEL)
    return PixMixPlan(
        number=seeds.below(mixing_images, number[..., 0]),
        place=place,
        rounds=seeds.below(ROUNDS + 1, rounds[..., 0]),
        operates=operates < 0.5,
        operation=operation,
        parameter=registry.parameter_of(operation, level, sign < 0.5, batch.image_size),
        multiplies=multiplies < 0.5,
        weights=draw_weights([kind, *betas], beta),
    )


def draw_weights(uniform: Sequence[tf.Tensor], beta: float) -> tf.Tensor:
    """Turns three U[0, 1) of one shape into a and b, float32 [..., 2], by the inverse CDF."""
    kind, first, second = uniform
    low = 1.0 - (1.0 - second) ** (1.0 / beta)  # Beta(1, beta)
    pairs = tf.stack([(1.0 - first) ** (1.0 / beta), low], axis=-1)
    outside = tf.stack([2.0 - (1.0 - first) ** (1.0 / beta), -low], axis=-1)
    return tf.cast(tf.where(kind[..., None] < 0.5, pairs, outside), tf.float32)


def add(x: tf.Tensor, y: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """(a (2x - 1) + b (2y - 1) + 1) / 2, not clipped; weights are a and b."""
    total = packed.rounded(weights[0] * (2 * x - 1)) + packed.rounded(weights[1] * (2 * y - 1))
    return (total + 1) / 2


def multiply(x: tf.Tensor, levels: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """(2x)^a (2y)^b / 2, not clipped: up to 1e37 where y is 0 and b negative.

    y are given as levels, int32 0 to 255.
    """
    first = _power(tf.math.log(2 * x), weights[0])
    return first * tf.gather(powers(weights[1], 1e-37), levels) / 2


def powers(exponent: tf.Tensor, least: float = 0.0) -> tf.Tensor:
    """Returns (2v / 255)^exponent for v = 0 to 255, at least `least`^exponent, float32 [256].

    Computed in float64, so that rounding gives the float32 powers of other libraries.
    """
    doubled = 2 * (np.arange(256, dtype=np.float32) / np.float32(255))
    with np.errstate(divide="ignore"):
        logs = np.log(np.maximum(doubled, np.float32(least)).astype(np.float64))
    return tf.cast(_power(tf.constant(logs), tf.cast(exponent, tf.float64)), tf.float32)


def _power(logs: tf.Tensor, exponent: tf.Tensor) -> tf.Tensor:
    """Returns e^logs to a power, and 1 for the power 0; XLA's own power is ten times slower."""
    return tf.where(exponent == 0, tf.ones([], logs.dtype), tf.exp(exponent * logs))


def levels_of(packed_image: tf.Tensor) -> tf.Tensor:
    """Returns a packed image [H, W] as int32 [3, H, W], 0 to 255."""
    shifts = tf.constant([0, 8, 16])[:, None, None]
    # Not stacked from three channels: XLA would then take one value at a time.
    return tf.bitwise.right_shift(packed_image, shifts) & 255


def fractions(levels: tf.Tensor) -> tf.Tensor:
    """Returns levels 0 to 255 as float32, 0 to 1."""
    return tf.cast(levels, tf.float32) / 255


@compiled
def apply_pixmix(images: tf.Tensor, mixing_images: MixingSet, plan: PixMixPlan) -> tf.Tensor:
    """Makes the views of a plan, float32 [N, V, H, W, 3], 0 to 255, of uint8 [N, H, W, 3].

    Within 1e-6 of the authors' code, on the scale 0 to 1: powers differ in the last bits.
    """
    views, size = plan.rounds.shape[1], images.shape[1:3]
    packed_images = packed.pack(images)
    rows = PixMixPlan(*(tf.reshape(part, [-1, *part.shape[2:]]) for part in plan))

    def view(arguments: tuple[tf.Tensor, PixMixPlan]) -> tf.Tensor:
        source, row = arguments
        image = packed_images[source]
        texture = mixing_set.crop(mixing_images, row.number, row.place, size)

        # The start is made in the loop of the rounds, so that XLA compiles the operations once.
        def step(index: tf.Tensor, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            partner = tf.cond(
                row.operates[index],
                lambda: ops.apply_drawn(image, row.operation[index], row.parameter[index]),
                lambda: tf.where(index == 0, image, texture),
            )
            y, mixing = levels_of(partner), tf.maximum(index - 1, 0)
            weights = row.weights[mixing]
            mixed = tf.switch_case(
                tf.where(index == 0, 0, 1 + tf.cast(row.multiplies[mixing], tf.int32)),
                [
                    lambda: fractions(y),
                    lambda: add(x, fractions(y), weights),
                    lambda: multiply(x, y, weights),
                ],
            )
            return index + 1, tf.clip_by_value(mixed, 0.0, 1.0)

        start = (tf.constant(0), tf.zeros([3, *size]))
        x = tf.while_loop(lambda index, _: index <= row.rounds, step, start)[1]
        return 255 * tf.transpose(x, [1, 2, 0])

    sources = tf.repeat(tf.range(tf.shape(images)[0]), views)
    spec = tf.TensorSpec([*size, 3], tf.float32)
    made = tf.map_fn(view, (sources, rows), fn_output_signature=spec)
    return tf.reshape(made, [-1, views, *size, 3])


@dataclasses.dataclass(frozen=True)
class PixMixMethod(MixingMethod):
    """PixMix (Hendrycks et al., 2022): images mixed with fractals, one view or several.

    The published method trains on one view. With the consistency loss its views are compared with
    the clean one, as AugMix's.
    """

    name = "pixmix"

    jsd: bool = alias(MixingMethod, "jsd", default=False)
    pixmix_beta: float = setting(
        3.0, "Parameter of the Beta distributions of PixMix's weights", above=0, high=1e6
    )
    aug_severity: float = alias(AugMixSettings, "severity")
    all_ops: bool = alias(AugMixSettings, "all_ops", default=True)

    def draw(self, streams: seeds.BatchSeeds, batch: BatchShape) -> PixMixPlan:
        settings = AugMixSettings(self.aug_severity, all_ops=self.all_ops)
        count = len(self.mixing_set(batch.image_size).first)
        return draw_pixmix(self.view_seeds(streams), batch, settings, self.pixmix_beta, count)

    def apply(self, images: tf.Tensor, labels: tf.Tensor, plan: PixMixPlan) -> Views:
        mixing_images = self.mixing_set(tuple(images.shape[1:3]))
        return Views(self.beside_clean(images, apply_pixmix(images, mixing_images, plan)), labels)

    def histograms(self, plan: PixMixPlan) -> dict[str, Histogram]:
        rounds, operates = plan.rounds.numpy(), plan.operates.numpy()
        return {
            "draws/operation": method.operation_histogram(
                plan.operation.numpy()[operates][:, None], operates[operates], ops.OPERATIONS
            ),
            "draws/rounds": method.integer_histogram(rounds, 0, ROUNDS, "Rounds of mixing."),
        }
