"""Perturbation sequences (-P benchmarks): frames in which an image changes step by step.

`Perturbation` describes arguments and results of the perturbations.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from augmix_tf import errors, robustness
from augmix_tf.corruptions import blur, digital, geometry, noise, tables, weather
from augmix_tf.corruptions.arrays import (
    Draws,
    Floats,
    Images,
    check_ids,
    check_images,
    check_integer,
    to_uint8,
)
from augmix_tf.corruptions.catalogue import Apply, Draw, Streams, chunks, draw_all
from augmix_tf.corruptions.tables import BlurRamp, MotionRamp, Ramp, SnowSequence, SpatterSequence

NOISY_FRAMES = 30


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
    equal those of the authors' scripts bit for bit.

    Args:
        images: uint8 [N, H, W, 3], sides of at least 16 pixels.
        name: one of `PERTURBATIONS`, `EXTRA_PERTURBATIONS` or, for more noise,
            `HARDER_PERTURBATIONS`.
        seed: integer of at least 0.
        ids: N unique integers of at least 0 (default: 0, 1, 2, ...).
        table: constants, "cifar" or "imagenet" (default: by size, as for `corrupt`).
        crop: side of the central square to return, at least 16. Perturbations that move the image
            are cropped afterwards, so that its real surroundings come into view; the others
            before. ImageNet-P has 224, from images whose short side is 256.

    Returns:
        uint8 [N, T, H, W, 3], or [N, T, crop, crop, 3]. T is 31, except: 21 in motion_blur and 16
        in translate with CIFAR's constants, 41 in translate with ImageNet's. Frame 0 is the image
        itself in the noises and zoom_blur.

    Raises:
        ArgumentError: an argument is invalid.

    Source: Hendrycks and Dietterich, ICLR 2019 (arXiv 1903.12261).
    """
    chosen = tables.SEQUENCE_TABLES[tables.table_name(table, *check_images(images).shape[1:3])]
    setting = errors.lookup("perturbation", name, chosen)
    perturbation = CATALOGUE[base_name(name)]
    numbers = check_ids(ids, len(images))
    streams = Streams(check_integer("seed", seed, 0), f"sequence/{name}", 0)
    if crop is not None:
        check_integer("crop", crop, 16, min(images.shape[1:3]))
    if len(images) == 0:
        return perturb(np.zeros((1, *images.shape[1:]), np.uint8), name, table=table, crop=crop)[:0]
    inputs = images if perturbation.moves_image else _center_crop(images, crop)
    sequences = []
    for rows in chunks(inputs, frames=2):
        draws = draw_all(perturbation.draw, streams, inputs[rows], numbers[rows], setting)
        sequences.append(_center_crop(perturbation.apply(inputs[rows], setting, draws), crop))
    return np.concatenate(sequences)


def base_name(name: str) -> str:
    """Returns `name` without the "_2" or "_3" of the harder noises."""
    return name[:-2] if name in robustness.HARDER_PERTURBATIONS else name


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


def motion_blur(images: Images, setting: MotionRamp, draws: Draws) -> Images:
    """Motion blur whose direction turns. Also takes grey images [N, H, W]."""
    angles = (np.full(len(images), angle) for angle in setting.degrees.values())
    return _stack_frames(blur.directional_blur(images, setting.motion, angle) for angle in angles)


def zoom_blur(images: Images, scales: Ramp, draws: Draws) -> Images:
    """The clean image, then means of all zooms so far, summed in float32."""
    total = images.astype(np.float32) / np.float32(255.0)
    frames = [images]
    for scale in scales.values()[1:]:
        matrix = geometry.inverse_affine(images.shape[2], images.shape[1], scale=scale)
        total += geometry.affine(images, matrix).astype(np.float32) / np.float32(255.0)
        frames.append(to_uint8(total / np.float32(len(frames) + 1)))
    return _stack_frames(frames)


