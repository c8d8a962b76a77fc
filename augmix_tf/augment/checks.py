"""Checks of the arguments of augmentations, and images of any type as 8-bit levels and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from augmix_tf.errors import ArgumentError, require

ValueRange = Sequence[float]


def ensure(condition: tf.Tensor, message: str, *values: tf.Tensor) -> None:
    """Raises `ArgumentError` unless `condition`; in a graph `InvalidArgumentError` when it runs."""
    if not tf.executing_eagerly():
        tf.debugging.Assert(condition, [message, *values])
    elif not condition:
        raise ArgumentError(" ".join([message, *(str(value.numpy()) for value in values)]))


def check_value_range(value_range: ValueRange) -> tuple[float, float]:
    """Returns (low, high), the values of black and white."""
    fits = isinstance(value_range, Sequence) and len(value_range) == 2
    fits = fits and value_range[0] < value_range[1]
    require(fits, "a value_range (low, high) such as (0, 255), (0, 1) or (-1, 1)", value_range)
    return value_range[0], value_range[1]


def check_channels_last(shape: Any) -> None:
    """Raises `ArgumentError` unless images [N, H, W, C] or [H, W, C] have 3 or 1 channels."""
    rank = getattr(shape, "rank", 0) if isinstance(shape, tf.TensorShape) else len(shape)
    if rank in (3, 4) and shape[-1] in (1, 3):
        return
    advice = "Set the shape of images of unknown rank or channels with `tf.ensure_shape`."
    if rank in (3, 4) and shape[-1] == 4:
        advice = "Drop the alpha channel: images[..., :3]."
    elif rank in (3, 4) and shape[-3] in (1, 3):
        advice = "Move the channels to the end: keras.ops.moveaxis(images, -3, -1)."
    elif rank is not None:
        advice = "The channels are red, green and blue, or one of grey."
    raise ArgumentError(
        "Expected images [N, H, W, C] or [H, W, C] with 3 or 1 channels; "
        f"received {shape}. {advice}"
    )


def to_levels(images: tf.Tensor, value_range: ValueRange = (0, 255)) -> tf.Tensor:
    """Returns images as uint8 [..., H, W, 3]: the nearest of 256 levels, clipped; grey repeated.

    Args:
        images: [..., H, W, C] of any number type, with 3 or 1 channels, H and W known.
        value_range: of black and white.

    Raises:
        ArgumentError: another shape; integers in another range than 0 to 255; floating-point
            images that cannot be in `value_range` (in a graph: `InvalidArgumentError`).
    """
    check_channels_last(images.shape)
    if None in images.shape[-3:]:
        raise ArgumentError(
            f"Expected images of a size that is known beforehand; received {images.shape}. "
            "Resize them (`tf.image.resize`), or set the size of all with `tf.ensure_shape`."
        )
    check_values(images, value_range)
    if images.dtype.is_floating:
        low, high = value_range
        images = tf.round((tf.cast(images, tf.float32) - low) * (255 / (high - low)))
    levels = images if images.dtype == tf.uint8 else tf.saturate_cast(images, tf.uint8)
    return levels if levels.shape[-1] == 3 else tf.concat([levels] * 3, axis=-1)


def from_levels(views: tf.Tensor, images: tf.Tensor, value_range: ValueRange) -> tf.Tensor:
    """Returns float32 levels in the range, float type (else float32) and channels of `images`."""
    low, high = value_range
    views = views[..., : images.shape[-1]]
    if (low, high) != (0, 255):
        views = views * ((high - low) / 255) + low
    return tf.cast(views, images.dtype) if images.dtype.is_floating else views


def check_values(images: tf.Tensor, value_range: ValueRange) -> None:
    """Raises an error for images that cannot be in the range: see `to_levels`.

    Integers are in 0..255. Floats cannot be in it if a value lies outside by more than half of the
    range, which no interpolation exceeds. Neither can images in 0..1 or -1..1, or standardized
    ones, be in 0..255, unless they are whole numbers or nearly all black.
    """
    low, high = value_range
    if not images.dtype.is_floating:
        require((low, high) == (0, 255), "value_range=(0, 255) for integers", (low, high))
        return
    images = tf.cast(images, tf.float32)
    least, most = tf.reduce_min(images), tf.reduce_max(images)
    margin = (high - low) / 2
    implausible = (least < low - margin) | (most > high + margin)
    if high - low > 8:
        small = (most <= 4) & (least >= -4) & ((most <= 1) | (least < 0))
        bright = tf.reduce_mean(tf.abs(images)) > 1 / 32
        implausible |= small & bright & tf.reduce_any(images != tf.round(images))
    ensure(
        ~implausible,
        f"Expected images in {low}..{high}, the value_range; received floating-point values in "
        "another range. Give `value_range` as theirs, such as (0, 1), or scale them; cast images "
        "that are nearly black to uint8. Lowest and highest value:",
        least,
        most,
    )
