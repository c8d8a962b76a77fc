"""Images or videos in one folder per class: the only reader of such folders.

A class is a folder, and its name is compared after Unicode normalization (NFC), because file
systems store "é" in two ways. An image is a file with one of the suffixes of `ops.formats`; its
content tells its format. Hidden entries are ignored. Whatever else is in the folder of a class
(other files, folders, file names that are not UTF-8) is passed over, counted and reported.
"""

from __future__ import annotations

import dataclasses
import os
import re
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from augmix_tf import errors
from augmix_tf.data.encoded_store import EncodedStore
from augmix_tf.data.images import InMemoryStore, Source
from augmix_tf.data.record_files import WHOLE_FILE
from augmix_tf.errors import ArgumentError, FileError
from augmix_tf.ops import formats

IMAGES = formats.SUFFIXES
VIDEOS = (".mp4",)
_KINDS = {IMAGES: f"images ({', '.join(IMAGES)})", VIDEOS: "videos (.mp4)"}
_OFFICIAL = re.compile(rb"ILSVRC2012_val_\d+\.")
_WNID = re.compile(r"n\d{8}")


@dataclasses.dataclass(frozen=True)
class Listing:
    """The files of `<folder>/<class>/`."""

    files: dict[Path, list[str]]  # folder of a class -> names of its files, both sorted
    classes: tuple[str, ...]  # the name of each class, normalized
    passed_over: list[Path]  # what is no such file


def normalized(name: str) -> str:
    """Returns a class name as it is compared with others."""
    return unicodedata.normalize("NFC", name)


def classes(folder: Path) -> dict[str, Path]:
    """Returns the name of each class in `folder` -> its folder, sorted by name."""
    if not folder.is_dir():
        raise ArgumentError(f"Expected a folder with one folder per class; received {folder}")
    paths = [folder / entry.name for entry in _entries(folder) if entry.is_dir()]
    if not paths:
        raise ArgumentError(f"Expected one folder per class in {folder}; received none")
    by_name: dict[str, Path] = {}
    for path in paths:
        errors.require(_is_text(str(path)), "names of classes in UTF-8", ascii(str(path)))
        other = by_name.setdefault(normalized(path.name), path)
        expected = "names of classes that differ after Unicode normalization"
        errors.require(other is path, expected, f"{other} and {path.name}")
    return dict(sorted(by_name.items()))


def list_files(folder: Path, suffixes: tuple[str, ...] = IMAGES) -> Listing:
    """Lists the images or videos in the folders of all classes, without opening any."""
    paths = classes(folder)
    listing = Listing({}, tuple(paths), [])
    for path in paths.values():
        names = listing.files[path] = []
        for entry in _entries(path):
            fits = entry.name.lower().endswith(suffixes) and _is_text(entry.name)
            if fits and entry.is_file():
                names.append(entry.name)
            else:
                listing.passed_over.append(path / entry.name)
        names.sort()
    return listing


def report_passed_over(folder: Path, paths: Sequence[Path], suffixes: tuple[str, ...]) -> None:
    """Says on stderr how many entries of some listings are no images or videos."""
    if paths:
        first, more = ascii(str(min(paths)))[1:-1], ", ..." if paths[1:] else ""
        text = f"passed over {len(paths)} in {folder} that are no {_KINDS[suffixes]}: {first}{more}"
        print(text, file=sys.stderr, flush=True)


def open_split(
    folder: Path, classes: Sequence[str] | None, image_size: tuple[int, int], limit: int = 0
) -> EncodedStore:
    """Finds the images of `folder/<class>/`, without opening any, in `official_order`.

    `classes` has the name of each label; None takes the folders' own, sorted. There may be folders
    of some of the classes only. `limit` takes the first so many, 0 all. `ids` are 0 to N - 1.
    """
    listing, labels = _labelled(folder, classes)
    names = np.array([os.fsencode(name) for files in listing.files.values() for name in files])
    folders = np.array([os.fsencode(path) + b"/" for path in listing.files])
    counts = [len(files) for files in listing.files.values()]
    rows = official_order(names, labels)[: limit or len(names)]
    places = np.stack([rows, np.full(len(rows), WHOLE_FILE)], axis=1).astype(np.int64)
    return EncodedStore(
        files=np.char.add(np.repeat(folders, counts), names),
        places=places,
        labels=labels[rows],
        ids=np.arange(len(rows), dtype=np.int64),
        size=image_size,
    )


