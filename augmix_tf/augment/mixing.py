"""Mixup and CutMix: each image of a batch is mixed with another one, and so are their targets.

Sources: Zhang et al., mixup, ICLR 2018 (arXiv 1710.09412); Yun et al., CutMix, ICCV 2019 (arXiv
1905.04899), with the box and the probabilities of its authors' code.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from augmix_tf import checks, seeds
from augmix_tf.augment import batches


class MixupPlan(NamedTuple):
    """Every random choice of mixup for a batch of N images."""

    share: tf.Tensor  # float32 [], of the image itself; the partner has the rest
    partner: tf.Tensor  # int32 [N], a permutation of the batch


class CutmixPlan(NamedTuple):
    """Every random choice of CutMix for a batch of N images."""

    box: tf.Tensor  # int32 [4]: top, left, bottom, right, the last two exclusive; empty: no mix
    partner: tf.Tensor  # int32 [N], a permutation of the batch


def draw_mixup(seed: tf.Tensor, batch_size: int | tf.Tensor, alpha: float) -> MixupPlan:
    """Draws one share for the whole batch from Beta(alpha, alpha), and a partner for each image.

    It is drawn on the host: XLA has no gamma distribution.

    Args:
        seed: int32 [2], from `seeds.fold`.
        batch_size: number of images N.
        alpha: 1 in the authors' runs on CIFAR. Which one AugMix's comparison took is not known.

    Raises:
        CommandError: alpha outside 1e-6..1e6.
    """
    _check_alpha(alpha)
    for_share, for_partner = seeds.split(seed, 2)
    return MixupPlan(
        share=tf.cast(_beta(for_share, alpha), tf.float32),
        partner=seeds.permutation(for_partner, batch_size),
    )


def apply_mixup(
    images: tf.Tensor, targets: tf.Tensor, plan: MixupPlan
) -> tuple[tf.Tensor, tf.Tensor]:
    """Mixes each image and its targets with its partner's: share * x + (1 - share) * x_partner.

    Cross-entropy with these targets is the mix of the cross-entropies with both.

    Args:
        images: float32 [N, H, W, 3], 0..255, H and W known.
        targets: float32 [N, K], one-hot or any probabilities.
        plan: for N images.

    Returns:
        images float32 [N, H, W, 3] and targets float32 [N, K], whose rows sum to 1 as before.

    Raises:
        CommandError: images or targets of another type or rank, or lengths that differ.
    """
    images, targets = _checked(images, targets, plan.partner)
    return _blend(images, plan.share, plan.partner), _blend(targets, plan.share, plan.partner)


def draw_cutmix(
    seed: tf.Tensor,
    batch_size: int | tf.Tensor,
    image_size: tuple[int, int],
    alpha: float,
    probability: float,
) -> CutmixPlan:
    """Draws whether the batch is mixed, one box for all its images, and a partner for each.

    With lambda ~ Beta(alpha, alpha), a side of the box is sqrt(1 - lambda) of the image's, cut to
    whole pixels and halved, cut again, on both sides of a centre that is uniform over the pixels.
    What reaches over the border is cut off. It is drawn on the host: XLA has no gamma distribution.

    Args:
        seed: int32 [2], from `seeds.fold`.
        batch_size: number of images N.
        image_size: (height, width).
        alpha: 1 in the authors' runs.
        probability: with which a batch is mixed; the authors took 0.5 for CIFAR and 1 for ImageNet.
            Which one AugMix's comparison took is not known.

    Raises:
        CommandError: alpha outside 1e-6..1e6, a probability outside 0..1, or an image size that is
            not two whole numbers from 1 on.
    """
    _check_alpha(alpha)
    checks.require(0 <= probability <= 1, "a probability in 0..1", probability)
    batches.check_image_size(image_size)
    for_share, for_row, for_column, for_mixing, for_partner = seeds.split(seed, 5)
    side = tf.sqrt(1.0 - _beta(for_share, alpha))
    ends = [
        _ends(length, side, seeds.integers(stream, [], 0, length))
        for stream, length in zip((for_row, for_column), image_size, strict=True)
    ]
    box = tf.reshape(tf.stack(ends, axis=1), [4])
    mixed = seeds.uniform(for_mixing, []) < probability
    return CutmixPlan(
        box=tf.where(mixed, box, tf.zeros_like(box)),
        partner=seeds.permutation(for_partner, batch_size),
    )


def apply_cutmix(
    images: tf.Tensor, targets: tf.Tensor, plan: CutmixPlan
) -> tuple[tf.Tensor, tf.Tensor]:
    """Puts the partner's pixels into the box; the targets are mixed by the share of the pixels.

    The share is that of the box as it is, not the lambda that was drawn: cutting to whole pixels
    and at the border makes it smaller.

    Args:
        images: float32 [N, H, W, 3], 0..255, H and W known.
        targets: float32 [N, K], one-hot or any probabilities.
        plan: for N images. What of the box lies outside the images is ignored.

    Returns:
        images float32 [N, H, W, 3] and targets float32 [N, K], whose rows sum to 1 as before; both
        as they came where the box is empty.

    Raises:
        CommandError: images or targets of another type or rank, or lengths that differ.
    """
    images, targets = _checked(images, targets, plan.partner)
    height, width = images.shape[1:3]
    top, left, bottom, right = tf.unstack(plan.box, num=4)
    row, column = tf.range(height), tf.range(width)
    inside = ((row >= top) & (row < bottom))[:, None] & (column >= left) & (column < right)
    share = 1.0 - tf.reduce_mean(tf.cast(inside, tf.float32))
    mixed = tf.where(inside[..., None], tf.gather(images, plan.partner), images)
    return tf.ensure_shape(mixed, images.shape), _blend(targets, share, plan.partner)


def _ends(length: int, side: tf.Tensor, centre: tf.Tensor) -> tf.Tensor:
    """First pixel of the box along one axis, and the one behind its last: int32 [2]."""
    half = tf.cast(length * side, tf.int32) // 2
    return tf.clip_by_value(tf.stack([centre - half, centre + half]), 0, length)


def _blend(values: tf.Tensor, share: tf.Tensor, partner: tf.Tensor) -> tf.Tensor:
    blend = share * values + (1.0 - share) * tf.gather(values, partner)
    return tf.ensure_shape(blend, values.shape)


def _beta(seed: tf.Tensor, alpha: float) -> tf.Tensor:
    """Draws one number from Beta(alpha, alpha), float64 [].

    It is X / (X + Y) for two Gamma(alpha) variables.
    """
    for_gamma, for_uniform = seeds.split(seed, 2)
    uniform = seeds.uniform(for_uniform, [2])
    logs = seeds.log_gamma(seeds.gamma(for_gamma, [2], alpha), uniform, alpha)
    return tf.sigmoid(logs[0] - logs[1])


def _check_alpha(alpha: float) -> None:
    checks.require(1e-6 <= alpha <= 1e6, "alpha in 1e-6..1e6", alpha)


def _checked(
    images: tf.Tensor, targets: tf.Tensor, partner: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    images = batches.float_images(images)
    batches.check_count("a plan", tf.convert_to_tensor(partner), images)
    return images, batches.float_targets(targets, images)
