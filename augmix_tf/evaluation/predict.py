"""The only place that runs a model over a whole set."""

from __future__ import annotations

from collections.abc import Callable

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


def predictor(classifier: keras.Model) -> Predictor:
    """Returns the classifier as a program for batches of any size, traced once."""
    signature = [tf.TensorSpec([None, *classifier.input_shape[1:]], tf.float32)]
    return tf.function(lambda x: classifier(x, training=False), input_signature=signature)
