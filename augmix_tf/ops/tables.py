"""Operations that send each value to another value, whatever its place.

Per picture: int32 [H, W], packed (`pixels`). Equal to Pillow's `ImageOps` in every value.
"""

from __future__ import annotations

from typing import TypeAlias

import tensorflow as tf

from augmix_tf.ops import pixels
from augmix_tf.ops.blocks import by_blocks, in_blocks

_LEVELS = 256
_SMALL = 2048  # pixels
Ends: TypeAlias = list[tuple[tf.Tensor, tf.Tensor]]


def autocontrast(picture: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
    """Stretches each channel so that its darkest value becomes 0 and its brightest 255."""
    ends = extremes(picture)
    scales = [255.0 / tf.cast(tf.maximum(high - low, 1), tf.float64) for low, high in ends]
    offsets = [
        pixels.rounded(-tf.cast(low, tf.float64) * scale)
        for (low, _), scale in zip(ends, scales, strict=True)
    ]

    def block(rows: tf.Tensor) -> tf.Tensor:
        stretched = []
        for channel, (low, high), scale, offset in zip(
            pixels.split(rows), ends, scales, offsets, strict=True
        ):
            value = pixels.rounded(tf.cast(channel, tf.float64) * scale) + offset
            value = tf.clip_by_value(tf.cast(value, tf.int32), 0, 255)
            stretched.append(tf.where(high > low, value, channel))
        return pixels.join(stretched)

    return by_blocks(block, picture.shape[1], picture)


def equalize(picture: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
    """Makes the histogram of each channel as flat as a table of 256 values can."""
    counts = histogram(picture)
    level = tf.range(_LEVELS)
    last = tf.reduce_max(tf.where(counts > 0, level, -1), axis=1, keepdims=True)
    below = _sums_below(counts)
    # Pillow: step = (pixels - pixels of the brightest value present) // 255.
    step = tf.reduce_max(tf.where(level == last, below, 0), axis=1, keepdims=True) // 255
    # The quotient of two int32 in float64 never rounds up to the next integer.
    rank = tf.cast(step // 2 + below, tf.float64) / tf.cast(tf.maximum(step, 1), tf.float64)
    table = tf.minimum(tf.cast(rank, tf.int32), 255)
    return look_up(picture, tf.where(step > 0, table, level))


def posterize(picture: tf.Tensor, bits: tf.Tensor) -> tf.Tensor:
    """Keeps the highest `bits` bits of each value, 1 to 8 (unchanged)."""
    mask = tf.bitwise.left_shift(255, 8 - tf.cast(bits, tf.int32)) & 255
    return picture & (mask * pixels.grey(1))


def solarize(picture: tf.Tensor, threshold: tf.Tensor) -> tf.Tensor:
    """Inverts the values from `threshold` (0 to 256) on."""
    threshold = tf.cast(threshold, tf.int32)
    return pixels.join([tf.where(c < threshold, c, 255 - c) for c in pixels.split(picture)])


def extremes(picture: tf.Tensor) -> Ends:
    """The darkest and the brightest value of each channel.

    Large pictures block by block: XLA reduces a whole picture one value at a time, and compares
    blocks many values at a time.
    """

    def widen(ends: Ends, rows: tf.Tensor) -> Ends:
        channels = pixels.split(rows)
        return [
            (tf.minimum(low, channel), tf.maximum(high, channel))
            for (low, high), channel in zip(ends, channels, strict=True)
        ]

    ends: Ends = [(channel, channel) for channel in pixels.split(picture)]
    if picture.shape.num_elements() > _SMALL:
        blocks = in_blocks(picture, picture.shape[1])
        ends = tf.foldl(widen, blocks, [(c, c) for c in pixels.split(blocks[0])])
    return [(tf.reduce_min(low), tf.reduce_max(high)) for low, high in ends]


def histogram(picture: tf.Tensor) -> tf.Tensor:
    """How often each value occurs in each channel, int32 [3, 256]."""
    bins = [
        tf.reshape(channel, [-1]) + _LEVELS * index
        for index, channel in enumerate(pixels.split(picture))
    ]
    # Three runs of pixels, one after the other: XLA scatters this form four times faster than
    # the interleaved one.
    bins = tf.concat(bins, axis=0)
    counts = tf.zeros([pixels.CHANNELS * _LEVELS], tf.int32)
    counts = tf.tensor_scatter_nd_add(counts, bins[:, None], tf.ones_like(bins))
    return tf.reshape(counts, [pixels.CHANNELS, _LEVELS])


def look_up(picture: tf.Tensor, table: tf.Tensor) -> tf.Tensor:
    """Sends value v of channel c to `table[c, v]`; the table is int32 [3, 256], 0 to 255."""
    table = tf.reshape(table, [-1])

    def block(rows: tf.Tensor) -> tf.Tensor:
        return pixels.join(
            [
                tf.gather(table, channel + _LEVELS * index)
                for index, channel in enumerate(pixels.split(rows))
            ]
        )

    return by_blocks(block, picture.shape[1], picture)


def _sums_below(counts: tf.Tensor) -> tf.Tensor:
    """For each value, how many pixels are darker: int32 [3, 256]."""
    return tf.cumsum(counts, axis=1, exclusive=True)
