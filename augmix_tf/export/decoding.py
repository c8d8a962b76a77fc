"""Decoding of encoded images inside the served graph, with bounds on what a file may cost."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from augmix_tf.errors import require
from augmix_tf.ops import decoding, formats

LARGEST_AREA = 2**25  # pixels: 100 MB decoded, more than a camera's 24 megapixels
LARGEST_SIDE = 2**14  # pixels: resizing holds height x LARGEST_SIDE float32 pixels
UNKNOWN_FORMAT = "unknown format"
TOO_LARGE = "too large"
UNREADABLE = "cannot be decoded"
# Errors of an unknown format and of each in `formats.NAMES`.
_FORMAT_ERRORS = (
    UNKNOWN_FORMAT,
    *("" for _ in formats.DECODED),
    *(f"{name} is not supported" for name in formats.REFUSED),
)


class Decoded(NamedTuple):
    """Images of one size, and the error of each."""

    images: tf.Tensor  # float32 [N, height, width, 3], 0..255; black where there is an error
    errors: tf.Tensor  # string [N]; empty where there is none


def decode(
    image_bytes: tf.Tensor, height: int, width: int, short_side: int | None = None
) -> Decoded:
    """Decodes images and resizes them to one size.

    JPEG, PNG and still WebP are decoded as by `ops.formats.decode`. An image of the given size is
    not resized. Any other is resized to height x width, whatever its aspect ratio; with
    `short_side`, it is resized so that its short side has that length, and the center is cropped
    (as `ops.decoding.decode_centre` does). Resizing is bilinear with antialiasing, as in Pillow;
    values are not rounded.

    An image that cannot be decoded has an error, and does not affect the others:

        "unknown format"          empty, or not one of the formats that `ops.formats` knows
        "<F> is not supported"    for F one of `ops.formats.REFUSED`
        "too large"               its header states more than 2**25 pixels or a side above 2**14;
                                  nothing was decoded
        "cannot be decoded"       truncated, damaged, or a variant that TensorFlow does not decode

    Images are decoded one at a time, which bounds the memory of a request: `docs/serving.md`.

    `image_bytes` are string [N], the contents of files; N may be 0.
    """
    size = height, width
    if short_side is not None:
        require(max(size) <= short_side, f"a size of at most {short_side}", size)
    count = tf.size(image_bytes, out_type=tf.int64)

    def decode_at(position: tf.Tensor) -> tuple[tf.Tensor, ...]:
        return position, *_decode_one(image_bytes[position], size, short_side)

    # A graph cannot catch the error of an operation, but a dataset can drop the element that had
    # it. The positions tell which elements were dropped. The last element keeps the batch from
    # being empty.
    decoded = tf.data.Dataset.range(count).map(decode_at).ignore_errors()
    last = tf.data.Dataset.from_tensors((count, tf.zeros([*size, 3]), tf.constant("")))
    positions, images, errors = decoded.concatenate(last).batch(count + 1).get_single_element()
    rows = positions[:, None]
    unreadable = tf.fill([count + 1], UNREADABLE)
    return Decoded(
        tf.scatter_nd(rows, images, [count + 1, height, width, 3])[:-1],
        tf.tensor_scatter_nd_update(unreadable, rows, errors)[:-1],
    )


def _decode_one(
    file: tf.Tensor, size: decoding.Size, short_side: int | None
) -> tuple[tf.Tensor, tf.Tensor]:
    stated = formats.size(file)
    # The product of two sides from a damaged header may overflow int64, so check the sides as well.
    too_large = (tf.reduce_max(stated) > LARGEST_SIDE) | (tf.reduce_prod(stated) > LARGEST_AREA)
    format_error = tf.gather(_FORMAT_ERRORS, formats.format_of(file) + 1)
    error = tf.where(format_error != "", format_error, tf.where(too_large, TOO_LARGE, ""))
    image = tf.cond(
        error == "", lambda: _pixels(file, size, short_side), lambda: tf.zeros([*size, 3])
    )
    return image, error


def _pixels(file: tf.Tensor, size: decoding.Size, short_side: int | None) -> tf.Tensor:
    pixels = formats.decode(file)
    sides = tf.shape(pixels)[:2]
    if short_side is None:
        resized_sides, corner = tf.constant(size), tf.constant([0, 0])
    else:
        resized_sides, corner = decoding.centre(sides, size, short_side)

    def resized() -> tf.Tensor:
        # One call for both axes: the two calls of `ops.decoding` hold the image at its full size
        # as float32.
        return tf.raw_ops.ScaleAndTranslate(
            images=pixels[None],
            size=size,
            scale=tf.cast(resized_sides, tf.float32) / tf.cast(sides, tf.float32),
            translation=tf.cast(-corner, tf.float32),
            kernel_type="triangle",
            antialias=True,
        )[0]

    has_size = tf.reduce_all(sides == size)
    pixels = tf.cond(has_size, lambda: tf.cast(pixels, tf.float32), resized)
    return tf.ensure_shape(pixels, [*size, 3])
