"""Densely connected networks for small images, with and without bottleneck and compression."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

from etils import epy

from augmix_tf.models.blocks import Architecture, LayerFactory, Tensor, require_depth
from augmix_tf.settings import setting

with epy.lazy_imports():
    import keras.layers as L


@dataclasses.dataclass(frozen=True)
class DenseNet(Architecture):
    """Densely connected network.

    The defaults are DenseNet-BC (k = 12, L = 100), the model of the AugMix paper. The scripts
    published with the paper build depth=40, bottleneck=False, reduction=1.0 instead.

    Source: Huang et al., Densely Connected Convolutional Networks (arXiv 1608.06993).
    """

    name: ClassVar[str] = "densenet"
    smallest_side: ClassVar[int] = 4

    # 6n + 4 with bottleneck, 3n + 4 without, for n layers in each of three blocks.
    depth: int = setting(100, "Number of layers, 6n + 4", "Model", low=7)
    growth_rate: int = 12  # channels that every layer adds
    bottleneck: bool = True  # a 1x1 convolution to 4 * growth_rate channels before each 3x3
    reduction: float = 0.5  # fraction of the channels that a transition keeps

    def __post_init__(self) -> None:
        super().__post_init__()
        kind = self.name if self.bottleneck else f"{self.name} without bottleneck"
        require_depth(kind, self.depth, self._convolutions, 4)

    @property
    def _convolutions(self) -> int:
        """Convolutions of one layer, times the three blocks."""
        return 6 if self.bottleneck else 3

    def logits(self, make: LayerFactory, images: Tensor, num_classes: int) -> Tensor:
        x = make.conv(images, 2 * self.growth_rate, 3, "conv1")
        for block in (1, 2, 3):
            for i in range((self.depth - 4) // self._convolutions):
                x = self._layer(make, x, f"dense{block}.{i}")
            if block < 3:
                x = self._transition(make, x, f"trans{block}")
        return make.classifier(make.batch_norm_relu(x, "bn1"), num_classes, "fc")

    def _layer(self, make: LayerFactory, images: Tensor, name: str) -> Tensor:
        """Returns `images` followed by `growth_rate` new channels."""
        x = make.batch_norm_relu(images, f"{name}.bn1")
        if self.bottleneck:
            x = make.conv(x, 4 * self.growth_rate, 1, f"{name}.conv1")
            x = make.batch_norm_relu(x, f"{name}.bn2")
            x = make.conv(x, self.growth_rate, 3, f"{name}.conv2")
        else:
            x = make.conv(x, self.growth_rate, 3, f"{name}.conv1")
        return L.Concatenate(name=f"{name}.concat")([images, x])

    def _transition(self, make: LayerFactory, images: Tensor, name: str) -> Tensor:
        """Returns half the height and width and the fraction `reduction` of the channels."""
        x = make.batch_norm_relu(images, f"{name}.bn1")
        channels = max(1, math.floor(images.shape[-1] * self.reduction))
        x = make.conv(x, channels, 1, f"{name}.conv1")
        return L.AveragePooling2D(2, name=f"{name}.pool")(x)
