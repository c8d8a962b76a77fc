"""Readers of -C sets: CIFAR's `.npy` files, ImageNet-C's folders, and TFDS by name."""

from __future__ import annotations

import collections
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from augmix_tf import errors
from augmix_tf.data import benchmark, corrupted_tfds, image_folders
from augmix_tf.data.benchmark import CORRUPTIONS, Batch, CorruptedSet
from augmix_tf.robustness import SEVERITIES

_BENCHMARK = "corruptions"


def open_set(
    place: str | Path,
    image_size: tuple[int, int],
    num_classes: int,
    eval_limit: int = 0,
    class_names: Sequence[str] | None = None,
    imagenet_crop: str = "canonical",
    data_dir: str | None = None,
) -> CorruptedSet:
    """Opens a -C set; its files are checked, the images are read when they are asked for.

    Args:
        place: a folder, or "cifar10_corrupted" or "imagenet2012_corrupted" of TFDS. A folder
            holds CIFAR's files (`<corruption>.npy` uint8 [5 N, H, W, 3], severity 1 first, and
            `labels.npy` [5 N]) or ImageNet-C's (`<corruption>/<severity>/<class>/*.JPEG`,
            corruptions right in it or in the groups blur, digital, noise, weather, extra).
        image_size: (H, W) of the model.
        num_classes: of the model.
        eval_limit: how many images of each severity to take, from the first; 0 takes all. Folders
            are read in the order of the file names, ImageNet's official one.
        class_names: of the model. Where they are WordNet ids, ImageNet's classes are matched by
            name, and classes that the model lacks are left out; otherwise sorted ids count.
        imagenet_crop: "canonical": the images are 224x224 and are not resized again.
            "reference": enlarged to 256 and cut to 224, as the public AugMix script does.
        data_dir: where TFDS data lie; None means TFDS's own place.

    Raises:
        ArgumentError: no set there, or none for this model.
        FileError: a file is damaged, missing or of another shape or type. The message names it,
            says what was wanted and which corruptions can still be evaluated.
    """
    benchmark.taken(0, eval_limit)
    errors.lookup("crop", imagenet_crop, dict.fromkeys(image_folders.CROPS))
    if str(place) in corrupted_tfds.SETS:
        names = list(class_names) if class_names is not None else None
        return corrupted_tfds.open_set(
            str(place), image_size, num_classes, eval_limit, names, data_dir
        )
    folder = benchmark.folder_of(place)
    names = benchmark.array_names(folder, CORRUPTIONS, _BENCHMARK)
    if names or (folder / "labels.npy").exists():
        return _open_arrays(folder, names, image_size, num_classes, eval_limit)
    folders = benchmark.finished(folder, image_folders.find(folder, CORRUPTIONS), _BENCHMARK)
    if not folders:
        hint = next((f"; Did you mean {p.parent}?" for p in folder.glob("*/labels.npy")), "")
        raise errors.ArgumentError(
            f"Expected a folder with <corruption>.npy files and labels.npy (CIFAR-C), or with "
            f"folders <corruption>/<severity>/<class> (ImageNet-C), where <corruption> is "
            f"gaussian_noise, ...; received {folder} with none of them{hint}"
        )
    return _open_folders(
        folder, folders, image_size, num_classes, eval_limit, class_names, imagenet_crop
    )


