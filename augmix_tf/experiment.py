"""The composer: a configuration goes in, a trained, measured, exported and reported run comes out.

The only module that knows all others; they know nothing of a configuration.
"""

from __future__ import annotations

import dataclasses
import datetime
from pathlib import Path

import numpy as np

from augmix_tf import quiet
from augmix_tf.checks import CommandError
from augmix_tf.config import ExperimentConfig
from augmix_tf.workdir import Workdir, default_root

quiet.import_tensorflow()

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402

from augmix_tf import models  # noqa: E402
from augmix_tf.augment import augmix_views, methods  # noqa: E402
from augmix_tf.data import pipeline, sources  # noqa: E402
from augmix_tf.data.pipeline import Position  # noqa: E402
from augmix_tf.evaluation import predict, results  # noqa: E402
from augmix_tf.metrics import error_rate  # noqa: E402
from augmix_tf.models.classifier import CIFAR_NORMALIZATION, with_normalization  # noqa: E402
from augmix_tf.reports import pictures, summary, terminal  # noqa: E402
from augmix_tf.serving.export import export as export_model  # noqa: E402
from augmix_tf.serving.verify import reference_logits, verify  # noqa: E402
from augmix_tf.training import loop  # noqa: E402
from augmix_tf.training.checkpoints import Checkpoints  # noqa: E402
from augmix_tf.training.monitoring import Monitor  # noqa: E402
from augmix_tf.training.optimizer import CoupledSGD  # noqa: E402
from augmix_tf.training.progress import ProgressBar  # noqa: E402
from augmix_tf.training.records import Records, TestError  # noqa: E402
from augmix_tf.training.schedules import CosineToFloor  # noqa: E402
from augmix_tf.training.step import Trainer  # noqa: E402

_PICTURES_SHOWN = 6
# What a finished run may be looked at with, without being another run.
_FREE_FOR_EVALUATION = {"eval_limit", "data_dir", "download"}


def run(mode: str, config: ExperimentConfig, given: frozenset[str], root: Path | None) -> None:
    """Carries out a request.

    Args:
        mode: `train`, `evaluate`, `export` or `views`.
        config: the recipe with the user's changes.
        given: names of the settings that the user gave.
        root: the run's folder; None: one of its own under `runs/`.

    Raises:
        CommandError: the request is wrong.
        RunError: it could not be carried out.
        Interrupted: a signal stopped it; the same request again goes on.
    """
    if mode == "views":
        save_views(config, root)
        return
    if mode == "train":
        train(config, Workdir(root or default_root(config)))
        return
    if root is None:
        raise CommandError(f"--mode={mode} wants --workdir, the folder of a run")
    folder = Workdir(root)
    stored = folder.stored_config()
    config = _as_stored(stored, config, given)
    folder.open(stored)
    {"evaluate": evaluate, "export": export}[mode](config, folder)


def train(config: ExperimentConfig, folder: Workdir) -> None:
    """Trains, evaluates, exports and reports; goes on where an earlier process stopped."""
    _prepare(config)
    source = _load(config)
    trainer = _build(config, source)
    folder.open(config)
    print(_one_line(config, source, trainer, folder), flush=True)
    checkpoints = Checkpoints(trainer, folder.checkpoints)
    start = checkpoints.restore() or Position()
    if start.epoch < config.epochs:
        folder.report.unlink(missing_ok=True)
        if start != Position():
            print(f"going on at epoch {start.epoch + 1}, step {start.step + 1}", flush=True)
        _train(config, folder, source, trainer, checkpoints, start)
    elif folder.results.exists() and folder.report.exists():
        print(f"trained before; another --workdir than {folder.root} trains anew")
        print(terminal.results_table(folder.root))
        return
    _measure(config, folder, source, trainer)
    _export(folder, source, trainer)
    summary.write(folder.root)
    print(terminal.results_table(folder.root))


def evaluate(config: ExperimentConfig, folder: Workdir) -> None:
    """Measures the newest checkpoint again and writes results and report."""
    source, trainer = _restored(config, folder)
    _measure(config, folder, source, trainer)
    summary.write(folder.root)
    print(terminal.results_table(folder.root))


def export(config: ExperimentConfig, folder: Workdir) -> None:
    """Writes a new export version from the newest checkpoint."""
    source, trainer = _restored(config, folder)
    version = _export(folder, source, trainer)
    print(f"exported {version} and {folder.model}")


def save_views(config: ExperimentConfig, root: Path | None) -> None:
    """Draws some training images and their augmented views."""
    if config.method != "augmix":
        raise CommandError(f"--mode=views shows AugMix, got --method={config.method}")
    source = _load(dataclasses.replace(config, train_limit=config.train_limit or 64))
    shown = source.train.images[:_PICTURES_SHOWN]
    views = _example_views(config, shown)
    names = [source.class_names[label] for label in source.train.labels[: len(shown)]]
    path = pictures.save_views((root or Path()) / "views.png", views, names)
    print(f"wrote {path}: {len(shown)} images of {source.description}, {views.shape[1]} views")


