"""Files of TensorFlow Datasets (TFDS), TFRecord or ArrayRecord: the one place that knows both.

A record is a serialized `tf.train.Example`. In a TFRecord file it has its length (uint64) and a
checksum of that before it, and a checksum of its data behind it. The index of such a file reads
some bytes of each record and jumps over the images. The records of an ArrayRecord file are
compressed, so its index reads all of it.

Sources: TensorFlow's guide "TFRecord and tf.train.Example", and the encoding of Protocol Buffers.
"""

from __future__ import annotations

import functools
import mmap
import os
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

FORMATS = ("tfrecord", "array_record")

WHOLE_FILE = -1
"""Place of an image that is a file of its own. In a TFRecord file the place of a record is the byte
at which it begins, in an ArrayRecord file it is `-2 - n` of record number n."""

_HEADER, _CHECKSUM = 12, 4
_AT_A_TIME = 512  # bytes
_READERS = 512  # ArrayRecord files that are open at a time
_BATCH = 64


Entry: TypeAlias = tuple[int, int, bytes]
"""The place, label and file name (b"" without) of a record."""


class DamagedError(Exception):
    """A file is damaged; says where and how."""


def records(paths: Sequence[str], file_format: str) -> tf.data.Dataset:
    """Returns all records of some files, string [], one file after the other."""
    if file_format == "tfrecord":
        return tf.data.TFRecordDataset(paths)
    return tf.data.Dataset.from_generator(
        lambda: (record for path in paths for record in _array_records(path)),
        output_signature=tf.TensorSpec([], tf.string),
    )


def read_image(path: tf.Tensor, place: tf.Tensor, array_records: bool) -> tf.Tensor:
    """Returns the encoded image at a place in a file, string []; see `WHOLE_FILE`."""

    def in_tfrecord() -> tf.Tensor:
        # Buffered reading would fetch more than the record.
        variant = tf.raw_ops.TFRecordDatasetV2(
            filenames=path[None],
            compression_type="",
            buffer_size=tf.constant(0, tf.int64),
            byte_offsets=place[None],
        )
        dataset = tf.data.experimental.from_variant(variant, tf.TensorSpec([], tf.string))
        return _image(dataset.take(1).get_single_element())

    def in_array_record() -> tf.Tensor:
        return _image(tf.numpy_function(_array_record, [path, -2 - place], tf.string))

    def in_record() -> tf.Tensor:
        if not array_records:
            return in_tfrecord()
        return tf.cond(place < WHOLE_FILE, in_array_record, in_tfrecord)

    return tf.cond(place == WHOLE_FILE, lambda: tf.io.read_file(path), in_record)


def _image(record: tf.Tensor) -> tf.Tensor:
    spec = {"image": tf.io.FixedLenFeature([], tf.string)}
    return tf.io.parse_single_example(tf.ensure_shape(record, []), spec)["image"]


def index(path: str, count: int, file_format: str) -> list[Entry]:
    """Finds all records of a file in one of `FORMATS`, `count` of them, each with a label."""
    entries: list[Entry] = []
    try:
        for entry in _tfrecord_entries(path) if file_format == "tfrecord" else _array_entries(path):
            entries.append(entry)  # one by one: those before the damage count
    except DamagedError as error:
        raise DamagedError(f"record {len(entries) + 1} of {count}: {error}") from error
    if len(entries) != count:
        raise DamagedError(f"{len(entries)} instead of {count} records")
    return entries


# ArrayRecord


def _array_records(path: str) -> Iterator[bytes]:
    from array_record.python.array_record_module import ArrayRecordReader

    reader = ArrayRecordReader(path)
    count = reader.num_records()
    for first in range(0, count, _BATCH):
        yield from reader.read(first, min(first + _BATCH, count))


def _array_entries(path: str) -> Iterator[Entry]:
    os.stat(path)  # the reader of a missing file says that it has no records
    try:
        for number, record in enumerate(_array_records(path)):
            fields = tf.train.Example.FromString(record).features.feature
            label, name = fields["label"].int64_list.value, fields["file_name"].bytes_list.value
            if not label:
                raise DamagedError("no label")
            yield -2 - number, label[0], name[0] if name else b""
    # The reader raises RuntimeError, and protobuf has a class of its own.
    except (RuntimeError, ValueError, tf.errors.OpError) as error:
        raise DamagedError(str(error)) from error


def _array_record(path: bytes | np.ndarray, number: np.ndarray) -> bytes:
    """One record; called by TensorFlow, outside a graph with arrays [] only."""
    try:
        record: bytes = _source(np.asarray(path).item())[int(number)]
    except Exception as error:
        raise ValueError(f"cannot read record {number} of an ArrayRecord file: {error}") from error
    return record


@functools.lru_cache(_READERS)
def _source(path: bytes) -> Any:
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    return ArrayRecordDataSource([os.fsdecode(path)])


# TFRecord


def _tfrecord_entries(path: str) -> Iterator[Entry]:
    if not os.path.getsize(path):  # cannot be mapped
        return
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        data.madvise(mmap.MADV_RANDOM)
        offset = 0
        while offset < len(data):
            os.pread(file.fileno(), _AT_A_TIME, offset)
            end = offset + _HEADER + int.from_bytes(data[offset : offset + 8], "little")
            if end + _CHECKSUM > len(data):
                raise DamagedError("the file ends in it")
            label, name = _label_and_name(file.fileno(), data, offset + _HEADER, end)
            yield offset, label, name
            offset = end + _CHECKSUM


def _label_and_name(file: int, data: mmap.mmap, start: int, end: int) -> tuple[int, bytes]:
    """The label and the file name (b"" without) of an Example."""
    label, name = None, b""
    # Example.features, which is all that an Example has; then one entry of the map after another.
    at, _ = _contents(data, start)
    while at < end:
        # The threads wait for the disk together only outside Python, so not at a page of `data`.
        os.pread(file, _AT_A_TIME, at)
        entry, stop = _contents(data, at)
        key_start, key_stop = _contents(data, entry)
        key = data[key_start:key_stop]
        if key in (b"label", b"file_name"):
            # value: Feature, of which one list: of values (packed integers, or texts).
            values, values_stop = _contents(data, _contents(data, key_stop)[0])
            if key == b"file_name":
                name = data[slice(*_contents(data, values))]
            elif values < values_stop:
                is_packed = data[values] & 7 == 2
                at_value = _contents(data, values)[0] if is_packed else values + 1
                label, _ = _varint(data, at_value)
        at = stop
    if label is None:
        raise DamagedError("no label")
    return label - (1 << 64) if label >> 63 else label, name


def _contents(data: mmap.mmap, at: int) -> tuple[int, int]:
    """Start and end of the contents of a field with a length, whose tag stands at a byte."""
    if at >= len(data) or data[at] & 7 != 2:
        raise DamagedError("no tf.train.Example")
    length, start = _varint(data, at + 1)
    return start, start + length


def _varint(data: mmap.mmap, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, and the byte behind it."""
    value = 0
    for place, byte in enumerate(data[at : at + 10]):
        value |= (byte & 127) << 7 * place
        if not byte & 128:
            return value, at + place + 1
    raise DamagedError("no tf.train.Example")
