"""Operations that move pixels, with Pillow's rules for an affine transform.

The centre of output pixel (x, y) is mapped to a point (u, v) of the input. Outside the picture the
output is `fill`. Inside, it lies between the four nearest pixel centres (edge pixels repeated):
top + (bottom - top) * dy, each of them left + (right - left) * dx, in float64, cut to an integer.

Per picture: int32 [H, W], packed (`pixels`). Equal to Pillow in every value.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from augmix_tf.ops import pixels
from augmix_tf.ops.blocks import by_blocks

Rows = Callable[[tf.Tensor], tf.Tensor]


def rotate(picture: tf.Tensor, degrees: tf.Tensor, fill: int = 0) -> tf.Tensor:
    """Turns the picture about its centre, counter-clockwise for positive degrees."""
    return tf.cond(degrees == 0.0, lambda: picture, lambda: _turn(picture, degrees, fill))


def _turn(picture: tf.Tensor, degrees: tf.Tensor, fill: int) -> tf.Tensor:
    height, width = picture.shape
    radians = -tf.math.floormod(degrees, tf.constant(360.0, tf.float64)) * (np.pi / 180.0)
    cosine, sine = _round15(tf.cos(radians)), _round15(tf.sin(radians))
    x, y = width / 2.0, height / 2.0
    u_offset = pixels.rounded(cosine * -x) + pixels.rounded(sine * -y) + x
    v_offset = pixels.rounded(sine * x) + pixels.rounded(cosine * -y) + y

    def points(rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        xs, ys = _columns(width), _centres(rows)
        u = pixels.rounded(cosine * xs) + pixels.rounded(sine * ys) + u_offset
        v = pixels.rounded(-sine * xs) + pixels.rounded(cosine * ys) + v_offset
        return u, v

    def index(rows: tf.Tensor) -> tf.Tensor:
        u, v = points(rows)
        return _cell(v, height) * (width + 2) + _cell(u, width)

    flat = tf.reshape(_repeat_edges(picture), [-1])
    corner = by_blocks(index, width, tf.range(height))

    def block(rows: tf.Tensor, upper: tf.Tensor) -> tf.Tensor:
        u, v = points(rows)
        lower = upper + (width + 2)
        corners = [tf.gather(flat, at) for at in (upper, upper + 1, lower, lower + 1)]
        dx, dy = _past_centre(u), _past_centre(v)
        turned = []
        for values in zip(*map(pixels.split, corners), strict=True):
            a, b, c, d = (tf.cast(value, tf.float64) for value in values)
            value = _between(_between(a, b, dx), _between(c, d, dx), dy)
            turned.append(tf.cast(value, tf.int32))
        inside = (u >= 0.0) & (u < width) & (v >= 0.0) & (v < height)
        return tf.where(inside, pixels.join(turned), pixels.grey(fill))

    return by_blocks(block, width, tf.range(height), corner)


def shear_x(picture: tf.Tensor, factor: tf.Tensor, fill: int = 0) -> tf.Tensor:
    """Slides each row: u = x + factor * y, measured at pixel centres."""
    width = picture.shape[1]
    return _slide(
        picture,
        points=lambda rows: _columns(width) + pixels.rounded(factor * _centres(rows)),
        index=lambda u, rows: (rows[:, None] + 1) * (width + 2) + _cell(u, width),
        length=width,
        step=1,
        fill=fill,
    )


def shear_y(picture: tf.Tensor, factor: tf.Tensor, fill: int = 0) -> tf.Tensor:
    """Slides each column: v = y + factor * x, measured at pixel centres."""
    height, width = picture.shape
    return _slide(
        picture,
        points=lambda rows: pixels.rounded(factor * _columns(width)) + _centres(rows),
        index=lambda v, _: _cell(v, height) * (width + 2) + (tf.range(width) + 1),
        length=height,
        step=width + 2,
        fill=fill,
    )


def translate_x(picture: tf.Tensor, shift: tf.Tensor, fill: int = 0) -> tf.Tensor:
    """Moves the picture left by `shift` whole pixels (right where negative)."""
    height, width = picture.shape
    u = tf.range(width) + tf.cast(shift, tf.int32)
    index = tf.range(height)[:, None] * width + tf.clip_by_value(u, 0, width - 1)
    moved = tf.gather(tf.reshape(picture, [-1]), index)
    return tf.where((u >= 0) & (u < width), moved, pixels.grey(fill))


def translate_y(picture: tf.Tensor, shift: tf.Tensor, fill: int = 0) -> tf.Tensor:
    """Moves the picture up by `shift` whole pixels (down where negative)."""
    height, width = picture.shape
    v = (tf.range(height) + tf.cast(shift, tf.int32))[:, None]
    index = tf.clip_by_value(v, 0, height - 1) * width + tf.range(width)
    moved = tf.gather(tf.reshape(picture, [-1]), index)
    return tf.where((v >= 0) & (v < height), moved, pixels.grey(fill))


def _slide(
    picture: tf.Tensor,
    points: Rows,
    index: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
    length: int,
    step: int,
    fill: int,
) -> tf.Tensor:
    """Resamples along one direction only, where the other coordinate stays on pixel centres."""
    height, width = picture.shape
    flat = tf.reshape(_repeat_edges(picture), [-1])
    first = by_blocks(lambda rows: index(points(rows), rows), width, tf.range(height))

    def block(rows: tf.Tensor, at: tf.Tensor) -> tf.Tensor:
        point = points(rows)
        share = _past_centre(point)
        slid = []
        for values in zip(
            *(pixels.split(tf.gather(flat, i)) for i in (at, at + step)), strict=True
        ):
            a, b = (tf.cast(value, tf.float64) for value in values)
            slid.append(tf.cast(_between(a, b, share), tf.int32))
        inside = (point >= 0.0) & (point < length)
        return tf.where(inside, pixels.join(slid), pixels.grey(fill))

    return by_blocks(block, width, tf.range(height), first)


def _columns(width: int) -> tf.Tensor:
    """Centres of the pixels of a row, float64 [1, W]."""
    return tf.constant(np.arange(width)[None, :] + 0.5, tf.float64)


def _centres(rows: tf.Tensor) -> tf.Tensor:
    """Centres of the given rows, float64 [R, 1]."""
    return (tf.cast(rows, tf.float64) + 0.5)[:, None]


def _repeat_edges(picture: tf.Tensor) -> tf.Tensor:
    """Adds one pixel on each side, so that no neighbour is missing: int32 [H + 2, W + 2]."""
    picture = tf.concat([picture[:, :1], picture, picture[:, -1:]], axis=1)
    return tf.concat([picture[:1], picture, picture[-1:]], axis=0)


def _cell(point: tf.Tensor, length: int) -> tf.Tensor:
    """Which pixel's centre comes last before `point`, counted in the picture with edges."""
    first = tf.cast(tf.floor(point - 0.5), tf.int32)
    return tf.clip_by_value(first, -1, length - 1) + 1


