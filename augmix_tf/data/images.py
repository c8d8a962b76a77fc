"""Images of a dataset with their labels, behind one interface wherever they are stored.

This module does not import TensorFlow, which takes seconds: many errors are found before.
"""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import sys
import zlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar, Self, TypeAlias

import numpy as np

from augmix_tf import errors

if TYPE_CHECKING:
    from augmix_tf.augment.crops import Crop

Rows: TypeAlias = slice | np.ndarray
"""Which examples: a slice, or integers [n]."""
ALL = slice(None)

SKIP = "set skip_bad_examples to leave them out"
TEST_IS_COMPLETE = (
    "test images are never left out, even with skip_bad_examples: "
    "the error would be that of other images"
)
_NAMED = 4


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class ImageStore(abc.ABC):
    """One split of a dataset, in the official order.

    `labels` int64 [N] are indices into the source's `class_names`. `ids` int64 [N], increasing, are
    numbers in the official order (CIFAR: from TFDS's field `id`, b"test_00042" is 42), or else
    positions in the prepared files. `left_out` says which examples are missing because they could
    not be read, such as "2 of 40 images left out".
    """

    _HELD: ClassVar[str]

    labels: np.ndarray
    ids: np.ndarray
    left_out: str = ""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def held(self) -> np.ndarray:
        """What is held in memory of each example, [N, ...]: pixels, or its place in files."""
        held: np.ndarray = getattr(self, self._HELD)
        return held

    @property
    @abc.abstractmethod
    def image_size(self) -> tuple[int, int]:
        """Height and width of the images that `read` returns, in pixels."""

    @property
    @abc.abstractmethod
    def crop(self) -> Crop:
        """The random crop for training: from rows of `held` to uint8 [n, H, W, 3]."""

    @property
    def pixels(self) -> np.ndarray | LazyArray:
        """The images that `read` returns, as an array or an array-like that reads slices."""
        return LazyArray(self)

    @abc.abstractmethod
    def read(self, rows: Rows = ALL) -> np.ndarray:
        """Returns images as evaluation sees them, uint8 [n, H, W, 3], or raises `FileError`."""

    @abc.abstractmethod
    def batches(self, size: int) -> Iterator[np.ndarray]:
        """Yields all images in order as `read` does, `size` at a time; the last are fewer."""

    def slice(self, rows: Rows) -> Self:
        """Returns a store of some of the examples; no image is read."""
        columns = ("labels", "ids", self._HELD)
        return dataclasses.replace(self, **{name: getattr(self, name)[rows] for name in columns})

    def joined(self, other: Self) -> Self:
        """Returns a store of these examples followed by those of `other`."""
        columns = {
            name: np.concatenate([getattr(self, name), getattr(other, name)])
            for name in ("labels", "ids", self._HELD)
        }
        left_out = "; ".join(filter(None, (self.left_out, other.left_out)))
        return dataclasses.replace(self, left_out=left_out, **columns)

    @property
    def digest(self) -> int:
        """A checksum that changes with the examples or their order, below 2^32."""
        return zlib.crc32(self.labels.tobytes(), zlib.crc32(self.ids.tobytes()))

    def unreadable_named(self) -> contextlib.AbstractContextManager[None]:
        """Within it, TensorFlow's errors about unreadable images become `FileError`s with names."""
        return contextlib.nullcontext()


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class InMemoryStore(ImageStore):
    """A split of `images` uint8 [N, H, W, 3], of one size and held in memory."""

    _HELD = "images"

    images: np.ndarray

    @property
    def image_size(self) -> tuple[int, int]:
        return self.images.shape[1], self.images.shape[2]

    @property
    def crop(self) -> Crop:
        """A crop of the zero-padded image, and a flip."""
        from augmix_tf.augment.crops import PaddedCrop

        return PaddedCrop()

    @property
    def pixels(self) -> np.ndarray:
        return self.images

    def read(self, rows: Rows = ALL) -> np.ndarray:
        return self.images[rows]

    def batches(self, size: int) -> Iterator[np.ndarray]:
        return (self.images[first : first + size] for first in range(0, len(self), size))


class LazyArray:
    """An array-like uint8 [N, H, W, 3] that reads the rows it is sliced for, for `corruptions`."""

    dtype = np.dtype(np.uint8)

    def __init__(self, store: ImageStore) -> None:
        self._store = store
        self.shape = len(store), *store.image_size, 3

    def __len__(self) -> int:
        return len(self._store)

    def __getitem__(self, rows: Rows) -> np.ndarray:
        return self._store.read(rows)


@dataclasses.dataclass(frozen=True)
class Source:
    """A dataset to train and to test on, and in one line what was read, and from where."""

    name: str
    train: ImageStore
    test: ImageStore
    class_names: tuple[str, ...]
    description: str

    def __post_init__(self) -> None:
        expected = "a dataset of at least 2 classes"
        errors.require(self.num_classes > 1, expected, f"{self.name} with {self.num_classes}")

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def image_size(self) -> tuple[int, int]:
        return self.train.image_size

    def with_note(self, note: str) -> Source:
        """Returns the source with `note` appended to its description, unless it is ""."""
        description = "; ".join(filter(None, (self.description, note)))
        return dataclasses.replace(self, description=description)


def cannot_read(unreadable: Mapping[str, str], total: int, what: str) -> str:
    """Returns a message that counts unreadable images (name -> why) and names the first few."""
    named = [f"{name} ({why})" for name, why in list(unreadable.items())[:_NAMED]]
    more = len(unreadable) - len(named)
    listed = ", ".join(named) + (f" and {more} more" if more else "")
    return f"cannot read {len(unreadable)} of {total} {what}: {listed}"


def leave_out(unreadable: Mapping[str, str], total: int, what: str) -> str:
    """Reports on stderr which images are left out, up to half; returns a note for provenance."""
    if not unreadable:
        return ""
    problem = cannot_read(unreadable, total, what)
    if 2 * len(unreadable) > total:
        raise errors.FileError(f"{problem}; more than half, so these are other or wrong data")
    print(f"{problem}; left out", file=sys.stderr, flush=True)
    return f"{len(unreadable)} of {total} {what} left out"
