"""Distortions of C-bar; conventions and source as in `patterns`."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from scipy import ndimage, sparse

from augmix_tf.corruptions.arrays import Draws, Floats, Images
from augmix_tf.corruptions.blur import images_first, pixels_first
from augmix_tf.corruptions.patterns import clipped, grid, per_image, scaled

ROTATIONS = 21
# Matrices of all rotations of larger images would fill the memory.
LARGEST_MATRIX_SIDE = 64


def bilinear(values: Floats, y: Floats, x: Floats) -> Floats:
    """Reads images [N, n, n, C] at points (y, x), [N, n, n] or broadcast to it; 0 outside.

    In the type of `values`, to which the weights are rounded.
    """
    side = values.shape[1]
    padded = np.pad(values, ((0, 0), (1, 1), (1, 1), (0, 0)))
    image = np.arange(len(values))[:, None, None]
    top, left = np.floor(y), np.floor(x)

    def row(number: Floats) -> Floats:
        rows, first, second = (
            np.clip(place, -1, side).astype(np.int64) + 1 for place in (number, left, left + 1)
        )
        weights = 1 - x + left, 1 - (left + 1) + x
        near, far = (weight.astype(values.dtype)[..., None] for weight in weights)
        return padded[image, rows, first] * near + padded[image, rows, second] * far

    upper, lower = 1 - y + top, 1 - (top + 1) + y
    above, below = (weight.astype(values.dtype)[..., None] for weight in (upper, lower))
    return row(top) * above + row(top + 1) * below


def draw_caustic(rng: np.random.RandomState, image: Images, strength: float) -> Draws:
    """Draws the time of the waves and their size as a part of the side."""
    return np.asarray(rng.uniform(0.5, 2.0)), np.asarray(rng.uniform(0.75, 1.25))


def caustic_refraction(images: Images, strength: float, draws: Draws) -> Images:
    """Refracts the image at a water surface whose height is a caustic pattern, and lights it."""
    side = images.shape[1]
    lens, light = scaled(strength, 0.5 * side), scaled(strength, 2)
    surface = np.pad(_caustics(side, *map(per_image, draws)), ((0, 0), (1, 1), (1, 1)))
    # The original's names of the directions are turned: west is above.
    west, east = surface[:, :-2, 1:-1], surface[:, 2:, 1:-1]
    north, south = surface[:, 1:-1, :-2], surface[:, 1:-1, 2:]
    down, right = _refracted(east - west, south - north)
    y, x = grid(side)
    values = images.astype(np.float32) / np.float32(255)
    values = bilinear(values, y + np.round(lens * down, 3), x + np.round(lens * right, 3))
    for slope in (north - south, east - west):
        values += (slope * light).astype(np.float32)[..., None]
    return (np.clip(values, 0, 1) * np.float32(255)).astype(np.uint8)


def _caustics(side: int, time: Floats, size: Floats) -> Floats:
    """Returns the brightness of caustics, float64 [N, n, n], 0 to 1, smoothed."""
    start = [(steps / (size * side) % 1) * 6.28318530718 - 250 for steps in grid(side)]
    y, x = start
    total = 1.0
    for number in range(5):
        phase = time * (1 - 3.5 / (number + 1))
        y, x = (
            start[0] + (np.cos(phase - y) + np.sin(phase + x)),
            start[1] + (np.sin(phase - x) + np.cos(phase + y)),
        )
        down = start[0] / (np.sin(y + phase) / 0.005)
        right = start[1] / (np.cos(x + phase) / 0.005)
        total = total + 1 / np.sqrt(down**2 + right**2)
    sharp = 1.17 - (total / 5) ** 1.4
    smooth = ndimage.gaussian_filter(np.clip(np.abs(sharp) ** 8, 0, 1), (0, 1, 1))
    return smooth * 0.2126 + smooth * 0.7152 + smooth * 0.0722


def _refracted(down: Floats, right: Floats) -> tuple[Floats, Floats]:
    """Returns the direction, (y, x) of a unit vector, of a ray from above behind the surface.

    The slopes of the surface are `down` and `right`, its index of refraction is 4. Where it is
    nearly flat the ray goes straight.
    """
    length = np.sqrt(down**2 + right**2 + 1)
    down, right, up = down / length, right / length, 1 / length
    with np.errstate(invalid="ignore"):  # flat surfaces
        refracted = np.arcsin(np.sin(np.arccos(up)) / 4.0)
        across = np.sqrt(right**2 + down**2)
        side_down, side_right = -right / across, down / across
        cosine, sine = np.cos(refracted), np.sin(refracted)
        # The last factor is the first two components of the normal x the sideways vector.
        ray = cosine * down + sine * (-up * side_right), cosine * right + sine * (up * side_down)
    is_flat = np.abs(up) >= 1 - 0.001
    return np.where(is_flat, 0.0, ray[0]), np.where(is_flat, 0.0, ray[1])


def _cells_per_side(side: int) -> int:
    return 5 if side == 224 else 3


def draw_pinch(rng: np.random.RandomState, image: Images, strength: float) -> Draws:
    """Draws the direction of the twirl in each cell, 1 or -1, [m^2], column after column."""
    return (1 - 2 * rng.randint(0, 2, _cells_per_side(len(image)) ** 2),)


def pinch_and_twirl(images: Images, strength: float, draws: Draws) -> Images:
    """Pinches and twirls the image in a circle in each of m x m cells."""
    side = images.shape[1]
    cells = _cells_per_side(side)
    sources, size = _twirled(side, strength), side // cells
    turned = draws[0].reshape(-1, cells, cells).transpose(0, 2, 1) < 0
    turned = turned.repeat(size, axis=1).repeat(size, axis=2)
    rest = side - cells * size  # stays as it is
    turned = np.pad(turned, ((0, 0), (0, rest), (0, rest)))
    y, x = (np.where(turned, minus, plus) for plus, minus in sources)
    return clipped(bilinear(images.astype(np.float32), y, x))


@functools.lru_cache(maxsize=8)
def _twirled(side: int, strength: float) -> Floats:
    """Returns the sources y and x of each pixel, in cells turned by 1 and by -1, [2, 2, n, n]."""
    cells = _cells_per_side(side)
    size = side // cells
    radius, amount = size / 2, scaled(strength, 0.4) + 0.1
    points = np.stack(np.broadcast_arrays(*grid(side)))
    centre = points // size * size + radius
    down, right = points - centre
    from_centre = np.sqrt(down**2 + right**2)
    is_moved = (from_centre <= radius) & (np.round(from_centre, 3) != 0)
    is_moved &= (points < cells * size).all(axis=0)
    distance = np.where(is_moved, from_centre, radius) / radius
    pinch = np.sin(0.5 * math.pi * distance) ** -amount
    down, right = down * pinch, right * pinch
    sources = []
    for sign in (1, -1):
        angle = sign * scaled(strength, math.pi / 2) * (1 - distance) ** 2
        cosine, sine = np.cos(angle), np.sin(angle)
        turned = np.stack([down * cosine - right * sine, down * sine + right * cosine])
        sources.append(np.where(is_moved, centre + turned, points))
    return np.stack(sources, axis=1)


def draw_ripple(rng: np.random.RandomState, image: Images, strength: float) -> Draws:
    """Draws wavelengths down and across as parts of the side, [2], and phases, [2]."""
    return rng.uniform(0.1, 0.3, 2), rng.uniform(0, 2 * math.pi, 2)


def ripple(images: Images, strength: float, draws: Draws) -> Images:
    """Reads each pixel at p + a sin(2 pi p / wavelength + phase), on both axes, a = n v / 400."""
    side = images.shape[1]
    amplitude = scaled(strength, 0.025) * side

    def moved(points: Floats, part: Floats, phase: Floats) -> Floats:
        wave = np.sin(2 * math.pi * points / per_image(part * side) + per_image(phase))
        return points + amplitude * wave

    axes = zip(grid(side), *(drawn.T for drawn in draws), strict=True)
    y, x = (moved(*axis) for axis in axes)
    return clipped(bilinear(images.astype(np.float64), y, x))


def circular_motion_blur(images: Images, strength: float, draws: Draws) -> Images:
    """Averages 21 rotations by up to 1.5 v degrees, by cubic splines, with Gaussian weights."""
    values = images.astype(np.float32) / np.float32(255)
    steps = 2 * np.arange(ROTATIONS) / (ROTATIONS - 1) - 1
    weights = np.exp(-2 * steps**2)
    total = np.zeros_like(values)
    rotations = _rotations(values, (steps * scaled(strength, 15)).tolist())
    for weight, rotated in zip(weights.astype(np.float32), rotations, strict=True):
        total += weight * rotated.astype(np.float32)
    return clipped(total / np.float32(weights.sum()) * np.float32(255))


def _rotations(values: Floats, angles: Sequence[float]) -> Iterator[Floats]:
    """Yields the images [N, n, n, C] rotated by each angle in degrees; 0 outside."""
    side = values.shape[1]
    if side > LARGEST_MATRIX_SIDE:
        for angle in angles:
            yield ndimage.rotate(values, angle, axes=(2, 1), reshape=False)
        return
    splines = values
    for axis in (1, 2):
        splines = ndimage.spline_filter1d(splines, 3, axis, np.float64)
    columns = pixels_first(splines)
    for angle in angles:
        yield images_first(_rotation(side, angle) @ columns, values.shape)


@functools.lru_cache(maxsize=5 * ROTATIONS)
def _rotation(side: int, angle: float) -> Any:
    """Returns the sparse matrix [n^2, n^2] that rotates spline coefficients by `angle` degrees.

    Sixteen combs of ones, four pixels apart, are rotated by scipy: each pixel is made of 4 x 4
    neighbours, so each comb shows the weight of one of them.
    """
    weights, sources = [], []
    points = np.stack(np.broadcast_arrays(*grid(side))).reshape(2, -1)
    middle = (side - 1) / 2
    cosine, sine = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    turned = np.array([[cosine, sine], [-sine, cosine]]) @ (points - middle) + middle
    first = np.floor(turned).astype(np.int64) - 1
    for row in range(4):
        for column in range(4):
            comb = np.zeros((side, side))
            comb[row::4, column::4] = 1
            rotated = ndimage.rotate(comb, angle, reshape=False, prefilter=False)
            weights.append(rotated.reshape(-1))
            # The neighbour of the 4 x 4 that lies on the comb; scipy mirrors those outside.
            place = first + (np.array([[row], [column]]) - first) % 4
            place = (side - 1) - np.abs((side - 1) - np.abs(place))
            sources.append(place[0] * side + place[1])
    rows = np.tile(np.arange(side**2), 16)
    cells = np.concatenate(weights), (rows, np.concatenate(sources))
    return sparse.csr_array(cells, shape=(side**2, side**2))


def draw_channels(rng: np.random.RandomState, image: Images, strength: float) -> Draws:
    """Draws which channel is enlarged how much, a permutation of 0, 1, 2."""
    return (rng.permutation(3),)


def transverse_chromatic_abberation(images: Images, strength: float, draws: Draws) -> Images:
    """Enlarges the channels by 1, 1 + s / 2 and 1 + s, s = 0.05 v, and cuts out the centre.

    The splines are not prefiltered, so all channels are smoothed as well.
    """
    side, most = images.shape[1], scaled(strength, 0.5)
    out = np.empty_like(images)
    for image, result, order in zip(images, out, draws[0], strict=True):
        for channel, scale in enumerate(np.array([1, 1 + most / 2, 1 + most])[order]):
            zoomed = ndimage.zoom(image[..., channel], scale, prefilter=False)
            start = (len(zoomed) - side) // 2
            result[..., channel] = zoomed[start : start + side, start : start + side]
    return out
