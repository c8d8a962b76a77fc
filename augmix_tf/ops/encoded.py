"""Encoded picture files to pixels, inside the graph of an input pipeline.

JPEG, PNG, GIF (its first picture) and BMP, told apart by content: of ImageNet's .JPEG files one is
a PNG, and some are CMYK.

- Grey becomes three equal channels. Opacity is dropped, and of 16 bits a value the upper eight
  count. An orientation tag is not applied, and neither is the colour table of a BMP.
- A JPEG's values are Pillow's. CMYK is the exception: TensorFlow cuts where Pillow rounds, so up to
  one level less; and it takes values as inverted only where Adobe's marker says so, Pillow always.
- What cannot be decoded raises `tf.errors.InvalidArgumentError`.

Pictures of strangers are for `serving.decoding`, which bounds what they may cost.
"""

from __future__ import annotations

from typing import TypeAlias

import tensorflow as tf

from augmix_tf import checks
from augmix_tf.ops.pixels import CHANNELS

Size: TypeAlias = tuple[int, int]
"""(height, width) in pixels."""

# Pillow's, and the exact one; TensorFlow's own default is off by a few levels and hardly faster.
_TRANSFORM = "INTEGER_ACCURATE"
_NEIGHBOURS = 2
# Values between two levels become the upper one, as in Pillow, also where float32 is a little low.
_HALF = 0.5 + 2.0**-12


def sides(encoded: tf.Tensor) -> tf.Tensor:
    """Returns height and width of a picture, int32 [2].

    Of a JPEG only the header is read; other formats are decoded.

    Args:
        encoded: string [], the content of a file.
    """
    return tf.cond(
        tf.io.is_jpeg(encoded),
        lambda: tf.io.extract_jpeg_shape(encoded)[:2],
        lambda: tf.shape(_decode_other(encoded))[:2],
    )


def decode(encoded: tf.Tensor) -> tf.Tensor:
    """Returns the pixels of a picture, uint8 [h, w, 3].

    Args:
        encoded: string [], the content of a file.
    """
    pixels = tf.cond(
        tf.io.is_jpeg(encoded),
        lambda: tf.io.decode_jpeg(encoded, CHANNELS, dct_method=_TRANSFORM),
        lambda: _decode_other(encoded),
    )
    return tf.ensure_shape(pixels, [None, None, CHANNELS])


def decode_window(encoded: tf.Tensor, window: tf.Tensor, size: Size) -> tf.Tensor:
    """Returns one window of a picture, resized.

    Bilinear with antialiasing, as in Pillow: columns first, then rows, both rounded to the nearest
    level. Of all values 0.2 % differ from Pillow's, by one level: it has other weights at ties.
    (Pillow 13 and later do rows first where that is less work; then a sixth differs.)

    Of a JPEG only the window's part is transformed. Damage below the window may go unnoticed.

    Args:
        encoded: string [], the content of a file.
        window: int32 [4], top, left, height and width of what is taken, within the picture.
        size: (H, W) of the result.

    Returns:
        uint8 [H, W, 3].

    Raises:
        tf.errors.InvalidArgumentError: also for a window that is not within the picture.
    """
    pixels = tf.cond(
        tf.io.is_jpeg(encoded),
        lambda: _decode_part(encoded, window),
        lambda: _cut(_decode_other(encoded), window),
    )
    return _resized(pixels, tf.constant(size), tf.constant([0, 0]), size)


def decode_centre(encoded: tf.Tensor, size: Size, short_side: int) -> tf.Tensor:
    """Returns the centre of a picture whose short side was resized: ImageNet's evaluation.

    The long side becomes floor(short_side * long / short). The corner of the centre is rounded, and
    to even where it lies between two pixels. Both are torchvision's Resize and CenterCrop. Resized
    as in `decode_window`.

    Args:
        encoded: string [], the content of a file.
        size: (H, W) of the result, neither above `short_side`.
        short_side: of the resized picture, in pixels.

    Returns:
        uint8 [H, W, 3].

    Raises:
        CommandError: a size above `short_side`.
    """
    pixels = decode(encoded)
    whole, corner = centre(tf.shape(pixels)[:2], size, short_side)
    return _resized(pixels, whole, corner, size)


