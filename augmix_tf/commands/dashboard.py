"""What a person sees of a run: progress in the terminal and the TensorBoard dashboard."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

import keras
import tensorflow as tf

from augmix_tf.augment.method import BatchShape, Histogram
from augmix_tf.commands.build import Run
from augmix_tf.commands.views import views_png
from augmix_tf.config import parse_steps
from augmix_tf.data import pipeline
from augmix_tf.data.pipeline import Position
from augmix_tf.errors import SettingError
from augmix_tf.evaluation.results import Results
from augmix_tf.evaluation.values import scalars
from augmix_tf.report import directories
from augmix_tf.report import run as run_report
from augmix_tf.seeds import BatchSeeds
from augmix_tf.training.callbacks import Monitor, Profile, Progress, Records


def callbacks(
    run: Run, start: Position, stack: contextlib.ExitStack
) -> list[keras.callbacks.Callback]:
    """Logs what is known before training and returns the callbacks that show the rest.

    `stack` closes what is opened here.
    """
    config, train = run.config, run.data.source.train
    steps = pipeline.steps_per_epoch(len(train), config.batch_size)
    callbacks: list[keras.callbacks.Callback] = []
    profiled = parse_steps(config.profile_steps)
    if profiled is not None:
        if profiled[1] > steps * config.epochs:
            problem = f"must be within the {steps * config.epochs} steps of the run; received "
            raise SettingError("profile_steps", f"{problem}{config.profile_steps}.")
        profile = Profile(run.directory.logs, profiled, steps)
        stack.callback(profile.close)
        callbacks.append(profile)
    first_step = start.epoch * steps
    monitor = stack.enter_context(Monitor(run.directory.logs, first_step + start.step))
    monitor.graph(_inference_graph(run.trainer.classifier))
    monitor.image(first_step, "views", views_png(config, run.data.source))
    if first_draws := draws(run, start.epoch):

        def log(epoch: int, logs: dict[str, float] | None = None) -> None:
            drawn = first_draws if epoch == start.epoch else draws(run, epoch)
            monitor.histograms(epoch * steps, drawn)

        callbacks.append(keras.callbacks.LambdaCallback(on_epoch_begin=log))
    progress = Progress(config.epochs, steps, config.batch_size, start)
    stack.callback(progress.close)
    records = Records(run.directory.metrics, monitor, steps, start, progress)
    return [*callbacks, progress, records]


def draws(run: Run, epoch: int) -> dict[str, Histogram]:
    """Returns histograms of what the method draws for the first batch of an epoch."""
    config, method = run.config, run.config.method
    shape = BatchShape(config.batch_size, run.data.source.image_size)
    return method.histograms(method.draw(BatchSeeds(config.seed, epoch, 0), shape))


def report(run: Run) -> None:
    """Writes report and plots of a finished run, into TensorBoard too, and prints the table."""
    content = directories.read(run.directory.root)
    figures = run_report.figures(content)
    run_report.write(content.folder, figures)
    log_results(run, content.results, figures)
    print(run_report.results_table(content.folder))


def log_results(run: Run, results: Results, figures: Mapping[str, bytes]) -> None:
    """Logs results and figures of a run, replacing those of an earlier evaluation."""
    root = run.directory.root.resolve()
    with Monitor(run.directory.logs / "measured", anew=True) as monitor:
        identity = run.config.identifying()
        monitor.trial(f"{root.name} in {root.parent}", identity, scalars(results))
        for name, png in figures.items():
            monitor.image(0, name, png)


def _inference_graph(classifier: keras.Model) -> tf.Graph:
    """What the classifier computes for a batch of any size, on one device."""
    images = tf.TensorSpec([None, *classifier.input_shape[1:]], tf.float32, name="images")
    function = tf.function(lambda images: classifier(images, training=False))
    return function.get_concrete_function(images).graph
