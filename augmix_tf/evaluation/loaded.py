"""Saved models of any origin, for evaluation."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from augmix_tf import files
from augmix_tf.errors import ArgumentError, first_line, require
from augmix_tf.evaluation.predict import Predictor, log_probabilities
from augmix_tf.metrics.classification import SUM_TOLERANCE
from augmix_tf.models import last_activation

Size = tuple[int | None, int | None]
"""(height, width) in pixels."""

_PROBES = 8
# Whether outputs of these names, or of layers with these activations, are probabilities.
_BY_NAME = {"logits": False, "probabilities": True}
_BY_ACTIVATION = {"linear": False, "softmax": True}


@dataclasses.dataclass(frozen=True)
class SavedClassifier:
    """A model that was loaded."""

    path: Path
    image_size: Size  # of its input; None where the model takes any
    outputs: Callable[[tf.Tensor], Mapping[str, tf.Tensor]]  # images -> outputs by name
    activations: Mapping[str, str | None]  # of each output, None where it cannot be told
    model: keras.Model | None = None  # that `outputs` calls, unless it is a SavedModel

    def program(self, image_size: tuple[int, int], num_classes: int) -> Predictor:
        """Returns the model as a function from images to logits.

        Of several outputs, "logits" is used, else "probabilities", else the first with
        `num_classes` values per image. Whether an output of another name holds probabilities
        follows from the last activation. Only where that cannot be told, as in a SavedModel of
        others, it holds probabilities if its rows for eight random images are nonnegative and sum
        to 1. Probabilities become logits by their logarithm; those below 1e-30 count as 1e-30.
        """
        expected, received = map(_pixels, (self.image_size, image_size))
        fits = all(side in (None, of) for side, of in zip(self.image_size, image_size, strict=True))
        require(fits, f"images of {expected} pixels, the input size of {self.path}", received)
        random = np.random.default_rng(0).integers(0, 256, (_PROBES, *image_size, 3))
        try:
            probed = self.outputs(tf.constant(random, tf.float32))
        except Exception as error:  # a model of unknown origin raises errors of every kind
            reason = first_line(error)
            raise ArgumentError(f"Cannot run {self.path} on {received} images: {reason}") from error
        shapes = {name: tuple(values.shape) for name, values in probed.items()}
        row = (_PROBES, num_classes)
        names = [n for n, shape in shapes.items() if shape == row and probed[n].dtype.is_floating]
        require(bool(names), f"an output of {self.path} of {num_classes} values per image", shapes)
        name = next(name for name in (*_BY_NAME, *names) if name in names)
        softmax = _BY_NAME.get(name, _BY_ACTIVATION.get(str(self.activations.get(name))))
        if softmax is None:
            softmax = are_probabilities(probed[name])

        def logits(images: tf.Tensor) -> tf.Tensor:
            values = self.outputs(images)[name]
            return log_probabilities(values) if softmax else tf.cast(values, tf.float32)

        return logits


def load(path: Path) -> SavedClassifier:
    """Loads a `.keras` file or a SavedModel with the signature `serving_default`.

    The model takes images [N, H, W, 3] in 0..255. Classes of models and layers outside Keras, such
    as `augmix_tf.AugMixModel`, must have been imported before, which registers them with Keras.
    """
    require(path.exists(), "a .keras file or the folder of a SavedModel", path)
    try:
        if path.is_dir():
            return _load_saved_model(path)
        return of_keras_model(path, keras.models.load_model(path, compile=False))
    except Exception as error:  # loading raises errors of every kind
        raise ArgumentError(f"Cannot load the model {path}: {first_line(error)}") from error


def of_keras_model(path: Path, model: keras.Model) -> SavedClassifier:
    """Returns a Keras model that takes images in 0..255, loaded from `path`."""

    def outputs(images: tf.Tensor) -> Mapping[str, tf.Tensor]:
        values = model(images, training=False)
        if isinstance(values, dict):
            return values
        tensors = values if isinstance(values, list | tuple) else [values]
        return {str(number): tensor for number, tensor in enumerate(tensors)}

    layers = [model.get_layer(name) for name in getattr(model, "output_names", [])] or [model]
    activations = {str(number): last_activation(layer) for number, layer in enumerate(layers)}
    return SavedClassifier(path, _size_of(_input_shape(model)), outputs, activations, model)


def _load_saved_model(path: Path) -> SavedClassifier:
    with files.without_patterns(path) as plain:
        loaded = tf.saved_model.load(str(plain))
    signature = loaded.signatures["serving_default"]
    ((name, spec),) = signature.structured_input_signature[1].items()

    def outputs(images: tf.Tensor) -> Mapping[str, tf.Tensor]:
        return signature(**{name: tf.saturate_cast(images, spec.dtype)})

    outputs.loaded = loaded  # type: ignore[attr-defined]  # a signature does not hold its variables
    return SavedClassifier(path, _size_of(spec.shape), outputs, {})


def _input_shape(model: keras.Model) -> Any:
    """Shape of the images that a model takes; None if it is not known."""
    if hasattr(model, "inputs"):  # functional or sequential
        return model.input_shape
    inner = [layer for layer in model.layers if isinstance(layer, keras.Model)]
    return _input_shape(inner[0]) if len(inner) == 1 else None


def _size_of(shape: Any) -> Size:
    if shape is None or (isinstance(shape, tf.TensorShape) and shape.rank is None):
        return None, None
    require(len(shape) == 4, "a model of one input [N, H, W, 3]", shape)
    return shape[1], shape[2]


def _pixels(size: Size) -> str:
    return "x".join("any" if side is None else str(side) for side in size)


def are_probabilities(values: tf.Tensor) -> bool:
    """Whether all rows [N, K] are nonnegative and sum to 1."""
    rows = np.asarray(tf.cast(values, tf.float32))
    return bool((rows >= 0).all() and np.allclose(rows.sum(axis=1), 1.0, atol=SUM_TOLERANCE))
