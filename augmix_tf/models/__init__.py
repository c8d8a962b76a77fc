"""Image classifiers of the AugMix experiments: normalised float32 images in, logits out.

Importing this loads neither Keras nor TensorFlow, so that the command line can read the settings
of every model quickly.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epy

from augmix_tf.errors import lookup, require
from augmix_tf.models.architectures import AllConv, DenseNet, ResNet50, ResNeXt, WideResNet
from augmix_tf.models.blocks import (
    CIFAR_NORMALIZATION,
    IMAGENET_NORMALIZATION,
    Architecture,
    LayerFactory,
)
from augmix_tf.models.torch_state import load_torch_state

with epy.lazy_imports():
    import keras

__all__ = [
    "CIFAR_NORMALIZATION",
    "IMAGENET_NORMALIZATION",
    "MODELS",
    "build",
    "last_activation",
    "load_torch_state",
    "with_normalization",
]

MODELS: Mapping[str, type[Architecture]] = {
    architecture.name: architecture
    for architecture in (AllConv, DenseNet, ResNet50, ResNeXt, WideResNet)
}
"""Name -> frozen dataclass whose fields are the options of the model."""


def build(
    model: str | Architecture,
    num_classes: int,
    input_shape: tuple[int | None, int | None, int] = (32, 32, 3),
    *,
    seed: int | None = None,
    synchronized_bn: bool = False,
    **options: Any,
) -> keras.Model:
    """Returns a functional Keras model, float32 [N, H, W, C] to logits float32 [N, num_classes].

    The images must be normalised already. The model consists of Keras's own layers only, so a saved
    file loads without this package and gives the same logits. To continue training, build the model
    and load the weights instead (see `models.batch_norm`). The logits are float32 under any
    precision policy.

    Args:
        model: `allconv`, `densenet`, `resnet50`, `resnext`, `wrn`, or an architecture such as
            `WideResNet(depth=16)`.
        num_classes: number of classes, at least 2.
        input_shape: (height, width, channels); None leaves a side open.
        seed: determines initial weights and dropout; None: Keras's global seed does.
        synchronized_bn: batch statistics over all replicas of a `tf.distribute` strategy.
        **options: fields of the model's dataclass in `MODELS`, such as `depth=16`.

    Raises:
        ArgumentError: an unknown model or option, or a value that the architecture cannot take.

    >>> model = build("wrn", num_classes=10, depth=10, widen_factor=1)
    >>> model.output_shape, f"{model.count_params():,}"
    ((None, 10), '78,330')
    """
    start = lookup("model", model, MODELS)() if isinstance(model, str) else model
    for option in options:
        lookup(f"option of {start.name}", option, vars(start))
    architecture = dataclasses.replace(start, **options)
    require(num_classes >= 2, "num_classes from 2 on", num_classes)
    sides, smallest = input_shape[:2], architecture.smallest_side
    fits = all(side is None or side >= smallest for side in sides)
    require(fits, f"{architecture.name} images of at least {smallest}x{smallest}", sides)
    images = keras.Input(input_shape, dtype="float32", name="images")
    logits = architecture.logits(LayerFactory(seed, synchronized_bn), images, num_classes)
    return keras.Model(images, logits, name=architecture.name)


def with_normalization(
    backbone: keras.Model, mean: Sequence[float], std: Sequence[float]
) -> keras.Model:
    """Returns a classifier of raw pixels, float32 [N, H, W, 3] in 0..255 to logits.

    Applies (x / 255 - mean) / std, then `backbone`. Consists of Keras's own layers only.
    """
    images = keras.Input(backbone.input_shape[1:], dtype="float32", name="images")
    scale = [1.0 / (255.0 * s) for s in std]
    offset = [-m / s for m, s in zip(mean, std, strict=True)]
    # In float32 under any precision policy: bfloat16 cannot tell 256 levels apart.
    normalise = keras.layers.Rescaling(scale, offset, dtype="float32", name="normalisation")
    return keras.Model(images, backbone(normalise(images)), name=f"{backbone.name}_classifier")


def last_activation(layer: keras.layers.Layer) -> str | None:
    """Returns the name of the activation at the end of a model; None where it cannot be told."""
    from_logits = getattr(layer, "from_logits", None)  # as `AugMixModel` declares it
    if isinstance(from_logits, bool):
        return "linear" if from_logits else "softmax"
    if isinstance(layer, keras.Model):
        # The layers of a subclassed model are in no order.
        in_order = isinstance(layer, keras.Sequential) or hasattr(layer, "inputs")
        return last_activation(layer.layers[-1]) if in_order and layer.layers else None
    if isinstance(layer, keras.layers.Softmax):
        return "softmax"
    name = getattr(getattr(layer, "activation", None), "__name__", None)
    # As a layer of its own, "linear" only casts what may be probabilities.
    return None if isinstance(layer, keras.layers.Activation) and name == "linear" else name
