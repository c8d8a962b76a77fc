"""Contrast, elastic transform, pixelate, JPEG, saturate; HSV; see `catalogue.Corruption`."""

from __future__ import annotations

import io

import cv2
import numpy as np
from PIL import Image
from scipy import ndimage

from augmix_tf.corruptions.arrays import Draws, Floats, Images, to_uint8

Elastic = tuple[float, float, float, int]
"""Displacement, its smoothing and jitter of the affine part, as fractions of the side of an image
that has the fourth number for 224 pixels: 244 in ImageNet's script."""


def contrast(images: Images, factor: float, draws: Draws) -> Images:
    """Moves values towards the mean of their channel: (x - mean) `factor` + mean."""
    values = images / 255.0
    means = values.mean(axis=(1, 2), keepdims=True)
    return to_uint8((values - means) * factor + means)


def to_hsv(images: Images) -> tuple[Floats, Floats, Floats]:
    """Converts uint8 [..., 3] to hue in [0, 1), saturation and value in [0, 1], float64 [...].

    Grey has hue and saturation 0. The rounding is that of scikit-image, as results are truncated.

    Source: A. R. Smith, Color gamut transform pairs, SIGGRAPH 1978.
    """
    red, green, blue = np.moveaxis(images, -1, 0) / 255.0
    value = np.maximum(np.maximum(red, green), blue)
    spread = value - np.minimum(np.minimum(red, green), blue)
    is_grey = spread == 0
    is_blue = blue == value
    is_green = (green == value) & ~is_blue
    difference = np.where(is_blue, red - green, np.where(is_green, blue - red, green - blue))
    # Quotients of grey pixels are not used: 1.0 avoids a division by 0.
    difference /= np.where(is_grey, 1.0, spread)
    sixths = (4.0 * is_blue + 2.0 * is_green) + difference
    hue = sixths / 6.0
    hue += hue < 0
    hue[is_grey] = 0.0
    return hue, spread / np.where(value == 0, 1.0, value), value


def from_hsv(hue: Floats, saturation: Floats, value: Floats) -> Images:
    """Converts hue, saturation and value, as `to_hsv` returns them, to uint8 [..., 3]."""
    sixths = hue * 6
    sector = np.floor(sixths)
    fraction = sixths - sector
    low = value * (1 - saturation)
    falling = value * (1 - fraction * saturation)
    rising = value * (1 - (1 - fraction) * saturation)
    sector = sector.astype(np.uint8) % 6
    red = np.choose(sector, [value, falling, low, low, rising, value])
    green = np.choose(sector, [rising, value, value, falling, low, low])
    blue = np.choose(sector, [low, low, rising, value, value, falling])
    return to_uint8(np.stack([red, green, blue], axis=-1))


def saturate(images: Images, setting: tuple[float, float], draws: Draws) -> Images:
    """Changes the saturation of HSV: S factor + offset, clipped."""
    factor, offset = setting
    hue, saturation, value = to_hsv(images)
    return from_hsv(hue, np.clip(saturation * factor + offset, 0, 1), value)


def pixelate(images: Images, scale: float, draws: Draws) -> Images:
    """Scales the sides by `scale` and back to their size, with box filters."""
    height, width = images.shape[1:3]
    small = (int(width * scale), int(height * scale))

    def pixelated(image: Images) -> Images:
        shrunk = Image.fromarray(image).resize(small, Image.Resampling.BOX)
        return np.asarray(shrunk.resize((width, height), Image.Resampling.BOX))

    return np.stack([pixelated(image) for image in images])


def jpeg_compression(images: Images, quality: int, draws: Draws) -> Images:
    """Encodes and decodes as JPEG. The values depend on Pillow's libjpeg."""
    encoded = (io.BytesIO(encode_jpeg(image, quality)) for image in images)
    return np.stack([np.asarray(Image.open(file)) for file in encoded])


def encode_jpeg(image: Images, quality: int, optimize: bool = False) -> bytes:
    """Encodes uint8 [H, W, 3] as JPEG, 4:2:0; `optimize` only makes the file smaller."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality, optimize=optimize)
    return file.getvalue()


def draw_elastic(rng: np.random.RandomState, image: Images, setting: Elastic) -> Draws:
    """Draws shifts of three points, [3, 2], and fields right and down in [-1, 1), [H, W]."""
    size = image.shape[:2]
    jitter = _to_pixels(setting[2], setting, size)
    points = rng.uniform(-jitter, jitter, size=(3, 2))
    return points, rng.uniform(-1, 1, size=size), rng.uniform(-1, 1, size=size)


def elastic_transform(images: Images, setting: Elastic, draws: Draws) -> Images:
    """Moves three points by an affine map, then every pixel by a smooth random displacement.

    Everything is linear interpolation in float32, mirrored at the edge. The affine part depends
    on OpenCV: its 4.x releases round coordinates, which moves some values by up to 2 levels.
    """
    shifts, right, down = draws
    size = images.shape[1:3]
    values = images.astype(np.float32) / np.float32(255.0)
    alpha, sigma = (_to_pixels(fraction, setting, size) for fraction in setting[:2])
    down, right = (
        (ndimage.gaussian_filter(field, (0, sigma, sigma), truncate=3) * alpha).astype(np.float32)
        for field in (down, right)
    )
    rows, columns = np.meshgrid(*(np.arange(side) for side in size), indexing="ij")
    coordinates = np.stack([rows + down, columns + right], axis=1)
    out = np.empty_like(values)
    for image, shift, places, result in zip(values, shifts, coordinates, out, strict=True):
        warped = _warp(image, shift)
        for channel in range(3):
            ndimage.map_coordinates(
                warped[..., channel], places, result[..., channel], order=1, mode="reflect"
            )
    return to_uint8(out)


def _to_pixels(fraction: float, setting: Elastic, size: tuple[int, ...]) -> float:
    return min(size) * setting[3] / 224 * fraction


def _warp(values: Floats, shift: Floats) -> Floats:
    """Moves three corners of a square around the centre of [H, W, 3] by `shift`, float [3, 2]."""
    height, width = values.shape[:2]
    centre = np.array([width // 2, height // 2], np.float32)
    reach = min(height, width) // 3
    start = centre + np.array([[reach, reach], [reach, -reach], [-reach, -reach]], np.float32)
    matrix = cv2.getAffineTransform(start, start + shift.astype(np.float32))
    size = (width, height)
    warped = cv2.warpAffine(values, matrix, size, borderMode=cv2.BORDER_REFLECT_101)
    return warped.astype(np.float32)
