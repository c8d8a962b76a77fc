"""The other implementations: Pillow, Keras and plain C, on the same images."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import itertools
import multiprocessing
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from PIL import Image

from augmix_tf.augment import fractals
from augmix_tf.data import shapes
from benchmarks import measure
from tests.oracles import pillow_augmix, pillow_mixing

if TYPE_CHECKING:
    import tensorflow as tf

Dataset: TypeAlias = "tf.data.Dataset"
Views: TypeAlias = Callable[[np.random.Generator, Any, int], Any]
"""Makes the clean view and some augmented views of one input."""


def embedded_images(side: int, count: int) -> np.ndarray:
    """Images of the embedded dataset, resized to `side`: uint8 [count, side, side, 3]."""
    images = shapes.make("test")[0][:count]
    if side == 32:
        return images
    size = (side, side)
    return np.stack([np.asarray(Image.fromarray(i).resize(size, Image.BICUBIC)) for i in images])


def keras_dataset(images: np.ndarray, batch: int) -> Dataset:
    """`keras.layers.AugMix` on whole batches, twice for two views, after Keras's crop and flip."""
    import keras
    import tensorflow as tf

    side = images.shape[1]
    crop_and_flip = keras.Sequential(
        [
            keras.layers.RandomFlip("horizontal"),
            keras.layers.ZeroPadding2D(4),
            keras.layers.RandomCrop(side, side),
        ]
    )
    layer = keras.layers.AugMix((0, 255), num_chains=3, chain_depth=2, factor=0.3)

    def views(batch_of_images):
        clean = crop_and_flip(tf.cast(batch_of_images, tf.float32), training=True)
        made = tf.stack([clean, layer(clean, training=True), layer(clean, training=True)], axis=1)
        return made * (1 / 127.5) - 1.0

    dataset = tf.data.Dataset.from_tensor_slices(images).repeat().batch(batch)
    return dataset.map(views, num_parallel_calls=tf.data.AUTOTUNE).prefetch(2)


def pillow_views(
    rng: np.random.Generator, image: np.ndarray, augmented: int, severity: float
) -> None:
    """The same as this pipeline, of one image; the number of augmented views is two."""
    pillow_augmix.training_views(rng, image, severity)


def pillow_operations(
    rng: np.random.Generator,
    image: np.ndarray,
    augmented: int,
    calls: Sequence[tuple[str, float]],
    num_ops: int,
) -> np.ndarray:
    """TrivialAugment or RandAugment of one image: some of `calls`, then Cutout of 16 pixels."""
    view = Image.fromarray(pillow_augmix.crop_and_flip(rng, image))
    for index in rng.integers(0, len(calls), num_ops):
        name, parameter = calls[index]
        if name != "identity":
            view = pillow_augmix.apply_op(view, name, parameter, 0, Image.Resampling.NEAREST)
    values = np.array(view, np.float32)
    top, left = rng.integers(-8, image.shape[0] - 8, 2)
    values[max(0, top) : top + 16, max(0, left) : left + 16] = 127.5
    return values / np.float32(127.5) - np.float32(1)


@functools.cache
def mixing_images() -> np.ndarray:
    return fractals.draw(256, 36)


def pixmix_view(rng: np.random.Generator, image: np.ndarray, augmented: int) -> np.ndarray:
    """One view of PixMix, normalised."""
    clean = Image.fromarray(pillow_augmix.crop_and_flip(rng, image))
    texture = mixing_images()[rng.integers(len(mixing_images()))]
    return pillow_mixing.pixmix(rng, clean, texture) * np.float32(2) - np.float32(1)


def ipmix_views(rng: np.random.Generator, image: np.ndarray, augmented: int) -> np.ndarray:
    """The clean view and two views of IPMix, normalised."""
    base = pillow_augmix.crop_and_flip(rng, image)
    texture = mixing_images()[rng.integers(len(mixing_images()))]
    texture = pillow_mixing.crop_of(rng, texture, base.shape[:2])
    clean = Image.fromarray(base)
    views = [base, *(pillow_mixing.ipmix(rng, clean, texture) for _ in range(augmented))]
    return np.stack(views).astype(np.float32) / np.float32(127.5) - np.float32(1)


def work(connection: Connection, inputs: Sequence[Any], views: Views, seed: int) -> None:
    """Makes the views of as many inputs as it is sent, and returns the CPU time they took.

    Each message is (inputs, augmented views); 0 inputs end the worker.
    """
    rng, endless = np.random.default_rng(seed), itertools.cycle(inputs)
    while (order := connection.recv())[0]:
        count, augmented = order
        cpu = time.process_time()
        for each in itertools.islice(endless, count):
            views(rng, each, augmented)
        connection.send(time.process_time() - cpu)


def timed(workers: Sequence[Connection], count: int, augmented: int = 2) -> dict[str, float]:
    """Lets each worker process `count` inputs; returns the throughput and CPU time of all."""
    start = time.perf_counter()
    for worker in workers:
        worker.send((count, augmented))
    cpu = sum(worker.recv() for worker in workers)
    wall, images = time.perf_counter() - start, count * len(workers)
    return {"images_per_second": images / wall, "cpu_us_per_image": 1e6 * cpu / images}


@contextlib.contextmanager
def processes(count: int, inputs: Sequence[Any], views: Views) -> Iterator[list[Connection]]:
    """Connections to `count` workers, as in a PyTorch data loader, which end with the block."""
    context = multiprocessing.get_context("spawn")
    ends = [context.Pipe() for _ in range(count)]
    started = [
        context.Process(target=work, args=(end, inputs, views, seed), daemon=True)
        for seed, (_, end) in enumerate(ends)
    ]
    for process in started:
        process.start()
    workers = [end for end, _ in ends]
    try:
        yield workers
    finally:
        for worker in workers:
            worker.send((0, 0))
        for process in started:
            process.join()


def plain_c(
    images: np.ndarray, severity: float, count: int, library: ctypes.CDLL, cores: int
) -> Callable[[], dict[str, float]]:
    """The C program on one core, or on several at once (it runs without the GIL)."""
    images = np.ascontiguousarray(np.resize(images, (count, *images.shape[1:])))
    outs = [np.empty((count, 3, *images.shape[1:]), np.float32) for _ in range(cores)]
    seeds = itertools.count(1)

    def run(out: np.ndarray) -> None:
        library.run(
            images.ctypes.data_as(ctypes.c_void_p),
            count,
            images.shape[1],
            images.shape[2],
            ctypes.c_double(severity),
            ctypes.c_uint64(next(seeds)),
            out.ctypes.data_as(ctypes.c_void_p),
        )

    def work() -> int:
        with ThreadPoolExecutor(cores) as pool:
            list(pool.map(run, outs))
        return count * cores

    return lambda: measure.timed(work)


def build_c(folder: str, *flags: str) -> ctypes.CDLL:
    """Compiles augmix.c with -O3 -march=native."""
    source, library = Path(__file__).with_name("augmix.c"), f"{folder}/augmix.so"
    command = ["cc", "-O3", "-march=native", *flags, "-shared", "-fPIC", str(source), "-lm"]
    subprocess.run([*command, "-o", library], check=True)
    return ctypes.CDLL(library)
