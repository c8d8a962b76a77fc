"""The embedded dataset: drawn shapes on textured grounds, 32x32, ten classes.

Two things tell the class: the outline of the object, and the fine weave of the ground, which is
easier to learn and does not outlast blur, noise or compression. Photographs have such cues too, as
grass has for cows. A network that relies on them does well on clean images only.

It is drawn with the same bytes on every machine and with every version of NumPy: random numbers are
the raw 64-bit output of the Philox generator (the streams of NumPy's distributions may change), and
values come from integers and from float64 +, -, *, /, sqrt, floor, minimum and maximum of single
elements, whose results IEEE 754 fixes to the last bit: no sum over an axis (its order is free), no
matrix product, no power and nothing from libm.

Lengths are in pixels, x to the right, y downwards, the origin in the middle of the image. A
"distance" is signed and negative inside an outline.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from augmix_tf import errors

Array = np.ndarray

SIDE = 32
SPLIT_SIZES = {"train": 5000, "test": 1000}
SPLIT_KEYS = {"train": 0, "test": 1}

STROKES_BEHIND = 4
STROKES = STROKES_BEHIND + 1  # the last one lies over the object
# Cells (down, across) of the lattices of a ground's texture: clouds, blots, grain, wood both ways.
LATTICES = ((3, 3), (6, 6), (16, 16), (2, 14), (14, 2))
KNOTS = tuple((down + 1) * (across + 1) for down, across in LATTICES)  # one byte each
LATTICE_WORDS = -(-sum(KNOTS) // 8)
# Random numbers of one image besides its lattices: ground 19, each stroke 10, object 13.
SCALAR_WORDS = 19 + 10 * STROKES + 13
# Objects are upright up to an angle of 2 atan(TILT) = 30 degrees.
TILT = 0.27
# Waves across and down the image in the weave of each class. Mirroring them, as training does,
# makes no class look like another.
WEAVES = ((9, 0), (8, 3), (6, 6), (3, 8), (0, 9), (12, 0), (11, 5), (8, 8), (5, 11), (0, 12))
_HALF_SQRT3 = 0.8660254037844386
# Unit normals of a regular pentagon's sides; the first points up.
_PENTAGON = (
    (0.0, -1.0),
    (0.9510565162951535, -0.30901699437494745),
    (0.5877852522924731, 0.8090169943749475),
    (-0.5877852522924731, 0.8090169943749475),
    (-0.9510565162951535, -0.30901699437494745),
)


def make(split: str, seed: int = 0) -> tuple[Array, Array]:
    """Draws a split of the embedded dataset, equally frequent classes in random order.

    `split` is "train" (5,000 images) or "test" (1,000 others). Returns images uint8 [N, 32, 32, 3],
    RGB, and labels int64 [N], indices into `CLASS_NAMES`. Another seed gives other such images.
    """
    count = errors.lookup("split", split, SPLIT_SIZES)
    generator = np.random.Philox(key=int(seed) | SPLIT_KEYS[split] << 64)
    labels = np.argsort(generator.random_raw(count), kind="stable") % len(CLASS_NAMES)
    words = generator.random_raw(count * (SCALAR_WORDS + LATTICE_WORDS)).reshape(count, -1)
    images = np.empty((count, SIDE, SIDE, 3), np.uint8)
    # One class at a time, because all its images share one outline; it also stays in the cache.
    for label, (outline, weave) in enumerate(zip(OUTLINES.values(), WEAVES, strict=True)):
        rows = np.flatnonzero(labels == label)
        images[rows] = _draw(Draws(words[rows]), outline, weave)
    return images, labels.astype(np.int64)


class Draws:
    """Hands out the random numbers of M images from uint64 words [M, SCALAR_WORDS + ...]."""

    def __init__(self, words: Array):
        self._scalars = words[:, :SCALAR_WORDS]
        # Little-endian by decree, so that the bytes come in one order on every machine.
        self._bytes = words[:, SCALAR_WORDS:].astype("<u8").view(np.uint8)
        self._used = 0

    def uniform(self, low: float, high: float) -> Array:
        """The next float64 [M, 1, 1] in low <= value < high, from 53 bits of one word each."""
        words = self._scalars[:, self._used]
        self._used += 1
        unit = (words >> np.uint64(11)).astype(np.float64) * 2.0**-53
        return (low + (high - low) * unit)[:, None, None]

    def sign(self) -> Array:
        """The next float64 [M, 1, 1], -1 or 1."""
        return np.where(self.uniform(-1.0, 1.0) < 0.0, -1.0, 1.0)

    def colour(self, low: float, high: float) -> Array:
        """The next float64 [M, 1, 1, 3], channels drawn one by one."""
        return np.stack([self.uniform(low, high) for _ in range(3)], axis=-1)

    def direction(self) -> tuple[Array, Array]:
        """The next cosine and sine, float64 [M, 1, 1], of angles all around, about evenly.

        cos = (1 - t^2) / (1 + t^2), sin = 2 t / (1 + t^2) with t = tan(angle / 2).
        """
        cosine, sine = self.tilt(1.0)
        # The tilt reaches half of all angles; the sign turns them by 180 degrees to the others.
        sign = self.sign()
        return cosine * sign, sine * sign

    def tilt(self, limit: float) -> tuple[Array, Array]:
        """The next cosine and sine, float64 [M, 1, 1], of angles up to 2 atan(limit)."""
        t = self.uniform(-limit, limit)
        scale = 1.0 / (1.0 + t * t)
        return (1.0 - t * t) * scale, 2.0 * t * scale

    def lattice(self, index: int) -> Array:
        """The values at the knots of texture `index`, float64 [M, down + 1, across + 1], +-1."""
        start = sum(KNOTS[:index])
        down, across = LATTICES[index]
        knots = self._bytes[:, start : start + KNOTS[index]].astype(np.float64)
        return (knots / 127.5 - 1.0).reshape(-1, down + 1, across + 1)


def _draw(draws: Draws, outline: Callable[[Array, Array], Array], weave: tuple[int, int]) -> Array:
    """Images uint8 [M, 32, 32, 3] of one class: ground, clutter, object, one stroke over it."""
    centre = np.arange(SIDE, dtype=np.float64) + (0.5 - SIDE / 2)
    x, y = centre[None, None, :], centre[None, :, None]
    tone = draws.colour(45.0, 210.0)
    canvas = _ground(draws, tone, weave, x, y)
    for _ in range(STROKES_BEHIND):
        canvas = _stroke(draws, canvas, x, y, opacity=draws.uniform(0.35, 0.9))
    canvas = _object(draws, canvas, tone, outline, x, y)
    canvas = _stroke(draws, canvas, x, y, opacity=np.maximum(draws.uniform(-0.6, 0.6), 0.0))
    return np.minimum(np.maximum(np.floor(canvas + 0.5), 0.0), 255.0).astype(np.uint8)


def _ground(draws: Draws, tone: Array, weave: tuple[int, int], x: Array, y: Array) -> Array:
    """A ground of colour `tone`, shaded from one side to the other, textured and woven."""
    cosine, sine = draws.direction()
    slope = (x * cosine + y * sine) * (1.0 / SIDE)
    texture = np.zeros((tone.shape[0], SIDE, SIDE))
    for index in range(len(LATTICES)):
        # The cube lets one texture, seldom two, stand out.
        share = draws.uniform(0.0, 1.0)
        texture = texture + share * share * share * _stretch(draws.lattice(index))
    amplitude = draws.uniform(12.0, 42.0)[..., None] * draws.colour(0.5, 1.3)
    shading = draws.colour(-55.0, 55.0)
    across, down = weave
    waves = _wave((x * across + y * down) * (1.0 / SIDE) + draws.uniform(0.0, 1.0))
    threads = (waves * draws.uniform(7.0, 15.0))[..., None]
    return tone + texture[..., None] * amplitude + slope[..., None] * shading + threads


def _wave(phase: Array) -> Array:
    """A wave of period 1 between -1 and 1, made of parabolas, within 0.06 of a sine."""
    t = (phase - np.floor(phase)) * 2.0 - 1.0
    return 4.0 * t * (1.0 - np.abs(t))


def _stretch(knots: Array) -> Array:
    """Interpolates [M, down + 1, across + 1] smoothly to [M, 32, 32]."""
    for axis in (1, 2):
        cells = knots.shape[axis] - 1
        place = (np.arange(SIDE) + 0.5) * (cells / SIDE)
        first = np.floor(place).astype(np.int64)
        part = place - first
        weight = part * part * (3.0 - 2.0 * part)
        weight = weight[None, :, None] if axis == 1 else weight[None, None, :]
        low, high = np.take(knots, first, axis), np.take(knots, first + 1, axis)
        knots = low + (high - low) * weight
    return knots


def _stroke(draws: Draws, canvas: Array, x: Array, y: Array, opacity: Array) -> Array:
    """Clutter: a straight stroke with round ends, from a dot to half the image long."""
    cosine, sine = draws.direction()
    length = np.maximum(draws.uniform(-6.0, 18.0), 0.5)
    from_x, from_y = x - draws.uniform(-17.0, 17.0), y - draws.uniform(-17.0, 17.0)
    along = np.minimum(np.maximum(from_x * cosine + from_y * sine, 0.0), length)
    distance = _length(from_x - along * cosine, from_y - along * sine) - draws.uniform(0.4, 1.3)
    return _paint(canvas, draws.colour(20.0, 235.0), _coverage(distance) * opacity)


def _object(
    draws: Draws,
    canvas: Array,
    tone: Array,
    outline: Callable[[Array, Array], Array],
    x: Array,
    y: Array,
) -> Array:
    """The object that gives the class: shaded, with a shadow, lighter or darker than `tone`."""
    radius = draws.uniform(7.5, 13.0)
    margin = np.maximum(SIDE / 2 + 0.5 - radius, 0.0)
    x, y = x - draws.uniform(-1.0, 1.0) * margin, y - draws.uniform(-1.0, 1.0) * margin
    cosine, sine = draws.tilt(TILT)

    def covered(x: Array, y: Array) -> Array:
        u, v = (x * cosine + y * sine) / radius, (y * cosine - x * sine) / radius
        return _coverage(outline(u, v) * radius)

    contrast = draws.uniform(48.0, 120.0)[..., None] * draws.colour(0.3, 1.3)
    # Away from whichever end of the scale the ground is near, so that there is contrast.
    luma = (tone[..., 0] * 2.0 + tone[..., 1] * 5.0 + tone[..., 2]) / 8.0
    lighter = np.where(luma + draws.uniform(-40.0, 40.0) < 128.0, 1.0, -1.0)[..., None]
    shading = draws.colour(-18.0, 18.0)
    light = ((x * 0.6 + y * 0.8) / radius)[..., None]
    shadow = covered(x - 1.2, y - 1.6) * draws.uniform(0.0, 0.4)
    canvas = canvas * (1.0 - shadow)[..., None]
    return _paint(canvas, tone + lighter * contrast + shading * light, covered(x, y))


def _paint(canvas: Array, colour: Array, coverage: Array) -> Array:
    return canvas + (colour - canvas) * coverage[..., None]


def _coverage(distance: Array) -> Array:
    """Share of a pixel inside an edge whose signed distance from its middle is given."""
    return np.minimum(np.maximum(0.5 - distance, 0.0), 1.0)


def _length(u: Array, v: Array) -> Array:
    return np.sqrt(u * u + v * v)


def _box(u: Array, v: Array, half_u: float, half_v: float) -> Array:
    return np.maximum(np.abs(u) - half_u, np.abs(v) - half_v)


def _star(u: Array, v: Array) -> Array:
    # A point is inside a pentagram when at most one of its five lines has it on the outer side:
    # the second largest of the five distances decides.
    largest = second = np.full(np.broadcast(u, v).shape, -np.inf)
    for normal_u, normal_v in _PENTAGON:
        distance = u * normal_u + v * normal_v
        second = np.maximum(second, np.minimum(largest, distance))
        largest = np.maximum(largest, distance)
    return second - 0.36


def _stripes(u: Array, v: Array) -> Array:
    nearest = np.minimum(np.abs(v), np.abs(np.abs(v) - 0.66))
    return np.maximum(nearest - 0.19, np.abs(u) - 0.85)


def _heart(u: Array, v: Array) -> Array:
    # Two discs side by side and, touching both, two straight edges that meet in the tip.
    u, v = np.abs(u) - 0.47, v + 0.47
    edge = 0.8 * u + 0.6 * v - 0.47
    below_discs = np.maximum(0.6 * u - 0.8 * v, -0.12 - v)
    return np.minimum(_length(u, v) - 0.47, np.maximum(edge, below_discs))


def _arrow(u: Array, v: Array) -> Array:
    head = np.maximum(0.6 * (u - 0.98) + 0.8 * np.abs(v), -u)
    return np.minimum(head, _box(u + 0.4, v, 0.52, 0.22))


# Class -> signed distance (near corners: a bound of it) of the point (u, v) from its outline, in
# units of the object's radius.
OUTLINES: dict[str, Callable[[Array, Array], Array]] = {
    "disc": lambda u, v: _length(u, v) - 0.9,
    "ring": lambda u, v: np.abs(_length(u, v) - 0.72) - 0.21,
    "square": lambda u, v: _box(u, v, 0.76, 0.76),
    "triangle": lambda u, v: np.maximum(np.abs(u) * _HALF_SQRT3 - v * 0.5, v) - 0.52,
    "cross": lambda u, v: np.minimum(_box(u, v, 0.95, 0.28), _box(u, v, 0.28, 0.95)),
    "star": _star,
    "crescent": lambda u, v: np.maximum(_length(u, v) - 0.95, 0.78 - _length(u - 0.48, v)),
    "stripes": _stripes,
    "heart": _heart,
    "arrow": _arrow,
}
CLASS_NAMES = tuple(OUTLINES)
