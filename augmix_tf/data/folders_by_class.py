"""Images in one folder per class, as ImageNet is unpacked: found, labelled and ordered."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from augmix_tf.data.encoded_store import WHOLE_FILE, EncodedStore
from augmix_tf.data.folders import SUFFIXES
from augmix_tf.errors import ArgumentError, FileError, unknown_name

_OFFICIAL = re.compile(rb"ILSVRC2012_val_\d+\.")
_WANTED = f"images ({', '.join(SUFFIXES)})"


def class_names(folder: Path) -> tuple[str, ...]:
    """Returns the names of the sub-folders, sorted: label 0 is the first.

    Raises:
        ArgumentError: there is no such folder, or none in it.
        FileError: it cannot be read.
    """
    if not folder.is_dir():
        raise ArgumentError(f"Expected a folder with one folder per class; received {folder}")
    names = [name for name in _entries(folder) if (folder / name).is_dir()]
    if not names:
        raise ArgumentError(f"Expected one folder per class in {folder}; received none")
    return tuple(names)


def open_split(
    folder: Path,
    classes: Sequence[str] | None,
    image_size: tuple[int, int],
    limit: int = 0,
) -> EncodedStore:
    """Finds the images of `folder/<class>/`, without opening any.

    Files without an image's suffix are passed over and reported on stderr.

    Args:
        folder: with one folder per class; there may be some of the classes only.
        classes: the name of each label; None: the folders' own, sorted.
        image_size: (H, W) of decoded images.
        limit: how many to take from the first of the order of `official_order`; 0 takes all.

    Returns:
        A store in that order; `ids` are 0 to N - 1.

    Raises:
        ArgumentError: no such folder, a folder in it that is no class (with the nearest), or a
            folder without images.
        FileError: a folder cannot be read.
    """
    found = class_names(folder)
    label_of = {name: label for label, name in enumerate(found if classes is None else classes)}
    names: list[bytes] = []
    paths: list[bytes] = []
    labels: list[int] = []
    others: list[Path] = []
    for name in found:
        if name not in label_of:
            raise ArgumentError(f"{folder / name}: {unknown_name('class', name, label_of)}")
        shown = _entries(folder / name)
        files = [os.fsencode(name) for name in shown if _is_image(name)]
        others += [folder / name / other for other in shown if not _is_image(other)]
        if not files:
            raise ArgumentError(f"Expected {_WANTED} in {folder / name}; received none")
        place = os.fsencode(folder / name) + b"/"
        names += files
        paths += [place + file for file in files]
        labels += [label_of[name]] * len(files)
    if others:
        _say_passed_over(folder, others)
    given = np.array(labels, np.int64)
    rows = official_order(names, given)[: limit or len(names)]
    places = np.stack([rows, np.full(len(rows), WHOLE_FILE)], axis=1).astype(np.int64)
    return EncodedStore(
        files=np.array(paths),
        places=places,
        labels=given[rows],
        ids=np.arange(len(rows), dtype=np.int64),
        size=image_size,
    )


def official_order(names: Sequence[bytes], labels: np.ndarray) -> np.ndarray:
    """Returns the order in which "the first n" of some images are taken, int64 [N].

    ImageNet's validation images have numbered names, and that order mixes the classes. All
    others are taken in turn: the first of each class by its file's name, the second of each, ...

    Args:
        names: of the files.
        labels: int64 [N].
    """
    texts = np.array(names)
    if all(_OFFICIAL.match(name) for name in (min(names), max(names))):
        return np.argsort(texts, kind="stable")
    by_class = np.lexsort([texts, labels])
    counts = np.bincount(labels)
    starts = np.repeat(np.cumsum(counts) - counts, counts)
    turn = np.arange(len(labels)) - starts
    return by_class[np.lexsort([labels[by_class], turn])]


def _entries(folder: Path) -> list[str]:
    """What is in a folder and not hidden, sorted."""
    try:
        return sorted(name for name in os.listdir(folder) if _shown(name))
    except OSError as error:
        raise FileError(f"cannot read {folder}: {error.strerror or error}") from error


def _say_passed_over(folder: Path, others: Sequence[Path]) -> None:
    more = ", ..." if others[1:] else ""
    said = f"passed over {len(others)} in {folder} that are no {_WANTED}: {others[0]}{more}"
    print(said, file=sys.stderr, flush=True)


def _shown(name: str) -> bool:
    return not name.startswith(".")


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)
