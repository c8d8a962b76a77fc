"""One run: trained, measured, exported and reported, in its folder."""

from __future__ import annotations

import dataclasses
import datetime
from pathlib import Path
from typing import Any

from augmix_tf import metrics
from augmix_tf.checks import CommandError
from augmix_tf.config import FREE_TO_CHANGE, ExperimentConfig
from augmix_tf.data import pipeline
from augmix_tf.data.pipeline import Position
from augmix_tf.evaluation import predict, results
from augmix_tf.experiment import assembly, measuring
from augmix_tf.experiment.assembly import Data
from augmix_tf.experiment.measuring import Sets
from augmix_tf.reports import figures, run_files, summary, terminal
from augmix_tf.serving.export import export as export_model
from augmix_tf.serving.verify import reference_logits, verify
from augmix_tf.training import loop
from augmix_tf.training.checkpoints import Checkpoints
from augmix_tf.training.monitoring import Monitor
from augmix_tf.training.progress import ProgressBar
from augmix_tf.training.records import Records, TestError
from augmix_tf.training.step import Trainer
from augmix_tf.workdir import Workdir

_PICTURES_SHOWN = 6
# What a finished run may be looked at with, without being another run.
_FREE_FOR_EVALUATION = {"eval_limit", *FREE_TO_CHANGE}


def train(config: ExperimentConfig, folder: Workdir) -> None:
    """Trains, evaluates, exports and reports; goes on where an earlier process stopped."""
    assembly.prepare(config)
    data = assembly.load(config)
    # Opened now, so that a wrong folder is not found out after hours of training.
    sets = measuring.open_sets(config, data)
    trainer = assembly.build(config, data.source)
    folder.open(config)
    print(_one_line(config, data, trainer, folder), flush=True)
    checkpoints = Checkpoints(trainer, folder.checkpoints)
    start = checkpoints.restore() or Position()
    if start.epoch < config.epochs:
        folder.report.unlink(missing_ok=True)
        if start != Position():
            print(f"going on at epoch {start.epoch + 1}, step {start.step + 1}", flush=True)
        _train(config, folder, data, trainer, checkpoints, start)
    elif all(path.exists() for path in (folder.results, folder.report, folder.model)):
        print(f"trained before; another --workdir than {folder.root} trains anew,")
        print(f"--mode=evaluate --workdir={folder.root} measures again")
        print(terminal.results_table(folder.root))
        return
    trained = Position(config.epochs)
    _export(folder, data, trainer, _measure(config, folder, data, trainer, sets, trained))
    _report(config, folder, data)


def evaluate(config: ExperimentConfig, folder: Workdir, given: frozenset[str]) -> None:
    """Measures the newest checkpoint again and writes results and report."""
    config, data, trainer, trained = _restored(config, folder, given)
    _measure(config, folder, data, trainer, measuring.open_sets(config, data), trained)
    _report(config, folder, data)


def export(config: ExperimentConfig, folder: Workdir, given: frozenset[str]) -> None:
    """Writes a new export version from the newest checkpoint."""
    config, data, trainer, _ = _restored(config, folder, given)
    temperature = measuring.temperature(predict.predictor(trainer.classifier), data)
    version = _export(folder, data, trainer, 1.0 if temperature is None else temperature)
    print(f"exported {version} and {folder.model}")


def _train(
    config: ExperimentConfig,
    folder: Workdir,
    data: Data,
    trainer: Trainer,
    checkpoints: Checkpoints,
    start: Position,
) -> None:
    train, test = data.source.train, data.source.test
    steps = pipeline.steps_per_epoch(len(train.labels), config.batch_size)
    batches = pipeline.training_batches(
        train.images,
        train.labels,
        assembly.method_of(config, data.source.num_classes),
        run_seed=config.seed,
        epochs=config.epochs,
        batch_size=config.batch_size,
        start=start,
    )
    program = predict.predictor(trainer.classifier)

    def test_error() -> float:
        return metrics.error_rate(predict.predict(program, test.images), test.labels)

    with Monitor(folder.logs, start.epoch * steps + start.step) as monitor:
        monitor.config(dataclasses.asdict(config))
        if config.method == "augmix":
            shown = assembly.example_views(config, train.images[:_PICTURES_SHOWN])
            monitor.views(start.epoch * steps, shown)
        progress = ProgressBar(config.epochs, steps, len(train.labels), start)
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


def _restored(
    config: ExperimentConfig, folder: Workdir, given: frozenset[str]
) -> tuple[ExperimentConfig, Data, Trainer, Position]:
    """A run, looked at again with the settings that may differ then, and how far it is trained."""
    stored = folder.stored_config()
    config = _as_stored(stored, config, given)
    folder.open(stored)
    assembly.prepare(config)
    data = assembly.load(config)
    trainer = assembly.build(config, data.source)
    trained = Checkpoints(trainer, folder.checkpoints).restore()
    if trained is None:
        raise CommandError(f"nothing is trained in {folder.root} yet: want {folder.checkpoints}")
    if trained.epoch < config.epochs:
        print(f"not trained to its end: {trained.epoch} of {config.epochs} epochs", flush=True)
    return config, data, trainer, trained


def _measure(
    config: ExperimentConfig,
    folder: Workdir,
    data: Data,
    trainer: Trainer,
    sets: Sets,
    trained: Position,
) -> float:
    """Writes `results.json` and returns the temperature."""
    program = predict.predictor(trainer.classifier)
    temperature = measuring.temperature(program, data)
    measured = measuring.measure(program, data, sets, temperature)
    results.write(folder.results, measured, _provenance(config, data, trainer, trained))
    return 1.0 if temperature is None else temperature


def _provenance(
    config: ExperimentConfig, data: Data, trainer: Trainer, trained: Position
) -> dict[str, Any]:
    return {
        "dataset": config.dataset,
        "data": data.source.description,
        "model": config.model,
        "method": config.method,
        "seed": config.seed,
        "epochs": trained.epoch,  # whole ones; fewer than were asked for if it was interrupted
        "parameters": assembly.parameters(trainer),
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _export(folder: Workdir, data: Data, trainer: Trainer, temperature: float) -> Path:
    """Writes the next export version and compares it with the model in memory."""
    version = export_model(trainer.classifier, data.source.class_names, folder.root, temperature)
    images = data.source.test.images[:_PICTURES_SHOWN]
    verify(version, images, reference_logits(trainer.classifier, images))
    return version


def _report(config: ExperimentConfig, folder: Workdir, data: Data) -> None:
    """Writes report and plots, into TensorBoard too, and prints the table."""
    summary.write(folder.root)
    steps = config.epochs * pipeline.steps_per_epoch(
        len(data.source.train.labels), config.batch_size
    )
    with Monitor(folder.logs, steps) as monitor:
        for name, png in figures.figures(run_files.read(folder.root)).items():
            monitor.picture(steps, name, png)
    print(terminal.results_table(folder.root))


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
    if method == "augmix":
        method += f" (severity {config.aug_severity:g}, width {config.mixture_width}, "
        method += f"JSD x {config.jsd_weight:g})" if config.jsd else "no JSD)"
    return (
        f"{config.dataset} {len(source.train.labels)}+{len(source.test.labels)} images | "
        f"{config.model}{size}, {assembly.parameters(trainer):,} parameters | {method} | "
        f"{config.epochs} epochs of batch {config.batch_size} | {config.precision} | "
        f"seed {config.seed} | {folder.root}"
    )
