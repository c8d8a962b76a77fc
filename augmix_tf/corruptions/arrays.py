"""Array types, the original's way back to 8 bits, and the checks at this package's door."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from augmix_tf import checks

Images = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.floating[Any]]
Draws = tuple[npt.NDArray[Any], ...]

MIN_SIDE = 16


def to_uint8(values: Floats) -> Images:
    """Returns `values` in [0, 1] as 0..255: clipped, times 255, cut off (not rounded)."""
    return (np.clip(values, 0, 1) * 255).astype(np.uint8)


def check_images(images: npt.NDArray[Any]) -> Images:
    """Returns `images` if they are uint8 [N, H, W, 3] with sides of at least `MIN_SIDE`.

    Raises:
        CommandError: they are something else.
    """
    wanted = f"images uint8 [N, H, W, 3] with H and W of at least {MIN_SIDE}"
    checks.require(isinstance(images, np.ndarray), wanted, type(images).__name__)
    sound = images.dtype == np.uint8 and images.ndim == 4 and images.shape[3] == 3
    sound = sound and min(images.shape[1:3]) >= MIN_SIDE
    checks.require(sound, wanted, f"{images.dtype} {list(images.shape)}")
    return images


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
