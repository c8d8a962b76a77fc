"""Encoded images to pixels, inside the graph that a server runs."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from augmix_tf.checks import require
from augmix_tf.ops import encoded
from augmix_tf.serving import headers

LARGEST_AREA = 2**25  # pixels: 100 MB decoded, more than a camera's 24 megapixels
LARGEST_SIDE = 2**14  # pixels: resizing holds height x LARGEST_SIDE float32 pixels
UNKNOWN_FORMAT = "unknown format"
TOO_LARGE = "too large"
BROKEN = "cannot be decoded"


class Decoded(NamedTuple):
    """Images of one size, and what was wrong with each.

    Attributes:
        images: float32 [N, height, width, 3], 0..255; black where there is an error.
        errors: string [N]; empty where there is none.
    """

    images: tf.Tensor
    errors: tf.Tensor


def decode(
    image_bytes: tf.Tensor, height: int, width: int, short_side: int | None = None
) -> Decoded:
    """Decodes images and brings them to one size.

    - PNG, JPEG, GIF (its first picture) and BMP, as `ops.encoded` decodes them: with a JPEG's exact
      values, grey as three equal channels, opacity dropped, no orientation tag applied.
    - One of the size wanted stays as it is.
    - Another one is resized to height x width, whatever its aspect ratio; or, with `short_side`,
      so that its short side becomes that, and the centre is taken, as `ops.encoded.decode_centre`
      does. Bilinear and with antialiasing (as Pillow does, so that shrinking averages and does not
      pick); nothing is rounded.

    An image that is none gives an error of its own and leaves the others as they are:

        "unknown format"     empty, or it begins like none of the four kinds
        "too large"          its header announces more than 2**25 pixels or a side above 2**14, or
                             a GIF's first picture is longer than 2**24 bytes; nothing was decoded
        "cannot be decoded"  cut off, damaged, or a variant that TensorFlow does not read

    GIF and BMP have no checksums: one with wrong bytes in a whole structure is a wrong picture and
    no error.

    One image is unpacked at a time. Beside its bytes and its result, a request needs the memory of
    its largest image, for the pixels and for what resizing holds at most

        3 * 2**25 + 12 * height * 2**14 bytes, at height 224 about 150 MB

    and while it is decoded, where that is more, a progressive JPEG up to 375 MB, of which most are
    its coefficients. GIF and BMP are copied on the way: a GIF's first picture three times (50 MB at
    most), of a BMP the values of its pixels.

    Args:
        image_bytes: string [N]; N may be 0.
        height, width: of the result.
        short_side: of a picture whose centre is taken, in pixels.

    Raises:
        CommandError: a height or width above `short_side`.
    """
    size = height, width
    if short_side is not None:
        require(max(size) <= short_side, f"a size of at most {short_side}", size)
    black = tf.zeros([*size, 3])
    count = tf.size(image_bytes, out_type=tf.int64)

    def one(position: tf.Tensor) -> tuple[tf.Tensor, ...]:
        return position, *_decode_one(image_bytes[position], size, short_side)

    # A graph cannot catch the error of an operation; a dataset can leave out the element that had
    # it. What is left out is found by its position. The last element is there in any case, because
    # a batch has at least one.
    decoded = tf.data.Dataset.range(count).map(one).ignore_errors()
    last = tf.data.Dataset.from_tensors((count, black, tf.constant("")))
    positions, images, errors = decoded.concatenate(last).batch(count + 1).get_single_element()
    places = positions[:, None]
    all_broken = tf.fill([count + 1], BROKEN)
    return Decoded(
        tf.scatter_nd(places, images, [count + 1, height, width, 3])[:-1],
        tf.tensor_scatter_nd_update(all_broken, places, errors)[:-1],
    )


def _decode_one(
    file_bytes: tf.Tensor, size: encoded.Size, short_side: int | None
) -> tuple[tf.Tensor, tf.Tensor]:
    kind = headers.kind(file_bytes)
    file, sides = headers.announced(file_bytes, kind)
    # Sides first: the product of two that are wrong may not fit into int64.
    too_large = (tf.reduce_max(sides) > LARGEST_SIDE) | (tf.reduce_prod(sides) > LARGEST_AREA)
    error = tf.where(too_large, TOO_LARGE, "")
    error = tf.where(kind == headers.UNKNOWN, UNKNOWN_FORMAT, error)
    black = tf.zeros([*size, 3])
    image = tf.cond(error == "", lambda: _pixels(file, size, short_side), lambda: black)
    return image, error


def _pixels(file: tf.Tensor, size: encoded.Size, short_side: int | None) -> tf.Tensor:
    pixels = encoded.decode(file)
    has_size = tf.reduce_all(tf.shape(pixels)[:2] == size)
    pixels = tf.cond(
        has_size,
        lambda: tf.cast(pixels, tf.float32),
        lambda: _resized(pixels, size, short_side),
    )
    return tf.ensure_shape(pixels, [*size, 3])


def _resized(pixels: tf.Tensor, size: encoded.Size, short_side: int | None) -> tf.Tensor:
    sides = tf.shape(pixels)[:2]
    if short_side is None:
        whole, corner = tf.constant(size), tf.constant([0, 0])
    else:
        whole, corner = encoded.centre(sides, size, short_side)
    # In one call: the two of `encoded` hold the whole picture as float32, and a stranger's may be
    # large.
    return tf.raw_ops.ScaleAndTranslate(
        images=pixels[None],
        size=size,
        scale=tf.cast(whole, tf.float32) / tf.cast(sides, tf.float32),
        translation=tf.cast(-corner, tf.float32),
        kernel_type="triangle",
        antialias=True,
    )[0]
