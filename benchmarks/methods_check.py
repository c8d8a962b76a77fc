"""Reads back what a run of `main.py` left, in a process that did not train it, and times steps.

    python -m benchmarks.methods_check RUN_FOLDER

Writes `checked.json` into the run's folder; `benchmarks.methods` calls it for each cell.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import main as program
from augmix_tf import files, quiet
from augmix_tf.checks import RunError, require
from augmix_tf.workdir import Workdir

quiet.import_tensorflow()

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

from augmix_tf.data import pipeline  # noqa: E402
from augmix_tf.data.sources import Source  # noqa: E402
from augmix_tf.experiment import assembly  # noqa: E402
from augmix_tf.serving.export import versions  # noqa: E402
from augmix_tf.serving.verify import reference_logits  # noqa: E402
from augmix_tf.training import loop  # noqa: E402
from augmix_tf.training.checkpoints import Checkpoints  # noqa: E402
from augmix_tf.training.step import Trainer  # noqa: E402

PICTURES = 8
# The same float32 sums in another order; one unit in the last place of a probability is 6e-8.
TOLERANCE = 1e-6


def check(folder: Path) -> dict[str, float]:
    """Reads back a finished run; to be called in another process than the one that trained.

    The checkpoint, evaluated again, must give the measures that `results.json` has, byte by byte:
    they are sums over the logits of all test pictures. `model.keras` and the SavedModel must give
    the probabilities of the checkpoint's classifier on 8 test pictures.

    Returns:
        `keras_difference` and `saved_model_difference`, the largest of a probability; what
        `step_times` returns.

    Raises:
        RunError: other measures, or a difference of 1e-6 or more.
    """
    before = json.dumps(clean_measures(folder))
    if program.main(["--mode=evaluate", f"--workdir={folder}"]):
        raise RunError(f"{folder} cannot be evaluated again")
    after = json.dumps(clean_measures(folder))
    if after != before:
        raise RunError(f"want the measures {before} again, got {after}")
    run = restored(folder)
    found = differences(folder, *run)
    for name, difference in found.items():
        if not difference < TOLERANCE:  # NaN differs
            raise RunError(f"want a {name} below {TOLERANCE}, got {difference:.3g}")
    return {**found, **step_times(folder, *run)}


def restored(folder: Path) -> tuple[Source, Trainer]:
    """Returns the data and the trainer of a run, with the values of its newest checkpoint."""
    place = Workdir(folder)
    config = place.stored_config()
    data = assembly.load(config)
    trainer = assembly.build(config, data.source)
    checkpoints = Checkpoints(trainer, place.checkpoints, data=data.digest)
    require(checkpoints.restore() is not None, "a checkpoint", "none")
    return data.source, trainer


def differences(folder: Path, source: Source, trainer: Trainer) -> dict[str, float]:
    """Compares both exported models with the restored one; a part of `check`."""
    images = source.test.images[:PICTURES]
    want = tf.nn.softmax(reference_logits(trainer.classifier, images)).numpy()
    version = tf.saved_model.load(folder / "export" / str(versions(folder)[-1]))
    served = version.signatures["serving_default"](images=tf.constant(images))
    reloaded = keras.saving.load_model(Workdir(folder).model).predict(images, verbose=0)
    return {
        "keras_difference": float(np.abs(reloaded - want).max()),
        "saved_model_difference": float(np.abs(served["probabilities"] - want).max()),
    }


def step_times(folder: Path, source: Source, trainer: Trainer) -> dict[str, float]:
    """Trains the run's first epoch once more and returns the medians over its steps, in ms.

    One step at a time, the first one, which compiles, left out. `main.py` takes eight steps in one
    call, too few for a speed in `metrics.csv`.

    Returns:
        `step_ms`, the wait for views included, and `step_cpu_ms`, the processor time of all
        threads, those that make views too: what other work on the machine changes less.
    """
    config = Workdir(folder).stored_config()
    images, labels = source.train.images, source.train.labels
    batches = pipeline.training_batches(
        images,
        labels,
        assembly.method_of(config, source.num_classes),
        run_seed=config.seed,
        epochs=1,
        batch_size=config.batch_size,
    )
    ends: list[tuple[float, float]] = []
    note = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: ends.append(
            (time.perf_counter(), time.process_time())
        )
    )
    loop.train(
        trainer,
        batches,
        epochs=1,
        steps_per_epoch=pipeline.steps_per_epoch(len(labels), config.batch_size),
        callbacks=[note],
        steps_per_call=1,
    )
    spans = np.diff(ends, axis=0)
    wall, cpu = 1e3 * np.median(spans, axis=0)
    return {"step_ms": float(wall), "step_cpu_ms": float(cpu)}


def clean_measures(folder: Path) -> dict[str, Any]:
    """Returns what a run's `results.json` says of the clean test pictures."""
    return json.loads((folder / "results.json").read_text())["clean"]


if __name__ == "__main__":
    try:
        found = check(Path(sys.argv[1]))
        files.write_text_atomically(Path(sys.argv[1]) / "checked.json", json.dumps(found))
    except RunError as error:
        sys.exit(f"benchmarks.methods_check: {error}")
