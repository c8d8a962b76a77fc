"""ResNet-50 for large images, optionally with anti-aliased (max-blur-pool) downsampling."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

from etils import epy

from augmix_tf.errors import require
from augmix_tf.models.blocks import Architecture, LayerFactory, require_counts
from augmix_tf.settings import setting

with epy.lazy_imports():
    import keras
    import keras.layers as L

EXPANSION = 4


@dataclasses.dataclass(frozen=True)
class ResNet50(Architecture):
    """ResNet-50 in torchvision's layout, with the strides on the 3x3 convolutions.

    Attributes:
        width_multiplier: scales the channels of the stem and of all stages (1 is ResNet-50).
        max_blur_pool: blur before every subsampling after the stem's convolution; the weights
            keep their names and shapes.
        blocks: bottlenecks in each stage; every stage after the first halves both sides.

    Raises:
        ArgumentError: an option out of range.

    Source: He et al., Deep Residual Learning (arXiv 1512.03385); Zhang, Making Convolutional
    Networks Shift-Invariant Again (arXiv 1904.11486).
    """

    name: ClassVar[str] = "resnet50"
    smallest_side: ClassVar[int] = 3

    width_multiplier: float = setting(
        1.0, "Channels as a multiple of ResNet-50's", "Model", low=1 / 64
    )
    max_blur_pool: bool = setting(False, "Anti-aliased downsampling", "Model")
    blocks: Sequence[int] = (3, 4, 6, 3)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(len(self.blocks) >= 1, "blocks in at least one stage", self.blocks)
        for count in self.blocks:
            require_counts(blocks=count)

    def logits(
        self, make: LayerFactory, images: keras.KerasTensor, num_classes: int
    ) -> keras.KerasTensor:
        """Returns logits float32 [N, num_classes] of images [N, H, W, C], sides 3 or more."""
        width = int(64 * self.width_multiplier)
        x = make.batch_norm_relu(make.conv(images, width, 7, "conv1", strides=2), "bn1")
        x = self._stem_pool(x)
        for stage, count in enumerate(self.blocks):
            for i in range(count):
                strides = 2 if stage > 0 and i == 0 else 1
                x = self._bottleneck(make, x, width * 2**stage, strides, f"layer{stage + 1}.{i}")
        return make.classifier(x, num_classes, "fc")

    def _stem_pool(self, images: keras.KerasTensor) -> keras.KerasTensor:
        """Returns the stem's max-pool, half the height and width."""
        if self.max_blur_pool:
            return blur_pool(L.MaxPooling2D(2, strides=1, name="maxpool")(images), "maxpool")
        # Zeros never win a max-pool after a ReLU, so they can stand for padding.
        padded = L.ZeroPadding2D(1, name="maxpool.pad")(images)
        return L.MaxPooling2D(3, strides=2, name="maxpool")(padded)

    def _bottleneck(
        self,
        make: LayerFactory,
        images: keras.KerasTensor,
        channels: int,
        strides: int,
        name: str,
    ) -> keras.KerasTensor:
        """Returns ReLU(shortcut + 1x1, 3x3, 1x1), with 4 * channels channels."""
        blurred = self.max_blur_pool and strides == 2
        conv_strides = 1 if blurred else strides
        x = make.batch_norm_relu(make.conv(images, channels, 1, f"{name}.conv1"), f"{name}.bn1")
        x = make.conv(x, channels, 3, f"{name}.conv2", strides=conv_strides)
        x = make.batch_norm_relu(x, f"{name}.bn2")
        if blurred:
            x = blur_pool(x, f"{name}.conv3")
        x = make.conv(x, EXPANSION * channels, 1, f"{name}.conv3")
        x = make.batch_norm(x, f"{name}.bn3")
        shortcut = images
        if strides == 2 or images.shape[-1] != EXPANSION * channels:
            source = blur_pool(images, f"{name}.downsample") if blurred else images
            shortcut = make.conv(
                source, EXPANSION * channels, 1, f"{name}.downsample.0", strides=conv_strides
            )
            shortcut = make.batch_norm(shortcut, f"{name}.downsample.1")
        return L.ReLU(name=f"{name}.relu")(L.Add(name=f"{name}.add")([shortcut, x]))


def blur_pool(images: keras.KerasTensor, name: str) -> keras.KerasTensor:
    """Returns every second pixel of `images` under the 5x5 binomial filter (1 4 6 4 1).

    Borders are padded with zeros, as for the convolutions (Zhang pads by reflection).
    """
    # Four 2x2 means equal that filter. A fixed convolution would be a weight to save, to load and
    # to exempt from decay, and under XLA on CPUs its backward pass is 15 times slower.
    x = L.ZeroPadding2D(2, name=f"{name}.blur.pad")(images)
    for i, strides in enumerate((1, 1, 1, 2)):
        x = L.AveragePooling2D(2, strides=strides, name=f"{name}.blur{i}")(x)
    return x
