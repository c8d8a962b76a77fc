"""Encoded images to pixels, inside the graph that a server runs."""

from __future__ import annotations

import tensorflow as tf


def decode(image_bytes: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """Decodes images and brings them to one size.

    - PNG, JPEG, GIF (its first frame), BMP, and what more `tf.io.decode_image` of the server's
      TensorFlow reads; of 16 bits a value the upper eight.
    - JPEG goes through TensorFlow's default transform, as in `tf.data` pipelines: a few levels from
      the exact one.
    - Grey becomes three equal channels; opacity is dropped and the colours under it count.
    - Another size is resized to height x width, bilinear and with antialiasing (as Pillow does, so
      that shrinking averages and does not pick), whatever the aspect ratio; nothing is rounded.
    - An orientation tag is not applied.

    Args:
        image_bytes: string [N]; N may be 0.
        height, width: of the result.

    Returns:
        float32 [N, height, width, 3], 0..255.

    Raises:
        tf.errors.InvalidArgumentError: one of them is no image of these kinds, or cut short; the
            whole batch fails, and a server passes the message on.
    """

    def one(encoded: tf.Tensor) -> tf.Tensor:
        is_bmp = tf.strings.substr(encoded, 0, 2) == b"BM"
        pixels = tf.cond(is_bmp, lambda: _decode_bmp(encoded), lambda: _decode_other(encoded))
        pixels = tf.cast(pixels, tf.float32)
        has_size = tf.reduce_all(tf.shape(pixels)[:2] == [height, width])
        pixels = tf.cond(has_size, lambda: pixels, lambda: _resize(pixels, height, width))
        return tf.ensure_shape(pixels, [height, width, 3])

    return tf.map_fn(one, image_bytes, fn_output_signature=tf.float32)


def _decode_other(encoded: tf.Tensor) -> tf.Tensor:
    pixels = tf.io.decode_image(encoded, channels=3, expand_animations=False)
    return tf.ensure_shape(pixels, [None, None, 3])


def _decode_bmp(encoded: tf.Tensor) -> tf.Tensor:
    # Asked for three channels, TensorFlow refuses BMP files that have one or four.
    pixels = tf.io.decode_bmp(encoded, channels=0)
    grey = tf.shape(pixels)[2] == 1
    return tf.cond(grey, lambda: tf.repeat(pixels, 3, axis=2), lambda: pixels[:, :, :3])


def _resize(pixels: tf.Tensor, height: int, width: int) -> tf.Tensor:
    return tf.image.resize(pixels, [height, width], "bilinear", antialias=True)
