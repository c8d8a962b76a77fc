"""The other implementations: Pillow, Keras and plain C, on the same images."""

from __future__ import annotations

import ctypes
import itertools
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from PIL import Image

from augmix_tf.data import shapes
from benchmarks import measure
from tests.oracles import pillow_augmix

if TYPE_CHECKING:
    import tensorflow as tf

Dataset: TypeAlias = "tf.data.Dataset"


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


def pillow_worker(connection: Connection, side: int, severity: float, seed: int) -> None:
    """Makes the views of as many images as it is sent, and returns the CPU time they took."""
    rng, images = np.random.default_rng(seed), embedded_images(side, 64)
    while count := connection.recv():
        cpu = time.process_time()
        for image in itertools.islice(itertools.cycle(images), count):
            pillow_augmix.training_views(rng, image, severity)
        connection.send(time.process_time() - cpu)


def pillow(count: int, workers: list[Connection]) -> dict[str, float]:
    start = time.perf_counter()
    for worker in workers:
        worker.send(count)
    cpu = sum(worker.recv() for worker in workers)
    images = count * len(workers)
    wall = time.perf_counter() - start
    return {"images_per_second": images / wall, "cpu_us_per_image": 1e6 * cpu / images}


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
