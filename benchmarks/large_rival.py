"""ImageNet's training views as the authors make them: Pillow and NumPy, image by image.

Shares no code with the package. Each worker is a process, as in a PyTorch data loader.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import multiprocessing
import time
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection

import numpy as np
from PIL import Image

from tests.oracles import pillow_augmix

SEVERITY = 1.0
AUGMENTED_VIEWS = 2
SCALE, RATIO, ATTEMPTS = (0.08, 1.0), (3 / 4, 4 / 3), 10

Normalization = tuple[Sequence[float], Sequence[float]]
"""Mean and standard deviation of each channel, on the scale 0 to 1."""


def window(rng: np.random.Generator, width: int, height: int) -> tuple[int, int, int, int]:
    """A random window by torchvision's rule, as Pillow's box: left, top, right, bottom."""
    for _ in range(ATTEMPTS):
        area = width * height * rng.uniform(*SCALE)
        ratio = math.exp(rng.uniform(math.log(RATIO[0]), math.log(RATIO[1])))
        own_width, own_height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < own_width <= width and 0 < own_height <= height:
            left = int(rng.integers(width - own_width + 1))
            top = int(rng.integers(height - own_height + 1))
            return left, top, left + own_width, top + own_height
    own_width = min(width, round(height * RATIO[1]))
    own_height = min(height, round(width / RATIO[0]))
    left, top = (width - own_width) // 2, (height - own_height) // 2
    return left, top, left + own_width, top + own_height


def views(
    rng: np.random.Generator,
    path: str,
    size: tuple[int, int],
    normalization: Normalization,
    augmented: int,
) -> np.ndarray:
    """Clean and augmented views of one file, normalised: float32 [1 + augmented, H, W, 3]."""
    with Image.open(path) as file:
        whole = file.convert("RGB")
    image = whole.crop(window(rng, *whole.size)).resize(size[::-1], Image.Resampling.BILINEAR)
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    made = [np.asarray(image, np.float32)]
    made += [pillow_augmix.augmented_view(rng, image, SEVERITY) for _ in range(augmented)]
    mean, deviation = np.array(normalization, np.float32)
    return (np.stack(made) / np.float32(255) - mean) / deviation


def work(
    connection: Connection,
    paths: Sequence[str],
    size: tuple[int, int],
    normalization: Normalization,
    seed: int,
) -> None:
    """Makes the views of as many images as it is sent, and returns the CPU time they took.

    Each message is (images, augmented views); 0 images end the worker.
    """
    rng = np.random.default_rng(seed)
    endless = itertools.cycle(paths)
    while (order := connection.recv())[0]:
        count, augmented = order
        cpu = time.process_time()
        for path in itertools.islice(endless, count):
            views(rng, path, size, normalization, augmented)
        connection.send(time.process_time() - cpu)


def timed(workers: Sequence[Connection], count: int, augmented: int) -> dict[str, float]:
    """Lets each worker process `count` images; returns the throughput and CPU time of all."""
    start = time.perf_counter()
    for worker in workers:
        worker.send((count, augmented))
    cpu = sum(worker.recv() for worker in workers)
    wall, images = time.perf_counter() - start, count * len(workers)
    return {"images_per_second": images / wall, "cpu_us_per_image": 1e6 * cpu / images}


@contextlib.contextmanager
def processes(
    count: int, paths: Sequence[str], size: tuple[int, int], normalization: Normalization
) -> Iterator[list[Connection]]:
    """Connections to `count` workers, which end with the block."""
    context = multiprocessing.get_context("spawn")
    ends = [context.Pipe() for _ in range(count)]
    started = [
        context.Process(target=work, args=(end, paths, size, normalization, seed), daemon=True)
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
