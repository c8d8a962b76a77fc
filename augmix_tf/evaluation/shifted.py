"""Error and calibration on other test sets of a model's classes: part "shifted" of `results.json`.

ImageNet-R (renditions) and ImageNet-A (hard photographs) have 200 of ImageNet's classes,
ImageNet-Sketch and ImageNet-V2 all 1000.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from augmix_tf import checks
from augmix_tf.corruptions.arrays import Pictures
from augmix_tf.data import benchmark, folders_by_class
from augmix_tf.evaluation import predict, results


@dataclass(frozen=True)
class ShiftedSet:
    """Test pictures of some of a model's classes, read only where they are asked for.

    Attributes:
        name: of its folder.
        data: where it comes from, as `results.json` keeps it: "source", "description", "images".
        images: uint8 [N, H, W, 3].
        labels: int64 [N], 0 to k - 1: places in `classes`.
        classes: int64 [k], rising: the model's numbers of the set's own classes.
    """

    name: str
    data: Mapping[str, Any]
    images: Pictures
    labels: np.ndarray
    classes: np.ndarray


def open_sets(
    folders: Iterable[str | Path],
    class_names: Sequence[str],
    image_size: tuple[int, int],
    eval_limit: int = 0,
) -> list[ShiftedSet]:
    """Opens several sets; the arguments are those of `open_set`.

    Raises:
        CommandError: as for `open_set`, or two folders of one name.
        RunError: as for `open_set`.
    """
    opened: dict[str, ShiftedSet] = {}
    for folder in folders:
        found = open_set(folder, class_names, image_size, eval_limit)
        checks.require(found.name not in opened, "folders of different names", f"{folder} as well")
        opened[found.name] = found
    return list(opened.values())


def open_set(
    folder: str | Path,
    class_names: Sequence[str],
    image_size: tuple[int, int],
    eval_limit: int = 0,
) -> ShiftedSet:
    """Opens a folder of test pictures, `<class>/<file>`; none is read yet.

    Args:
        folder: its sub-folders are the set's own classes, called as the model calls them
            (ImageNet: WordNet ids) or, as in ImageNet-V2, by their numbers "0", "1", ... among the
            sorted names of the model's classes.
        class_names: of all classes of the model, in the order of its answers.
        image_size: (H, W) of the model. The short side becomes 256 / 224 of it, then the centre is
            cut out.
        eval_limit: how many pictures to take, from the first; 0 takes all.

    Raises:
        CommandError: no such folder, or a sub-folder that is no class of the model (with the
            nearest one) or has no pictures.
        RunError: a folder cannot be read.
    """
    benchmark.taken(0, eval_limit)
    place = Path(os.path.abspath(Path(folder).expanduser()))
    found = folders_by_class.class_names(place)
    names = _names_there(found, class_names)
    images, labels, _ = folders_by_class.open_split(place, names, image_size, eval_limit)
    classes = np.flatnonzero([name in found for name in names])
    description = f"the folder {place} ({len(classes)} of the model's {len(names)} classes)"
    data = {"source": "folder", "description": description, "images": len(labels)}
    return ShiftedSet(place.name, data, images, np.searchsorted(classes, labels), classes)


def _names_there(found: Sequence[str], class_names: Sequence[str]) -> list[str]:
    """What the folders of the model's classes are called where these sub-folders are found."""
    numbered = all(name.isascii() and name.isdecimal() for name in found)
    if not numbered or set(found) <= set(class_names):
        return list(class_names)
    numbers = {name: str(number) for number, name in enumerate(sorted(class_names))}
    return [numbers[name] for name in class_names]


def evaluate(
    program: predict.Predictor, shifted_set: ShiftedSet, temperature: float | None = None
) -> dict[str, Any]:
    """Predicts a set once and measures all from the logits of the set's own classes.

    The logits of the model's other classes are left out before softmax and argmax, as in the
    published protocol of ImageNet-R and ImageNet-A: an answer is the likeliest of the set's k
    classes, and its probability is p_i / sum of p over these.

    Args:
        program: of `predict.predictor`.
        shifted_set: of `open_set`.
        temperature: fitted on held-out images; adds the calibrated measures.

    Returns:
        One entry of part "shifted" of `docs/results-schema.md`.

    Raises:
        RunError: a picture cannot be decoded, or a logit is NaN or infinite; names the set.

    Source: Hendrycks et al., The Many Faces of Robustness, ICCV 2021 (arXiv 2006.16241), and
    Natural Adversarial Examples, CVPR 2021 (arXiv 1907.07174).
    """
    logits = predict.predict(program, shifted_set.images)[:, shifted_set.classes]
    try:
        measures = results.measures(logits, shifted_set.labels, temperature)
    except checks.RunError as error:
        raise checks.RunError(f"{shifted_set.name}: {error}") from error
    return {
        **measures,
        "classes": len(shifted_set.classes),
        "data": dict(shifted_set.data),
    }
