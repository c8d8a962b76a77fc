"""Chains of operations over a batch: each picture its own operations, one compiled program."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from augmix_tf import checks
from augmix_tf.ops import affine, enhance, pixels, tables
from augmix_tf.ops.compiled import compiled

PictureOp = Callable[..., tf.Tensor]

_MOVES: dict[str, PictureOp] = {
    "rotate": affine.rotate,
    "shear_x": affine.shear_x,
    "shear_y": affine.shear_y,
    "translate_x": affine.translate_x,
    "translate_y": affine.translate_y,
}
_TABLES: dict[str, PictureOp] = {
    "autocontrast": tables.autocontrast,
    "equalize": tables.equalize,
    "posterize": tables.posterize,
    "solarize": tables.solarize,
}
_ENHANCERS: dict[str, PictureOp] = {
    "color": enhance.color,
    "contrast": enhance.contrast,
    "brightness": enhance.brightness,
    "sharpness": enhance.sharpness,
}
_ALL = _TABLES | _MOVES | _ENHANCERS

PAPER_OPERATIONS = (
    "autocontrast",
    "equalize",
    "posterize",
    "rotate",
    "solarize",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
)
"""The nine of the paper. None of them is a corruption of the -C benchmarks."""

OPERATIONS = (*PAPER_OPERATIONS, *_ENHANCERS)
"""All thirteen; `AugMixPlan.operation` is an index into this."""


def apply_op(name: str, images: tf.Tensor, parameter: tf.Tensor, fill: int = 0) -> tf.Tensor:
    """Applies one operation to every image of a batch, each with its own parameter.

    Equal to Pillow in every value. The parameter is, in Pillow's terms:
        autocontrast, equalize: ignored;
        posterize: bits kept, 1 to 8;
        rotate: degrees, counter-clockwise;
        solarize: threshold, 0 to 256;
        shear_x, shear_y: factor;
        translate_x, translate_y: whole pixels, content moves left and up for positive;
        color, contrast, brightness, sharpness: enhancement factor, 1 unchanged.

    Args:
        name: one of `OPERATIONS`.
        images: uint8 [N, H, W, 3], H and W known.
        parameter: [N], cast to float64.
        fill: value of pixels that come from outside the picture, 0 to 255.

    Returns:
        uint8 [N, H, W, 3].

    Raises:
        CommandError: unknown name (with the nearest), or images of another type or rank.

    >>> images = tf.fill([1, 2, 2, 3], tf.constant(200, tf.uint8))
    >>> apply_op("solarize", images, [128])[0, 0, 0].numpy().tolist()
    [55, 55, 55]
    """
    checks.lookup("operation", name, _ALL)
    images = tf.convert_to_tensor(images)
    pixels.check_images(images)
    if not tf.is_tensor(parameter):  # TensorFlow would read Python's numbers as float32
        parameter = np.asarray(parameter, np.float64)
    parameter = tf.cast(parameter, tf.float64)
    return _apply_op(name, int(fill), images, tf.broadcast_to(parameter, tf.shape(images)[:1]))


@compiled
def _apply_op(name: str, fill: int, images: tf.Tensor, parameter: tf.Tensor) -> tf.Tensor:
    operation = _bind(name, fill)
    pictures = pixels.pack(images)
    changed = tf.map_fn(
        lambda arguments: operation(*arguments),
        (pictures, parameter),
        fn_output_signature=tf.TensorSpec(pictures.shape[1:], tf.int32),
    )
    return tf.cast(pixels.unpack(changed), tf.uint8)


def run_chains(
    pictures: tf.Tensor,
    source: tf.Tensor,
    operation: tf.Tensor,
    parameter: tf.Tensor,
    depth: tf.Tensor,
    fill: int = 0,
) -> tf.Tensor:
    """Runs T chains, each on one of N pictures; the inner loop of AugMix, to be compiled.

    One loop over all chains, one over the operations of a chain, and one switch inside: XLA then
    compiles each operation once (unrolled over views, chains and depth it took minutes) and runs
    only the one that was drawn.

    Args:
        pictures: int32 [N, H, W], packed (`pixels`).
        source: int32 [T], the picture that each chain starts from.
        operation: int32 [T, D], indexes into `OPERATIONS`.
        parameter: float64 [T, D], in the units of `apply_op`.
        depth: int32 [T], how many of the D operations each chain applies.
        fill: as in `apply_op`.

    Returns:
        int32 [T, H, W], packed.
    """
    branches = [_bind(name, fill) for name in OPERATIONS]

    def run(chain: tf.Tensor) -> tf.Tensor:
        def step(index: tf.Tensor, picture: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            value = parameter[chain, index]
            drawn = [functools.partial(branch, picture, value) for branch in branches]
            return index + 1, tf.switch_case(operation[chain, index], drawn)

        start = (tf.constant(0), pictures[source[chain]])
        return tf.while_loop(lambda index, _: index < depth[chain], step, start)[1]

    chains = tf.range(tf.shape(source)[0])
    return tf.map_fn(run, chains, fn_output_signature=tf.TensorSpec(pictures.shape[1:], tf.int32))


def _bind(name: str, fill: int) -> PictureOp:
    operation = _ALL[name]
    return functools.partial(operation, fill=fill) if name in _MOVES else operation
