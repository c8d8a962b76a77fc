"""Reads back the files of a run of `main.py`, in another process, and times training steps.

    python -m benchmarks.methods_check RUN_FOLDER

Writes `checked.json` into the run directory; `benchmarks.methods` calls it for each cell.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import main as program
from augmix_tf import files, runtime
from augmix_tf.errors import RunError, require
from augmix_tf.workdir import Workdir

runtime.import_tensorflow()

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

from augmix_tf.commands import build  # noqa: E402
from augmix_tf.data import pipeline  # noqa: E402
from augmix_tf.data.images import Source  # noqa: E402
from augmix_tf.data.pipeline import ONE_REPLICA, Position  # noqa: E402
from augmix_tf.export.saved_model import reference_logits, versions  # noqa: E402
from augmix_tf.training import loop  # noqa: E402
from augmix_tf.training.checkpoints import Checkpoints  # noqa: E402
from augmix_tf.training.step import Trainer  # noqa: E402

IMAGES = 8
# The same float32 sums in another order; one unit in the last place of a probability is 6e-8.
TOLERANCE = 1e-6


def check(folder: Path) -> dict[str, float]:
    """Reads back a finished run; call it in another process than the one that trained.

    The checkpoint, evaluated again, must give the metrics in `results.json`, byte for byte: they
    depend on the logits of all test images. `model.keras` and the SavedModel must give the
    probabilities of the checkpoint's classifier on 8 test images.
    """
    before = json.dumps(clean_metrics(folder))
    if program.main(["--mode=evaluate", f"--workdir={folder}"]):
        raise RunError(f"{folder} cannot be evaluated again")
    after = json.dumps(clean_metrics(folder))
    if after != before:
        raise RunError(f"Expected the metrics {before} again; received {after}")
    run = restored(folder)
    found = differences(folder, *run)
    for name, difference in found.items():
        if not difference < TOLERANCE:  # NaN differs
            raise RunError(f"Expected a {name} below {TOLERANCE}; received {difference:.3g}")
    return {**found, **step_times(folder, *run)}


def restored(folder: Path) -> tuple[Source, Trainer]:
    """Returns the data and the trainer of a run, restored from its newest checkpoint."""
    directory = Workdir(folder)
    config = directory.stored_config()
    data = build.load(config)
    trainer = build.build_trainer(config, data.source)
    checkpoints = Checkpoints(trainer, directory.checkpoints, data=data.digest)
    require(checkpoints.restore() is not None, "a checkpoint", "none")
    return data.source, trainer


def differences(folder: Path, source: Source, trainer: Trainer) -> dict[str, float]:
    """Compares both exported models with the restored one; a part of `check`."""
    images = source.test.read(slice(IMAGES))
    want = tf.nn.softmax(reference_logits(trainer.classifier, images)).numpy()
    version = tf.saved_model.load(folder / "export" / str(versions(folder)[-1]))
    served = version.signatures["serving_default"](images=tf.constant(images))
    reloaded = keras.saving.load_model(Workdir(folder).model).predict(images, verbose=0)
    return {
        "keras_difference": float(np.abs(reloaded - want).max()),
        "saved_model_difference": float(np.abs(served["probabilities"] - want).max()),
    }


def step_times(folder: Path, source: Source, trainer: Trainer) -> dict[str, float]:
    """Trains the run's first epoch again and returns the medians over its steps, in ms.

    `step_ms` has the wait for views. `step_cpu_ms`, the CPU time of all threads, depends less on
    other work on the machine. The first step, which compiles, is left out. `main.py` runs eight
    steps in one call, so `metrics.csv` has no usable throughput for a run this short.
    """
    config = Workdir(folder).stored_config()
    batches = build.training_batches(config, source, Position(), ONE_REPLICA)
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
        steps_per_epoch=pipeline.steps_per_epoch(len(source.train), config.batch_size),
        callbacks=[note],
        steps_per_call=1,
    )
    spans = np.diff(ends, axis=0)
    wall, cpu = 1e3 * np.median(spans, axis=0)
    return {"step_ms": float(wall), "step_cpu_ms": float(cpu)}


def clean_metrics(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results.json").read_text())["clean"]


if __name__ == "__main__":
    try:
        found = check(Path(sys.argv[1]))
        files.write_text_atomically(Path(sys.argv[1]) / "checked.json", json.dumps(found))
    except RunError as error:
        sys.exit(f"benchmarks.methods_check: {error}")
