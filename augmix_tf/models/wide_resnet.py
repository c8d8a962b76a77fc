"""Wide residual networks for small images."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from etils import epy

from augmix_tf.models.blocks import Architecture, LayerFactory, require_depth, require_fraction
from augmix_tf.settings import setting

with epy.lazy_imports():
    import keras
    import keras.layers as L


@dataclasses.dataclass(frozen=True)
class WideResNet(Architecture):
    """Wide residual network with pre-activation.

    Attributes:
        depth: number of layers, 6n + 4 for n blocks in each of three stages.
        widen_factor: the stages have 16, 32 and 64 times as many channels.
        dropout: fraction of values dropped between the two convolutions of a block.

    Raises:
        ArgumentError: a depth of another form, or an option out of range.

    Source: Zagoruyko and Komodakis, Wide Residual Networks (arXiv 1605.07146).
    """

    name: ClassVar[str] = "wrn"

    depth: int = setting(40, "Number of layers, 6n + 4", "Model", low=10)
    widen_factor: int = setting(2, "Channels as a multiple of 16, 32 and 64", "Model", low=1)
    dropout: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_depth(self.name, self.depth, 6, 4)
        require_fraction("dropout", self.dropout)

    def logits(
        self, make: LayerFactory, images: keras.KerasTensor, num_classes: int
    ) -> keras.KerasTensor:
        """Returns logits float32 [N, num_classes] of images [N, H, W, C]."""
        x = make.conv(images, 16, 3, "conv1")
        for stage, (channels, strides) in enumerate([(16, 1), (32, 2), (64, 2)], start=1):
            for i in range((self.depth - 4) // 6):
                name = f"block{stage}.layer.{i}"
                x = self._block(make, x, channels, strides if i == 0 else 1, name)
        return make.classifier(make.batch_norm_relu(x, "bn1"), num_classes, "fc")

    def _block(
        self,
        make: LayerFactory,
        images: keras.KerasTensor,
        channels: int,
        strides: int,
        name: str,
    ) -> keras.KerasTensor:
        """Returns shortcut + two 3x3 convolutions, [N, H / strides, W / strides, filters]."""
        filters = channels * self.widen_factor
        x = make.batch_norm_relu(images, f"{name}.bn1")
        shortcut = images
        if images.shape[-1] != filters:
            # A projection takes the activated tensor, an identity shortcut the raw one.
            shortcut = make.conv(x, filters, 1, f"{name}.conv_shortcut", strides=strides)
        x = make.conv(x, filters, 3, f"{name}.conv1", strides=strides)
        x = make.batch_norm_relu(x, f"{name}.bn2")
        x = make.dropout(x, self.dropout, f"{name}.dropout")
        x = make.conv(x, filters, 3, f"{name}.conv2")
        return L.Add(name=f"{name}.add")([shortcut, x])