def read(folder: Path, like: Source) -> InMemoryStore:
    """Reads images into memory, in the size of `like`; ids count on from its training images."""
    listing, labels = _labelled(folder, like.class_names)
    paths = [path / name for path, names in listing.files.items() for name in names]
    images = (Image.fromarray(formats.read(path)) for path in paths)
    size, bilinear = like.image_size[::-1], Image.Resampling.BILINEAR
    return InMemoryStore(
        images=np.stack([np.asarray(image.resize(size, bilinear)) for image in images]),
        labels=labels,
        ids=int(like.train.ids[-1]) + 1 + np.arange(len(paths), dtype=np.int64),
    )


def official_order(names: np.ndarray | Sequence[bytes], labels: np.ndarray) -> np.ndarray:
    """Returns the order in which "the first n" of some images are taken, int64 [N].

    ImageNet's validation images have numbered names, and that order mixes the classes. All
    others are taken in turn: the first of each class by its file's name, the second of each, ...
    """
    texts = np.array(names)
    if all(_OFFICIAL.match(name) for name in (min(names), max(names))):
        return np.argsort(texts, kind="stable")
    by_class = np.lexsort([texts, labels])
    counts = np.bincount(labels)
    starts = np.repeat(np.cumsum(counts) - counts, counts)
    turn = np.arange(len(labels)) - starts
    return by_class[np.lexsort([labels[by_class], turn])]


def label_table(names: Iterable[str], class_names: Sequence[str]) -> dict[str, int]:
    """Returns class -> label of those classes of a benchmark that a model knows.

    Where the benchmark's classes are among the model's `class_names`, they are matched by name, and
    WordNet ids are, even if either has classes that the other lacks; otherwise by position.
    """
    names = [normalized(name) for name in names]
    known = {normalized(name): label for label, name in enumerate(class_names)}
    common = {name: known[name] for name in names if name in known}
    by_name = all(map(_WNID.fullmatch, known)) and all(map(_WNID.fullmatch, names))
    if len(common) == len(names) or (by_name and common):
        return common
    errors.require(not by_name, f"classes that the model knows ({class_names[0]}, ...)", names)
    count, expected = len(class_names), f"a set of the model's {len(class_names)} classes"
    errors.require(len(names) == count, expected, f"{len(names)} classes of other names")
    return {name: label for label, name in enumerate(names)}


def _labelled(folder: Path, classes: Sequence[str] | None) -> tuple[Listing, np.ndarray]:
    """Lists the images, each class with some, and returns their labels, int64 [N]."""
    listing = list_files(folder)
    known = listing.classes if classes is None else map(normalized, classes)
    label_of = {name: label for label, name in enumerate(known)}
    for name, (path, files) in zip(listing.classes, listing.files.items(), strict=True):
        if name not in label_of:
            raise ArgumentError(f"{path}: {errors.unknown_name('class', name, label_of)}")
        if not files:
            raise ArgumentError(f"Expected {_KINDS[IMAGES]} in {path}; received none")
    report_passed_over(folder, listing.passed_over, IMAGES)
    counts = [len(files) for files in listing.files.values()]
    labels = np.array([label_of[name] for name in listing.classes], np.int64)
    return listing, np.repeat(labels, counts)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise FileError(f"cannot read {folder}: {error.strerror or error}") from error


def _is_text(name: str) -> bool:
    return name.encode(errors="ignore") == os.fsencode(name)  # which has the bytes of the disk
