"""A saved model of any origin as a program to evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from augmix_tf.checks import CommandError, require
from augmix_tf.evaluation.predict import Predictor

_SIGNATURE = "serving_default"
_LEAST = 1e-30  # the smallest probability that is told from 0


def program(path: Path, image_size: tuple[int, int], num_classes: int) -> Predictor:
    """Loads a `.keras` file or a SavedModel (its signature `serving_default`).

    Of several outputs "logits" is taken, else "probabilities", else the first with a row of
    `num_classes` for each image. Rows of probabilities become logits by their logarithm; those
    below 1e-30 count as 1e-30.

    Args:
        path: a file or a folder. It takes images [N, H, W, 3] of any type, 0 to 255.
        image_size: (height, width) of the images to come.
        num_classes: K.

    Returns:
        float32 images [N, H, W, 3], 0..255, to logits float32 [N, K].

    Raises:
        CommandError: nothing that can be loaded, or a model for other images or classes.
    """
    require(path.exists(), "--model_path of a .keras file or a SavedModel folder", path)
    try:
        call = _saved_model(path) if path.is_dir() else _keras_file(path)
        blank = np.zeros((2, *image_size, 3), np.float32)
        wanted = _chosen(call(tf.constant(blank)), num_classes)
    except (OSError, ValueError, TypeError, KeyError, tf.errors.OpError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        size = "x".join(map(str, image_size))
        raise CommandError(f"cannot use {path} on {size} images: {reason}") from error
    if wanted is None:
        raise CommandError(f"want {num_classes} values for each image of {path}, got none such")

    def logits(images: tf.Tensor) -> tf.Tensor:
        values = tf.cast(_named(call(images))[wanted], tf.float32)
        return tf.math.log(tf.maximum(values, _LEAST)) if _probabilities(values) else values

    return logits


def _keras_file(path: Path) -> Any:
    model = keras.models.load_model(path, compile=False)
    return lambda images: model(images, training=False)


def _saved_model(path: Path) -> Any:
    loaded = tf.saved_model.load(str(path))
    signature = loaded.signatures[_SIGNATURE]
    ((name, spec),) = signature.structured_input_signature[1].items()

    def call(images: tf.Tensor) -> Any:
        return signature(**{name: tf.saturate_cast(images, spec.dtype)})

    call.keep = loaded  # type: ignore[attr-defined]  # a signature does not hold its variables
    return call


def _named(outputs: Any) -> dict[str, tf.Tensor]:
    if isinstance(outputs, dict):
        return outputs
    several = outputs if isinstance(outputs, list | tuple) else [outputs]
    return {str(number): tensor for number, tensor in enumerate(several)}


def _chosen(outputs: Any, num_classes: int) -> str | None:
    named = {
        name: tensor
        for name, tensor in _named(outputs).items()
        if tensor.dtype.is_floating and tuple(tensor.shape[1:]) == (num_classes,)
    }
    return next((n for n in ("logits", "probabilities", *named) if n in named), None)


def _probabilities(values: tf.Tensor) -> bool:
    rows = np.asarray(values)
    return bool((rows >= 0).all() and np.allclose(rows.sum(axis=1), 1.0, atol=1e-3))
