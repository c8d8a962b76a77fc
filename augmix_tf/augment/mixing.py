"""Mixup and CutMix: each image of a batch is mixed with another one, and so are their targets.

Plans are drawn on the host: XLA has no gamma distribution.

Sources: Zhang et al., mixup, ICLR 2018 (arXiv 1710.09412); Yun et al., CutMix, ICCV 2019 (arXiv
1905.04899), with the box and the probabilities of its authors' code.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar, NamedTuple

from etils import epy

from augmix_tf.augment.method import BatchShape, Method, Views
from augmix_tf.settings import setting

with epy.lazy_imports():  # the command line reads the settings without loading TensorFlow
    import tensorflow as tf

    from augmix_tf import seeds


class MixupPlan(NamedTuple):
    """Every random choice of mixup for a batch of N images."""

    share: tf.Tensor  # float32 [], weight of the image itself; the partner has 1 - share
    partner: tf.Tensor  # int32 [N], a permutation of the batch


class CutmixPlan(NamedTuple):
    """Every random choice of CutMix for a batch of N images."""

    box: tf.Tensor  # int32 [4]: top, left, bottom, right, the last two exclusive; empty: no mix
    partner: tf.Tensor  # int32 [N], a permutation of the batch


@dataclasses.dataclass(frozen=True)
class MixupMethod(Method):
    """Mixup (Zhang et al., 2018): images and labels mixed in pairs.

        share * x + (1 - share) * x_partner,   share ~ Beta(alpha, alpha), one for the whole batch

    for images and targets alike: cross-entropy with the mixed targets is the mix of the
    cross-entropies with both. Alpha is 1 in the authors' runs on CIFAR. Which one AugMix's
    comparison used is not known.
    """

    name = "mixup"
    mixes_examples: ClassVar[bool] = True

    mixup_alpha: float = setting(
        1.0, "Concentration of the Beta distribution of mixup's weight", low=1e-6, high=1e6
    )

    def draw(self, streams: seeds.BatchSeeds, batch: BatchShape) -> MixupPlan:
        for_share, for_partner = seeds.split(streams.stream(seeds.METHOD), 2)
        return MixupPlan(
            share=tf.cast(_beta(for_share, self.mixup_alpha), tf.float32),
            partner=seeds.permutation(for_partner, batch.size),
        )

    def apply(self, images: tf.Tensor, labels: tf.Tensor, plan: MixupPlan) -> Views:
        mixed = _blend(tf.cast(images, tf.float32), plan.share, plan.partner)
        return Views(mixed[:, None], _blend(labels, plan.share, plan.partner))


@dataclasses.dataclass(frozen=True)
class CutmixMethod(Method):
    """CutMix (Yun et al., 2019): a box of each image replaced by that of a partner.

    With lambda ~ Beta(alpha, alpha), one box for the batch reaches floor(floor(side *
    sqrt(1 - lambda)) / 2) on both sides of a centre that is uniform over the pixels, and is clipped
    at the border. Targets are mixed by the fraction of pixels in the actual box, not by lambda.

    In the authors' runs alpha is 1 and the probability 0.5 for CIFAR, 1 for ImageNet. Which one
    AugMix's comparison used is not known.
    """

    name = "cutmix"
    mixes_examples: ClassVar[bool] = True

    cutmix_alpha: float = setting(
        1.0, "Concentration of the Beta distribution of the box's area", low=1e-6, high=1e6
    )
    cutmix_probability: float = setting(0.5, "Probability that CutMix mixes a batch", low=0, high=1)

    def draw(self, streams: seeds.BatchSeeds, batch: BatchShape) -> CutmixPlan:
        seed = streams.stream(seeds.METHOD)
        for_share, for_row, for_column, for_mixing, for_partner = seeds.split(seed, 5)
        side = tf.sqrt(1.0 - _beta(for_share, self.cutmix_alpha))
        ends = []  # first pixel of the box along each axis, and one past its last
        for stream, length in zip((for_row, for_column), batch.image_size, strict=True):
            centre = seeds.integers(stream, [], 0, length)
            half = tf.cast(length * side, tf.int32) // 2
            ends.append(tf.clip_by_value(tf.stack([centre - half, centre + half]), 0, length))
        box = tf.reshape(tf.stack(ends, axis=1), [4])
        mixed = seeds.uniform(for_mixing, []) < self.cutmix_probability
        return CutmixPlan(
            box=tf.where(mixed, box, tf.zeros_like(box)),
            partner=seeds.permutation(for_partner, batch.size),
        )

    def apply(self, images: tf.Tensor, labels: tf.Tensor, plan: CutmixPlan) -> Views:
        images = tf.cast(images, tf.float32)
        height, width = images.shape[1:3]
        top, left, bottom, right = tf.unstack(plan.box, num=4)
        row, column = tf.range(height), tf.range(width)
        inside = ((row >= top) & (row < bottom))[:, None] & (column >= left) & (column < right)
        share = 1.0 - tf.reduce_mean(tf.cast(inside, tf.float32))
        mixed = tf.where(inside[..., None], tf.gather(images, plan.partner), images)
        mixed = tf.ensure_shape(mixed, images.shape)
        return Views(mixed[:, None], _blend(labels, share, plan.partner))


def _blend(values: tf.Tensor, share: tf.Tensor, partner: tf.Tensor) -> tf.Tensor:
    blend = share * values + (1.0 - share) * tf.gather(values, partner)
    return tf.ensure_shape(blend, values.shape)


def _beta(seed: tf.Tensor, alpha: float) -> tf.Tensor:
    """Draws one number from Beta(alpha, alpha), X / (X + Y) of Gamma(alpha) variables, float64."""
    for_gamma, for_uniform = seeds.split(seed, 2)
    uniform = seeds.uniform(for_uniform, [2])
    logs = seeds.log_gamma(seeds.gamma(for_gamma, [2], alpha), uniform, alpha)
    return tf.sigmoid(logs[0] - logs[1])
