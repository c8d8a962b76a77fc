"""Digital: contrast, elastic transform, pixelate, JPEG; saturate (extra).

`draw_*` takes one image's stream and uint8 [H, W, 3] image; the others take uint8 [N, H, W, 3]
and the draws of N images, stacked, and return uint8 [N, H, W, 3]. With x the image in [0, 1],
results are clipped to [0, 1], multiplied by 255 and cut off.
"""

from __future__ import annotations

import io

import cv2
import numpy as np
from PIL import Image
from scipy import ndimage

from augmix_tf.corruptions import hsv
from augmix_tf.corruptions.arrays import Draws, Floats, Images, to_uint8
from augmix_tf.corruptions.severities import Elastic, Saturation


def contrast(images: Images, factor: float, draws: Draws) -> Images:
    """Pulls values towards the mean of their channel: (x - mean) `factor` + mean."""
    light = images / 255.0
    means = light.mean(axis=(1, 2), keepdims=True)
    return to_uint8((light - means) * factor + means)


def saturate(images: Images, setting: Saturation, draws: Draws) -> Images:
    """Changes the saturation of HSV: S factor + offset, clipped."""
    hue, saturation, value = hsv.from_rgb(*hsv.planes(images))
    saturation = np.clip(saturation * setting.factor + setting.offset, 0, 1)
    return to_uint8(np.stack(hsv.to_rgb(hue, saturation, value), axis=-1))


def pixelate(images: Images, share: float, draws: Draws) -> Images:
    """Shrinks the sides to `share` and enlarges them again, both by means over boxes."""
    height, width = images.shape[1:3]
    small = (int(width * share), int(height * share))

    def coarse(image: Images) -> Images:
        shrunk = Image.fromarray(image).resize(small, Image.Resampling.BOX)
        return np.asarray(shrunk.resize((width, height), Image.Resampling.BOX))

    return np.stack([coarse(image) for image in images])


def jpeg_compression(images: Images, quality: int, draws: Draws) -> Images:
    """Encodes and decodes as JPEG. The values depend on the libjpeg inside Pillow."""

    def coded(image: Images) -> Images:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=quality)
        return np.asarray(Image.open(file))

    return np.stack([coded(image) for image in images])


def draw_elastic(rng: np.random.RandomState, image: Images, setting: Elastic) -> Draws:
    """Returns shifts of three points, float64 [3, 2] in pixels, and two fields in [-1, 1), [H, W].

    The fields become displacements to the right and down.
    """
    size = image.shape[:2]
    jitter = _pixels(setting.jitter, setting, size)
    points = rng.uniform(-jitter, jitter, size=(3, 2))
    return points, rng.uniform(-1, 1, size=size), rng.uniform(-1, 1, size=size)


def elastic_transform(images: Images, setting: Elastic, draws: Draws) -> Images:
    """Moves three points by an affine map, then every pixel by a smooth random displacement.

    Everything is linear interpolation in float32, mirrored at the edge. The affine part depends
    on OpenCV: its 4.x releases round coordinates, which moves some values by up to 2 levels.
    """
    shifts, right, down = draws
    size = images.shape[1:3]
    light = images.astype(np.float32) / np.float32(255.0)
    warped = np.stack([_warp(image, shift) for image, shift in zip(light, shifts, strict=True)])
    alpha, sigma = (_pixels(share, setting, size) for share in setting[:2])
    down, right = (
        (ndimage.gaussian_filter(field, (0, sigma, sigma), truncate=3) * alpha).astype(np.float32)
        for field in (down, right)
    )
    rows, columns = np.meshgrid(*(np.arange(side) for side in size), indexing="ij")
    return to_uint8(_interpolate(warped, rows + down, columns + right))


def _pixels(share: float, setting: Elastic, size: tuple[int, ...]) -> float:
    multiple, of = setting.stretch
    return min(size) * multiple / of * share


def _warp(light: Floats, shift: Floats) -> Floats:
    """Moves a corner triangle around the centre of [H, W, 3] by `shift`, float [3, 2]."""
    height, width = light.shape[:2]
    centre = np.array([width // 2, height // 2], np.float32)
    reach = min(height, width) // 3
    start = centre + np.array([[reach, reach], [reach, -reach], [-reach, -reach]], np.float32)
    matrix = cv2.getAffineTransform(start, start + shift.astype(np.float32))
    size = (width, height)
    warped = cv2.warpAffine(light, matrix, size, borderMode=cv2.BORDER_REFLECT_101)
    return warped.astype(np.float32)


def _interpolate(light: Floats, rows: Floats, columns: Floats) -> Floats:
    """Reads float32 [N, H, W, C] at float64 [N, H, W] coordinates, mirrored about its edges.

    Equal to `scipy.ndimage.map_coordinates(order=1, mode="reflect")`, all images at once.
    """
    count, height, width, channels = light.shape
    pixels = light.reshape(-1, channels)
    above, left = np.floor(rows), np.floor(columns)
    row_parts, column_parts = rows - above, columns - left
    image_starts = np.arange(count)[:, None, None] * (height * width)
    total = np.zeros(light.shape)
    for below, row_weights in ((0, 1 - row_parts), (1, row_parts)):
        starts = image_starts + _mirrored(above, below, height) * width
        for beside, column_weights in ((0, 1 - column_parts), (1, column_parts)):
            values = pixels[starts + _mirrored(left, beside, width)].astype(np.float64)
            total += values * row_weights[..., None] * column_weights[..., None]
    return total.astype(np.float32)


def _mirrored(index: Floats, step: int, side: int) -> np.ndarray:
    """Folds whole numbers back between 0 and `side` - 1: -1 is 0, -2 is 1, `side` is `side` - 1."""
    folded = (index.astype(np.int64) + step) % (2 * side)
    return np.minimum(folded, 2 * side - 1 - folded)
