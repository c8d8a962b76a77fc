"""Datasets: the embedded one, those of TensorFlow Datasets (TFDS), and folders of images.

Images of one size are read into memory; those of varying sizes stay encoded on disk. All rows
come in the official order, so that "the first n examples" are the same ones wherever and however a
set was prepared: TFDS shuffles what it writes, and each version may do so differently.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from augmix_tf.data import EMBEDDED, FOLDER, tfds_sets
from augmix_tf.data.images import InMemoryStore, Source
from augmix_tf.errors import SettingError

_LAYOUT = "must hold train/<class>/* and val/<class>/* for dataset 'folder'"


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

    Args:
        name: "shapes" (embedded: nothing to prepare), an image classification set of TFDS, such as
            "cifar10", "emnist/letters", "cifar10:3.0.2" or "imagenet2012", or "folder".
        data_dir: where TFDS data are, or are to be prepared; None means TFDS's own place. For
            "folder" it has `train/<class>/*` and `val/<class>/*`; without a folder `train` there
            are no examples to train on.
        download: whether TFDS may download and prepare what is missing.
        train_limit, eval_limit: how many examples to take of a split, from the first in the
            official order; 0, or more than there are, takes all.
        skip_bad_examples: for "folder", decodes all training images once and leaves out those that
            cannot be read, up to half, and says so. The others keep ids and order.
        image_size: side of decoded images where the dataset's have varying sizes; else 0.
    """
    if name == FOLDER:
        place = Path(data_dir) if data_dir else None
        return _folder(place, train_limit, eval_limit, skip_bad_examples, image_size)
    if skip_bad_examples:
        problem = f"applies to dataset 'folder' only; received it with {name!r}."
        raise SettingError("skip_bad_examples", problem)
    if name == EMBEDDED:
        tfds_sets.require_one_size(name, image_size)
        return _shapes(train_limit, eval_limit)
    return tfds_sets.load(name, data_dir, download, train_limit, eval_limit, image_size)


def _shapes(train_limit: int, eval_limit: int) -> Source:
    from augmix_tf.data import shapes

    def draw(split: str, limit: int) -> InMemoryStore:
        images, labels = shapes.make(split)
        count = min(limit or len(images), len(images))
        ids = np.arange(count, dtype=np.int64)
        return InMemoryStore(images=images[:count], labels=labels[:count], ids=ids)

    train, test = draw("train", train_limit), draw("test", eval_limit)
    description = "shapes (embedded, drawn by this program)"
    return Source(EMBEDDED, train, test, shapes.CLASS_NAMES, description)


def _folder(
    place: Path | None, train_limit: int, eval_limit: int, skip_bad: bool, image_size: int
) -> Source:
    from augmix_tf.data import class_folders

    if place is None:
        raise SettingError("data_dir", f"{_LAYOUT}; received none.")
    if image_size <= 0:
        problem = f"must be above 0 for dataset 'folder'; received {image_size}."
        raise SettingError("image_size", problem)
    size, train_dir, val_dir = (image_size, image_size), place / "train", place / "val"
    if not val_dir.is_dir():
        folders = sorted(path.name for path in place.glob("[!.]*") if path.is_dir())
        contents = ", ".join([*folders[:3], *["..."] * (len(folders) > 3)]) or "no folders"
        raise SettingError("data_dir", f"{_LAYOUT}; received {place} with {contents}.")
    names = tuple(class_folders.classes(train_dir if train_dir.is_dir() else val_dir))
    test = class_folders.open_split(val_dir, names, size, eval_limit)
    if not train_dir.is_dir():
        description = f"images in folders ({place}, which has no folder train)"
        return Source(FOLDER, test.slice(slice(0, 0)), test, names, description)
    train = class_folders.open_split(train_dir, names, size, train_limit)
    train = train.for_training(f"images in {train_dir}", skip_bad)
    source = Source(FOLDER, train, test, names, f"images in folders ({place})")
    return source.with_note(train.left_out)
