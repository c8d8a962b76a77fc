"""Where each example of a large split of TensorFlow Datasets (TFDS) lies, and its label.

Reads some bytes of each record and jumps over the images: a record is its length (uint64), a
checksum of that, the data and their checksum; the data are a `tf.train.Example`. Sources:
TensorFlow's guide "TFRecord and tf.train.Example", and the encoding of Protocol Buffers.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from augmix_tf import errors
from augmix_tf.data import folders_by_class
from augmix_tf.data.encoded_store import EncodedStore
from augmix_tf.data.tfds_files import AGAIN, require_labels

_HEADER, _CHECKSUM = 12, 4
_AT_A_TIME = 512  # bytes: usually all of a record but its image
_THREADS = 16


class _Found(NamedTuple):
    """What one file holds: of each record where it begins, its label and its file's name."""

    offsets: list[int]
    labels: list[int]
    names: list[bytes]


class _Wrong(Exception):  # noqa: N818 - it is no error of the program
    """The bytes are no labelled example."""


def open_split(
    builder: Any, split: str, image_size: tuple[int, int], limit: int = 0
) -> EncodedStore:
    """Finds the images of a prepared split, without decoding any.

    Args:
        builder: of prepared data in TFRecord files, with the features `image` and `label`.
        split: its name.
        image_size: (H, W) of decoded images.
        limit: how many to take from the first of the order of `folders_by_class.official_order`
            (by the feature `file_name`; without it by the place in the files); 0 takes all.

    Returns:
        A store in that order; `ids` are 0 to N - 1.

    Raises:
        ArgumentError: the labels are hidden.
        FileError: a file is missing or damaged, or of another format; names it.
    """
    info = builder.info.splits[split]
    kind = str(builder.info.file_format.value)
    if kind != "tfrecord":
        raise errors.FileError(f"{builder.data_path}: expected TFRecord files; received {kind}")
    paths = [os.fspath(path) for path in info.filepaths]
    if "://" in paths[0]:
        raise errors.FileError(
            f"Expected prepared data on a local disk; received {builder.data_path}"
        )
    with ThreadPoolExecutor(_THREADS) as pool:
        found = list(pool.map(_index, paths, info.shard_lengths))
    files = np.repeat(np.arange(len(paths)), [len(one.offsets) for one in found])
    offsets = np.array([offset for one in found for offset in one.offsets], np.int64)
    labels = np.array([label for one in found for label in one.labels], np.int64)
    names = [name for one in found for name in one.names]
    _check_labels(builder, split, labels)
    rows = np.arange(len(labels))
    if all(names):
        rows = folders_by_class.official_order(names, labels)
    rows = rows[: limit or len(rows)]
    return EncodedStore(
        files=np.array([os.fsencode(path) for path in paths]),
        places=np.stack([files, offsets], axis=1)[rows],
        labels=labels[rows],
        ids=np.arange(len(rows), dtype=np.int64),
        size=image_size,
    )


def _check_labels(builder: Any, split: str, labels: np.ndarray) -> None:
    classes = builder.info.features["label"].num_classes
    require_labels(builder, split, labels)
    wrong = labels[(labels < 0) | (labels >= classes)]
    if len(wrong):
        wanted = f"{builder.data_path}: expected labels of 0 to {classes - 1} in {split}"
        raise errors.FileError(f"{wanted}; received {wrong[0]}; {AGAIN}")


def _index(path: str, count: int) -> _Found:
    """Finds all records of a file."""
    found = _Found([], [], [])
    try:
        with open(path, "rb", buffering=0) as file:
            size, offset = os.fstat(file.fileno()).st_size, 0
            while offset < size:
                label, name, end = _record(file.fileno(), offset)
                if end > size:
                    raise _Wrong("the file ends in it")
                found.offsets.append(offset)
                found.labels.append(label)
                found.names.append(name)
                offset = end
    except OSError as error:
        reason = error.strerror or error
        raise errors.FileError(f"{path} cannot be read: {reason}; {AGAIN}") from error
    except _Wrong as error:
        where = f"record {len(found.offsets) + 1} of {count}"
        raise errors.FileError(f"{path} {where} is damaged: {error}; {AGAIN}") from error
    if len(found.offsets) != count:
        got = f"Expected {count} records in {path}; received {len(found.offsets)}"
        raise errors.FileError(f"{got}; {AGAIN}")
    return found


def _record(file: int, offset: int) -> tuple[int, bytes, int]:
    """Label and file name (b"" without) of the record at a byte, and the byte behind it."""
    read = _Window(file)
    header = read(offset, _HEADER)
    end = offset + _HEADER + int.from_bytes(header[:8], "little")
    label, name = None, b""
    # Example.features, which is all that an Example has; then one entry of the map after another.
    at, _ = _entered(read, offset + _HEADER)
    while at < end:
        entry, stop = _entered(read, at)
        key_start, key_stop = _entered(read, entry)
        key = read(key_start, min(key_stop - key_start, _AT_A_TIME))
        if key in (b"label", b"file_name"):
            # value: Feature, of which one list: of values (packed integers, or texts).
            values, values_stop = _entered(read, _entered(read, key_stop)[0])
            if key == b"label":
                label = _integer(read, values, values_stop)
            else:
                start, name_stop = _entered(read, values)
                name = read(start, min(name_stop - start, _AT_A_TIME))
        at = stop
    if label is None:
        raise _Wrong("no label")
    return label, name, end + _CHECKSUM


class _Window:
    """Bytes of a file by their places, fetched some hundred at a time."""

    def __init__(self, file: int) -> None:
        self._file = file
        self._start, self._bytes = 0, b""

    def __call__(self, start: int, count: int) -> bytes:
        first = start - self._start
        if first < 0 or first + count > len(self._bytes):
            self._start, first = start, 0
            self._bytes = os.pread(self._file, max(count, _AT_A_TIME), start)
        found = self._bytes[first : first + count]
        if len(found) < count:
            raise _Wrong("the file ends in it")
        return found


def _entered(read: _Window, at: int) -> tuple[int, int]:
    """Start and end of the contents of a field with a length, whose tag stands at a byte."""
    if read(at, 1)[0] & 7 != 2:
        raise _Wrong("no tf.train.Example")
    length, start = _varint(read, at + 1)
    return start, start + length


def _integer(read: _Window, at: int, stop: int) -> int:
    """The only number of an Int64List, packed or not."""
    if at == stop:
        raise _Wrong("no label")
    is_packed = read(at, 1)[0] & 7 == 2
    value, _ = _varint(read, _entered(read, at)[0] if is_packed else at + 1)
    return value - (1 << 64) if value >> 63 else value


def _varint(read: _Window, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, and the byte behind it."""
    value = 0
    for shift in range(0, 70, 7):
        byte = read(at, 1)[0]
        at += 1
        value |= (byte & 127) << shift
        if not byte & 128:
            return value, at
    raise _Wrong("no tf.train.Example")
