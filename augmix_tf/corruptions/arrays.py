"""Array types, the original's way back to 8 bits, and the checks at this package's door."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from augmix_tf import checks

Images = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.floating[Any]]
Draws = tuple[npt.NDArray[Any], ...]

MIN_SIDE = 16
_WANTED = f"images uint8 [N, H, W, 3] with H and W of at least {MIN_SIDE}"


class Pictures(Protocol):
    """Pictures uint8 [N, H, W, 3]: an array, or what is read like one, a few rows at a time."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, H, W, 3)."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """That of uint8."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice, /) -> Images: ...


def to_uint8(values: Floats) -> Images:
    """Returns `values` in [0, 1] as 0..255: clipped, times 255, cut off (not rounded)."""
    return (np.clip(values, 0, 1) * 255).astype(np.uint8)


def check_images(images: npt.NDArray[Any]) -> Images:
    """Returns `images` if they are uint8 [N, H, W, 3] with sides of at least `MIN_SIDE`.

    Raises:
        CommandError: they are something else.
    """
    checks.require(isinstance(images, np.ndarray), _WANTED, type(images).__name__)
    check_pictures(images)
    return images


def check_pictures(pictures: Pictures) -> Pictures:
    """Returns `pictures` if their type and shape are those of `check_images`; reads none of them.

    Raises:
        CommandError: they are something else.
    """
    alike = isinstance(getattr(pictures, "dtype", None), np.dtype) and hasattr(pictures, "shape")
    checks.require(alike, _WANTED, type(pictures).__name__)
    shape = pictures.shape
    sound = pictures.dtype == np.uint8 and len(shape) == 4 and shape[3] == 3
    sound = sound and min(shape[1:3]) >= MIN_SIDE
    checks.require(sound, _WANTED, f"{pictures.dtype} {list(shape)}")
    return pictures


def check_labels(labels: npt.NDArray[Any], count: int) -> npt.NDArray[Any]:
    """Returns the labels of `count` images in the smallest of uint8 and int64 that holds them.

    Raises:
        CommandError: another number of labels than of images, no whole numbers, or no image.
    """
    given = np.asarray(labels)
    sound = given.shape == (count,) and given.dtype.kind in "iu" and count > 0
    wanted = f"labels that are whole numbers [{count}], one an image, and at least one image"
    checks.require(sound, wanted, f"{given.dtype} {list(given.shape)}")
    # The published files hold uint8.
    return given.astype(np.uint8 if given.min() >= 0 and given.max() < 256 else np.int64)


def check_ids(ids: Sequence[int] | npt.NDArray[Any] | None, count: int) -> npt.NDArray[np.uint64]:
    """Returns the ids of `count` images as uint64 [count]; without `ids` 0, 1, 2, ...

    Raises:
        CommandError: another number of ids than of images, not whole numbers from 0, or one
            of them twice.
    """
    if ids is None:
        return np.arange(count, dtype=np.uint64)
    given = np.asarray(ids)
    checks.require(given.shape == (count,), f"{count} ids, one an image", list(given.shape))
    whole = given.dtype.kind in "iu" and (count == 0 or int(given.min()) >= 0)
    checks.require(whole or count == 0, "ids that are whole numbers from 0", given[:3].tolist())
    values, counts = np.unique(given, return_counts=True)
    checks.require(len(values) == count, "ids that differ", f"{values[counts > 1][:3]} repeated")
    return given.astype(np.uint64)


def check_whole(what: str, value: object, low: int, high: int | None = None) -> int:
    """Returns `value` if it is a whole number of at least `low` and at most `high`.

    Raises:
        CommandError: it is not.
    """
    bounds = f"from {low} on" if high is None else f"{low} to {high}"
    wanted = f"{what} {bounds}"
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        checks.require(False, wanted, repr(value))
    number = int(value)  # type: ignore[call-overload]
    checks.require(low <= number and (high is None or number <= high), wanted, number)
    return number
