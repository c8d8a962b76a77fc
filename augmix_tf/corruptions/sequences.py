"""Perturbation sequences: one picture that changes a little from frame to frame (-P benchmarks)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from augmix_tf import checks
from augmix_tf.corruptions import frames, severities
from augmix_tf.corruptions.arrays import Draws, Images, check_ids, check_images, check_whole
from augmix_tf.corruptions.catalogue import chunks, stack
from augmix_tf.corruptions.frames import BlurPath, Dripping, MotionPath, Path, Snowfall
from augmix_tf.corruptions.severities import Motion
from augmix_tf.corruptions.streams import Streams
from augmix_tf.metrics import PAPER_PERTURBATIONS
from augmix_tf.metrics.names import HARDER_PERTURBATIONS

PERTURBATIONS = PAPER_PERTURBATIONS


@dataclass(frozen=True)
class Perturbation:
    """What it draws for one image (if it does), and the frames that it makes of a batch.

    On larger pictures some perturbations move the whole picture and only then cut out its centre,
    so that real surroundings come into view: `crops_after`.
    """

    apply: Callable[[Images, Any, Draws], Images]
    draw: Callable[[np.random.RandomState, Images, Any], Draws] | None = None
    crops_after: bool = False


CATALOGUE = {
    "gaussian_noise": Perturbation(frames.gaussian_noise, frames.draw_gaussian),
    "shot_noise": Perturbation(frames.shot_noise, frames.draw_shot),
    "speckle_noise": Perturbation(frames.speckle_noise, frames.draw_speckle),
    "motion_blur": Perturbation(frames.motion_blur),
    "zoom_blur": Perturbation(frames.zoom_blur, crops_after=True),
    "snow": Perturbation(frames.snow, frames.draw_layer),
    "brightness": Perturbation(frames.brightness),
    "translate": Perturbation(frames.translate, crops_after=True),
    "rotate": Perturbation(frames.rotate, crops_after=True),
    "tilt": Perturbation(frames.tilt, crops_after=True),
    "scale": Perturbation(frames.scale, crops_after=True),
    "gaussian_blur": Perturbation(frames.gaussian_blur),
    "spatter": Perturbation(frames.spatter, frames.draw_layer),
    "shear": Perturbation(frames.shear, crops_after=True),
}

# Constants of the authors' scripts make_cifar_p.py and make_imagenet_p.py (hendrycks/robustness).
TABLES: dict[str, dict[str, Any]] = {
    "cifar": {
        "gaussian_noise": 0.02,
        "gaussian_noise_2": 0.04,
        "gaussian_noise_3": 0.06,
        "shot_noise": 700,
        "shot_noise_2": 400,
        "shot_noise_3": 200,
        "speckle_noise": 0.05,
        "speckle_noise_2": 0.07,
        "speckle_noise_3": 0.1,
        "motion_blur": MotionPath(Motion(6, 1.8), Path(21, -180, 9)),
        "zoom_blur": Path(31, 1, 0.004),
        "snow": Snowfall(0.05, 0.3, 2, 0.5, MotionPath(Motion(10, 2), Path(31, -150, 4)), 0.85),
        "brightness": Path(31, -22.5, 1.5, 100),
        "translate": Path(16, -7, 1),
        "rotate": Path(31, -15, 1),
        "tilt": Path(31, -11.25, 0.75),
        "scale": Path(31, 70, 2, 100),
        "gaussian_blur": BlurPath(Path(31, 0.3, 0.015), 7),
        "spatter": Dripping(0.6, 0.265, 1.75, 0.7, 0.6, (0.2, 0.8), 31),
        "shear": Path(31, -15, 1),
    },
    "imagenet": {
        "gaussian_noise": 0.03,
        "gaussian_noise_2": 0.05,
        "gaussian_noise_3": 0.08,
        "shot_noise": 300,
        "shot_noise_2": 120,
        "shot_noise_3": 60,
        "speckle_noise": 0.05,
        "speckle_noise_2": 0.1,
        "speckle_noise_3": 0.15,
        "motion_blur": MotionPath(Motion(10, 3), Path(31, -120, 4)),
        "zoom_blur": Path(31, 1, 0.004),
        "snow": Snowfall(0.05, 0.3, 3, 0.5, MotionPath(Motion(14, 4), Path(31, -150, 4)), 0.85),
        "brightness": Path(31, -30, 2, 100),
        "translate": Path(41, -20, 1),
        "rotate": Path(31, -15, 1),
        "tilt": Path(31, -15, 1),
        "scale": Path(31, 40, 2.5, 100),
        "gaussian_blur": BlurPath(Path(31, 0.25, 0.035), 6),
        "spatter": Dripping(0.65, 0.27, 3.7, 0.69, 0.6, (0.05, 0.1, 0.15, 0.7), 31),
        "shear": Path(31, -15, 1),
    },
}


def perturb(
    images: Images,
    name: str,
    seed: int = 0,
    ids: Sequence[int] | npt.NDArray[Any] | None = None,
    table: str | None = None,
    crop: int | None = None,
) -> Images:
    """Returns a perturbation sequence of each image.

    What an image gets depends on (seed, name, its id) only. Same functions as the authors' scripts,
    bit for bit given the same draws.

    Args:
        images: uint8 [N, H, W, 3], sides of at least 16 pixels.
        name: one of `PERTURBATIONS`, `EXTRA_PERTURBATIONS` or, for more noise,
            `HARDER_PERTURBATIONS`.
        seed: whole number from 0.
        ids: N different whole numbers from 0; without it 0, 1, 2, ...
        table: constants to use, "cifar" or "imagenet"; without it by size, as for `corrupt`.
        crop: cut this square out of the centre: of the frames where the picture moves (its
            surroundings come into view), else of the images before anything is done. ImageNet-P
            is 224 out of pictures whose short side is 256.

    Returns:
        uint8 [N, T, H, W, 3], [N, T, crop, crop, 3] with `crop`. T is 31; for CIFAR's constants 21
        in motion_blur and 16 in translate, for ImageNet's 41 in translate. Frame 0 is the image
        itself in the noises and zoom_blur.

    Raises:
        CommandError: a malformed argument.

    Source: Hendrycks and Dietterich, ICLR 2019 (arXiv 1903.12261).
    """
    setting = _setting(check_images(images), name, table)
    kind = CATALOGUE[base_name(name)]
    numbers = check_ids(ids, len(images))
    streams = Streams(check_whole("seed", seed, 0), f"sequence/{name}", 0)
    _check_crop(crop, images)
    scene = images if kind.crops_after else _centre(images, crop)
    parts = [
        _centre(_frames(kind, setting, streams, scene[part], numbers[part]), crop)
        for part in chunks(scene, frames=2)
    ]
    if not parts:
        shape = _centre(scene, crop).shape
        return np.zeros((0, frame_count(images, name, table), *shape[1:]), np.uint8)
    return np.concatenate(parts)


def base_name(name: str) -> str:
    """Returns `name` without the "_2" or "_3" of the harder noises."""
    return name[:-2] if name in HARDER_PERTURBATIONS else name


def frame_count(images: Images, name: str, table: str | None = None) -> int:
    """Returns T, the number of frames in sequences of such images.

    Raises:
        CommandError: unknown name or table.
    """
    match _setting(images, name, table):
        case Path() as path:
            return path.frames
        case MotionPath(degrees=path) | Snowfall(wind=MotionPath(degrees=path)):
            return path.frames
        case BlurPath(sigma=path):
            return path.frames
        case Dripping() as drops:
            return drops.frames
    return 1 + frames.NOISY_FRAMES


def _setting(images: Images, name: str, table: str | None) -> Any:
    chosen = TABLES[severities.table_name(table, *images.shape[1:3])]
    return checks.lookup("perturbation", name, chosen)


def _frames(
    kind: Perturbation, setting: Any, streams: Streams, images: Images, ids: npt.NDArray[np.uint64]
) -> Images:
    if kind.draw is None:
        return kind.apply(images, setting, ())
    plan = [
        kind.draw(streams.of(number), image, setting)
        for number, image in zip(ids, images, strict=True)
    ]
    return kind.apply(images, setting, stack(plan))


def _check_crop(crop: int | None, images: Images) -> None:
    if crop is not None:
        check_whole("crop", crop, 16, min(images.shape[1:3]))


def _centre(batch: Images, crop: int | None) -> Images:
    """Cuts the centre out of [..., H, W, 3], rounding its corner as torchvision's CenterCrop."""
    if crop is None:
        return batch
    top, left = (round((side - crop) / 2) for side in batch.shape[-3:-1])
    return batch[..., top : top + crop, left : left + crop, :]
