"""Blur: defocus, glass, motion, zoom, gaussian; see `catalogue.Corruption`."""

from __future__ import annotations

import functools
import math
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from scipy import ndimage, sparse

from augmix_tf.corruptions.arrays import Draws, Floats, Images, to_uint8

Motion = tuple[int, float]
"""Radius and sigma of a one-sided kernel, in pixels."""


def smooth(values: Floats, sigma: float, truncate: float = 4.0) -> Floats:
    """Gaussian blur of [N, H, W, C], edges repeated, kernel cut off at `truncate` sigma."""
    return ndimage.gaussian_filter(values, (0, sigma, sigma, 0), mode="nearest", truncate=truncate)


def gaussian_blur(images: Images, sigma: float, draws: Draws) -> Images:
    """Gaussian blur with `sigma` in pixels."""
    return to_uint8(smooth(images / 255.0, sigma))


@functools.cache
def disk(radius: float, edge_sigma: float) -> Floats:
    """Returns a disk with a smoothed edge and sum 1, float32 [17, 17] or larger."""
    reach, edge = (8, 3) if radius <= 8 else (int(radius), 5)
    offsets = np.arange(-reach, reach + 1)
    sharp = (offsets**2 + offsets[:, None] ** 2 <= radius**2).astype(np.float32)
    return cv2.GaussianBlur(sharp / sharp.sum(), (edge, edge), sigmaX=edge_sigma)


def defocus_blur(images: Images, setting: tuple[float, float], draws: Draws) -> Images:
    """Correlates with a disk (radius, sigma of its edge), mirrored about the outermost pixels."""
    # OpenCV filters large kernels by Fourier transform. Its rounding changes truncated values, so
    # this must be the original's call, on float64.
    blurred = [cv2.filter2D(image / 255.0, -1, disk(*setting)) for image in images]
    return to_uint8(np.stack(blurred))


def draw_glass(rng: np.random.RandomState, image: Images, setting: tuple[float, int, int]) -> Draws:
    """Draws shifts (right, down), int8 [passes (H - 2 d) (W - 2 d), 2], d the largest shift.

    They are between -d and d - 1, in scan order: rows from H - d down to d + 1, the pixels of a
    row likewise, pass after pass.
    """
    _, reach, passes = setting
    height, width = image.shape[:2]
    count = passes * (height - 2 * reach) * (width - 2 * reach)
    return (rng.randint(-reach, reach, size=(count, 2)).astype(np.int8),)


def glass_blur(images: Images, setting: tuple[float, int, int], draws: Draws) -> Images:
    """Blurs, replaces pixels by near ones, blurs again; sigma, largest shift, passes.

    The original is written as a swap of two pixels. As numpy rows are views, it copies the near
    pixel onto the scanned one and leaves the near pixel unchanged.
    """
    (shifts,) = draws
    count, height, width, channels = images.shape
    sigma, reach, passes = setting
    blurred = to_uint8(smooth(images / 255.0, sigma))
    pixels = blurred.reshape(count, height * width, channels)
    shape = (count, passes, height - 2 * reach, width - 2 * reach, 2)
    # The scan runs from the last row and column to the first.
    for shift in np.moveaxis(shifts.reshape(shape)[:, :, ::-1, ::-1], 1, 0):
        source = glass_sources(shift, reach, height, width)
        pixels = np.take_along_axis(pixels, source[:, :, None], axis=1)
    return to_uint8(smooth(pixels.reshape(images.shape) / 255.0, sigma))


def glass_sources(
    shift: npt.NDArray[np.int8], reach: int, height: int, width: int
) -> npt.NDArray[np.int64]:
    """Returns the index of the pixel that is copied to each pixel in one pass, int64 [N, H W].

    `shift` is (right, down), [N, H - 2 reach, W - 2 reach, 2], top left first.
    """
    index = np.arange(height * width)
    inner = index.reshape(height, width)[reach + 1 : height - reach + 1]
    inner = inner[:, reach + 1 : width - reach + 1]
    neighbour = np.tile(index, (len(shift), 1))
    neighbour[:, inner.reshape(-1)] = (
        inner + shift[..., 1].astype(np.int64) * width + shift[..., 0]
    ).reshape(len(shift), -1)
    # Pixels with a larger index are scanned earlier. A neighbour that was scanned is a copy of its
    # own neighbour by now: follow these links until a pixel that was not scanned yet.
    is_scanned = np.zeros(height * width, bool)
    is_scanned[inner] = True
    is_copy = is_scanned[neighbour] & (neighbour > index)
    source = neighbour
    link = np.where(is_copy, neighbour, index)
    while is_copy.any():
        source = np.take_along_axis(source, link, axis=1)
        is_copy = np.take_along_axis(is_copy, link, axis=1)
        link = np.take_along_axis(link, link, axis=1)
    return source


