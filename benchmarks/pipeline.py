"""Throughput of AugMix: this pipeline, Pillow, Keras and plain C, in one run on the same cores.

    python -m benchmarks.pipeline [--rounds=5] [--json=FILE] [--scaling] [--methods]

All sides make the same from the same images: crop and flip, the clean view and two augmented views
(width 3, depth 1 to 3), normalised float32. `keras.layers.AugMix` is timed as well, but it computes
something else (docs/performance.md). `--methods` times PixMix, IPMix, TrivialAugment and
RandAugment instead.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from augmix_tf import runtime
from augmix_tf.runtime import compiled
from benchmarks import measure, rivals
from benchmarks.rivals import embedded_images

if TYPE_CHECKING:
    import tensorflow as tf

    from augmix_tf.augment.method import Method
    from augmix_tf.data.images import ImageStore

WARM_UP_BATCHES, WARM_UP_SECONDS = 8, 0.3
LARGER = ((64, 64), (96, 32), (224, 16))
Dataset: TypeAlias = "tf.data.Dataset"
Run: TypeAlias = Callable[[], dict[str, float]]
# side: (severity, batch, images that each side makes in a round: ours, Pillow, Keras, C)
CASES = {32: (3.0, 128, (25600, 800, 6400, 6000)), 224: (1.0, 16, (640, 64, 320, 160))}


def normalised_batches(
    store: ImageStore,
    method: Method,
    batch: int,
    mean: np.ndarray | float,
    deviation: np.ndarray | float,
) -> Dataset:
    """Endless training batches with the normalisation that is a layer of the model in training.

    Views are (views - mean) / deviation, float32; mean and deviation on the scale 0 to 255.
    """
    import tensorflow as tf

    from augmix_tf.data import pipeline

    @compiled
    def normalise(views: tf.Tensor) -> tf.Tensor:
        return (views - mean) * (1 / deviation)

    batches = pipeline.training_batches(
        store, method, num_classes=10, run_seed=0, epochs=10**9, batch_size=batch
    )
    return batches.map(
        lambda views, labels: (normalise(views), labels), num_parallel_calls=tf.data.AUTOTUNE
    )


def our_dataset(
    images: np.ndarray, severity: float, batch: int, views: int = 3, **settings: int
) -> Dataset:
    """AugMix of images held in memory; `settings` are further fields of `AugMixMethod`."""
    runtime.import_tensorflow()  # as the program does
    from augmix_tf.augment.augmix import AugMixMethod

    method = AugMixMethod(aug_severity=severity, views=views, **settings)
    return dataset_of(images, method, batch)


def dataset_of(images: np.ndarray, method: Method, batch: int) -> Dataset:
    """Endless batches of a method's views of images held in memory."""
    from augmix_tf.data.images import InMemoryStore

    rows = np.arange(len(images))
    store = InMemoryStore(images=images, labels=np.zeros_like(rows), ids=rows)
    return normalised_batches(store, method, batch, 127.5, 127.5)


