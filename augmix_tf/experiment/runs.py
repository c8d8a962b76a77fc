"""One run: trained, measured, exported and reported, in its folder."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any, TypeAlias

import keras
import tensorflow as tf

from augmix_tf import metrics
from augmix_tf.checks import CommandError
from augmix_tf.config import FREE_TO_CHANGE, ExperimentConfig
from augmix_tf.data import pipeline
from augmix_tf.data.pipeline import Position, Share
from augmix_tf.evaluation import predict
from augmix_tf.experiment import assembly, delivery, measuring, watching
from augmix_tf.experiment.assembly import Data
from augmix_tf.experiment.measuring import Sets
from augmix_tf.reports import terminal
from augmix_tf.training import loop, strategy, workers
from augmix_tf.training.checkpoints import Checkpoints
from augmix_tf.training.records import TestError
from augmix_tf.training.step import Trainer
from augmix_tf.workdir import Workdir

Devices: TypeAlias = tf.distribute.Strategy

# What a finished run may be looked at with, without being another run.
_FREE_FOR_EVALUATION = {"eval_limit", *FREE_TO_CHANGE}


def train(config: ExperimentConfig, folder: Workdir, devices: Devices) -> None:
    """Trains, evaluates, exports and reports; goes on where an earlier process stopped.

    With several workers all of them train and measure, and the chief does what is left.
    """
    delivery.check(config)
    assembly.prepare(config)
    data = assembly.load(config)
    data.require_training()
    # Opened now, so that a wrong folder is not found out after hours of training.
    sets = measuring.open_sets(config, data)
    trainer = assembly.build(config, data.source, devices)
    chief = strategy.is_chief(devices)
    epochs_before = folder.open(config) if chief else config.epochs
    strategy.require_same(devices, "settings", config.of_all_workers())
    strategy.require_same(devices, "training data", str(data.digest))
    if chief:
        print(_one_line(config, data, trainer, folder), flush=True)
    checkpoints = Checkpoints(trainer, folder.checkpoints, chief, data.digest)
    start = checkpoints.restore() or Position()
    strategy.require_same(devices, "checkpoints", str(start))
    if config.epochs > epochs_before:
        examples = len(data.source.train.labels)
        assembly.check_extension(config, epochs_before, start, examples)
        folder.extend(config)
    if start.epoch < config.epochs:
        if chief:
            _begin(folder, start)
        _train(config, folder, data, trainer, checkpoints, start)
    elif all(path.exists() for path in (folder.results, folder.report, folder.model)):
        if config.export_format:
            raise CommandError(
                f"{folder.root} is trained: want --mode=export for --export_format="
                f"{config.export_format}, got --mode=train"
            )
        if chief:
            print(f"trained before; another --workdir than {folder.root} trains anew,")
            print(f"--mode=evaluate --workdir={folder.root} measures again")
            print(terminal.results_table(folder.root))
        return
    measured = _measure(config, data, trainer, sets, checkpoints)
    if chief:
        delivery.write_results(config, folder, data, trainer, checkpoints, measured)
        delivery.export(config, folder, data, trainer, checkpoints)
        delivery.report(config, folder, data)
    strategy.wait_for_all(devices)


def evaluate(
    config: ExperimentConfig, folder: Workdir, given: frozenset[str], devices: Devices
) -> None:
    """Measures the newest checkpoint again and writes results and report."""
    config, data, trainer, checkpoints = _restored(config, folder, given, devices)
    sets = measuring.open_sets(config, data)
    measured = _measure(config, data, trainer, sets, checkpoints)
    if strategy.is_chief(devices):
        delivery.write_results(config, folder, data, trainer, checkpoints, measured)
        delivery.report(config, folder, data)
    strategy.wait_for_all(devices)


def export(
    config: ExperimentConfig, folder: Workdir, given: frozenset[str], devices: Devices
) -> None:
    """Writes a new export version from the newest checkpoint."""
    delivery.check(config)
    config, data, trainer, checkpoints = _restored(config, folder, given, devices)
    _calibrate(data, trainer, checkpoints)
    version = delivery.export(config, folder, data, trainer, checkpoints)
    print(f"exported {version} and {folder.model}")


def _begin(folder: Workdir, start: Position) -> None:
    folder.report.unlink(missing_ok=True)
    if start != Position():
        print(f"going on at epoch {start.epoch + 1}, step {start.step + 1}", flush=True)


def _train(
    config: ExperimentConfig,
    folder: Workdir,
    data: Data,
    trainer: Trainer,
    checkpoints: Checkpoints,
    start: Position,
) -> None:
    devices = trainer.distribute_strategy
    train, test = data.source.train, data.source.test
    program = predict.predictor(trainer.classifier)

    def test_error() -> float:
        return metrics.error_rate(predict.predict(program, test.images), test.labels)

    with contextlib.ExitStack() as stack:
        callbacks: list[keras.callbacks.Callback] = [TestError(test_error)]
        if strategy.is_chief(devices):
            callbacks += watching.training(config, folder, data.source, trainer, start, stack)
        stack.enter_context(devices.scope())
        stack.enter_context(train.explained())
        loop.train(
            trainer,
            strategy.distribute(devices, lambda share: _batches(config, data, start, share)),
            epochs=config.epochs,
            steps_per_epoch=pipeline.steps_per_epoch(len(train.labels), config.batch_size),
            start=start,
            callbacks=callbacks,
            save=checkpoints.save,
            checkpoint_steps=config.checkpoint_steps,
        )


def _batches(
    config: ExperimentConfig, data: Data, start: Position, share: Share | None
) -> tf.data.Dataset:
    train = data.source.train
    crop = assembly.crop_of(train.images)
    return pipeline.training_batches(
        train.images,
        train.labels,
        assembly.method_of(config, data.source.num_classes, crop),
        run_seed=config.seed,
        epochs=config.epochs,
        batch_size=config.batch_size,
        start=start,
        share=share,
    )


def _restored(
    config: ExperimentConfig, folder: Workdir, given: frozenset[str], devices: Devices
) -> tuple[ExperimentConfig, Data, Trainer, Checkpoints]:
    """A run, looked at again with the settings that may differ then, as far as it is trained."""
    stored = folder.stored_config()
    config = _as_stored(stored, config, given)
    chief = strategy.is_chief(devices)
    if chief:
        folder.open(stored)
    assembly.prepare(config)
    data = assembly.load(config)
    trainer = assembly.build(config, data.source, devices)
    checkpoints = Checkpoints(trainer, folder.checkpoints, chief, data.digest)
    trained = checkpoints.restore()
    if trained is None:
        raise CommandError(f"nothing is trained in {folder.root} yet: want {folder.checkpoints}")
    if trained.epoch < config.epochs and chief:
        print(f"not trained to its end: {trained.epoch} of {config.epochs} epochs", flush=True)
    return config, data, trainer, checkpoints


def _measure(
    config: ExperimentConfig,
    data: Data,
    trainer: Trainer,
    sets: Sets,
    checkpoints: Checkpoints,
) -> dict[str, Any]:
    """Returns what `results.json` says of these weights."""
    with trainer.distribute_strategy.scope(), workers.explained():
        _calibrate(data, trainer, checkpoints)
        program = predict.predictor(trainer.classifier)
        return measuring.measure(program, data, sets, checkpoints.temperature)


def _calibrate(data: Data, trainer: Trainer, checkpoints: Checkpoints) -> None:
    """Fits the temperature of these weights, unless their checkpoint has it."""
    if checkpoints.temperature is not None:
        return
    fitted = measuring.temperature(predict.predictor(trainer.classifier), data)
    if fitted is not None:
        checkpoints.calibrated(fitted)


def _as_stored(
    stored: ExperimentConfig, config: ExperimentConfig, given: frozenset[str]
) -> ExperimentConfig:
    """The stored run, with what may differ when it is looked at again."""
    asked = {name: getattr(config, name) for name in given}
    for name, value in asked.items():
        if name not in _FREE_FOR_EVALUATION and value != getattr(stored, name):
            raise CommandError(
                f"the run has --{name}={getattr(stored, name)}, got --{name}={value}"
            )
    free = {name: value for name, value in asked.items() if name in _FREE_FOR_EVALUATION}
    if "corrupted" not in given and given & {"corrupted_dir", "frost_dir"}:
        free["corrupted"] = True  # who names a set wants it measured
    return dataclasses.replace(stored, **free)


def _one_line(config: ExperimentConfig, data: Data, trainer: Trainer, folder: Workdir) -> str:
    size = "".join(f" {name}={value}" for name, value in config.model_options.items())
    source, method = data.source, config.method
    devices = strategy.describe(trainer.distribute_strategy)
    several = f"{devices['replicas']} replicas ({devices['strategy']}) | "
    if method == "augmix":
        method += f" (severity {config.aug_severity:g}, width {config.mixture_width}, "
        method += f"JSD x {config.jsd_weight:g})" if config.jsd else "no JSD)"
    return (
        f"{config.dataset} {len(source.train.labels)}+{len(source.test.labels)} images | "
        f"{config.model}{size}, {assembly.parameters(trainer):,} parameters | {method} | "
        f"{config.epochs} epochs of batch {config.batch_size} | {config.precision} | "
        f"{several if devices['replicas'] > 1 else ''}"
        f"seed {config.seed} | {folder.root}"
    )
