"""Images of a dataset with their labels, behind one interface wherever they are stored.

This module does not import TensorFlow: it takes seconds to load, and many errors are found before.
"""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import re
import sys
import zlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Self, TypeAlias

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

    Attributes:
        labels: int64 [N], indices into the source's `class_names`.
        ids: int64 [N], increasing: the example's number in the official order (CIFAR: from TFDS's
            field `id`, b"test_00042" is 42); for datasets without numbered ids its position in the
            prepared files.
        left_out: which examples are missing because they could not be read, such as "2 of 40
            images left out"; "" for none.
    """

    labels: np.ndarray
    ids: np.ndarray
    left_out: str = ""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    @abc.abstractmethod
    def image_size(self) -> tuple[int, int]:
        """Height and width of the images that `read` returns, in pixels."""

    @property
    def pixels(self) -> np.ndarray | LazyArray:
        """The images that `read` returns, as an array or an array-like that reads slices."""
        return LazyArray(self)

    @property
    @abc.abstractmethod
    def held(self) -> np.ndarray:
        """What is held in memory of each example, [N, ...]: pixels, or its position in files."""

    @property
    @abc.abstractmethod
    def crop(self) -> Crop:
        """The random crop for training: from rows of `held` to uint8 [n, H, W, 3]."""

    @abc.abstractmethod
    def slice(self, rows: Rows) -> Self:
        """Returns a store of some of the examples; no image is read."""

    @abc.abstractmethod
    def joined(self, other: Self) -> Self:
        """Returns a store of these examples followed by those of `other`."""

    @abc.abstractmethod
    def read(self, rows: Rows = ALL) -> np.ndarray:
        """Returns images as evaluation sees them, uint8 [n, H, W, 3].

        Raises:
            FileError: an image cannot be read; names the file.
        """

    @abc.abstractmethod
    def batches(self, size: int) -> Iterator[np.ndarray]:
        """Yields all images in order as `read` returns them, `size` at a time; the last are fewer.

        Raises:
            FileError: an image cannot be read; names the file.
        """

    @property
    def digest(self) -> int:
        """A checksum that changes with the examples or their order, below 2^32."""
        return zlib.crc32(self.labels.tobytes(), zlib.crc32(self.ids.tobytes()))

    def unreadable_named(self) -> contextlib.AbstractContextManager[None]:
        """Within it, TensorFlow's errors about unreadable images become `FileError`s with names."""
        return contextlib.nullcontext()

    def _joined_columns(self, other: ImageStore) -> dict[str, Any]:
        return {
            "labels": np.concatenate([self.labels, other.labels]),
            "ids": np.concatenate([self.ids, other.ids]),
            "left_out": "; ".join(filter(None, (self.left_out, other.left_out))),
        }


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class InMemoryStore(ImageStore):
    """A split whose images have one size and are held in memory.

    Attributes:
        images: uint8 [N, H, W, 3], RGB; greyscale images have three equal channels.

    Raises:
        ArgumentError: `images` has another dtype or shape, or `labels` or `ids` are not N integers.
    """

    images: np.ndarray

    def __post_init__(self) -> None:
        shape, dtype = self.images.shape, self.images.dtype
        fits = dtype == np.uint8 and len(shape) == 4 and shape[3] == 3
        errors.require(fits, "images uint8 [N, H, W, 3]", f"{dtype} {shape}")
        for name, values in (("labels", self.labels), ("ids", self.ids)):
            fits = values.shape == shape[:1] and values.dtype.kind in "iu"
            expected = f"{name} [{shape[0]}] of integers"
            errors.require(fits, expected, f"{values.dtype} {values.shape}")

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of `images`."""
        return self.images.shape[1], self.images.shape[2]

    @property
    def pixels(self) -> np.ndarray:
        """`images`."""
        return self.images

    @property
    def held(self) -> np.ndarray:
        """`images`."""
        return self.images

    @property
    def crop(self) -> Crop:
        """A crop of the zero-padded image, and a flip."""
        from augmix_tf.augment.crops import PaddedCrop

        return PaddedCrop()

    def slice(self, rows: Rows) -> Self:
        """Returns a store of some of the examples."""
        return dataclasses.replace(
            self, images=self.images[rows], labels=self.labels[rows], ids=self.ids[rows]
        )

    def joined(self, other: Self) -> Self:
        """Returns a store of these examples followed by those of `other`."""
        images = np.concatenate([self.images, other.images])
        return dataclasses.replace(self, images=images, **self._joined_columns(other))

    def read(self, rows: Rows = ALL) -> np.ndarray:
        """Returns some of `images`."""
        return self.images[rows]

    def batches(self, size: int) -> Iterator[np.ndarray]:
        """Yields all images in order, `size` at a time."""
        return (self.images[first : first + size] for first in range(0, len(self), size))


class LazyArray:
    """Images of a store as an array-like uint8 [N, H, W, 3] that reads the rows it is sliced for.

    For functions of `augmix_tf.corruptions`, which know arrays and no stores.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, store: ImageStore) -> None:
        self._store = store

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, H, W, 3)."""
        return len(self._store), *self._store.image_size, 3

    def __len__(self) -> int:
        return len(self._store)

    def __getitem__(self, rows: Rows) -> np.ndarray:
        return self._store.read(rows)


@dataclasses.dataclass(frozen=True)
class Source:
    """A dataset to train and to test on.

    Attributes:
        name: the dataset's name as it was asked for.
        train: the examples to train on.
        test: the examples to test on (TFDS's `validation` where there is no `test`).
        class_names: one per label.
        description: what was read, and from where, in one line.
    """

    name: str
    train: ImageStore
    test: ImageStore
    class_names: tuple[str, ...]
    description: str

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of all images, in pixels."""
        return self.train.image_size

    def with_note(self, note: str) -> Source:
        """Returns the source with `note` appended to its description, unless it is ""."""
        description = "; ".join(filter(None, (self.description, note)))
        return dataclasses.replace(self, description=description)


def cannot_read(unreadable: Mapping[str, str], total: int, what: str) -> str:
    """Returns a message that counts unreadable images and names the first few.

    Args:
        unreadable: name -> why it cannot be read.
        total: number of all images.
        what: the images, in the plural.
    """
    return f"cannot read {len(unreadable)} of {total} {what}: {_named(unreadable)}"


def leave_out(unreadable: Mapping[str, str], total: int, what: str) -> str:
    """Reports on stderr which images are left out; arguments as for `cannot_read`.

    Returns:
        For the provenance, such as "3 of 8 images left out"; "" for none.

    Raises:
        FileError: more than half cannot be read.
    """
    if not unreadable:
        return ""
    if 2 * len(unreadable) > total:
        problem = cannot_read(unreadable, total, what)
        raise errors.FileError(f"{problem}; more than half, so these are other or wrong data")
    count = f"{len(unreadable)} of {total} {what}"
    text = f"left out {count}, which cannot be read: {_named(unreadable)}"
    print(text, file=sys.stderr, flush=True)
    return f"{count} left out"


def _named(unreadable: Mapping[str, str]) -> str:
    named = [f"{name} ({why})" for name, why in list(unreadable.items())[:_NAMED]]
    more = len(unreadable) - len(named)
    return ", ".join(named) + (f" and {more} more" if more else "")


def reason(error: BaseException) -> str:
    """Returns the line of a message from TFDS or TensorFlow that says what happened."""
    text = re.sub(r"^Failed to construct dataset .*?}\": ", "", str(error).strip())
    text = re.sub(r"{{.*?}} ?| ?\[Op:.*", "", text)  # TensorFlow's names of graph nodes
    line = next(iter(text.splitlines()), "").removesuffix(":") or type(error).__name__
    return line if len(line) <= 240 else line[:240] + "..."
