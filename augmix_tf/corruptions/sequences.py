"""Perturbation sequences (-P): frames in which an image changes step by step."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from augmix_tf import errors, robustness
from augmix_tf.corruptions import arrays, blur, catalogue, digital, noise, weather
from augmix_tf.corruptions.arrays import Draws, Floats, Images, to_uint8
from augmix_tf.corruptions.catalogue import Apply, Corruption, Draw, Streams, chunks, draw_all

NOISY_FRAMES = 30
Ramp = list[float]
"""The value of each frame."""


def ramp(frames: int, first: float, step: float, divisor: float = 1) -> list[float]:
    """Returns (first + step i) / divisor of each frame i."""
    return [(first + step * i) / divisor for i in range(frames)]


def perturb(
    images: Images,
    name: str,
    seed: int = 0,
    ids: Sequence[int] | npt.NDArray[Any] | None = None,
    table: str | None = None,
    crop: int | None = None,
) -> Images:
    """Returns a perturbation sequence of each image.

    The result for an image is a function of (seed, name, its id) only. Given the same draws, values
    equal those of the authors' scripts bit for bit. `seed`, `ids`, `table` and errors are as for
    `corrupt`.

    Args:
        images: uint8 [N, H, W, 3], sides of at least 16 pixels.
        name: one of `PERTURBATIONS`, `EXTRA_PERTURBATIONS` or, for more noise,
            `HARDER_PERTURBATIONS`.
        crop: side of the central square to return, at least 16. Perturbations that move the image
            are cropped afterwards, so that its real surroundings come into view; the others
            before. ImageNet-P has 224, from images whose short side is 256.

    Returns:
        uint8 [N, T, H, W, 3], or [N, T, crop, crop, 3]. T is 31, except: 21 in motion_blur and 16
        in translate with CIFAR's constants, 41 in translate with ImageNet's. Frame 0 is the image
        itself in the noises and zoom_blur.
    """
    chosen = TABLES[catalogue.table_name(table, *arrays.check_images(images).shape[1:3])]
    setting = errors.lookup("perturbation", name, chosen)
    perturbation = CATALOGUE[name[:-2] if name in robustness.HARDER_PERTURBATIONS else name]
    numbers = arrays.check_ids(ids, len(images))
    streams = Streams(arrays.check_integer("seed", seed, 0), f"sequence/{name}", 0)
    if crop is not None:
        arrays.check_integer("crop", crop, 16, min(images.shape[1:3]))
    if len(images) == 0:
        return perturb(np.zeros((1, *images.shape[1:]), np.uint8), name, table=table, crop=crop)[:0]
    inputs = images if perturbation.moves_image else _center_crop(images, crop)
    sequences = []
    for rows in chunks(inputs, frames=2):
        draws = draw_all(perturbation.draw, streams, inputs[rows], numbers[rows], setting)
        sequences.append(_center_crop(perturbation.apply(inputs[rows], setting, draws), crop))
    return np.concatenate(sequences)


def _center_crop(batch: Images, crop: int | None) -> Images:
    """Crops [..., H, W, 3] to its centre, rounding the corner as torchvision's CenterCrop does."""
    if crop is None:
        return batch
    top, left = (round((side - crop) / 2) for side in batch.shape[-3:-1])
    return batch[..., top : top + crop, left : left + crop, :]


def _stack_frames(frames: Iterable[Images]) -> Images:
    return np.stack(list(frames), axis=1)


def draw_frames(draw: Draw, rng: np.random.RandomState, image: Images, setting: Any) -> Draws:
    """Draws noise for 30 frames, [30, H, W, 3]."""
    return draw(rng, np.broadcast_to(image, (NOISY_FRAMES, *image.shape)), setting)


def noisy_frames(apply: Apply, images: Images, setting: Any, draws: Draws) -> Images:
    """The clean image, then frames with independent noise."""
    noisy = apply(images[:, None], setting, draws)
    return np.concatenate([images[:, None], noisy], axis=1)


def add_float32_noise(images: Images, sigma: float, draws: Draws) -> Images:
    """Adds gaussian noise in float32: x + n."""
    values = images.astype(np.float32) / np.float32(255.0)
    return to_uint8(values + draws[0].astype(np.float32))


def motion_blur(images: Images, setting: tuple[blur.Motion, Ramp], draws: Draws) -> Images:
    """Motion blur whose direction, in degrees, turns. Also takes grey images [N, H, W]."""
    motion, degrees = setting
    angles = (np.full(len(images), angle) for angle in degrees)
    return _stack_frames(blur.directional_blur(images, motion, angle) for angle in angles)


def zoom_blur(images: Images, scales: Ramp, draws: Draws) -> Images:
    """The clean image, then means of all zooms so far, summed in float32."""
    total = images.astype(np.float32) / np.float32(255.0)
    frames = [images]
    for scale in scales[1:]:
        matrix = inverse_affine(images.shape[2], images.shape[1], scale=scale)
        total += affine(images, matrix).astype(np.float32) / np.float32(255.0)
        frames.append(to_uint8(total / np.float32(len(frames) + 1)))
    return _stack_frames(frames)


