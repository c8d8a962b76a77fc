"""Results of a classifier on clean, corrupted, perturbed and shifted images.

Each set is predicted once; all metrics are computed from the logits.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from augmix_tf import errors, metrics
from augmix_tf.data.benchmark import CorruptedSet, PerturbedSet
from augmix_tf.data.images import ImageStore
from augmix_tf.evaluation import predict
from augmix_tf.evaluation.results import (
    Confusion,
    CorruptedResults,
    Data,
    ImageResults,
    PerturbationResults,
    PerturbedResults,
    Results,
    ShiftedResults,
    Temperature,
)
from augmix_tf.evaluation.shifted import ShiftedSet
from augmix_tf.metrics import (
    CorruptionErrors,
    PerturbationRates,
    Predictions,
    SequencePredictions,
    reliability_bins,
    table,
)
from augmix_tf.robustness import CORRUPTIONS, PERTURBATIONS, SEVERITIES, is_noise

Progress = Callable[[int, int], None]
"""Called with the number of finished parts and of all parts, first with none finished."""
Rates = Mapping[str, Mapping[str, float]]
"""Of a baseline network: "flip_probability", "top5_distance" -> perturbation -> value."""

# A larger confusion matrix is not recorded.
MAX_CONFUSION_CLASSES = 100


@dataclasses.dataclass(frozen=True)
class Benchmarks:
    """What a classifier is evaluated on besides the test images.

    Attributes:
        corrupted: of `data.corrupted.open_set` or `generated.corrupted_set`.
        perturbed: of `data.perturbed.open_set`.
        alexnet: of `baseline.read_rates`.
        shifted: of `shifted.open_sets`.
    """

    corrupted: CorruptedSet | None = None
    perturbed: PerturbedSet | None = None
    alexnet: Rates | None = None
    shifted: Sequence[ShiftedSet] = ()


def measure(
    program: predict.Predictor,
    test: ImageStore,
    class_names: Sequence[str],
    benchmarks: Benchmarks | None = None,
    temperature: Temperature | None = None,
    progress: Callable[[str], Progress] | None = None,
) -> Results:
    """Evaluates a classifier on the test images and on benchmarks.

    Args:
        program: of `predict.predictor`.
        test: test images with their labels.
        class_names: K of them, in the order of the logits.
        benchmarks: to evaluate as well.
        temperature: fitted on held-out images; adds the calibrated metrics.
        progress: called with what is counted; returns the function to report it to.

    Returns:
        The results without provenance.

    Raises:
        FileError: a file is damaged.
        RunError: a logit is NaN or infinite.
    """
    sets = benchmarks or Benchmarks()
    report = progress or (lambda counted: lambda done, total: None)
    divisor = temperature.value if temperature is not None else None
    logits = predict.predict(program, test)
    clean = of_images(logits, test.labels, divisor)
    clean = dataclasses.replace(clean, confusion=confusion(logits, test.labels, class_names))
    results = Results(clean=clean, temperature=temperature)
    if sets.corrupted is not None:
        counter = report("corruptions at each severity")
        found = corrupted(
            program, sets.corrupted, divisor, clean_error=clean.metrics["error"], progress=counter
        )
        results = dataclasses.replace(results, corrupted=found)
    if sets.perturbed is not None:
        counter = report("perturbed sequences")
        sequences = perturbed(program, sets.perturbed, alexnet=sets.alexnet, progress=counter)
        results = dataclasses.replace(results, perturbed=sequences)
    others = {part.name: shifted(program, part, divisor) for part in sets.shifted}
    return dataclasses.replace(results, shifted=others)


def fit_temperature(program: predict.Predictor, held_out: ImageStore) -> float | None:
    """Returns the temperature fitted on held-out images; None where there are none."""
    if not len(held_out):
        return None
    return metrics.fit_temperature(predict.predict(program, held_out), held_out.labels)


def of_images(
    logits: np.ndarray, labels: np.ndarray, temperature: float | None = None
) -> ImageResults:
    """Returns the results on one set of images.

    Args:
        logits: float [M, K].
        labels: int [M].
        temperature: fitted on held-out images. Unless it is None or 1, the result has the metrics
            of logits / temperature as well.

    Raises:
        ArgumentError: a temperature that is not above 0, or shapes that do not fit.
        RunError: a logit is NaN or infinite.
    """
    predictions, calibrated = Predictions(logits, labels), None
    if temperature is not None and temperature != 1.0:
        scaled = Predictions(logits, labels, temperature)
        calibrated = table.compute(table.select("images", calibrated=True), scaled)
    return ImageResults(
        images=len(labels),
        metrics=table.compute(table.select("images"), predictions),
        reliability=reliability_bins(predictions.confidence, predictions.correct),
        calibrated=calibrated,
    )


def confusion(
    logits: np.ndarray, labels: np.ndarray, class_names: Sequence[str]
) -> Confusion | None:
    """Returns the confusion matrix; None for more than 100 classes.

    Args:
        logits: float [M, K].
        labels: int [M].
        class_names: K of them.
    """
    classes = len(class_names)
    if classes > MAX_CONFUSION_CLASSES:
        return None
    cells = np.asarray(labels, np.int64) * classes + logits.argmax(axis=1)
    counts = np.bincount(cells, minlength=classes**2).reshape(classes, classes)
    return Confusion(list(class_names), counts.tolist())


def corrupted(
    program: predict.Predictor,
    corrupted_set: CorruptedSet,
    temperature: float | None = None,
    *,
    clean_error: float | None = None,
    progress: Progress | None = None,
) -> CorruptedResults:
    """Evaluates a classifier on a -C set.

    Means are over severities first, then over the 15 corruptions of the benchmark, as far as they
    are there; the extra ones and the replacement of frost are in no mean.

    Args:
        program: of `predict.predictor`.
        corrupted_set: of `data.corrupted.open_set` or `generated.corrupted_set`.
        temperature: fitted on held-out images; adds the calibrated metrics.
        clean_error: on the clean images, 0..1, for the relative mCE of ImageNet-C.
        progress: counts each corruption at each severity.

    Raises:
        FileError: a file is damaged.
        RunError: a logit is NaN or infinite; names the corruption and severity.
    """
    report = progress or (lambda done, total: None)
    total = len(corrupted_set.names) * len(SEVERITIES)
    report(0, total)
    cells: dict[str, list[ImageResults]] = {name: [] for name in corrupted_set.names}
    per_severity = [metric.name for metric in table.select("images", per_severity=True)]
    classes = 0
    for name, row in cells.items():
        for severity in SEVERITIES:
            batches = corrupted_set.cell(name, severity)
            logits, labels = predict.predict_labelled(program, batches)
            try:
                found = of_images(logits, labels, temperature)
            except errors.RunError as error:
                raise errors.RunError(f"{name}, severity {severity}: {error}") from error
            kept = {key: found.metrics[key] for key in per_severity}
            row.append(dataclasses.replace(found, metrics=kept))
            classes = logits.shape[1]
            report(sum(map(len, cells.values())), total)
    counted = [name for name in CORRUPTIONS if name in cells]
    values = {name: [float(cell.metrics["error"] or 0) for cell in cells[name]] for name in counted}
    summary = CorruptionErrors(values, clean_error, classes)
    results = CorruptedResults(
        data=Data(**corrupted_set.data),
        metrics=table.compute(table.select("corrupted"), summary),
        counted=counted,
        missing=[name for name in CORRUPTIONS if name not in cells],
        corruptions=cells,
    )
    means = {name: results.mean_over(counted, name) for name in per_severity}
    return dataclasses.replace(results, mean=means)


def perturbed(
    program: predict.Predictor,
    perturbed_set: PerturbedSet,
    *,
    alexnet: Rates | None = None,
    progress: Progress | None = None,
) -> PerturbedResults:
    """Evaluates a classifier on a -P set.

    Means are over the ten perturbations of the paper, and None where one of them is missing.

    Args:
        program: of `predict.predictor`.
        perturbed_set: of `data.perturbed.open_set`.
        alexnet: of `baseline.read_rates`; adds the means relative to AlexNet.
        progress: counts sequences.

    Raises:
        FileError: a file is damaged.
        RunError: a logit is NaN or infinite; names the perturbation.
    """
    report = progress or (lambda done, total: None)
    total = len(perturbed_set.names) * int(perturbed_set.data["images"])
    done = 0
    report(done, total)
    found: dict[str, PerturbationResults] = {}
    for name in perturbed_set.names:
        predictions = SequencePredictions(is_noise(name))
        for chunk in perturbed_set.sequences(name):
            try:
                predictions.add(predict.predict_sequences(program, chunk))
            except errors.RunError as error:
                raise errors.RunError(f"{name}: {error}") from error
            done += len(chunk)
            report(done, total)
        values = table.compute(table.select("sequences"), predictions)
        found[name] = PerturbationResults(values, *predictions.predictions.shape)
    rates = PerturbationRates({name: row.metrics for name, row in found.items()}, alexnet or {})
    return PerturbedResults(
        data=Data(**perturbed_set.data),
        metrics=table.compute(table.select("perturbed"), rates),
        perturbations_counted=list(PERTURBATIONS),
        perturbations=found,
    )


def shifted(
    program: predict.Predictor, shifted_set: ShiftedSet, temperature: float | None = None
) -> ShiftedResults:
    """Evaluates a classifier on another test set, with the logits of the set's own classes only.

    The logits of the model's other classes are dropped before softmax and argmax, as in the
    published protocol of ImageNet-R and ImageNet-A.

    Args:
        program: of `predict.predictor`.
        shifted_set: of `shifted.open_set`.
        temperature: fitted on held-out images; adds the calibrated metrics.

    Raises:
        RunError: an image cannot be decoded, or a logit is NaN or infinite; names the set.

    Source: Hendrycks et al., The Many Faces of Robustness, ICCV 2021 (arXiv 2006.16241), and
    Natural Adversarial Examples, CVPR 2021 (arXiv 1907.07174).
    """
    logits = predict.predict(program, shifted_set.store)[:, shifted_set.classes]
    try:
        found = of_images(logits, shifted_set.store.labels, temperature)
    except errors.RunError as error:
        raise errors.RunError(f"{shifted_set.name}: {error}") from error
    fields = {field.name: getattr(found, field.name) for field in dataclasses.fields(found)}
    data = Data(**shifted_set.data)
    return ShiftedResults(**fields, classes=len(shifted_set.classes), data=data)