def _prepare(config: ExperimentConfig) -> None:
    keras.utils.set_random_seed(config.seed)
    keras.mixed_precision.set_global_policy(config.precision)
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()


def _load(config: ExperimentConfig) -> sources.Source:
    return sources.load(
        config.dataset,
        config.data_dir,
        config.download,
        train_limit=config.train_limit,
        eval_limit=config.eval_limit,
    )


def _build(config: ExperimentConfig, source: sources.Source) -> Trainer:
    """The untrained model with its optimiser."""
    backbone = models.build(
        config.model,
        source.num_classes,
        (*source.image_size, 3),
        seed=config.seed,
        **config.model_options,
    )
    trainer = Trainer(with_normalization(backbone, *CIFAR_NORMALIZATION), config.jsd_weight)
    steps = pipeline.steps_per_epoch(len(source.train.labels), config.batch_size)
    rate = CosineToFloor(config.learning_rate, config.epochs * steps)
    optimizer = CoupledSGD(rate, weight_decay=config.weight_decay)
    if config.precision == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    trainer.compile(optimizer=optimizer)
    return trainer


def _views_of(config: ExperimentConfig) -> methods.Views:
    if config.method == "standard":
        return methods.standard(config.seed)
    if not config.jsd:
        return methods.augmix_without_jsd(config.seed, config.augmix)
    return methods.augmix(config.seed, config.augmix, config.views)


def _example_views(config: ExperimentConfig, images: np.ndarray) -> np.ndarray:
    return augmix_views(images, config.seed, 0, 0, config.augmix, max(config.views, 2)).numpy()


def _train(
    config: ExperimentConfig,
    folder: Workdir,
    source: sources.Source,
    trainer: Trainer,
    checkpoints: Checkpoints,
    start: Position,
) -> None:
    images, labels = source.train.images, source.train.labels
    steps = pipeline.steps_per_epoch(len(labels), config.batch_size)
    batches = pipeline.training_batches(
        images,
        labels,
        _views_of(config),
        run_seed=config.seed,
        epochs=config.epochs,
        batch_size=config.batch_size,
        start=start,
    )
    program = predict.predictor(trainer.classifier)

    def test_error() -> float:
        return error_rate(predict.predict(program, source.test.images), source.test.labels)

    with Monitor(folder.logs, start.epoch * steps + start.step) as monitor:
        monitor.config(dataclasses.asdict(config))
        monitor.views(start.epoch * steps, _example_views(config, images[:_PICTURES_SHOWN]))
        progress = ProgressBar(config.epochs, steps, len(labels), start)
        loop.train(
            trainer,
            batches,
            epochs=config.epochs,
            steps_per_epoch=steps,
            start=start,
            callbacks=[
                TestError(test_error),
                progress,
                Records(folder.metrics, monitor, steps, start, lambda: progress.images_per_second),
            ],
            save=checkpoints.save,
        )


def _restored(config: ExperimentConfig, folder: Workdir) -> tuple[sources.Source, Trainer]:
    _prepare(config)
    source = _load(config)
    trainer = _build(config, source)
    if Checkpoints(trainer, folder.checkpoints).restore() is None:
        raise CommandError(f"nothing is trained in {folder.root} yet: want {folder.checkpoints}")
    return source, trainer


def _measure(
    config: ExperimentConfig, folder: Workdir, source: sources.Source, trainer: Trainer
) -> None:
    """Evaluates on the test images and writes `results.json`."""
    logits = predict.predict(predict.predictor(trainer.classifier), source.test.images)
    provenance = {
        "dataset": config.dataset,
        "data": source.description,
        "model": config.model,
        "method": config.method,
        "seed": config.seed,
        "epochs": config.epochs,
        "parameters": _parameters(trainer),
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    measured = {"clean": results.clean(logits, source.test.labels)}
    results.write(folder.results, measured, provenance)


def _export(folder: Workdir, source: sources.Source, trainer: Trainer) -> Path:
    """Writes the next export version and compares it with the model in memory."""
    version = export_model(trainer.classifier, source.class_names, folder.root)
    images = source.test.images[:_PICTURES_SHOWN]
    verify(version, images, reference_logits(trainer.classifier, images))
    return version


def _parameters(trainer: Trainer) -> int:
    return sum(int(np.prod(weight.shape)) for weight in trainer.trainable_variables)


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
    return dataclasses.replace(stored, **free)


def _one_line(
    config: ExperimentConfig, source: sources.Source, trainer: Trainer, folder: Workdir
) -> str:
    size = "".join(f" {name}={value}" for name, value in config.model_options.items())
    method = config.method
    if method == "augmix":
        method += f" (severity {config.aug_severity:g}, width {config.mixture_width}, "
        method += f"JSD x {config.jsd_weight:g})" if config.jsd else "no JSD)"
    return (
        f"{config.dataset} {len(source.train.labels)}+{len(source.test.labels)} images | "
        f"{config.model}{size}, {_parameters(trainer):,} parameters | {method} | "
        f"{config.epochs} epochs of batch {config.batch_size} | {config.precision} | "
        f"seed {config.seed} | {folder.root}"
    )
