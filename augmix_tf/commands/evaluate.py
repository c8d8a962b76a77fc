"""`--mode=evaluate`: evaluates the newest checkpoint of a run, or a saved model."""

from __future__ import annotations

import dataclasses
import datetime
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np

import augmix_tf.training.keras_model  # noqa: F401 - registers AugMixModel with Keras
from augmix_tf import metrics, robustness
from augmix_tf.commands import build, dashboard
from augmix_tf.commands.build import Data, Run
from augmix_tf.config import Devices, ExperimentConfig, Request
from augmix_tf.corruptions import catalogue
from augmix_tf.data import corrupted, perturbed
from augmix_tf.data.benchmark import CorruptedSet
from augmix_tf.data.images import Source
from augmix_tf.errors import CommandError, SettingError
from augmix_tf.evaluation import loaded, measure, predict, sets
from augmix_tf.evaluation.adaptation import AdaptedClassifier, adapted_predictor
from augmix_tf.evaluation.loaded import SavedClassifier
from augmix_tf.evaluation.predict import Predictor
from augmix_tf.evaluation.results import Results, Temperature
from augmix_tf.evaluation.sets import Benchmarks
from augmix_tf.models.torch_state import SAFETENSORS
from augmix_tf.report import adapted as adapted_report
from augmix_tf.report import run as run_report
from augmix_tf.robustness import CorruptionBenchmark
from augmix_tf.training import distribution
from augmix_tf.training.callbacks import Counter
from augmix_tf.workdir import Workdir


def run(request: Request) -> None:
    """Evaluates and writes results and report."""
    if request.model_path is not None:
        evaluate_saved(request)
        return
    restored = restored_run(request, request.devices)
    benchmarks = open_benchmarks(restored.config, restored.data)
    results = measure_run(restored, benchmarks)
    if restored.chief:
        write_results(restored, results)
        dashboard.report(restored)
    distribution.wait_for_all(restored.trainer.distribute_strategy)


def restored_run(request: Request, devices: Devices) -> Run:
    """Returns the run in `--workdir` with the weights of its newest checkpoint."""
    if request.directory is None:
        raise CommandError(f"--mode={request.mode} needs --workdir, the directory of a run.")
    directory = Workdir(request.directory)
    stored = directory.stored_config()
    strategy = build.strategy(devices)
    if distribution.is_chief(strategy):
        directory.open(stored)
    config = request.config
    build.prepare(config)
    restored = build.run(config, directory, build.load(config), strategy)
    trained = restored.checkpoints.restore()
    if trained is None:
        raise CommandError(f"{directory.root} has no checkpoint yet. Train it first.")
    if trained.epoch < config.epochs and restored.chief:
        print(f"not trained to its end: {trained.epoch} of {config.epochs} epochs", flush=True)
    return restored


def open_benchmarks(config: ExperimentConfig, data: Data) -> Benchmarks:
    """Opens what the configuration names; without a -C benchmark one is generated."""
    source, limit = data.source, config.eval_limit
    place, rates = config.perturbed_dir, config.alexnet_rates
    folders = [folder.strip() for folder in (config.shift_dirs or "").split(",") if folder.strip()]
    return Benchmarks(
        _corrupted_set(config, source, robustness.C) if config.corrupted else None,
        _corrupted_set(config, source, robustness.CBAR) if config.cbar else None,
        perturbed.open_set(place, source.image_size, limit) if place else None,
        sets.read_rates(rates) if rates else None,
        sets.open_shifted(folders, source.class_names, source.image_size, limit, config.data_dir),
    )


def measure_run(run: Run, benchmarks: Benchmarks) -> Results:
    """Returns the results of the current weights, without provenance."""
    test, names = run.data.source.test, run.data.source.class_names
    with run.trainer.distribute_strategy.scope(), distribution.reraise_as_run_error():
        calibrate(run)
        temperature, images = run.checkpoints.temperature, len(run.data.held_out)
        fitted = None if temperature is None else Temperature(temperature, images, "train")
        model = run.trainer.classifier
        size = run.data.source.image_size
        adapted = _adapted(run.config, lambda images: model(images, training=False), model, size)
        program = predict.predictor(model)
        results = measure.measure(program, test, names, benchmarks, fitted, Counter, adapted)
        if run.chief:
            warn(results)
        return results


def warn(results: Results) -> None:
    """Says on stderr what makes the results unreliable."""
    for note in adapted_report.warnings(results.adapted) if results.adapted else ():
        print(f"--adapt_bn: {note}", file=sys.stderr, flush=True)


def calibrate(run: Run) -> None:
    """Fits the temperature of the current weights, unless their checkpoint has it."""
    held_out = run.data.held_out
    if run.checkpoints.temperature is None and len(held_out):
        logits = predict.predict(predict.predictor(run.trainer.classifier), held_out)
        run.checkpoints.calibrated(metrics.fit_temperature(logits, held_out.labels))


