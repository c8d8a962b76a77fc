"""Checks of the arguments of augmentations."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from augmix_tf.errors import ArgumentError, require


def float_images(images: Any) -> tf.Tensor:
    """Returns `images` as a tensor.

    Raises:
        ArgumentError: it is not float32 [N, H, W, 3] with H and W known.
    """
    images = tf.convert_to_tensor(images)
    fits = images.dtype == tf.float32 and images.shape.rank == 4 and images.shape[-1] == 3
    if not fits or None in images.shape[1:]:
        raise ArgumentError(
            f"Expected float32 images [N, H, W, 3] with H and W known; received "
            f"{images.dtype.name} "
            f"{images.shape}"
        )
    return images


def float_targets(targets: Any, images: tf.Tensor) -> tf.Tensor:
    """Returns `targets` as a tensor.

    Raises:
        ArgumentError: it is not float32 [N, K], one row for each image.
    """
    targets = tf.convert_to_tensor(targets)
    if targets.dtype != tf.float32 or targets.shape.rank != 2:
        raise ArgumentError(
            f"Expected float32 targets [N, K], one-hot; received {targets.dtype.name} "
            f"{targets.shape}"
        )
    check_count("targets", targets, images)
    return targets


def check_count(what: str, rows: tf.Tensor, images: tf.Tensor) -> None:
    """Raises `ArgumentError` where both lengths are known and differ."""
    got, want = rows.shape[0], images.shape[0]
    if None not in (got, want) and got != want:
        raise ArgumentError(f"Expected {what} for {want} images; received {what} for {got}")


def check_image_size(image_size: tuple[int, int]) -> None:
    """Raises `ArgumentError` unless it is (height, width) in whole pixels."""
    fits = len(image_size) == 2 and all(isinstance(n, int) and n >= 1 for n in image_size)
    require(fits, "an image size (height, width) of whole pixels", image_size)


def check_square(size: int) -> None:
    """Raises `ArgumentError` unless it is the side of a square in whole pixels."""
    require(isinstance(size, int) and size >= 1, "a square of at least 1 pixel", size)
