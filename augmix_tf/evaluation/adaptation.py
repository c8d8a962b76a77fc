"""Batch normalisation adapted to each test batch, from its images and without labels.

With prior strength N, a layer with moving statistics (mean_s, variance_s) and a batch of n images,
of which a channel has M values with mean mean_t and unbiased variance variance_t:

    mean     = L mean_s     + (1 - L) mean_t
    variance = L variance_s + (1 - L) variance_t,    L = N / (N + n)
    y        = gamma (x - mean) / sqrt(variance + epsilon) + beta

N = 0 takes the statistics of the batch alone, an infinite N those of training. The values x of a
layer come from layers that are adapted already. Batches do not depend on each other, so nothing has
to be reset between corruptions.

Source: Schneider et al., Improving robustness against common corruptions by covariate shift
adaptation, NeurIPS 2020 (arXiv 2006.16971).
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf

from augmix_tf.data.images import ImageStore
from augmix_tf.errors import ArgumentError, require
from augmix_tf.evaluation import results
from augmix_tf.evaluation.predict import Predictor, predict_batch

FEW_CLASSES = 0.6  # of the classes that a batch in random order would have
# Images that are put in another order have to be in memory together.
WINDOW_BYTES = 2**29


def adapted_predictor(
    program: Predictor, model: keras.Model, image_size: tuple[int, int], prior: float
) -> Predictor:
    """Returns `program`, which calls `model`, with batch normalisation adapted to each batch.

    The model and `program` stay as they are. Logits of an image depend on its batch.

    Args:
        program: images float32 [N, H, W, 3] to logits [N, K]; not a `tf.function`.
        model: the model that it calls, of any kind.
        image_size: (H, W).
        prior: the prior strength N, in images.

    Raises:
        ArgumentError: `prior` is negative, or the model has no batch normalisation.
    """
    require(prior >= 0, "a prior strength of at least 0 images", prior)
    layers = [
        layer
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    adapted: set[str] = set()

    @tf.function(input_signature=[tf.TensorSpec([None, *image_size, 3], tf.float32)])
    def traced(images: tf.Tensor) -> tf.Tensor:
        # N / (N + n), also of an infinite N.
        weight = 1.0 / (1.0 + tf.cast(tf.shape(images)[0], tf.float64) / prior)

        def call_of(layer: keras.layers.BatchNormalization) -> Callable[..., tf.Tensor]:
            def call(inputs: tf.Tensor, training: object = None, mask: object = None) -> tf.Tensor:
                adapted.add(layer.path)
                return normalise(layer, inputs, weight)

            return call

        with _calls_replaced(layers, call_of):
            return program(images)

    concrete = traced.get_concrete_function()
    if not adapted:
        raise ArgumentError("The model uses no batch normalization, so nothing can be adapted.")
    return concrete


def normalise(
    layer: keras.layers.BatchNormalization, inputs: tf.Tensor, weight: tf.Tensor
) -> tf.Tensor:
    """Returns `inputs` normalised by a mix of moving statistics (`weight`) and their own."""
    x = tf.cast(inputs, tf.float64 if inputs.dtype == tf.float64 else tf.float32)
    axes = [axis for axis in range(x.shape.rank) if axis != layer.axis % x.shape.rank]
    mean, variance = tf.nn.moments(x, axes, keepdims=True)
    count = tf.cast(tf.size(x) / tf.size(mean), x.dtype)
    variance *= count / tf.maximum(count - 1.0, 1.0)
    weight = tf.cast(weight, x.dtype)

    def of_channels(values: keras.Variable) -> tf.Tensor:
        return tf.reshape(tf.cast(values, x.dtype), tf.shape(mean))

    outputs = tf.nn.batch_normalization(
        x,
        weight * of_channels(layer.moving_mean) + (1.0 - weight) * mean,
        weight * of_channels(layer.moving_variance) + (1.0 - weight) * variance,
        of_channels(layer.beta) if layer.center else None,
        of_channels(layer.gamma) if layer.scale else None,
        layer.epsilon,
    )
    return tf.cast(outputs, layer.compute_dtype)


@contextlib.contextmanager
def _calls_replaced(
    layers: list[keras.layers.BatchNormalization],
    call_of: Callable[[keras.layers.BatchNormalization], Callable[..., tf.Tensor]],
) -> Iterator[None]:
    """Within it, layers are called by `call_of(layer)`."""
    before = [vars(layer).get("call") for layer in layers]
    try:
        for layer in layers:
            layer.call = call_of(layer)
        yield
    finally:
        for layer, call in zip(layers, before, strict=True):
            if call is None:
                del layer.call
            else:
                layer.call = call


class AdaptedClassifier:
    """Predicts sets of images in batches of `batch_size` images, the last one smaller.

    `add` the images of a set in parts of any sizes, then `take` its logits. Batches are in the
    order of the set. Where its labels are in the order of classes, the images are shuffled before
    with seed 0, as many at a time as `WINDOW_BYTES` hold; labels serve nothing else.
    """

    def __init__(self, program: Predictor, prior: float, batch_size: int) -> None:
        require(batch_size >= 1, "batches of at least 1 image", batch_size)
        self._program = program
        self._batch_size = batch_size
        self._waiting: list[tuple[np.ndarray, np.ndarray]] = []
        self._logits: list[np.ndarray] = []
        self._batch_labels: list[np.ndarray] = []
        self.protocol = results.AdaptedResults(prior, batch_size, batch_size)

    def predict(self, store: ImageStore) -> np.ndarray:
        """Returns the logits [M, K] of the images of a store."""
        first = 0
        for images in store.batches(self._batch_size):
            self.add(images, store.labels[first : first + len(images)])
            first += len(images)
        return self.take()

    def add(self, images: np.ndarray, labels: np.ndarray) -> None:
        """Adds images uint8 [n, H, W, 3] and their labels int [n] to the set."""
        self._waiting.append((images, labels))
        size = self._batch_size
        window = max(1, WINDOW_BYTES // images[0].nbytes // size) * size
        if self._count >= window:
            self._predict(window)

    def take(self) -> np.ndarray:
        """Returns the logits [M, K] of the set, in its order, and begins another set."""
        self._predict(self._count)
        logits, batches = np.concatenate(self._logits), self._batch_labels
        self.protocol = dataclasses.replace(
            self.protocol,
            smallest_batch=min(self.protocol.smallest_batch, *map(len, batches)),
            few_classes=self.protocol.few_classes or have_few_classes(batches),
        )
        self._waiting, self._logits, self._batch_labels = [], [], []
        return logits

    @property
    def _count(self) -> int:
        return sum(len(labels) for _, labels in self._waiting)

    def _predict(self, count: int) -> None:
        """Predicts the first `count` of the images that wait."""
        if not count:
            return
        images, labels = map(np.concatenate, zip(*self._waiting, strict=True))
        self._waiting = [(images[count:], labels[count:])]
        order, size = np.arange(count), self._batch_size
        if in_class_order(labels[:count]):
            order = np.random.default_rng(0).permutation(count)
            self.protocol = dataclasses.replace(self.protocol, shuffled=True)
        batches = [order[first : first + size] for first in range(0, count, size)]
        logits = [predict_batch(self._program, images[rows]) for rows in batches]
        self._logits.append(np.concatenate(logits)[np.argsort(order)])
        self._batch_labels += [labels[rows] for rows in batches]


def in_class_order(labels: np.ndarray) -> bool:
    """Whether neighbours have the same class or one close by, unlike in a random order."""
    others = np.random.default_rng(0).permutation(labels)
    return bool(np.abs(np.diff(labels)).sum() < np.abs(labels - others).sum() / 4)


def have_few_classes(batches: Sequence[np.ndarray]) -> bool:
    """Whether batches of labels have far fewer classes than in a random order, on average."""
    classes = len(np.unique(np.concatenate(batches)))
    expected = [classes * (1 - (1 - 1 / classes) ** len(labels)) for labels in batches]
    found = [len(np.unique(labels)) for labels in batches]
    return bool(np.mean(np.divide(found, expected)) < FEW_CLASSES)
