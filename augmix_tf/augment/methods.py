"""What each training method does to a batch before the network sees it.

All begin with the same crop and flip. A picture's own changes stay between it and its label; mixup
and CutMix mix labels too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TypeAlias

import tensorflow as tf

from augmix_tf import seeds
from augmix_tf.augment.augmix import AugMixPlan, AugMixSettings, apply_views, draw_views
from augmix_tf.augment.crop import CropPlan, apply_crop
from augmix_tf.augment.erasing import apply_cutout, draw_cutout
from augmix_tf.augment.mixing import apply_cutmix, apply_mixup, draw_cutmix, draw_mixup
from augmix_tf.augment.patch import apply_patch, draw_patch
from augmix_tf.augment.policies import apply_policy, draw_autoaugment, draw_random_autoaugment
from augmix_tf.augment.rows import PADDED_CROP, Batch, Crop, PaddedCrop
from augmix_tf.ops.compiled import compiled


@dataclasses.dataclass(frozen=True)
class Method:
    """What is done to a batch.

    Attributes:
        run_seed: every random choice follows from it and the place of the batch in the run.
        make: from a batch to the views of its own rows, with their labels or targets.
        crop: what comes first.
        mixes: whether each row needs the pictures of others.
    """

    run_seed: int
    make: Callable[[Batch], tuple[tf.Tensor, tf.Tensor]]
    crop: Crop = PADDED_CROP
    mixes: bool = False

    def __call__(
        self,
        images: tf.Tensor,
        labels: tf.Tensor,
        epoch: tf.Tensor,
        step: tf.Tensor,
        rows: tf.Tensor | None = None,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Makes the views of a batch, or of some of its rows.

        Args:
            images: the whole batch: uint8 [N, H, W, 3], or what else `crop` starts from.
            labels: [N].
            epoch, step: where in the run the batch stands.
            rows: int32 [M], places in the batch, in any order; None: all of them.

        Returns:
            views float32 [M, V, H, W, 3], 0..255, and the labels [M], or targets float32 [M, K].
        """
        return self.make(Batch(images, labels, (self.run_seed, epoch, step), rows, self.crop))


Change: TypeAlias = Callable[[tf.Tensor, tf.Tensor, Batch], tf.Tensor]
"""(own images uint8 [M, H, W, 3], seed, batch) -> float32 [M, H, W, 3], 0..255."""


def unchanged() -> Change:
    """Standard training."""
    return lambda images, seed, batch: tf.cast(images, tf.float32)


def cutout(size: int) -> Change:
    """One grey square in each picture."""

    def change(images: tf.Tensor, seed: tf.Tensor, batch: Batch) -> tf.Tensor:
        plan = batch.own(draw_cutout(seed, *batch.sizes))
        return apply_cutout(tf.cast(images, tf.float32), plan, size)

    return change


def autoaugment(policy: str, fill: int = 128) -> Change:
    """One sub-policy of AutoAugment for each picture; "random": two operations at random."""

    def change(images: tf.Tensor, seed: tf.Tensor, batch: Batch) -> tf.Tensor:
        if policy == "random":
            plan = draw_random_autoaugment(seed, *batch.sizes)
        else:
            plan = draw_autoaugment(seed, *batch.sizes, policy)
        return tf.cast(apply_policy(images, batch.own(plan), fill), tf.float32)

    return change


def patch_uniform(size: int, max_scale: float) -> Change:
    """Uniform noise in one square of each picture."""

    def change(images: tf.Tensor, seed: tf.Tensor, batch: Batch) -> tf.Tensor:
        plan = batch.own(draw_patch(seed, *batch.sizes, max_scale))
        return apply_patch(tf.cast(images, tf.float32), plan, size)

    return change


def one_view(run_seed: int, *changes: Change, crop: Crop = PADDED_CROP) -> Method:
    """Crop and flip, then the changes one after the other, the first on bytes: one view."""

    def make(batch: Batch) -> tuple[tf.Tensor, tf.Tensor]:
        made = batch.cropped()
        own_seeds = seeds.split(batch.seed(seeds.METHOD), len(changes))
        for change, seed in zip(changes, own_seeds, strict=True):
            made = change(made, seed, batch)
        return made[:, None], batch.own(batch.labels)

    return Method(run_seed, make, crop)


