"""Images of any size that stay encoded on disk and are decoded when they are needed."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import re
import zlib
from collections.abc import Callable, Iterator
from typing import Self

import numpy as np
import tensorflow as tf

from augmix_tf import errors
from augmix_tf.augment.crops import Crop, ResizedCrop
from augmix_tf.data import images, record_files
from augmix_tf.data.images import ALL, ImageStore, Rows
from augmix_tf.data.record_files import WHOLE_FILE
from augmix_tf.ops import decoding, formats

_READ_SIZE = 64
# TensorFlow's messages about a damaged, truncated or missing file.
_MESSAGE = re.compile(r"image|jpeg|png|gif|bmp|record|readfile|no such file|permission", re.I)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class EncodedStore(ImageStore):
    """A split whose images stay encoded in files.

    Evaluation sees the centre: the short side is resized to H * 256 / 224, then H x W pixels are
    cut out of the middle. Training reads the files and takes random windows (`crop`).
    """

    _HELD = "places"

    files: np.ndarray  # paths, bytes [F]
    places: np.ndarray  # int64 [N, 2]: the index of the file, and the place in it (`record_files`)
    size: tuple[int, int]  # (H, W) of decoded images
    remedy: str = images.TEST_IS_COMPLETE  # what to do about unreadable images

    @property
    def image_size(self) -> tuple[int, int]:
        return self.size

    @property
    def crop(self) -> Crop:
        return ResizedCrop(self.size, self.read_encoded)

    def joined(self, other: Self) -> Self:
        places = other.places + np.array([len(self.files), 0])
        store = super().joined(dataclasses.replace(other, places=places))
        files = np.array([*self.files.tolist(), *other.files.tolist()])
        remedy = self.remedy if self.remedy == other.remedy else ""
        return dataclasses.replace(store, files=files, remedy=remedy)

    def read(self, rows: Rows = ALL) -> np.ndarray:
        chosen = self.slice(rows)
        starts = range(0, len(chosen), _READ_SIZE)
        with self.unreadable_named():
            parts = [self._decode(chosen.places[i : i + _READ_SIZE]).numpy() for i in starts]
        return np.concatenate([np.empty((0, *self.size, 3), np.uint8), *parts])

    def batches(self, size: int) -> Iterator[np.ndarray]:
        """Decodes all images in order, on all cores, `size` at a time."""
        with self.unreadable_named():
            yield from self._decoded(self.places).batch(size).prefetch(2).as_numpy_iterator()

    @property
    def digest(self) -> int:
        """A checksum of labels, ids, names of files and folders, and the order; not of pixels."""
        # Files in different folders may have the same name, and the folder is the class.
        names = b"\n".join(b"/".join(path.split(b"/")[-2:]) for path in self.files.tolist())
        return zlib.crc32(self.places.tobytes(), zlib.crc32(names, super().digest))

    @contextlib.contextmanager
    def unreadable_named(self) -> Iterator[None]:
        """Names the unreadable images after an error about one; TensorFlow does not name it."""
        try:
            yield
        except tf.errors.OpError as error:
            unreadable = self.unreadable() if _MESSAGE.search(str(error)) else {}
            if not unreadable:
                raise
            problem = images.cannot_read(self._named(unreadable), len(self), "images")
            raise errors.FileError("; ".join(filter(None, (problem, self.remedy)))) from error

    def unreadable(self) -> dict[int, str]:
        """Decodes all images, on all cores, and returns row -> problem for those that fail."""

        def decode(row: tf.Tensor, place: tf.Tensor) -> tf.Tensor:
            with tf.control_dependencies([formats.decode(self.read_encoded(place))]):
                return tf.identity(row)

        dataset = tf.data.Dataset.from_tensor_slices(self.places).enumerate()
        dataset = dataset.map(decode, num_parallel_calls=tf.data.AUTOTUNE)
        good = list(dataset.ignore_errors().as_numpy_iterator())
        rows = np.setdiff1d(np.arange(len(self)), good).tolist()
        return {row: self._problem(row) for row in rows}

    def for_training(self, what: str, skip_unreadable: bool) -> Self:
        """Returns the store as of training images named `what`, perhaps without unreadable ones."""
        store = dataclasses.replace(self, remedy=images.SKIP)
        if not skip_unreadable:
            return store
        unreadable = store.unreadable()
        left_out = images.leave_out(self._named(unreadable), len(store), what)
        good = np.setdiff1d(np.arange(len(store)), list(unreadable)).astype(np.int64)
        return dataclasses.replace(store.slice(good), left_out=left_out)

    def read_encoded(self, place: tf.Tensor) -> tf.Tensor:
        """Returns the encoded image at a place, int64 [2], as string []."""
        path = tf.gather(self._paths, place[0])
        has_array_records = bool((self.places[:, 1] < WHOLE_FILE).any())
        return record_files.read_image(path, place[1], has_array_records)

    def file_name(self, row: int) -> str:
        number, place = self.places[row].tolist()
        path = os.fsdecode(self.files[number])
        if place == WHOLE_FILE:
            return path
        return f"{path} ({f'byte {place}' if place >= 0 else f'record {-1 - place}'})"

    def _named(self, unreadable: dict[int, str]) -> dict[str, str]:
        return {self.file_name(row): problem for row, problem in unreadable.items()}

    def _decoded(self, places: np.ndarray | tf.Tensor) -> tf.data.Dataset:
        short_side = decoding.short_side(self.size)

        def decode(place: tf.Tensor) -> tf.Tensor:
            return decoding.decode_centre(self.read_encoded(place), self.size, short_side)

        dataset = tf.data.Dataset.from_tensor_slices(places)
        return dataset.map(decode, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)

    @functools.cached_property
    def _decode(self) -> Callable[[np.ndarray], tf.Tensor]:
        """From places int64 [n, 2] to uint8 [n, H, W, 3]; traced once, unlike a new dataset."""

        @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.int64)])
        def decode(places: tf.Tensor) -> tf.Tensor:
            count = tf.shape(places, tf.int64)[0]
            return self._decoded(places).batch(count).get_single_element()

        return decode

    @functools.cached_property
    def _paths(self) -> tf.Tensor:
        with tf.init_scope():
            return tf.constant(self.files)

    def _problem(self, row: int) -> str:
        try:
            formats.decode(self.read_encoded(tf.constant(self.places[row])))
        except (tf.errors.OpError, ValueError) as error:
            return errors.first_line(error)
        return "cannot be read at times"
