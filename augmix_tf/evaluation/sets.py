"""What a model is evaluated on besides the test images, as far as no reader of `data` opens it."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from augmix_tf import corruptions
from augmix_tf.corruptions import arrays, catalogue, weather
from augmix_tf.data import benchmark, class_folders, tfds_sets
from augmix_tf.data.benchmark import Batch, CorruptedSet, PerturbedSet
from augmix_tf.data.images import ImageStore, InMemoryStore
from augmix_tf.errors import ArgumentError, first_line, lookup, require
from augmix_tf.metrics.benchmarks import LARGEST_TOP5_DISTANCE
from augmix_tf.robustness import CBAR, CORRUPTIONS, PERTURBATIONS, SEVERITIES, C

Rates = Mapping[str, Mapping[str, float]]
"""Of a baseline network: "flip_probability", "top5_distance" -> perturbation -> value."""
LARGEST_RATES = {"flip_probability": 1.0, "top5_distance": LARGEST_TOP5_DISTANCE}


@dataclasses.dataclass(frozen=True)
class ShiftedSet:
    """Test images of some of a model's classes, read when they are predicted."""

    name: str  # of its directory or file, or in TFDS
    data: Mapping[str, Any]  # "source", "description" and "images" of `results.json`
    store: ImageStore  # its labels are 0 to k - 1, indices of `classes`
    classes: np.ndarray  # int64 [k], ascending: the model's class ids of the set's own classes


@dataclasses.dataclass(frozen=True)
class Benchmarks:
    """What a classifier is evaluated on besides the test images.

    `alexnet`, of `read_rates`, replaces AlexNet's rates on ImageNet-P.
    """

    corrupted: CorruptedSet | None = None
    cbar: CorruptedSet | None = None
    perturbed: PerturbedSet | None = None
    alexnet: Rates | None = None
    shifted: Sequence[ShiftedSet] = ()


def generate_corrupted(
    store: ImageStore,
    *,
    seed: int = 0,
    frost_dir: str | Path | None = None,
    source: str = "the test images",
    names: Iterable[str] = CORRUPTIONS,
    severities: Iterable[int] = SEVERITIES,
) -> CorruptedSet:
    """Returns a -C or C-bar set of clean images, generated each time it is iterated over.

    The images are those that `corruptions.write_corrupted` with the same arguments writes, without
    frost if its photographs are not available. Random choices follow from the store's `ids`.

    Raises:
        ArgumentError: an argument is invalid, or `frost_dir` does not hold the photographs.
    """
    arrays.check_images(store.pixels)
    require(len(store) > 0, "at least one image", "none")
    ids = arrays.check_ids(store.ids, len(store))
    chosen = catalogue.table_name(None, *store.image_size)
    known = (*C.names, *CBAR.names)
    asked = {n: lookup("corruption", n, dict.fromkeys(known, n)) for n in names}
    no_frost = "frost" in asked and weather.find_photographs(frost_dir) is None
    kept = [n for n in known if n in asked and not (no_frost and n == "frost")]
    for name in kept:
        catalogue.setting_of(store.pixels, name, 1, chosen)
    levels = sorted({arrays.check_integer("severity", s, 1, len(SEVERITIES)) for s in severities})
    received = "none" + " (frost needs its photographs)" * no_frost
    require(bool(kept and levels), "at least one corruption and one severity", received)

    def cell(name: str, severity: int) -> Iterator[Batch]:
        first = 0
        for images in store.batches(benchmark.batch_size(store.image_size)):
            rows = slice(first, first + len(images))
            corrupted = corruptions.corrupt(
                images, name, severity, seed, ids[rows], chosen, frost_dir
            )
            yield corrupted, store.labels[rows].astype(np.int64)
            first += len(images)

    note = ", without frost: its photographs are not available" if no_frost else ""
    data = {
        "source": "generated",
        "description": f"generated from {source} during evaluation, not the published files{note}",
        "images": len(store),
        "seed": seed,
        "table": chosen,
        "versions": corruptions.versions(),
    }
    return CorruptedSet(tuple(kept), data, cell, tuple(levels))


def open_shifted(
    places: Iterable[str | Path],
    class_names: Sequence[str],
    image_size: tuple[int, int],
    eval_limit: int = 0,
    data_dir: str | None = None,
) -> list[ShiftedSet]:
    """Opens other test images, those in directories without reading them.

    Args:
        places: each one of
            - a directory `<class>/<file>`. Its subdirectories are the set's own classes, named as
              the model's classes (ImageNet: WordNet ids) or, as in ImageNet-V2, by their indices
              "0", "1", ... among the sorted names of the model's classes. Images are resized so
              that the short side is 256 / 224 of the model's, and cropped;
            - `<set>_data.npy` beside `<set>_labels.npy` (CIFAR-10.1), or an `.npz` file with
              `images` and `labels` (CIFAR-10.2): uint8 [N, H, W, 3] and ids of the model's classes;
            - a prepared set of TFDS, such as "cifar10_1/v6", with classes of the model's names.
        class_names: of the model, in the order of the logits.
        image_size: of the model, (H, W).
        eval_limit: how many images of each set to use, from the first; 0: all.
        data_dir: where TFDS data lie; None means TFDS's own place.
    """
    opened: dict[str, ShiftedSet] = {}
    for place in places:
        path = Path(os.path.abspath(place))
        if path.suffix in (".npy", ".npz"):
            found = _open_shifted_arrays(path, len(class_names), image_size, eval_limit)
        elif not path.exists() and tfds_sets.is_known(str(place)):
            found = _open_shifted_tfds(str(place), class_names, image_size, eval_limit, data_dir)
        else:
            found = _open_shifted_folder(path, class_names, image_size, eval_limit)
        require(found.name not in opened, "sets with different names", f"{place} as well")
        opened[found.name] = found
    return list(opened.values())


