"""Readers of -C sets: CIFAR's `.npy` files, ImageNet-C's folders, and TFDS by name."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from augmix_tf import errors
from augmix_tf.data import benchmark, class_folders, tfds_sets
from augmix_tf.data.benchmark import CORRUPTIONS, Batch, CorruptedSet
from augmix_tf.data.images import TEST_IS_COMPLETE, reason
from augmix_tf.ops import decoding, formats
from augmix_tf.robustness import SEVERITIES

CROPS = ("canonical", "reference")
# Set of TFDS -> what must be known of its images.
TFDS_SETS = {
    "cifar10_corrupted": "the published images, in TFDS's own order",
    "imagenet2012_corrupted": "made by TFDS's generator, which differs from the published one",
}
# The corruptions that TFDS's CIFAR set calls by other names.
_ALIASES = {
    "cifar10_corrupted": {"glass_blur": "frosted_glass_blur", "elastic_transform": "elastic"}
}
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
        place: a folder, or "cifar10_corrupted" or "imagenet2012_corrupted" of TFDS, prepared. A
            folder holds CIFAR's files (`<corruption>.npy` uint8 [5 N, H, W, 3], severity 1 first,
            and `labels.npy` [5 N]) or ImageNet-C's (`<corruption>/<severity>/<class>/*.JPEG`,
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
            says what was expected and which corruptions can still be evaluated.
    """
    benchmark.taken(0, eval_limit)
    errors.lookup("crop", imagenet_crop, dict.fromkeys(CROPS))
    if str(place) in TFDS_SETS:
        root = os.path.expanduser(data_dir) if data_dir else None
        return _open_tfds(str(place), image_size, num_classes, eval_limit, class_names, root)
    folder = benchmark.folder_of(place)
    names = benchmark.array_names(folder, CORRUPTIONS, _BENCHMARK)
    if names or (folder / "labels.npy").exists():
        return _open_arrays(folder, names, image_size, num_classes, eval_limit)
    folders = benchmark.finished(folder, benchmark.find(folder, CORRUPTIONS), _BENCHMARK)
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
    def fits(array: np.ndarray) -> bool:
        by_five = len(array) > 0 and len(array) % len(SEVERITIES) == 0
        return array.dtype == np.uint8 and array.shape[1:] == (*image_size, 3) and by_five

    expected = f"uint8 [5 N, {image_size[0]}, {image_size[1]}, 3]"
    arrays = benchmark.open_arrays(folder, names, expected, fits)
    errors.require(bool(arrays), f"<corruption>.npy files in {folder}", "labels.npy alone")
    rows = len(next(iter(arrays.values())))
    labels = _labels(folder / "labels.npy", rows, num_classes)
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


def _labels(path: Path, rows: int, num_classes: int) -> np.ndarray:
    """int64 [rows]: the labels, which no corruption can be evaluated without."""

    def fits(array: np.ndarray) -> bool:
        return array.dtype.kind in "iu" and array.shape == (rows,)

    expected = f"whole numbers [{rows}], one a row of the other files"
    labels = np.array(benchmark.open_array(path, expected, fits)).astype(np.int64)
    outside = labels[(labels < 0) | (labels >= num_classes)]
    if outside.size:
        problem = f"expected labels of 0 to {num_classes - 1}, the model's; received {outside[0]}"
        raise errors.FileError(f"{path}: {problem}")
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
    cells = {name: [folders[name] / str(severity) for severity in SEVERITIES] for name in folders}
    files = benchmark.common_files(place, cells, class_folders.IMAGES)
    errors.require(bool(files), f"images in <corruption>/<severity>/<class> in {place}", "none")
    classes = [class_folders.normalized(file.partition("/")[0]) for file in files]
    names = sorted(set(classes))
    table = class_folders.label_table(names, num_classes, class_names)
    known = [
        (file, table[name]) for file, name in zip(files, classes, strict=True) if name in table
    ]
    chosen = known[: benchmark.taken(len(known), limit)]
    labels = np.array([label for _, label in chosen], np.int64)

    def cell(name: str, severity: int) -> Iterator[Batch]:
        paths = [folders[name] / str(severity) / file for file, _ in chosen]
        first = 0
        for images in benchmark.read_ahead(paths, read, benchmark.batch_size(image_size)):
            yield np.stack(images), labels[first : first + len(images)]
            first += len(images)

    def read(path: Path) -> np.ndarray:
        return read_image(path, image_size, crop)

    what = f"ImageNet-C files ({len(table)} of {len(names)} classes, {crop} crop)"
    data = benchmark.provenance(place, _BENCHMARK, len(chosen), what)
    return CorruptedSet(tuple(folders), data, cell)


