"""A split of TensorFlow Datasets (TFDS), read record by record where its files are damaged."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from augmix_tf import errors
from augmix_tf.data import damage, tfds_files, tfrecord
from augmix_tf.data.damage import Bad
from augmix_tf.data.tfds_files import AGAIN


class _Place(NamedTuple):
    """A record, or the rest of a file.

    Attributes:
        place: in the prepared files, counted through all of them from 0.
        file: its path.
        where: the record's number in the file, from 1, for messages.
        lost: how many examples stand or fall with it.
        data: as stored; None for the rest of a file.
        problem: what is wrong, "" where nothing is.
    """

    place: int
    file: str
    where: str
    lost: int
    data: bytes | None
    problem: str


class _Wrong(Exception):  # noqa: N818 - it is no error of the program
    """A record is whole and yet no example."""


def read(
    builder: Any, split: str, limit: int, skip_bad: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray, str]:
    """Returns images, labels, ids and what was left out, as `images.InMemoryStore` has them.

    TFDS reads where all is well. What is left out changes neither ids nor order of the others;
    under a limit the next ones take the places.

    Args:
        builder: of prepared data.
        split: "train", or another, of which nothing is ever left out.
        limit: how many examples to take from the first; 0 takes all.
        skip_bad: whether training examples that cannot be read may be left out, up to half.

    Raises:
        ArgumentError: the labels are hidden.
        FileError: a file is missing or in a format of its own, or examples cannot be read.
    """
    try:
        return *tfds_files.read(builder, split, limit), ""
    except tfds_files.UnreadableError as error:
        unreadable = f"{builder.data_dir} cannot be read ({error}); {AGAIN}"
        _refuse_missing(builder, split)
        if str(builder.info.file_format.value) != "tfrecord":
            raise errors.FileError(unreadable) from error
        places, ids, bad = _scan(builder, split)
        if not bad:
            raise errors.FileError(unreadable) from error
    total = builder.info.splits[split].num_examples
    what = f"{split} records"
    whole = split != "train"
    left_out = damage.settle(bad, total, what, skip=skip_bad, whole=whole, remedy=AGAIN)
    rows = np.argsort(ids, kind="stable")[: limit or len(ids)]
    images, labels = _examples(builder, split, places[rows])
    return images, labels, ids[rows], left_out


def _refuse_missing(builder: Any, split: str) -> None:
    for path in builder.info.splits[split].filepaths:
        if not path.exists():
            raise errors.FileError(f"{path} is missing; {AGAIN}")


def _scan(builder: Any, split: str) -> tuple[np.ndarray, np.ndarray, list[Bad]]:
    """Places in the files and ids, int64 [N], of what can be read, and what cannot."""
    parse = _Parser(builder)
    places, texts, bad = [], [], []
    for record in _records(builder, split, check=True):
        try:
            if record.data is None or record.problem:
                raise _Wrong(record.problem)
            example = parse.fields(record.data)
            parse.image(example)
        except _Wrong as wrong:
            bad.append(Bad(record.file, str(wrong), record.where, record.lost))
            continue
        places.append(record.place)
        texts.append(example.number)
    found = np.array(places, np.int64)
    numbers = tfds_files.numbers(texts) if tfds_files.has_ids(builder) else None
    return found, found if numbers is None else numbers, bad


def _examples(builder: Any, split: str, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """uint8 [N, H, W, 3] and int64 [N] of the examples at `places` of the files, in that order."""
    parse = _Parser(builder)
    row_of = {int(place): row for row, place in enumerate(places)}
    images = np.empty((len(places), *parse.shape[:2], 3), np.uint8)
    labels = np.empty(len(places), np.int64)
    for record in _records(builder, split, check=False):
        row = row_of.get(record.place)
        if row is not None and record.data is not None:
            example = parse.fields(record.data)
            images[row] = parse.image(example)  # one grey channel spreads over three
            labels[row] = example.label
    return images, labels


def _records(builder: Any, split: str, check: bool) -> Iterator[_Place]:
    """All records of a split in the order of its files; what a file lacks comes as its rest."""
    info = builder.info.splits[split]
    first = 0
    for path, count in zip(info.filepaths, info.shard_lengths, strict=True):
        at = 0
        problem = f"the file ends after {{}} of {count} records"
        try:
            with path.open("rb") as file:
                for data, problem_here in tfrecord.read(file, check):
                    if at == count:
                        extra = f"{path} is damaged (holds more than its {count} examples)"
                        raise errors.FileError(f"{extra}; {AGAIN}")
                    if data is None:
                        problem = f"{problem_here}, and none behind it can be found"
                        break
                    where = f"record {at + 1} of {count}"
                    yield _Place(first + at, str(path), where, 1, data, problem_here)
                    at += 1
        except OSError as error:
            raise errors.FileError(f"{path} cannot be read: {error.strerror or error}") from error
        if at < count:
            where = f"from record {at + 1} of {count} on, the rest of the file"
            yield _Place(first + at, str(path), where, count - at, None, problem.format(at))
        first += count


class _Example(NamedTuple):
    image: bytes
    label: int
    number: bytes


class _Parser:
    """Makes examples of records and says what is wrong where that fails."""

    def __init__(self, builder: Any) -> None:
        features = builder.info.features
        self._image = features["image"]
        self._num_classes = features["label"].num_classes
        self._ids = tfds_files.has_ids(builder)
        self.shape = self._image.shape

    def fields(self, data: bytes) -> _Example:
        """Takes a record apart."""
        import tensorflow as tf

        try:
            fields = tf.train.Example.FromString(data).features.feature
        except Exception as error:  # protobuf's own class, which only protobuf has
            raise _Wrong("no tf.train.Example") from error
        image = _only("image", fields["image"].bytes_list.value)
        label = _only("label", fields["label"].int64_list.value)
        number = _only("id", fields["id"].bytes_list.value) if self._ids else b""
        if not 0 <= label < self._num_classes:
            raise _Wrong(f"label {label}, of {self._num_classes} classes")
        return _Example(image, label, number)

    def image(self, example: _Example) -> np.ndarray:
        """Decodes the image, uint8 [H, W, C]."""
        import tensorflow as tf

        try:
            pixels: np.ndarray = self._image.decode_example(example.image).numpy()
        except tf.errors.OpError as error:
            raise _Wrong("its image cannot be decoded") from error
        except ValueError as error:  # of the shape that TFDS holds it against
            raise _Wrong(f"its image is not {'x'.join(map(str, self.shape))}") from error
        return pixels


def _only(name: str, values: Any) -> Any:
    if len(values) != 1:
        raise _Wrong(f"{len(values)} values of {name!r}" if values else f"no {name!r}")
    return values[0]
