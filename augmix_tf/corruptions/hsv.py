"""Hue, saturation and value, rounding as scikit-image does: results are cut off, not rounded.

Planes are float64 arrays of one shape: red, green, blue, saturation and value in [0, 1], hue in
[0, 1) of a turn. Formulas: A. R. Smith, Color gamut transform pairs, SIGGRAPH 1978.
"""

from __future__ import annotations

import numpy as np

from augmix_tf.corruptions.arrays import Floats, Images


def planes(images: Images) -> tuple[Floats, Floats, Floats]:
    """Returns red, green and blue of uint8 [..., 3] in [0, 1], each float64 [...]."""
    red, green, blue = np.moveaxis(images, -1, 0) / 255.0
    return red, green, blue


def from_rgb(red: Floats, green: Floats, blue: Floats) -> tuple[Floats, Floats, Floats]:
    """Returns hue, saturation and value. Grey has hue and saturation 0."""
    value = np.maximum(np.maximum(red, green), blue)
    spread = value - np.minimum(np.minimum(red, green), blue)
    is_grey = spread == 0
    is_blue = blue == value
    is_green = (green == value) & ~is_blue
    across = np.where(is_blue, red - green, np.where(is_green, blue - red, green - blue))
    # Where there is no spread the quotients do not count: any divisor but 0 will do.
    across /= np.where(is_grey, 1.0, spread)
    sixths = (4.0 * is_blue + 2.0 * is_green) + across
    hue = sixths / 6.0
    hue += hue < 0
    hue[is_grey] = 0.0
    return hue, spread / np.where(value == 0, 1.0, value), value


def to_rgb(hue: Floats, saturation: Floats, value: Floats) -> tuple[Floats, Floats, Floats]:
    """Returns red, green and blue."""
    sixths = hue * 6
    sector = np.floor(sixths)
    part = sixths - sector
    low = value * (1 - saturation)
    falling = value * (1 - part * saturation)
    rising = value * (1 - (1 - part) * saturation)
    sector = sector.astype(np.uint8) % 6
    red = np.choose(sector, [value, falling, low, low, rising, value])
    green = np.choose(sector, [rising, value, value, falling, low, low])
    blue = np.choose(sector, [low, low, rising, value, value, falling])
    return red, green, blue
