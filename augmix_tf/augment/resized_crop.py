"""ImageNet's random crop: a window of random size, shape and place, resized, and mirrored or not.

torchvision's RandomResizedCrop and RandomHorizontalFlip, with which AugMix's authors trained on
ImageNet. All chance is drawn first, before the size of any picture is known.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from augmix_tf import seeds
from augmix_tf.augment import batches
from augmix_tf.ops import encoded

SCALE = (0.08, 1.0)
"""Least and greatest share of the picture's area that a window is drawn with."""
RATIO = (3 / 4, 4 / 3)
"""Least and greatest width / height of a window."""
ATTEMPTS = 10
"""Windows that are drawn for a picture, of which the first that fits into it is taken."""


class ResizedCropPlan(NamedTuple):
    """Every random choice of one crop and flip of N pictures; tests write it by hand."""

    area: tf.Tensor  # float64 [N, ATTEMPTS], share of the picture's area, within SCALE
    ratio: tf.Tensor  # float64 [N, ATTEMPTS], width / height, within RATIO
    place: tf.Tensor  # float64 [N, 2], row and column among the possible ones, 0 to below 1
    flip: tf.Tensor  # bool [N], whether the window is mirrored


def draw_resized_crop(seed: tf.Tensor, batch_size: int | tf.Tensor) -> ResizedCropPlan:
    """Draws the crops and flips of a batch.

    Areas are uniform over `SCALE`, logarithms of ratios uniform over those of `RATIO`, places
    uniform; one half of the pictures is mirrored.

    Args:
        seed: int32 [2], from `seeds.fold`.
        batch_size: number of pictures N; of a batch that is shared between workers, all of it.
    """
    # One draw for everything: in a small batch it is the number of operations that costs.
    parts = [ATTEMPTS, ATTEMPTS, 2, 1]
    uniform = seeds.uniform(seed, [batch_size, sum(parts)])
    area, ratio, place, flip = tf.split(uniform, parts, axis=1)
    narrowest, widest = map(math.log, RATIO)
    return ResizedCropPlan(
        area=SCALE[0] + area * (SCALE[1] - SCALE[0]),
        ratio=tf.exp(narrowest + ratio * (widest - narrowest)),
        place=place,
        flip=flip[:, 0] < 0.5,
    )


def window(plan: ResizedCropPlan, sides: tf.Tensor) -> tf.Tensor:
    """Returns the window of one picture: int32 [4], top, left, height, width.

        width = round(sqrt(area * ratio)),    height = round(sqrt(area / ratio))

    of the first attempt that fits, both at least 1, at one of the possible corners. Where none
    fits, as in a panorama: the centre of the picture, as much of it as `RATIO` allows.

    Args:
        plan: one row of a plan, without the axis N.
        sides: int32 [2], height and width of the picture.
    """
    whole = tf.cast(sides, tf.float64)
    height, width = whole[0], whole[1]
    area = height * width * plan.area
    drawn = tf.round(tf.sqrt(tf.stack([area / plan.ratio, area * plan.ratio], axis=1)))
    fits = tf.reduce_all((drawn >= 1) & (drawn <= whole), axis=1)
    any_fits = tf.reduce_any(fits)
    first = drawn[tf.argmax(tf.cast(fits, tf.int32))]
    narrowest, widest = RATIO
    most = tf.minimum(tf.round(tf.stack([width / narrowest, height * widest])), whole)
    size = tf.where(any_fits, first, most)
    free = whole - size
    corner = tf.floor(tf.where(any_fits, plan.place * (free + 1), free / 2))
    return tf.cast(tf.concat([corner, size], 0), tf.int32)


def apply_resized_crop(
    places: tf.Tensor,
    plan: ResizedCropPlan,
    size: tuple[int, int],
    read: Callable[[tf.Tensor], tf.Tensor] | None = None,
) -> tf.Tensor:
    """Cuts its window out of each encoded picture, resizes it, and mirrors it where drawn.

    One picture after the other, so that only one is held in memory as a file and in full size.

    Args:
        places: [N, ...], what `read` takes, one of each picture; without `read` string [N], the
            pictures as `ops.encoded` takes them.
        plan: for N pictures.
        size: (H, W) of the result.
        read: from one of `places` to the encoded picture, string []; `tf.io.read_file`, say.

    Returns:
        uint8 [N, H, W, 3].

    Raises:
        CommandError: a plan for another number of pictures, or a size that is not two whole
            numbers from 1 on.
        tf.errors.OpError: a picture cannot be read or decoded. The message does not say which: a
            dataset that could leave it out, and so tell, took half as long again.
    """
    places = tf.convert_to_tensor(places)
    batches.check_image_size(size)
    batches.check_count("a plan", plan.flip, places)

    def crop(arguments: tuple[tf.Tensor, ResizedCropPlan]) -> tf.Tensor:
        place, own = arguments
        file = place if read is None else read(place)
        pixels = encoded.decode_window(file, window(own, encoded.sides(file)), size)
        return tf.cond(own.flip, lambda: tf.reverse(pixels, [1]), lambda: pixels)

    spec = tf.TensorSpec([*size, 3], tf.uint8)
    return tf.map_fn(crop, (places, plan), fn_output_signature=spec, parallel_iterations=1)
