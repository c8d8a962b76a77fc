"""Patch uniform: add noise to one square of each image.

The relative of Patch Gaussian that AugMix is compared with: Gaussian noise is one of the
corruptions of the -C benchmarks, uniform noise is not.

Source: Lopes et al., Improving Robustness Without Sacrificing Accuracy with Patch Gaussian
Augmentation (arXiv 1906.02611).
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

from etils import epy

from augmix_tf.augment.method import BatchShape, Method, Views
from augmix_tf.errors import ArgumentError, require
from augmix_tf.settings import check, setting

with epy.lazy_imports():  # the command line reads the settings without loading TensorFlow
    import tensorflow as tf

    from augmix_tf import seeds
    from augmix_tf.augment import checks, cutout


class PatchPlan(NamedTuple):
    """Every random choice of patch uniform for N images."""

    centre: tf.Tensor  # int32 [N, 2], row and column of the patch's centre
    scale: tf.Tensor  # float32 [N], the largest noise as a share of 255
    noise: tf.Tensor  # float32 [N, H, W, 3], -1..1


def draw_patch(
    seed: tf.Tensor, batch_size: int | tf.Tensor, image_size: tuple[int, int], max_scale: float
) -> PatchPlan:
    """Draws a centre, uniform over the pixels, a scale from U(0, max_scale), and the noise.

    The noise is drawn for all pixels, also those outside the patch: 12 bytes each. Draw it on the
    host: XLA draws other floats from the same seed.

    Args:
        seed: int32 [2], from `seeds.fold`.
        batch_size: number of images N.
        image_size: (height, width).
        max_scale: the largest scale, above 0 and up to 1. Which one AugMix's comparison used is
            not known.

    Raises:
        ArgumentError: a scale out of range, or an image size that is not two whole numbers from 1
            on.
    """
    require(0 < max_scale <= 1, "a largest scale above 0 and up to 1", max_scale)
    checks.check_image_size(image_size)
    for_centre, for_scale, for_noise = seeds.split(seed, 3)
    return PatchPlan(
        centre=cutout.draw_centres(for_centre, batch_size, image_size),
        scale=_uniform(for_scale, [batch_size], 0.0, max_scale),
        noise=_uniform(for_noise, [batch_size, *image_size, 3], -1.0, 1.0),
    )


def apply_patch(images: tf.Tensor, plan: PatchPlan, size: int) -> tf.Tensor:
    """Adds scale * 255 * noise inside the patch and clips the sum to 0..255.

    The patch may reach over the border.

    Args:
        images: float32 [N, H, W, 3], 0..255, H and W known.
        plan: for N images of this size.
        size: side of the patch in pixels, placed as in `cutout.inside_square`. Which one AugMix's
            comparison used is not known.

    Returns:
        float32 [N, H, W, 3], 0..255; outside the patch the images as they came.

    Raises:
        ArgumentError: images of another type or rank, a plan for other images, or a size below 1.
    """
    images = checks.float_images(images)
    noise = tf.convert_to_tensor(plan.noise)
    if not noise.shape.is_compatible_with(images.shape):
        raise ArgumentError(f"Expected noise {images.shape}; received {noise.shape}")
    amplitude = plan.scale[:, None, None, None] * 255.0
    noisy = tf.clip_by_value(images + amplitude * noise, 0.0, 255.0)
    return tf.where(cutout.inside_square(plan.centre, size, images), noisy, images)


def _uniform(seed: tf.Tensor, shape: seeds.Shape, low: float, high: float) -> tf.Tensor:
    """Draws float32, which is half the memory of `seeds.uniform`."""
    return tf.random.stateless_uniform(shape, seed, low, high, tf.float32, alg=seeds.ALGORITHM)


@dataclasses.dataclass(frozen=True)
class PatchUniformMethod(Method):
    """Adds uniform noise to one square of each image (after Lopes et al., 2019)."""

    name = "patch_uniform"

    patch_size: int = setting(25, "Side of the noisy square, in pixels", "Method", low=1)
    patch_scale: float = setting(
        0.3, "Maximum noise as a fraction of 255", "Method", above=0, high=1
    )

    def __post_init__(self) -> None:
        check(self)

    def draw(self, streams: seeds.BatchSeeds, batch: BatchShape) -> PatchPlan:
        """Draws place, strength and noise of each patch."""
        seed = seeds.split(streams.stream(seeds.METHOD), 1)[0]
        return draw_patch(seed, batch.size, batch.image_size, self.patch_scale)

    def apply(self, images: tf.Tensor, labels: tf.Tensor, plan: PatchPlan) -> Views:
        """One view with a noisy patch."""
        noisy = apply_patch(tf.cast(images, tf.float32), plan, self.patch_size)
        return Views(noisy[:, None], labels)
