"""What each training method does to a batch before the network sees it.

All begin with the same crop and flip. A picture's own changes stay between it and its label; mixup
and CutMix mix labels too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import tensorflow as tf

from augmix_tf import seeds
from augmix_tf.augment.augmix import AugMixPlan, AugMixSettings, apply_views, draw_views
from augmix_tf.augment.crop import CropPlan, apply_crop, draw_crop
from augmix_tf.augment.erasing import apply_cutout, draw_cutout
from augmix_tf.augment.mixing import apply_cutmix, apply_mixup, draw_cutmix, draw_mixup
from augmix_tf.augment.patch import apply_patch, draw_patch
from augmix_tf.augment.policies import apply_policy, draw_autoaugment, draw_random_autoaugment
from augmix_tf.ops.compiled import compiled

Method: TypeAlias = Callable[
    [tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]
]
"""(images uint8 [N, H, W, 3], labels [N], epoch, step) -> views float32 [N, V, H, W, 3], 0..255,
and the labels, or float32 targets [N, K]."""

Change: TypeAlias = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
"""(images uint8 [N, H, W, 3], seed) -> float32 [N, H, W, 3], 0..255."""


def unchanged() -> Change:
    """Standard training."""
    return lambda images, seed: tf.cast(images, tf.float32)


def cutout(size: int) -> Change:
    """One grey square in each picture."""

    def change(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        plan = draw_cutout(seed, *_sizes(images))
        return apply_cutout(tf.cast(images, tf.float32), plan, size)

    return change


def autoaugment(policy: str, fill: int = 128) -> Change:
    """One sub-policy of AutoAugment for each picture; "random": two operations at random."""

    def change(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        if policy == "random":
            plan = draw_random_autoaugment(seed, *_sizes(images))
        else:
            plan = draw_autoaugment(seed, *_sizes(images), policy)
        return tf.cast(apply_policy(images, plan, fill), tf.float32)

    return change


def patch_uniform(size: int, max_scale: float) -> Change:
    """Uniform noise in one square of each picture."""

    def change(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        plan = draw_patch(seed, *_sizes(images), max_scale)
        return apply_patch(tf.cast(images, tf.float32), plan, size)

    return change


def one_view(run_seed: int, *changes: Change) -> Method:
    """Crop and flip, then the changes one after the other, the first on bytes: one view."""

    def method(
        images: tf.Tensor, labels: tf.Tensor, epoch: tf.Tensor, step: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        seed = seeds.fold(run_seed, epoch, step, seeds.METHOD)
        images = _cropped(images, run_seed, epoch, step)
        for change, own in zip(changes, seeds.split(seed, len(changes)), strict=True):
            images = change(images, own)
        return images[:, None], labels

    return method


def agreeing_views(run_seed: int, change: Change, views: int) -> Method:
    """Crop and flip, then the clean picture and `views` - 1 changed ones of the same crop."""

    def method(
        images: tf.Tensor, labels: tf.Tensor, epoch: tf.Tensor, step: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        images = _cropped(images, run_seed, epoch, step)
        return changed_views(images, run_seed, epoch, step, change, views), labels

    return method


def changed_views(
    images: tf.Tensor,
    run_seed: seeds.Index,
    epoch: seeds.Index,
    step: seeds.Index,
    change: Change,
    views: int,
) -> tf.Tensor:
    """The pictures and `views` - 1 changed ones beside each, float32 [N, V, H, W, 3], 0..255."""
    changed = [change(images, seeds.fold(run_seed, epoch, step, view)) for view in range(1, views)]
    return tf.stack([tf.cast(images, tf.float32), *changed], axis=1)


def augmix(run_seed: int, settings: AugMixSettings, views: int, fill: int = 0) -> Method:
    """Crop and flip, then the clean picture and `views` - 1 augmented ones of the same crop."""

    def method(
        images: tf.Tensor, labels: tf.Tensor, epoch: tf.Tensor, step: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        count, size = _sizes(images)
        crop = draw_crop(seeds.fold(run_seed, epoch, step, seeds.CROP_AND_FLIP), count)
        plan = draw_views((run_seed, epoch, step), count, size, settings, views)
        return _crop_and_mix(images, crop, plan, fill), labels

    return method


def augmix_without_jsd(run_seed: int, settings: AugMixSettings, fill: int = 0) -> Method:
    """Crop and flip, then one augmented view in place of the picture."""
    both = augmix(run_seed, settings, views=2, fill=fill)

    def method(
        images: tf.Tensor, labels: tf.Tensor, epoch: tf.Tensor, step: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        views, labels = both(images, labels, epoch, step)
        return views[:, 1:], labels

    return method


def mixup(run_seed: int, num_classes: int, alpha: float) -> Method:
    """Crop and flip, then each picture and its label mixed with another one."""
    return _mixing(
        run_seed, num_classes, lambda seed, count, _: draw_mixup(seed, count, alpha), apply_mixup
    )


def cutmix(run_seed: int, num_classes: int, alpha: float, probability: float) -> Method:
    """Crop and flip, then a box of each picture from another one, and so much of its label."""
    return _mixing(
        run_seed,
        num_classes,
        lambda seed, count, size: draw_cutmix(seed, count, size, alpha, probability),
        apply_cutmix,
    )


def _mixing(
    run_seed: int, num_classes: int, draw: Callable[..., tuple], apply: Callable[..., tuple]
) -> Method:
    def method(
        images: tf.Tensor, labels: tf.Tensor, epoch: tf.Tensor, step: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        plan = draw(seeds.fold(run_seed, epoch, step, seeds.METHOD), *_sizes(images))
        images = tf.cast(_cropped(images, run_seed, epoch, step), tf.float32)
        images, targets = apply(images, tf.one_hot(labels, num_classes), plan)
        return images[:, None], targets

    return method


@compiled
def _crop_and_mix(
    images: tf.Tensor, crop: CropPlan, plan: AugMixPlan | None, fill: int
) -> tf.Tensor:
    """One program for both: to start one takes as long as to crop sixty small pictures."""
    return apply_views(apply_crop(images, crop), plan, fill)


def _cropped(images: tf.Tensor, run_seed: int, epoch: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
    seed = seeds.fold(run_seed, epoch, step, seeds.CROP_AND_FLIP)
    return apply_crop(images, draw_crop(seed, tf.shape(images)[0]))


def _sizes(images: tf.Tensor) -> tuple[tf.Tensor, tuple[int, int]]:
    return tf.shape(images)[0], (images.shape[1], images.shape[2])
