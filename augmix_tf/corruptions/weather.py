"""Weather: snow, frost, fog, brightness; spatter (extra).

`draw_*` takes one image's stream and uint8 [H, W, 3] image; the others take uint8 [N, H, W, 3]
and the draws of N images, stacked, and return uint8 [N, H, W, 3]. With x the image in [0, 1],
results are clipped to [0, 1], multiplied by 255 and cut off (frost: 0..255, cut off).
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
from scipy import ndimage

from augmix_tf.corruptions import hsv, motion, zoom
from augmix_tf.corruptions.arrays import Draws, Floats, Images, to_uint8
from augmix_tf.corruptions.severities import Fog, Frost, Snow, Spatter

WATER = (175 / 255.0, 238 / 255.0, 238 / 255.0)
MUD = (63 / 255.0, 42 / 255.0, 20 / 255.0)


def draw_snow(rng: np.random.RandomState, image: Images, setting: Snow) -> Draws:
    """Returns a normal layer, float64 [H, W], and the direction of the fall in degrees."""
    layer = rng.normal(size=image.shape[:2], loc=setting.mean, scale=setting.std)
    return layer, np.asarray(rng.uniform(-135, -45))


def snow(images: Images, setting: Snow, draws: Draws) -> Images:
    """Bleaches the picture and adds flakes, once as they fall and once turned by 180 degrees."""
    layer, angle_degrees = draws
    flakes = snow_flakes(layer, setting.zoom, setting.threshold)
    moving = motion.motion_blur(flakes, setting.motion, angle_degrees) / 255.0
    light = images.astype(np.float32) / np.float32(255.0)
    return snow_over(light, moving, setting.image_share)


def snow_flakes(layer: Floats, factor: float, threshold: float) -> Images:
    """Returns the zoomed layer [N, H, W] with everything below the threshold black, uint8."""
    _, height, width = layer.shape
    zoomed = zoom.zoom_centre(zoom.pixels_first(layer[..., None]), height, width, factor)
    zoomed[zoomed < threshold] = 0
    return to_uint8(zoom.images_first(zoomed, (*layer.shape, 1))[..., 0])


def snow_over(light: Floats, flakes: Floats, image_share: float) -> Images:
    """Mixes x with max(x, 1.5 grey + 0.5), then adds float64 [N, H, W] flakes and their turn.

    x is `light`, [N, H, W, 3]; it may be float32 or float64, and as values are cut off it shows.
    """
    # One tall picture: OpenCV works row by row.
    tall = light.reshape(-1, *light.shape[2:]).astype(np.float32)
    grey = cv2.cvtColor(tall, cv2.COLOR_RGB2GRAY).reshape(*light.shape[:3], 1)
    bleached = grey * np.float32(1.5) + np.float32(0.5)
    light = image_share * light + (1 - image_share) * np.maximum(light, bleached)
    turned = flakes[:, ::-1, ::-1]
    return to_uint8(light + flakes[..., None] + turned[..., None])


def draw_frost(
    rng: np.random.RandomState, image: Images, setting: Frost, photographs: tuple[Images, ...]
) -> Draws:
    """Returns a piece of one of the `photographs` (RGB), uint8 [H, W, 3]."""
    photograph = photographs[rng.randint(len(photographs))]
    height, width = image.shape[:2]
    top = rng.randint(0, photograph.shape[0] - height)
    left = rng.randint(0, photograph.shape[1] - width)
    return (photograph[top : top + height, left : left + width],)


def frost(images: Images, setting: Frost, draws: Draws) -> Images:
    """Weighted sum of picture and photograph, on 0..255."""
    (pieces,) = draws
    mixed = setting.image_weight * images + setting.frost_weight * pieces
    return np.clip(mixed, 0, 255).astype(np.uint8)


def _map_side(height: int, width: int) -> int:
    return 1 << (max(height, width) - 1).bit_length()


def draw_fog(rng: np.random.RandomState, image: Images, setting: Fog) -> Draws:
    """Returns what the fractal needs, float64 in [0, 1): [S^2 - 1], S a power of two >= H, W."""
    return (rng.random(_map_side(*image.shape[:2]) ** 2 - 1),)


def fog(images: Images, setting: Fog, draws: Draws) -> Images:
    """Adds a fractal and darkens to the old maximum: (x + s f) max x / (max x + s).

    f in [0, 1] is the fractal and s the strength.
    """
    height, width = images.shape[1:3]
    (chance,) = draws
    fractals = plasma_fractal(chance, _map_side(height, width), setting.decay)
    light = images / 255.0
    brightest = light.max(axis=(1, 2, 3), keepdims=True)
    light += setting.strength * fractals[:, :height, :width, None]
    return to_uint8(light * brightest / (brightest + setting.strength))


def plasma_fractal(chance: Floats, side: int, decay: float) -> Floats:
    """Diamond-square fractals that repeat beyond their edges.

    A new point is the mean of its four neighbours plus r u, u uniform in [-r, r); r is 100
    on the coarsest grid and is divided by `decay` on each finer one.

    Args:
        chance: float64 [N, side^2 - 1] in [0, 1).
        side: a power of two.
        decay: above 1.

    Returns:
        float64 [N, side, side], from 0 to 1.
    """
    surface = np.zeros((len(chance), side, side))
    for step, roughness, (centres, on_rows, on_columns) in _levels(chance, side, decay):
        half = step // 2
        corners = surface[:, ::step, ::step]
        pairs = corners + np.roll(corners, -1, axis=1)
        squares = pairs + np.roll(pairs, -1, axis=2)
        middle = squares / 4 + roughness * centres
        surface[:, half::step, half::step] = middle
        # The order of the four additions is the original's: its rounding shows.
        beside = (middle + np.roll(middle, 1, axis=1)) + (corners + np.roll(corners, -1, axis=2))
        surface[:, ::step, half::step] = beside / 4 + roughness * on_rows
        below = (middle + np.roll(middle, 1, axis=2)) + (corners + np.roll(corners, -1, axis=1))
        surface[:, half::step, ::step] = below / 4 + roughness * on_columns
    surface -= surface.min(axis=(1, 2), keepdims=True)
    return surface / surface.max(axis=(1, 2), keepdims=True)


def _levels(chance: Floats, side: int, decay: float) -> Iterator[tuple[int, float, Floats]]:
    """Grid step, roughness r and three fields in [-r, r) of each level, coarse to fine."""
    step, roughness, used = side, 100.0, 0
    while step >= 2:
        across = side // step
        fields = chance[:, used : used + 3 * across**2].reshape(-1, 3, across, across)
        yield step, roughness, np.moveaxis(-roughness + 2 * roughness * fields, 1, 0)
        used += 3 * across**2
        step //= 2
        roughness /= decay


def brightness(images: Images, amount: float, draws: Draws) -> Images:
    """Adds to the value of HSV: V + `amount`, clipped."""
    hue, saturation, value = hsv.from_rgb(*hsv.planes(images))
    value = np.clip(value + amount, 0, 1)
    return to_uint8(np.stack(hsv.to_rgb(hue, saturation, value), axis=-1))


def draw_spatter(rng: np.random.RandomState, image: Images, setting: Spatter) -> Draws:
    """Returns a normal layer, float64 [H, W]."""
    return (rng.normal(size=image.shape[:2], loc=setting.mean, scale=setting.std),)


def spatter(images: Images, setting: Spatter, draws: Draws) -> Images:
    """Drops of water that shine, or splashes of mud that cover."""
    (layer,) = draws
    drops = ndimage.gaussian_filter(layer, (0, setting.sigma, setting.sigma), mode="nearest")
    drops[drops < setting.threshold] = 0
    light = images.astype(np.float32) / np.float32(255.0)
    if setting.is_mud:
        return to_uint8(_muddy(light, drops > setting.threshold, setting.strength))
    return water_over(images, drops, setting.strength)


def _muddy(light: Floats, covered: np.ndarray, sigma: float) -> Floats:
    cover = ndimage.gaussian_filter(covered.astype(np.float32), (0, sigma, sigma), mode="nearest")
    cover[cover < 0.8] = 0
    cover = cover[..., None]
    return light * (1 - cover) + np.array(MUD, np.float32) * cover


def water_over(images: Images, drops: Floats, strength: float) -> Images:
    """Adds the shine of float64 [N, H, W] drops, its maximum `strength` in every picture.

    Where no drop is left the original divides 0 by 0; here the picture stays as it is.
    """
    liquid = (drops * 255).astype(np.uint8)
    relief = np.stack([_relief(layer) for layer in liquid]).astype(np.float32)
    shine = relief * liquid
    brightest = shine.max(axis=(1, 2), keepdims=True)
    shine = shine / np.where(brightest == 0, np.float32(1), brightest) * np.float32(strength)
    light = images.astype(np.float32) / np.float32(255.0)
    return to_uint8(light + shine[..., None] * np.array(WATER, np.float32))


def _relief(liquid: Images) -> Images:
    """Embossed distance from the rims of drops, uint8 [H, W]."""
    distance = cv2.distanceTransform(255 - cv2.Canny(liquid, 50, 150), cv2.DIST_L2, 5)
    near = cv2.blur(np.minimum(distance, np.float32(20)), (3, 3)).astype(np.uint8)
    slope = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])
    embossed = cv2.filter2D(cv2.equalizeHist(near), cv2.CV_8U, slope)
    return cv2.blur(embossed, (3, 3)).astype(np.uint8)
