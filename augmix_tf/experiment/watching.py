"""What a person sees of a run: progress, and its TensorBoard dashboard."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from augmix_tf.config import FREE_TO_CHANGE, ExperimentConfig
from augmix_tf.data import pipeline
from augmix_tf.data.pipeline import Position
from augmix_tf.data.sources import Source
from augmix_tf.experiment import assembly
from augmix_tf.experiment.draws import draws_of
from augmix_tf.reports import draw_plots
from augmix_tf.settings import first_and_last
from augmix_tf.training.monitoring import Monitor
from augmix_tf.training.profiling import Profile
from augmix_tf.training.progress import ProgressBar
from augmix_tf.training.records import Draws, Records
from augmix_tf.training.step import Trainer
from augmix_tf.workdir import Workdir

_PICTURES_SHOWN = 6
# What only one method looks at: of the others it would say nothing.
_OF_METHOD = {
    "mixup_alpha": "mixup",
    "cutmix_alpha": "cutmix",
    "cutmix_probability": "cutmix",
    "patch_size": "patch_uniform",
    "patch_scale": "patch_uniform",
    "adversary_epsilon": "adversarial",
    "adversary_step_size": "adversarial",
    "adversary_steps": "adversarial",
    "aug_severity": "augmix",
    "mixture_width": "augmix",
    "mixture_depth": "augmix",
    "alpha": "augmix",
    "all_ops": "augmix",
    "fill": "augmix",
    "jsd": "augmix",
    "jsd_weight": "augmix",
    "views": "augmix",
    "mix_ops": "augmix",
    "split_bn": "augmix",
}


def training(
    config: ExperimentConfig,
    folder: Workdir,
    source: Source,
    trainer: Trainer,
    start: Position,
    stack: contextlib.ExitStack,
) -> list[keras.callbacks.Callback]:
    """Logs what is known before training, and returns what shows the rest while it trains.

    Args:
        config, folder, source, trainer: of the run.
        start: where this process starts.
        stack: closes what is opened here.

    Raises:
        CommandError: `--profile_steps` behind the run's end.
        RunError: the log folder cannot be written.
    """
    train = source.train
    examples = len(train.labels)
    steps = pipeline.steps_per_epoch(examples, config.batch_size)
    callbacks: list[keras.callbacks.Callback] = []
    profiled = first_and_last("profile_steps", config.profile_steps)
    if profiled is not None:
        profile = Profile(folder.logs, profiled, steps, config.epochs)
        callbacks.append(stack.enter_context(profile))
    monitor = stack.enter_context(Monitor(folder.logs, start.epoch * steps + start.step))
    monitor.config(dataclasses.asdict(config))
    monitor.graph(_inference(trainer.classifier))
    if config.method == "augmix":
        shown = assembly.example_views(config, train.images[:_PICTURES_SHOWN])
        monitor.views(start.epoch * steps, shown)
    draws = draws_of(config, source.image_size)
    if draws is not None:
        counts = draws.operations(start.epoch)
        monitor.picture(start.epoch * steps, "drawn_operations", draw_plots.operation_bars(counts))
        callbacks.append(Draws(monitor, steps, draws.of_epoch))
    progress = ProgressBar(config.epochs, steps, examples, start)
    speed = lambda: progress.images_per_second  # noqa: E731
    records = Records(folder.metrics, monitor, examples, config.batch_size, start, speed)
    return [*callbacks, progress, records]


def measured(
    config: ExperimentConfig,
    folder: Workdir,
    results: Mapping[str, Any],
    pictures: Mapping[str, bytes],
) -> None:
    """Logs what was measured of a run, in place of what was measured before.

    Args:
        config, folder: of the run.
        results: of `results.json`.
        pictures: name -> PNG.

    Raises:
        RunError: the log folder cannot be written.
    """
    root = folder.root.resolve()
    with Monitor(folder.logs / "measured", anew=True) as monitor:
        monitor.trial(f"{root.name} in {root.parent}", _told_apart_by(config), _metrics(results))
        for name, png in pictures.items():
            monitor.picture(0, name, png)


def _told_apart_by(config: ExperimentConfig) -> dict[str, Any]:
    """The settings that say what the run trained."""
    return {
        name: value
        for name, value in dataclasses.asdict(config).items()
        if name not in FREE_TO_CHANGE and _OF_METHOD.get(name, config.method) == config.method
    }


def _metrics(results: Mapping[str, Any]) -> dict[str, float]:
    """What runs are sorted by: of the counted corruptions, the means over all severities."""
    corrupted = results.get("corrupted") or {}
    mean = corrupted.get("mean") or {}
    found = {
        "test/error": results["clean"]["error"],
        "corrupted/mean_error": corrupted.get("mean_error"),
        "corrupted/rms_calibration_error": mean.get("rms_calibration_error"),
    }
    return {tag: value for tag, value in found.items() if value is not None}


def _inference(classifier: keras.Model) -> tf.Graph:
    """What the classifier does with a batch of any size, on one device."""
    images = tf.TensorSpec([None, *classifier.input_shape[1:]], tf.float32, name="images")
    function = tf.function(lambda images: classifier(images, training=False))
    return function.get_concrete_function(images).graph
