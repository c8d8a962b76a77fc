"""What each training method does to a batch before the network sees it.

All begin with the same crop and flip. A picture's own changes stay between it and its label; mixup
and CutMix mix labels too.

A batch may be shared between several devices or machines. Each draws for all of it, so that the
draws do not depend on how it is shared, and makes the views of its own rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol, TypeAlias, TypeVar

import tensorflow as tf

from augmix_tf import seeds
from augmix_tf.augment.augmix import AugMixPlan, AugMixSettings, apply_views, draw_views
from augmix_tf.augment.crop import CropPlan, apply_crop, draw_crop
from augmix_tf.augment.erasing import apply_cutout, draw_cutout
from augmix_tf.augment.mixing import apply_cutmix, apply_mixup, draw_cutmix, draw_mixup
from augmix_tf.augment.patch import apply_patch, draw_patch
from augmix_tf.augment.policies import apply_policy, draw_autoaugment, draw_random_autoaugment
from augmix_tf.ops.compiled import compiled

Drawn = TypeVar("Drawn")


class Method(Protocol):
    """What is done to a batch."""

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
            images: uint8 [N, H, W, 3], the whole batch.
            labels: [N].
            epoch, step: where in the run the batch stands.
            rows: int32 [M], places in the batch, in any order; None: all of them.

        Returns:
            views float32 [M, V, H, W, 3], 0..255, and the labels [M], or targets float32 [M, K].
        """


class Batch(NamedTuple):
    """How many pictures a batch has, and which of them are made here."""

    images: tf.Tensor
    rows: tf.Tensor | None

    @property
    def sizes(self) -> tuple[tf.Tensor, tuple[int, int]]:
        """Number of all pictures, (height, width)."""
        return tf.shape(self.images)[0], (self.images.shape[1], self.images.shape[2])

    def own(self, drawn: Drawn) -> Drawn:
        """The part of what was drawn for all that belongs to the rows made here."""
        if self.rows is None:
            return drawn
        take = lambda part: None if part is None else tf.gather(part, self.rows)  # noqa: E731
        return tf.nest.map_structure(take, drawn)


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


def one_view(run_seed: int, *changes: Change) -> Method:
    """Crop and flip, then the changes one after the other, the first on bytes: one view."""

    def method(
        images: tf.Tensor,
        labels: tf.Tensor,
        epoch: tf.Tensor,
        step: tf.Tensor,
        rows: tf.Tensor | None = None,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        batch = Batch(images, rows)
        seed = seeds.fold(run_seed, epoch, step, seeds.METHOD)
        made = _cropped(batch, run_seed, epoch, step)
        for change, own in zip(changes, seeds.split(seed, len(changes)), strict=True):
            made = change(made, own, batch)
        return made[:, None], batch.own(labels)

    return method


def agreeing_views(run_seed: int, change: Change, views: int) -> Method:
    """Crop and flip, then the clean picture and `views` - 1 changed ones of the same crop."""

    def method(
        images: tf.Tensor,
        labels: tf.Tensor,
        epoch: tf.Tensor,
        step: tf.Tensor,
        rows: tf.Tensor | None = None,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        batch = Batch(images, rows)
        made = _cropped(batch, run_seed, epoch, step)
        return changed_views(made, run_seed, epoch, step, change, views, batch), batch.own(labels)

    return method


def changed_views(
    images: tf.Tensor,
    run_seed: seeds.Index,
    epoch: seeds.Index,
    step: seeds.Index,
    change: Change,
    views: int,
    batch: Batch | None = None,
) -> tf.Tensor:
    """The pictures and `views` - 1 changed ones beside each, float32 [M, V, H, W, 3], 0..255.

    `batch` is what they are the own rows of; None: they are a whole batch.
    """
    whole = batch or Batch(images, None)
    drawn = [seeds.fold(run_seed, epoch, step, view) for view in range(1, views)]
    changed = [change(images, seed, whole) for seed in drawn]
    return tf.stack([tf.cast(images, tf.float32), *changed], axis=1)


def augmix(run_seed: int, settings: AugMixSettings, views: int, fill: int = 0) -> Method:
    """Crop and flip, then the clean picture and `views` - 1 augmented ones of the same crop."""

    def method(
        images: tf.Tensor,
        labels: tf.Tensor,
        epoch: tf.Tensor,
        step: tf.Tensor,
        rows: tf.Tensor | None = None,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        batch = Batch(images, rows)
        count, size = batch.sizes
        crop = draw_crop(seeds.fold(run_seed, epoch, step, seeds.CROP_AND_FLIP), count)
        plan = draw_views((run_seed, epoch, step), count, size, settings, views)
        own_images, own_labels, crop, plan = batch.own((images, labels, crop, plan))
        return _crop_and_mix(own_images, crop, plan, fill), own_labels

    return method


def augmix_without_jsd(run_seed: int, settings: AugMixSettings, fill: int = 0) -> Method:
    """Crop and flip, then one augmented view in place of the picture."""
    both = augmix(run_seed, settings, views=2, fill=fill)

    def method(
        images: tf.Tensor,
        labels: tf.Tensor,
        epoch: tf.Tensor,
        step: tf.Tensor,
        rows: tf.Tensor | None = None,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        views, labels = both(images, labels, epoch, step, rows)
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
        images: tf.Tensor,
        labels: tf.Tensor,
        epoch: tf.Tensor,
        step: tf.Tensor,
        rows: tf.Tensor | None = None,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        # All of the batch: a picture's partner may stand in any row.
        whole, batch = Batch(images, None), Batch(images, rows)
        plan = draw(seeds.fold(run_seed, epoch, step, seeds.METHOD), *whole.sizes)
        pictures = tf.cast(_cropped(whole, run_seed, epoch, step), tf.float32)
        mixed, targets = batch.own(apply(pictures, tf.one_hot(labels, num_classes), plan))
        return mixed[:, None], targets

    return method


@compiled
def _crop_and_mix(
    images: tf.Tensor, crop: CropPlan, plan: AugMixPlan | None, fill: int
) -> tf.Tensor:
    """One program for both: to start one takes as long as to crop sixty small pictures."""
    return apply_views(apply_crop(images, crop), plan, fill)


def _cropped(batch: Batch, run_seed: int, epoch: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
    count, _ = batch.sizes
    plan = draw_crop(seeds.fold(run_seed, epoch, step, seeds.CROP_AND_FLIP), count)
    return apply_crop(*batch.own((batch.images, plan)))