def draw_motion(rng: np.random.RandomState, image: Images, setting: Motion) -> Draws:
    """Draws the direction in degrees, float64 [] between -45 and 45."""
    return (np.asarray(rng.uniform(-45, 45)),)


def motion_blur(images: Images, setting: Motion, draws: Draws) -> Images:
    """Motion blur along the drawn direction, as ImageMagick does it."""
    return directional_blur(images, setting, *draws)


@functools.cache
def taps(motion: Motion) -> Floats:
    """Returns the kernel, float64 [2 radius + 1]: one side of a Gaussian, with sum 1."""
    radius, sigma = motion
    steps = np.arange(2 * radius + 1)
    weights = np.exp(-(steps**2) / (2.0 * sigma**2))
    return weights / weights.sum()


def tap_offsets(motion: Motion, angle_degrees: Floats) -> npt.NDArray[np.int64]:
    """Returns the offset of each tap, int64 [N, taps, 2]: (down, right), for `angle_degrees` [N].

    Tap i of width w is at (ceil(i w sin a / l - 1/2), ceil(i w cos a / l - 1/2)), where l is the
    length of (w sin a, w cos a). 0 degrees points right, positive angles down.
    """
    width = len(taps(motion))
    radians = np.deg2rad(np.asarray(angle_degrees, np.float64))
    path = width * np.stack([np.sin(radians), np.cos(radians)], axis=-1)
    length = np.hypot(path[:, 0], path[:, 1])
    steps = np.arange(width)[:, None] * path[:, None, :] / length[:, None, None]
    return np.ceil(steps - 0.5).astype(np.int64)


def directional_blur(images: npt.NDArray[Any], motion: Motion, angle_degrees: Floats) -> Images:
    """Motion blur of the 16-bit build of ImageMagick on 8-bit images; edges are repeated.

        y = floor(floor(sum_i taps_i 257 x_i + 1/2) / 257)
    The factor 257 and both roundings are ImageMagick's conversion from 8 to 16 bits and back.
    Images are [N, H, W, C] or [N, H, W], angles [N].
    """
    out = np.empty_like(images)
    # Offsets are whole pixels, so many angles have the same ones: blur these images together.
    patterns, members = np.unique(tap_offsets(motion, angle_degrees), axis=0, return_inverse=True)
    for number, pattern in enumerate(patterns):
        chosen = np.flatnonzero(members.reshape(-1) == number)
        out[chosen] = _weighted_shifts(images[chosen], taps(motion), pattern)
    return out


