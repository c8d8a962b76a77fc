"""Readers of -P sets: CIFAR's `.npy` files and ImageNet-P's videos."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from augmix_tf import errors, robustness
from augmix_tf.data import benchmark, class_folders
from augmix_tf.data.benchmark import PerturbedSet

_BENCHMARK = "perturbations"
# The last ones are evaluated where a set has them, but enter no mean of the paper.
PERTURBATIONS = (
    *robustness.PERTURBATIONS,
    *robustness.EXTRA_PERTURBATIONS,
    *robustness.HARDER_PERTURBATIONS,
)


def open_set(place: str | Path, image_size: tuple[int, int], eval_limit: int = 0) -> PerturbedSet:
    """Opens a -P set; its files are checked, the frames are read when they are asked for.

    Args:
        place: a folder with CIFAR's files (`<perturbation>.npy` uint8 [N, T, H, W, 3]) or with
            ImageNet-P's (`<perturbation>/<class>/*.mp4`, perturbations right in it or in the
            groups blur, digital, noise, weather, extra, validation). T may be any number from 2.
        image_size: (H, W) of the model. Videos are cut to it around their centre.
        eval_limit: how many sequences of each perturbation to take, from the first; 0 takes all.
    """
    folder = benchmark.folder_of(place)
    names = benchmark.array_names(folder, PERTURBATIONS, _BENCHMARK)
    if names:
        return _open_arrays(folder, names, image_size, eval_limit)
    folders = benchmark.find(folder, PERTURBATIONS)
    expected = (
        "a folder with <perturbation>.npy files (CIFAR-P), or with folders <perturbation>/<class> "
        "of mp4 files (ImageNet-P), where <perturbation> is gaussian_noise, ..."
    )
    errors.require(bool(folders), expected, f"{folder} with none of them")
    return _open_videos(folder, folders, image_size, eval_limit)


def _open_arrays(
    folder: Path, names: Sequence[str], image_size: tuple[int, int], limit: int
) -> PerturbedSet:
    def fits(array: np.ndarray) -> bool:
        shape = array.shape
        sound = array.dtype == np.uint8 and len(shape) == 5 and shape[2:] == (*image_size, 3)
        return sound and shape[0] > 0 and shape[1] > 1

    expected = f"uint8 [N, T, {image_size[0]}, {image_size[1]}, 3], T of 2 or more"
    arrays = benchmark.open_arrays(folder, names, expected, fits)
    used = benchmark.taken(len(next(iter(arrays.values()))), limit)

    def sequences(name: str) -> Iterator[np.ndarray]:
        size = max(1, benchmark.batch_size(image_size) // arrays[name].shape[1])
        for first in range(0, used, size):
            yield np.array(arrays[name][first : min(first + size, used)])

    data = benchmark.provenance(folder, _BENCHMARK, used, "CIFAR-P files")
    return PerturbedSet(tuple(arrays), data, sequences)


def _open_videos(
    place: Path, folders: dict[str, Path], image_size: tuple[int, int], limit: int
) -> PerturbedSet:
    cells = {name: [folder] for name, folder in folders.items()}
    files = benchmark.common_files(place, cells, class_folders.VIDEOS)
    errors.require(bool(files), f"mp4 files in <perturbation>/<class> in {place}", "none")
    chosen = files[: benchmark.taken(len(files), limit)]

    def sequences(name: str) -> Iterator[np.ndarray]:
        paths = [folders[name] / file for file in chosen]
        frames = len(read_video(paths[0], image_size))
        read = functools.partial(read_video, image_size=image_size, frames=frames)
        size = max(1, benchmark.batch_size(image_size) // frames)
        for videos in benchmark.read_ahead(paths, read, size):
            yield np.stack(videos)

    data = benchmark.provenance(place, _BENCHMARK, len(chosen), "ImageNet-P videos")
    return PerturbedSet(tuple(folders), data, sequences)


def read_video(path: Path, image_size: tuple[int, int], frames: int | None = None) -> np.ndarray:
    """Returns `frames` (None: 2 or more) of an mp4 file, uint8 [T, H, W, 3], cut to the centre."""
    capture = cv2.VideoCapture(str(path))
    images = []
    try:
        while (read := capture.read())[0]:
            images.append(read[1][..., ::-1])
    finally:
        capture.release()
    if len(images) < 2 or (frames is not None and len(images) != frames):
        expected = "2 or more frames" if frames is None else f"{frames} frames, as the first has"
        raise errors.FileError(f"{path}: expected a video of {expected}; received {len(images)}")
    return np.ascontiguousarray(benchmark.centre(np.stack(images), image_size, path))
