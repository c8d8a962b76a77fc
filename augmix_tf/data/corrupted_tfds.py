"""Reader of the -C sets of TensorFlow Datasets, one configuration for each cell."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from augmix_tf import errors
from augmix_tf.data import benchmark, image_folders
from augmix_tf.data.benchmark import CORRUPTIONS, Batch, CorruptedSet
from augmix_tf.robustness import SEVERITIES

# Name -> what must be known of its images.
SETS = {
    "cifar10_corrupted": "the published images, in TFDS's own order",
    "imagenet2012_corrupted": "made by TFDS's generator, which differs from the published one",
}
# The corruptions that TFDS's CIFAR set calls by other names.
_ALIASES = {
    "cifar10_corrupted": {"glass_blur": "frosted_glass_blur", "elastic_transform": "elastic"}
}


def open_set(
    name: str,
    image_size: tuple[int, int],
    num_classes: int,
    eval_limit: int,
    class_names: list[str] | None,
    data_dir: str | None,
) -> CorruptedSet:
    """Opens a -C set of TFDS that was prepared before; nothing is downloaded.

    Args:
        name: of `SETS`.
        image_size, num_classes, eval_limit, class_names, data_dir: as in `corrupted.open_set`.

    Raises:
        ArgumentError: no corruption is prepared in all severities, or it is for another model.
        FileError: the data are damaged.
    """
    root = os.path.expanduser(data_dir) if data_dir else None
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
    wanted = f"images of {image_size[0]}x{image_size[1]}, the model's"
    errors.require(tuple(shape[:2]) == tuple(image_size), wanted, f"{name} with {shape}")
    names = info.features["label"].names
    table = image_folders.label_table(names, num_classes, class_names)
    errors.require(len(table) == len(names), f"a model of all classes of {name}", len(table))
    labels = np.array([table[name] for name in names], np.int64)
    used = benchmark.taken(info.splits[_split(first)].num_examples, eval_limit)

    def cell(corruption: str, severity: int) -> Iterator[Batch]:
        yield from _read(prepared[corruption][severity - 1], used, labels)

    text = f"{name} {info.version} (TFDS, {first.data_path.parent.parent}): {SETS[name]}"
    data = {"source": "tfds", "description": text, "images": used}
    return CorruptedSet(tuple(prepared), data, cell)


def config(name: str, corruption: str, severity: int) -> str:
    """Returns TFDS's name of one cell of its set `name`."""
    return f"{_ALIASES.get(name, {}).get(corruption, corruption)}_{severity}"


def _prepared(name: str, corruption: str, root: str | None) -> list[Any]:
    """The builders of the five severities, none where one is not prepared."""
    import tensorflow_datasets as tfds

    builders = []
    for severity in SEVERITIES:
        key = config(name, corruption, severity)
        if key not in tfds.builder_cls(name).builder_configs:
            return []
        try:
            builder = tfds.builder(f"{name}/{key}", data_dir=root)
        except Exception as error:  # what lies there may be anything
            where = f"{name}/{key} in {root or 'the place of TFDS'}"
            reason = str(error).partition("\n")[0]
            raise errors.FileError(f"cannot open {where}: {reason}") from error
        if not (builder.data_path / "dataset_info.json").exists():
            return []
        builders.append(builder)
    return builders


def _split(builder: Any) -> str:
    # ImageNet's split "test" has no labels.
    return "validation" if "validation" in builder.info.splits else "test"


def _read(builder: Any, count: int, labels: np.ndarray) -> Iterator[Batch]:
    import tensorflow as tf
    import tensorflow_datasets as tfds

    found = builder.info.splits[_split(builder)].num_examples
    if found < count:
        raise errors.FileError(
            f"{builder.data_path}: expected {count} examples or more; received {found}"
        )
    # One file after the other, so that the cells come in one order.
    options = tfds.ReadConfig(try_autocache=False, interleave_cycle_length=1)
    dataset = builder.as_dataset(split=_split(builder), read_config=options)
    size = benchmark.batch_size(builder.info.features["image"].shape[:2])
    dataset = dataset.take(count).batch(size).prefetch(1)
    try:
        for batch in dataset.as_numpy_iterator():
            yield batch["image"], labels[batch["label"]]
    except (tf.errors.OpError, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise errors.FileError(f"{builder.data_path} cannot be read ({reason})") from error
