"""Other test sets of a model's classes, under a distribution shift.

ImageNet-R (renditions) and ImageNet-A (natural adversarial examples) have 200 of ImageNet's
classes, ImageNet-Sketch and ImageNet-V2 all 1000.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from augmix_tf import errors
from augmix_tf.data import benchmark, folders_by_class
from augmix_tf.data.images import ImageStore


@dataclasses.dataclass(frozen=True)
class ShiftedSet:
    """Test images of some of a model's classes, read when they are predicted.

    Attributes:
        name: name of its directory.
        data: "source", "description" and "images" of `results.json`.
        store: the images; their labels are 0 to k - 1, indices of `classes`.
        classes: int64 [k], ascending: the model's class ids of the set's own classes.
    """

    name: str
    data: Mapping[str, Any]
    store: ImageStore
    classes: np.ndarray


def open_sets(
    folders: Iterable[str | Path],
    class_names: Sequence[str],
    image_size: tuple[int, int],
    eval_limit: int = 0,
) -> list[ShiftedSet]:
    """Opens several sets; other arguments as for `open_set`.

    Raises:
        ArgumentError: as for `open_set`, or two directories with the same name.
        RunError: as for `open_set`.
    """
    opened: dict[str, ShiftedSet] = {}
    for folder in folders:
        found = open_set(folder, class_names, image_size, eval_limit)
        errors.require(
            found.name not in opened, "directories with different names", f"{folder} as well"
        )
        opened[found.name] = found
    return list(opened.values())


def open_set(
    folder: str | Path,
    class_names: Sequence[str],
    image_size: tuple[int, int],
    eval_limit: int = 0,
) -> ShiftedSet:
    """Opens a directory of test images, `<class>/<file>`, without reading the images.

    Args:
        folder: its subdirectories are the set's own classes, named as the model's classes
            (ImageNet: WordNet ids) or, as in ImageNet-V2, by their indices "0", "1", ... among the
            sorted names of the model's classes.
        class_names: of all classes of the model, in the order of its logits.
        image_size: (H, W) of the model. Images are resized so that the short side is 256 / 224 of
            it, then center-cropped.
        eval_limit: number of images to use, from the first; 0 uses all.

    Raises:
        ArgumentError: no such directory, or a subdirectory that is not a class of the model (the
            message has the nearest one) or has no images.
        RunError: a directory cannot be read.
    """
    benchmark.taken(0, eval_limit)
    place = Path(os.path.abspath(Path(folder).expanduser()))
    found = folders_by_class.class_names(place)
    names = _names_there(found, class_names)
    store = folders_by_class.open_split(place, names, image_size, eval_limit)
    classes = np.flatnonzero([name in found for name in names])
    description = f"the folder {place} ({len(classes)} of the model's {len(names)} classes)"
    data = {"source": "folder", "description": description, "images": len(store)}
    store = dataclasses.replace(store, labels=np.searchsorted(classes, store.labels))
    return ShiftedSet(place.name, data, store, classes)


def _names_there(found: Sequence[str], class_names: Sequence[str]) -> list[str]:
    """Returns the directory name of each of the model's classes, given the subdirectories."""
    numbered = all(name.isascii() and name.isdecimal() for name in found)
    if not numbered or set(found) <= set(class_names):
        return list(class_names)
    numbers = {name: str(number) for number, name in enumerate(sorted(class_names))}
    return [numbers[name] for name in class_names]