def read_image(path: Path, image_size: tuple[int, int], crop: str) -> np.ndarray:
    """Returns one image, uint8 [H, W, 3].

    Args:
        path: an image file.
        image_size: (H, W) that is cut out of the centre.
        crop: "canonical": the image as it is. "reference": enlarged before by 256 / 224, as
            the public AugMix script does, whose numbers on ImageNet-C this reproduces.

    Raises:
        FileError: the image is damaged or too small; names the file.
    """
    try:
        pixels = formats.read(path)
    except errors.FileError as error:
        raise errors.FileError(f"{error}; {TEST_IS_COMPLETE}") from error
    if crop == "reference":
        image, short_side = Image.fromarray(pixels), decoding.short_side(image_size)
        width, height = (short_side * side // min(image.size) for side in image.size)
        pixels = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
    return benchmark.centre(pixels, image_size, path)


# TFDS


def _open_tfds(
    name: str,
    image_size: tuple[int, int],
    num_classes: int,
    limit: int,
    class_names: Sequence[str] | None,
    root: str | None,
) -> CorruptedSet:
    """Opens a -C set of TFDS, one configuration for each cell; nothing is downloaded."""
    prepared = {c: cells for c in CORRUPTIONS if (cells := _prepared(name, c, root))}
    if not prepared:
        raise errors.ArgumentError(
            f"Expected the configurations of {name} prepared in {root or 'the place of TFDS'}, all "
            f"severities of a corruption ({config(name, 'fog', 1)} to {config(name, 'fog', 5)}), "
            "received none; tfds.load(<name>/<configuration>) prepares one"
        )
    first = next(iter(prepared.values()))[0]
    info = first.info
    shape = info.features["image"].shape
    expected = f"images of {image_size[0]}x{image_size[1]}, the model's"
    errors.require(tuple(shape[:2]) == tuple(image_size), expected, f"{name} with {shape}")
    names = info.features["label"].names
    table = class_folders.label_table(names, num_classes, class_names)
    errors.require(len(table) == len(names), f"a model of all classes of {name}", len(table))
    labels = np.array(list(table.values()), np.int64)
    # ImageNet's split "test" has no labels.
    split = "validation" if "validation" in info.splits else "test"
    used = benchmark.taken(info.splits[split].num_examples, limit)

    def cell(corruption: str, severity: int) -> Iterator[Batch]:
        builder = prepared[corruption][severity - 1]
        with tfds_sets.damage_named(builder, split):
            dataset = tfds_sets.examples(builder, split, ["image", "label"]).take(used)
            dataset = dataset.map(
                lambda example: (tfds_sets.decoded(builder, example["image"]), example["label"]),
                num_parallel_calls=2,
            )
            count, size = 0, benchmark.batch_size(image_size)
            for images, classes in dataset.batch(size).prefetch(1).as_numpy_iterator():
                yield images, labels[classes]
                count += len(images)
            if count < used:
                raise OSError(f"{count} instead of {used} records")

    text = f"{name} {info.version} (TFDS, {first.data_path.parent.parent}): {TFDS_SETS[name]}"
    data = {"source": "tfds", "description": text, "images": used}
    return CorruptedSet(tuple(prepared), data, cell)


def config(name: str, corruption: str, severity: int) -> str:
    """Returns TFDS's name of one cell of its set `name`."""
    return f"{_ALIASES.get(name, {}).get(corruption, corruption)}_{severity}"


def _prepared(name: str, corruption: str, root: str | None) -> list[Any]:
    """The builders of the five severities, none where one is not prepared."""
    builders = []
    for severity in SEVERITIES:
        key = config(name, corruption, severity)
        if key not in tfds.builder_cls(name).builder_configs:
            return []
        try:
            builder = tfds.builder(f"{name}/{key}", data_dir=root)
        except Exception as error:  # what lies there may be anything
            where = f"{name}/{key} in {root or 'the place of TFDS'}"
            raise errors.FileError(f"cannot open {where}: {reason(error)}") from error
        if not (builder.data_path / "dataset_info.json").exists():
            return []
        builders.append(builder)
    return builders
