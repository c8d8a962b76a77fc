"""Trees of ImageNet-C and ImageNet-P: one folder a class, in the order of the official names."""

from __future__ import annotations

import collections
import os
import re
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from augmix_tf import errors
from augmix_tf.data import damage
from augmix_tf.ops import decoding

# The archives that the sets were published in; unpacked, each may be a folder of its own.
GROUPS = ("blur", "digital", "noise", "weather", "extra", "validation")
IMAGES = frozenset({".jpeg", ".jpg", ".png"})
VIDEOS = frozenset({".mp4"})
CROPS = ("canonical", "reference")
_WNID = re.compile(r"n\d{8}")


def find(place: Path, names: Sequence[str]) -> dict[str, Path]:
    """Returns the folders of those `names` that are there, right in `place` or in a group."""
    found = {}
    for name in names:
        places = (place / name, *(place / group / name for group in GROUPS))
        folder = next((folder for folder in places if folder.is_dir()), None)
        if folder is not None:
            found[name] = folder
    return found


def listing(folder: Path, suffixes: frozenset[str]) -> tuple[str, ...]:
    """Returns the files `<class>/<file>` in `folder`, by the names of the files.

    ImageNet's validation files are numbered in the official order, which mixes the classes: the
    first n files are a fair sample.

    Raises:
        FileError: the folder cannot be read.
    """
    found: list[tuple[str, str]] = []
    try:
        classes = [entry for entry in os.scandir(folder) if entry.is_dir()]
        for kind in classes:
            names = (file.name for file in os.scandir(kind.path))
            wanted = (name for name in names if os.path.splitext(name)[1].lower() in suffixes)
            found += [(name, kind.name) for name in wanted if not name.startswith(".")]
    except OSError as error:
        raise errors.FileError(f"cannot read {error.filename}: {error.strerror}") from error
    # Each file comes once for every corruption and severity: they share one text.
    return tuple(sys.intern(f"{kind}/{name}") for name, kind in sorted(found))


def class_of(file: str) -> str:
    """Returns the class of a file of `listing`."""
    return file.partition("/")[0]


def label_table(
    names: Sequence[str], num_classes: int, class_names: Sequence[str] | None
) -> dict[str, int]:
    """Returns class -> label of those classes of a set that a model knows.

    Args:
        names: the classes of the set, in its order.
        num_classes: that the model tells apart.
        class_names: of the model; where the set's are among them they are matched by name, so
            that either may have classes that the other lacks.

    Raises:
        ArgumentError: the classes cannot be matched.
    """
    if class_names is not None:
        known = {name: label for label, name in enumerate(class_names)}
        common = {name: known[name] for name in names if name in known}
        by_name = all(map(_WNID.fullmatch, class_names)) and all(map(_WNID.fullmatch, names))
        if len(common) == len(names) or (by_name and common):
            return common
        errors.require(not by_name, f"classes that the model knows ({class_names[0]}, ...)", names)
    wanted = f"a set of the model's {num_classes} classes"
    errors.require(len(names) == num_classes, wanted, f"{len(names)} classes of other names")
    return {name: label for label, name in enumerate(names)}


def read_image(path: Path, image_size: tuple[int, int], crop: str) -> np.ndarray:
    """Returns one image, uint8 [H, W, 3].

    Args:
        path: a JPEG or PNG.
        image_size: (H, W) that is cut out of the centre.
        crop: "canonical": the image as it is. "reference": enlarged before by 256 / 224, as
            the public AugMix script does, whose numbers on ImageNet-C this reproduces.

    Raises:
        FileError: the image is damaged or too small; names the file.
    """
    try:
        with Image.open(path) as file:
            image = file.convert("RGB")
    # Beside OSError each format's decoder has errors of its own.
    except Exception as error:
        problem = f"{path}: expected an image; received a damaged file ({error})"
        raise errors.FileError(f"{problem}; {damage.TEST_IS_WHOLE}") from error
    if crop == "reference":
        image = _enlarged(image, decoding.short_side(image_size))
    return centre(np.asarray(image), image_size, path)


def _enlarged(image: Image.Image, short_side: int) -> Image.Image:
    """Bilinear, so that the short side becomes `short_side`; the other one is cut down."""
    shortest = min(image.size)
    width, height = (side * short_side // shortest for side in image.size)
    return image.resize((width, height), Image.Resampling.BILINEAR)


def centre(pixels: np.ndarray, image_size: tuple[int, int], path: Path) -> np.ndarray:
    """Cuts (H, W) out of the centre of [..., H', W', 3].

    Raises:
        FileError: there is less; names the file.
    """
    sides = pixels.shape[-3:-1]
    if sides[0] < image_size[0] or sides[1] < image_size[1]:
        wanted = f"{image_size[0]}x{image_size[1]} pixels or more"
        raise errors.FileError(f"{path}: expected {wanted}; received {sides[0]}x{sides[1]}")
    top, left = (round((side - want) / 2) for side, want in zip(sides, image_size, strict=True))
    return pixels[..., top : top + image_size[0], left : left + image_size[1], :]


def read_ahead(
    paths: Sequence[Path], read: Callable[[Path], np.ndarray], size: int
) -> Iterator[list[np.ndarray]]:
    """Yields what `read` returns for each path, `size` at a time, and reads the next meanwhile."""
    pool = ThreadPoolExecutor(os.cpu_count() or 1)
    waiting: collections.deque[list[Future[np.ndarray]]] = collections.deque()
    try:
        for first in range(0, len(paths), size):
            waiting.append([pool.submit(read, path) for path in paths[first : first + size]])
            if len(waiting) > 1:
                yield [future.result() for future in waiting.popleft()]
        while waiting:
            yield [future.result() for future in waiting.popleft()]
    finally:
        pool.shutdown(cancel_futures=True)


def refuse_difference(folder: Path, found: Sequence[str], wanted: Sequence[str]) -> None:
    """Refuses a folder that does not hold the files that it should.

    Raises:
        FileError: names the folder, the counts and the first file that is missing or left over.
    """
    if found == wanted:
        return
    kinds = {"missing": set(wanted) - set(found), "left over": set(found) - set(wanted)}
    kind, files = next((kind, files) for kind, files in kinds.items() if files)
    got = f"received {len(found)} ({min(files)} is {kind})"
    raise errors.FileError(
        f"{folder}: expected the same {len(wanted)} files as its neighbours, {got}"
    )


def most_common(listings: Collection[tuple[str, ...]]) -> tuple[str, ...]:
    """Returns the listing that most have; of equally frequent ones the longest."""
    counts = collections.Counter(listings)
    return max(counts, key=lambda files: (counts[files], len(files)))
