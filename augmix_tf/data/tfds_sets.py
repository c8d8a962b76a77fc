"""Sets of TensorFlow Datasets (TFDS): found or downloaded, checked, and read in official order."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import re
import socket
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from etils import epy

from augmix_tf import errors
from augmix_tf.data import EMBEDDED, IMAGENET
from augmix_tf.data.images import ImageStore, InMemoryStore, Source

with epy.lazy_imports():  # missing data are noticed before TensorFlow is loaded
    import tensorflow as tf
    import tensorflow_datasets as tfds

    from augmix_tf.data import class_folders, encoded_store, record_files

AGAIN = "remove the directory and prepare it again"
CONNECT_SECONDS = 5.0
_BATCH = 1000
_THREADS = 16
# Dataset, then perhaps a configuration and a version: "emnist/letters:3.1.0".
_NAME = re.compile(r"(\w+)(?:/([\w.+-]+))?(?::[\d.*]+)?")
_NUMBERED_ID = re.compile(rb"[A-Za-z_-]*(\d{1,18})")
_PORTS = {"http": 80, "https": 443, "ftp": 21}


def load(
    name: str,
    data_dir: str | os.PathLike[str] | None,
    download: bool,
    train_limit: int,
    eval_limit: int,
    image_size: int,
) -> Source:
    """Reads a set into memory, or finds its images where their sizes vary; see `sources.load`."""
    with _quiet():
        builder = open_builder(name, data_dir)
        varies = _check_features(name, builder.info.features, image_size)
        if not (builder.data_path / "dataset_info.json").exists():  # TFDS writes this file last
            _prepare(builder, name, download)
        # ImageNet's test labels are hidden.
        hidden = name.partition(":")[0] == IMAGENET
        test = "test" if "test" in builder.info.splits and not hidden else "validation"
        limits = {"train": train_limit, test: eval_limit}
        counts = {split: info.num_examples for split, info in builder.info.splits.items()}
        expected = "a dataset with the splits train and test (or validation)"
        complete = all(counts.get(split) for split in limits)
        errors.require(complete, expected, f"{name!r} with {', '.join(counts) or 'none'}")
        stores: list[ImageStore] = [
            open_split(builder, split, (image_size, image_size), limit)
            if varies
            else read_split(builder, split, limit)
            for split, limit in limits.items()
        ]
    dataset, _, version = builder.info.full_name.rpartition("/")
    label = builder.info.features["label"]
    return Source(
        name=name,
        train=stores[0],
        test=stores[1],
        # TFDS names the classes "0", "1", ... where the set has no names for them.
        class_names=tuple(label.int2str(index) for index in range(label.num_classes)),
        description=f"{dataset} {version} (TFDS, {builder.data_path})",
    )


def read_test(
    name: str, data_dir: str | os.PathLike[str] | None, image_size: tuple[int, int], limit: int
) -> tuple[InMemoryStore, tuple[str, ...], str]:
    """Reads the test images of a prepared set: images, names of the classes, and a description."""
    with _quiet():
        builder = open_builder(name, data_dir)
        is_prepared = (builder.data_path / "dataset_info.json").exists()
        errors.require(is_prepared, f"{name} in {builder.data_path}", "none; tfds.load prepares it")
        shape = _image_shape(name, builder.info.features)
        expected = f"images of {image_size[0]}x{image_size[1]}, the model's"
        errors.require(tuple(shape[:2]) == tuple(image_size), expected, f"{name} with {shape}")
        split = "test" if "test" in builder.info.splits else "validation"
        store = read_split(builder, split, limit)
    label = builder.info.features["label"]
    names = tuple(label.int2str(index) for index in range(label.num_classes))
    return store, names, f"{builder.info.full_name} (TFDS, {builder.data_path})"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps TFDS's remarks to itself: what a user must know comes as an error."""
    from absl import logging

    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(before)


