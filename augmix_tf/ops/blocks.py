"""Computing a picture some rows at a time."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

# The best of 512 to 4096 at 32 x 32 and 224 x 224.
_PIXELS = 2048


def by_blocks(function: Callable[..., tf.Tensor], width: int, *arrays: tf.Tensor) -> tf.Tensor:
    """Applies `function` to blocks of rows of all `arrays`, and puts its rows together again.

    XLA on the CPU would hand a whole picture's worth of arithmetic to several threads and lose more
    by it than it wins: twice the processor time at 224 x 224. It does not split a loop. It also
    repeats the arithmetic of an index in each load that uses it, unless the index comes out of a
    loop of its own: with both cures a rotation takes less than half the time.

    Args:
        function: takes blocks [R, ...] of the arrays, returns int32 [R, width].
        width: of the picture.
        arrays: [H, ...] each.

    Returns:
        int32 [H, width].
    """
    height = arrays[0].shape[0]
    blocks = tuple(in_blocks(array, width) for array in arrays)
    spec = tf.TensorSpec([blocks[0].shape[1], width], tf.int32)
    done = tf.map_fn(lambda block: function(*block), blocks, fn_output_signature=spec)
    return tf.reshape(done, [height, width])


def in_blocks(array: tf.Tensor, width: int) -> tf.Tensor:
    """Cuts rows, [H, ...], into blocks of the same size, [blocks, R, ...]."""
    height = array.shape[0]
    # At least two blocks: a loop of one turn would be taken apart.
    rows = max(
        count
        for count in range(1, max(1, height // 2) + 1)
        if height % count == 0 and (count == 1 or count * width <= _PIXELS)
    )
    return tf.reshape(array, [height // rows, rows, *array.shape[1:]])
