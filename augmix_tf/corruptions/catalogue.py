"""The corruptions by name: draw the chance of each image, apply it to a batch."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from augmix_tf import checks
from augmix_tf.corruptions import blur, digital, frost, noise, severities, weather
from augmix_tf.corruptions.arrays import Draws, Images, check_ids, check_images, check_whole
from augmix_tf.corruptions.streams import Streams
from augmix_tf.metrics import COUNTED_CORRUPTIONS
from augmix_tf.metrics.names import FROST_SYNTHETIC

CORRUPTIONS = COUNTED_CORRUPTIONS

# Pixels that are worked on together: few enough for the processor's caches.
CHUNK_PIXELS = 16 * 32 * 32


@dataclass(frozen=True)
class Corruption:
    """One corruption: what it draws for one image (if it does), what it does to a batch."""

    apply: Callable[[Images, Any, Draws], Images]
    draw: Callable[..., Draws] | None = None


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
    "fog": Corruption(weather.fog, weather.draw_fog),
    "brightness": Corruption(weather.brightness),
    "contrast": Corruption(digital.contrast),
    "elastic_transform": Corruption(digital.elastic_transform, digital.draw_elastic),
    "pixelate": Corruption(digital.pixelate),
    "jpeg_compression": Corruption(digital.jpeg_compression),
    "speckle_noise": Corruption(noise.speckle_noise, noise.draw_normal),
    "gaussian_blur": Corruption(blur.gaussian_blur),
    "spatter": Corruption(weather.spatter, weather.draw_spatter),
    "saturate": Corruption(digital.saturate),
    FROST_SYNTHETIC: Corruption(weather.frost, weather.draw_frost),
}


def corrupt(
    images: Images,
    name: str,
    severity: int,
    seed: int = 0,
    ids: Sequence[int] | npt.NDArray[Any] | None = None,
    table: str | None = None,
    frost_dir: str | Path | None = None,
) -> Images:
    """Returns the images under one corruption of the -C benchmarks.

    What an image gets depends on (seed, name, severity, its id) only: not on the other images,
    their order, or the process. Same functions as the authors' scripts, bit for bit given the same
    draws; as those scripts set no seed, the published files cannot be made again.

    Args:
        images: uint8 [N, H, W, 3], sides of at least 16 pixels.
        name: one of `CORRUPTIONS`, `EXTRA_CORRUPTIONS` or "frost_synthetic".
        severity: 1 to 5.
        seed: whole number from 0.
        ids: N different whole numbers from 0, the images' places in their data set; without it
            0, 1, 2, ...
        table: constants to use, "cifar" or "imagenet"; without it CIFAR's up to 64 pixels a
            side, ImageNet's above.
        frost_dir: folder with the original frost photographs; without it an installed
            `imagecorruptions` distribution is searched for them.

    Returns:
        uint8 [N, H, W, 3].

    Raises:
        CommandError: a malformed argument, or frost without its photographs.

    Source: Hendrycks and Dietterich, ICLR 2019 (arXiv 1903.12261).

    >>> images = np.full((2, 50, 70, 3), 200, np.uint8)
    >>> foggy = corrupt(images, "fog", severity=3)
    >>> foggy.shape, foggy.dtype
    ((2, 50, 70, 3), dtype('uint8'))
    >>> bool((foggy[1:] == corrupt(images[1:], "fog", 3, ids=[1])).all())  # whatever is beside it
    True
    """
    kind, setting, draw = _resolve(images, name, severity, table, frost_dir)
    numbers = check_ids(ids, len(images))
    streams = Streams(check_whole("seed", seed, 0), name, severity)
    out = np.empty_like(images)
    for part in chunks(images):
        plan = tuple(
            draw(streams.of(number), image, setting)
            for number, image in zip(numbers[part], images[part], strict=True)
        )
        out[part] = kind.apply(images[part], setting, stack(plan))
    return out


def apply(
    images: Images, name: str, severity: int, draws: Draws, table: str | None = None
) -> Images:
    """Returns the images under a corruption whose random draws are given.

    Args:
        images: uint8 [N, H, W, 3].
        name: as for `corrupt`.
        severity: 1 to 5.
        draws: what the corruption's `draw_*` function returns, each array stacked for N images;
            () where nothing is drawn.
        table: as for `corrupt`.

    Returns:
        uint8 [N, H, W, 3].

    Raises:
        CommandError: a malformed argument.
    """
    kind = checks.lookup("corruption", name, CATALOGUE)
    setting = setting_of(check_images(images), name, severity, table)
    return kind.apply(images, setting, draws)


def setting_of(images: Images, name: str, severity: int, table: str | None = None) -> Any:
    """Returns the constants of corruption `name` at `severity` for images of this size.

    Raises:
        CommandError: unknown name or table, or a severity outside 1 to 5.
    """
    chosen = severities.TABLES[severities.table_name(table, *images.shape[1:3])]
    row = checks.lookup("corruption", name, chosen)
    return row[check_whole("severity", severity, 1, len(row)) - 1]


def chunks(images: Images, frames: int = 1) -> Iterator[slice]:
    """Yields slices of `images` small enough to be worked on at once, `frames` pictures each."""
    size = max(1, CHUNK_PIXELS // (images.shape[1] * images.shape[2] * frames))
    return (slice(first, first + size) for first in range(0, len(images), size))


def stack(plan: Sequence[Draws]) -> Draws:
    """Stacks the draws of single images, array by array."""
    return tuple(np.stack(arrays) for arrays in zip(*plan, strict=True))


def _resolve(
    images: Images, name: str, severity: int, table: str | None, frost_dir: str | Path | None
) -> tuple[Corruption, Any, Callable[..., Draws]]:
    kind = checks.lookup("corruption", name, CATALOGUE)
    setting = setting_of(check_images(images), name, severity, table)
    if name in ("frost", FROST_SYNTHETIC):
        textures = _frost_textures(name, setting, max(images.shape[1:3]), frost_dir)
        return kind, setting, functools.partial(weather.draw_frost, photographs=textures)
    return kind, setting, kind.draw or _draw_nothing


def _draw_nothing(rng: np.random.RandomState, image: Images, setting: Any) -> Draws:
    return ()


def _frost_textures(
    name: str, setting: severities.Frost, side: int, frost_dir: str | Path | None
) -> tuple[Images, ...]:
    scale = setting.photo_scale * side / setting.side
    if name == FROST_SYNTHETIC:
        return frost.synthetic(scale)
    folder = frost.find_photographs(frost_dir)
    if folder is None:
        raise checks.CommandError(
            f"want the original frost photographs ({', '.join(frost.PHOTOGRAPHS)}) in a given "
            "folder or with the imagecorruptions distribution, got neither; "
            f"{FROST_SYNTHETIC!r} needs none, but is another corruption"
        )
    return frost.photographs(folder, scale)
