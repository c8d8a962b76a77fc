"""Readers of -C and C-bar sets: CIFAR's `.npy` files, ImageNet's folders, and TFDS by name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from augmix_tf import errors
from augmix_tf.data import benchmark, class_folders, tfds_sets
from augmix_tf.data.benchmark import Batch, CorruptedSet
from augmix_tf.data.images import TEST_IS_COMPLETE
from augmix_tf.ops import decoding, formats
from augmix_tf.robustness import SEVERITIES, THREE_D, C, CorruptionBenchmark

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
    class_names: Sequence[str],
    eval_limit: int = 0,
    imagenet_crop: str = "canonical",
    data_dir: str | None = None,
    kind: CorruptionBenchmark = C,
) -> CorruptedSet:
    """Opens a -C or C-bar set; its files are checked, the images are read when they are asked for.

    Args:
        place: a folder, or for -C one of `TFDS_SETS`, prepared. A folder holds CIFAR's files
            (`<corruption>.npy` uint8 [5 N, H, W, 3], severity 1 first, and `labels.npy` [5 N]) or
            ImageNet's (`<corruption>/<severity>/<class>/*.JPEG`, corruptions right in it or in the
            groups blur, digital, noise, weather, extra); for severities see `severity_folders`.
        class_names: of the model; see `class_folders.label_table`.
        eval_limit: how many images of each severity to take, from the first in the order of the
            file names; 0 takes all.
        imagenet_crop: "canonical": the images are 224x224 and are not resized again.
            "reference": enlarged to 256 and cut to 224, as the public AugMix script does.
        data_dir: where TFDS data lie; None means TFDS's own place.
        kind: of the benchmark; corruptions of others are not evaluated. A folder without any of -C
            may hold ImageNet-3DCC's, which are read alike.
    """
    if kind == C and str(place) in TFDS_SETS:
        return _open_tfds(str(place), image_size, class_names, eval_limit, data_dir)
    folder = benchmark.folder_of(place)
    if kind == C and not benchmark.find(folder, C.names) and benchmark.find(folder, THREE_D.names):
        kind = THREE_D
    names = benchmark.array_names(folder, kind.names, _BENCHMARK)
    folders = benchmark.finished(folder, benchmark.find(folder, kind.names), _BENCHMARK)
    expected = (
        f"<corruption>.npy files and labels.npy (CIFAR-{kind.title}), or folders "
        f"<corruption>/<severity>/<class> (ImageNet-{kind.title}), in {folder}, where <corruption> "
        f"is {kind.names[0]}, ..."
    )
    others = ", ".join(sorted(path.name for path in folder.iterdir())[:3]) or "an empty folder"
    errors.require(bool(names or folders), expected, others)
    if names:
        return _open_arrays(folder, names, image_size, len(class_names), eval_limit, kind)
    return _open_folders(folder, folders, image_size, class_names, eval_limit, imagenet_crop, kind)


def _open_arrays(
    folder: Path,
    names: Sequence[str],
    image_size: tuple[int, int],
    num_classes: int,
    limit: int,
    kind: CorruptionBenchmark,
) -> CorruptedSet:
    def fits(array: np.ndarray) -> bool:
        by_five = len(array) > 0 and len(array) % len(SEVERITIES) == 0
        return array.dtype == np.uint8 and array.shape[1:] == (*image_size, 3) and by_five

    expected = f"uint8 [5 N, {image_size[0]}, {image_size[1]}, 3]"
    arrays = benchmark.open_arrays(folder, names, expected, fits)
    rows = len(next(iter(arrays.values())))
    expected = f"labels of 0 to {num_classes - 1} [{rows}], one a row of the other files"
    labels = benchmark.open_array(
        folder / "labels.npy",
        expected,
        lambda a: (
            a.dtype.kind in "iu" and a.shape == (rows,) and 0 <= a.min() <= a.max() < num_classes
        ),
    ).astype(np.int64)
    count = rows // len(SEVERITIES)
    used = benchmark.taken(count, limit)
    size = benchmark.batch_size(image_size)

    def cell(name: str, severity: int) -> Iterator[Batch]:
        start = count * (severity - 1)
        for first in range(start, start + used, size):
            part = slice(first, min(first + size, start + used))
            yield np.array(arrays[name][part]), labels[part]

    data = benchmark.provenance(folder, _BENCHMARK, used, f"CIFAR-{kind.title} files")
    return CorruptedSet(tuple(arrays), data, cell)


def _open_folders(
    place: Path,
    folders: dict[str, Path],
    image_size: tuple[int, int],
    class_names: Sequence[str],
    limit: int,
    crop: str,
    kind: CorruptionBenchmark,
) -> CorruptedSet:
    cells = benchmark.severity_folders(folders)
    files = benchmark.common_files(place, cells, class_folders.IMAGES)
    errors.require(bool(files), f"images in <corruption>/<severity>/<class> in {place}", "none")
    classes = [class_folders.normalized(file.partition("/")[0]) for file in files]
    names = sorted(set(classes))
    table = class_folders.label_table(names, class_names)
    pairs = zip(files, classes, strict=True)
    known = [(file, table[name]) for file, name in pairs if name in table]
    chosen = known[: benchmark.taken(len(known), limit)]
    labels = np.array([label for _, label in chosen], np.int64)

    def cell(name: str, severity: int) -> Iterator[Batch]:
        paths = [cells[name][severity - 1] / file for file, _ in chosen]
        first = 0
        for images in benchmark.read_ahead(paths, read, benchmark.batch_size(image_size)):
            yield np.stack(images), labels[first : first + len(images)]
            first += len(images)

    def read(path: Path) -> np.ndarray:
        return read_image(path, image_size, crop)

    what = f"ImageNet-{kind.title} files ({len(table)} of {len(names)} classes, {crop} crop)"
    data = benchmark.provenance(place, _BENCHMARK, len(chosen), what)
    return CorruptedSet(tuple(folders), data, cell)


def read_image(path: Path, image_size: tuple[int, int], crop: str) -> np.ndarray:
    """Returns the centre of an image file, uint8 [H, W, 3].

    With the crop "reference" it is enlarged before by 256 / 224, as by the public AugMix script,
    whose numbers on ImageNet-C this reproduces.
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
    class_names: Sequence[str],
    limit: int,
    root: str | None,
) -> CorruptedSet:
    """Opens a -C set of TFDS, one configuration for each cell; nothing is downloaded."""
    where = root or "the place of TFDS"
    configs = tfds.builder_cls(name).builder_configs
    prepared = {}
    for corruption in C.names:
        keys = [config(name, corruption, severity) for severity in SEVERITIES]
        cells = [tfds_sets.open_builder(f"{name}/{key}", root) for key in keys if key in configs]
        if cells and all((cell.data_path / "dataset_info.json").exists() for cell in cells):
            prepared[corruption] = cells
    errors.require(
        bool(prepared),
        f"the configurations of {name} prepared in {where}, all severities of a corruption "
        f"({config(name, 'fog', 1)} to {config(name, 'fog', 5)})",
        "none; tfds.load(<name>/<configuration>) prepares one",
    )
    first = next(iter(prepared.values()))[0]
    info, shape = first.info, first.info.features["image"].shape
    expected = f"images of {image_size[0]}x{image_size[1]}, the model's"
    errors.require(tuple(shape[:2]) == tuple(image_size), expected, f"{name} with {shape}")
    names = info.features["label"].names
    table = class_folders.label_table(names, class_names)
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
                lambda example: (tfds_sets.decoded(builder, example["image"]), example["label"]), 2
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
