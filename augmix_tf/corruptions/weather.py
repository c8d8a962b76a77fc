"""Weather: snow, frost, fog, brightness; spatter (extra).

`catalogue.Corruption` describes arguments and results of the corruptions.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
from scipy import ndimage

from augmix_tf.corruptions import blur, digital
from augmix_tf.corruptions.arrays import Draws, Floats, Images, to_uint8
from augmix_tf.corruptions.tables import (
    Fog,
    Frost,
    Snow,
    SnowSequence,
    Spatter,
    SpatterSequence,
)

WATER = (175 / 255.0, 238 / 255.0, 238 / 255.0)
MUD = (63 / 255.0, 42 / 255.0, 20 / 255.0)


def draw_snow(rng: np.random.RandomState, image: Images, setting: Snow) -> Draws:
    """Draws a normal layer, float64 [H, W], and the direction of the fall in degrees."""
    layer = rng.normal(size=image.shape[:2], loc=setting.mean, scale=setting.std)
    return layer, np.asarray(rng.uniform(-135, -45))


def snow(images: Images, setting: Snow, draws: Draws) -> Images:
    """Whitens the image and adds flakes, once as drawn and once rotated by 180 degrees."""
    layer, angle_degrees = draws
    flakes = snow_flakes(layer, setting.zoom, setting.threshold)
    blurred = blur.directional_blur(flakes, setting.motion, angle_degrees) / 255.0
    values = images.astype(np.float32) / np.float32(255.0)
    return add_snow(values, blurred, setting.image_weight)


def snow_flakes(layer: Floats, factor: float, threshold: float) -> Images:
    """Returns the zoomed layer [N, H, W], uint8, with values below the threshold set to 0."""
    _, height, width = layer.shape
    zoomed = blur.zoom_centre(blur.pixels_first(layer[..., None]), height, width, factor)
    zoomed[zoomed < threshold] = 0
    return to_uint8(blur.images_first(zoomed, (*layer.shape, 1))[..., 0])


def add_snow(values: Floats, flakes: Floats, image_weight: float) -> Images:
    """Mixes x with max(x, 1.5 grey + 0.5), then adds the flakes and the flakes rotated by 180.

    Args:
        values: x, [N, H, W, 3] in [0, 1], float32 or float64 (truncated values depend on it).
        flakes: float64 [N, H, W] in [0, 1].
        image_weight: weight of x in the mix.
    """
    # OpenCV converts row by row, so all images can be one tall image.
    tall = values.reshape(-1, *values.shape[2:]).astype(np.float32)
    grey = cv2.cvtColor(tall, cv2.COLOR_RGB2GRAY).reshape(*values.shape[:3], 1)
    whitened = grey * np.float32(1.5) + np.float32(0.5)
    values = image_weight * values + (1 - image_weight) * np.maximum(values, whitened)
    rotated = flakes[:, ::-1, ::-1]
    return to_uint8(values + flakes[..., None] + rotated[..., None])


def draw_frost(
    rng: np.random.RandomState, image: Images, setting: Frost, photographs: tuple[Images, ...]
) -> Draws:
    """Draws a crop of one of the `photographs` (RGB), uint8 [H, W, 3]."""
    photograph = photographs[rng.randint(len(photographs))]
    height, width = image.shape[:2]
    top = rng.randint(0, photograph.shape[0] - height)
    left = rng.randint(0, photograph.shape[1] - width)
    return (photograph[top : top + height, left : left + width],)


def frost(images: Images, setting: Frost, draws: Draws) -> Images:
    """Weighted sum of image and photograph, in 0..255."""
    (crops,) = draws
    mixed = setting.image_weight * images + setting.frost_weight * crops
    return np.clip(mixed, 0, 255).astype(np.uint8)


def _map_side(height: int, width: int) -> int:
    return 1 << (max(height, width) - 1).bit_length()


def draw_fog(rng: np.random.RandomState, image: Images, setting: Fog) -> Draws:
    """Draws the numbers of the fractal, float64 [S^2 - 1] in [0, 1), S a power of two >= H, W."""
    return (rng.random(_map_side(*image.shape[:2]) ** 2 - 1),)


def fog(images: Images, setting: Fog, draws: Draws) -> Images:
    """Adds a fractal and scales to the old maximum: (x + s f) max x / (max x + s).

    f in [0, 1] is the fractal and s the strength.
    """
    height, width = images.shape[1:3]
    (draw,) = draws
    fractals = plasma_fractal(draw, _map_side(height, width), setting.decay)
    values = images / 255.0
    maximum = values.max(axis=(1, 2, 3), keepdims=True)
    values += setting.strength * fractals[:, :height, :width, None]
    return to_uint8(values * maximum / (maximum + setting.strength))


def plasma_fractal(draw: Floats, side: int, decay: float) -> Floats:
    """Diamond-square fractals, periodic in both directions.

    A new point is the mean of its four neighbours plus r u, u uniform in [-r, r); r is 100
    on the coarsest grid and is divided by `decay` on each finer one.

    Args:
        draw: float64 [N, side^2 - 1], uniform in [0, 1).
        side: a power of two.
        decay: above 1.

    Returns:
        float64 [N, side, side], from 0 to 1.
    """
    surface = np.zeros((len(draw), side, side))
    for step, roughness, (centres, on_rows, on_columns) in _levels(draw, side, decay):
        half = step // 2
        corners = surface[:, ::step, ::step]
        pairs = corners + np.roll(corners, -1, axis=1)
        squares = pairs + np.roll(pairs, -1, axis=2)
        middle = squares / 4 + roughness * centres
        surface[:, half::step, half::step] = middle
        # Add in the original's order: rounding depends on it.
        beside = (middle + np.roll(middle, 1, axis=1)) + (corners + np.roll(corners, -1, axis=2))
        surface[:, ::step, half::step] = beside / 4 + roughness * on_rows
        below = (middle + np.roll(middle, 1, axis=2)) + (corners + np.roll(corners, -1, axis=1))
        surface[:, half::step, ::step] = below / 4 + roughness * on_columns
    surface -= surface.min(axis=(1, 2), keepdims=True)
    return surface / surface.max(axis=(1, 2), keepdims=True)


def _levels(draw: Floats, side: int, decay: float) -> Iterator[tuple[int, float, Floats]]:
    """Grid step, roughness r and three fields in [-r, r) of each level, coarse to fine."""
    step, roughness, used = side, 100.0, 0
    while step >= 2:
        points = side // step
        fields = draw[:, used : used + 3 * points**2].reshape(-1, 3, points, points)
        yield step, roughness, np.moveaxis(-roughness + 2 * roughness * fields, 1, 0)
        used += 3 * points**2
        step //= 2
        roughness /= decay


def brightness(images: Images, amount: float, draws: Draws) -> Images:
    """Adds to the value of HSV: V + `amount`, clipped."""
    hue, saturation, value = digital.to_hsv(images)
    return digital.from_hsv(hue, saturation, np.clip(value + amount, 0, 1))


def draw_layer(
    rng: np.random.RandomState, image: Images, setting: Spatter | SnowSequence | SpatterSequence
) -> Draws:
    """Draws a normal layer, float64 [H, W]; all frames of a sequence share it."""
    return (rng.normal(size=image.shape[:2], loc=setting.mean, scale=setting.std),)


def spatter(images: Images, setting: Spatter, draws: Draws) -> Images:
    """Adds bright drops of water, or covers with splashes of mud."""
    (layer,) = draws
    drops = drops_of(layer, setting)
    if setting.is_mud:
        return _cover_with_mud(images, drops > setting.threshold, setting.strength)
    return add_water(images, drops, setting.strength)


def drops_of(layer: Floats, setting: Spatter | SpatterSequence) -> Floats:
    """Returns layers [N, H, W] blurred, with 0 below the threshold."""
    drops = ndimage.gaussian_filter(layer, (0, setting.sigma, setting.sigma), mode="nearest")
    drops[drops < setting.threshold] = 0
    return drops


def _cover_with_mud(images: Images, is_mud: np.ndarray, sigma: float) -> Images:
    cover = ndimage.gaussian_filter(is_mud.astype(np.float32), (0, sigma, sigma), mode="nearest")
    cover[cover < 0.8] = 0
    cover = cover[..., None]
    values = images.astype(np.float32) / np.float32(255.0)
    return to_uint8(values * (1 - cover) + np.array(MUD, np.float32) * cover)


def add_water(images: Images, drops: Floats, strength: float) -> Images:
    """Adds highlights of float64 [N, H, W] drops, with maximum `strength` in every image.

    An image without drops stays unchanged; the original divides 0 by 0.
    """
    liquid = (drops * 255).astype(np.uint8)
    relief = np.stack([_relief(layer) for layer in liquid]).astype(np.float32)
    highlight = relief * liquid
    maximum = highlight.max(axis=(1, 2), keepdims=True)
    highlight = highlight / np.where(maximum == 0, np.float32(1), maximum) * np.float32(strength)
    values = images.astype(np.float32) / np.float32(255.0)
    return to_uint8(values + highlight[..., None] * np.array(WATER, np.float32))


def _relief(liquid: Images) -> Images:
    """Embossed distance from the edges of drops, uint8 [H, W]."""
    distance = cv2.distanceTransform(255 - cv2.Canny(liquid, 50, 150), cv2.DIST_L2, 5)
    near = cv2.blur(np.minimum(distance, np.float32(20)), (3, 3)).astype(np.uint8)
    slope = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])
    embossed = cv2.filter2D(cv2.equalizeHist(near), cv2.CV_8U, slope)
    return cv2.blur(embossed, (3, 3)).astype(np.uint8)
