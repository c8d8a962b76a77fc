"""The corruptions by name, and the random streams from which they draw."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import PIL
import scipy
from PIL import features
from tqdm.auto import tqdm

import augmix_tf
from augmix_tf import errors
from augmix_tf.corruptions import arrays, blur, digital, distortions, noise, patterns, weather
from augmix_tf.corruptions.arrays import MIN_SIDE, Draws, Images, SliceableImages
from augmix_tf.robustness import CBAR_CORRUPTIONS, FROST_SYNTHETIC

# Images with no longer side use CIFAR's table by default.
LARGEST_CIFAR_SIDE = 64
# Pixels processed together: few enough for the processor's caches.
CHUNK_PIXELS = 16 * 32 * 32

Draw = Callable[[np.random.RandomState, Images, Any], Draws]
Apply = Callable[[Images, Any, Draws], Images]


class Corruption(NamedTuple):
    """The two functions of a corruption, or of a perturbation sequence.

    In the docstring of `apply` x is the image in [0, 1]. Unless it says otherwise, results are
    clipped to [0, 1], multiplied by 255 and truncated.
    """

    # (images uint8 [N, H, W, 3], setting, draws) -> uint8 [N, H, W, 3], or [N, T, H, W, 3]
    apply: Apply
    # (random stream, image uint8 [H, W, 3], setting) -> draws of one image; `apply` takes them
    # stacked
    draw: Callable[..., Draws] | None = None
    moves_image: bool = False  # its surroundings come into view


CATALOGUE = {
    "gaussian_noise": Corruption(noise.gaussian_noise, noise.draw_normal),
    "shot_noise": Corruption(noise.shot_noise, noise.draw_shot),
    "impulse_noise": Corruption(noise.impulse_noise, noise.draw_impulse),
    "defocus_blur": Corruption(blur.defocus_blur),
    "glass_blur": Corruption(blur.glass_blur, blur.draw_glass),
    "motion_blur": Corruption(blur.motion_blur, blur.draw_motion),
    "zoom_blur": Corruption(blur.zoom_blur),
    "snow": Corruption(weather.snow, weather.draw_snow),
    "frost": Corruption(weather.frost, weather.draw_frost),
    FROST_SYNTHETIC: Corruption(weather.frost, weather.draw_frost),
    "fog": Corruption(weather.fog, weather.draw_fog),
    "brightness": Corruption(weather.brightness),
    "contrast": Corruption(digital.contrast),
    "elastic_transform": Corruption(digital.elastic_transform, digital.draw_elastic),
    "pixelate": Corruption(digital.pixelate),
    "jpeg_compression": Corruption(digital.jpeg_compression),
    "speckle_noise": Corruption(noise.speckle_noise, noise.draw_normal),
    "gaussian_blur": Corruption(blur.gaussian_blur),
    "spatter": Corruption(weather.spatter, weather.draw_layer),
    "saturate": Corruption(digital.saturate),
    # C-bar
    "blue_noise_sample": Corruption(patterns.blue_noise_sample, patterns.draw_phases),
    "brownish_noise": Corruption(patterns.brownish_noise, patterns.draw_three_phases),
    "checkerboard_cutout": Corruption(patterns.checkerboard_cutout, patterns.draw_checkerboard),
    "inverse_sparkles": Corruption(patterns.inverse_sparkles, patterns.draw_inverse_sparkles),
    "sparkles": Corruption(patterns.sparkles, patterns.draw_sparkles),
    "circular_motion_blur": Corruption(distortions.circular_motion_blur),
    "lines": Corruption(patterns.lines, patterns.draw_lines),
    "pinch_and_twirl": Corruption(distortions.pinch_and_twirl, distortions.draw_pinch),
    "ripple": Corruption(distortions.ripple, distortions.draw_ripple),
    "transverse_chromatic_abberation": Corruption(
        distortions.transverse_chromatic_abberation, distortions.draw_channels
    ),
    "caustic_refraction": Corruption(distortions.caustic_refraction, distortions.draw_caustic),
    "cocentric_sine_waves": Corruption(patterns.cocentric_sine_waves, patterns.draw_rings),
    "perlin_noise": Corruption(patterns.perlin_noise, patterns.draw_perlin),
    "plasma_noise": Corruption(patterns.plasma_noise, patterns.draw_plasma),
    "single_frequency_greyscale": Corruption(
        patterns.single_frequency_greyscale, patterns.draw_frequency
    ),
}


# Table -> corruption -> constants at severities 1 to 5, for images of 32x32 and of 224x224. What
# they mean stands at the functions, and at the types of longer rows (`weather.Snow`, ...).
# Source: make_cifar_c.py and make_imagenet_c.py of github.com/hendrycks/robustness.
# fmt: off
TABLES: dict[str, dict[str, tuple[Any, ...]]] = {
    "cifar": {
        "gaussian_noise": (0.04, 0.06, 0.08, 0.09, 0.10),
        "shot_noise": (500, 250, 100, 75, 50),
        "impulse_noise": (0.01, 0.02, 0.03, 0.05, 0.07),
        "defocus_blur": ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
        "glass_blur": ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
        "motion_blur": ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
        "zoom_blur": ((0.01, 7), (0.01, 12), (0.01, 16), (0.01, 21), (0.01, 26)),
        "snow": (
            (0.1, 0.2, 1, 0.6, (8, 3), 0.95), (0.1, 0.2, 1, 0.5, (10, 4), 0.9),
            (0.15, 0.3, 1.75, 0.55, (10, 4), 0.9), (0.25, 0.3, 2.25, 0.6, (12, 6), 0.85),
            (0.3, 0.3, 1.25, 0.65, (14, 12), 0.8),
        ),
        "frost": (
            (1, 0.2, 0.2, 32), (1, 0.3, 0.2, 32), (0.9, 0.4, 0.2, 32), (0.85, 0.4, 0.2, 32),
            (0.75, 0.45, 0.2, 32),
        ),
        "fog": ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
        "brightness": (0.05, 0.1, 0.15, 0.2, 0.3),
        "contrast": (0.75, 0.5, 0.4, 0.3, 0.15),
        "elastic_transform": (
            (0, 0, 0.08, 224), (0.05, 0.2, 0.07, 224), (0.08, 0.06, 0.06, 224),
            (0.1, 0.04, 0.05, 224), (0.1, 0.03, 0.03, 224),
        ),
        "pixelate": (0.95, 0.9, 0.85, 0.75, 0.65),
        "jpeg_compression": (80, 65, 58, 50, 40),
        "speckle_noise": (0.06, 0.1, 0.12, 0.16, 0.2),
        "gaussian_blur": (0.4, 0.6, 0.7, 0.8, 1.0),
        "spatter": (
            (0.62, 0.1, 0.7, 0.7, 0.5, False), (0.65, 0.1, 0.8, 0.7, 0.5, False),
            (0.65, 0.3, 1, 0.69, 0.5, False), (0.65, 0.1, 0.7, 0.69, 0.6, True),
            (0.65, 0.1, 0.5, 0.68, 0.6, True),
        ),
        "saturate": ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)),
        "blue_noise_sample": (0.7, 1.4, 2.1, 3.5, 4.2),
        "brownish_noise": (2.5, 4, 5.5, 6.5, 7),
        "checkerboard_cutout": (1, 2, 3, 4, 5),
        "circular_motion_blur": (2.8, 3.6, 4.4, 5.2, 6),
        "inverse_sparkles": (1, 1.5, 2.5, 4.5, 5),
        "lines": (0.5, 1, 1.5, 2, 2.5),
        "pinch_and_twirl": (5.5, 6, 6.5, 8.5, 10),
        "ripple": (5.5, 6, 6.5, 7.5, 8),
        "sparkles": (0.7, 3.5, 5.6, 6.3, 7),
        "transverse_chromatic_abberation": (1, 2, 5, 9, 10),
    },
    "imagenet": {
        "gaussian_noise": (0.08, 0.12, 0.18, 0.26, 0.38),
        "shot_noise": (60, 25, 12, 5, 3),
        "impulse_noise": (0.03, 0.06, 0.09, 0.17, 0.27),
        "defocus_blur": ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
        "glass_blur": ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
        "motion_blur": ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
        "zoom_blur": ((0.01, 12), (0.01, 16), (0.02, 11), (0.02, 13), (0.03, 11)),
        "snow": (
            (0.1, 0.3, 3, 0.5, (10, 4), 0.8), (0.2, 0.3, 2, 0.5, (12, 4), 0.7),
            (0.55, 0.3, 4, 0.9, (12, 8), 0.7), (0.55, 0.3, 4.5, 0.85, (12, 8), 0.65),
            (0.55, 0.3, 2.5, 0.85, (12, 12), 0.55),
        ),
        "frost": (
            (1, 0.4, 1, 224), (0.8, 0.6, 1, 224), (0.7, 0.7, 1, 224), (0.65, 0.7, 1, 224),
            (0.6, 0.75, 1, 224),
        ),
        "fog": ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
        "brightness": (0.1, 0.2, 0.3, 0.4, 0.5),
        "contrast": (0.4, 0.3, 0.2, 0.1, 0.05),
        "elastic_transform": (
            (2, 0.7, 0.1, 244), (2, 0.08, 0.2, 244), (0.05, 0.01, 0.02, 244),
            (0.07, 0.01, 0.02, 244), (0.12, 0.01, 0.02, 244),
        ),
        "pixelate": (0.6, 0.5, 0.4, 0.3, 0.25),
        "jpeg_compression": (25, 18, 15, 10, 7),
        "speckle_noise": (0.15, 0.2, 0.35, 0.45, 0.6),
        "gaussian_blur": (1, 2, 3, 4, 6),
        "spatter": (
            (0.65, 0.3, 4, 0.69, 0.6, False), (0.65, 0.3, 3, 0.68, 0.6, False),
            (0.65, 0.3, 2, 0.68, 0.5, False), (0.65, 0.3, 1, 0.65, 1.5, True),
            (0.67, 0.4, 1, 0.65, 1.5, True),
        ),
        "saturate": ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)),
        "blue_noise_sample": (0.8, 1.6, 2.4, 4, 5.6),
        "brownish_noise": (1, 2, 3, 4, 5),
        "caustic_refraction": (2.35, 3.2, 4.9, 6.6, 9.15),
        "checkerboard_cutout": (2, 3, 4, 5, 6),
        "cocentric_sine_waves": (3, 5, 8, 9, 10),
        "inverse_sparkles": (1, 2, 4, 9, 10),
        "perlin_noise": (4.6, 5.2, 5.8, 7.6, 8.8),
        "plasma_noise": (4.75, 7, 8.5, 9.25, 10),
        "single_frequency_greyscale": (1, 1.5, 2, 4.5, 5),
        "sparkles": (1, 2, 3, 5, 6),
    },
}
# fmt: on
# The weights of frost, with other textures.
for _table in TABLES.values():
    _table[FROST_SYNTHETIC] = _table["frost"]


def corrupt(
    images: Any,
    name: str,
    severity: int,
    seed: int = 0,
    ids: Sequence[int] | npt.NDArray[Any] | None = None,
    table: str | None = None,
    frost_dir: str | Path | None = None,
    *,
    workers: int = 1,
    progress: bool = False,
) -> Any:
    """Applies one corruption of the -C or C-bar benchmarks.

    The result for an image is a function of (seed, name, severity, its id) only: neither the other
    images, nor their order, nor the process or the number of workers change it. Given the same
    draws, values equal those of the authors' scripts bit for bit. These set no seed: the published
    files cannot be reproduced.

    Args:
        images: uint8 [N, H, W, 3], [N, H, W, 1] or [N, H, W], or one image without N: an array or
            what NumPy makes one of, such as tensors and `PIL.Image`. Or a list, a tuple or an array
            of such images, of any sizes. Sides of at least 16 pixels. A grey image is corrupted as
            three equal channels, of which the green one is kept: it is nearest to the brightness,
            and noise has its strength in it.
        name: one of `CORRUPTIONS`, `EXTRA_CORRUPTIONS`, "frost_synthetic" or `CBAR_CORRUPTIONS`,
            the last for square images.
        severity: 1 to 5.
        seed: integer of at least 0.
        ids: N unique integers of at least 0, such as the indices of the images in their dataset
            (default: 0, 1, 2, ...).
        table: constants, "cifar" or "imagenet" (default: "cifar" up to 64 pixels a side; for the
            corruptions of C-bar that only one table has, that one).
        frost_dir: folder with the original frost photographs (default: those of an installed
            `imagecorruptions` distribution; without it, "frost" warns and is "frost_synthetic",
            whose results are not comparable with the benchmark's).
        workers: threads. Two on two cores make most corruptions of images 224x224 1.6 to 1.9 times
            as fast; fog and JPEG compression, which mostly hold Python's lock, stay as they are.
        progress: whether to show a progress bar.

    Returns:
        uint8 of the same shape; a list of images for several ones that are not one array.

    Raises:
        ArgumentError: an argument is invalid, or `frost_dir` does not hold the photographs.

    Source: Hendrycks and Dietterich, ICLR 2019 (arXiv 1903.12261); C-bar: Mintun, Kirillov and Xie,
    NeurIPS 2021 (arXiv 2102.11273).

    >>> images = np.full((2, 50, 70, 3), 200, np.uint8)
    >>> foggy = corrupt(images, "fog", severity=3)
    >>> foggy.shape, foggy.dtype
    ((2, 50, 70, 3), dtype('uint8'))
    >>> bool((foggy[1:] == corrupt(images[1:], "fog", 3, ids=[1])).all())  # the id decides
    True
    >>> [image.shape for image in corrupt([images[0], images[1, :20, :30, 0]], "snow", 1)]
    [(50, 70, 3), (20, 30)]
    """
    arrays.check_integer("number of workers", workers, 1)
    arrays.check_integer("seed", seed, 0)
    name = _available_frost(name, frost_dir)
    is_object_array = isinstance(images, np.ndarray) and images.dtype == object
    is_list = is_object_array or isinstance(images, (list, tuple))
    given = [arrays.as_array(image) for image in images] if is_list else [arrays.as_array(images)]
    batches = [arrays.as_rgb(array) for array in given]
    is_single = not is_list or all(len(batch) == 1 for batch in batches)
    errors.require(is_single, "single images in a list", "batches of several images")
    counts = [len(batch) for batch in batches]
    numbers = np.split(arrays.check_ids(ids, sum(counts)), np.cumsum(counts)[:-1])
    results = [np.empty_like(batch) for batch in batches]

    @lru_cache(maxsize=4)  # textures are large
    def setting_and_draw(size: tuple[int, int]) -> tuple[Any, Draw | None]:
        setting = setting_of(np.empty((0, *size, 3), np.uint8), name, severity, table)
        if name not in ("frost", FROST_SYNTHETIC):
            return setting, CATALOGUE[name].draw
        textures = _frost_textures(name, setting, max(size), frost_dir)
        return setting, partial(weather.draw_frost, photographs=textures)

    def corrupt_rows(index: int, rows: slice) -> int:
        batch = batches[index][rows]
        setting, draw = setting_and_draw(batch.shape[1:3])
        streams = Streams(seed, name, severity)
        draws = draw_all(draw, streams, batch, numbers[index][rows], setting)
        results[index][rows] = CATALOGUE[name].apply(batch, setting, draws)
        return len(batch)

    jobs = [(index, rows) for index, batch in enumerate(batches) for rows in chunks(batch)]
    # Checks name, severity and table where no image is.
    setting_of(np.empty((0, MIN_SIDE, MIN_SIDE, 3), np.uint8), name, severity, table)
    with (
        ThreadPoolExecutor(workers) as pool,
        tqdm(
            total=sum(counts), desc=f"{name} {severity}", unit="image", disable=not progress
        ) as bar,
    ):
        run = pool.map if workers > 1 else map
        for count in run(corrupt_rows, *zip(*jobs, strict=True)) if jobs else ():
            bar.update(count)
    kept = [
        result.reshape(array.shape) if array.shape[-1] == 3 else result[..., 1].reshape(array.shape)
        for array, result in zip(given, results, strict=True)
    ]
    return kept if is_list else kept[0]


def apply(
    images: Images, name: str, severity: int, draws: Draws, table: str | None = None
) -> Images:
    """Applies one corruption with given random draws; arguments and errors as for `corrupt`.

    Args:
        images: uint8 [N, H, W, 3].
        draws: the arrays that the corruption's `draw_*` function returns, stacked for N images; ()
            for a corruption that is not random.

    Returns:
        uint8 [N, H, W, 3].
    """
    setting = setting_of(arrays.check_images(images), name, severity, table)
    return CATALOGUE[name].apply(images, setting, draws)


def setting_of(images: SliceableImages, name: str, severity: int, table: str | None = None) -> Any:
    """Returns the constants of corruption `name` at `severity` for images of this size."""
    height, width = images.shape[1:3]
    chosen = table_name(table, height, width)
    if table is None and name in CBAR_CORRUPTIONS and name not in TABLES[chosen]:
        chosen = next(other for other in TABLES if name in TABLES[other])
    others = [other for other in TABLES if name in TABLES[other] and name not in TABLES[chosen]]
    received = f"{name!r}, which only {', '.join(others)} has"
    errors.require(not others, f"a corruption of the severity table {chosen!r}", received)
    row = errors.lookup("corruption", name, TABLES[chosen])
    received = f"{height}x{width} pixels for {name}"
    errors.require(height == width or name not in CBAR_CORRUPTIONS, "square images", received)
    return row[arrays.check_integer("severity", severity, 1, len(row)) - 1]


def table_name(table: str | None, height: int, width: int) -> str:
    """Returns `table`, or by size "cifar" (up to 64 pixels a side) or "imagenet"."""
    if table is None:
        return "cifar" if max(height, width) <= LARGEST_CIFAR_SIDE else "imagenet"
    errors.lookup("severity table", table, TABLES)
    return table


def versions() -> dict[str, str]:
    """Returns the versions of the libraries on which the values may depend."""
    return {
        "augmix_tf": augmix_tf.__version__,
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "opencv": cv2.__version__,
        "pillow": PIL.__version__,
        "libjpeg": str(features.version("libjpeg_turbo") or features.version("jpg")),
    }


class Streams:
    """The random streams of all images for one (seed, name, severity).

    The stream of an image is Philox 4x64, keyed by a hash of (seed, name, severity) and the image's
    id. It is read through numpy's legacy `RandomState`, whose distributions are frozen (NEP 19):
    later numpy releases draw the same, and `RandomState(seed)` draws what the scripts drew.
    """

    def __init__(self, seed: int, name: str, severity: int) -> None:
        digest = hashlib.sha256(f"{seed}/{name}/{severity}".encode()).digest()
        self._key = np.array([int.from_bytes(digest[:8], "little"), 0], np.uint64)
        bits = np.random.Philox(key=self._key)
        self._start: dict[str, Any] = dict(bits.state)
        self._start["state"]["key"] = self._key
        self._stream = np.random.RandomState(bits)

    def of(self, image_id: int) -> np.random.RandomState:
        """Returns the stream of one image, at its beginning; valid until the next call."""
        # Setting the state takes a tenth of the time of a new generator.
        self._key[1] = image_id
        self._stream.set_state(self._start)
        return self._stream


def draw_all(
    draw: Draw | None, streams: Streams, images: Images, ids: npt.NDArray[np.uint64], setting: Any
) -> Draws:
    """Returns the draws of every image, stacked; () without `draw`."""
    if draw is None:
        return ()
    pairs = zip(ids, images, strict=True)
    return stack([draw(streams.of(number), image, setting) for number, image in pairs])


def stack(draws: Sequence[Draws]) -> Draws:
    """Stacks the draws of single images, array by array."""
    return tuple(map(np.stack, zip(*draws, strict=True)))


def chunks(images: Images, frames: int = 1) -> Iterator[slice]:
    """Yields slices of `CHUNK_PIXELS` pixels or less, counting every image `frames` times."""
    size = max(1, CHUNK_PIXELS // (images.shape[1] * images.shape[2] * frames))
    return (slice(first, first + size) for first in range(0, len(images), size))


def _available_frost(name: str, frost_dir: str | Path | None) -> str:
    if name != "frost" or frost_dir is not None or weather.find_photographs() is not None:
        return name
    warnings.warn(
        f"The original frost photographs ({', '.join(weather.PHOTOGRAPHS)}) are neither in "
        f"`frost_dir` nor in an installed imagecorruptions distribution: this is "
        f"{FROST_SYNTHETIC!r}, whose results are not those of the benchmark's frost.",
        stacklevel=3,
    )
    return FROST_SYNTHETIC


def _frost_textures(
    name: str, setting: weather.Frost, side: int, frost_dir: str | Path | None
) -> tuple[Images, ...]:
    scale = setting[2] * side / setting[3]
    if name == FROST_SYNTHETIC:
        return weather.synthetic(scale)
    folder = weather.find_photographs(frost_dir)
    assert folder is not None, "corrupt checks this"
    return weather.photographs(folder, scale)
