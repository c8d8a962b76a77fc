"""The only place that runs a model over a whole set."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import keras
import numpy as np
import tensorflow as tf

from augmix_tf.corruptions.arrays import Pictures
from augmix_tf.data import benchmark
from augmix_tf.data.pipeline import evaluation_batches

Predictor = Callable[[tf.Tensor], tf.Tensor]


def predict(program: Predictor, images: Pictures, batch_size: int | None = None) -> np.ndarray:
    """Returns the logits of all images in order.

    Args:
        program: of `predictor`.
        images: uint8 [M, H, W, 3], an array or encoded pictures, which are decoded batch by batch.
        batch_size: images at a time, the last batch holds the rest; `benchmark.batch_size` if it
            is not given.

    Returns:
        float32 [M, K].

    Raises:
        RunError: a picture cannot be decoded; names the file.
    """
    size = batch_size or benchmark.batch_size(images.shape[1:3])
    return np.concatenate([np.asarray(program(batch)) for batch in _batches(images, size)])


def _batches(images: Pictures, size: int) -> Iterable[tf.Tensor]:
    if isinstance(images, np.ndarray):
        return evaluation_batches(images, size)
    return (tf.cast(block, tf.float32) for block in benchmark.blocks(images, size))


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
    """Returns the classifier as a program for batches of any size, traced once.

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
    picture = classifier.input_shape[1:]
    rows = -(-benchmark.batch_size(picture[:2]) // replicas)

    # Of one size always, as a TPU wants it, so that no replica is without an image either.
    @tf.function(input_signature=[tf.TensorSpec([rows * replicas, *picture], tf.float32)])
    def full(images: tf.Tensor) -> tf.Tensor:
        def of_replica() -> tf.Tensor:
            first = tf.distribute.get_replica_context().replica_id_in_sync_group * rows
            return classifier(tf.slice(images, [first, 0, 0, 0], [rows, *picture]), training=False)

        return devices.gather(devices.run(of_replica), axis=0)

    def program(images: tf.Tensor) -> tf.Tensor:
        parts = []
        for first in range(0, len(images), rows * replicas):
            part = images[first : first + rows * replicas]
            empty = rows * replicas - len(part)
            parts.append(full(tf.pad(part, [[0, empty], [0, 0], [0, 0], [0, 0]]))[: len(part)])
        return tf.concat(parts, axis=0)

    return program
