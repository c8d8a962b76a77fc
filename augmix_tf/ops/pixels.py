"""How the operations see a picture: one int32 per pixel, red + 256 green + 65536 blue.

A pixel in one word is one load instead of three wherever pixels move or are looked up, and every
operation can work on all channels in the same pass.
"""

from __future__ import annotations

import tensorflow as tf

from augmix_tf.checks import CommandError, require

CHANNELS = 3
_SHIFTS = (0, 8, 16)


def check_images(images: tf.Tensor) -> None:
    """Raises `CommandError` unless `images` is uint8 [N, H, W, 3] with H and W known."""
    fits = images.dtype == tf.uint8 and images.shape.rank == 4 and images.shape[-1] == CHANNELS
    if not fits or None in images.shape[1:]:
        raise CommandError(
            f"want uint8 images [N, H, W, 3] with H and W known, got {images.dtype.name} "
            f"{images.shape}"
        )


def shift_left(values: tf.Tensor, bits: int) -> tf.Tensor:
    """`values << bits`; TensorFlow has no such operator on tensors."""
    return tf.bitwise.left_shift(values, tf.constant(bits, values.dtype)) if bits else values


def shift_right(values: tf.Tensor, bits: int) -> tf.Tensor:
    """`values >> bits`."""
    return tf.bitwise.right_shift(values, tf.constant(bits, values.dtype)) if bits else values


def pack(images: tf.Tensor) -> tf.Tensor:
    """Turns uint8 [..., 3] into int32 [...], one word per pixel."""
    return join(tf.unstack(tf.cast(images, tf.int32), axis=-1))


def unpack(pictures: tf.Tensor) -> tf.Tensor:
    """Turns int32 [...] back into int32 [..., 3] with values 0 to 255."""
    return tf.bitwise.right_shift(pictures[..., None], tf.constant(_SHIFTS)) & 255


def split(pictures: tf.Tensor) -> list[tf.Tensor]:
    """Red, green and blue of packed pictures, int32 each, 0 to 255."""
    return [shift_right(pictures, bits) & 255 for bits in _SHIFTS]


def join(channels: list[tf.Tensor]) -> tf.Tensor:
    """Packs red, green and blue, int32 each, 0 to 255."""
    red, green, blue = (
        shift_left(channel, bits) for channel, bits in zip(channels, _SHIFTS, strict=True)
    )
    return red | green | blue


def grey(value: int) -> int:
    """The packed pixel whose three channels are all `value`, 0 to 255."""
    require(0 <= value <= 255, "a fill value in 0..255", value)
    return value * 0x010101


def rounded(products: tf.Tensor) -> tf.Tensor:
    """Returns `products`, rounded before anything is added to them.

    Compilers like to fuse `a * b + c` into one instruction with one rounding; Pillow rounds twice,
    and a result that is cut to an integer can show the difference. A minimum with a bound that no
    product reaches changes nothing, and no compiler can fuse through it. A maximum would do less:
    XLA knows that a square is not below zero, and takes it away.
    """
    return tf.minimum(products, tf.constant(2.0**40, products.dtype))
