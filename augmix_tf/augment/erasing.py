"""Cutout and patch uniform: erase one square of each image, or add noise to it.

Patch uniform is the relative of Patch Gaussian that AugMix is compared with: Gaussian noise is one
of the corruptions of the -C benchmarks, uniform noise is not.

Sources: DeVries and Taylor, Improved Regularization of Convolutional Neural Networks with Cutout
(arXiv 1708.04552); Lopes et al., Improving Robustness Without Sacrificing Accuracy with Patch
Gaussian Augmentation (arXiv 1906.02611).
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

from etils import epy

from augmix_tf.augment.method import BatchShape, Method, Views
from augmix_tf.settings import setting

with epy.lazy_imports():  # the command line reads the settings without loading TensorFlow
    import tensorflow as tf

    from augmix_tf import seeds


class CutoutPlan(NamedTuple):
    """Every random choice of cutout for N images."""

    centre: tf.Tensor  # int32 [N, 2], row and column of the square's centre


def draw_cutout(
    seed: tf.Tensor, batch_size: int | tf.Tensor, image_size: tuple[int, int]
) -> CutoutPlan:
    """Draws the centre of each image's square, uniformly over the pixels."""
    drawn = [
        seeds.integers(stream, [batch_size], 0, length)
        for stream, length in zip(seeds.split(seed, 2), image_size, strict=True)
    ]
    return CutoutPlan(centre=tf.stack(drawn, axis=1))


def apply_cutout(images: tf.Tensor, plan: CutoutPlan, size: int, fill: float = 127.5) -> tf.Tensor:
    """Fills one square of each image, float32 [N, H, W, 3] in 0..255.

    The square, of `size` pixels and placed as in `inside_square`, may reach over the border, so a
    hole at the border is smaller. The default `fill` becomes 0 under CIFAR's normalisation
    x / 127.5 - 1, as in the Cutout paper, which uses a side of 16 pixels for CIFAR-10 and 8 for
    CIFAR-100. Which one AugMix's comparison used is not known; the authors' code has no cutout.
    """
    hole = inside_square(plan.centre, size, images)
    return tf.where(hole, tf.constant(fill, tf.float32), images)


def inside_square(centre: tf.Tensor, size: int, images: tf.Tensor) -> tf.Tensor:
    """Returns which pixels of images [N, H, W, 3] lie in a square: bool [N, H, W, 1].

    Along each axis it covers centre - size // 2 to centre - size // 2 + size - 1, so a square of
    even side reaches one pixel further up and left.
    """
    first = centre - size // 2
    offsets = (
        tf.range(length) - first[:, axis, None] for axis, length in enumerate(images.shape[1:3])
    )
    row, column = ((offset >= 0) & (offset < size) for offset in offsets)
    return (row[:, :, None] & column[:, None, :])[..., None]


class PatchPlan(NamedTuple):
    """Every random choice of patch uniform for N images."""

    centre: tf.Tensor  # int32 [N, 2], row and column of the patch's centre
    scale: tf.Tensor  # float32 [N], the largest noise as a share of 255
    noise: tf.Tensor  # float32 [N, H, W, 3], -1..1


@dataclasses.dataclass(frozen=True)
class CutoutMethod(Method):
    """Erases one square of each image (DeVries and Taylor, 2017)."""

    name = "cutout"

    cutout_size: int = setting(16, "Side of the erased square, in pixels", low=1)

    def draw(self, streams: seeds.BatchSeeds, batch: BatchShape) -> CutoutPlan:
        # Two streams, as where a policy comes before the square; the first one stays unused.
        seed = seeds.split(streams.stream(seeds.METHOD), 2)[1]
        return draw_cutout(seed, *batch)

    def apply(self, images: tf.Tensor, labels: tf.Tensor, plan: CutoutPlan) -> Views:
        erased = apply_cutout(tf.cast(images, tf.float32), plan, self.cutout_size)
        return Views(erased[:, None], labels)


@dataclasses.dataclass(frozen=True)
class PatchUniformMethod(Method):
    """Adds uniform noise to one square of each image (after Lopes et al., 2019).

    The square has a centre that is uniform over the pixels, and noise of a scale that is uniform up
    to the largest. Sums are clipped to 0..255. Which size and largest scale AugMix's comparison
    used is not known.
    """

    name = "patch_uniform"

    patch_size: int = setting(25, "Side of the noisy square, in pixels", low=1)
    patch_scale: float = setting(0.3, "Maximum noise as a fraction of 255", above=0, high=1)

    def draw(self, streams: seeds.BatchSeeds, batch: BatchShape) -> PatchPlan:
        """Draws on the host, where XLA's floats of a seed differ; noise for all pixels."""
        seed = seeds.split(streams.stream(seeds.METHOD), 1)[0]
        for_centre, for_scale, for_noise = seeds.split(seed, 3)
        return PatchPlan(
            centre=draw_cutout(for_centre, *batch).centre,
            scale=_uniform(for_scale, [batch.size], 0.0, self.patch_scale),
            noise=_uniform(for_noise, [batch.size, *batch.image_size, 3], -1.0, 1.0),
        )

    def apply(self, images: tf.Tensor, labels: tf.Tensor, plan: PatchPlan) -> Views:
        images = tf.cast(images, tf.float32)
        noise = plan.scale[:, None, None, None] * 255.0 * plan.noise
        noisy = tf.clip_by_value(images + noise, 0.0, 255.0)
        patched = tf.where(inside_square(plan.centre, self.patch_size, images), noisy, images)
        return Views(patched[:, None], labels)


def _uniform(seed: tf.Tensor, shape: seeds.Shape, low: float, high: float) -> tf.Tensor:
    """Draws float32, which is half the memory of `seeds.uniform`."""
    return tf.random.stateless_uniform(shape, seed, low, high, tf.float32, alg=seeds.ALGORITHM)
