"""Cutout: erase one square of each image.

Source: DeVries and Taylor, Improved Regularization of Convolutional Neural Networks with Cutout
(arXiv 1708.04552).
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

from etils import epy

from augmix_tf.augment.method import BatchShape, Method, Views
from augmix_tf.errors import require
from augmix_tf.settings import check, setting

with epy.lazy_imports():  # the command line reads the settings without loading TensorFlow
    import tensorflow as tf

    from augmix_tf import seeds
    from augmix_tf.augment import checks


class CutoutPlan(NamedTuple):
    """Every random choice of cutout for N images."""

    centre: tf.Tensor  # int32 [N, 2], row and column of the square's centre


def draw_cutout(
    seed: tf.Tensor, batch_size: int | tf.Tensor, image_size: tuple[int, int]
) -> CutoutPlan:
    """Draws the centre of each image's square, uniformly over the pixels.

    Args:
        seed: int32 [2], from `seeds.fold`.
        batch_size: number of images N.
        image_size: (height, width).

    Raises:
        ArgumentError: an image size that is not two whole numbers from 1 on.
    """
    return CutoutPlan(draw_centres(seed, batch_size, image_size))


def apply_cutout(images: tf.Tensor, plan: CutoutPlan, size: int, fill: float = 127.5) -> tf.Tensor:
    """Fills one square of each image.

    The square may reach over the border, so a hole at the border is smaller. The Cutout paper uses
    a side of 16 pixels for CIFAR-10 and 8 for CIFAR-100. Which one AugMix's comparison used is not
    known; the authors' code has no cutout.

    Args:
        images: float32 [N, H, W, 3], 0..255, H and W known.
        plan: for N images.
        size: side of the square in pixels, placed as in `inside_square`.
        fill: value of the hole, 0..255. The default becomes 0 under CIFAR's normalisation
            x / 127.5 - 1, as in the Cutout paper.

    Returns:
        float32 [N, H, W, 3].

    Raises:
        ArgumentError: images of another type or rank, a plan for another number of them, a size
            below 1 or a fill outside 0..255.
    """
    images = checks.float_images(images)
    require(0 <= fill <= 255, "a fill value in 0..255", fill)
    hole = inside_square(plan.centre, size, images)
    return tf.where(hole, tf.constant(fill, tf.float32), images)


def draw_centres(
    seed: tf.Tensor, batch_size: int | tf.Tensor, image_size: tuple[int, int]
) -> tf.Tensor:
    """Draws a pixel of each image, all equally likely: int32 [N, 2], row and column."""
    checks.check_image_size(image_size)
    drawn = [
        seeds.integers(stream, [batch_size], 0, length)
        for stream, length in zip(seeds.split(seed, 2), image_size, strict=True)
    ]
    return tf.stack(drawn, axis=1)


def inside_square(centre: tf.Tensor, size: int, images: tf.Tensor) -> tf.Tensor:
    """Returns which pixels lie in a square: bool [N, H, W, 1].

    Along each axis it covers centre - size // 2 to centre - size // 2 + size - 1, so a square of
    even side reaches one pixel further up and left.

    Args:
        centre: int32 [N, 2], row and column.
        size: its side in pixels, 1 or more.
        images: [N, H, W, 3], H and W known.

    Raises:
        ArgumentError: another number of centres than images, or a size below 1.
    """
    checks.check_square(size)
    centre = tf.convert_to_tensor(centre)
    checks.check_count("a plan", centre, images)
    first = centre - size // 2
    row, column = (
        _within(tf.range(length), first[:, axis, None], size)
        for axis, length in enumerate(images.shape[1:3])
    )
    return (row[:, :, None] & column[:, None, :])[..., None]


def _within(place: tf.Tensor, first: tf.Tensor, size: int) -> tf.Tensor:
    return (place >= first) & (place < first + size)


@dataclasses.dataclass(frozen=True)
class CutoutMethod(Method):
    """Erases one square of each image (DeVries and Taylor, 2017)."""

    name = "cutout"

    cutout_size: int = setting(16, "Side of the erased square, in pixels", "Method", low=1)

    def __post_init__(self) -> None:
        check(self)

    def draw(self, streams: seeds.BatchSeeds, batch: BatchShape) -> CutoutPlan:
        """Draws the centre of each square."""
        # Two streams, as where a policy comes before the square; the first one stays unused.
        seed = seeds.split(streams.stream(seeds.METHOD), 2)[1]
        return draw_cutout(seed, batch.size, batch.image_size)

    def apply(self, images: tf.Tensor, labels: tf.Tensor, plan: CutoutPlan) -> Views:
        """One view with a hole."""
        erased = apply_cutout(tf.cast(images, tf.float32), plan, self.cutout_size)
        return Views(erased[:, None], labels)
