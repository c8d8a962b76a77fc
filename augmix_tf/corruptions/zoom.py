"""Magnified centres of pictures: scipy's linear zoom as two sparse matrices for a whole batch."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage, sparse

from augmix_tf.corruptions.arrays import Floats


def pixels_first(batch: Floats) -> Floats:
    """Turns [N, H, W, C] into [H W, N C], on which a zoom works."""
    count, height, width, channels = batch.shape
    return batch.transpose(1, 2, 0, 3).reshape(height * width, count * channels)


def images_first(pixels: Floats, shape: tuple[int, ...]) -> Floats:
    """Turns [H W, N C] back into [N, H, W, C] of this `shape`."""
    count, height, width, channels = shape
    return pixels.reshape(height, width, count, channels).transpose(2, 0, 1, 3)


def zoom_centre(pixels: Floats, height: int, width: int, factor: float) -> Floats:
    """Returns the centres of pictures, `factor` times as large, in the size of the pictures.

    Takes the middle ceil(H / factor) x ceil(W / factor) pixels, zooms them linearly with corners on
    corners and trims what is too much, as the original does with `scipy.ndimage.zoom`.

    Args:
        pixels: float64 [H W, N C], as `pixels_first` makes them.
        height: H.
        width: W.
        factor: 1 or more.

    Returns:
        float64 [H W, N C].
    """
    rows, columns = _matrices(height, width, factor)
    return columns @ (rows @ pixels)


@functools.lru_cache(maxsize=32)  # more than any one severity has; 4 MB each at 224x224
def _matrices(height: int, width: int, factor: float) -> tuple[Any, Any]:
    """Two matrices whose product zooms; apart, they round where scipy rounds.

    scipy adds (v wy) wx over the four neighbours v: the first matrix makes v wy, one term a
    row, the second multiplies by wx and adds in scipy's order.
    """
    first_row, row_weights = _neighbours(height, factor)
    first_column, column_weights = _neighbours(width, factor)
    # Scaled rows lie at [neighbour row 0 or 1, output row, input column].
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


def _neighbours(side: int, factor: float) -> tuple[npt.NDArray[np.int64], Floats]:
    """First of the two pixels that each output pixel reads, [side], and weights, [side, 2]."""
    crop = math.ceil(side / factor)
    start = (side - crop) // 2
    # Zooming the identity shows the very weights that scipy uses.
    matrix = ndimage.zoom(np.eye(crop), (factor, 1), order=1)
    trim = (len(matrix) - side) // 2
    matrix = np.pad(matrix[trim : trim + side], ((0, 0), (0, 1)))
    first = np.argmax(matrix != 0, axis=1)
    weights = np.take_along_axis(matrix, np.stack([first, first + 1], axis=-1), axis=1)
    return first + start, weights