def open_builder(name: str, root: str | os.PathLike[str] | None) -> Any:
    """The TFDS builder of `name`, prepared or not; no network is touched."""
    # Anything else would make TFDS import, or fetch, code of third parties.
    parts = _NAME.fullmatch(name)
    if parts is None:
        expected = "a dataset name such as 'shapes', 'cifar10' or 'emnist/letters:3.1.0'"
        raise errors.ArgumentError(f"Expected {expected}; received {name!r}.")
    try:
        return tfds.builder(name, data_dir=root)
    except tfds.core.DatasetNotFoundError as error:
        names = [EMBEDDED, *tfds.list_builders(with_community_datasets=False)]
        nearest = errors.nearest_name(parts[1].lower(), names)
        raise errors.ArgumentError(
            f"Unknown dataset {name!r}.{nearest} Known: {EMBEDDED}, and the {len(names) - 1} names "
            "of TensorFlow Datasets"
        ) from error
    except Exception as error:  # a set's own code may raise anything
        where = f" in {root}" if root else ""
        problem = f"cannot open dataset {name!r}{where}: {errors.first_line(error)}"
        dataset, config = parts.groups()
        configs = tfds.builder_cls(dataset).builder_configs if config else {}
        if config and config not in configs:
            nearest = errors.nearest_name(config, configs)
            raise errors.ArgumentError(f"{problem}.{nearest}") from error
        raise errors.FileError(problem) from error


def is_known(name: str) -> bool:
    """Whether TFDS has a dataset `name`, which may name a configuration or version."""
    parts = _NAME.fullmatch(name)
    return parts is not None and parts[1] in tfds.list_builders(with_community_datasets=False)


def _image_shape(name: str, features: Any) -> tuple[int | None, ...]:
    """Returns (H, W, C) and refuses all but uint8 images, grey or RGB, with one class each."""
    known = dict(features.items()) if isinstance(features, tfds.features.FeaturesDict) else {}
    image, label = known.get("image"), known.get("label")
    fits = isinstance(image, tfds.features.Image) and isinstance(label, tfds.features.ClassLabel)
    expected = "an image classification dataset (features image and label)"
    errors.require(fits, expected, f"{name!r} with {', '.join(sorted(known)) or features}")
    shape, dtype = image.shape, np.dtype(image.np_dtype)  # type: ignore[union-attr]
    fits = shape[-1] in (1, 3) and dtype == np.uint8
    errors.require(fits, "uint8 images with 1 or 3 channels", f"{name!r} with {dtype} {shape}")
    return shape


def _check_features(name: str, features: Any, image_size: int) -> bool:
    """Refuses an image size that does not fit; tells whether the sizes of images vary."""
    shape = _image_shape(name, features)
    varies = None in shape[:2]
    if varies and not image_size:
        problem = "must be 224 or another side for images of varying size; received 0 for"
        raise errors.SettingError("image_size", f"{problem} {name!r} with {shape}.")
    if not varies:
        require_one_size(name, image_size)
    return varies


def require_one_size(name: str, image_size: int) -> None:
    """Refuses an image size for a dataset whose images have one."""
    if image_size:
        problem = f"does not apply to {name}, whose images have one size; received {image_size}."
        raise errors.SettingError("image_size", problem)


def _prepare(builder: Any, name: str, download: bool) -> None:
    """Lets TFDS download and prepare what is missing, if it may and can."""
    root, place, full_name = builder.data_dir_root, builder.data_path, builder.info.full_name
    if place.exists():
        # TFDS would take it for prepared as well, and fail on it later.
        raise errors.FileError(f"{place} is incomplete (no dataset_info.json): {AGAIN}")
    missing = f"{full_name} is not in the data directory {root} (no {place})"
    code = f"import tensorflow_datasets as tfds; tfds.load({name!r}, data_dir={os.fspath(root)!r})"
    command = f'`python -c "{code}"`'
    if not download:
        raise errors.FileError(f"{missing}; prepare it with {command}, or allow the download")
    # The user brings the files of some sets; then TFDS needs no network, or says where they belong.
    problem = "" if builder.MANUAL_DOWNLOAD_INSTRUCTIONS else _unreachable(builder)
    if problem:
        problem = f"{missing} and cannot be downloaded: {problem}"
        raise errors.FileError(f"{problem}; where there is a network, prepare it with {command}")
    print(f"Downloading {full_name} to {root}", file=sys.stderr, flush=True)
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    try:
        # TFDS prints to stdout what has been announced on stderr.
        with contextlib.redirect_stdout(io.StringIO()):
            builder.download_and_prepare()
    except Exception as error:  # network, disk, or the set's own code: all beyond our power
        problem = f"cannot download and prepare {full_name}: {errors.first_line(error)}"
        raise errors.FileError(f"{problem}; try it apart with {command}") from error
    finally:
        tfds.enable_progress_bar()


