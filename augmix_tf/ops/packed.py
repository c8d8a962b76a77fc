"""Packed images: one int32 per pixel, red + 256 green + 65536 blue.

With a pixel in one word, moving or looking up a pixel takes one load instead of three, and every
operation processes all channels in one pass.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from augmix_tf.errors import ArgumentError, require

CHANNELS = 3
_SHIFTS = (0, 8, 16)
# Pixels in a block of `by_blocks`: the fastest of 512 to 4096 at 32x32 and 224x224.
_BLOCK_PIXELS = 2048


def check_images(images: tf.Tensor) -> None:
    """Raises `ArgumentError` unless `images` is uint8 [N, H, W, 3] with H and W known."""
    fits = images.dtype == tf.uint8 and images.shape.rank == 4 and images.shape[-1] == CHANNELS
    if not fits or None in images.shape[1:]:
        raise ArgumentError(
            f"Expected uint8 images [N, H, W, 3] with H and W known; received {images.dtype.name} "
            f"{images.shape}."
        )


def pack(images: tf.Tensor) -> tf.Tensor:
    """Returns uint8 [..., 3] as packed int32 [...]."""
    return join(tf.unstack(tf.cast(images, tf.int32), axis=-1))


def unpack(packed_images: tf.Tensor) -> tf.Tensor:
    """Returns packed int32 [...] as int32 [..., 3] with values 0 to 255."""
    return tf.bitwise.right_shift(packed_images[..., None], tf.constant(_SHIFTS)) & 255


def split(packed_images: tf.Tensor) -> list[tf.Tensor]:
    """Returns red, green and blue of packed images, int32 each, 0 to 255."""
    shifted = (tf.bitwise.right_shift(packed_images, bits) for bits in _SHIFTS[1:])
    return [part & 255 for part in (packed_images, *shifted)]


def join(channels: list[tf.Tensor]) -> tf.Tensor:
    """Packs red, green and blue, int32 each, 0 to 255."""
    red, green, blue = channels
    return red | tf.bitwise.left_shift(green, _SHIFTS[1]) | tf.bitwise.left_shift(blue, _SHIFTS[2])


def grey(value: int) -> int:
    """Returns the packed pixel whose three channels are all `value`, 0 to 255."""
    require(0 <= value <= 255, "a fill value in 0..255", value)
    return value * 0x010101


def rounded(products: tf.Tensor) -> tf.Tensor:
    """Returns `products`, rounded before anything is added to them.

    Compilers fuse `a * b + c` into one instruction with one rounding; Pillow rounds twice, and a
    result that is truncated to an integer can show the difference. A minimum with a bound that no
    product reaches changes no value and prevents the fusion. A maximum would not: XLA knows that a
    square is never negative, and removes it.
    """
    return tf.minimum(products, tf.constant(2.0**40, products.dtype))


def by_blocks(function: Callable[..., tf.Tensor], width: int, *arrays: tf.Tensor) -> tf.Tensor:
    """Applies `function` to blocks of rows of all `arrays` and concatenates the results.

    On CPUs, XLA splits the arithmetic of a complete image among threads, which takes twice the CPU
    time at 224x224, but does not split a loop. It also repeats the arithmetic of an index in each
    load that uses it, unless the index is computed in a loop of its own. With both, a rotation
    takes less than half the time.

    `function` takes blocks [R, ...] of arrays [H, ...] and returns int32 [R, width].
    """
    height = arrays[0].shape[0]
    blocks = tuple(in_blocks(array, width) for array in arrays)
    spec = tf.TensorSpec([blocks[0].shape[1], width], tf.int32)
    results = tf.map_fn(lambda block: function(*block), blocks, fn_output_signature=spec)
    return tf.reshape(results, [height, width])


def in_blocks(array: tf.Tensor, width: int) -> tf.Tensor:
    """Splits the rows of [H, ...] into blocks of equal size, [blocks, R, ...]."""
    height = array.shape[0]
    # XLA unrolls single-iteration loops, so use at least two blocks.
    rows = max(
        count
        for count in range(1, max(1, height // 2) + 1)
        if height % count == 0 and (count == 1 or count * width <= _BLOCK_PIXELS)
    )
    return tf.reshape(array, [height // rows, rows, *array.shape[1:]])