def write_results(run: Run, results: Results) -> None:
    """Writes `results.json` with the provenance of a run."""
    config, position = run.config, run.checkpoints.position
    provenance: dict[str, Any] = {
        "dataset": config.dataset,
        "data": run.data.source.description,
        "model": config.model.name,
        "method": config.method.name,
        **run.data.prepared,
        "seed": config.seed,
        # Completed epochs; fewer than configured if the run was interrupted.
        "epochs": position.epoch,
        "step": position.step,
        "parameters": build.parameters(run.trainer),
        **distribution.describe(run.trainer.distribute_strategy),
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    if run.checkpoints.best is not None:
        provenance["best"] = run.checkpoints.best._asdict()
    dataclasses.replace(results, provenance=provenance).write(run.directory.results)


def evaluate_saved(request: Request) -> None:
    """Evaluates a saved model of any origin and writes results and report."""
    if request.directory is None:
        raise CommandError("--model_path needs --workdir, the directory for its results.")
    directory, path = Workdir(request.directory), Path(str(request.model_path))
    if directory.config.exists():
        raise CommandError(f"--model_path needs another --workdir; {directory.root} holds a run.")
    build.strategy(Devices("none"))
    if path.suffix == SAFETENSORS:
        config, data = request.config, build.load_test_images(request.config)
        model = loaded.of_keras_model(path, build.load_weights(config, data.source, path))
    else:
        model = loaded.load(path)
        config, data = _test_images(model, request)
    source, benchmarks = data.source, open_benchmarks(config, data)
    program = model.program(source.image_size, source.num_classes)
    adapted = _adapted(config, program, model.model, source.image_size)
    results = measure.measure(
        program, source.test, source.class_names, benchmarks, None, Counter, adapted
    )
    warn(results)
    provenance = {"dataset": config.dataset, "data": source.description}
    provenance |= {"model": path.name, "method": "saved model"}
    dataclasses.replace(results, provenance=provenance).write(directory.results)
    run_report.write(directory.root)
    print(run_report.results_table(directory.root))


def _test_images(model: SavedClassifier, request: Request) -> tuple[ExperimentConfig, Data]:
    """Images that vary in size come at the size of the model's own input."""
    config, side = request.config, model.image_size[0]
    if side is None:
        return config, build.load_test_images(config)
    if "image_size" in request.given and config.image_size != side:
        raise CommandError(
            f"--image_size must be {side}, the input size of {model.path}; "
            f"received {config.image_size}."
        )
    sized = config.replaced({"image_size": side})
    if not config.large:
        try:
            return config, build.load_test_images(config)
        except SettingError as error:  # a set of TFDS whose images vary in size
            if error.setting != "image_size":
                raise
    return sized, build.load_test_images(sized)


def _adapted(
    config: ExperimentConfig,
    program: Predictor,
    model: keras.Model | None,
    image_size: tuple[int, int],
) -> AdaptedClassifier | None:
    """Returns the classifier with adapted batch normalization, None if nobody asks for it."""
    if config.adapt_bn is None:
        return None
    if model is None:
        problem = "needs a .keras file; the layers of a SavedModel cannot be adapted."
        raise CommandError(f"--adapt_bn {problem}")
    adapted = adapted_predictor(program, model, image_size, config.adapt_bn)
    return AdaptedClassifier(adapted, config.adapt_bn, config.adapt_batch)


def _corrupted_set(
    config: ExperimentConfig, source: Source, kind: CorruptionBenchmark
) -> CorruptedSet:
    """Opens a -C or C-bar benchmark, or generates one."""
    is_cbar = kind == robustness.CBAR
    flag, place, names = "corrupted_dir", config.corrupted_dir, robustness.CORRUPTIONS
    if is_cbar:
        flag, place = "cbar_dir", config.cbar_dir
        names = robustness.CBAR_BENCHMARKS[catalogue.table_name(None, *source.image_size)]
    if not place:
        images = f"the test images of {source.name}"
        return sets.generate_corrupted(
            source.test, frost_dir=config.frost_dir, source=images, names=names
        )
    opened = corrupted.open_set(
        place,
        source.image_size,
        source.class_names,
        config.eval_limit,
        "canonical" if is_cbar else config.imagenet_crop,
        config.data_dir,
        kind,
    )
    if Path(place, "labels.npy").exists():
        _, labels = next(opened.cell(opened.names[0], 1))
        count = min(len(labels), len(source.test))
        if not np.array_equal(labels[:count], source.test.labels[:count]):
            raise CommandError(
                f"--{flag} must hold a {kind.title} benchmark of the test images of {source.name}; "
                f"the labels in {place} differ."
            )
    return opened
