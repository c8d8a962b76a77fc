"""Noise and patterns of C-bar; see `catalogue.Corruption`.

Images are square, of side n, with values 0..255; y and x are rows and columns from 0. The strength
v of a corruption is 0 to 10. Results are clipped to 0..255 and truncated. Sums and products stand
in the order of the original code, because rounding shows after truncation. Draws are the values
that the original code draws, in its order; some of its functions draw the seed of a stream of their
own.

Source: Mintun, Kirillov and Xie, On Interaction Between Augmentations and Corruptions in Natural
Corruption Robustness, NeurIPS 2021 (arXiv 2102.11273), and its code (MIT), imagenet_c_bar/ of
github.com/facebookresearch/augmentation-corruption, commit ba4d5a5.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import fft

from augmix_tf.corruptions.arrays import Draws, Floats, Images

GREY = 128
SPARKLES = 5  # per image
MIN_RAYS, MAX_RAYS = 50, 199  # of a sparkle
MAX_CELLS = 40  # of a checkerboard's side, with the smallest squares
LATTICE = 256  # of Perlin noise


def clipped(values: Floats) -> Images:
    """Returns values clipped to 0..255 and truncated."""
    return np.clip(values, 0, 255).astype(np.uint8)


def scaled(strength: float, largest: float) -> float:
    """Returns `largest` at strength 10, in proportion at others."""
    return strength * largest / 10.0


def grid(side: int) -> tuple[Floats, Floats]:
    """Returns the rows [n, 1] and the columns [1, n] of all pixels."""
    steps = np.arange(side, dtype=np.float64)
    return steps[:, None], steps[None]


def per_image(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Returns one number per image, [N], in a shape for maps [N, n, n]."""
    return values[:, None, None]


def inner_stream(rng: np.random.RandomState) -> np.random.RandomState:
    """Draws a seed and returns its stream."""
    return np.random.RandomState(rng.randint(0, 2**32, dtype=np.int64))


# Waves


def draw_frequency(rng: np.random.RandomState, image: Images, strength: float) -> Draws:
    """Draws the frequencies along x and y, [2], in radians per pixel, and the phase."""
    first = rng.uniform(-math.pi, math.pi)
    second = rng.uniform(-abs(first), abs(first))
    frequencies = np.array([first, second])[rng.permutation(2)]
    return frequencies, np.asarray(rng.uniform(0, 2 * math.pi))


def single_frequency_greyscale(images: Images, strength: float, draws: Draws) -> Images:
    """Adds one wave: i + 19.6 v sin(x f_x + y f_y + phase)."""
    frequencies, phase = draws
    y, x = grid(images.shape[1])
    across, down = (per_image(frequency) for frequency in frequencies.T)
    wave = np.sin(x * across + y * down + per_image(phase))
    return clipped(images + scaled(strength, 196) * wave[..., None])


def draw_rings(rng: np.random.RandomState, image: Images, strength: float) -> Draws:
    """Draws the centre (x, y) in pixels, [2], waves around it, their height, and the ring width."""
    side = len(image)
    centre = rng.uniform(0, side, 2)
    numbers = (rng.uniform(0, high) for high in (10, side / 10, side / 10))
    return centre, *map(np.asarray, numbers)


def cocentric_sine_waves(images: Images, strength: float, draws: Draws) -> Images:
    """Adds wavy rings: i + 12.8 v ((r + h sin(k angle)) mod w) / w - 1/2), w the ring width."""
    centre, waves, height, width = draws
    y, x = grid(images.shape[1])
    right, down = x - per_image(centre[:, 0]), y - per_image(centre[:, 1])
    angle = np.arctan2(right, down) * per_image(waves)
    distance = np.sqrt(right**2 + down**2) + np.sin(angle) * per_image(height)
    rings = distance % per_image(width) / per_image(width) - 0.5
    return clipped(images + scaled(strength, 128) * rings[..., None])


