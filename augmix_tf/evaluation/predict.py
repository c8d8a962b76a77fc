"""A classifier as a function of images, and its logits for all images of a store."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from augmix_tf.data import benchmark
from augmix_tf.data.images import ImageStore

Predictor = Callable[[tf.Tensor], tf.Tensor]
"""Images float32 [N, H, W, 3] in 0..255 to logits [N, K]."""


def predict(program: Predictor, store: ImageStore) -> np.ndarray:
    """Returns the logits float32 [M, K] of the M images of a store, which is read by batches."""
    batches = store.batches(benchmark.batch_size(store.image_size))
    return np.concatenate([predict_batch(program, images) for images in batches])


def predict_batch(program: Predictor, images: npt.ArrayLike) -> np.ndarray:
    """Returns the logits float32 [N, K] of one batch, uint8 [N, H, W, 3]."""
    return np.asarray(program(tf.cast(images, tf.float32)))


def log_probabilities(values: npt.ArrayLike) -> tf.Tensor:
    """Returns the logarithm of probabilities, float32; those below 1e-30 count as 1e-30."""
    return tf.math.log(tf.maximum(tf.cast(values, tf.float32), 1e-30))


def predictor(classifier: keras.Model) -> Predictor:
    """Returns the classifier as a function of batches of any size, traced once.

    Under a strategy of `tf.distribute` the replicas share each batch, and every worker gets all
    logits; all workers have to call it with the same images.
    """
    signature = [tf.TensorSpec([None, *classifier.input_shape[1:]], tf.float32)]
    devices = classifier.distribute_strategy
    if devices.num_replicas_in_sync == 1 and not isinstance(devices, tf.distribute.TPUStrategy):
        return tf.function(lambda x: classifier(x, training=False), input_signature=signature)
    return _shared(classifier, devices)


def _shared(classifier: keras.Model, devices: tf.distribute.Strategy) -> Predictor:
    replicas = devices.num_replicas_in_sync
    image_shape = classifier.input_shape[1:]
    rows = -(-benchmark.batch_size(image_shape[:2]) // replicas)

    # A fixed size, as a TPU requires; it also leaves no replica without an image.
    @tf.function(input_signature=[tf.TensorSpec([rows * replicas, *image_shape], tf.float32)])
    def full(images: tf.Tensor) -> tf.Tensor:
        def of_replica() -> tf.Tensor:
            first = tf.distribute.get_replica_context().replica_id_in_sync_group * rows
            return classifier(
                tf.slice(images, [first, 0, 0, 0], [rows, *image_shape]), training=False
            )

        return devices.gather(devices.run(of_replica), axis=0)

    def program(images: tf.Tensor) -> tf.Tensor:
        parts = []
        for first in range(0, len(images), rows * replicas):
            part = images[first : first + rows * replicas]
            padding = rows * replicas - len(part)
            parts.append(full(tf.pad(part, [[0, padding], [0, 0], [0, 0], [0, 0]]))[: len(part)])
        return tf.concat(parts, axis=0)

    return program
