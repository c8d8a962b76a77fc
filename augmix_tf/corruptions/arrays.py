"""Array types, conversion to 8 bits, and argument checks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from augmix_tf import errors

Images = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.floating[Any]]
Draws = tuple[npt.NDArray[Any], ...]
SliceableImages: TypeAlias = Any
"""Images uint8 [N, H, W, 3]: an array, or an object with `shape`, `dtype`, `len` and slices."""

MIN_SIDE = 16
_EXPECTED = f"images uint8 [N, H, W, 3] with H and W of at least {MIN_SIDE}"


def to_uint8(values: Floats) -> Images:
    """Converts values in [0, 1] to 0..255: clipped, multiplied by 255, truncated (not rounded)."""
    return (np.clip(values, 0, 1) * 255).astype(np.uint8)


def as_array(images: Any) -> npt.NDArray[Any]:
    """Returns what NumPy makes an array of, without palettes and alpha channels."""
    mode = images.mode if isinstance(images, Image.Image) else "RGB"
    advice = "an image of mode RGB or L: image.convert('RGB')"
    errors.require(mode in ("RGB", "L"), advice, mode)
    return np.asarray(images)


def as_rgb(images: npt.NDArray[Any]) -> Images:
    """Returns uint8 [N, H, W, 3] of [N, H, W, C], [N, H, W], [H, W, C] or [H, W], C of 3 or 1."""
    shape = images.shape
    if len(shape) == 2 or (len(shape) == 3 and shape[2] >= MIN_SIDE and shape[0] != 3):
        images = images[..., None]
    images = images[None] if images.ndim == 3 else images
    if images.ndim != 4 or images.shape[3] not in (1, 3):
        raise errors.ArgumentError(
            f"Expected {_EXPECTED}, or [H, W, 3], or grey ones with 1 channel or none; received "
            f"{images.dtype} {list(shape)}. Drop an alpha channel by images[..., :3], and move "
            "channels to the end."
        )
    return check_images(images if images.shape[3] == 3 else np.repeat(images, 3, axis=3))


def check_images(images: SliceableImages) -> SliceableImages:
    """Returns `images` if they are uint8 [N, H, W, 3], sides at least `MIN_SIDE`; reads none."""
    shape: Any = getattr(images, "shape", ())
    dtype = getattr(images, "dtype", type(images).__name__)
    is_valid = dtype == np.uint8 and len(shape) == 4 and shape[3] == 3
    is_valid = is_valid and min(shape[1:3]) >= MIN_SIDE
    errors.require(is_valid, _EXPECTED, f"{dtype} {list(shape)}")
    return images


def check_labels(labels: npt.NDArray[Any], count: int) -> npt.NDArray[Any]:
    """Returns the labels of `count` images as uint8, or as int64 if one does not fit."""
    given = np.asarray(labels)
    is_valid = given.shape == (count,) and given.dtype.kind in "iu" and count > 0
    expected = f"integer labels [{count}], one per image, and at least one image"
    errors.require(is_valid, expected, f"{given.dtype} {list(given.shape)}")
    # The published files hold uint8.
    return given.astype(np.uint8 if given.min() >= 0 and given.max() < 256 else np.int64)


def check_ids(ids: Sequence[int] | npt.NDArray[Any] | None, count: int) -> npt.NDArray[np.uint64]:
    """Returns the unique ids of `count` images as uint64 [count]; 0, 1, 2, ... for None."""
    if ids is None:
        return np.arange(count, dtype=np.uint64)
    given = np.asarray(ids)
    errors.require(given.shape == (count,), f"{count} ids, one per image", list(given.shape))
    if count == 0:
        return np.zeros(0, np.uint64)
    is_valid = given.dtype.kind in "iu" and int(given.min()) >= 0
    errors.require(is_valid, "ids that are integers of at least 0", given[:3].tolist())
    values, counts = np.unique(given, return_counts=True)
    errors.require(len(values) == count, "unique ids", f"{values[counts > 1][:3]} repeated")
    return given.astype(np.uint64)


def check_integer(what: str, value: object, low: int, high: int | None = None) -> int:
    """Returns `value` if it is an integer of at least `low` and at most `high`."""
    bounds = f"of at least {low}" if high is None else f"from {low} to {high}"
    is_integer = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    number = int(value) if is_integer else low  # type: ignore[call-overload]
    is_valid = is_integer and low <= number and (high is None or number <= high)
    errors.require(is_valid, f"an integer {what} {bounds}", repr(value))
    return number
