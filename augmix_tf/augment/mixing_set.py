"""Images to mix with: drawn from a seed, or of a directory.

The methods that use them draw which one, and where it is cropped, for each training image.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from etils import epy

from augmix_tf.augment.method import ConsistencyMethod
from augmix_tf.errors import SettingError
from augmix_tf.settings import setting

with epy.lazy_imports():  # the command line reads the settings without loading TensorFlow
    import numpy as np
    import tensorflow as tf
    from PIL import Image

    from augmix_tf.augment import fractals
    from augmix_tf.ops import formats

_DRAWN = {"mixing_dir": (None,)}


class MixingSet(NamedTuple):
    """M images of different sizes."""

    pixels: tf.Tensor  # int32 [P], packed, all images one after another
    first: tf.Tensor  # int32 [M], index of an image's first pixel
    size: tf.Tensor  # int32 [M, 2], height and width


def of_images(images: Iterable[np.ndarray]) -> MixingSet:
    """Returns a mixing set of images uint8 [h, w, 3]."""
    images = list(images)
    size = np.array([image.shape[:2] for image in images], np.int32)
    ends = np.cumsum(size.prod(axis=1))
    values = np.concatenate([image.reshape(-1, 3) for image in images]).astype(np.int32)
    pixels = values @ np.array([1, 1 << 8, 1 << 16], np.int32)
    with tf.init_scope(), tf.device("CPU:0"):
        return MixingSet(*map(tf.constant, (pixels, (ends - size.prod(axis=1)).astype("i4"), size)))


def crop(
    mixing_set: MixingSet, number: tf.Tensor, place: tf.Tensor, image_size: tuple[int, int]
) -> tf.Tensor:
    """Crops one mixing image to `image_size`, packed int32 [H, W].

    `place` float64 [2], 0 to below 1, is the corner's among the possible rows and columns.
    """
    # Gathered, because XLA compiles anew for every number that indexes in brackets.
    first, size = tf.gather(mixing_set.first, number), tf.gather(mixing_set.size, number)
    corner = tf.cast(place * tf.cast(size - image_size + 1, tf.float64), tf.int32)
    row, column = corner[0] + tf.range(image_size[0]), corner[1] + tf.range(image_size[1])
    index = first + row[:, None] * size[1] + column
    return tf.gather(mixing_set.pixels, index)


def read(directory: str, side: int) -> list[np.ndarray]:
    """Reads all images below a directory, each resized so that its shorter side is `side`.

    Ordered by path; resized as by torchvision's `Resize` of a Pillow image.
    """
    paths = sorted(Path(directory).rglob("*"))
    paths = [path for path in paths if path.name.lower().endswith(formats.SUFFIXES)]
    if not paths:
        kinds = ", ".join(formats.SUFFIXES)
        raise SettingError("mixing_dir", f"must hold images ({kinds}); {directory} has none.")
    return [resized(formats.read(path), side) for path in paths]


def resized(image: np.ndarray, side: int) -> np.ndarray:
    """Returns an image resized so that its shorter side is `side` pixels."""
    height, width = image.shape[:2]
    shorter = min(height, width)
    size = (side * width // shorter, side * height // shorter)
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))


@functools.cache
def _load(directory: str | None, count: int, seed: int, side: int) -> tuple[MixingSet, str]:
    """Returns a mixing set and the SHA-256 of its pixels."""
    drawn = fractals.draw(count, side, seed) if directory is None else read(directory, side)
    digest = hashlib.sha256()
    for image in drawn:
        digest.update(image.tobytes())
    return of_images(drawn), digest.hexdigest()


@dataclasses.dataclass(frozen=True)
class MixingMethod(ConsistencyMethod):
    """A method that mixes each image with one of a mixing set."""

    mixing_dir: str | None = setting(
        None, "Directory of images to mix with (unset: drawn fractals)", path=True
    )
    mixing_images: int = setting(4096, "Images to mix with that are drawn", low=1, needs=_DRAWN)
    mixing_seed: int = setting(
        0, "Seed of the drawn images to mix with", low=0, high=2**31 - 1, needs=_DRAWN
    )

    @property
    def compiled(self) -> bool:
        return True

    def mixing_set(self, image_size: tuple[int, int]) -> MixingSet:
        """The mixing set for training images of a size, (height, width)."""
        return self._loaded(image_size)[0]

    def prepare(self, image_size: tuple[int, int]) -> dict[str, Any]:
        mixing_set, digest = self._loaded(image_size)
        return {"mixing_set": {"images": len(mixing_set.first), "sha256": digest}}

    def _loaded(self, image_size: tuple[int, int]) -> tuple[MixingSet, str]:
        # A seventh more than the crop, as in the code of PixMix: 36 and 32, 256 and 224 pixels.
        side = max(image_size) * 8 // 7
        return _load(self.mixing_dir, self.mixing_images, self.mixing_seed, side)
