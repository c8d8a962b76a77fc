"""All Convolutional Network, in the variant of the AugMix experiments."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from etils import epy

from augmix_tf.models.blocks import Architecture, LayerFactory, Tensor

with epy.lazy_imports():
    import keras.layers as L


@dataclasses.dataclass(frozen=True)
class AllConv(Architecture):
    """Nine convolutions with bias, batch normalisation and GELU, and two max-pools.

    `dropout` is the fraction of values dropped after each max-pool.

    Source: Springenberg et al., Striving for Simplicity (arXiv 1412.6806), in the variant of
    Hendrycks et al., AugMix (arXiv 1912.02781).
    """

    name: ClassVar[str] = "allconv"
    smallest_side: ClassVar[int] = 24

    dropout: float = 0.5

    def logits(self, make: LayerFactory, images: Tensor, num_classes: int) -> Tensor:
        x = images
        # Indexes into the original's flat list of layers, where a convolution takes three entries
        # (convolution, normalisation, GELU) and a pool with its dropout two.
        for stage, (filters, first) in enumerate([(96, 0), (192, 11)], start=1):
            for index in (first, first + 3, first + 6):
                x = conv_norm_gelu(make, x, filters, 3, 1, index)
            x = L.MaxPooling2D(2, name=f"pool{stage}")(x)
            x = make.dropout(x, self.dropout, f"dropout{stage}")
        x = conv_norm_gelu(make, x, 192, 3, 0, 22)
        # The original pads these 1x1 convolutions too, which adds a border of bias only: 6x6 grows
        # to 10x10, of which the 8x8 pool takes the top left.
        for index in (25, 28):
            x = conv_norm_gelu(make, x, 192, 1, 1, index)
        x = L.AveragePooling2D(8, name="pool3")(x)
        return make.classifier(x, num_classes, "classifier")


def conv_norm_gelu(
    make: LayerFactory, images: Tensor, filters: int, kernel_size: int, padding: int, index: int
) -> Tensor:
    """Returns GELU of the normalised convolution; weights `features.<index>` and the next."""
    x = make.conv(images, filters, kernel_size, f"features.{index}", padding=padding, use_bias=True)
    return gelu(make.batch_norm(x, f"features.{index + 1}"), f"features.{index + 2}")


def gelu(x: Tensor, name: str) -> Tensor:
    """Returns x * sigmoid(1.702 x), the original's approximation of GELU (arXiv 1606.08415)."""
    scaled = L.Rescaling(1.702, name=f"{name}.scale")(x)
    gate = L.Activation("sigmoid", name=f"{name}.sigmoid")(scaled)
    return L.Multiply(name=name)([x, gate])