def _unreachable(builder: Any) -> str:
    """Why the set's first host does not answer; "" if it does, or behind a proxy.

    Without a network, TFDS keeps trying for minutes.
    """
    url = urllib.parse.urlsplit(next(iter(builder.url_infos or ()), builder.info.homepage) or "")
    if urllib.request.getproxies() or url.scheme not in _PORTS:
        return ""
    address = str(url.hostname), url.port or _PORTS[url.scheme]
    try:
        socket.create_connection(address, timeout=CONNECT_SECONDS).close()
    except OSError as error:
        return f"no connection to {address[0]}:{address[1]} ({error.strerror or error})"
    return ""


# Prepared files


def read_split(builder: Any, split: str, limit: int) -> InMemoryStore:
    """Reads the first `limit` examples (0: all) of a split in the official order into memory."""
    with damage_named(builder, split):
        labels, ids = _labels_and_ids(builder, split)
        _check_labels(builder, split, labels)
        rows = np.argsort(ids, kind="stable")[: limit or len(ids)]
        try:
            images = _images(builder, split, rows)
        except MemoryError as error:
            advice = "a limit on the examples makes it smaller"
            raise errors.ArgumentError(f"{builder.info.full_name}: {error}; {advice}") from error
    return InMemoryStore(images=images, labels=labels[rows], ids=ids[rows])


def open_split(
    builder: Any, split: str, image_size: tuple[int, int], limit: int = 0
) -> encoded_store.EncodedStore:
    """Finds the images of a split, without decoding any.

    `limit` (0: none) takes the first in the order of `class_folders.official_order` by the feature
    `file_name`, without it by the place in the files. `ids` are 0 to N - 1.
    """
    paths, file_format = _files(builder, split)
    local = "://" not in paths[0]
    errors.require(local, "prepared data on a local disk", builder.data_path)

    def indexed(path: str, count: int) -> list[record_files.Entry]:
        try:
            return record_files.index(path, count, file_format)
        except (record_files.DamagedError, OSError) as error:
            why = getattr(error, "strerror", None) or error
            raise errors.FileError(f"{path} cannot be read ({why}); {AGAIN}") from error

    with ThreadPoolExecutor(_THREADS) as pool:
        files = list(pool.map(indexed, paths, builder.info.splits[split].shard_lengths))
    numbers = np.repeat(np.arange(len(paths)), [len(file) for file in files])
    places, classes, names = zip(*itertools.chain(*files), strict=True)
    labels = np.array(classes, np.int64)
    _check_labels(builder, split, labels)
    rows = class_folders.official_order(names, labels) if all(names) else np.arange(len(labels))
    rows = rows[: limit or len(rows)]
    return encoded_store.EncodedStore(
        files=np.array([os.fsencode(path) for path in paths]),
        places=np.stack([numbers, np.array(places, np.int64)], axis=1)[rows],
        labels=labels[rows],
        ids=np.arange(len(rows), dtype=np.int64),
        size=image_size,
        remedy=AGAIN,
    )


def examples(
    builder: Any, split: str, names: Sequence[str], paths: Sequence[str] = ()
) -> tf.data.Dataset:
    """Returns `names` of all examples of a split or some `paths`, in the order of the files."""
    every, file_format = _files(builder, split)
    types = {"image": tf.string, "label": tf.int64, "id": tf.string}
    spec = {name: tf.io.FixedLenFeature([], types[name]) for name in names}
    records = record_files.records(list(paths) or every, file_format)
    return records.map(lambda record: tf.io.parse_single_example(record, spec))


@contextlib.contextmanager
def damage_named(builder: Any, split: str) -> Iterator[None]:
    """Turns an error from reading a split into a `FileError` that names the damaged file."""
    try:
        yield
    except errors.FileError:
        raise
    # TensorFlow quotes the record in its message, whatever its bytes, and has no file name in it.
    except (tf.errors.OpError, OSError, UnicodeDecodeError) as error:
        problem = (
            _damaged_file(builder, split) or f"{builder.data_path}: {errors.first_line(error)}"
        )
        raise errors.FileError(f"{problem}; {AGAIN}") from error


