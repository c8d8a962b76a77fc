"""Encoded images to pixels, inside the graph that a server runs."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

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


def decode(image_bytes: tf.Tensor, height: int, width: int) -> Decoded:
    """Decodes images and brings them to one size.

    - PNG, JPEG, GIF (its first picture) and BMP; of 16 bits a value the upper eight.
    - JPEG goes through TensorFlow's default transform, as in `tf.data` pipelines: a few levels from
      the exact one.
    - Grey becomes three equal channels; opacity is dropped and the colours under it count.
    - Another size is resized to height x width, bilinear and with antialiasing (as Pillow does, so
      that shrinking averages and does not pick), whatever the aspect ratio; nothing is rounded.
    - An orientation tag is not applied, and neither is the colour table of a BMP.

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
    """
    black = tf.zeros([height, width, 3])
    count = tf.size(image_bytes, out_type=tf.int64)

    def one(position: tf.Tensor) -> tuple[tf.Tensor, ...]:
        return position, *_decode_one(image_bytes[position], height, width)

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


def _decode_one(encoded: tf.Tensor, height: int, width: int) -> tuple[tf.Tensor, tf.Tensor]:
    kind = headers.kind(encoded)
    file, sides = headers.announced(encoded, kind)
    # Sides first: the product of two that are wrong may not fit into int64.
    too_large = (tf.reduce_max(sides) > LARGEST_SIDE) | (tf.reduce_prod(sides) > LARGEST_AREA)
    error = tf.where(too_large, TOO_LARGE, "")
    error = tf.where(kind == headers.UNKNOWN, UNKNOWN_FORMAT, error)
    black = tf.zeros([height, width, 3])
    image = tf.cond(error == "", lambda: _pixels(file, kind, height, width), lambda: black)
    return image, error


def _pixels(encoded: tf.Tensor, kind: tf.Tensor, height: int, width: int) -> tf.Tensor:
    is_bmp = kind == headers.BMP
    pixels = tf.cond(is_bmp, lambda: _decode_bmp(encoded), lambda: _decode_other(encoded))
    has_size = tf.reduce_all(tf.shape(pixels)[:2] == [height, width])
    pixels = tf.cond(
        has_size,
        lambda: tf.cast(pixels, tf.float32),
        lambda: tf.image.resize(pixels, [height, width], "bilinear", antialias=True),
    )
    return tf.ensure_shape(pixels, [height, width, 3])


def _decode_other(encoded: tf.Tensor) -> tf.Tensor:
    pixels = tf.io.decode_image(encoded, channels=3, expand_animations=False)
    return tf.ensure_shape(pixels, [None, None, 3])


def _decode_bmp(encoded: tf.Tensor) -> tf.Tensor:
    # Asked for three channels, TensorFlow refuses BMP files that have one or four.
    pixels = tf.io.decode_bmp(encoded, channels=0)
    grey = tf.shape(pixels)[2] == 1
    return tf.cond(grey, lambda: tf.repeat(pixels, 3, axis=2), lambda: pixels[:, :, :3])
