"""`--mode=export`: exports the newest checkpoint of a run."""

from __future__ import annotations

from augmix_tf.commands import evaluate
from augmix_tf.commands.build import Run
from augmix_tf.config import Devices, ExperimentConfig, Request
from augmix_tf.data.pipeline import Position
from augmix_tf.evaluation.results import Results
from augmix_tf.export import convert, saved_model
from augmix_tf.export.saved_model import Exported
from augmix_tf.ops import decoding
from augmix_tf.report import directories, model_card

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
    """Refuses what could not be exported, before hours of training."""
    if config.export_format:
        convert.check(config.export_format)


def export(run: Run) -> Exported:
    """Writes the next version of the exported model, unless nothing changed, and its card."""
    source, classifier, root = run.data.source, run.trainer.classifier, run.directory.root
    names, temperature = source.class_names, run.checkpoints.temperature or 1.0
    images = source.test.read(slice(_IMAGES_COMPARED))
    # Encoded images are prepared as the test images were.
    short_side = decoding.short_side(source.image_size) if run.config.large else None
    exported = saved_model.export(
        classifier, names, root, temperature, _card(run, temperature), images, short_side
    )
    if run.config.export_format:
        convert.convert(classifier, names, root, run.config.export_format, images, temperature)
    return exported


def _card(run: Run, temperature: float) -> dict[str, str]:
    source, declared = run.data.source, run.config.declared()
    paths = {name for name, setting in declared.items() if setting.path}
    settings = {n: value for n, value in run.config.settings().items() if n not in paths}
    results = directories.read(run.directory.root).results
    # Those of other weights are not this model's.
    of = Position(results.provenance.get("epochs", -1), results.provenance.get("step", 0))
    results = results if of == run.checkpoints.position else Results()
    size, left_out = source.image_size, source.train.left_out
    card = model_card.make(settings, results, source.class_names, size, temperature, left_out)
    return model_card.texts(card)
