"""Time to index ImageNet's images, and to read one from the middle of a file.

The files are written to a temporary directory first. "From disk" means that they were dropped from
the page cache; in a virtual machine the host may still have them cached.
"""

from __future__ import annotations

import contextlib
import functools
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
import tensorflow as tf

from augmix_tf.data import class_folders, record_files
from augmix_tf.data.encoded_store import EncodedStore
from benchmarks import measure

Figures: TypeAlias = dict[str, float]
IMAGENET = 1_281_167  # training images
CLASSES = 100
SHARDS, THREADS = 8, 16
SIZE = (224, 224)


class Made(NamedTuple):
    """Files of the benchmark."""

    paths: list[Path]  # TFRecord files
    records: int  # in each of them
    folder: Path  # of empty image files, one subdirectory per class

    def forget(self) -> None:
        """Drops the TFRecord files from the page cache."""
        for path in self.paths:
            with path.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def states(self, run: Callable[[], Figures]) -> dict[str, Callable[[], Figures]]:
        """The same work with files from disk, and with cached ones."""

        def from_disk() -> Figures:
            self.forget()
            return run()

        return {"from disk": from_disk, "cached": run}


def write_records(path: Path, count: int, size: int) -> None:
    """Writes labelled examples of `size` random bytes as TFDS does; label i belongs to record i."""
    rng = np.random.default_rng(0)
    feature = tf.train.Feature
    with tf.io.TFRecordWriter(os.fspath(path)) as writer:
        for number in range(count):
            name = f"n01440764_{number}.JPEG".encode()
            features = {
                "image": feature(bytes_list=tf.train.BytesList(value=[rng.bytes(size)])),
                "label": feature(int64_list=tf.train.Int64List(value=[number])),
                "file_name": feature(bytes_list=tf.train.BytesList(value=[name])),
            }
            example = tf.train.Example(features=tf.train.Features(feature=features))
            writer.write(example.SerializeToString())


@contextlib.contextmanager
def made(records: int, size: int, files: int) -> Iterator[Made]:
    """Writes `SHARDS` TFRecord files with `records` each, and `files` images of `CLASSES`."""
    with tempfile.TemporaryDirectory() as place:
        paths, folder = [Path(place) / f"{i}.tfrecord" for i in range(SHARDS)], Path(place) / "val"
        for path in paths:
            write_records(path, records, size)
        for number in range(files):
            images = folder / f"n{number % CLASSES:08d}"
            images.mkdir(parents=True, exist_ok=True)
            (images / f"n{number:08d}_{number}.JPEG").touch()
        yield Made(paths, records, folder)


def figures(files: Made, rounds: int) -> dict[str, Figures]:
    """Seconds to index 10,000 images and, in proportion, all of ImageNet."""

    def timed(find: Callable[[], int]) -> Figures:
        start = time.perf_counter()
        count = find()
        seconds = (time.perf_counter() - start) / count
        return {"seconds_per_10000": 1e4 * seconds, "seconds_for_imagenet": IMAGENET * seconds}

    def folder() -> Figures:
        return timed(lambda: len(class_folders.open_split(files.folder, None, SIZE)))

    def records(threads: int) -> Figures:
        return timed(lambda: sum(map(len, index(files, threads))))

    sides = {"folder, names cached": folder}
    for threads in (1, THREADS):
        for state, run in files.states(functools.partial(records, threads)).items():
            sides[f"TFDS, {SHARDS} files, {threads} thread{'s'[: threads - 1]}, {state}"] = run
    return measure.interleaved(sides, rounds)


def index(files: Made, threads: int) -> list[list[record_files.Entry]]:
    """Indexes each file as `tfds_sets.open_split` does."""
    with ThreadPoolExecutor(threads) as pool:
        paths = [os.fspath(path) for path in files.paths]
        counts, formats = [files.records] * len(paths), ["tfrecord"] * len(paths)
        return list(pool.map(record_files.index, paths, counts, formats))


def shuffled(files: Made) -> EncodedStore:
    """All records in random order."""
    offsets = [[place for place, _, _ in entries] for entries in index(files, 1)]
    numbers = np.repeat(np.arange(len(offsets)), files.records)
    places = np.stack([numbers, np.concatenate(offsets)], axis=1).astype(np.int64)
    return EncodedStore(
        files=np.array([os.fsencode(path) for path in files.paths]),
        places=np.random.default_rng(0).permutation(places),
        labels=np.zeros(len(places), np.int64),
        ids=np.arange(len(places)),
        size=SIZE,
    )


def reading(files: Made, rounds: int) -> dict[str, Figures]:
    """Throughput and CPU time of reading records in random order, without decoding."""
    store = shuffled(files)
    dataset = tf.data.Dataset.from_tensor_slices(store.places)
    dataset = dataset.map(
        lambda place: tf.strings.length(store.read_encoded(place)),
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    sides = files.states(lambda: measure.timed(lambda: sum(1 for _ in dataset)))
    return measure.interleaved({f"records, {state}": run for state, run in sides.items()}, rounds)
