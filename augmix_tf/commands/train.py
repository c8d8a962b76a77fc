"""`--mode=train`: trains, evaluates, exports and reports a run; resumes it where it stopped."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import keras
import tensorflow as tf

from augmix_tf import files, metrics, recipes
from augmix_tf.commands import build, dashboard, evaluate, export
from augmix_tf.commands.build import Run
from augmix_tf.config import ExperimentConfig, Request
from augmix_tf.data import pipeline
from augmix_tf.data.pipeline import Position
from augmix_tf.errors import CommandError
from augmix_tf.evaluation import predict
from augmix_tf.report import comparison
from augmix_tf.report import run as run_report
from augmix_tf.settings import values_of
from augmix_tf.training import distribution, loop
from augmix_tf.workdir import Workdir, default_root

_COMPARED = ("standard", "augmix")


def run(request: Request) -> None:
    """Trains one run, or the two of the quick start."""
    devices = build.strategy(request.devices)
    if request.quick_start:
        quick_start(request.config, devices)
    else:
        directory = request.directory or default_root(request.config)
        train(request.config, Workdir(directory), devices)


def quick_start(config: ExperimentConfig, devices: tf.distribute.Strategy) -> None:
    """Trains with standard augmentation and with AugMix, and compares both."""
    roots = []
    for method in _COMPARED:
        chosen = recipes.with_method(config, method)
        roots.append(default_root(chosen))
        train(chosen, Workdir(roots[-1]), devices)
    if distribution.is_chief(devices):
        folder = Path("runs") / "quick_start"
        written = comparison.write(roots, folder)
        summary = json.dumps(comparison.summary(roots), indent=2) + "\n"
        files.write_text_atomically(folder / "summary.json", summary)
        print(comparison.comparison_table(roots))
        print(f"\n  comparison with plots: {written}")
        print("  views as a PNG:        python main.py --mode=views")
        print("  the paper's network:   python main.py --dataset=cifar10 --model=wrn")


def train(config: ExperimentConfig, directory: Workdir, devices: tf.distribute.Strategy) -> None:
    """Trains, evaluates, exports and reports; resumes where an earlier process stopped.

    All of several workers train and evaluate; the chief does the rest.
    """
    export.check(config)
    config = build.decided(config, directory)
    build.prepare(config)
    data = build.load(config)
    data.require_training_images()
    # Opened now, so that a wrong directory is not found out after hours of training.
    benchmarks = evaluate.open_benchmarks(config, data)
    run = build.run(config, directory, data, devices)
    stored_epochs = directory.open(config) if run.chief else config.epochs
    distribution.require_same(devices, "settings", config.shared_by_workers())
    distribution.require_same(devices, "training data", str(data.digest))
    if run.chief:
        print(_summary_line(run), flush=True)
    start = run.checkpoints.restore() or Position()
    distribution.require_same(devices, "checkpoints", str(start))
    if config.epochs > stored_epochs:
        _check_extension(config, stored_epochs, start)
        directory.extend(config)
    if start.epoch < config.epochs:
        _train(run, start)
    elif all(path.exists() for path in (directory.results, directory.report, directory.model)):
        _print_finished(run)
        return
    results = evaluate.measure_run(run, benchmarks)
    if run.chief:
        evaluate.write_results(run, results)
        export.export(run)
        dashboard.report(run)
    distribution.wait_for_all(devices)


def _train(run: Run, start: Position) -> None:
    config, source = run.config, run.data.source
    devices = run.trainer.distribute_strategy
    program = predict.predictor(run.trainer.classifier)
    if run.chief:
        run.directory.report.unlink(missing_ok=True)
    if run.chief and start != Position():
        print(f"resuming at epoch {start.epoch + 1}, step {start.step + 1}", flush=True)

    def measure_test_error(epoch: int, logs: dict[str, float]) -> None:
        logits = predict.predict(program, source.test)
        logs["test_error"] = metrics.error_rate(logits, source.test.labels)

    with contextlib.ExitStack() as stack:
        callbacks = [keras.callbacks.LambdaCallback(on_epoch_end=measure_test_error)]
        if run.chief:
            callbacks += dashboard.callbacks(run, start, stack)
        stack.enter_context(devices.scope())
        stack.enter_context(source.train.unreadable_named())
        loop.train(
            run.trainer,
            distribution.distribute(
                devices, lambda part: build.training_batches(config, source, start, part)
            ),
            epochs=config.epochs,
            steps_per_epoch=pipeline.steps_per_epoch(len(source.train), config.batch_size),
            start=start,
            callbacks=callbacks,
            save=run.checkpoints.save,
            checkpoint_steps=config.checkpoint_steps,
        )


def _check_extension(config: ExperimentConfig, epochs: int, trained: Position) -> None:
    """Refuses more epochs where steps already trained may have had other learning rates."""
    if config.schedule != "constant" and trained != Position():
        raise CommandError(
            f"--epochs must stay {epochs}; received {config.epochs}. The {config.schedule} "
            "schedule of the learning rate depends on it. Use another --workdir; a run with "
            "--schedule=constant can always be extended."
        )


def _print_finished(run: Run) -> None:
    """Shows a run that needs no more training."""
    root, export_format = run.directory.root, run.config.export_format
    if export_format:
        raise CommandError(
            f"{root} is already trained. Export it with "
            f"--mode=export --workdir={root} --export_format={export_format}."
        )
    if run.chief:
        print(f"{root} is already trained. Use another --workdir to train again, or")
        print(f"--mode=evaluate --workdir={root} to evaluate again.")
        print(run_report.results_table(root))


def _summary_line(run: Run) -> str:
    """Returns what is trained, in one line."""
    config, source = run.config, run.data.source
    sizes = "".join(f" {n}={v}" for n, v in values_of(config.model).items())
    replicas = run.trainer.distribute_strategy.num_replicas_in_sync
    epochs = "1 epoch" if config.epochs == 1 else f"{config.epochs} epochs"
    return (
        f"{config.dataset} {len(source.train)}+{len(source.test)} images | "
        f"{config.model.name}{sizes}, {build.parameters(run.trainer):,} parameters | "
        f"{config.method.label(config.settings())} | {epochs} of batch "
        f"{config.batch_size} | {config.precision} | replicas {replicas} | seed {config.seed} | "
        f"{run.directory.root}"
    )
