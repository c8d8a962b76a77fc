"""Operations on the values of pixels: tables (`PIL.ImageOps`) and blends (`PIL.ImageEnhance`).

Each function takes one packed image, int32 [H, W] (see `packed`), and gives Pillow's exact values.
"""

from __future__ import annotations

from typing import TypeAlias

import tensorflow as tf

from augmix_tf.ops import packed

_LEVELS = 256
_SMALL = 2048  # pixels
Ends: TypeAlias = list[tuple[tf.Tensor, tf.Tensor]]  # (darkest, brightest) of each channel


def autocontrast(image: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
    """Stretches each channel so that its darkest value becomes 0 and its brightest 255."""
    stretches = []
    for low, high in extremes(image):
        scale = 255.0 / tf.cast(tf.maximum(high - low, 1), tf.float64)
        offset = packed.rounded(-tf.cast(low, tf.float64) * scale)
        stretches.append((scale, offset, high > low))

    def block(rows: tf.Tensor) -> tf.Tensor:
        stretched = []
        for channel, (scale, offset, varies) in zip(packed.split(rows), stretches, strict=True):
            value = packed.rounded(tf.cast(channel, tf.float64) * scale) + offset
            value = tf.clip_by_value(tf.cast(value, tf.int32), 0, 255)
            stretched.append(tf.where(varies, value, channel))
        return packed.join(stretched)

    return packed.by_blocks(block, image.shape[1], image)


def equalize(image: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
    """Makes the histogram of each channel as flat as a table of 256 values can."""
    counts = histogram(image)
    level = tf.range(_LEVELS)
    last = tf.reduce_max(tf.where(counts > 0, level, -1), axis=1, keepdims=True)
    below = tf.cumsum(counts, axis=1, exclusive=True)  # darker pixels
    # Pillow: step = (pixels - pixels of the brightest value present) // 255.
    step = tf.reduce_max(tf.where(level == last, below, 0), axis=1, keepdims=True) // 255
    # The quotient of two int32 in float64 never rounds up to the next integer.
    rank = tf.cast(step // 2 + below, tf.float64) / tf.cast(tf.maximum(step, 1), tf.float64)
    table = tf.minimum(tf.cast(rank, tf.int32), 255)
    return look_up(image, tf.where(step > 0, table, level))


def posterize(image: tf.Tensor, bits: tf.Tensor) -> tf.Tensor:
    """Keeps the highest `bits` bits of each value, 1 to 8 (unchanged)."""
    mask = tf.bitwise.left_shift(255, 8 - tf.cast(bits, tf.int32)) & 255
    return image & (mask * packed.grey(1))


def solarize(image: tf.Tensor, threshold: tf.Tensor) -> tf.Tensor:
    """Inverts the values that are `threshold` (0 to 256) or more."""
    threshold = tf.cast(threshold, tf.int32)
    return packed.join([tf.where(c < threshold, c, 255 - c) for c in packed.split(image)])


def extremes(image: tf.Tensor) -> Ends:
    """Returns the darkest and the brightest value of each channel."""

    def widen(ends: Ends, rows: tf.Tensor) -> Ends:
        channels = packed.split(rows)
        return [
            (tf.minimum(low, channel), tf.maximum(high, channel))
            for (low, high), channel in zip(ends, channels, strict=True)
        ]

    ends: Ends = [(channel, channel) for channel in packed.split(image)]
    if image.shape.num_elements() > _SMALL:
        # XLA reduces a complete image one value at a time, but compares blocks many at a time.
        blocks = packed.in_blocks(image, image.shape[1])
        ends = tf.foldl(widen, blocks, [(c, c) for c in packed.split(blocks[0])])
    return [(tf.reduce_min(low), tf.reduce_max(high)) for low, high in ends]


def histogram(image: tf.Tensor) -> tf.Tensor:
    """Returns the number of pixels with each value in each channel, int32 [3, 256]."""
    channels = enumerate(packed.split(image))
    bins = [tf.reshape(channel, [-1]) + _LEVELS * index for index, channel in channels]
    # Channels one after the other: XLA scatters them four times faster than interleaved ones.
    bins = tf.concat(bins, axis=0)
    counts = tf.zeros([packed.CHANNELS * _LEVELS], tf.int32)
    counts = tf.tensor_scatter_nd_add(counts, bins[:, None], tf.ones_like(bins))
    return tf.reshape(counts, [packed.CHANNELS, _LEVELS])


def look_up(image: tf.Tensor, table: tf.Tensor) -> tf.Tensor:
    """Replaces value v of channel c by `table[c, v]`; the table is int32 [3, 256], 0 to 255."""
    table = tf.reshape(table, [-1])

    def block(rows: tf.Tensor) -> tf.Tensor:
        channels = enumerate(packed.split(rows))
        return packed.join([tf.gather(table, c + _LEVELS * index) for index, c in channels])

    return packed.by_blocks(block, image.shape[1], image)


def color(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Blends with the grey image: factor 0 is grey, 1 unchanged."""
    return _enhance(image, [_luminance(image)] * packed.CHANNELS, factor)


def contrast(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Blends with the mean grey: factor 0 is a constant grey, 1 unchanged."""
    count = image.shape.num_elements()
    total = tf.reduce_sum(tf.cast(_luminance(image), tf.int64))
    mean = tf.cast((2 * total + count) // (2 * count), tf.int32)
    return _enhance(image, [mean] * packed.CHANNELS, factor)


def brightness(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Blends with black: factor 0 is black, 1 unchanged."""
    return _enhance(image, [tf.constant(0)] * packed.CHANNELS, factor)


def sharpness(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Blends with the smoothed image: factor 0 is smooth, 1 unchanged, 2 sharper."""
    return _enhance(image, [_smooth(channel) for channel in packed.split(image)], factor)


def _enhance(image: tf.Tensor, degenerate: list[tf.Tensor], factor: tf.Tensor) -> tf.Tensor:
    """Returns degenerate + factor * (image - degenerate) in 0..255, in float32 as Pillow."""
    factor = tf.cast(factor, tf.float32)
    channels = []
    for value, base in zip(packed.split(image), degenerate, strict=True):
        base = tf.cast(base, tf.float32)
        blend = base + packed.rounded(factor * (tf.cast(value, tf.float32) - base))
        channels.append(tf.cast(tf.clip_by_value(blend, 0.0, 255.0), tf.int32))
    return packed.join(channels)


def _luminance(image: tf.Tensor) -> tf.Tensor:
    """Returns ITU-R 601 grey in Pillow's 16-bit fixed point, int32, 0 to 255."""
    red, green, blue = packed.split(image)
    return tf.bitwise.right_shift(19595 * red + 38470 * green + 7471 * blue + 32768, 16)


def _smooth(channel: tf.Tensor) -> tf.Tensor:
    """Returns the 3x3 mean with centre weight 5, rounded; border pixels are kept. int32 [H, W]."""
    height, width = channel.shape
    if height < 3 or width < 3:
        return channel
    rows = channel[:-2] + channel[1:-1] + channel[2:]
    total = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:] + 4 * channel[1:-1, 1:-1]
    # total / 13 is never close to a half, so integer arithmetic rounds as Pillow's floats do.
    middle = (2 * total + 13) // 26
    middle = tf.concat([channel[1:-1, :1], middle, channel[1:-1, -1:]], axis=1)
    return tf.concat([channel[:1], middle, channel[-1:]], axis=0)
