"""Predictions of a model for all images of a store, batches or sequences."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import keras
import numpy as np
import tensorflow as tf

from augmix_tf.data import benchmark
from augmix_tf.data.images import ImageStore

Predictor = Callable[[tf.Tensor], tf.Tensor]


def predict(program: Predictor, store: ImageStore, batch_size: int | None = None) -> np.ndarray:
    """Returns the logits of all images in order.

    Args:
        program: of `predictor`.
        store: M images, which are read batch by batch.
        batch_size: images at a time, the last batch may be smaller (default:
            `benchmark.batch_size` of the image size).

    Returns:
        float32 [M, K].

    Raises:
        FileError: an image cannot be read; names the file.
    """
    batches = store.batches(batch_size or benchmark.batch_size(store.image_size))
    return np.concatenate([np.asarray(program(tf.cast(b, tf.float32))) for b in batches])


def predict_labelled(
    program: Predictor, batches: Iterable[tuple[np.ndarray, np.ndarray]]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the logits and the labels of all images in order.

    Args:
        program: of `predictor`.
        batches: images uint8 [N, H, W, 3] and labels [N]; at least one, of any sizes.

    Returns:
        float32 [M, K] and int64 [M].
    """
    logits, labels = [], []
    for images, classes in batches:
        logits.append(np.asarray(program(tf.cast(images, tf.float32))))
        labels.append(classes)
    return np.concatenate(logits), np.concatenate(labels)


def predict_sequences(program: Predictor, sequences: np.ndarray) -> np.ndarray:
    """Returns the logits of all frames.

    Args:
        program: of `predictor`.
        sequences: uint8 [S, T, H, W, 3], as many as the program takes at a time.

    Returns:
        float32 [S, T, K].
    """
    frames = sequences.reshape(-1, *sequences.shape[2:])
    logits = np.asarray(program(tf.cast(frames, tf.float32)))
    return logits.reshape(*sequences.shape[:2], -1)


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