def _past_centre(point: tf.Tensor) -> tf.Tensor:
    """How far `point` is past the pixel centre before it, 0 to 1."""
    from_first = point - 0.5
    return from_first - tf.floor(from_first)


def _between(first: tf.Tensor, second: tf.Tensor, share: tf.Tensor) -> tf.Tensor:
    return first + pixels.rounded((second - first) * share)


def _round15(values: tf.Tensor) -> tf.Tensor:
    """Rounds sines and cosines to 15 decimals, as Pillow does with Python's exact `round`.

    A single product `values * 1e15` is itself rounded, and 12 of the 360 whole degrees fall on the
    wrong side of a half by it. So the value goes in pieces of 18 bits: times 1e15,
    which has 35, each is exact.
    """
    # XLA turns division by a constant into multiplication by its inverse, which is not the same;
    # this 1e15 it cannot see.
    scale = tf.maximum(tf.abs(values), tf.constant(1e15, tf.float64))
    whole, rest = tf.zeros_like(values), tf.zeros_like(values)
    for bits in (18, 36, 54, 72):
        piece = tf.floor(values * 2.0**bits) / 2.0**bits
        values = values - piece
        product = piece * scale
        whole += tf.floor(product)
        rest += product - tf.floor(product)
    return (whole + tf.round(rest)) / scale