def brightness(images: Images, amounts: Ramp, draws: Draws) -> Images:
    """From darker to brighter: value of HSV + amount, clipped."""
    hue, saturation, value = digital.to_hsv(images)
    values = (np.clip(value + amount, 0, 1) for amount in amounts)
    return _stack_frames(digital.from_hsv(hue, saturation, value) for value in values)


def gaussian_blur(images: Images, setting: tuple[Ramp, float], draws: Draws) -> Images:
    """Gaussian blur of growing sigma, its kernel cut off at a multiple of sigma."""
    values, (sigmas, truncate) = images / 255.0, setting
    blurred = (blur.smooth(values, sigma, truncate) for sigma in sigmas)
    return _stack_frames(to_uint8(frame) for frame in blurred)


def affine_frames(parameter: str, images: Images, values: Ramp, draws: Draws) -> Images:
    """Affine maps, one for every value of `parameter` of `inverse_affine`."""
    height, width = images.shape[1:3]
    matrices = (inverse_affine(width, height, **{parameter: value}) for value in values)
    nearest = parameter == "shift_pixels"
    return _stack_frames(affine(images, matrix, nearest) for matrix in matrices)


def tilt(images: Images, degrees: Ramp, draws: Draws) -> Images:
    """Rotates about both axes of the image, in perspective, bilinear."""
    return _stack_frames(warp_tilt(images, angle) for angle in degrees)


def snow(images: Images, setting: Any, draws: Draws) -> Images:
    """One layer of flakes (`weather.Snow`), motion-blurred in a direction that turns."""
    _, _, zoom, threshold, motion, image_weight, degrees = setting
    flakes = weather.snow_flakes(draws[0], zoom, threshold)
    frames = np.moveaxis(motion_blur(flakes, (motion, degrees), ()), 1, 0) / 255.0
    values = images / 255.0
    return _stack_frames(weather.add_snow(values, frame, image_weight) for frame in frames)


def spatter(images: Images, setting: Any, draws: Draws) -> Images:
    """Drops of water (`weather.Spatter`) that a kernel moves down in each of some frames."""
    *_, sigma, threshold, strength, kernel, count = setting
    drops = weather.drops_of(draws[0], sigma, threshold)
    frames = []
    for _ in range(count):
        frames.append(weather.add_water(images, drops, strength))
        drops = run_down(drops, kernel)
    return _stack_frames(frames)


def run_down(drops: Floats, kernel: tuple[float, ...]) -> Floats:
    """Convolves the columns of [N, H, W] with `kernel`, as `numpy.convolve(mode="same")` does."""
    return np.apply_along_axis(np.convolve, 1, drops, kernel, mode="same")


def inverse_affine(
    width: int,
    height: int,
    angle_degrees: float = 0.0,
    shift_pixels: float = 0.0,
    scale: float = 1.0,
    shear_degrees: float = 0.0,
) -> tuple[float, ...]:
    """Returns (a, b, c, d, e, f): output (x, y) samples input (a x + b y + c, d x + e y + f).

    Rotation is clockwise, the shift to the right. As in torchvision 0.2, which made the benchmark,
    the fixed point is (W / 2 + 1/2, H / 2 + 1/2), where pixel k covers [k, k + 1): half a pixel off
    the centre; and shear also stretches y by 1 / cos.
    """
    angle, shear = math.radians(angle_degrees), math.radians(shear_degrees)
    centre_x, centre_y = width * 0.5 + 0.5, height * 0.5 + 0.5
    cos_sheared, sin_sheared = math.cos(angle + shear), math.sin(angle + shear)
    determinant = cos_sheared * math.cos(angle) + sin_sheared * math.sin(angle)
    factor = 1.0 / scale / determinant
    a, b = factor * cos_sheared, factor * sin_sheared
    d, e = factor * -math.sin(angle), factor * math.cos(angle)
    from_x, from_y = -centre_x - shift_pixels, -centre_y
    return a, b, a * from_x + b * from_y + centre_x, d, e, d * from_x + e * from_y + centre_y


def affine(images: Images, matrix: tuple[float, ...], nearest: bool = False) -> Images:
    """Returns uint8 [N, H, W, 3] images resampled by Pillow, bilinear unless `nearest`."""
    size = images.shape[2], images.shape[1]
    filter_ = Image.Resampling.NEAREST if nearest else Image.Resampling.BILINEAR
    moved = (
        Image.fromarray(image).transform(size, Image.Transform.AFFINE, matrix, filter_)
        for image in images
    )
    return np.stack([np.asarray(image) for image in moved])


