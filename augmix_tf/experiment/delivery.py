"""What a trained run hands on: results, exports with their card, report and plots."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from augmix_tf.config import ExperimentConfig
from augmix_tf.data.pipeline import Position
from augmix_tf.evaluation import results
from augmix_tf.experiment import assembly, watching
from augmix_tf.experiment.assembly import Data
from augmix_tf.ops import encoded
from augmix_tf.reports import figures, run_files, summary, terminal
from augmix_tf.serving import convert, model_card
from augmix_tf.serving.export import export as export_model
from augmix_tf.serving.verify import reference_logits, verify
from augmix_tf.training import strategy
from augmix_tf.training.checkpoints import Checkpoints
from augmix_tf.training.step import Trainer
from augmix_tf.workdir import Workdir

_PICTURES_COMPARED = 6


def check(config: ExperimentConfig) -> None:
    """Refuses what could not be delivered, before hours of training.

    Raises:
        CommandError: packages for `--export_format` are missing.
    """
    if config.export_format:
        convert.check(config.export_format)


def write_results(
    config: ExperimentConfig,
    folder: Workdir,
    data: Data,
    trainer: Trainer,
    checkpoints: Checkpoints,
    measured: dict[str, Any],
) -> None:
    """Writes `results.json`."""
    provenance = {
        "dataset": config.dataset,
        "data": data.source.description,
        "model": config.model,
        "method": config.method,
        "seed": config.seed,
        # Whole ones; fewer than were asked for if it was interrupted.
        "epochs": checkpoints.position.epoch,
        "step": checkpoints.position.step,
        "parameters": assembly.parameters(trainer),
        **strategy.describe(trainer.distribute_strategy),
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    if checkpoints.best is not None:
        provenance["best"] = checkpoints.best._asdict()
    results.write(folder.results, measured, provenance)


def export(
    config: ExperimentConfig,
    folder: Workdir,
    data: Data,
    trainer: Trainer,
    checkpoints: Checkpoints,
) -> Path:
    """Writes the next export version with its card, once it answers as the model in memory does."""
    source, classifier = data.source, trainer.classifier
    temperature = 1.0 if checkpoints.temperature is None else checkpoints.temperature
    card = model_card.make(
        run_files.read(folder.root).config,
        _results_of(folder, checkpoints),
        source.class_names,
        source.image_size,
        temperature,
        left_out=source.train.left_out,
    )
    names, images = source.class_names, source.test.images[:_PICTURES_COMPARED]
    logits = reference_logits(classifier, images)

    def check(version: Path, keras_file: Path) -> None:
        verify(version, images, logits, keras_file, temperature)

    # Files are prepared as the test pictures were.
    short_side = encoded.short_side(source.image_size) if config.large else None
    version = export_model(
        classifier, names, folder.root, temperature, card=card, check=check, short_side=short_side
    )
    if config.export_format:
        convert.convert(classifier, names, folder.root, config.export_format, images, temperature)
    return version


def report(config: ExperimentConfig, folder: Workdir, data: Data) -> None:
    """Writes report and plots, into TensorBoard too, and prints the table."""
    summary.write(folder.root)
    run = run_files.read(folder.root)
    watching.measured(config, folder, run.results, figures.figures(run))
    print(terminal.results_table(folder.root))


def _results_of(folder: Workdir, checkpoints: Checkpoints) -> Mapping[str, Any]:
    """What was measured of these weights; nothing where it was of others."""
    measured = run_files.read(folder.root).results
    provenance = measured.get("provenance", {})
    of = Position(provenance.get("epochs", -1), provenance.get("step", 0))
    return measured if of == checkpoints.position else {}
