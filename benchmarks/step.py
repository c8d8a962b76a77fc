"""Cost of AugMix in training: a step with one view against a step with three.

    python -m benchmarks.step [--rounds=5] [--models=wrn-16-1,wrn-40-2] [--deterministic]
                              [--json=FILE]

Times whole steps, with the real pipeline and training step, in float32 and bfloat16, and how long a
step waits for its data. Three views should cost at most three forward and backward passes.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from augmix_tf import models
from augmix_tf.augment.augmix import AugMixMethod
from augmix_tf.augment.method import StandardMethod
from augmix_tf.data import pipeline, sources
from augmix_tf.models import CIFAR_NORMALIZATION, with_normalization
from augmix_tf.training.optimizer import CoupledSGD
from augmix_tf.training.step import Trainer
from benchmarks import measure

STEPS = 6


def build(name: str) -> keras.Model:
    """Builds `wrn-16-1`, `wrn-40-2`, ... or another model by name."""
    kind, *sizes = name.split("-")
    options = dict(zip(("depth", "widen_factor"), map(int, sizes), strict=False))
    backbone = models.build(kind, 10, seed=0, **options)
    return with_normalization(backbone, *CIFAR_NORMALIZATION)


def side(name: str, views: int, precision: str, batch: int) -> Callable[[], dict[str, float]]:
    """Times steps of one model; each round has an iterator of its own."""
    keras.mixed_precision.set_global_policy(precision)
    trainer = Trainer(build(name))
    trainer.compile(optimizer=CoupledSGD(0.01))
    keras.mixed_precision.set_global_policy("float32")
    method = AugMixMethod(views=views) if views > 1 else StandardMethod()
    source = sources.load("shapes")
    dataset = pipeline.training_batches(
        source.train,
        method,
        num_classes=source.num_classes,
        run_seed=0,
        epochs=10**9,
        batch_size=batch,
    )
    step = tf.function(trainer.train_step)

    def run() -> dict[str, float]:
        batches = iter(dataset)
        float(step(next(batches))["loss"])
        waited, start = 0.0, time.perf_counter()
        for _ in range(STEPS):
            asked = time.perf_counter()
            data = next(batches)
            waited += time.perf_counter() - asked
            float(step(data)["loss"])
        whole = time.perf_counter() - start
        del batches  # stops the pipeline's background threads
        start = time.perf_counter()
        for _ in range(STEPS):
            float(step(data)["loss"])
        alone = (time.perf_counter() - start) / STEPS
        return {
            "step_ms": 1e3 * alone,
            "with_pipeline_ms": 1e3 * whole / STEPS,
            "waiting_percent": 100 * waited / whole,
            "images_per_second": batch * STEPS / whole,
        }

    return run


def main() -> None:
    options = measure.arguments(
        __doc__,
        models="wrn-16-1,wrn-40-2",
        precisions="float32,mixed_bfloat16",
        rounds=5,
        batch=128,
        deterministic=False,
    ).parse_args()
    document: dict[str, object] = {"machine": measure.machine(), "rounds": options.rounds}
    document["deterministic"] = options.deterministic
    if options.deterministic:
        keras.utils.set_random_seed(0)
        tf.config.experimental.enable_op_determinism()
    for name in options.models.split(","):
        for precision in options.precisions.split(","):
            sides = {f"{v} views": side(name, v, precision, options.batch) for v in (1, 3)}
            figures = measure.interleaved(sides, options.rounds)
            document[f"{name} {precision}"] = figures
            ratio = np.divide(*(figures[f"{v} views"]["step_ms"] for v in (3, 1)))
            print(f"\n{name}, {precision}, batch {options.batch}: 3 views / 1 view = {ratio:.2f}")
            for views, row in figures.items():
                print(
                    f"  {views}: step {row['step_ms']:.0f} ms, with the pipeline "
                    f"{row['with_pipeline_ms']:.0f} ms ({row['images_per_second']:.0f} images/s), "
                    f"waiting for data {row['waiting_percent']:.1f} %"
                )
            measure.save(options.json, document)


if __name__ == "__main__":
    main()
