"""Image classifiers of the AugMix experiments: normalised float32 images in, logits out."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import keras

from augmix_tf.checks import lookup, require
from augmix_tf.models.allconv import allconv
from augmix_tf.models.blocks import LayerFactory, require_counts
from augmix_tf.models.densenet import densenet
from augmix_tf.models.resnet import resnet50
from augmix_tf.models.resnext import resnext
from augmix_tf.models.torch_state import load_torch_state
from augmix_tf.models.wide_resnet import wide_resnet

__all__ = ["MODELS", "build", "load_torch_state"]

Shape = tuple[int | None, int | None, int]

MODELS: Mapping[str, Callable[..., keras.KerasTensor]] = {
    "allconv": allconv,
    "densenet": densenet,
    "resnet50": resnet50,
    "resnext": resnext,
    "wrn": wide_resnet,
}


def build(
    name: str,
    num_classes: int,
    input_shape: Shape = (32, 32, 3),
    *,
    seed: int | None = None,
    synchronized_bn: bool = False,
    **options: Any,
) -> keras.Model:
    """Returns a functional Keras model, float32 [N, H, W, C] to logits float32 [N, num_classes].

    The images come normalised already. The model is made of Keras's own layers only, so a saved
    file loads without this package and gives the same logits; to train on as here, build the model
    and load its weights (why: `models.batch_norm`). The logits are float32 under any precision
    policy.

    Args:
        name: `allconv`, `densenet`, `resnet50`, `resnext` or `wrn`.
        num_classes: classes, from 2 on.
        input_shape: (height, width, channels); None leaves a side open.
        seed: initial weights and dropout follow from it alone; None: from Keras's global seed.
        synchronized_bn: batch statistics over all replicas of a `tf.distribute` strategy.
        options: the keyword arguments of the model's function, such as `depth=16`.

    Raises:
        CommandError: unknown model or option, or a value that the architecture cannot take.

    >>> model = build("wrn", num_classes=10, depth=10, widen_factor=1)
    >>> model.output_shape, f"{model.count_params():,}"
    ((None, 10), '78,330')
    """
    builder = lookup("model", name, MODELS)
    parameters = inspect.signature(builder).parameters.values()
    known = {p.name: p for p in parameters if p.kind is p.KEYWORD_ONLY}
    for option in options:
        lookup(f"option of {name}", option, known)
    require_counts(num_classes=num_classes)
    require(num_classes >= 2, "num_classes from 2 on", num_classes)
    check_input_shape(input_shape)
    images = keras.Input(input_shape, dtype="float32", name="images")
    logits = builder(LayerFactory(seed, synchronized_bn), images, num_classes, **options)
    return keras.Model(images, logits, name=name)


def check_input_shape(shape: Shape) -> None:
    """Raises `CommandError` unless `shape` is (height, width, channels), sides None if open."""
    require(len(shape) == 3, "input_shape (height, width, channels)", shape)
    height, width, channels = shape
    for side in (height, width):
        require_counts(input_shape=1 if side is None else side)
    require_counts(input_shape=channels)