def agreeing_views(run_seed: int, change: Change, views: int, crop: Crop = PADDED_CROP) -> Method:
    """Crop and flip, then the clean picture and `views` - 1 changed ones of the same crop."""

    def make(batch: Batch) -> tuple[tf.Tensor, tf.Tensor]:
        return changed_views(batch.cropped(), batch, change, views), batch.own(batch.labels)

    return Method(run_seed, make, crop)


def changed_views(images: tf.Tensor, batch: Batch, change: Change, views: int) -> tf.Tensor:
    """Pictures and `views` - 1 changed ones beside each, float32 [M, V, H, W, 3], 0..255.

    `images` uint8 [M, H, W, 3] are the own rows of `batch`.
    """
    changed = [change(images, batch.seed(view), batch) for view in range(1, views)]
    return tf.stack([tf.cast(images, tf.float32), *changed], axis=1)


def augmix(
    run_seed: int,
    settings: AugMixSettings,
    views: int,
    fill: int = 0,
    crop: Crop = PADDED_CROP,
) -> Method:
    """Crop and flip, then the clean picture and `views` - 1 augmented ones of the same crop."""

    def make(batch: Batch) -> tuple[tf.Tensor, tf.Tensor]:
        plan = draw_views(batch.place, *batch.sizes, settings, views)
        return _mixed_views(batch, plan, fill), batch.own(batch.labels)

    return Method(run_seed, make, crop)


def augmix_without_jsd(
    run_seed: int, settings: AugMixSettings, fill: int = 0, crop: Crop = PADDED_CROP
) -> Method:
    """Crop and flip, then one augmented view in place of the picture."""
    both = augmix(run_seed, settings, views=2, fill=fill, crop=crop)

    def make(batch: Batch) -> tuple[tf.Tensor, tf.Tensor]:
        views, labels = both.make(batch)
        return views[:, 1:], labels

    return Method(run_seed, make, crop)


def mixup(run_seed: int, num_classes: int, alpha: float, crop: Crop = PADDED_CROP) -> Method:
    """Crop and flip, then each picture and its label mixed with another one."""

    def draw(seed: tf.Tensor, count: tf.Tensor, size: tuple[int, int]) -> tuple:
        return draw_mixup(seed, count, alpha)

    return _mixing(run_seed, num_classes, draw, apply_mixup, crop)


def cutmix(
    run_seed: int,
    num_classes: int,
    alpha: float,
    probability: float,
    crop: Crop = PADDED_CROP,
) -> Method:
    """Crop and flip, then a box of each picture from another one, and so much of its label."""

    def draw(seed: tf.Tensor, count: tf.Tensor, size: tuple[int, int]) -> tuple:
        return draw_cutmix(seed, count, size, alpha, probability)

    return _mixing(run_seed, num_classes, draw, apply_cutmix, crop)


def _mixing(
    run_seed: int,
    num_classes: int,
    draw: Callable[..., tuple],
    apply: Callable[..., tuple],
    crop: Crop,
) -> Method:
    def make(batch: Batch) -> tuple[tf.Tensor, tf.Tensor]:
        plan = draw(batch.seed(seeds.METHOD), *batch.sizes)
        # All of the batch: a picture's partner may stand in any row.
        pictures = tf.cast(batch._replace(rows=None).cropped(), tf.float32)
        targets = tf.one_hot(batch.labels, num_classes)
        mixed, mixed_targets = batch.own(apply(pictures, targets, plan))
        return mixed[:, None], mixed_targets

    return Method(run_seed, make, crop, mixes=True)


def _mixed_views(batch: Batch, plan: AugMixPlan | None, fill: int) -> tf.Tensor:
    if not isinstance(batch.crop, PaddedCrop):
        return apply_views(batch.cropped(), batch.own(plan), fill)
    return _crop_and_mix(*batch.own((batch.held, batch.draw_crop(), plan)), fill)


@compiled
def _crop_and_mix(
    images: tf.Tensor, crop: CropPlan, plan: AugMixPlan | None, fill: int
) -> tf.Tensor:
    """One program for both: to start one takes as long as to crop sixty small pictures."""
    return apply_views(apply_crop(images, crop), plan, fill)
