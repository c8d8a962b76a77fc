"""The frames of each perturbation: uint8 [N, H, W, 3] images to uint8 [N, T, H, W, 3] sequences.

`draw_*` takes one image's stream and uint8 [H, W, 3] image; the others take the draws of N images,
stacked. With x the image in [0, 1], frames are clipped to [0, 1], multiplied by 255, cut off.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from augmix_tf.corruptions import blur, geometry, hsv, motion, weather
from augmix_tf.corruptions.arrays import Draws, Floats, Images, to_uint8
from augmix_tf.corruptions.severities import Motion

NOISY_FRAMES = 30


class Path(NamedTuple):
    """Frame i of `frames` has the value (first + step i) / divisor."""

    frames: int
    first: float
    step: float
    divisor: float = 1

    def values(self) -> list[float]:
        """Returns the values of all frames."""
        return [(self.first + self.step * i) / self.divisor for i in range(self.frames)]


class MotionPath(NamedTuple):
    """Motion blur whose direction turns."""

    motion: Motion
    degrees: Path


class BlurPath(NamedTuple):
    """Gaussian blur that widens, cut at `truncate` sigma."""

    sigma: Path
    truncate: float


class Snowfall(NamedTuple):
    """One normal layer (mean, std), zoomed, cut below the threshold, blown along a turning path."""

    mean: float
    std: float
    zoom: float
    threshold: float
    wind: MotionPath
    image_share: float


class Dripping(NamedTuple):
    """One normal layer (mean, std), blurred, cut below the threshold; columns drip by `kernel`."""

    mean: float
    std: float
    sigma: float
    threshold: float
    strength: float
    kernel: tuple[float, ...]
    frames: int


def _sequence(frames: Iterable[Images]) -> Images:
    return np.stack(list(frames), axis=1)


def _after_clean(images: Images, noisy: Images) -> Images:
    return np.concatenate([images[:, None], noisy], axis=1)


def draw_gaussian(rng: np.random.RandomState, image: Images, sigma: float) -> Draws:
    """Returns float32 [30, H, W, 3], normal with mean 0 and standard deviation `sigma`."""
    noise = rng.normal(size=(NOISY_FRAMES, *image.shape), scale=sigma)
    return (noise.astype(np.float32),)


def gaussian_noise(images: Images, sigma: float, draws: Draws) -> Images:
    """The clean image, then frames x + n in float32, each with its own noise."""
    (noise,) = draws
    light = images.astype(np.float32) / np.float32(255.0)
    return _after_clean(images, to_uint8(light[:, None] + noise))


def draw_shot(rng: np.random.RandomState, image: Images, photons: float) -> Draws:
    """Returns photon counts, uint16 [30, H, W, 3]: Poisson with mean x `photons`."""
    means = np.broadcast_to(image / 255.0 * photons, (NOISY_FRAMES, *image.shape))
    return (rng.poisson(means).astype(np.uint16),)


def shot_noise(images: Images, photons: float, draws: Draws) -> Images:
    """The clean image, then frames count / `photons`."""
    (counts,) = draws
    return _after_clean(images, to_uint8(counts / float(photons)))


def draw_speckle(rng: np.random.RandomState, image: Images, sigma: float) -> Draws:
    """Returns float64 [30, H, W, 3], normal with mean 0 and standard deviation `sigma`."""
    return (rng.normal(size=(NOISY_FRAMES, *image.shape), scale=sigma),)


def speckle_noise(images: Images, sigma: float, draws: Draws) -> Images:
    """The clean image, then frames x + x n."""
    (noise,) = draws
    light = (images / 255.0)[:, None]
    return _after_clean(images, to_uint8(light + light * noise))


def motion_blur(images: Images, setting: MotionPath, draws: Draws) -> Images:
    """A smear that turns."""
    return _smeared(images, setting)


def _smeared(images: Images, setting: MotionPath) -> Images:
    angles = (np.full(len(images), angle) for angle in setting.degrees.values())
    return _sequence(motion.motion_blur(images, setting.motion, angle) for angle in angles)


def zoom_blur(images: Images, scales: Path, draws: Draws) -> Images:
    """The clean image, then means of all zooms so far, added up in float32."""
    total = images.astype(np.float32) / np.float32(255.0)
    frames = [images]
    for scale in scales.values()[1:]:
        matrix = geometry.inverse_affine(images.shape[2], images.shape[1], scale=scale)
        total += geometry.affine(images, matrix).astype(np.float32) / np.float32(255.0)
        frames.append(to_uint8(total / np.float32(len(frames) + 1)))
    return _sequence(frames)


def brightness(images: Images, amounts: Path, draws: Draws) -> Images:
    """From darker to brighter: value of HSV + amount, clipped."""
    hue, saturation, value = hsv.from_rgb(*hsv.planes(images))
    values = (np.clip(value + amount, 0, 1) for amount in amounts.values())
    colours = (hsv.to_rgb(hue, saturation, value) for value in values)
    return _sequence(to_uint8(np.stack(colour, axis=-1)) for colour in colours)


def gaussian_blur(images: Images, setting: BlurPath, draws: Draws) -> Images:
    """Wider and wider Gaussian blur."""
    light = images / 255.0
    soft = (blur.smooth(light, sigma, setting.truncate) for sigma in setting.sigma.values())
    return _sequence(to_uint8(frame) for frame in soft)


def translate(images: Images, shifts: Path, draws: Draws) -> Images:
    """From left to right, whole pixels, black where nothing was."""
    return _moved(images, [{"shift_pixels": shift} for shift in shifts.values()], nearest=True)


def rotate(images: Images, degrees: Path, draws: Draws) -> Images:
    """Clockwise turn, bilinear."""
    return _moved(images, [{"angle_degrees": angle} for angle in degrees.values()])


def scale(images: Images, scales: Path, draws: Draws) -> Images:
    """From small to large, bilinear."""
    return _moved(images, [{"scale": factor} for factor in scales.values()])


def shear(images: Images, degrees: Path, draws: Draws) -> Images:
    """Shear along x, bilinear."""
    return _moved(images, [{"shear_degrees": angle} for angle in degrees.values()])


def _moved(images: Images, poses: list[dict[str, float]], nearest: bool = False) -> Images:
    height, width = images.shape[1:3]
    matrices = (geometry.inverse_affine(width, height, **pose) for pose in poses)
    return _sequence(geometry.affine(images, matrix, nearest) for matrix in matrices)


def tilt(images: Images, degrees: Path, draws: Draws) -> Images:
    """Turn about both axes of the picture, in perspective, bilinear."""
    return _sequence(geometry.tilt(images, angle) for angle in degrees.values())


def draw_layer(rng: np.random.RandomState, image: Images, setting: Snowfall | Dripping) -> Draws:
    """Returns the normal layer of a whole sequence, float64 [H, W]."""
    return (rng.normal(size=image.shape[:2], loc=setting.mean, scale=setting.std),)


def snow(images: Images, setting: Snowfall, draws: Draws) -> Images:
    """One layer of flakes, blown along a turning path."""
    (layer,) = draws
    flakes = weather.snow_flakes(layer, setting.zoom, setting.threshold)
    moving = np.moveaxis(_smeared(flakes, setting.wind), 1, 0) / 255.0
    light = images / 255.0
    return _sequence(weather.snow_over(light, fall, setting.image_share) for fall in moving)


def spatter(images: Images, setting: Dripping, draws: Draws) -> Images:
    """Drops of water that run downwards."""
    (layer,) = draws
    drops = ndimage.gaussian_filter(layer, (0, setting.sigma, setting.sigma), mode="nearest")
    drops[drops < setting.threshold] = 0
    frames = []
    for _ in range(setting.frames):
        frames.append(weather.water_over(images, drops, setting.strength))
        drops = drip(drops, setting.kernel)
    return _sequence(frames)


def drip(drops: Floats, kernel: tuple[float, ...]) -> Floats:
    """Convolves the columns of [N, H, W] with `kernel`, as `numpy.convolve(mode="same")` does."""
    return np.apply_along_axis(np.convolve, 1, drops, kernel, mode="same")
