"""Encoded images to pixels of one size, inside the graph of an input pipeline.

Formats and values are those of `ops.formats`; what cannot be decoded raises
`tf.errors.InvalidArgumentError`. `export.decoding` decodes images from untrusted sources, within
bounds on memory.
"""

from __future__ import annotations

from typing import TypeAlias

import tensorflow as tf

from augmix_tf import errors
from augmix_tf.ops import formats
from augmix_tf.ops.packed import CHANNELS

Size: TypeAlias = tuple[int, int]
"""(height, width) in pixels."""

_NEIGHBOURS = 2
# Rounds halves up as Pillow does, also where float32 comes out slightly too low.
_HALF = 0.5 + 2.0**-12


def sides(encoded: tf.Tensor) -> tf.Tensor:
    """Returns the height and width in the header of an image, int32 [2]."""
    return tf.cast(formats.size(encoded), tf.int32)


def decode_window(encoded: tf.Tensor, window: tf.Tensor, size: Size) -> tf.Tensor:
    """Returns one window of an image (top, left, height, width) resized to uint8 [H, W, 3].

    Bilinear with antialiasing, as in Pillow: columns first, then rows, both rounded to the nearest
    level. 0.2 % of the values differ from Pillow's, by one level: its weights at ties differ.
    (Pillow 13 and later resizes rows first where that is less work; then one in six differs.)

    Only the window's part of a JPEG is transformed, so damage below it may go unnoticed.
    """
    pixels = tf.cond(
        tf.io.is_jpeg(encoded),
        lambda: _decode_jpeg_window(encoded, window),
        lambda: _crop(formats.decode(encoded), window),
    )
    return _resize(pixels, tf.constant(size), tf.constant([0, 0]), size)


def decode_centre(encoded: tf.Tensor, size: Size, short_side: int) -> tf.Tensor:
    """Returns the centre crop of an image after resizing its short side, as for ImageNet.

    The long side becomes floor(short_side * long / short). The corner of the crop is rounded, half
    to even. Both as in torchvision's Resize and CenterCrop. Resizes as `decode_window` does, to
    uint8 [H, W, 3], neither of which may be above `short_side`.
    """
    pixels = formats.decode(encoded)
    resized_sides, corner = centre(tf.shape(pixels)[:2], size, short_side)
    return _resize(pixels, resized_sides, corner, size)


def centre(from_sides: tf.Tensor, size: Size, short_side: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the sides of the resized image and the corner of its centre crop, int32 [2] each."""
    errors.require(max(size) <= short_side, f"a size of at most {short_side}", size)
    resized_sides = short_side * from_sides // tf.reduce_min(from_sides)
    return resized_sides, tf.cast(tf.round((resized_sides - tf.constant(size)) / 2), tf.int32)


def short_side(size: Size) -> int:
    """Returns the short side to resize to before a centre crop: 256 for 224, in proportion.

    >>> short_side((224, 224)), short_side((64, 64))
    (256, 73)
    """
    return round(max(size) * 256 / 224)


def _decode_jpeg_window(encoded: tf.Tensor, window: tf.Tensor) -> tf.Tensor:
    """Returns the window of a JPEG, with the values it has in the complete image."""
    # Chroma is stored at half the width and upsampled without neighbours at the border of the
    # decoded part, which would change one column in ten windows by up to 16 levels.
    top, left, height, width = tf.unstack(window)
    start = tf.maximum(left - _NEIGHBOURS, 0)
    end = tf.minimum(left + width + _NEIGHBOURS, tf.io.extract_jpeg_shape(encoded)[1])
    wider = tf.stack([top, start, height, end - start])
    pixels = tf.io.decode_and_crop_jpeg(encoded, wider, CHANNELS, dct_method=formats.TRANSFORM)
    return _crop(pixels, tf.stack([0, left - start, height, width]))


def _resize(
    pixels: tf.Tensor, resized_sides: tf.Tensor, corner: tf.Tensor, size: Size
) -> tf.Tensor:
    """Resizes to `resized_sides` and returns the crop of `size` at `corner`: uint8 [H, W, 3]."""
    # The kernel is fastest at adding complete rows, so columns are resized as rows too.
    for axis in (1, 0):
        rows = tf.transpose(pixels, [1, 0, 2])
        pixels = _resize_rows(rows, resized_sides[axis], corner[axis], size[axis])
    return tf.ensure_shape(pixels, [*size, CHANNELS])


def _resize_rows(pixels: tf.Tensor, rows: tf.Tensor, first: tf.Tensor, count: int) -> tf.Tensor:
    """Resizes to `rows` rows and returns `count` of them from `first` on: uint8 [count, w, 3]."""
    height, width, _ = tf.unstack(tf.shape(pixels))
    # Each row is passed as one pixel with many channels. As a row of pixels, the kernel would
    # divide the rows among all cores, which are busy with other images: twice the time.
    resized = tf.raw_ops.ScaleAndTranslate(
        images=tf.reshape(pixels, [1, 1, height, width * CHANNELS]),
        size=[1, count],
        scale=tf.stack([1.0, tf.cast(rows / height, tf.float32)]),
        translation=tf.stack([0.0, tf.cast(-first, tf.float32)]),
        kernel_type="triangle",
        antialias=True,
    )
    rounded = tf.cast(resized + _HALF, tf.uint8)
    return tf.reshape(rounded, [count, width, CHANNELS])


def _crop(pixels: tf.Tensor, window: tf.Tensor) -> tf.Tensor:
    top, left, height, width = tf.unstack(window)
    return tf.slice(pixels, [top, left, 0], [height, width, CHANNELS])