def _weighted_shifts(images: Images, weights: Floats, offsets: npt.NDArray[np.int64]) -> Images:
    """Sum of `weights` times the images moved by `offsets`, with ImageMagick's rounding."""
    height, width = images.shape[1:3]
    low = -offsets.min(axis=0)
    (top, left), (bottom, right) = low.tolist(), offsets.max(axis=0).tolist()
    sides = (top, bottom, left, right)
    padded = np.stack([cv2.copyMakeBorder(i, *sides, cv2.BORDER_REPLICATE) for i in images]) * 257.0
    total = np.zeros(images.shape)
    term = np.empty(images.shape)
    for weight, (row, column) in zip(weights, offsets + low, strict=True):
        np.multiply(padded[:, row : row + height, column : column + width], weight, out=term)
        total += term
    # For positive numbers, floor(floor(a) / 257) is an integer division of the truncated a.
    return ((total + 0.5).astype(np.int32) // 257).astype(np.uint8)


def zoom_blur(images: Images, setting: tuple[float, int], draws: Draws) -> Images:
    """Mean of the image and of its centre at every zoom factor 1, 1 + step, ..., in float32."""
    height, width = images.shape[1:3]
    # Their number is stored because rounding makes numpy.arange include the end in some rows.
    step, factors = setting
    values = pixels_first((images / 255.0).astype(np.float32))
    exact = values.astype(np.float64)
    total = np.zeros_like(values)
    # numpy.arange in the original: its step is the second factor minus the first.
    for number in range(factors):
        factor = 1 + number * ((1 + step) - 1)
        total += zoom_centre(exact, height, width, factor).astype(np.float32)
    mean = (values + total) / np.float32(factors + 1)
    return to_uint8(images_first(mean, images.shape))


def pixels_first(batch: Floats) -> Floats:
    """Transposes [N, H, W, C] to [H W, N C], the layout of `zoom_centre`."""
    count, height, width, channels = batch.shape
    return batch.transpose(1, 2, 0, 3).reshape(height * width, count * channels)


def images_first(pixels: Floats, shape: tuple[int, ...]) -> Floats:
    """Transposes [H W, N C] back to [N, H, W, C], which is `shape`."""
    count, height, width, channels = shape
    return pixels.reshape(height, width, count, channels).transpose(2, 0, 1, 3)


def zoom_centre(pixels: Floats, height: int, width: int, factor: float) -> Floats:
    """Returns the centres of images [H W, N C] (of `pixels_first`) enlarged by `factor`.

    Equal to `scipy.ndimage.zoom(order=1)` of the middle ceil(H / factor) x ceil(W / factor) pixels,
    trimmed to [H, W], as in the original; two sparse matrices do it for a whole batch.
    """
    rows, columns = _zoom_matrices(height, width, factor)
    return columns @ (rows @ pixels)


@functools.lru_cache(maxsize=32)  # more than any one severity needs; 4 MB each at 224x224
def _zoom_matrices(height: int, width: int, factor: float) -> tuple[Any, Any]:
    """Two matrices whose product zooms; applied in turn, they round where scipy rounds.

    scipy adds (v wy) wx over the four neighbours v: the first matrix computes v wy, one term a
    row, the second multiplies by wx and adds in scipy's order.
    """
    first_row, row_weights = _zoom_neighbours(height, factor)
    first_column, column_weights = _zoom_neighbours(width, factor)
    # Rows of the first product are [neighbour row 0 or 1, output row, input column].
    sources = np.stack([first_row, np.minimum(first_row + 1, height - 1)])[:, :, None] * width
    sources = (sources + np.arange(width)).reshape(-1)
    weights = np.repeat(row_weights.T.reshape(-1), width)
    count = 2 * height * width
    ends = np.arange(count + 1, dtype=np.int32)
    rows = sparse.csr_array(
        (weights, sources.astype(np.int32), ends), shape=(count, height * width)
    )
    pairs = np.stack([first_column, np.minimum(first_column + 1, width - 1)], axis=-1)
    pairs = np.arange(height)[:, None, None, None] * width + pairs[:, None, :]
    quads = np.concatenate([pairs, pairs + height * width], axis=2).reshape(-1)
    weights = np.tile(column_weights, (height, 1, 2)).reshape(-1)
    columns = sparse.csr_array(
        (weights, quads.astype(np.int32), ends[: height * width + 1] * np.int32(4)),
        shape=(height * width, count),
    )
    return rows, columns


def _zoom_neighbours(side: int, factor: float) -> tuple[npt.NDArray[np.int64], Floats]:
    """First of the two pixels that each output pixel reads, [side], and weights, [side, 2]."""
    crop = math.ceil(side / factor)
    start = (side - crop) // 2
    # Zooming an identity matrix gives the exact weights that scipy uses.
    matrix = ndimage.zoom(np.eye(crop), (factor, 1), order=1)
    trim = (len(matrix) - side) // 2
    matrix = np.pad(matrix[trim : trim + side], ((0, 0), (0, 1)))
    first = np.argmax(matrix != 0, axis=1)
    weights = np.take_along_axis(matrix, np.stack([first, first + 1], axis=-1), axis=1)
    return first + start, weights
