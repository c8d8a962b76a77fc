"""Results of a classifier on clean, corrupted, perturbed and shifted images.

Each set is predicted once; all metrics are computed from the logits.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from augmix_tf import metrics
from augmix_tf.data.benchmark import CorruptedSet, PerturbedSet
from augmix_tf.data.images import ImageStore
from augmix_tf.errors import RunError
from augmix_tf.evaluation import results
from augmix_tf.evaluation.adaptation import AdaptedClassifier
from augmix_tf.evaluation.predict import Predictor, predict, predict_batch
from augmix_tf.evaluation.sets import Benchmarks, Rates, ShiftedSet
from augmix_tf.metrics import table
from augmix_tf.robustness import (
    ALEXNET_RATES,
    IMAGENET_CLASSES,
    PERTURBATIONS,
    SEVERITIES,
    is_noise,
)

Progress = Callable[[int, int], None]
"""Called with the number of finished parts and of all parts, first with none finished."""

Cells = dict[str, list[results.ImageResults]]
"""Corruption -> results at each severity."""

NO_PROGRESS: Progress = lambda done, total: None  # noqa: E731

MAX_CONFUSION_CLASSES = 100  # a larger confusion matrix is not recorded


def measure(
    program: Predictor,
    test: ImageStore,
    class_names: Sequence[str],
    benchmarks: Benchmarks | None = None,
    temperature: results.Temperature | None = None,
    progress: Callable[[str], Progress] | None = None,
    adapted: AdaptedClassifier | None = None,
) -> results.Results:
    """Evaluates a classifier on the test images and on benchmarks.

    A temperature adds the calibrated metrics. `progress` is called with what is counted and returns
    the function to report it to. `adapted` is evaluated on the same clean and corrupted images.
    """
    sets = benchmarks or Benchmarks()
    report = progress or (lambda counted: NO_PROGRESS)
    divisor = temperature.value if temperature is not None else None
    scores = predict(program, test)
    clean = of_images(scores, test.labels, divisor)
    clean = dataclasses.replace(clean, confusion=confusion(scores, test.labels, class_names))
    parts: dict[str, Any] = {"clean": clean}
    by_adapted: dict[str, Any] = {}
    if adapted is not None:
        by_adapted["clean"] = of_images(adapted.predict(test), test.labels)
    for part, corrupted_set, counted in (
        ("corrupted", sets.corrupted, "corruptions at each severity"),
        ("cbar", sets.cbar, "C-bar corruptions at each severity"),
    ):
        if corrupted_set is not None:
            others = results.Results(**parts), results.Results(**by_adapted)
            parts[part], by_adapted[part] = corrupted(
                program, corrupted_set, divisor, others, report(counted), adapted
            )
    if adapted is not None:
        parts["adapted"] = dataclasses.replace(adapted.protocol, **by_adapted)
    if sets.perturbed is not None:
        counter = report("perturbed sequences")
        parts["perturbed"] = perturbed(
            program, sets.perturbed, alexnet=sets.alexnet, progress=counter
        )
    parts["shifted"] = {part.name: shifted(program, part, divisor) for part in sets.shifted}
    return results.Results(temperature=temperature, **parts)


@contextlib.contextmanager
def _named(part: str) -> Iterator[None]:
    """Says in a `RunError` of which part of a benchmark it is."""
    try:
        yield
    except RunError as error:
        raise RunError(f"{part}: {error}") from error


def of_images(
    logits: np.ndarray, labels: np.ndarray, temperature: float | None = None, **attributes: bool
) -> results.ImageResults:
    """Returns the results on one set of images, of the metrics with these attributes.

    Unless the temperature is None or 1, they have the metrics of logits / temperature as well.
    """
    predictions, calibrated = metrics.Predictions(logits, labels), None
    values, intervals = table.compute(table.select("images", **attributes), predictions)
    if temperature is not None and temperature != 1.0:
        scaled = metrics.Predictions(logits, labels, temperature)
        chosen = table.select("images", calibrated=True, **attributes)
        calibrated, known = table.compute(chosen, scaled)
        intervals |= {f"calibrated.{name}": interval for name, interval in known.items()}
    return results.ImageResults(
        images=len(labels),
        metrics=values,
        intervals=intervals,
        outcomes=metrics.Outcomes.of(predictions.correct, labels),
        reliability=metrics.reliability_bins(predictions.confidence, predictions.correct),
        calibrated=calibrated,
    )


def confusion(
    logits: np.ndarray, labels: np.ndarray, class_names: Sequence[str]
) -> results.Confusion | None:
    """Returns the confusion matrix of logits [M, K]; None for more than 100 classes."""
    classes = len(class_names)
    if classes > MAX_CONFUSION_CLASSES:
        return None
    cells = np.asarray(labels, np.int64) * classes + logits.argmax(axis=1)
    counts = np.bincount(cells, minlength=classes**2).reshape(classes, classes)
    return results.Confusion(list(class_names), counts.tolist())


def corrupted(
    program: Predictor,
    corrupted_set: CorruptedSet,
    temperature: float | None = None,
    others: tuple[results.Results, results.Results] = (results.Results(), results.Results()),
    progress: Progress = NO_PROGRESS,
    adapted: AdaptedClassifier | None = None,
) -> tuple[results.CorruptedResults, results.CorruptedResults | None]:
    """Evaluates a classifier, and perhaps an adapted one, on a -C or C-bar set, read once.

    Means are over severities first, then over the corruptions that the benchmark counts, as far as
    they are there; the extra ones and the replacement of frost are in no mean. `others` of both
    have the error on clean images, for the relative mCE of ImageNet-C, and on -C, for the gap of
    C-bar. The adapted classifier has no temperature.
    """
    rows: Cells = {name: [] for name in corrupted_set.names}
    adapted_rows: Cells = {name: [] for name in rows}
    total, classes = len(rows) * len(corrupted_set.severities), 0
    progress(0, total)
    for name, severity in itertools.product(rows, corrupted_set.severities):
        scores, labels = [], []
        for images, of_batch in corrupted_set.cell(name, severity):
            scores.append(predict_batch(program, images))
            labels.append(of_batch)
            if adapted is not None:
                adapted.add(images, of_batch)
        every = np.concatenate(labels)
        with _named(f"{name}, severity {severity}"):
            cell = of_images(np.concatenate(scores), every, temperature, per_severity=True)
            rows[name].append(cell)
            if adapted is not None:
                adapted_rows[name].append(of_images(adapted.take(), every, per_severity=True))
        classes = scores[0].shape[1]
        progress(sum(map(len, rows.values())), total)
    adapted_results = (
        _over_cells(corrupted_set, adapted_rows, classes, others[1]) if adapted else None
    )
    return _over_cells(corrupted_set, rows, classes, others[0]), adapted_results


def _over_cells(
    corrupted_set: CorruptedSet, cells: Cells, classes: int, others: results.Results
) -> results.CorruptedResults:
    """Returns the results on a set, with means over severities and corruptions."""
    counted = [name for name in corrupted_set.counted if name in cells]
    severities = corrupted_set.severities
    measured = results.CorruptedResults(
        data=results.Data(**corrupted_set.data),
        counted=counted,
        missing=list(corrupted_set.missing),
        corruptions=cells,
        severities=None if severities == SEVERITIES else list(severities),
    )
    comparable = counted if measured.errors_per_image(counted) is not None else ()
    per_image = {name: measured.errors_per_image([name]) for name in comparable}
    summary = metrics.CorruptionErrors(
        {name: [float(cell.metrics["error"] or 0) for cell in cells[name]] for name in counted},
        (others.clean or results.ImageResults()).metric("error"),
        classes,
        corrupted_set.counted,
        others.part("corrupted").metric("mean_error"),
        {name: row for name, row in per_image.items() if row is not None},
    )
    means, intervals = table.compute(table.select("corrupted"), summary)
    per_severity = table.select("images", per_severity=True)
    mean = {metric.name: measured.mean_over(counted, metric.name) for metric in per_severity}
    return dataclasses.replace(measured, metrics=means, intervals=intervals or None, mean=mean)


def perturbed(
    program: Predictor,
    perturbed_set: PerturbedSet,
    *,
    alexnet: Rates | None = None,
    progress: Progress = NO_PROGRESS,
) -> results.PerturbedResults:
    """Evaluates a classifier on a -P set.

    Means are over the ten perturbations of the paper, and None where one of them is missing. Of a
    network with ImageNet's 1000 classes they are also relative to AlexNet; `alexnet` has other
    rates, and is used for any network.
    """
    total, done = len(perturbed_set.names) * int(perturbed_set.data["images"]), 0
    progress(done, total)
    perturbations: dict[str, results.PerturbationResults] = {}
    per_sequence: dict[str, dict[str, np.ndarray]] = {}
    classes = 0
    for name in perturbed_set.names:
        predictions = metrics.SequencePredictions(is_noise(name))
        for chunk in perturbed_set.sequences(name):
            scores = predict_batch(program, chunk.reshape(-1, *chunk.shape[2:]))
            with _named(name):
                predictions.add(scores.reshape(*chunk.shape[:2], -1))
            done += len(chunk)
            progress(done, total)
        per_sequence[name] = predictions.per_sequence
        of_sequences, intervals = table.compute(table.select("sequences"), predictions)
        perturbations[name] = results.PerturbationResults(
            of_sequences, intervals or None, *predictions.predictions.shape
        )
        classes = scores.shape[1]
    if classes == IMAGENET_CLASSES:
        alexnet = {**ALEXNET_RATES, **(alexnet or {})}
    values = {name: row.metrics for name, row in perturbations.items()}
    rates = metrics.PerturbationRates(values, alexnet or {}, per_sequence)
    means, intervals = table.compute(table.select("perturbed"), rates)
    return results.PerturbedResults(
        data=results.Data(**perturbed_set.data),
        metrics=means,
        intervals=intervals or None,
        perturbations_counted=list(PERTURBATIONS),
        perturbations=perturbations,
    )


def shifted(
    program: Predictor, shifted_set: ShiftedSet, temperature: float | None = None
) -> results.ShiftedResults:
    """Evaluates a classifier on another test set, with the logits of the set's own classes only.

    The logits of the model's other classes are dropped before softmax and argmax, as in the
    published protocol of ImageNet-R and ImageNet-A.

    Source: Hendrycks et al., The Many Faces of Robustness, ICCV 2021 (arXiv 2006.16241), and
    Natural Adversarial Examples, CVPR 2021 (arXiv 1907.07174).
    """
    scores = predict(program, shifted_set.store)[:, shifted_set.classes]
    if scores.shape[1] == 1:  # another answer that is never given: metrics compare two or more
        scores = np.pad(scores, [(0, 0), (0, 1)], constant_values=np.finfo(np.float32).min)
    with _named(shifted_set.name):
        measured = of_images(scores, shifted_set.store.labels, temperature)
    data = results.Data(**shifted_set.data)
    return results.ShiftedResults(**vars(measured), classes=len(shifted_set.classes), data=data)
