"""Pillow's four enhancers: degenerate + factor * (picture - degenerate), cut to 0..255.

Per picture: int32 [H, W], packed (`pixels`). Equal to `PIL.ImageEnhance` in every value, which
takes float32, as Pillow blends in it.
"""

from __future__ import annotations

import tensorflow as tf

from augmix_tf.ops import pixels


def color(picture: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Blends with the grey picture: factor 0 is grey, 1 unchanged."""
    return _enhance(picture, [_luminance(picture)] * pixels.CHANNELS, factor)


def contrast(picture: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Blends with the mean grey: factor 0 is one flat grey, 1 unchanged."""
    count = picture.shape.num_elements()
    total = tf.reduce_sum(tf.cast(_luminance(picture), tf.int64))
    mean = tf.cast((2 * total + count) // (2 * count), tf.int32)
    return _enhance(picture, [mean] * pixels.CHANNELS, factor)


def brightness(picture: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Blends with black: factor 0 is black, 1 unchanged."""
    return _enhance(picture, [tf.constant(0)] * pixels.CHANNELS, factor)


def sharpness(picture: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Blends with the smoothed picture: factor 0 is smooth, 1 unchanged, 2 sharper."""
    return _enhance(picture, [_smooth(channel) for channel in pixels.split(picture)], factor)


def _enhance(picture: tf.Tensor, degenerate: list[tf.Tensor], factor: tf.Tensor) -> tf.Tensor:
    factor = tf.cast(factor, tf.float32)
    channels = []
    for value, base in zip(pixels.split(picture), degenerate, strict=True):
        base = tf.cast(base, tf.float32)
        blend = base + pixels.rounded(factor * (tf.cast(value, tf.float32) - base))
        channels.append(tf.cast(tf.clip_by_value(blend, 0.0, 255.0), tf.int32))
    return pixels.join(channels)


def _luminance(picture: tf.Tensor) -> tf.Tensor:
    """ITU-R 601 grey in Pillow's 16-bit fixed point, int32, 0 to 255."""
    red, green, blue = pixels.split(picture)
    return pixels.shift_right(19595 * red + 38470 * green + 7471 * blue + 32768, 16)


def _smooth(channel: tf.Tensor) -> tf.Tensor:
    """The 3 x 3 mean with centre weight 5, rounded; the rim is kept. int32 [H, W]."""
    height, width = channel.shape
    if height < 3 or width < 3:
        return channel
    rows = channel[:-2] + channel[1:-1] + channel[2:]
    total = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:] + 4 * channel[1:-1, 1:-1]
    # total / 13 is never close to a half, so integers round it as Pillow's floats do.
    middle = (2 * total + 13) // 26
    middle = tf.concat([channel[1:-1, :1], middle, channel[1:-1, -1:]], axis=1)
    return tf.concat([channel[:1], middle, channel[-1:]], axis=0)