def draw_plasma(rng: np.random.RandomState, image: Images, strength: float) -> Draws:
    """Draws time, iterations, sharpness, and scale as a part of the side."""
    time, iterations = rng.uniform(0.0, 6 * math.pi), rng.randint(4, 7)
    return (*map(np.asarray, (time, iterations, rng.uniform(0.5, 1.0), rng.uniform(0.075, 0.2))),)


def plasma_noise(images: Images, strength: float, draws: Draws) -> Images:
    """Blends with coloured waves of folded coordinates: (1 - k / 255) i + k waves, k = 6.4 v."""
    time, iterations, sharpness, scale = map(per_image, draws)
    side = images.shape[1]
    y, x = (steps / (scale * side) for steps in grid(side))
    frequency, slowness, divisor = 1.0, 1.0, np.ones_like(time)
    for iteration in range(iterations.max(initial=0)):
        down = np.cos(y * frequency + time / slowness) / divisor
        across = np.sin(x * frequency + time / slowness) / divisor
        is_active = iteration < iterations
        x = np.where(is_active, x + (down - 0.3 * across), x)
        y = np.where(is_active, y + (across + 0.3 * down), y)
        frequency, slowness, divisor = (
            frequency * 1.93,
            slowness * 1.15,
            divisor * (2.25 - sharpness),
        )
    channels = np.sin(x - time), np.sin(0.5 * (x + y + np.sin(time))), np.sin(y + time)
    amount = scaled(strength, 64)
    return clipped((1 - amount / 255) * images + amount * np.stack(channels, axis=-1))


# Fields with a given spectrum


def draw_phases(rng: np.random.RandomState, image: Images, strength: float) -> Draws:
    """Draws the phases of one field; see `field`."""
    return (inner_stream(rng).uniform(0, 2 * math.pi, _phase_count(len(image))),)


def draw_three_phases(rng: np.random.RandomState, image: Images, strength: float) -> Draws:
    """Draws the phases of a field for each channel, [3, ...]; see `field`."""
    return (inner_stream(rng).uniform(0, 2 * math.pi, (3, _phase_count(len(image)))),)


