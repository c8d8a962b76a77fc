"""ResNeXt for small images."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from etils import epy

from augmix_tf.models.blocks import Architecture, LayerFactory, require_counts, require_depth
from augmix_tf.settings import setting

with epy.lazy_imports():
    import keras
    import keras.layers as L

EXPANSION = 4


@dataclasses.dataclass(frozen=True)
class ResNeXt(Architecture):
    """Residual network of bottlenecks with grouped convolutions.

    Attributes:
        depth: number of layers, 9n + 2 for n bottlenecks in each of three stages.
        cardinality: groups of every 3x3 convolution.
        base_width: channels of one group in the first stage; the second has twice, the third
            four times as many.

    Raises:
        ArgumentError: a depth of another form, or an option out of range.

    Source: Xie et al., Aggregated Residual Transformations for Deep Neural Networks
    (arXiv 1611.05431), blocks of type C.
    """

    name: ClassVar[str] = "resnext"

    depth: int = setting(29, "Number of layers, 9n + 2", "Model", low=11)
    cardinality: int = 4
    base_width: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        require_depth(self.name, self.depth, 9, 2)
        require_counts(cardinality=self.cardinality, base_width=self.base_width)

    def logits(
        self, make: LayerFactory, images: keras.KerasTensor, num_classes: int
    ) -> keras.KerasTensor:
        """Returns logits float32 [N, num_classes] of images [N, H, W, C]."""
        x = make.batch_norm_relu(make.conv(images, 64, 3, "conv_1_3x3"), "bn_1")
        for stage, (channels, strides) in enumerate([(64, 1), (128, 2), (256, 2)], start=1):
            for i in range((self.depth - 2) // 9):
                name = f"stage_{stage}.{i}"
                x = self._bottleneck(make, x, channels, strides if i == 0 else 1, name)
        return make.classifier(x, num_classes, "classifier", he_normal=True)

    def _bottleneck(
        self,
        make: LayerFactory,
        images: keras.KerasTensor,
        channels: int,
        strides: int,
        name: str,
    ) -> keras.KerasTensor:
        """Returns ReLU(shortcut + 1x1, grouped 3x3, 1x1), with 4 * channels channels."""
        inner = channels * self.base_width // 64 * self.cardinality
        x = make.conv(images, inner, 1, f"{name}.conv_reduce")
        x = make.batch_norm_relu(x, f"{name}.bn_reduce")
        x = make.conv(x, inner, 3, f"{name}.conv_conv", strides=strides, groups=self.cardinality)
        x = make.batch_norm_relu(x, f"{name}.bn")
        x = make.conv(x, EXPANSION * channels, 1, f"{name}.conv_expand")
        x = make.batch_norm(x, f"{name}.bn_expand")
        shortcut = images
        if images.shape[-1] != EXPANSION * channels:
            shortcut = make.conv(
                images, EXPANSION * channels, 1, f"{name}.downsample.0", strides=strides
            )
            shortcut = make.batch_norm(shortcut, f"{name}.downsample.1")
        return L.ReLU(name=f"{name}.relu")(L.Add(name=f"{name}.add")([shortcut, x]))
