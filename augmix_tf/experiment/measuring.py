"""What a classifier is measured on, and how: clean, corrupted, perturbed and other images."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from augmix_tf import metrics
from augmix_tf.checks import CommandError
from augmix_tf.config import ExperimentConfig
from augmix_tf.data import corrupted, perturbed
from augmix_tf.data.benchmark import CorruptedSet, PerturbedSet
from augmix_tf.data.sources import Source
from augmix_tf.evaluation import corrupted as on_corrupted
from augmix_tf.evaluation import generated, predict, results, shifted
from augmix_tf.evaluation import perturbed as on_perturbed
from augmix_tf.experiment.assembly import Data
from augmix_tf.training.progress import Counter


class Sets(NamedTuple):
    """What a run is measured on beside the test images."""

    corrupted: CorruptedSet | None
    perturbed: PerturbedSet | None
    alexnet: on_perturbed.Rates | None
    shifted: list[shifted.ShiftedSet]


def open_sets(config: ExperimentConfig, data: Data) -> Sets:
    """Opens what the configuration names; without a -C set it is made of the test images."""
    place, rates = config.perturbed_dir, config.alexnet_rates
    return Sets(
        _corrupted_set(config, data),
        perturbed.open_set(place, data.source.image_size, config.eval_limit) if place else None,
        on_perturbed.read_rates(rates) if rates else None,
        _shifted_sets(config, data.source),
    )


def measure(
    program: predict.Predictor, data: Data, sets: Sets, temperature: float | None
) -> dict[str, Any]:
    """Returns all parts of `results.json` but the provenance."""
    test = data.source.test
    logits = predict.predict(program, test.images)
    clean = results.measures(logits, test.labels, temperature)
    confusion = results.confusion(logits, test.labels, data.source.class_names)
    measured: dict[str, Any] = {"clean": clean | confusion}
    if temperature is not None:
        images = len(data.held_out.labels)
        measured["temperature"] = {"value": temperature, "images": images, "held_out_of": "train"}
    if sets.corrupted is not None:
        measured["corrupted"] = on_corrupted.evaluate(
            program,
            sets.corrupted,
            temperature=temperature,
            clean_error=clean["error"],
            progress=Counter("corruptions at each severity"),
        )
    if sets.perturbed is not None:
        measured["perturbed"] = on_perturbed.evaluate(
            program, sets.perturbed, alexnet=sets.alexnet, progress=Counter("perturbed sequences")
        )
    if sets.shifted:
        measured["shifted"] = {
            found.name: shifted.evaluate(program, found, temperature) for found in sets.shifted
        }
    return measured


def temperature(program: predict.Predictor, data: Data) -> float | None:
    """Fits what logits are divided by in probabilities; None where nothing was held out."""
    if not len(data.held_out.labels):
        return None
    logits = predict.predict(program, data.held_out.images)
    return metrics.fit_temperature(logits, data.held_out.labels)


def _corrupted_set(config: ExperimentConfig, data: Data) -> CorruptedSet | None:
    if not config.corrupted:
        return None
    source = data.source
    if config.corrupted_dir:
        opened = corrupted.open_set(
            config.corrupted_dir,
            source.image_size,
            source.num_classes,
            config.eval_limit,
            source.class_names,
            config.imagenet_crop,
            config.data_dir,
        )
        _check_labels(opened, config.corrupted_dir, source)
        return opened
    return generated.corrupted_set(
        source.test.images,
        source.test.labels,
        ids=source.test.ids,
        frost_dir=config.frost_dir,
        what=f"the test images of {source.name}",
    )


def _shifted_sets(config: ExperimentConfig, source: Source) -> list[shifted.ShiftedSet]:
    folders = [place.strip() for place in (config.shift_dirs or "").split(",")]
    named = [folder for folder in folders if folder]
    return shifted.open_sets(named, source.class_names, source.image_size, config.eval_limit)


def _check_labels(opened: CorruptedSet, place: str, source: Source) -> None:
    """Refuses `.npy` files that were made of other images: their labels are the test set's."""
    if not (Path(place) / "labels.npy").exists():
        return
    _, labels = next(opened.cell(opened.names[0], 1))
    count = min(len(labels), len(source.test.labels))
    if not np.array_equal(labels[:count], source.test.labels[:count]):
        raise CommandError(
            f"want a -C set of the test images of {source.name}, got {place}, whose labels are not "
            "theirs"
        )
