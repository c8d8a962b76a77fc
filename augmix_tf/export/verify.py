"""Compares exported files with the model in memory."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from augmix_tf import files
from augmix_tf.errors import RunError, first_line, require

TOLERANCE = 1e-5  # about what another order of float32 sums can change


def verify(
    version: files.PathLike,
    keras_file: files.PathLike,
    classifier: keras.Model,
    images: npt.ArrayLike,
    temperature: float = 1.0,
) -> float:
    """Reloads exported files and compares their outputs with those of the model in memory.

    The SavedModel gets the images as pixels through `serving_default`, and as PNG files through
    `serve_bytes`, followed by two unreadable files that must have errors. An empty batch must give
    empty outputs. Everything runs on the CPU. The differences are

        max |logits - logits of the model| / max(1, max |logits of the model|)
        max |probabilities of the `.keras` file - softmax(logits of the model / temperature)|

    Args:
        version: a SavedModel of `saved_model.export`, published or under its hidden name.
        keras_file: the `.keras` file beside it.
        classifier: float32 [N, H, W, 3] in 0..255 to logits [N, K].
        images: uint8 [N, H, W, 3] of the model's size, N >= 1; a few are enough.
        temperature: of the export.

    Returns:
        The largest difference, at most 1e-5.

    Raises:
        ArgumentError: `images` have another type or shape.
        RunError: a file cannot be loaded or run, gives other outputs, or accepts unreadable files.
    """
    version, keras_file, images = Path(version), Path(keras_file), checked_images(images)
    logits = reference_logits(classifier, images)
    probabilities = np.asarray(tf.nn.softmax(logits / temperature))
    differences = {
        f"{version} (signature {name})": _difference(found, logits)
        for name, found in _logits_of_version(version, images).items()
    }
    differences[str(keras_file)] = _difference(_outputs_of_keras(keras_file, images), probabilities)
    for name, difference in differences.items():
        if not difference <= TOLERANCE:  # also refuses NaN
            raise RunError(
                f"The outputs of {name} differ from those of the model by {difference:.3g}; "
                f"at most {TOLERANCE} is expected."
            )
    return max(differences.values())


def checked_images(images: npt.ArrayLike) -> npt.NDArray[np.uint8]:
    """Returns images to compare outputs on, uint8 [N, H, W, 3] with N >= 1.

    Raises:
        ArgumentError: another type or shape.
    """
    given = np.asarray(images)
    fits = given.dtype == np.uint8 and given.ndim == 4 and given.size > 0
    require(fits, "uint8 images [N, H, W, 3], N >= 1", f"{given.dtype} {given.shape}")
    return given


def reference_logits(classifier: keras.Model, images: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Returns the logits float32 [N, K] of uint8 images [N, H, W, 3], computed on the CPU.

    The logits of an accelerator may differ by far more than the tolerance, as it may round
    products.
    """
    with tf.device("CPU:0"):
        logits = classifier(tf.cast(images, tf.float32), training=False)
    return np.asarray(logits, np.float32)


def _difference(found: npt.NDArray[np.float32], expected: npt.NDArray[np.float32]) -> float:
    if found.shape != expected.shape:
        return float("inf")
    return float(np.abs(found - expected).max() / max(1.0, np.abs(expected).max()))


def _logits_of_version(version: Path, images: npt.NDArray[np.uint8]) -> dict[str, np.ndarray]:
    """The logits of both signatures, from a SavedModel whose answers to no image are right."""
    encoded = [tf.io.encode_png(image).numpy() for image in images]
    unreadable = [encoded[0][:-20], b""]
    try:
        with tf.device("CPU:0"), files.without_patterns(version) as path:
            signatures = tf.saved_model.load(str(path)).signatures
            outputs = {
                "serving_default": signatures["serving_default"](images=tf.constant(images)),
                "serve_bytes": signatures["serve_bytes"](
                    image_bytes=tf.constant([*encoded, *unreadable])
                ),
            }
            empty = signatures["serve_bytes"](image_bytes=tf.constant([], tf.string))["logits"]
    except Exception as error:  # loading raises errors of every kind
        raise RunError(f"Cannot load and run {version}: {first_line(error)}") from error
    count = len(images)
    errors = outputs["serve_bytes"]["errors"].numpy().tolist()
    if any(errors[:count]) or not all(errors[count:]):
        raise RunError(f"{version} gives {count} images and two unreadable files errors {errors}.")
    if empty.shape[0] != 0:
        raise RunError(f"{version} gives an empty batch logits of shape {empty.shape}.")
    return {name: output["logits"][:count].numpy() for name, output in outputs.items()}


def _outputs_of_keras(keras_file: Path, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    try:
        with tf.device("CPU:0"):
            model = keras.saving.load_model(keras_file, safe_mode=True)
            return np.asarray(model(tf.cast(images, tf.float32), training=False))
    except Exception as error:  # loading raises errors of every kind
        raise RunError(f"Cannot load and run {keras_file}: {first_line(error)}") from error