def _damaged_file(builder: Any, split: str) -> str:
    """Reads all files of a split and names the first damaged one, with the problem; or ""."""
    for path, count in zip(
        _files(builder, split)[0], builder.info.splits[split].shard_lengths, strict=True
    ):
        if "://" not in path and not os.path.exists(path):
            return f"{path} is missing"
        dataset = examples(builder, split, ["image", *_columns(builder)], [path])
        dataset = dataset.map(lambda example: decoded(builder, example["image"]))
        found = 0
        try:
            for _ in dataset:
                found += 1
        except (tf.errors.OpError, UnicodeDecodeError) as error:
            why = "" if isinstance(error, UnicodeDecodeError) else f" ({errors.first_line(error)})"
            return f"{path} is damaged: record {found + 1} of {count} cannot be read{why}"
        if found != count:
            return f"{path} is damaged: {found} instead of {count} records"
    return ""


def decoded(builder: Any, image: tf.Tensor) -> tf.Tensor:
    """Decodes an image of a set as TFDS does, uint8 [H, W, C]."""
    feature = builder.info.features["image"]
    # TFDS only says what the shape is, and batches take any image with as many values.
    return tf.ensure_shape(feature.decode_example(image), feature.shape)


def _files(builder: Any, split: str) -> tuple[list[str], str]:
    file_format = str(builder.info.file_format.value)
    if file_format not in record_files.FORMATS:
        expected = " or ".join(record_files.FORMATS)
        problem = f"{builder.data_path}: expected files in {expected}; received {file_format}"
        raise errors.FileError(problem)
    return [os.fspath(path) for path in builder.info.splits[split].filepaths], file_format


def _check_labels(builder: Any, split: str, labels: np.ndarray) -> None:
    """Refuses labels out of range, and a split whose labels are hidden: TFDS writes -1 for all."""
    name, classes = builder.info.full_name, builder.info.features["label"].num_classes
    hidden = bool((labels == -1).all())
    errors.require(not hidden, "labelled images", f"{name!r} whose {split} labels are hidden")
    wrong = labels[(labels < 0) | (labels >= classes)]
    if len(wrong):
        expected = f"{builder.data_path}: expected labels of 0 to {classes - 1} in {split}"
        raise errors.FileError(f"{expected}; received {wrong[0]}; {AGAIN}")


def _columns(builder: Any) -> list[str]:
    """The features that are read beside the image: the label, and a text `id` if there is one."""
    feature = dict(builder.info.features.items()).get("id")
    return ["label", "id"] if feature is not None and feature.shape == () else ["label"]


def _labels_and_ids(builder: Any, split: str) -> tuple[np.ndarray, np.ndarray]:
    """int64 [N] each: labels and official numbers, in the order of the files."""
    names = _columns(builder)
    batches = list(examples(builder, split, names).batch(_BATCH).as_numpy_iterator())
    labels = np.concatenate([np.zeros(0, np.int64), *(batch["label"] for batch in batches)])
    expected = builder.info.splits[split].num_examples
    if len(labels) != expected:
        raise OSError(f"{len(labels)} instead of {expected} records")
    positions = np.arange(len(labels), dtype=np.int64)
    if "id" not in names:
        return labels, positions
    matches = [_NUMBERED_ID.fullmatch(text) for batch in batches for text in batch["id"]]
    ids = np.array([int(match[1]) for match in matches if match], np.int64)
    # Numbers that repeat (one count per class, say) are no official order.
    is_order = len(np.unique(ids)) == len(labels)
    return labels, ids if is_order else positions


def _images(builder: Any, split: str, rows: np.ndarray) -> np.ndarray:
    """uint8 [N, H, W, 3]: the images at `rows` of the files, in that order."""
    target = np.full(rows.max() + 1, -1, np.int64)
    target[rows] = np.arange(len(rows))
    targets = tf.constant(target)

    def decode(place: tf.Tensor, example: Mapping[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        return targets[place], decoded(builder, example["image"])

    # Decoding costs most, so it comes after leaving out what is not wanted.
    dataset = examples(builder, split, ["image"]).take(len(target)).enumerate()
    if len(rows) < len(target):
        dataset = dataset.filter(lambda place, _: targets[place] >= 0)
    dataset = dataset.map(decode, num_parallel_calls=tf.data.AUTOTUNE).batch(_BATCH).prefetch(2)

    images = np.empty((len(rows), *builder.info.features["image"].shape[:2], 3), np.uint8)
    for place, batch in dataset.as_numpy_iterator():
        images[place] = batch  # one grey channel spreads over three
    return images
