"""Noise: gaussian, shot, impulse, speckle.

`draw_*` takes one image's stream and uint8 [H, W, 3] image; `*_noise` takes uint8 [N, H, W, 3]
and the draws of N images, stacked, and returns uint8 [N, H, W, 3]. With x the image in [0, 1],
results are clipped to [0, 1], multiplied by 255 and cut off.
"""

from __future__ import annotations

import numpy as np

from augmix_tf.corruptions.arrays import Draws, Images, to_uint8


def draw_normal(rng: np.random.RandomState, image: Images, sigma: float) -> Draws:
    """Returns float64 [H, W, 3], normal with mean 0 and standard deviation `sigma`."""
    return (rng.normal(size=image.shape, scale=sigma),)


def gaussian_noise(images: Images, sigma: float, draws: Draws) -> Images:
    """Adds the drawn noise: x + n."""
    (noise,) = draws
    return to_uint8(images / 255.0 + noise)


def speckle_noise(images: Images, sigma: float, draws: Draws) -> Images:
    """Adds noise in proportion to the light: x + x n."""
    (noise,) = draws
    light = images / 255.0
    return to_uint8(light + light * noise)


def draw_shot(rng: np.random.RandomState, image: Images, photons: float) -> Draws:
    """Returns photon counts, uint16 [H, W, 3]: Poisson with mean x `photons`."""
    return (rng.poisson(image / 255.0 * photons).astype(np.uint16),)


def shot_noise(images: Images, photons: float, draws: Draws) -> Images:
    """Returns the light that was counted: count / `photons`, where white is `photons`."""
    (counts,) = draws
    return to_uint8(counts / float(photons))


def draw_impulse(rng: np.random.RandomState, image: Images, amount: float) -> Draws:
    """Returns two bool [H, W, 3]: values that are replaced, and those which become white."""
    replaced = rng.random(image.shape) <= amount
    return replaced, rng.random(image.shape) <= 0.5


def impulse_noise(images: Images, amount: float, draws: Draws) -> Images:
    """Replaces single values, not whole pixels, by 0 or 255."""
    replaced, white = draws
    # v / 255 * 255, cut off, is v for every 8-bit v in float64: the trip may be left out.
    return np.where(replaced, np.where(white, np.uint8(255), np.uint8(0)), images)
