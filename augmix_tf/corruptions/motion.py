"""ImageMagick's motion blur in numpy, equal to its 16-bit build on 8-bit pictures."""

from __future__ import annotations

import functools
import math
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from augmix_tf.corruptions.arrays import Floats, Images
from augmix_tf.corruptions.severities import Motion


@functools.cache
def taps(motion: Motion) -> Floats:
    """Returns the kernel, float64 [2 radius + 1]: one side of a Gaussian, with sum 1."""
    steps = np.arange(2 * math.ceil(motion.radius) + 1)
    weights = np.exp(-(steps**2) / (2.0 * motion.sigma**2))
    return weights / weights.sum()


def offsets(motion: Motion, angle_degrees: Floats) -> npt.NDArray[np.int64]:
    """Returns where each tap reads, int64 [N, taps, 2]: (down, right), for `angle_degrees` [N].

    Tap i of width w lies at (ceil(i w sin a / l - 1/2), ceil(i w cos a / l - 1/2)), where
    l is the length of (w sin a, w cos a); 0 degrees look right, positive ones down.
    """
    width = len(taps(motion))
    radians = np.deg2rad(np.asarray(angle_degrees, np.float64))
    path = width * np.stack([np.sin(radians), np.cos(radians)], axis=-1)
    length = np.hypot(path[:, 0], path[:, 1])
    steps = np.arange(width)[:, None] * path[:, None, :] / length[:, None, None]
    return np.ceil(steps - 0.5).astype(np.int64)


def motion_blur(images: npt.NDArray[Any], motion: Motion, angle_degrees: Floats) -> Images:
    """Smears pictures along a direction; pixels beyond the edge repeat it.

        y = floor(floor(sum_i taps_i 257 x_i + 1/2) / 257)
    The factor 257 and both cuts are ImageMagick's way from 8 to 16 bits and back.

    Args:
        images: uint8 [N, H, W, C] or [N, H, W].
        motion: radius and sigma.
        angle_degrees: float64 [N].

    Returns:
        uint8, shape of `images`.
    """
    out = np.empty_like(images)
    # Offsets are whole pixels, so that many angles share them and are done at once.
    patterns, members = np.unique(offsets(motion, angle_degrees), axis=0, return_inverse=True)
    for number, pattern in enumerate(patterns):
        chosen = np.flatnonzero(members.reshape(-1) == number)
        out[chosen] = _smear(images[chosen], taps(motion), pattern)
    return out


def _smear(images: Images, weights: Floats, pattern: npt.NDArray[np.int64]) -> Images:
    low = -pattern.min(axis=0)
    height, width = images.shape[1:3]
    wide = _pad_edges(images, low, pattern.max(axis=0)) * 257.0
    total = np.zeros(images.shape)
    term = np.empty(images.shape)
    for weight, (top, left) in zip(weights, pattern + low, strict=True):
        np.multiply(wide[:, top : top + height, left : left + width], weight, out=term)
        total += term
    # Cutting a positive number off twice is one floor division of the whole part.
    return ((total + 0.5).astype(np.int32) // 257).astype(np.uint8)


def _pad_edges(images: Images, before: npt.NDArray[Any], after: npt.NDArray[Any]) -> Images:
    (top, left), (bottom, right) = before.tolist(), after.tolist()
    sides = (top, bottom, left, right)
    return np.stack([cv2.copyMakeBorder(i, *sides, cv2.BORDER_REPLICATE) for i in images])
