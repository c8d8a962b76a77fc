"""Noise: gaussian, shot, impulse, speckle; see `catalogue.Corruption`."""

from __future__ import annotations

import numpy as np

from augmix_tf.corruptions.arrays import Draws, Images, to_uint8


def draw_normal(rng: np.random.RandomState, image: Images, sigma: float) -> Draws:
    """Draws float64 [H, W, 3], normal with mean 0 and standard deviation `sigma`."""
    return (rng.normal(size=image.shape, scale=sigma),)


def gaussian_noise(images: Images, sigma: float, draws: Draws) -> Images:
    """Adds the drawn noise: x + n."""
    (noise,) = draws
    return to_uint8(images / 255.0 + noise)


def speckle_noise(images: Images, sigma: float, draws: Draws) -> Images:
    """Adds noise in proportion to the value: x + x n."""
    (noise,) = draws
    values = images / 255.0
    return to_uint8(values + values * noise)


def draw_shot(rng: np.random.RandomState, image: Images, photons: float) -> Draws:
    """Draws photon counts, uint16 [H, W, 3]: Poisson with mean x `photons`."""
    return (rng.poisson(image / 255.0 * photons).astype(np.uint16),)


def shot_noise(images: Images, photons: float, draws: Draws) -> Images:
    """Replaces values by count / `photons`, where white is `photons` counts."""
    (counts,) = draws
    return to_uint8(counts / float(photons))


def draw_impulse(rng: np.random.RandomState, image: Images, amount: float) -> Draws:
    """Draws two bool [H, W, 3]: which values are replaced, and which of them by 255."""
    is_replaced = rng.random(image.shape) <= amount
    return is_replaced, rng.random(image.shape) <= 0.5


def impulse_noise(images: Images, amount: float, draws: Draws) -> Images:
    """Replaces single values, not whole pixels, by 0 or 255."""
    is_replaced, is_white = draws
    # Converting 8-bit values to [0, 1] in float64 and back, truncated, does not change them.
    return np.where(is_replaced, np.where(is_white, np.uint8(255), np.uint8(0)), images)
