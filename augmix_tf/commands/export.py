"""`--mode=export`: exports the newest checkpoint of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from augmix_tf.commands import evaluate
from augmix_tf.commands.build import Run
from augmix_tf.config import ExperimentConfig
from augmix_tf.data.pipeline import Position
from augmix_tf.evaluation.results import Results
from augmix_tf.export import convert, model_card
from augmix_tf.export.saved_model import Exported
from augmix_tf.export.saved_model import export as export_model
from augmix_tf.ops import decoding
from augmix_tf.report import directories
from augmix_tf.request import Devices, Request

_IMAGES_COMPARED = 6


def run(request: Request) -> None:
    """Exports the newest checkpoint, and prints which version is current."""
    check(request.config)
    restored = evaluate.restored_run(request, Devices("none"))
    evaluate.calibrate(restored)
    version, is_new = export(restored)
    if is_new:
        print(f"exported {version} and {restored.directory.model}")
    else:
        print(f"unchanged since the last export: {version} is current")


def check(config: ExperimentConfig) -> None:
    """Refuses what could not be exported, before hours of training.

    Raises:
        ArgumentError: packages for the export format are missing.
    """
    if config.export_format:
        convert.check(config.export_format)


def export(run: Run) -> Exported:
    """Writes the next version of the exported model, unless nothing changed, and its card."""
    source, classifier = run.data.source, run.trainer.classifier
    fitted = run.checkpoints.temperature
    temperature = 1.0 if fitted is None else fitted
    content = directories.read(run.directory.root)
    card = model_card.make(
        content.config,
        _results_of(run, content.results),
        source.class_names,
        source.image_size,
        temperature,
        left_out=source.train.left_out,
    )
    names, images = source.class_names, source.test.read(slice(_IMAGES_COMPARED))
    # Encoded images are prepared as the test images were.
    short_side = decoding.short_side(source.image_size) if run.config.large else None
    root, format_name = run.directory.root, run.config.export_format
    exported = export_model(classifier, names, root, temperature, card, images, short_side)
    if format_name:
        convert.convert(classifier, names, root, format_name, images, temperature)
    return exported


def _results_of(run: Run, results: Results) -> Mapping[str, Any]:
    """The results of these weights; {} where `results` are those of others."""
    of = Position(results.provenance.get("epochs", -1), results.provenance.get("step", 0))
    return results.to_json() if of == run.checkpoints.position else {}