def rounds_of(dataset: Iterable, batch: int, count: int) -> Callable[[], dict[str, float]]:
    """Times `count` images of a dataset in its steady state.

    Each round has a new iterator: an old one would fill its buffers while the other sides are
    timed, and use their cores.
    """

    def run() -> dict[str, float]:
        batches = iter(dataset)
        made, began = 0, time.perf_counter()
        while made < WARM_UP_BATCHES or time.perf_counter() - began < WARM_UP_SECONDS:
            next(batches)
            made += 1

        def work() -> int:
            for _ in range(count // batch):
                next(batches)
            return count // batch * batch

        return measure.timed(work)

    return run


def compare(side: int, rounds: int, library: ctypes.CDLL) -> dict[str, dict[str, float]]:
    """Times all sides for one image size."""
    severity, batch, (n_ours, n_pillow, n_keras, n_c) = CASES[side]
    images = embedded_images(side, 256 if side == 32 else 64)
    views = functools.partial(rivals.pillow_views, severity=severity)
    with rivals.processes(2, embedded_images(side, 64), views) as workers:
        sides = {
            "this pipeline": rounds_of(our_dataset(images, severity, batch), batch, n_ours),
            "Pillow + NumPy, 2 processes": lambda: rivals.timed(workers, n_pillow),
            "Pillow + NumPy, 1 process": lambda: rivals.timed(workers[:1], n_pillow),
            "keras.layers.AugMix (not AugMix)": rounds_of(
                rivals.keras_dataset(images, batch), batch, n_keras
            ),
            "plain C, 1 core": rivals.plain_c(images, severity, n_c, library, 1),
            "plain C, 2 cores": rivals.plain_c(images, severity, n_c, library, 2),
        }
        return measure.interleaved(sides, rounds)


def print_table(side: int, figures: dict[str, dict[str, float]]) -> None:
    severity, batch, _ = CASES[side]
    print(f"\n{side} x {side}, severity {severity:g}, batch {batch}, clean + 2 views")
    print(f"{'':34}{'images/s':>10}{'us CPU/image':>14}{'x Pillow':>10}{'CPU / C':>9}")
    base = figures["Pillow + NumPy, 2 processes"]["images_per_second"]
    # Both sides use both cores: two busy cores slow each other down.
    c = figures["plain C, 2 cores"]["cpu_us_per_image"]
    for name, row in figures.items():
        speed, cost = row["images_per_second"], row["cpu_us_per_image"]
        print(f"{name:34}{speed:10.0f}{cost:14.1f}{speed / base:10.1f}{cost / c:9.2f}")


def resources(side: int) -> dict[str, float]:
    """Start-up time, memory and traces of the pipeline alone, in a new process."""
    code = (
        "import resource, sys, time\n"
        "from augmix_tf import runtime; runtime.import_tensorflow()\n"
        "from benchmarks import pipeline as p\n"
        f"severity, batch, _ = p.CASES[{side}]; images = p.embedded_images({side}, 64)\n"
        "from augmix_tf.augment import augmix\n"
        "from augmix_tf.runtime import xla_available; xla_available()\n"
        "rss = lambda: int(open('/proc/self/statm').read().split()[1]) * resource.getpagesize()\n"
        "before, start = rss(), time.perf_counter()\n"
        "batches = iter(p.our_dataset(images, severity, batch)); next(batches)\n"
        "first = time.perf_counter() - start\n"
        f"for _ in range({100 if side == 32 else 20}): next(batches)\n"
        "traces = augmix._apply_views.trace_count()\n"
        "print('FIGURES', first, (rss() - before) / 2**20, traces)\n"
    )
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    line = next(x for x in done.stdout.splitlines() if x.startswith("FIGURES"))
    first, megabytes, traces = map(float, line.split()[1:])
    return {"first_batch_seconds": first, "pipeline_megabytes": megabytes, "traces": traces}


def scaling(rounds: int) -> dict[str, dict[str, float]]:
    """Throughput and CPU time other sizes and settings instead."""

    def side(size: int, batch: int, **settings: int) -> Run:
        severity = CASES[size][0] if size in CASES else 3.0
        dataset = our_dataset(embedded_images(size, 64), severity, batch, **settings)
        return rounds_of(dataset, batch, max(8 * batch, 25600 if size == 32 else 640))

    # Sides of one group are interleaved.
    groups = [
        {f"32 px, batch {batch}": side(32, batch) for batch in (32, 128, 512)},
        {f"{size} px, batch {batch}": side(size, batch) for size, batch in LARGER},
        {f"32 px, width {n}": side(32, 128, mixture_width=n) for n in (1, 2, 4)},
        {f"32 px, depth {n}": side(32, 128, mixture_depth=n) for n in (1, 2, 3)},
        {f"32 px, {n} views": side(32, 128, views=n) for n in (2, 5)},
    ]
    return {k: v for sides in groups for k, v in measure.interleaved(sides, rounds).items()}


def later_methods(rounds: int) -> dict[str, dict[str, float]]:
    """Times methods that came later at 32 x 32, and Pillow making the same in two processes."""
    runtime.import_tensorflow()
    from augmix_tf.augment import trivialaugment as t
    from augmix_tf.augment.ipmix import IPMixMethod
    from augmix_tf.augment.pixmix import PixMixMethod

    rand = t.RandAugmentMethod()
    contenders: list[tuple[Method, Callable]] = [
        (PixMixMethod(mixing_images=1024), rivals.pixmix_view),
        (IPMixMethod(mixing_images=1024), rivals.ipmix_views),
    ]
    one = t.TrivialAugmentMethod(), range(t.LEVELS), 1, "wide"
    for method, levels, count, space in (one, (rand, [rand.magnitude], rand.num_ops, "standard")):
        drawn = itertools.product(t.SPACES[space], levels, (False, True))
        calls = [(name, t.parameter_of(name, *rest, space)) for name, *rest in drawn]
        views = functools.partial(rivals.pillow_operations, calls=calls, num_ops=count)
        contenders.append((method, views))
    figures: dict[str, dict[str, float]] = {}
    for method, views in contenders:
        with rivals.processes(2, embedded_images(32, 64), views) as workers:
            dataset = dataset_of(embedded_images(32, 256), method, 128)
            sides = {
                method.name: rounds_of(dataset, 128, 25600),
                f"{method.name}, Pillow": functools.partial(rivals.timed, workers, 1000),
            }
            figures |= measure.interleaved(sides, rounds)
    return figures


def main() -> None:
    options = measure.arguments(__doc__, rounds=5, scaling=False, methods=False).parse_args()
    document: dict[str, object] = {"machine": measure.machine(), "rounds": options.rounds}
    if options.scaling or options.methods:
        name, times = ("scaling", scaling) if options.scaling else ("methods", later_methods)
        document[name] = figures = times(options.rounds)
        for name, row in figures.items():
            cost = f"{row['cpu_us_per_image']:9.1f} us CPU/image"
            print(f"{name:24}{row['images_per_second']:10.0f} images/s{cost}")
    else:
        with tempfile.TemporaryDirectory() as folder:
            library = rivals.build_c(folder)
            for side in CASES:
                document[f"{side}"] = figures = compare(side, options.rounds, library)
                print_table(side, figures)
                document[f"{side}_alone"] = alone = resources(side)
                print(
                    f"alone: first batch after {alone['first_batch_seconds']:.1f} s, "
                    f"{alone['pipeline_megabytes']:.0f} MB, {alone['traces']:.0f} trace"
                )
    measure.save(options.json, document)


if __name__ == "__main__":
    main()