def tilt_matrix(width: int, height: int, angle_degrees: float) -> Floats:
    """Returns the perspective of an image turned about its x and y axes, float64 [3, 3].

    It maps input pixels to output pixels. The distance of the camera is the image diagonal f. The
    original gives the image itself depth 1, so its depth is f + 1 and it shrinks by f / (f + 1)
    even at 0 degrees.
    """
    focal = math.sqrt(width**2 + height**2)
    cos, sin = math.cos(math.radians(angle_degrees)), math.sin(math.radians(angle_degrees))
    centred = np.array([[1, 0, -width / 2], [0, 1, -height / 2], [0, 0, 1], [0, 0, 1]])
    about_x = np.array([[1, 0, 0, 0], [0, cos, -sin, 0], [0, sin, cos, 0], [0, 0, 0, 1]])
    about_y = np.array([[cos, 0, -sin, 0], [0, 1, 0, 0], [sin, 0, cos, 0], [0, 0, 0, 1]])
    away = np.eye(4)
    away[2, 3] = focal
    camera = np.array([[focal, 0, width / 2, 0], [0, focal, height / 2, 0], [0, 0, 1, 0]])
    return camera @ (away @ (about_x @ (about_y @ centred)))


def warp_tilt(images: Images, angle_degrees: float) -> Images:
    """Returns uint8 [N, H, W, 3] images in perspective, bilinear.

    OpenCV 5 interpolates in floating point, 4.x at 1/32 pixels: they differ by up to 7 levels.
    """
    size = images.shape[2], images.shape[1]
    matrix = tilt_matrix(*size, angle_degrees)
    return np.stack([cv2.warpPerspective(i, matrix, size, flags=cv2.INTER_LINEAR) for i in images])


def _noise(apply: Apply, draw: Draw) -> Corruption:
    return Corruption(partial(noisy_frames, apply), partial(draw_frames, draw))


def _affine(parameter: str) -> Corruption:
    return Corruption(partial(affine_frames, parameter), moves_image=True)


CATALOGUE = {
    "gaussian_noise": _noise(add_float32_noise, noise.draw_normal),
    "shot_noise": _noise(noise.shot_noise, noise.draw_shot),
    "speckle_noise": _noise(noise.speckle_noise, noise.draw_normal),
    "motion_blur": Corruption(motion_blur),
    "zoom_blur": Corruption(zoom_blur, moves_image=True),
    "snow": Corruption(snow, weather.draw_layer),
    "brightness": Corruption(brightness),
    "translate": _affine("shift_pixels"),
    "rotate": _affine("angle_degrees"),
    "tilt": Corruption(tilt, moves_image=True),
    "scale": _affine("scale"),
    "gaussian_blur": Corruption(gaussian_blur),
    "spatter": Corruption(spatter, weather.draw_layer),
    "shear": _affine("shear_degrees"),
}


# Table -> perturbation -> constants, which the functions name; of the noises as for a corruption.
# fmt: off
TABLES: dict[str, dict[str, Any]] = {
    "cifar": {
        "gaussian_noise": 0.02, "gaussian_noise_2": 0.04, "gaussian_noise_3": 0.06,
        "shot_noise": 700, "shot_noise_2": 400, "shot_noise_3": 200,
        "speckle_noise": 0.05, "speckle_noise_2": 0.07, "speckle_noise_3": 0.1,
        "motion_blur": ((6, 1.8), ramp(21, -180, 9)),
        "zoom_blur": ramp(31, 1, 0.004),
        "snow": (0.05, 0.3, 2, 0.5, (10, 2), 0.85, ramp(31, -150, 4)),
        "brightness": ramp(31, -22.5, 1.5, 100),
        "translate": ramp(16, -7, 1),
        "rotate": ramp(31, -15, 1),
        "tilt": ramp(31, -11.25, 0.75),
        "scale": ramp(31, 70, 2, 100),
        "gaussian_blur": (ramp(31, 0.3, 0.015), 7),
        "spatter": (0.6, 0.265, 1.75, 0.7, 0.6, (0.2, 0.8), 31),
        "shear": ramp(31, -15, 1),
    },
    "imagenet": {
        "gaussian_noise": 0.03, "gaussian_noise_2": 0.05, "gaussian_noise_3": 0.08,
        "shot_noise": 300, "shot_noise_2": 120, "shot_noise_3": 60,
        "speckle_noise": 0.05, "speckle_noise_2": 0.1, "speckle_noise_3": 0.15,
        "motion_blur": ((10, 3), ramp(31, -120, 4)),
        "zoom_blur": ramp(31, 1, 0.004),
        "snow": (0.05, 0.3, 3, 0.5, (14, 4), 0.85, ramp(31, -150, 4)),
        "brightness": ramp(31, -30, 2, 100),
        "translate": ramp(41, -20, 1),
        "rotate": ramp(31, -15, 1),
        "tilt": ramp(31, -15, 1),
        "scale": ramp(31, 40, 2.5, 100),
        "gaussian_blur": (ramp(31, 0.25, 0.035), 6),
        "spatter": (0.65, 0.27, 3.7, 0.69, 0.6, (0.05, 0.1, 0.15, 0.7), 31),
        "shear": ramp(31, -15, 1),
    },
}
# fmt: on
