"""What each training method does to a batch of images before the network sees it."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from augmix_tf import seeds
from augmix_tf.augment.augmix import AugMixSettings, augmix_views
from augmix_tf.augment.crop import apply_crop, draw_crop

Views = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]


def standard(run_seed: int) -> Views:
    """Crop and flip, one view: float32 [N, 1, H, W, 3]."""

    def views(images: tf.Tensor, epoch: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        return tf.cast(_cropped(images, run_seed, epoch, step), tf.float32)[:, None]

    return views


def augmix(run_seed: int, settings: AugMixSettings, views: int, fill: int = 0) -> Views:
    """Crop and flip, then the clean picture and `views` - 1 augmented ones of the same crop."""

    def make(images: tf.Tensor, epoch: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        images = _cropped(images, run_seed, epoch, step)
        return augmix_views(images, run_seed, epoch, step, settings, views, fill)

    return make


def augmix_without_jsd(run_seed: int, settings: AugMixSettings, fill: int = 0) -> Views:
    """Crop and flip, then one augmented view in place of the picture: float32 [N, 1, H, W, 3]."""
    both = augmix(run_seed, settings, views=2, fill=fill)
    return lambda images, epoch, step: both(images, epoch, step)[:, 1:]


def _cropped(images: tf.Tensor, run_seed: int, epoch: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
    seed = seeds.fold(run_seed, epoch, step, seeds.CROP_AND_FLIP)
    return apply_crop(images, draw_crop(seed, tf.shape(images)[0]))