def _phase_count(side: int) -> int:
    return (side + side % 2) * (side // 2)


@functools.lru_cache(maxsize=4)
def spectrum(side: int, is_brown: bool) -> Floats:
    """Returns the amplitudes of a field, [n, n], zero frequency at n // 2: r, or 1 / (r^2 + 1)."""
    y, x = grid(side)
    radius = np.sqrt((x - side / 2) ** 2 + (y - side / 2) ** 2)
    # Not the sum of squares itself: the root rounds.
    return 1 / (radius**2 + 1) if is_brown else radius


def field(phases: Floats, side: int, amplitudes: Floats) -> Floats:
    """Returns fields [..., n, n] of standard deviation 1 with the spectrum `amplitudes` [n, n].

    `phases` [..., n (n // 2)] are those of the left half, row by row; the right half is the left
    one turned by 180 degrees. For odd n the upper half of the middle column follows, [..., n // 2].
    """
    half, count = side // 2, side * (side // 2)
    left = phases[..., :count].reshape(*phases.shape[:-1], side, half)
    parts = [left, left[..., ::-1, ::-1]]
    if side % 2:
        upper = phases[..., count:, None]
        zero = np.zeros_like(upper[..., :1, :])
        parts.insert(1, np.concatenate([upper, zero, upper[..., ::-1, :]], axis=-2))
    angles = np.concatenate(parts, axis=-1)
    waves = amplitudes * (np.cos(angles) + 1j * np.sin(angles))
    values = fft.ifft2(np.roll(waves, (half, half), axis=(-2, -1))).real
    # Of flat images, so that the sums are made in the original's order.
    deviation = values.reshape(*values.shape[:-2], -1).std(axis=-1)
    return values / deviation[..., None, None]


def brownish_noise(images: Images, strength: float, draws: Draws) -> Images:
    """Adds noise with the spectrum 1 / (r^2 + 1): i + 6.4 v noise."""
    side = images.shape[1]
    noise = np.moveaxis(field(draws[0], side, spectrum(side, is_brown=True)), 1, -1)
    return clipped(images + scaled(strength, 64) * noise)


def blue_noise_sample(images: Images, strength: float, draws: Draws) -> Images:
    """Blackens the pixels where noise with the spectrum r is at most 0.3 v - 2.5."""
    side = images.shape[1]
    noise = field(draws[0], side, spectrum(side, is_brown=False))
    is_kept = noise > scaled(strength, 3) - 2.5
    return images * is_kept[..., None]


def draw_perlin(rng: np.random.RandomState, image: Images, strength: float) -> Draws:
    """Draws int64 [1284]: two coordinates of 514 gradients, and 256 places to exchange."""
    return (inner_stream(rng).randint(0, 2**31, 2 * (2 * LATTICE + 2) + LATTICE),)


def perlin_noise(images: Images, strength: float, draws: Draws) -> Images:
    """Blends with turbulence: (1 - a) i + 255 a clip(turbulence / 2 + 1/2, 0, 1), a = 0.05 v."""
    side, amount = images.shape[1], scaled(strength, 0.5)
    y, x = (steps * (1 / (32 * side / 224)) for steps in grid(side))
    noise = np.stack([_turbulence(numbers, y, x) for numbers in draws[0]])
    light = 255 * amount * np.clip(0.5 * noise + 0.5, 0, 1)
    values = np.float32(1 - amount) * images.astype(np.float32) + light[..., None]
    # One image in a thousand has a gradient of length 0: the original's NaN became 0 on x86.
    return clipped(np.nan_to_num(values))


def _turbulence(numbers: npt.NDArray[np.int64], y: Floats, x: Floats) -> Floats:
    """Returns sum_f |noise(f y, f x)| / f over f = 1, 2, 4, 8, 16, float64 [n, n]."""
    pairs = (numbers[: 2 * LATTICE].reshape(-1, 2) % 512 - 256) / 256
    with np.errstate(invalid="ignore"):
        gradients = pairs / np.sqrt(pairs[:, :1] ** 2 + pairs[:, 1:] ** 2)
    order = list(range(LATTICE))
    for i, number in zip(reversed(range(LATTICE)), numbers[-LATTICE:].tolist(), strict=True):
        j = number % LATTICE
        order[i], order[j] = order[j], order[i]
    table = np.array(order)
    total = np.zeros(np.broadcast_shapes(y.shape, x.shape))
    for frequency in (1, 2, 4, 8, 16):
        total += np.abs(_lattice_noise(table, gradients, frequency * y, frequency * x)) / frequency
    return total


def _lattice_noise(table: npt.NDArray[np.int64], gradients: Floats, y: Floats, x: Floats) -> Floats:
    """Returns Perlin's noise, from about -1 to 1: dot products with the gradients, smoothed."""
    (y0, down, smooth_y), (x0, right, smooth_x) = map(_lattice, (y, x))

    def product(row: int, column: int) -> Floats:
        across = table[(y0 + row) % LATTICE] + (x0 + column) % LATTICE
        gradient = gradients[table[across % LATTICE]]
        return (down - row) * gradient[..., 0] + (right - column) * gradient[..., 1]

    left, after = (_between(smooth_y, product(0, c), product(1, c)) for c in (0, 1))
    return 1.5 * _between(smooth_x, left, after)


def _lattice(values: Floats) -> tuple[npt.NDArray[np.int64], Floats, Floats]:
    """Returns the lattice point below, the distance from it, and its smoothed weight."""
    shifted = values + 4096
    point = shifted.astype(np.int64)
    distance = shifted - point
    return point, distance, distance * distance * (3 - 2 * distance)


def _between(weight: Floats, first: Floats, second: Floats) -> Floats:
    return first + weight * (second - first)


# Shapes


def draw_checkerboard(rng: np.random.RandomState, image: Images, strength: float) -> Draws:
    """Draws the angle, the side of a square as a part of n, and a number per square.

    The last are float64 [1600], of which the first g^2 are used; see `_board`.
    """
    angle, part = rng.uniform(0, 2 * math.pi), rng.uniform(0.1, 0.25)
    numbers = np.zeros(MAX_CELLS**2)
    used = int(_board(np.asarray(part), len(image))[1]) ** 2
    numbers[:used] = inner_stream(rng).uniform(size=used)
    return np.asarray(angle), np.asarray(part), numbers


def _board(part: npt.NDArray[Any], side: int) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Returns the side of a square in pixels and g, the side of the board in squares."""
    pixels = np.maximum(part * side, 1)
    return pixels, (4 * side // pixels).astype(np.int64)


def checkerboard_cutout(images: Images, strength: float, draws: Draws) -> Images:
    """Greys v / 10 of every second square of a turned board."""
    angle, part, numbers = draws
    y, x = grid(images.shape[1])
    square, cells = map(per_image, _board(part, images.shape[1]))
    cosine, sine = per_image(np.cos(angle)), per_image(np.sin(angle))
    across = (cosine * y + sine * x) / square
    along = (-sine * y + cosine * x) / square
    is_other = (across % 2).astype(int) != (along % 2).astype(int)
    # Truncated towards 0, and negative ones count from the end, as in the original.
    row, column = across.astype(int) % cells, along.astype(int) % cells
    index = (row * cells + column).reshape(len(images), -1)
    drawn = np.take_along_axis(numbers, index, axis=1).reshape(row.shape)
    is_kept = is_other | (drawn >= scaled(strength, 1))
    return np.where(is_kept[..., None], images, np.uint8(GREY))


def draw_sparkles(rng: np.random.RandomState, image: Images, strength: float) -> Draws:
    """Draws centres (y, x) in pixels, [5, 2], numbers of rays, [5], and of `_normals`, [5, 199]."""
    centres = rng.uniform(0, len(image), (SPARKLES, 2))
    stream, rays = inner_stream(rng), rng.randint(MIN_RAYS, MAX_RAYS + 1, SPARKLES)
    return centres, rays, _normals(stream, rays)


def draw_inverse_sparkles(rng: np.random.RandomState, image: Images, strength: float) -> Draws:
    """Draws a centre (y, x) in parts of the side, the number of rays, and of `_normals`, [199]."""
    centre = rng.uniform(0.25, 0.75, 2)
    stream, rays = inner_stream(rng), np.asarray(rng.randint(MIN_RAYS, MAX_RAYS + 1))
    return centre, rays, _normals(stream, rays)


def _normals(stream: np.random.RandomState, rays: npt.NDArray[np.int64]) -> Floats:
    """Draws a normal number for each ray, float64 [..., 199], followed by zeros."""
    numbers = np.zeros((*rays.shape, MAX_RAYS))
    numbers[np.arange(MAX_RAYS) < rays[..., None]] = stream.randn(int(rays.sum()))
    return numbers


def sparkles(images: Images, strength: float, draws: Draws) -> Images:
    """Brightens towards 255 around five centres, with rays of random lengths, of mean n v / 100."""
    centres, rays, normals = draws
    radius = scaled(strength, 0.1) * images.shape[1]
    lengths = np.maximum(1, radius + (25 / 100 * radius) * normals)
    values = images.astype(np.float64)
    numbered = (np.moveaxis(drawn, 1, 0) for drawn in (centres, rays, lengths))
    for centre, count, length in zip(*numbered, strict=True):
        light = _rays(centre, count, length, images.shape[1], 1.0)
        # Rounded to float32 before each sparkle and not after the last, as in the original.
        values = values.astype(np.float32).astype(np.float64)
        values = values + light[..., None] * (255 - values)
    return clipped(values)


def inverse_sparkles(images: Images, strength: float, draws: Draws) -> Images:
    """Whitens outside one sparkle with rays of mean length n / 4."""
    centre, rays, normals = draws
    side = images.shape[1]
    radius = 0.25 * side
    lengths = radius + (25 / 100 * radius) * normals
    power = (100 - (100 - scaled(strength, 65))) / 50
    kept = _rays(side * centre, rays, lengths, side, power)
    return clipped(255 + kept[..., None] * (images.astype(np.float32) - 255))


def _rays(
    centre: Floats, rays: npt.NDArray[Any], lengths: npt.NDArray[Any], side: int, power: float
) -> Floats:
    """Returns the light of one sparkle per image, float64 [N, n, n], 0 to 1.

        (1 - (f - 1/2)^2) (l^2 / (r^2 + 0.0001))^power
    f is how far a pixel is from one ray to the next, l the length between theirs.
    """
    y, x = grid(side)
    down, right = y - per_image(centre[:, 0]), x - per_image(centre[:, 1])
    distance = np.sqrt(down**2 + right**2)
    position = (np.arctan2(right, down) + math.pi) / (2 * math.pi) * per_image(rays)
    ray = position.astype(np.int64)
    between = position - ray

    def length(number: npt.NDArray[np.int64]) -> Floats:
        index = (number % per_image(rays)).reshape(len(rays), -1)
        return np.take_along_axis(lengths, index, axis=1).reshape(number.shape)

    first = length(ray)
    reach = first + between * (length(ray + 1) - first)
    light = (1 - (between - 0.5) ** 2) * (reach**2 / (distance**2 + 1e-4)) ** power
    return np.clip(light, 0, 1)


def draw_lines(rng: np.random.RandomState, image: Images, strength: float) -> Draws:
    """Draws the direction, its variation, and three numbers in 0..1 per line, [n v / 10, 3]."""
    direction, variation = rng.uniform(0, 2 * math.pi), rng.uniform(0.1, 1)
    count = int(scaled(strength, 1) * len(image))
    numbers = inner_stream(rng).uniform(size=(count, 3))
    return np.asarray(direction), np.asarray(variation), numbers


def lines(images: Images, strength: float, draws: Draws) -> Images:
    """Draws grey, anti-aliased lines of length 2 n in similar directions, one after the other."""
    side = images.shape[1]
    out = images.copy()
    for image, direction, variation, numbers in zip(out, *draws, strict=True):
        for first, second, third in numbers:
            angle = direction + 2 * math.pi * variation * (third - 0.5)
            # The original calls the rows x.
            row, column = side * first, side * second
            down, right = side * np.cos(angle), side * np.sin(angle)
            ends = map(int, (row - down, column - right, row + down, column + right))
            inside = [p for p in line_pixels(*ends) if 0 <= p[0] < side and 0 <= p[1] < side]
            rows, columns, covered = np.array(inside).reshape(-1, 3).T
            pixels = rows.astype(int), columns.astype(int)
            # Of a pixel that is listed twice the last value stays.
            image[pixels] = (1 - covered[:, None]) * image[pixels] + covered[:, None] * GREY
    return out


def line_pixels(
    row: int, column: int, end_row: int, end_column: int
) -> Iterator[tuple[int, int, float]]:
    """Yields (row, column, covered part) of the pixels of an anti-aliased line, in order.

    Source: A. Zingl, A Rasterizing Algorithm for Drawing Curves, 2012.
    """
    rows, columns = abs(end_row - row), abs(end_column - column)
    row_step, column_step = (1 if end_row > row else -1), (1 if end_column > column else -1)
    error, length = columns - rows, math.hypot(columns, rows) or 1.0
    while True:
        yield row, column, 1 - abs(error - columns + rows) / length
        before, column_before = error, column
        if 2 * before >= -columns:
            if column == end_column:
                return
            if before + rows < length:
                yield row + row_step, column, 1 - abs(before + rows) / length
            error -= rows
            column += column_step
        if 2 * before <= rows:
            if row == end_row:
                return
            if columns - before < length:
                yield row, column_before + column_step, 1 - abs(columns - before) / length
            error += columns
            row += row_step
