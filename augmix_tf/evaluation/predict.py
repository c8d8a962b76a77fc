"""The only place that runs a model over a whole set."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import keras
import numpy as np
import tensorflow as tf

from augmix_tf.data.pipeline import evaluation_batches

BATCH_SIZE = 500
Predictor = Callable[[tf.Tensor], tf.Tensor]


def predict(program: Predictor, images: np.ndarray, batch_size: int = BATCH_SIZE) -> np.ndarray:
    """Returns the logits of all images in order.

    Args:
        program: of `predictor`.
        images: uint8 [M, H, W, 3].
        batch_size: images at a time; the last batch holds the rest.

    Returns:
        float32 [M, K].
    """
    return np.concatenate([program(batch) for batch in evaluation_batches(images, batch_size)])


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
    """Returns the classifier as a program for batches of any size, traced once."""
    signature = [tf.TensorSpec([None, *classifier.input_shape[1:]], tf.float32)]
    return tf.function(lambda x: classifier(x, training=False), input_signature=signature)
