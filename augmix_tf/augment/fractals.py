"""Drawn images to mix with: fractals on coloured noise, from a seed.

Each image is the attractor of a random iterated function system, coloured by the density of its
points, before spectral noise (images of even number) or plasma (odd). Image i follows from the seed
and i alone, so a smaller set is the beginning of a larger one. Random numbers are the raw output of
NumPy's Philox generator, whose stream is fixed.

Sources: the contractive systems of Anderson and Farrell, Improving Fractal Pre-training, WACV 2022
(arXiv 2110.03091); the spectral noise of Baradad et al., Learning to See by Looking at Noise,
NeurIPS 2021 (arXiv 2106.05963).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

Array = np.ndarray

MAPS = 4  # of a system, at most; at least 2
BURN_IN, STEPS = 10, 64  # steps of a walker before and while its points count
_CHUNK = 64  # images that are drawn at once, which stay in the cache
_SCALARS = 2 + 10 * MAPS + 7  # random numbers of one image besides its points and noise


def draw(count: int, side: int, seed: int = 0) -> Array:
    """Draws images uint8 [count, side, side, 3], as means over 2 x 2 pixels of larger ones."""
    images = np.empty((count, side, side, 3), np.uint8)

    def fill(first: int) -> None:
        numbers = range(first, min(first + _CHUNK, count))
        blocks = _draw(numbers, 2 * side, seed).reshape(-1, side, 2, side, 2, 3)
        images[first : numbers.stop] = 255.0 * blocks.mean(axis=(2, 4)) + 0.5

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(fill, range(0, count, _CHUNK)))
    return images


class Draws:
    """Hands out the random numbers of the images of these numbers."""

    def __init__(self, numbers: range, seed: int, count: int) -> None:
        words = [np.random.Philox(key=seed | i << 64).random_raw(count) for i in numbers]
        self._unit = (np.stack(words) >> np.uint64(11)) * 2.0**-53
        self._used = 0

    def uniform(self, low: float | Array, high: float | Array, *shape: int) -> Array:
        """The next float64 [B, *shape] in low <= value < high."""
        first, self._used = self._used, self._used + int(np.prod(shape))
        return low + (high - low) * self._unit[:, first : self._used].reshape(-1, *shape)


def _draw(numbers: range, side: int, seed: int) -> Array:
    """Images float64 [B, side, side, 3], 0 to 1."""
    walkers = max(1, side * side // 81)
    draws = Draws(numbers, seed, _SCALARS + (BURN_IN + STEPS) * walkers + 3 * side * side)
    maps, shares = systems(draws)
    tint = [draws.uniform(low, high, 1, 1) for low, high in ((0, 1), (0.3, 1), (0.5, 1))]
    ground_draws = draws.uniform(0.0, 1.0, 4)
    density = _density(maps, shares, draws.uniform(0.0, 1.0, BURN_IN + STEPS, walkers), side)
    noise = draws.uniform(0.0, 1.0, 3, side, side)
    canvas = np.empty((len(numbers), side, side, 3))
    first_even = numbers.start % 2
    for ground, first in ((_spectral, first_even), (_plasma, 1 - first_even)):
        canvas[first::2] = ground(ground_draws[first::2], noise[first::2])
    fractal = _rgb(density + tint[0], tint[1], tint[2])
    return np.where(density[..., None] > 0, fractal, canvas)


def systems(draws: Draws) -> tuple[Array, Array]:
    """Draws iterated function systems of 2, 3 or 4 contractions.

    The linear part of a map is R diag(s1, s2) R', with rotations and reflections R and R', and
    singular values s1 >= s2 such that sum (s1 + 2 s2) over the n maps is U((5 + n) / 2,
    (6 + n) / 2), where attractors are neither dust nor blots. Translations are U(-1, 1).

    Returns:
        The coefficients a, b, c, d, e, f of x' = a x + b y + e, y' = c x + d y + f, float64
        [B, MAPS, 6], and the share of the points that each map makes, [B, MAPS], proportional to
        its determinant; 0 for maps that a system does not have.
    """
    count = 2 + np.floor(draws.uniform(0.0, MAPS - 1, 1))
    rest = draws.uniform((5 + count) / 2, (6 + count) / 2, 1)
    least = rest - 3 * count + 3  # what this map needs, if all that follow are as large as possible
    maps, sizes = [], []
    for number in range(MAPS):
        is_last = number == count - 1
        low, high = np.maximum(0, least / 3), np.minimum(1, rest)
        first = draws.uniform(low, high, 1)
        low = np.where(is_last, np.maximum(0, (rest - 1) / 2), np.maximum(0, (least - first) / 2))
        high = np.where(is_last, rest / 3, np.minimum(first, (rest - first) / 2))
        second = draws.uniform(low, high, 1)
        first = np.where(is_last, rest - 2 * second, first)
        rest, least = rest - first - 2 * second, least - first - 2 * second + 3
        left, right = _turns(draws), _turns(draws)
        linear = (left * np.stack([first, second], axis=-1)) @ right
        maps.append(np.concatenate([linear.reshape(-1, 4), draws.uniform(-1.0, 1.0, 2)], axis=1))
        sizes.append(np.where(number < count, np.maximum(first * second, 1e-3), 0.0))
    shares = np.concatenate(sizes, axis=1)
    return np.stack(maps, axis=1), shares / shares.sum(axis=1, keepdims=True)


def _turns(draws: Draws) -> Array:
    """Rotations, half of them with a reflection, float64 [B, 2, 2]."""
    angle, sign = draws.uniform(-np.pi, np.pi, 1), np.sign(draws.uniform(-1.0, 1.0, 1))
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.concatenate([cosine, -sine * sign, sine, cosine * sign], axis=1).reshape(-1, 2, 2)


def _density(maps: Array, shares: Array, choices: Array, side: int) -> Array:
    """Square roots of how many points fall on each pixel, float64 [B, side, side], 0 to 1.

    Without the root most pixels would be as good as empty. `choices` are U[0, 1), [B, steps, W].
    """
    a, b, c, d, e, f = np.moveaxis(maps[:, 0, :, None], 1, 0)
    # All walkers start at the fixed point of the first map.
    determinant = (1 - a) * (1 - d) - b * c
    x, y = ((1 - d) * e + b * f) / determinant, (c * e + (1 - a) * f) / determinant
    bounds = np.cumsum(shares, axis=1)[:, None, :-1]
    image = np.arange(len(maps))[:, None]
    points = []
    for choice in np.moveaxis(choices, 1, 0):
        chosen = (choice[..., None] >= bounds).sum(axis=2)
        a, b, c, d, e, f = np.moveaxis(maps[image, chosen], 2, 0)
        x, y = a * x + b * y + e, c * x + d * y + f
        points.append((x, y))
    place = image * 0
    for axis in range(2):
        line = np.concatenate([point[axis] for point in points[BURN_IN:]], axis=1)
        low, high = line.min(axis=1, keepdims=True), line.max(axis=1, keepdims=True)
        pixel = (line - low) * (side / np.maximum(high - low, 1e-9))
        place = place * side + np.minimum(pixel.astype(np.int64), side - 1)
    counts = np.bincount((place + image * side * side).ravel(), minlength=len(maps) * side * side)
    counts = counts.reshape(-1, side, side)
    return np.sqrt(counts / counts.max(axis=(1, 2), keepdims=True))


def _spectral(draws: Array, noise: Array) -> Array:
    """White noise in the spectrum 1 / (|f_x|^(s + d) + |f_y|^(s - d)), [B, side, side, 3], 0 to 1.

    With f in cycles per image, s = U(0.5, 3.5) and d = U(-0.1, 0.1).
    """
    side = noise.shape[-1]
    slope, skew = 0.5 + 3 * draws[:, 0], 0.2 * draws[:, 1] - 0.1
    across, down = np.arange(side // 2 + 1.0), np.abs(np.fft.fftfreq(side, 1 / side))
    lengths = across ** (slope + skew)[:, None], down ** (slope - skew)[:, None]
    denominator = lengths[0][:, None, :] + lengths[1][:, :, None]
    denominator[:, 0, 0] = np.inf  # the mean
    spectrum = np.fft.rfft2(noise) / denominator[:, None]
    return np.moveaxis(_stretched(np.fft.irfft2(spectrum, s=(side, side))), 1, -1)


def _plasma(draws: Array, noise: Array) -> Array:
    """Random values at ever finer lattices, added up, as a range of hues: [B, side, side, 3].

    Each lattice is twice as fine and counts U(0.4, 0.8) as much as the one before.
    """
    side, first = noise.shape[-1], 0
    words = noise.reshape(len(noise), 3 * side * side)
    height, weight = np.zeros((len(noise), side, side)), np.ones((len(noise), 1, 1))
    for level in range(1, (side - 1).bit_length()):
        cells = 2**level
        knots = words[:, first : first + (cells + 1) ** 2].reshape(-1, cells + 1, cells + 1)
        place = np.linspace(0, cells, side)[:, None]
        stretch = np.maximum(0.0, 1.0 - np.abs(place - np.arange(cells + 1)))  # bilinear
        height = height + weight * (stretch @ knots @ stretch.T)
        weight, first = weight * (0.4 + 0.4 * draws[:, 0, None, None]), first + (cells + 1) ** 2
    width, start, saturation, value = draws.T[:, :, None, None]
    hue = start + (0.25 + 0.75 * width) * _stretched(height)
    return _rgb(hue, 0.3 + 0.7 * saturation, 0.5 + 0.5 * value)


def _stretched(images: Array) -> Array:
    """Images [..., side, side] stretched to 0 to 1."""
    low, high = (f(images, axis=(-2, -1), keepdims=True) for f in (np.min, np.max))
    return (images - low) / np.maximum(high - low, 1e-9)


def _rgb(hue: Array, saturation: Array, value: Array) -> Array:
    """Colours [..., 3] of HSV; hues repeat after 1."""
    sixths = (6 * hue[..., None] + np.array([5.0, 3.0, 1.0])) % 6
    share = np.clip(np.minimum(sixths, 4 - sixths), 0, 1)
    return value[..., None] * (1 - saturation[..., None] * share)
