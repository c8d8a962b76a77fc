"""The random crop and flip that all methods share, and all views of an image: drawn once."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from augmix_tf import seeds
from augmix_tf.ops import pixels
from augmix_tf.ops.compiled import compiled

PADDING = 4


class CropPlan(NamedTuple):
    """Every random choice of one crop and flip of N images."""

    offset: tf.Tensor  # int32 [N, 2], row and column of the crop in the padded image
    flip: tf.Tensor  # bool [N], whether the image is mirrored before it is padded


def draw_crop(seed: tf.Tensor, batch_size: int | tf.Tensor, padding: int = PADDING) -> CropPlan:
    """Draws a crop uniformly among all places, and a flip with probability one half."""
    for_offset, for_flip = seeds.split(seed, 2)
    return CropPlan(
        offset=seeds.integers(for_offset, [batch_size, 2], 0, 2 * padding + 1),
        flip=seeds.integers(for_flip, [batch_size], 0, 2) == 1,
    )


def apply_crop(images: tf.Tensor, plan: CropPlan, padding: int = PADDING) -> tf.Tensor:
    """Mirrors, pads with zeros on all sides and crops back to the size that came.

    Args:
        images: uint8 [N, H, W, 3], H and W known.
        plan: for N images, drawn with the same padding.
        padding: pixels on each side.

    Returns:
        uint8 [N, H, W, 3].
    """
    pixels.check_images(images)
    return _apply_crop(images, plan, padding)


@compiled
def _apply_crop(images: tf.Tensor, plan: CropPlan, padding: int) -> tf.Tensor:
    height, width = images.shape[1:3]

    def crop(arguments: tuple[tf.Tensor, tf.Tensor, tf.Tensor]) -> tf.Tensor:
        picture, offset, flip = arguments
        row = (tf.range(height) + offset[0] - padding)[:, None]
        column = (tf.range(width) + offset[1] - padding)[None, :]
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        column = tf.where(flip, width - 1 - column, column)
        index = tf.where(inside, row * width + column, 0)
        return tf.where(inside, tf.gather(tf.reshape(picture, [-1]), index), 0)

    cropped = tf.map_fn(
        crop,
        (pixels.pack(images), *plan),
        fn_output_signature=tf.TensorSpec([height, width], tf.int32),
    )
    return tf.cast(pixels.unpack(cropped), tf.uint8)
