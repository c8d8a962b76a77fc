"""Datasets whose pictures have any size and stay encoded on disk."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np

from augmix_tf import checks
from augmix_tf.data import damage, folders_by_class, tfds_index
from augmix_tf.data.pictures import EncodedPictures
from augmix_tf.data.split import Source, Split
from augmix_tf.settings import FOLDER

_LAYOUT = "--data_dir with train/<class>/* and val/<class>/* for --dataset=folder"
# Of the schemes of remote places; where a path is made of one, a slash gets lost.
_REMOTE = re.compile(r"\w{2,}:/")


def folder(
    place: Path | None, train_limit: int, eval_limit: int, skip_bad: bool, image_size: int
) -> Source:
    """Finds the pictures of `place/train/<class>/` and `place/val/<class>/`.

    Arguments and errors are those of `sources.load`.
    """
    if place is None:
        raise checks.CommandError(f"want {_LAYOUT}, got none")
    remote = _REMOTE.match(str(place)) is not None
    checks.require(not remote, "a local folder as --data_dir of --dataset=folder", place)
    checks.require(image_size > 0, "--image_size above 0 for --dataset=folder", image_size)
    size, train, val = (image_size, image_size), place / "train", place / "val"
    checks.require(val.is_dir(), _LAYOUT, f"no folder {val}")
    names = folders_by_class.class_names(train if train.is_dir() else val)
    tested = Split(*folders_by_class.open_split(val, names, size, eval_limit))
    if not train.is_dir():
        said = f"pictures in folders ({place}, which has no folder train)"
        return Source(FOLDER, tested.part(slice(0, 0)), tested, names, said)
    opened = folders_by_class.open_split(train, names, size, train_limit)
    read = encoded_split(opened, f"pictures in {train}", skip_bad)
    source = Source(FOLDER, read, tested, names, f"pictures in folders ({place})")
    return source.without(read.left_out)


def prepared(
    builder: Any, limits: dict[str, int], image_size: int, skip_bad: bool
) -> tuple[Split, Split]:
    """Finds the pictures of two splits that TFDS prepared, the first one to train on.

    Args:
        builder: of TFDS.
        limits: split -> how many examples to take, 0 for all.
        image_size, skip_bad: as in `sources.load`.
    """
    size = (image_size, image_size)
    opened = [tfds_index.open_split(builder, name, size, n) for name, n in limits.items()]
    return encoded_split(opened[0], "train records", skip_bad), Split(*opened[1])


def encoded_split(
    opened: tuple[EncodedPictures, np.ndarray, np.ndarray], what: str, skip_bad: bool
) -> Split:
    """Makes a split of pictures, labels and ids.

    Args:
        opened: of `folders_by_class.open_split` or `tfds_index.open_split`.
        what: these are, in the plural, for messages.
        skip_bad: decodes all pictures and leaves out those for which that fails, up to half.
    """
    images = dataclasses.replace(opened[0], remedy=damage.OPTION)
    split = Split(images, *opened[1:])
    if not skip_bad:
        return split
    bad = images.damaged()
    left_out = damage.settle(list(bad.values()), len(images), what, skip=True)
    good = np.setdiff1d(np.arange(len(images)), list(bad)).astype(np.int64)
    return dataclasses.replace(split.part(good), left_out=left_out)
