"""The random crop and flip that come before every method, shared by all views of an image."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import ClassVar, NamedTuple, TypeAlias

import tensorflow as tf

from augmix_tf import seeds
from augmix_tf.ops import decoding, packed
from augmix_tf.runtime import compiled

PADDING = 4
SCALE = (0.08, 1.0)
"""Bounds of a window's area as a fraction of the image's."""
RATIO = (3 / 4, 4 / 3)
"""Bounds of a window's width / height."""
ATTEMPTS = 10
"""Windows that are drawn for each image; the first that fits into it is used."""


class CropPlan(NamedTuple):
    """Every random choice of one crop and flip of N images."""

    offset: tf.Tensor  # int32 [N, 2], row and column of the crop in the padded image
    flip: tf.Tensor  # bool [N], whether the image is flipped before it is padded


@dataclasses.dataclass(frozen=True)
class PaddedCrop:
    """Pads images uint8 [N, H, W, 3] with four black pixels and crops them to their size."""

    compiled: ClassVar[bool] = True

    def size(self, held: tf.Tensor) -> tuple[int, int]:
        return held.shape[1], held.shape[2]

    def draw(self, seed: tf.Tensor, count: int | tf.Tensor) -> CropPlan:
        for_offset, for_flip = seeds.split(seed, 2)
        return CropPlan(
            offset=seeds.integers(for_offset, [count, 2], 0, 2 * PADDING + 1),
            flip=seeds.integers(for_flip, [count], 0, 2) == 1,
        )

    def apply(self, held: tf.Tensor, plan: CropPlan) -> tf.Tensor:
        return _padded_crop(held, plan)


@compiled
def _padded_crop(images: tf.Tensor, plan: CropPlan) -> tf.Tensor:
    height, width = images.shape[1:3]

    def crop(arguments: tuple[tf.Tensor, tf.Tensor, tf.Tensor]) -> tf.Tensor:
        image, offset, flip = arguments
        row = (tf.range(height) + offset[0] - PADDING)[:, None]
        column = (tf.range(width) + offset[1] - PADDING)[None, :]
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        column = tf.where(flip, width - 1 - column, column)
        index = tf.where(inside, row * width + column, 0)
        return tf.where(inside, tf.gather(tf.reshape(image, [-1]), index), 0)

    spec = tf.TensorSpec([height, width], tf.int32)
    cropped = tf.map_fn(crop, (packed.pack(images), *plan), fn_output_signature=spec)
    return tf.cast(packed.unpack(cropped), tf.uint8)


class ResizedCropPlan(NamedTuple):
    """Every random choice of one window and flip of N images, made as in torchvision."""

    area: tf.Tensor  # float64 [N, ATTEMPTS], fraction of the image's area, within SCALE
    ratio: tf.Tensor  # float64 [N, ATTEMPTS], width / height, within RATIO
    place: tf.Tensor  # float64 [N, 2], row and column among the possible ones, 0 to below 1
    flip: tf.Tensor  # bool [N], whether the window is flipped


class ResizedCrop(NamedTuple):
    """Decodes a random window of each encoded image and resizes it.

    Source: RandomResizedCrop and RandomHorizontalFlip of torchvision, which the authors of AugMix
    use for ImageNet.
    """

    image_size: tuple[int, int]  # (height, width) of the result
    # From what the data hold of one image to its encoded file, string [].
    read: Callable[[tf.Tensor], tf.Tensor] = lambda file: file
    compiled: bool = False

    def size(self, held: tf.Tensor) -> tuple[int, int]:
        return self.image_size

    def draw(self, seed: tf.Tensor, count: int | tf.Tensor) -> ResizedCropPlan:
        """Draws the windows and flips; the image sizes need not be known.

        Areas are uniform over `SCALE`, logarithms of ratios uniform over those of `RATIO`, places
        uniform; half of the images are flipped.
        """
        # One draw for everything: in a small batch the number of operations determines the time.
        parts = [ATTEMPTS, ATTEMPTS, 2, 1]
        uniform = seeds.uniform(seed, [count, sum(parts)])
        area, ratio, place, flip = tf.split(uniform, parts, axis=1)
        narrowest, widest = map(math.log, RATIO)
        return ResizedCropPlan(
            area=SCALE[0] + area * (SCALE[1] - SCALE[0]),
            ratio=tf.exp(narrowest + ratio * (widest - narrowest)),
            place=place,
            flip=flip[:, 0] < 0.5,
        )

    def apply(self, held: tf.Tensor, plan: ResizedCropPlan) -> tf.Tensor:
        """Decodes, resizes and flips; one by one, so that one image is in memory at full size.

        Errors of unreadable images do not name them: a dataset that could took half as long again.
        """

        def crop(arguments: tuple[tf.Tensor, ResizedCropPlan]) -> tf.Tensor:
            file, row = self.read(arguments[0]), arguments[1]
            pixels = decoding.decode_window(
                file, window(row, decoding.sides(file)), self.image_size
            )
            return tf.cond(row.flip, lambda: tf.reverse(pixels, [1]), lambda: pixels)

        spec = tf.TensorSpec([*self.image_size, 3], tf.uint8)
        return tf.map_fn(crop, (held, plan), fn_output_signature=spec, parallel_iterations=1)


Crop: TypeAlias = PaddedCrop | ResizedCrop
"""A random crop and flip: `draw` it for some images, then `apply` it to what the data hold of them;
`compiled` tells whether `apply` may run in one XLA program with what follows."""


def window(plan: ResizedCropPlan, sides: tf.Tensor) -> tf.Tensor:
    """Returns the window of one image with (height, width) `sides`: top, left, height, width.

        width = round(sqrt(area * ratio)),    height = round(sqrt(area / ratio))

    of the first attempt that fits, both at least 1, at one of the possible corners. Where none
    fits, as in a panorama, the largest centred window that `RATIO` allows. `plan` is one row.
    """
    image_sides = tf.cast(sides, tf.float64)
    height, width = image_sides[0], image_sides[1]
    area = height * width * plan.area
    drawn = tf.round(tf.sqrt(tf.stack([area / plan.ratio, area * plan.ratio], axis=1)))
    fits = tf.reduce_all((drawn >= 1) & (drawn <= image_sides), axis=1)
    any_fits = tf.reduce_any(fits)
    first = drawn[tf.argmax(tf.cast(fits, tf.int32))]
    narrowest, widest = RATIO
    most = tf.minimum(tf.round(tf.stack([width / narrowest, height * widest])), image_sides)
    size = tf.where(any_fits, first, most)
    free = image_sides - size
    corner = tf.floor(tf.where(any_fits, plan.place * (free + 1), free / 2))
    return tf.cast(tf.concat([corner, size], 0), tf.int32)