def brightness(images: Images, amounts: Ramp, draws: Draws) -> Images:
    """From darker to brighter: value of HSV + amount, clipped."""
    hue, saturation, value = digital.to_hsv(images)
    values = (np.clip(value + amount, 0, 1) for amount in amounts.values())
    return _stack_frames(digital.from_hsv(hue, saturation, value) for value in values)


def gaussian_blur(images: Images, setting: BlurRamp, draws: Draws) -> Images:
    """Gaussian blur of growing sigma."""
    values = images / 255.0
    blurred = (blur.smooth(values, sigma, setting.truncate) for sigma in setting.sigma.values())
    return _stack_frames(to_uint8(frame) for frame in blurred)


def affine_frames(parameter: str, images: Images, ramp: Ramp, draws: Draws) -> Images:
    """Affine maps, one for every value of `parameter` of `geometry.inverse_affine`."""
    height, width = images.shape[1:3]
    matrices = (
        geometry.inverse_affine(width, height, **{parameter: value}) for value in ramp.values()
    )
    nearest = parameter == "shift_pixels"
    return _stack_frames(geometry.affine(images, matrix, nearest) for matrix in matrices)


def tilt(images: Images, degrees: Ramp, draws: Draws) -> Images:
    """Rotates about both axes of the image, in perspective, bilinear."""
    return _stack_frames(geometry.tilt(images, angle) for angle in degrees.values())


def snow(images: Images, setting: SnowSequence, draws: Draws) -> Images:
    """One layer of flakes, motion-blurred in a direction that turns."""
    (layer,) = draws
    flakes = weather.snow_flakes(layer, setting.zoom, setting.threshold)
    frames = np.moveaxis(motion_blur(flakes, setting.fall, ()), 1, 0) / 255.0
    values = images / 255.0
    return _stack_frames(weather.add_snow(values, frame, setting.image_weight) for frame in frames)


def spatter(images: Images, setting: SpatterSequence, draws: Draws) -> Images:
    """Drops of water that run down."""
    (layer,) = draws
    drops = weather.drops_of(layer, setting)
    frames = []
    for _ in range(setting.frames):
        frames.append(weather.add_water(images, drops, setting.strength))
        drops = run_down(drops, setting.kernel)
    return _stack_frames(frames)


def run_down(drops: Floats, kernel: tuple[float, ...]) -> Floats:
    """Convolves the columns of [N, H, W] with `kernel`, as `numpy.convolve(mode="same")` does."""
    return np.apply_along_axis(np.convolve, 1, drops, kernel, mode="same")


@dataclass(frozen=True)
class Perturbation:
    """The two functions of a perturbation, as in `catalogue.Corruption`.

    Attributes:
        apply: (images, setting, draws) -> sequences uint8 [N, T, H, W, 3].
        draw: as for corruptions.
        moves_image: `apply` moves the image, so that its surroundings come into view.
    """

    apply: Apply
    draw: Draw | None = None
    moves_image: bool = False


def _noise(apply: Apply, draw: Draw) -> Perturbation:
    return Perturbation(partial(noisy_frames, apply), partial(draw_frames, draw))


def _affine(parameter: str) -> Perturbation:
    return Perturbation(partial(affine_frames, parameter), moves_image=True)


CATALOGUE = {
    "gaussian_noise": _noise(add_float32_noise, noise.draw_normal),
    "shot_noise": _noise(noise.shot_noise, noise.draw_shot),
    "speckle_noise": _noise(noise.speckle_noise, noise.draw_normal),
    "motion_blur": Perturbation(motion_blur),
    "zoom_blur": Perturbation(zoom_blur, moves_image=True),
    "snow": Perturbation(snow, weather.draw_layer),
    "brightness": Perturbation(brightness),
    "translate": _affine("shift_pixels"),
    "rotate": _affine("angle_degrees"),
    "tilt": Perturbation(tilt, moves_image=True),
    "scale": _affine("scale"),
    "gaussian_blur": Perturbation(gaussian_blur),
    "spatter": Perturbation(spatter, weather.draw_layer),
    "shear": _affine("shear_degrees"),
}
