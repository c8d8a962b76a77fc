"""Stand-ins for images on disk, which may be read in parts only."""

import dataclasses
from collections.abc import Iterator

import numpy as np

from augmix_tf.data.images import InMemoryStore, LazyArray


def class_names(count: int) -> list[str]:
    """Names that no set has, so that its classes are taken by position."""
    return [f"class {number}" for number in range(count)]


class OnDisk:
    """An array-like as `ImageStore.pixels`; `read` has how many images were read at a time."""

    def __init__(self, images: np.ndarray) -> None:
        self._images = images
        self.shape, self.dtype, self.ndim = images.shape, images.dtype, images.ndim
        self.read: list[int] = []

    def __len__(self) -> int:
        return len(self._images)

    def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
        raise AssertionError("all images at once")

    def __getitem__(self, rows: slice) -> np.ndarray:
        found = self._images[rows]
        self.read.append(len(found))
        return found


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class StoreOnDisk(InMemoryStore):
    """A store that is read by `batches` only; `sizes` has how many images were read at a time."""

    sizes: list[int] = dataclasses.field(default_factory=list)

    @property
    def pixels(self) -> LazyArray:
        return LazyArray(self)

    def read(self, rows: object = None) -> np.ndarray:
        raise AssertionError("not by batches")

    def batches(self, size: int) -> Iterator[np.ndarray]:
        for batch in super().batches(size):
            self.sizes.append(len(batch))
            yield batch


def in_memory(
    images: np.ndarray,
    labels: np.ndarray | None = None,
    ids: object = None,
    kind: type[InMemoryStore] = InMemoryStore,
) -> InMemoryStore:
    """A store of arrays; labels are 0 and ids count from 0 unless they are given."""
    return kind(
        images=images,
        labels=np.zeros(len(images), np.int64) if labels is None else np.asarray(labels),
        ids=np.arange(len(images)) if ids is None else np.asarray(ids),
    )
