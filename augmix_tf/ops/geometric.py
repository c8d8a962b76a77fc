"""Geometric operations, with Pillow's rules for an affine transform.

The centre of output pixel (x, y) is mapped to a point (u, v) of the input. Outside the image the
output is `fill`. Inside, it is interpolated between the four nearest pixel centres (edge pixels
repeated): top + (bottom - top) * dy, with top and bottom left + (right - left) * dx, in float64,
truncated to an integer. The functions `*_nearest` take the pixel that holds the point instead, in
Pillow's fixed-point arithmetic.

Each function takes one packed image, int32 [H, W] (see `packed`), and gives Pillow's exact values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from augmix_tf.ops import packed

Rows = Callable[[tf.Tensor], tf.Tensor]
Row = Sequence[float | tf.Tensor]  # of an affine matrix


def rotate(image: tf.Tensor, degrees: tf.Tensor, fill: int = 0) -> tf.Tensor:
    """Rotates the image about its centre, counter-clockwise for positive degrees."""
    return tf.cond(degrees == 0.0, lambda: image, lambda: _rotate(image, degrees, fill))


def _rotate(image: tf.Tensor, degrees: tf.Tensor, fill: int) -> tf.Tensor:
    height, width = image.shape
    matrix = _rotation(image, degrees)

    def points(rows: tf.Tensor) -> list[tf.Tensor]:
        xs, ys = _columns(width), _centres(rows)
        return [_turned(a, xs, b, ys) + c for a, b, c in matrix]

    def index(rows: tf.Tensor) -> tf.Tensor:
        u, v = points(rows)
        return _cell(v, height) * (width + 2) + _cell(u, width)

    flat = tf.reshape(_repeat_edges(image), [-1])
    corner = packed.by_blocks(index, width, tf.range(height))

    def block(rows: tf.Tensor, upper: tf.Tensor) -> tf.Tensor:
        u, v = points(rows)
        lower = upper + (width + 2)
        corners = [tf.gather(flat, at) for at in (upper, upper + 1, lower, lower + 1)]
        dx, dy = _fraction(u), _fraction(v)
        channels = []
        for values in zip(*map(packed.split, corners), strict=True):
            a, b, c, d = (tf.cast(value, tf.float64) for value in values)
            value = _interpolate(_interpolate(a, b, dx), _interpolate(c, d, dx), dy)
            channels.append(tf.cast(value, tf.int32))
        inside = (u >= 0.0) & (u < width) & (v >= 0.0) & (v < height)
        return tf.where(inside, packed.join(channels), packed.grey(fill))

    return packed.by_blocks(block, width, tf.range(height), corner)


def _rotation(image: tf.Tensor, degrees: tf.Tensor) -> tuple[Row, Row]:
    """Returns the rows (a, b, c) of u and v, where each is a x + b y + c."""
    radians = -tf.math.floormod(degrees, tf.constant(360.0, tf.float64)) * (np.pi / 180.0)
    cosine, sine = _round15(tf.cos(radians)), _round15(tf.sin(radians))
    y, x = (side / 2.0 for side in image.shape)

    def row(a: tf.Tensor, b: tf.Tensor, c: float) -> Row:
        return a, b, _turned(a, -x, b, -y) + c

    return row(cosine, sine, x), row(-sine, cosine, y)


def _turned(a: tf.Tensor, x: tf.Tensor, b: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """Returns a x + b y; whatever is added to it is added last, as in Pillow."""
    return packed.rounded(packed.rounded(a * x) + packed.rounded(b * y))


def rotate_nearest(image: tf.Tensor, degrees: tf.Tensor, fill: int = 0) -> tf.Tensor:
    """Rotates as `rotate`, reading the nearest pixel."""
    return _nearest(image, *_rotation(image, degrees), fill)


def shear_x_nearest(image: tf.Tensor, factor: tf.Tensor, fill: int = 0) -> tf.Tensor:
    """Shifts each row as `shear_x`, reading the nearest pixel."""
    return _nearest(image, (1.0, factor, 0.0), (0.0, 1.0, 0.0), fill)


def shear_y_nearest(image: tf.Tensor, factor: tf.Tensor, fill: int = 0) -> tf.Tensor:
    """Shifts each column as `shear_y`, reading the nearest pixel."""
    return _nearest(image, (1.0, 0.0, 0.0), (factor, 1.0, 0.0), fill)


def _nearest(image: tf.Tensor, u: Row, v: Row, fill: int) -> tf.Tensor:
    """Reads the pixel that holds (u, v), where each is a x + b y + c for its row (a, b, c).

    Pillow first rounds a, b and the value at the first pixel centre to multiples of 1 / 65536. In
    float64 up to 0.4 % of the values would come from the neighbouring pixel.
    """
    height, width = image.shape
    flat = tf.reshape(image, [-1])

    def fixed(value: float | tf.Tensor) -> tf.Tensor:
        scaled = tf.convert_to_tensor(value, tf.float64) * 65536.0
        return tf.cast(tf.floor(scaled + 0.5), tf.int32)

    def at(row: Row, ys: tf.Tensor) -> tf.Tensor:
        a, b, c = row
        first = fixed(c + a * 0.5 + b * 0.5)
        point = first + fixed(b) * ys[:, None] + fixed(a) * tf.range(width)
        return tf.bitwise.right_shift(point, 16)

    def block(ys: tf.Tensor) -> tf.Tensor:
        column, row = at(u, ys), at(v, ys)
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        pixels = tf.gather(flat, tf.where(inside, row * width + column, 0))
        return tf.where(inside, pixels, packed.grey(fill))

    return packed.by_blocks(block, width, tf.range(height))


def shear_x(image: tf.Tensor, factor: tf.Tensor, fill: int = 0) -> tf.Tensor:
    """Shifts each row: u = x + factor * y, measured at pixel centres."""
    width = image.shape[1]
    return _shear(
        image,
        points=lambda rows: _columns(width) + packed.rounded(factor * _centres(rows)),
        index=lambda u, rows: (rows[:, None] + 1) * (width + 2) + _cell(u, width),
        length=width,
        step=1,
        fill=fill,
    )


def shear_y(image: tf.Tensor, factor: tf.Tensor, fill: int = 0) -> tf.Tensor:
    """Shifts each column: v = y + factor * x, measured at pixel centres."""
    height, width = image.shape
    return _shear(
        image,
        points=lambda rows: packed.rounded(factor * _columns(width)) + _centres(rows),
        index=lambda v, _: _cell(v, height) * (width + 2) + (tf.range(width) + 1),
        length=height,
        step=width + 2,
        fill=fill,
    )


def translate_x(image: tf.Tensor, shift: tf.Tensor, fill: int = 0) -> tf.Tensor:
    """Moves the image left by `shift` whole pixels (right where negative)."""
    height, width = image.shape
    u = tf.range(width) + tf.cast(shift, tf.int32)
    index = tf.range(height)[:, None] * width + tf.clip_by_value(u, 0, width - 1)
    moved = tf.gather(tf.reshape(image, [-1]), index)
    return tf.where((u >= 0) & (u < width), moved, packed.grey(fill))


def translate_y(image: tf.Tensor, shift: tf.Tensor, fill: int = 0) -> tf.Tensor:
    """Moves the image up by `shift` whole pixels (down where negative)."""
    height, width = image.shape
    v = (tf.range(height) + tf.cast(shift, tf.int32))[:, None]
    index = tf.clip_by_value(v, 0, height - 1) * width + tf.range(width)
    moved = tf.gather(tf.reshape(image, [-1]), index)
    return tf.where((v >= 0) & (v < height), moved, packed.grey(fill))


def _shear(
    image: tf.Tensor,
    points: Rows,
    index: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
    length: int,
    step: int,
    fill: int,
) -> tf.Tensor:
    """Resamples along one direction; the other coordinate stays on pixel centres."""
    height, width = image.shape
    flat = tf.reshape(_repeat_edges(image), [-1])
    first = packed.by_blocks(lambda rows: index(points(rows), rows), width, tf.range(height))

    def block(rows: tf.Tensor, at: tf.Tensor) -> tf.Tensor:
        point = points(rows)
        fraction = _fraction(point)
        neighbours = [packed.split(tf.gather(flat, i)) for i in (at, at + step)]
        channels = []
        for values in zip(*neighbours, strict=True):
            a, b = (tf.cast(value, tf.float64) for value in values)
            channels.append(tf.cast(_interpolate(a, b, fraction), tf.int32))
        inside = (point >= 0.0) & (point < length)
        return tf.where(inside, packed.join(channels), packed.grey(fill))

    return packed.by_blocks(block, width, tf.range(height), first)


def _columns(width: int) -> tf.Tensor:
    """Returns the centres of the pixels of a row, float64 [1, W]."""
    return tf.constant(np.arange(width)[None, :] + 0.5, tf.float64)


def _centres(rows: tf.Tensor) -> tf.Tensor:
    """Returns the centres of the given rows, float64 [R, 1]."""
    return (tf.cast(rows, tf.float64) + 0.5)[:, None]


def _repeat_edges(image: tf.Tensor) -> tf.Tensor:
    """Returns the image with its edge pixels repeated once: int32 [H + 2, W + 2]."""
    image = tf.concat([image[:, :1], image, image[:, -1:]], axis=1)
    return tf.concat([image[:1], image, image[-1:]], axis=0)


def _cell(point: tf.Tensor, length: int) -> tf.Tensor:
    """Returns the index, with repeated edges, of the last pixel centre before `point`."""
    first = tf.cast(tf.floor(_from_centre(point)), tf.int32)
    return tf.clip_by_value(first, -1, length - 1) + 1


def _fraction(point: tf.Tensor) -> tf.Tensor:
    """Returns the distance of `point` from the pixel centre before it, 0 to 1."""
    from_first = _from_centre(point)
    return from_first - tf.floor(from_first)


def _from_centre(point: tf.Tensor) -> tf.Tensor:
    # TensorFlow's graphs would merge the half with constants that were added to the point before.
    return packed.rounded(point) - 0.5


def _interpolate(first: tf.Tensor, second: tf.Tensor, fraction: tf.Tensor) -> tf.Tensor:
    return first + packed.rounded((second - first) * fraction)


def _round15(values: tf.Tensor) -> tf.Tensor:
    """Rounds sines and cosines to 15 decimals, as Pillow does with Python's exact `round`.

    The product `values * 1e15` is itself rounded, which puts 12 of the 360 whole degrees on the
    wrong side of a half. So the value is split into pieces of 18 bits: their products with 1e15,
    which has 35 bits, are exact.
    """
    # XLA turns division by a constant into multiplication by its inverse, which gives other values.
    # The maximum hides the constant from it.
    scale = tf.maximum(tf.abs(values), tf.constant(1e15, tf.float64))
    whole, rest = tf.zeros_like(values), tf.zeros_like(values)
    for bits in (18, 36, 54, 72):
        piece = tf.floor(values * 2.0**bits) / 2.0**bits
        values = values - piece
        product = piece * scale
        whole += tf.floor(product)
        rest += product - tf.floor(product)
    return (whole + tf.round(rest)) / scale
