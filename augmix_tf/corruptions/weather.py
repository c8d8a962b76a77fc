"""Weather: snow, frost, fog, brightness; spatter (extra); see `catalogue.Corruption`."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from scipy import ndimage

from augmix_tf import errors
from augmix_tf.corruptions import blur, digital
from augmix_tf.corruptions.arrays import Draws, Floats, Images, to_uint8
from augmix_tf.corruptions.blur import Motion

WATER = (175 / 255.0, 238 / 255.0, 238 / 255.0)
MUD = (63 / 255.0, 42 / 255.0, 20 / 255.0)
# The original lists a sixth file that it never uses; the second and third have equal pixels.
PHOTOGRAPHS = {
    "frost1.png": "ff9f907860bd7a835d459e32f9d588062b7f61ee267343cc7222b56753a14755",
    "frost2.png": "fe211a89b336999c207a852ce05818d4545d0b57c5beadd824b4cc9d9a9b6137",
    "frost3.png": "2d0d50b4a9bb213f38b024ef7768731bb83cc08d2f26b5766bbc167cdfa0e504",
    "frost4.jpg": "3f8b91ca1a9fa7167b09e773da53f5ae60d0a1fd88f02a783f6e328a72887f6e",
    "frost5.jpg": "5fc6a19df4a429ba68abdcc8f8a4278d4c9f81c9ccafd2c92ab0c8cf8992ebd2",
}

SYNTHETIC_SIZE = (400, 600)
# Mean colour and standard deviation of grey of each texture, in the range of the photographs.
SYNTHETIC_LOOKS = (
    ((80, 145, 165), 20),
    ((200, 205, 214), 22),
    ((200, 205, 214), 25),
    ((138, 153, 165), 29),
    ((112, 123, 135), 40),
)


Snow = tuple[float, float, float, float, Motion, float]
"""Normal layer (mean, std), its zoom, threshold below which it is 0, motion blur, image weight."""
Frost = tuple[float, float, float, int]
"""Weights of image and photograph; factor by which photographs shrink for images of a side."""
Fog = tuple[float, float]
"""Strength of the fog, and the factor by which finer detail of its fractal is weaker."""
Spatter = tuple[float, float, float, float, float, bool]
"""Normal layer (mean, std), sigma of its blur, threshold below which it is 0, strength (weight of
water, or sigma that smooths the edge of mud), whether it is mud."""


def draw_snow(rng: np.random.RandomState, image: Images, setting: Snow) -> Draws:
    """Draws a normal layer, float64 [H, W], and the direction of the fall in degrees."""
    return *draw_layer(rng, image, setting), np.asarray(rng.uniform(-135, -45))


def snow(images: Images, setting: Snow, draws: Draws) -> Images:
    """Whitens the image and adds flakes, once as drawn and once rotated by 180 degrees."""
    layer, angle_degrees = draws
    _, _, zoom, threshold, motion, image_weight = setting
    flakes = snow_flakes(layer, zoom, threshold)
    blurred = blur.directional_blur(flakes, motion, angle_degrees) / 255.0
    return add_snow(images.astype(np.float32) / np.float32(255.0), blurred, image_weight)


def snow_flakes(layer: Floats, factor: float, threshold: float) -> Images:
    """Returns the zoomed layer [N, H, W], uint8, with values below the threshold set to 0."""
    _, height, width = layer.shape
    zoomed = blur.zoom_centre(blur.pixels_first(layer[..., None]), height, width, factor)
    zoomed[zoomed < threshold] = 0
    return to_uint8(blur.images_first(zoomed, (*layer.shape, 1))[..., 0])


def add_snow(values: Floats, flakes: Floats, image_weight: float) -> Images:
    """Mixes x with max(x, 1.5 grey + 0.5), then adds the flakes and the flakes rotated by 180.

    x is float32 or float64 (truncated values depend on it), its weight in the mix `image_weight`.
    """
    # OpenCV converts row by row, so all images can be one tall image.
    tall = values.reshape(-1, *values.shape[2:]).astype(np.float32)
    grey = cv2.cvtColor(tall, cv2.COLOR_RGB2GRAY).reshape(*values.shape[:3], 1)
    whitened = grey * np.float32(1.5) + np.float32(0.5)
    values = image_weight * values + (1 - image_weight) * np.maximum(values, whitened)
    rotated = flakes[:, ::-1, ::-1]
    return to_uint8(values + flakes[..., None] + rotated[..., None])


def draw_frost(
    rng: np.random.RandomState, image: Images, setting: Frost, photographs: tuple[Images, ...]
) -> Draws:
    """Draws a crop of one of the `photographs` (RGB), uint8 [H, W, 3]."""
    photograph = photographs[rng.randint(len(photographs))]
    height, width = image.shape[:2]
    top = rng.randint(0, photograph.shape[0] - height)
    left = rng.randint(0, photograph.shape[1] - width)
    return (photograph[top : top + height, left : left + width],)


def frost(images: Images, setting: Frost, draws: Draws) -> Images:
    """Weighted sum of image and photograph, in 0..255."""
    (crops,) = draws
    mixed = setting[0] * images + setting[1] * crops
    return np.clip(mixed, 0, 255).astype(np.uint8)


def _map_side(height: int, width: int) -> int:
    return 1 << (max(height, width) - 1).bit_length()


def draw_fog(rng: np.random.RandomState, image: Images, setting: Fog) -> Draws:
    """Draws the numbers of the fractal, float64 [S^2 - 1] in [0, 1), S a power of two >= H, W."""
    return (rng.random(_map_side(*image.shape[:2]) ** 2 - 1),)


def fog(images: Images, setting: Fog, draws: Draws) -> Images:
    """Adds a fractal and scales to the old maximum: (x + s f) max x / (max x + s).

    f in [0, 1] is the fractal and s the strength.
    """
    height, width = images.shape[1:3]
    (draw,), (strength, decay) = draws, setting
    fractals = plasma_fractal(draw, _map_side(height, width), decay)
    values = images / 255.0
    maximum = values.max(axis=(1, 2, 3), keepdims=True)
    values += strength * fractals[:, :height, :width, None]
    return to_uint8(values * maximum / (maximum + strength))


def plasma_fractal(draw: Floats, side: int, decay: float) -> Floats:
    """Diamond-square fractals, periodic in both directions.

    A new point is the mean of its four neighbours plus r u, u uniform in [-r, r); r is 100
    on the coarsest grid and is divided by `decay` on each finer one. `draw` is float64
    [N, side^2 - 1], uniform in [0, 1); `side` a power of two. Returns [N, side, side], 0 to 1.
    """
    surface = np.zeros((len(draw), side, side))
    step, roughness, used = side, 100.0, 0
    while step >= 2:
        half, points = step // 2, side // step
        fields = draw[:, used : used + 3 * points**2].reshape(-1, 3, points, points)
        noises = np.moveaxis(-roughness + 2 * roughness * fields, 1, 0)
        centres, on_rows, on_columns = (roughness * noise for noise in noises)
        corners = surface[:, ::step, ::step]
        pairs = corners + np.roll(corners, -1, axis=1)
        middle = (pairs + np.roll(pairs, -1, axis=2)) / 4 + centres
        surface[:, half::step, half::step] = middle
        # Add in the original's order: rounding depends on it.
        beside = (middle + np.roll(middle, 1, axis=1)) + (corners + np.roll(corners, -1, axis=2))
        surface[:, ::step, half::step] = beside / 4 + on_rows
        below = (middle + np.roll(middle, 1, axis=2)) + pairs
        surface[:, half::step, ::step] = below / 4 + on_columns
        used, step, roughness = used + 3 * points**2, half, roughness / decay
    surface -= surface.min(axis=(1, 2), keepdims=True)
    return surface / surface.max(axis=(1, 2), keepdims=True)


def brightness(images: Images, amount: float, draws: Draws) -> Images:
    """Adds to the value of HSV: V + `amount`, clipped."""
    hue, saturation, value = digital.to_hsv(images)
    return digital.from_hsv(hue, saturation, np.clip(value + amount, 0, 1))


def draw_layer(rng: np.random.RandomState, image: Images, setting: Any) -> Draws:
    """Draws a normal layer, float64 [H, W]; mean and standard deviation begin the setting."""
    return (rng.normal(size=image.shape[:2], loc=setting[0], scale=setting[1]),)


def spatter(images: Images, setting: Spatter, draws: Draws) -> Images:
    """Adds bright drops of water, or covers with splashes of mud."""
    *_, sigma, threshold, strength, is_mud = setting
    drops = drops_of(draws[0], sigma, threshold)
    if is_mud:
        return _cover_with_mud(images, drops > threshold, strength)
    return add_water(images, drops, strength)


def drops_of(layer: Floats, sigma: float, threshold: float) -> Floats:
    """Returns layers [N, H, W] blurred, with 0 below the threshold."""
    drops = ndimage.gaussian_filter(layer, (0, sigma, sigma), mode="nearest")
    drops[drops < threshold] = 0
    return drops


def _cover_with_mud(images: Images, is_mud: np.ndarray, sigma: float) -> Images:
    cover = ndimage.gaussian_filter(is_mud.astype(np.float32), (0, sigma, sigma), mode="nearest")
    cover[cover < 0.8] = 0
    cover = cover[..., None]
    values = images.astype(np.float32) / np.float32(255.0)
    return to_uint8(values * (1 - cover) + np.array(MUD, np.float32) * cover)


def add_water(images: Images, drops: Floats, strength: float) -> Images:
    """Adds highlights of float64 [N, H, W] drops, with maximum `strength` in every image.

    An image without drops stays unchanged; the original divides 0 by 0.
    """
    liquid = (drops * 255).astype(np.uint8)
    relief = np.stack([_relief(layer) for layer in liquid]).astype(np.float32)
    highlight = relief * liquid
    maximum = highlight.max(axis=(1, 2), keepdims=True)
    highlight = highlight / np.where(maximum == 0, np.float32(1), maximum) * np.float32(strength)
    values = images.astype(np.float32) / np.float32(255.0)
    return to_uint8(values + highlight[..., None] * np.array(WATER, np.float32))


def _relief(liquid: Images) -> Images:
    """Embossed distance from the edges of drops, uint8 [H, W]."""
    distance = cv2.distanceTransform(255 - cv2.Canny(liquid, 50, 150), cv2.DIST_L2, 5)
    near = cv2.blur(np.minimum(distance, np.float32(20)), (3, 3)).astype(np.uint8)
    slope = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])
    embossed = cv2.filter2D(cv2.equalizeHist(near), cv2.CV_8U, slope)
    return cv2.blur(embossed, (3, 3)).astype(np.uint8)


def find_photographs(frost_dir: str | Path | None = None) -> Path | None:
    """Returns the folder that holds the original photographs, or None if there is none."""
    if frost_dir is not None:
        mismatch = _first_mismatch(Path(frost_dir))
        errors.require(
            mismatch is None,
            f"the original frost photographs ({', '.join(PHOTOGRAPHS)}) in {frost_dir}",
            f"{mismatch} missing or with other contents",
        )
        return Path(frost_dir)
    spec = importlib.util.find_spec("imagecorruptions")
    for location in (spec.submodule_search_locations or ()) if spec else ():
        folder = Path(location) / "frost"
        if _first_mismatch(folder) is None:
            return folder
    return None


def _first_mismatch(folder: Path) -> str | None:
    for name, digest in PHOTOGRAPHS.items():
        path = folder / name
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            return name
    return None


@functools.lru_cache(maxsize=4)
def photographs(folder: Path, scale: float) -> tuple[Images, ...]:
    """Returns the five photographs in `folder`, RGB uint8 [h, w, 3], resized by `scale`."""
    # OpenCV's decoder, as in the original: JPEG decoders differ.
    textures = [cv2.imread(str(folder / name)) for name in PHOTOGRAPHS]
    return tuple(_resize(texture[..., ::-1], scale) for texture in textures)  # type: ignore


@functools.lru_cache(maxsize=4)
def synthetic(scale: float) -> tuple[Images, ...]:
    """Returns five synthetic textures, RGB uint8 [h, w, 3], resized by `scale`.

    Noise whose amplitude falls with frequency^1.5, and branching crystals, in bluish grey; always
    the same ones. The corruption that uses them is `frost_synthetic`, not `frost`.
    """
    return tuple(_resize(_texture(number), scale) for number in range(len(SYNTHETIC_LOOKS)))


def _resize(texture: Images, scale: float) -> Images:
    texture = np.ascontiguousarray(texture)
    return texture if scale == 1 else cv2.resize(texture, (0, 0), fx=scale, fy=scale)  # type: ignore[return-value]


def _texture(number: int) -> Images:
    (colour, spread) = SYNTHETIC_LOOKS[number]
    rng = np.random.RandomState(number)
    ice = _standardize(_cloud(rng) + 0.8 * _standardize(_crystals(rng)))
    # Bright ice is whiter than the dark glass behind it, which is blue.
    whiteness = np.array([1.1, 1.0, 0.9])
    texture = np.array(colour) + spread * ice[..., None] * whiteness
    return np.clip(np.rint(texture), 0, 255).astype(np.uint8)


def _standardize(field: Floats) -> Floats:
    return (field - field.mean()) / field.std()


def _cloud(rng: np.random.RandomState) -> Floats:
    height, width = SYNTHETIC_SIZE
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(rng.normal(size=SYNTHETIC_SIZE)) / frequency**1.5
    return _standardize(np.fft.irfft2(spectrum, SYNTHETIC_SIZE))


def _crystals(rng: np.random.RandomState) -> Floats:
    canvas = np.zeros(SYNTHETIC_SIZE, np.float32)
    for _ in range(40):
        centre = rng.uniform((0, 0), SYNTHETIC_SIZE[::-1])
        for arm in rng.uniform(0, 2 * np.pi) + np.arange(6) * np.pi / 3:
            _draw_arm(canvas, rng, centre, arm, float(rng.uniform(20, 70)))
    return cv2.GaussianBlur(canvas, (0, 0), 0.8).astype(np.float64)


def _draw_arm(
    canvas: Floats, rng: np.random.RandomState, start: Floats, angle: float, length: float
) -> None:
    """Draws one arm of a crystal and, at 60 degrees to it, its shorter side arms."""
    end = start + length * np.array([np.cos(angle), np.sin(angle)])
    ends = [tuple(int(v) for v in np.rint(point)) for point in (start, end)]
    cv2.line(canvas, ends[0], ends[1], float(rng.uniform(0.5, 1.0)), 1, cv2.LINE_8)
    if length < 8:
        return
    for fraction in np.arange(0.3, 1.0, 0.2):
        for side in (-1, 1):
            joint = start + fraction * (end - start)
            _draw_arm(
                canvas, rng, joint, angle + side * np.pi / 3, 0.35 * length * (1.2 - fraction)
            )
