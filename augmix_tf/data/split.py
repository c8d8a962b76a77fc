"""What a dataset is, wherever its pictures lie."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # it loads TensorFlow
    from augmix_tf.data.pictures import EncodedPictures


@dataclasses.dataclass(frozen=True)
class Split:
    """One split, in the official order.

    Attributes:
        images: uint8 [N, H, W, 3], RGB, C-contiguous, greyscale as three equal channels; or
            pictures that are decoded where they are looked at.
        labels: int64 [N], indices into the source's `class_names`.
        ids: int64 [N], rising: the example's number in the official order (CIFAR: from TFDS's
            field `id`, b"test_00042" is 42), for sets without numbered ids the place in the
            prepared files.
        left_out: which examples are missing because they could not be read, such as "2 of 40
            train records left out"; "" for none.
    """

    images: np.ndarray | EncodedPictures
    labels: np.ndarray
    ids: np.ndarray
    left_out: str = ""

    def part(self, rows: slice | np.ndarray) -> Split:
        """Some of the examples."""
        images = self.images
        chosen = images[rows] if isinstance(images, np.ndarray) else images.part(rows)
        return Split(chosen, self.labels[rows], self.ids[rows], self.left_out)

    def explained(self) -> contextlib.AbstractContextManager[None]:
        """Names the pictures that cannot be decoded where one stops the block that trains on it."""
        if isinstance(self.images, np.ndarray):
            return contextlib.nullcontext()
        return self.images.explained()

    def joined(self, other: Split) -> Split:
        """These examples and then the others, which are held in the same way."""
        mine, others = self.images, other.images
        if isinstance(mine, np.ndarray) or isinstance(others, np.ndarray):
            images: np.ndarray | EncodedPictures = np.concatenate([mine, others])
        else:
            images = mine.joined(others)
        return Split(
            images,
            np.concatenate([self.labels, other.labels]),
            np.concatenate([self.ids, other.ids]),
            left_out="; ".join(filter(None, (self.left_out, other.left_out))),
        )


@dataclasses.dataclass(frozen=True)
class Source:
    """A dataset to train on and to test on.

    Attributes:
        name: as it was asked for.
        train: the examples to train on.
        test: the examples to test on (TFDS's `validation` where there is no `test`).
        class_names: one per label.
        description: one line: what was read, and where.
    """

    name: str
    train: Split
    test: Split
    class_names: tuple[str, ...]
    description: str

    @property
    def num_classes(self) -> int:
        """How many classes labels tell apart."""
        return len(self.class_names)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of all images, in pixels."""
        return self.train.images.shape[1], self.train.images.shape[2]

    def without(self, left_out: str) -> Source:
        """Returns the source with a description that tells what was left out, "" for nothing."""
        description = "; ".join(filter(None, (self.description, left_out)))
        return dataclasses.replace(self, description=description)
