"""Operations on batches: one operation, or one chain of operations per image, compiled by XLA."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from augmix_tf import errors
from augmix_tf.ops import packed
from augmix_tf.ops.registry import INTERPOLATIONS, OPERATIONS, REGISTRY, ImageOp
from augmix_tf.runtime import compiled


def apply_op(
    name: str,
    images: tf.Tensor,
    parameter: tf.Tensor,
    fill: int = 0,
    interpolation: str = "bilinear",
) -> tf.Tensor:
    """Applies one operation to every image of a batch, each with its own parameter.

    Gives Pillow's exact values.

    Args:
        name: one of `OPERATIONS`.
        images: uint8 [N, H, W, 3], H and W known.
        parameter: [N] or a number, cast to float64, in Pillow's terms: `REGISTRY[name].unit`.
        fill: value of pixels from outside the image, 0 to 255.
        interpolation: one of `INTERPOLATIONS`, of rotations and shears.

    Returns:
        uint8 [N, H, W, 3].

    Raises:
        ArgumentError: unknown name (with the nearest), or images of another type or rank.

    >>> images = tf.fill([1, 2, 2, 3], tf.constant(200, tf.uint8))
    >>> REGISTRY["solarize"].unit
    'threshold, 0 to 256'
    >>> apply_op("solarize", images, [128])[0, 0, 0].numpy().tolist()
    [55, 55, 55]
    """
    errors.lookup("operation", name, REGISTRY)
    errors.lookup("interpolation", interpolation, dict.fromkeys(INTERPOLATIONS))
    images = tf.convert_to_tensor(images)
    packed.check_images(images)
    if not tf.is_tensor(parameter):  # TensorFlow reads Python's numbers as float32.
        parameter = np.asarray(parameter, np.float64)
    parameter = tf.cast(parameter, tf.float64)
    parameter = tf.broadcast_to(parameter, tf.shape(images)[:1])
    return _apply_op(name, int(fill), interpolation, images, parameter)


@compiled
def _apply_op(
    name: str, fill: int, interpolation: str, images: tf.Tensor, parameter: tf.Tensor
) -> tf.Tensor:
    operation = REGISTRY[name].with_options(fill, interpolation)
    packed_images = packed.pack(images)
    results = tf.map_fn(
        lambda arguments: operation(*arguments),
        (packed_images, parameter),
        fn_output_signature=tf.TensorSpec(packed_images.shape[1:], tf.int32),
    )
    return tf.cast(packed.unpack(results), tf.uint8)


def apply_drawn(
    packed_image: tf.Tensor,
    operation: tf.Tensor,
    parameter: tf.Tensor,
    fill: int = 0,
    interpolation: str = "bilinear",
    more: Sequence[ImageOp] = (),
) -> tf.Tensor:
    """Applies the operation with a number to one packed image [H, W], as `run_chains` does."""
    branches = [REGISTRY[name].with_options(fill, interpolation) for name in OPERATIONS]
    calls = [functools.partial(branch, packed_image, parameter) for branch in (*branches, *more)]
    return tf.switch_case(operation, calls)


def run_chains(
    packed_images: tf.Tensor,
    source: tf.Tensor,
    operation: tf.Tensor,
    parameter: tf.Tensor,
    depth: tf.Tensor,
    fill: int = 0,
    interpolation: str = "bilinear",
    more: Sequence[ImageOp] = (),
) -> tf.Tensor:
    """Runs T chains, each on one of N images; the inner loop of AugMix, to be compiled.

    One loop over all chains, one over the operations of a chain, and one switch inside: XLA then
    compiles each operation once (unrolled over views, chains and depth it took minutes) and runs
    only the operation that was drawn.

    Args:
        packed_images: int32 [N, H, W] (see `packed`).
        source: int32 [T], index of the image that each chain starts from.
        operation, parameter: int32 and float64 [T, D], as in `AugMixPlan`.
        depth: int32 [T], how many of the D operations each chain applies.
        fill, interpolation: as in `apply_op`.
        more: operations that are numbered after `OPERATIONS`.

    Returns:
        int32 [T, H, W], packed.
    """

    def run(chain: tf.Tensor) -> tf.Tensor:
        def step(index: tf.Tensor, image: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            call = operation[chain, index], parameter[chain, index]
            return index + 1, apply_drawn(image, *call, fill, interpolation, more)

        start = (tf.constant(0), packed_images[source[chain]])
        return tf.while_loop(lambda index, _: index < depth[chain], step, start)[1]

    chains = tf.range(tf.shape(source)[0])
    spec = tf.TensorSpec(packed_images.shape[1:], tf.int32)
    return tf.map_fn(run, chains, fn_output_signature=spec)
