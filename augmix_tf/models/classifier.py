"""Models of raw pixels: the normalisation is their first layer."""

from __future__ import annotations

from collections.abc import Sequence

import keras

CIFAR_NORMALIZATION = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
"""(mean, standard deviation) of each channel, for pixels scaled to 0..1; the authors' values."""
IMAGENET_NORMALIZATION = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""The same for ImageNet, as in torchvision."""


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