def _open_arrays(
    folder: Path, names: Sequence[str], image_size: tuple[int, int], num_classes: int, limit: int
) -> CorruptedSet:
    wanted = f"uint8 [5 N, {image_size[0]}, {image_size[1]}, 3]"
    open_one = functools.partial(
        benchmark.open_array,
        wanted=wanted,
        fits=lambda a: a.dtype == np.uint8 and a.shape[1:] == (*image_size, 3) and _by_five(a),
    )
    arrays = benchmark.all_sound(names, lambda name: open_one(folder / f"{name}.npy"))
    errors.require(bool(arrays), f"<corruption>.npy files in {folder}", "labels.npy alone")
    # The number that most files agree on: a file with fewer rows must not make all others wrong.
    rows = collections.Counter(len(array) for array in arrays.values()).most_common(1)[0][0]
    labels = _labels(folder / "labels.npy", rows, num_classes)

    def check_rows(name: str) -> None:
        if len(arrays[name]) != rows:
            text = (
                f"Expected {rows} rows, as many as there are labels; received {len(arrays[name])}"
            )
            raise errors.FileError(f"{folder / name}.npy: {text}")

    benchmark.all_sound(arrays, check_rows)
    count = rows // len(SEVERITIES)
    used = benchmark.taken(count, limit)
    size = benchmark.batch_size(image_size)

    def cell(name: str, severity: int) -> Iterator[Batch]:
        start = count * (severity - 1)
        for first in range(start, start + used, size):
            part = slice(first, min(first + size, start + used))
            yield np.array(arrays[name][part]), labels[part]

    data = benchmark.provenance(folder, _BENCHMARK, used, "CIFAR-C files")
    return CorruptedSet(tuple(arrays), data, cell)


def _by_five(array: np.ndarray) -> bool:
    return len(array) > 0 and len(array) % len(SEVERITIES) == 0


def _labels(path: Path, rows: int, num_classes: int) -> np.ndarray:
    """int64 [rows]: the labels, which no corruption can be evaluated without."""
    wanted = f"whole numbers [{rows}], one a row of the other files"

    def fits(array: np.ndarray) -> bool:
        return array.dtype.kind in "iu" and array.shape == (rows,)

    try:
        labels = np.array(benchmark.open_array(path, wanted, fits)).astype(np.int64)
        outside = labels[(labels < 0) | (labels >= num_classes)]
        if outside.size:
            text = f"Expected labels of 0 to {num_classes - 1}, the model's; received {outside[0]}"
            raise errors.FileError(f"{path}: {text}")
    except errors.FileError as error:
        raise errors.FileError(f"{error}; {benchmark.still([])}") from error
    return labels


def _open_folders(
    place: Path,
    folders: dict[str, Path],
    image_size: tuple[int, int],
    num_classes: int,
    limit: int,
    class_names: Sequence[str] | None,
    crop: str,
) -> CorruptedSet:
    listings = {
        folders[name] / str(severity): image_folders.listing(
            folders[name] / str(severity), image_folders.IMAGES
        )
        for name in folders
        for severity in SEVERITIES
        if (folders[name] / str(severity)).is_dir()
    }
    files = image_folders.most_common(listings.values()) if listings else ()
    errors.require(bool(files), f"images in <corruption>/<severity>/<class> in {place}", "none")

    def check_cells(name: str) -> None:
        for severity in SEVERITIES:
            cell = folders[name] / str(severity)
            image_folders.refuse_difference(cell, listings.get(cell, ()), files)

    benchmark.all_sound(folders, check_cells)
    classes = sorted(set(map(image_folders.class_of, files)))
    table = image_folders.label_table(classes, num_classes, class_names)
    known = [file for file in files if image_folders.class_of(file) in table]
    chosen = known[: benchmark.taken(len(known), limit)]
    labels = np.array([table[image_folders.class_of(file)] for file in chosen], np.int64)
    read = functools.partial(image_folders.read_image, image_size=image_size, crop=crop)

    def cell(name: str, severity: int) -> Iterator[Batch]:
        paths = [folders[name] / str(severity) / file for file in chosen]
        first = 0
        for images in image_folders.read_ahead(paths, read, benchmark.batch_size(image_size)):
            yield np.stack(images), labels[first : first + len(images)]
            first += len(images)

    what = f"ImageNet-C files ({len(table)} of {len(classes)} classes, {crop} crop)"
    data = benchmark.provenance(place, _BENCHMARK, len(chosen), what)
    return CorruptedSet(tuple(folders), data, cell)
