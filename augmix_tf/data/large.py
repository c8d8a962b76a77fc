"""Datasets whose images have any size and stay encoded on disk."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from augmix_tf.data import FOLDER, folders_by_class, tfds_index
from augmix_tf.data.encoded_store import EncodedStore
from augmix_tf.data.images import Source
from augmix_tf.errors import SettingError

_LAYOUT = "must hold train/<class>/* and val/<class>/* for dataset 'folder'"
# Schemes of remote paths. `pathlib` turns "//" into "/".
_REMOTE = re.compile(r"\w{2,}:/")


def folder(
    place: Path | None, train_limit: int, eval_limit: int, skip_bad: bool, image_size: int
) -> Source:
    """Finds the images of `place/train/<class>/` and `place/val/<class>/`.

    Arguments and errors are those of `sources.load`.
    """
    if place is None:
        raise SettingError("data_dir", f"{_LAYOUT}; received none.")
    if _REMOTE.match(str(place)):
        problem = f"must be a local directory for dataset 'folder'; received {place}."
        raise SettingError("data_dir", problem)
    if image_size <= 0:
        problem = f"must be above 0 for dataset 'folder'; received {image_size}."
        raise SettingError("image_size", problem)
    size, train_dir, val_dir = (image_size, image_size), place / "train", place / "val"
    if not val_dir.is_dir():
        raise SettingError("data_dir", f"{_LAYOUT}; received {place} without {val_dir}.")
    names = folders_by_class.class_names(train_dir if train_dir.is_dir() else val_dir)
    test = folders_by_class.open_split(val_dir, names, size, eval_limit)
    if not train_dir.is_dir():
        description = f"images in folders ({place}, which has no folder train)"
        return Source(FOLDER, test.slice(slice(0, 0)), test, names, description)
    train = folders_by_class.open_split(train_dir, names, size, train_limit)
    train = train.for_training(f"images in {train_dir}", skip_bad)
    source = Source(FOLDER, train, test, names, f"images in folders ({place})")
    return source.with_note(train.left_out)


def prepared(
    builder: Any, limits: dict[str, int], image_size: int, skip_bad: bool
) -> list[EncodedStore]:
    """Finds the images of splits that TFDS prepared, the first one to train on.

    Args:
        builder: of TFDS.
        limits: split -> how many examples to take, 0 for all.
        image_size, skip_bad: as in `sources.load`.
    """
    size = (image_size, image_size)
    train, *tests = (tfds_index.open_split(builder, name, size, n) for name, n in limits.items())
    return [train.for_training("train records", skip_bad), *tests]