def centre(from_sides: tf.Tensor, size: Size, short_side: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns height and width of a picture whose short side was resized, and its centre's corner.

    The rule of `decode_centre`.

    Args:
        from_sides: int32 [2], height and width before.
        size: (H, W) of the centre, neither above `short_side`.
        short_side: in pixels.

    Returns:
        int32 [2] each.

    Raises:
        CommandError: a size above `short_side`.
    """
    checks.require(max(size) <= short_side, f"a size of at most {short_side}", size)
    whole = short_side * from_sides // tf.reduce_min(from_sides)
    return whole, tf.cast(tf.round((whole - tf.constant(size)) / 2), tf.int32)


def short_side(size: Size) -> int:
    """What the short side becomes where ImageNet's rule is taken for another size than 224.

    >>> short_side((224, 224)), short_side((64, 64))
    (256, 73)
    """
    return round(max(size) * 256 / 224)


def _decode_part(encoded: tf.Tensor, window: tf.Tensor) -> tf.Tensor:
    """The window of a JPEG, as if it was cut out of the whole picture."""
    # Colours are stored at half the width, and read without a neighbour at the border of what is
    # decoded: one column in ten windows would be off, by up to 16 levels.
    top, left, height, width = tf.unstack(window)
    start = tf.maximum(left - _NEIGHBOURS, 0)
    end = tf.minimum(left + width + _NEIGHBOURS, tf.io.extract_jpeg_shape(encoded)[1])
    wider = tf.stack([top, start, height, end - start])
    pixels = tf.io.decode_and_crop_jpeg(encoded, wider, CHANNELS, dct_method=_TRANSFORM)
    return _cut(pixels, tf.stack([0, left - start, height, width]))


def _resized(pixels: tf.Tensor, whole: tf.Tensor, corner: tf.Tensor, size: Size) -> tf.Tensor:
    """The window of `size` at `corner` of pixels that are resized to `whole`: uint8 [H, W, 3]."""
    # The kernel is fast where it adds whole rows: so the picture is turned for its columns.
    columns = _resized_rows(_turned(pixels), whole[1], corner[1], size[1])
    resized = _resized_rows(_turned(columns), whole[0], corner[0], size[0])
    return tf.ensure_shape(resized, [*size, CHANNELS])


def _resized_rows(pixels: tf.Tensor, whole: tf.Tensor, first: tf.Tensor, count: int) -> tf.Tensor:
    """Rows from `first` on of pixels that are resized to `whole` rows: uint8 [count, w, 3]."""
    height, width, _ = tf.unstack(tf.shape(pixels))
    # A row is one pixel with many channels here. As one pixel of a row of many the kernel would
    # share the rows out among all cores, which are at work on other pictures: twice the time.
    resized = tf.raw_ops.ScaleAndTranslate(
        images=tf.reshape(pixels, [1, 1, height, width * CHANNELS]),
        size=[1, count],
        scale=tf.stack([1.0, tf.cast(whole / height, tf.float32)]),
        translation=tf.stack([0.0, tf.cast(-first, tf.float32)]),
        kernel_type="triangle",
        antialias=True,
    )
    rounded = tf.cast(resized + _HALF, tf.uint8)
    return tf.reshape(rounded, [count, width, CHANNELS])


def _turned(pixels: tf.Tensor) -> tf.Tensor:
    return tf.transpose(pixels, [1, 0, 2])


def _cut(pixels: tf.Tensor, window: tf.Tensor) -> tf.Tensor:
    top, left, height, width = tf.unstack(window)
    return tf.slice(pixels, [top, left, 0], [height, width, CHANNELS])


def _decode_other(encoded: tf.Tensor) -> tf.Tensor:
    is_bmp = tf.strings.substr(encoded, 0, 2) == "BM"
    return tf.cond(is_bmp, lambda: _decode_bmp(encoded), lambda: _decode_any(encoded))


def _decode_any(encoded: tf.Tensor) -> tf.Tensor:
    pixels = tf.io.decode_image(encoded, CHANNELS, expand_animations=False)
    return tf.ensure_shape(pixels, [None, None, CHANNELS])


def _decode_bmp(encoded: tf.Tensor) -> tf.Tensor:
    # Asked for three channels, TensorFlow refuses BMP files that have one or four.
    pixels = tf.io.decode_bmp(encoded)
    grey = tf.shape(pixels)[2] == 1
    return tf.cond(grey, lambda: tf.repeat(pixels, CHANNELS, axis=2), lambda: pixels[..., :3])