def _open_shifted_folder(
    place: Path, class_names: Sequence[str], image_size: tuple[int, int], limit: int
) -> ShiftedSet:
    own_names = tuple(class_folders.classes(place))
    names = _directory_names(own_names, class_names)
    store = class_folders.open_split(place, names, image_size, limit)
    classes = np.flatnonzero([name in own_names for name in names])
    text = f"the folder {place} ({len(classes)} of the model's {len(names)} classes)"
    data = {"source": "folder", "description": text, "images": len(store)}
    store = dataclasses.replace(store, labels=np.searchsorted(classes, store.labels))
    return ShiftedSet(place.name, data, store, classes)


def _open_shifted_arrays(
    path: Path, num_classes: int, image_size: tuple[int, int], limit: int
) -> ShiftedSet:
    of_images = f"uint8 [N, {image_size[0]}, {image_size[1]}, 3]"
    of_labels = f"integers of 0 to {num_classes - 1} [N], a label for each image"

    def are_images(array: np.ndarray) -> bool:
        return array.dtype == np.uint8 and array.shape[1:] == (*image_size, 3) and len(array) > 0

    def are_labels(array: np.ndarray) -> bool:
        fits = array.dtype.kind in "iu" and array.shape == (len(images),)
        return bool(fits and 0 <= array.min() <= array.max() < num_classes)

    if path.suffix == ".npz":
        name = path.stem
        images = benchmark.read_member(path, "images", of_images, are_images)
        labels = benchmark.read_member(path, "labels", of_labels, are_labels)
    else:
        name = path.stem.removesuffix("_data")
        require(name != path.stem, "a file named <set>_data.npy beside <set>_labels.npy", path)
        images = benchmark.open_array(path, of_images, are_images)
        beside = path.with_name(f"{name}_labels.npy")
        labels = benchmark.open_array(beside, of_labels, are_labels)
    count = benchmark.taken(len(images), limit)
    store = InMemoryStore(
        images=np.array(images[:count]),
        labels=labels[:count].astype(np.int64),
        ids=np.arange(count),
    )
    data = {"source": "arrays", "description": f"the file {path}", "images": count}
    return ShiftedSet(name, data, store, np.arange(num_classes))


def _open_shifted_tfds(
    name: str,
    class_names: Sequence[str],
    image_size: tuple[int, int],
    limit: int,
    data_dir: str | None,
) -> ShiftedSet:
    store, names, text = tfds_sets.read_test(name, data_dir, image_size, limit)
    table = class_folders.label_table(names, class_names)
    require(len(table) == len(names), f"a model of all classes of {name}", len(table))
    labels = np.array(list(table.values()))
    classes = np.unique(labels)
    store = dataclasses.replace(store, labels=np.searchsorted(classes, labels[store.labels]))
    data = {"source": "tfds", "description": text, "images": len(store)}
    return ShiftedSet(name, data, store, classes)


def _directory_names(own_names: Sequence[str], class_names: Sequence[str]) -> list[str]:
    """Returns the directory name of each of the model's classes, given those of the set's own."""
    names = [class_folders.normalized(name) for name in class_names]
    numbered = all(name.isascii() and name.isdecimal() for name in own_names)
    if not numbered or set(own_names) <= set(names):
        return names
    numbers = {name: str(number) for number, name in enumerate(sorted(class_names))}
    return [numbers[name] for name in class_names]


def read_rates(path: str | Path) -> dict[str, dict[str, float]]:
    """Reads flip probabilities and top-5 distances of a baseline network, instead of AlexNet's.

    The JSON file has {"flip_probability": {...}, "top5_distance": {...}} or one of the two, each
    with a positive number for each of the ten perturbations of the paper.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        rates = {
            key: {name: float(content[key][name]) for name in PERTURBATIONS}
            for key in LARGEST_RATES
            if key in content
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise ArgumentError(f"Cannot read the rates of a network in {path}: {reason}.") from error
    fits = [0 < r <= LARGEST_RATES[key] for key, row in rates.items() for r in row.values()]
    require(bool(fits) and all(fits), f"rates above 0 and up to {LARGEST_RATES} in {path}", rates)
    return rates
