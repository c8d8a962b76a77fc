"""Blur: defocus, glass, motion, zoom, gaussian.

`draw_*` takes one image's stream and uint8 [H, W, 3] image; `*_blur` takes uint8 [N, H, W, 3]
and the draws of N images, stacked, and returns uint8 [N, H, W, 3]. With x the image in [0, 1],
results are clipped to [0, 1], multiplied by 255 and cut off.
"""

from __future__ import annotations

import functools

import cv2
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from augmix_tf.corruptions import motion, zoom
from augmix_tf.corruptions.arrays import Draws, Floats, Images, to_uint8
from augmix_tf.corruptions.severities import Defocus, Glass, Motion, Zoom


def smooth(light: Floats, sigma: float, truncate: float = 4.0) -> Floats:
    """Gaussian blur of [N, H, W, C], the edge repeated, cut at `truncate` sigma."""
    return ndimage.gaussian_filter(light, (0, sigma, sigma, 0), mode="nearest", truncate=truncate)


def gaussian_blur(images: Images, sigma: float, draws: Draws) -> Images:
    """Gaussian blur with `sigma` in pixels."""
    return to_uint8(smooth(images / 255.0, sigma))


@functools.cache
def disk(setting: Defocus) -> Floats:
    """Returns a disk with a smoothed edge and sum 1, float32 [17, 17] or larger."""
    reach, edge = (8, 3) if setting.radius <= 8 else (int(setting.radius), 5)
    across = np.arange(-reach, reach + 1)
    sharp = (across**2 + across[:, None] ** 2 <= setting.radius**2).astype(np.float32)
    return cv2.GaussianBlur(sharp / sharp.sum(), (edge, edge), sigmaX=setting.edge_sigma)


def defocus_blur(images: Images, setting: Defocus, draws: Draws) -> Images:
    """Correlates with a disk, the picture mirrored about its outermost pixels."""
    # OpenCV filters large kernels by Fourier transform. Its rounding shows after the values are cut
    # off, so this has to be the original's call, on float64.
    light = [cv2.filter2D(image / 255.0, -1, disk(setting)) for image in images]
    return to_uint8(np.stack(light))


def draw_glass(rng: np.random.RandomState, image: Images, setting: Glass) -> Draws:
    """Returns shifts (right, down), int8 [passes (H - 2 d) (W - 2 d), 2], d the largest shift.

    They lie between -d and d - 1, in the order of the scan: rows from H - d down to d + 1, the
    pixels of a row likewise, pass after pass.
    """
    reach = setting.max_shift
    height, width = image.shape[:2]
    count = setting.passes * (height - 2 * reach) * (width - 2 * reach)
    return (rng.randint(-reach, reach, size=(count, 2)).astype(np.int8),)


def glass_blur(images: Images, setting: Glass, draws: Draws) -> Images:
    """Blurs, replaces pixels by near ones, blurs again.

    The original means to swap two pixels, but as numpy rows are views, the near pixel overwrites
    the other and stays: each pixel of the scan becomes a copy of the one that it meets.
    """
    (shifts,) = draws
    count, height, width, channels = images.shape
    reach = setting.max_shift
    soft = to_uint8(smooth(images / 255.0, setting.sigma))
    pixels = soft.reshape(count, height * width, channels)
    shape = (count, setting.passes, height - 2 * reach, width - 2 * reach, 2)
    # The scan runs from the last row and column to the first.
    for shift in np.moveaxis(shifts.reshape(shape)[:, :, ::-1, ::-1], 1, 0):
        source = glass_sources(shift, reach, height, width)
        pixels = np.take_along_axis(pixels, source[:, :, None], axis=1)
    return to_uint8(smooth(pixels.reshape(images.shape) / 255.0, setting.sigma))


def glass_sources(
    shift: npt.NDArray[np.int8], reach: int, height: int, width: int
) -> npt.NDArray[np.int64]:
    """Returns the pixel that ends up in each place after one pass, int64 [N, H W].

    Args:
        shift: (right, down), int8 [N, H - 2 reach, W - 2 reach, 2], in the picture's order.
        reach: largest shift.
        height: H.
        width: W.
    """
    place = np.arange(height * width)
    inner = place.reshape(height, width)[reach + 1 : height - reach + 1]
    inner = inner[:, reach + 1 : width - reach + 1]
    meets = np.tile(place, (len(shift), 1))
    meets[:, inner.reshape(-1)] = (
        inner + shift[..., 1].astype(np.int64) * width + shift[..., 0]
    ).reshape(len(shift), -1)
    # A place later in the picture was scanned before: it holds a copy already. Whoever meets it
    # takes what it holds, and so on until a place that had not been scanned.
    scanned = np.zeros(height * width, bool)
    scanned[inner] = True
    copied = scanned[meets] & (meets > place)
    source = meets
    follow = np.where(copied, meets, place)
    while copied.any():
        source = np.take_along_axis(source, follow, axis=1)
        copied = np.take_along_axis(copied, follow, axis=1)
        follow = np.take_along_axis(follow, follow, axis=1)
    return source


def draw_motion(rng: np.random.RandomState, image: Images, setting: Motion) -> Draws:
    """Returns the direction in degrees, float64 [] between -45 and 45."""
    return (np.asarray(rng.uniform(-45, 45)),)


def motion_blur(images: Images, setting: Motion, draws: Draws) -> Images:
    """Smears along the drawn direction, as ImageMagick does."""
    (angle_degrees,) = draws
    return motion.motion_blur(images, setting, angle_degrees)


def zoom_blur(images: Images, setting: Zoom, draws: Draws) -> Images:
    """Mean of the picture and of its centre at every zoom factor, in float32."""
    height, width = images.shape[1:3]
    light = zoom.pixels_first((images / 255.0).astype(np.float32))
    exact = light.astype(np.float64)
    total = np.zeros_like(light)
    # As numpy's arange counts: the second factor less the first is the step.
    for number in range(setting.factors):
        factor = 1 + number * ((1 + setting.step) - 1)
        total += zoom.zoom_centre(exact, height, width, factor).astype(np.float32)
    mean = (light + total) / np.float32(setting.factors + 1)
    return to_uint8(zoom.images_first(mean, images.shape))
