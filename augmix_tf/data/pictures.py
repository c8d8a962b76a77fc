"""Large pictures that stay encoded on disk and are decoded where they are needed."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import re
import sys
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from augmix_tf import checks
from augmix_tf.data import damage, tfds_files
from augmix_tf.data.damage import Bad
from augmix_tf.ops import encoded

WHOLE_FILE = -1
_AT_A_TIME = 64
_MANY = 10_000  # pictures that are not decoded within seconds
# What TensorFlow raises of a file that is damaged, cut off or gone, and words of such errors: much
# else raises the same.
_WORDS = re.compile(r"image|jpeg|png|gif|bmp|record|readfile|no such file|permission", re.I)
_UNREADABLE = (
    tf.errors.InvalidArgumentError,
    tf.errors.NotFoundError,
    tf.errors.DataLossError,
    tf.errors.OutOfRangeError,
    tf.errors.PermissionDeniedError,
    UnicodeDecodeError,  # in place of its message, where that has a name that is no text
)


@dataclasses.dataclass(frozen=True, eq=False)
class EncodedPictures:
    """N pictures in files, in a certain order; as an array they are uint8 [N, H, W, 3].

    `pictures[rows]` decodes, as testing sees them: the short side resized to H * 256 / 224, the
    middle cut out. Training reads the files by `read` and takes windows of its own.

    Attributes:
        files: their paths, bytes [F].
        places: int64 [N, 2]: number of the file; where in it the picture's record of TensorFlow
            Datasets begins, or `WHOLE_FILE`.
        image_size: (H, W) that is decoded.
        remedy: what can be done about pictures that cannot be decoded, for messages.
    """

    files: np.ndarray
    places: np.ndarray
    image_size: tuple[int, int]
    remedy: str = damage.TEST_IS_WHOLE

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __len__(self) -> int:
        return len(self.places)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, H, W, 3)."""
        return len(self.places), *self.image_size, 3

    @property
    def digest(self) -> int:
        """A number that other files, or another order of them, would not give."""
        # With the folder, which is the class: files may be called the same in each.
        names = b"\n".join(b"/".join(path.split(b"/")[-2:]) for path in self.files.tolist())
        return zlib.crc32(self.places.tobytes(), zlib.crc32(names))

    def part(self, rows: slice | np.ndarray) -> EncodedPictures:
        """Some of the pictures, still encoded."""
        return dataclasses.replace(self, places=self.places[rows])

    def joined(self, other: EncodedPictures) -> EncodedPictures:
        """These pictures and then the others."""
        moved = other.places + np.array([len(self.files), 0])
        files = np.array([*self.files.tolist(), *other.files.tolist()])
        places = np.concatenate([self.places, moved])
        return dataclasses.replace(self, files=files, places=places)

    def __getitem__(self, rows: int | slice | np.ndarray) -> np.ndarray:
        """Decodes some pictures, uint8 [..., H, W, 3].

        Raises:
            RunError: one cannot be decoded; names the file.
        """
        if isinstance(rows, int | np.integer):
            return self[np.array([rows])][0]
        chosen = self.part(rows)
        parts = range(0, len(chosen), _AT_A_TIME)
        with chosen.explained():
            made = [self._decoded(chosen.places[i : i + _AT_A_TIME]).numpy() for i in parts]
        return np.concatenate([np.empty((0, *self.shape[1:]), np.uint8), *made])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """All of them decoded: N * H * W * 3 bytes."""
        return np.asarray(self[:], dtype)

    def arrays(self, size: int) -> Iterator[np.ndarray]:
        """All pictures in order, uint8 [n, H, W, 3], `size` at a time and then the rest.

        Raises:
            RunError: one cannot be decoded; names the file.
        """
        with self.explained():
            yield from self.batches(size).as_numpy_iterator()

    def batches(self, size: int) -> tf.data.Dataset:
        """The same as a dataset of tensors, decoded on all cores."""
        return self._decoding(self.places).batch(size).prefetch(2)

    def _decoding(self, places: np.ndarray | tf.Tensor) -> tf.data.Dataset:
        short_side = encoded.short_side(self.image_size)

        def decode(place: tf.Tensor) -> tf.Tensor:
            return encoded.decode_centre(self.read(place), self.image_size, short_side)

        dataset = tf.data.Dataset.from_tensor_slices(places)
        return dataset.map(decode, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)

    @functools.cached_property
    def _decoded(self) -> Callable[[np.ndarray], tf.Tensor]:
        """From places int64 [n, 2] to uint8 [n, H, W, 3]; traced once, unlike a new dataset."""

        @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.int64)])
        def decoded(places: tf.Tensor) -> tf.Tensor:
            count = tf.shape(places, tf.int64)[0]
            return self._decoding(places).batch(count).get_single_element()

        return decoded

    def read(self, place: tf.Tensor) -> tf.Tensor:
        """Returns the encoded picture at a place, int64 [2], as string []."""
        path = tf.gather(self._paths, place[0])
        return tf.cond(
            place[1] == WHOLE_FILE,
            lambda: tf.io.read_file(path),
            lambda: _image_of_record(path, place[1]),
        )

    def name(self, row: int) -> str:
        """The file of a picture, for messages."""
        number, offset = self.places[row].tolist()
        path = os.fsdecode(self.files[number])
        return path if offset == WHOLE_FILE else f"{path} (record at byte {offset})"

    @functools.cached_property
    def _paths(self) -> tf.Tensor:
        with tf.init_scope():
            return tf.constant(self.files)

    @contextlib.contextmanager
    def explained(self) -> Iterator[None]:
        """Names the pictures that cannot be decoded where one stops the block.

        Raises:
            RunError: there are such pictures. TensorFlow's errors have no names: all pictures are
                decoded to find them.
        """
        try:
            yield
        except _UNREADABLE as error:
            unnamed = isinstance(error, UnicodeDecodeError)
            bad = self.damaged() if unnamed or _WORDS.search(str(error)) else {}
            if not bad:
                raise
            refusal = damage.refusal(list(bad.values()), len(self), "pictures")
            raise checks.RunError(f"{refusal}; {self.remedy}") from error

    def damaged(self) -> dict[int, Bad]:
        """Decodes all pictures, on all cores, and returns row -> what is wrong where that fails.

        Of a million pictures that takes hours of one core; it is said on stderr beforehand.
        """
        if len(self) > _MANY:
            said = f"decoding all {len(self):,} pictures, to find those that cannot be read"
            print(said, file=sys.stderr, flush=True)

        def decode(row: tf.Tensor, place: tf.Tensor) -> tf.Tensor:
            with tf.control_dependencies([encoded.decode(self.read(place))]):
                return tf.identity(row)

        dataset = tf.data.Dataset.from_tensor_slices(self.places).enumerate()
        dataset = dataset.map(decode, num_parallel_calls=tf.data.AUTOTUNE)
        good = list(dataset.ignore_errors().as_numpy_iterator())
        return {row: self._bad(row) for row in np.setdiff1d(np.arange(len(self)), good).tolist()}

    def _bad(self, row: int) -> Bad:
        try:
            encoded.decode(self.read(tf.constant(self.places[row])))
        except tf.errors.OpError as error:
            return Bad(self.name(row), tfds_files.reason(error))
        except UnicodeDecodeError:
            return Bad(self.name(row), "cannot be opened")
        return Bad(self.name(row), "cannot be read at times")


def _image_of_record(path: tf.Tensor, offset: tf.Tensor) -> tf.Tensor:
    """The field `image` of the example that begins at a byte of a TFRecord file, string []."""
    # Buffered reading would fetch more than the record.
    records = tf.raw_ops.TFRecordDatasetV2(
        filenames=path[None],
        compression_type="",
        buffer_size=tf.constant(0, tf.int64),
        byte_offsets=offset[None],
    )
    dataset = tf.data.experimental.from_variant(records, tf.TensorSpec([], tf.string))
    record = dataset.take(1).get_single_element()
    return tf.io.parse_single_example(record, {"image": tf.io.FixedLenFeature([], tf.string)})[
        "image"
    ]
