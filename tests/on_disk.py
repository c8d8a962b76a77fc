"""Pictures that stand for a set on disk: they may be read piece by piece only."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


class OnDisk:
    """As `data.pictures.EncodedPictures`; `read` has how many pictures came at a time."""

    def __init__(self, pictures: np.ndarray) -> None:
        self._pictures = pictures
        self.shape, self.dtype, self.ndim = pictures.shape, pictures.dtype, pictures.ndim
        self.read: list[int] = []

    def __len__(self) -> int:
        return len(self._pictures)

    def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
        raise AssertionError("all pictures at once")

    def __getitem__(self, rows: slice) -> np.ndarray:
        found = self._pictures[rows]
        self.read.append(len(found))
        return found

    def arrays(self, size: int) -> Iterator[np.ndarray]:
        return (self[first : first + size] for first in range(0, len(self), size))
