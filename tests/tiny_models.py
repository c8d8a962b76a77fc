"""Small models of every architecture, and their weights in the layout of PyTorch."""

import keras
import numpy as np
import tensorflow as tf

from augmix_tf import models
from tests.oracles import numpy_models

# Case: model, options, input shape (height != width), NumPy model and its sizes.
TINY = {
    "wrn": ("wrn", {"depth": 10, "widen_factor": 1}, (9, 6, 3), (numpy_models.wide_resnet, 1)),
    "densenet_bc": (
        "densenet",
        {"depth": 16, "growth_rate": 3},
        (8, 13, 3),
        (numpy_models.densenet, 2, True),
    ),
    "densenet": (
        "densenet",
        {"depth": 10, "growth_rate": 3, "bottleneck": False, "reduction": 1.0},
        (10, 5, 1),
        (numpy_models.densenet, 2, False),
    ),
    "resnext": (
        "resnext",
        {"depth": 11, "cardinality": 3, "base_width": 2},
        (7, 10, 3),
        (numpy_models.resnext, 1, 3),
    ),
    "resnet50": (
        "resnet50",
        {"blocks": (1, 2, 1), "width_multiplier": 0.0625},
        (33, 22, 3),
        (numpy_models.resnet, (1, 2, 1), False),
    ),
    "max_blur_pool": (
        "resnet50",
        {"blocks": (1, 2, 1), "width_multiplier": 0.0625, "max_blur_pool": True},
        (33, 22, 3),
        (numpy_models.resnet, (1, 2, 1), True),
    ),
    "allconv": ("allconv", {"dropout": 0.0}, (24, 29, 3), (numpy_models.allconv,)),
}
TORCH = {  # weight of a Keras layer -> its name and axes in PyTorch
    "kernel": ("weight", {4: (3, 2, 0, 1), 2: (1, 0)}),
    "bias": ("bias", {}),
    "gamma": ("weight", {}),
    "beta": ("bias", {}),
    "moving_mean": ("running_mean", {}),
    "moving_variance": ("running_var", {}),
}


def build_tiny(case: str, **more) -> keras.Model:
    name, options, shape, _ = TINY[case]
    return models.build(name, 5, shape, seed=3, **options, **more)


def torch_state(model: keras.Model) -> dict[str, np.ndarray]:
    """Returns the weights under PyTorch's names and in its layout, groups concatenated."""
    groups: dict[str, list[np.ndarray]] = {}
    for layer in model.layers:
        for variable in layer.weights:
            name, axes = TORCH[variable.name]
            value = variable.numpy()
            value = value.transpose(axes.get(value.ndim, range(value.ndim)))
            groups.setdefault(f"{layer.name.split('.group')[0]}.{name}", []).append(value)
    return {name: np.concatenate(parts) for name, parts in groups.items()}


def shake(model: keras.Model) -> None:
    """Gives all batch normalisations random scale, shift and moving statistics."""
    rng = np.random.default_rng(1)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])


def batch(shape, size=3):
    rng = np.random.default_rng(2)
    return rng.normal(size=(size, *shape)).astype(np.float32), rng.integers(0, 5, size)


def gradients_by_torch_name(model: keras.Model, gradients: list) -> dict[str, np.ndarray]:
    """Returns gradients under PyTorch's names; overwrites the weights of the model."""
    for weight, gradient in zip(model.trainable_weights, gradients, strict=True):
        weight.assign(gradient)
    return torch_state(model)


def cross_entropy(labels, logits):
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
