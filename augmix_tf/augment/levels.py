"""From a drawn level to an operation's own parameter, as the authors of AugMix have it."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from augmix_tf.ops import OPERATIONS


class Scale(NamedTuple):
    """How a level becomes a parameter: start + direction * level * maximum / 10."""

    start: float = 0.0
    maximum: float = 0.0
    direction: float = 1.0  # EITHER: as drawn
    whole: bool = True  # cut to an integer before it is added


EITHER = 0.0


def scales(image_size: tuple[int, int]) -> dict[str, Scale]:
    """Returns the scale of each operation; the level lies in 0.1 to 10.

    Source: the authors' augmentations.py.
    """
    height, width = image_size
    enhancer = Scale(start=0.1, maximum=1.8, whole=False)
    return {
        "autocontrast": Scale(),
        "equalize": Scale(),
        "posterize": Scale(start=4.0, maximum=4.0, direction=-1.0),
        "rotate": Scale(maximum=30.0, direction=EITHER),
        "solarize": Scale(start=256.0, maximum=256.0, direction=-1.0),
        "shear_x": Scale(maximum=0.3, direction=EITHER, whole=False),
        "shear_y": Scale(maximum=0.3, direction=EITHER, whole=False),
        "translate_x": Scale(maximum=width / 3, direction=EITHER),
        "translate_y": Scale(maximum=height / 3, direction=EITHER),
        "color": enhancer,
        "contrast": enhancer,
        "brightness": enhancer,
        "sharpness": enhancer,
    }


def parameter_of(
    operation: tf.Tensor, level: tf.Tensor, negative: tf.Tensor, image_size: tuple[int, int]
) -> tf.Tensor:
    """Turns a drawn level and sign into the operation's own parameter, as `scales` says.

    Args:
        operation: int32, indexes into `OPERATIONS`.
        level: float64, same shape, 0.1 to 10.
        negative: bool, same shape, the sign drawn for the operations that go either way.
        image_size: (height, width).

    Returns:
        float64, same shape, in the units of `ops.apply_op`.
    """
    table = scales(image_size)
    # Ten is looked up too: TensorFlow's graphs turn x / 10.0 into x * 0.1, which is not the same.
    rows = tf.constant([(*table[name], 10.0) for name in OPERATIONS], tf.float64)
    start, maximum, direction, whole, tens = tf.unstack(tf.gather(rows, operation), axis=-1)
    amount = level * maximum / tens
    amount = tf.where(whole > 0, tf.floor(amount), amount)
    drawn = 1.0 - 2.0 * tf.cast(negative, tf.float64)
    return start + tf.where(direction == EITHER, drawn, direction) * amount
