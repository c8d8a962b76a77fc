"""Datasets: the embedded one, those of TensorFlow Datasets (TFDS), and folders of images.

Images of one size are read into memory; those of varying sizes stay encoded on disk. All rows
come in the official order, so that "the first n examples" are the same ones wherever and however a
set was prepared: TFDS shuffles what it writes, and each version may do so differently.

TensorFlow and TFDS are imported only where they are needed; whether data are there, and whether
they can be used, is known before TensorFlow has been loaded.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from augmix_tf import errors
from augmix_tf.data import EMBEDDED, FOLDER, IMAGENET, salvage, tfds_download, tfds_files
from augmix_tf.data.images import ImageStore, InMemoryStore, Source

# Dataset, then perhaps a configuration and a version: "emnist/letters:3.1.0".
_NAME = re.compile(r"(\w+)(?:/([\w.+-]+))?(?::[\d.*]+)?")


def load(
    name: str,
    data_dir: str | os.PathLike[str] | None = None,
    download: bool = True,
    train_limit: int = 0,
    eval_limit: int = 0,
    skip_bad_examples: bool = False,
    image_size: int = 0,
) -> Source:
    """Reads a dataset into memory, or finds its images where their sizes vary.

    What would be downloaded is said on stderr beforehand. Without a network that ends within
    seconds, instead of the minutes for which TFDS keeps trying.

    Args:
        name: "shapes" (embedded: nothing to prepare), an image classification set of TFDS, such as
            "cifar10", "emnist/letters", "cifar10:3.0.2" or "imagenet2012", or "folder".
        data_dir: where TFDS data are, or are to be prepared; None means TFDS's own place. For
            "folder" it has `train/<class>/*` and `val/<class>/*`; without a folder `train` there
            are no examples to train on.
        download: whether TFDS may download and prepare what is missing.
        train_limit: how many examples to take of the train split, from the first in the official
            order; 0, or more than there are, takes all.
        eval_limit: the same for the test split.
        skip_bad_examples: leaves out what cannot be read of the train split, up to half of it, and
            says so on stderr and in the description. The others keep ids and order. Encoded
            images are all decoded once for it.
        image_size: side of decoded images where the dataset's have varying sizes; else 0.

    Raises:
        ArgumentError: no such dataset, one that cannot be held (varying image sizes without
            an `image_size`, too large for the memory) or that is not labelled images, or a negative
            limit.
        FileError: data are missing, unreadable or damaged, or could not be downloaded.
    """
    for limit, value in (("train_limit", train_limit), ("eval_limit", eval_limit)):
        errors.require(value >= 0, f"{limit} of 0 (all) or more", value)
    if name == EMBEDDED:
        _check_one_size(name, image_size)
        return _load_shapes(train_limit, eval_limit)
    if name == FOLDER:
        from augmix_tf.data import large

        place = Path(data_dir).expanduser() if data_dir else None
        return large.folder(place, train_limit, eval_limit, skip_bad_examples, image_size)
    root = os.path.expanduser(os.fspath(data_dir)) if data_dir else None
    with _quiet():
        builder = _open(name, root)
        varies = _check_features(name, builder.info.features, image_size)
        if not tfds_download.is_prepared(builder):
            tfds_download.prepare(builder, name, download)
        test = _test_split(name, builder)
        limits = {"train": train_limit, test: eval_limit}
        _check_splits(name, builder, limits, in_memory=not varies)
        dataset, _, version = builder.info.full_name.rpartition("/")
        if varies:
            from augmix_tf.data import large

            stores: list[ImageStore] = [
                *large.prepared(builder, limits, image_size, skip_bad_examples)
            ]
        else:
            stores = [
                _in_memory(*salvage.read(builder, "train", train_limit, skip_bad_examples)),
                _in_memory(*salvage.read(builder, test, eval_limit, False)),
            ]
        source = Source(
            name=name,
            train=stores[0],
            test=stores[1],
            class_names=_class_names(builder.info.features["label"]),
            description=f"{dataset} {version} (TFDS, {builder.data_path})",
        )
    return source.with_note(source.train.left_out)


def _in_memory(
    images: np.ndarray, labels: np.ndarray, ids: np.ndarray, left_out: str = ""
) -> InMemoryStore:
    return InMemoryStore(images=images, labels=labels, ids=ids, left_out=left_out)


def _load_shapes(train_limit: int, eval_limit: int) -> Source:
    from augmix_tf.data import shapes

    def draw(split: str, limit: int) -> InMemoryStore:
        images, labels = shapes.make(split)
        count = min(limit or len(images), len(images))
        return _in_memory(images[:count], labels[:count], np.arange(count, dtype=np.int64))

    train, test = draw("train", train_limit), draw("test", eval_limit)
    description = "shapes (embedded, drawn by this program)"
    return Source(EMBEDDED, train, test, shapes.CLASS_NAMES, description)


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


# Which dataset, and whether this reader can hold it


def _open(name: str, root: str | None) -> Any:
    """The TFDS builder of `name`, prepared or not; no network is touched."""
    # Anything else would make TFDS import, or fetch, code of third parties.
    wanted = "a dataset name such as 'shapes', 'cifar10' or 'emnist/letters:3.1.0'"
    errors.require(_NAME.fullmatch(name) is not None, wanted, repr(name))
    if root is not None:
        _check_directory(root)
    import tensorflow_datasets as tfds

    try:
        return tfds.builder(name, data_dir=root)
    except tfds.core.DatasetNotFoundError as error:
        raise errors.ArgumentError(_unknown_dataset(name)) from error
    except Exception as error:  # a set's own code may raise anything
        reason = tfds_files.reason(error)
        # Only of the configuration or version that was asked for can the name be guilty.
        unreadable = isinstance(error, json.JSONDecodeError | UnicodeDecodeError)
        variant = "/" in name or ":" in name
        if variant and isinstance(error, AssertionError | ValueError) and not unreadable:
            raise errors.ArgumentError(_unknown_variant(name, reason)) from error
        where = f" in {root}" if root else ""
        raise errors.FileError(f"cannot open dataset {name!r}{where}: {reason}") from error


def _check_directory(root: str) -> None:
    """Refuses what is there but cannot be looked into; a missing one may be made later."""
    if "://" in root or not os.path.lexists(root):
        return
    try:
        os.listdir(root)
    except OSError as error:
        reason = error.strerror or error
        raise errors.FileError(f"cannot read the data directory {root}: {reason}") from error


def _unknown_dataset(name: str) -> str:
    import tensorflow_datasets as tfds

    dataset = re.split("[/:]", name)[0]
    names = [EMBEDDED, *tfds.list_builders(with_community_datasets=False)]
    return (
        f"Unknown dataset {name!r}.{errors.nearest_name(dataset.lower(), names)} "
        f"Known: {EMBEDDED}, and the {len(names) - 1} names of TensorFlow Datasets"
    )


def _unknown_variant(name: str, reason: str) -> str:
    """What to say of a configuration or a version that a known dataset does not have."""
    import tensorflow_datasets as tfds

    match = _NAME.fullmatch(name)
    dataset, config = match.groups() if match else (name, None)
    configs = tfds.builder_cls(dataset).builder_configs
    if config is None or config in configs:
        return f"dataset {name!r}: {reason}"
    if not configs:
        return f"dataset {dataset!r} has no configurations; received {name!r}"
    return f"Unknown configuration {config!r} of {dataset!r}.{errors.nearest_name(config, configs)}"


def _check_one_size(name: str, image_size: int) -> None:
    if image_size:
        problem = f"does not apply to {name}, whose images have one size; received {image_size}."
        raise errors.SettingError("image_size", problem)


def _check_features(name: str, features: Any, image_size: int) -> bool:
    """Refuses all but uint8 images, grey or RGB, with one class each; tells whether sizes vary."""
    import tensorflow_datasets as tfds

    known = dict(features.items()) if isinstance(features, tfds.features.FeaturesDict) else {}
    image, label = known.get("image"), known.get("label")
    if not isinstance(image, tfds.features.Image) or not isinstance(
        label, tfds.features.ClassLabel
    ):
        found = ", ".join(sorted(known)) or type(features).__name__
        raise errors.ArgumentError(
            f"Expected an image classification dataset (features image and label), "
            f"received {name!r} with {found}"
        )
    varies = None in image.shape[:2]
    if varies and not image_size:
        raise errors.SettingError(
            "image_size",
            f"must be 224 or another side for images of varying size; received {image_size} for "
            f"{name!r} with {image.shape}.",
        )
    if not varies:
        _check_one_size(name, image_size)
    fits = image.shape[-1] in (1, 3) and image.np_dtype == np.uint8
    wanted = "uint8 images with 1 or 3 channels"
    errors.require(fits, wanted, f"{name!r} with {np.dtype(image.np_dtype)} {image.shape}")
    return varies


def _test_split(name: str, builder: Any) -> str:
    # ImageNet's test labels are hidden.
    hidden = name.partition(":")[0] == IMAGENET
    return "test" if "test" in builder.info.splits and not hidden else "validation"


def _check_splits(name: str, builder: Any, limits: dict[str, int], in_memory: bool) -> None:
    """Refuses a set that lacks a split of `limits`, or that exceeds the memory under them."""
    splits = builder.info.splits
    missing = [key for key in limits if key not in splits or not splits[key].num_examples]
    if missing:
        wanted = "a dataset with the splits train and test (or validation)"
        raise errors.ArgumentError(
            f"Expected {wanted}; received {name!r} with {', '.join(splits) or 'none'}"
        )
    if not in_memory:
        return
    height, width, _ = builder.info.features["image"].shape
    counts = {split: splits[split].num_examples for split in limits}
    rows = sum(min(limit or counts[split], counts[split]) for split, limit in limits.items())
    needed, memory = rows * height * width * 3, _memory_bytes()
    if needed > memory:
        raise errors.ArgumentError(
            f"Expected a dataset that fits into memory ({memory / 2**30:.1f} GiB); received "
            f"{name!r} "
            f"with {needed / 2**30:.1f} GiB of images; a limit on the examples makes it smaller"
        )


def _memory_bytes() -> float:
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, OSError, ValueError):  # not every system tells
        return float("inf")


def _class_names(label: Any) -> tuple[str, ...]:
    # TFDS names the classes "0", "1", ... where the set has no names for them.
    return tuple(label.int2str(index) for index in range(label.num_classes))
