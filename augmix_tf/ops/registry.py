"""The operations: name, function, parameter, and how AugMix scales the parameter.

To add an operation, write its function in `color` or `geometric` and add a row to `REGISTRY`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import TypeAlias

import tensorflow as tf

from augmix_tf.ops import color, geometric

ImageOp: TypeAlias = Callable[..., tf.Tensor]
Maximum: TypeAlias = float | Callable[[int, int], float]

EITHER = 0.0
INTERPOLATIONS = ("bilinear", "nearest")
"""How rotations and shears read between pixels. Translations are whole pixels."""


@dataclasses.dataclass(frozen=True)
class Operation:
    """One operation on images.

    A level in 0.1..10 becomes the parameter start + direction * level * maximum / 10.
    """

    # Takes a packed image int32 [H, W] and a parameter float64 [], and also `fill` if `geometric`;
    # returns a packed image.
    function: ImageOp
    unit: str  # of the parameter, in Pillow's terms
    start: float = 0.0  # parameter at level 0
    maximum: Maximum = 0.0  # largest amount added, or a function of image height and width
    direction: float = 1.0  # 1, -1, or `EITHER` for a random sign
    whole: bool = False  # truncate the amount to an integer
    geometric: bool = False  # moves pixels, so that some come from outside the image
    in_paper: bool = True  # one of AugMix's own; the others need `all_ops`
    nearest: ImageOp | None = None  # `function` without interpolation, where it has one

    def with_options(self, fill: int, interpolation: str) -> ImageOp:
        """Returns the function of image and parameter, with `fill` for pixels from outside."""
        if not self.geometric:
            return self.function
        nearest = self.nearest if interpolation == "nearest" else None
        return functools.partial(nearest or self.function, fill=fill)


def _geometric(
    function: ImageOp,
    unit: str,
    maximum: Maximum,
    whole: bool = True,
    nearest: ImageOp | None = None,
) -> Operation:
    return Operation(function, unit, 0.0, maximum, EITHER, whole, geometric=True, nearest=nearest)


def _enhancer(function: ImageOp) -> Operation:
    return Operation(function, "factor, 1 unchanged", 0.1, 1.8, in_paper=False)


REGISTRY: Mapping[str, Operation] = {
    "autocontrast": Operation(color.autocontrast, "ignored"),
    "equalize": Operation(color.equalize, "ignored"),
    "posterize": Operation(color.posterize, "bits kept, 1 to 8", 4.0, 4.0, -1.0, whole=True),
    "rotate": _geometric(
        geometric.rotate, "degrees, counter-clockwise", 30.0, nearest=geometric.rotate_nearest
    ),
    "solarize": Operation(color.solarize, "threshold, 0 to 256", 256.0, 256.0, -1.0, whole=True),
    "shear_x": _geometric(geometric.shear_x, "factor", 0.3, False, geometric.shear_x_nearest),
    "shear_y": _geometric(geometric.shear_y, "factor", 0.3, False, geometric.shear_y_nearest),
    "translate_x": _geometric(
        geometric.translate_x, "pixels, to the left", lambda height, width: width / 3
    ),
    "translate_y": _geometric(
        geometric.translate_y, "pixels, upwards", lambda height, width: height / 3
    ),
    "color": _enhancer(color.color),
    "contrast": _enhancer(color.contrast),
    "brightness": _enhancer(color.brightness),
    "sharpness": _enhancer(color.sharpness),
}
"""Name -> operation. Scales as in the AugMix authors' augmentations.py."""

PAPER_OPERATIONS = tuple(name for name, op in REGISTRY.items() if op.in_paper)
"""The nine of the AugMix paper. None of them is a corruption of the -C benchmarks."""

OPERATIONS = (*PAPER_OPERATIONS, *(name for name, op in REGISTRY.items() if not op.in_paper))
"""All thirteen; `AugMixPlan.operation` is an index into this."""


def parameter_of(
    operation: tf.Tensor, level: tf.Tensor, negative: tf.Tensor, image_size: tuple[int, int]
) -> tf.Tensor:
    """Returns the parameter of each operation at a level of 0.1 to 10, as `Operation` says.

    `operation` are indexes into `OPERATIONS`, `negative` the signs for operations that go in either
    direction. All are of one shape; the result is float64, in the units of `REGISTRY`.
    """
    # Ten is looked up too: TensorFlow turns x / 10.0 into x * 0.1, which gives other values.
    rows = []
    for op in (REGISTRY[name] for name in OPERATIONS):
        maximum = op.maximum(*image_size) if callable(op.maximum) else op.maximum
        rows.append((op.start, maximum, op.direction, float(op.whole), 10.0))
    table = tf.gather(tf.constant(rows, tf.float64), operation)
    start, maximum, direction, whole, ten = tf.unstack(table, axis=-1)
    amount = level * maximum / ten
    amount = tf.where(whole > 0, tf.floor(amount), amount)
    sign = 1.0 - 2.0 * tf.cast(negative, tf.float64)
    return start + tf.where(direction == EITHER, sign, direction) * amount
