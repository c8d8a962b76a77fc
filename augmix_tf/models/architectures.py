"""The architectures: four for images of 32x32 pixels or so, and ResNet-50 for large ones."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import ClassVar

from etils import epy

from augmix_tf.errors import require
from augmix_tf.models.blocks import BLUR, Architecture, LayerFactory, Tensor, require_depth
from augmix_tf.settings import setting

with epy.lazy_imports():
    import keras.layers as L

# Channels that a bottleneck returns, as a multiple of those inside.
EXPANSION = 4


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
    """Returns GELU of the normalised convolution; weights `features.<index>` and the next.

    GELU is x * sigmoid(1.702 x), the original's approximation (arXiv 1606.08415).
    """
    x = make.conv(images, filters, kernel_size, f"features.{index}", padding=padding, use_bias=True)
    x, name = make.batch_norm(x, f"features.{index + 1}"), f"features.{index + 2}"
    scaled = L.Rescaling(1.702, name=f"{name}.scale")(x)
    gate = L.Activation("sigmoid", name=f"{name}.sigmoid")(scaled)
    return L.Multiply(name=name)([x, gate])


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
        x = make.conv(x, self.growth_rate, 3, f"{name}.conv{2 if self.bottleneck else 1}")
        return L.Concatenate(name=f"{name}.concat")([images, x])

    def _transition(self, make: LayerFactory, images: Tensor, name: str) -> Tensor:
        """Returns half the height and width and the fraction `reduction` of the channels."""
        x = make.batch_norm_relu(images, f"{name}.bn1")
        channels = max(1, math.floor(images.shape[-1] * self.reduction))
        x = make.conv(x, channels, 1, f"{name}.conv1")
        return L.AveragePooling2D(2, name=f"{name}.pool")(x)


@dataclasses.dataclass(frozen=True)
class WideResNet(Architecture):
    """Wide residual network with pre-activation, n blocks in each of three stages.

    Source: Zagoruyko and Komodakis, Wide Residual Networks (arXiv 1605.07146).
    """

    name: ClassVar[str] = "wrn"

    depth: int = setting(40, "Number of layers, 6n + 4", "Model", low=10)
    widen_factor: int = setting(2, "Channels as a multiple of 16, 32 and 64", "Model", low=1)
    dropout: float = 0.0  # fraction of values dropped between the two convolutions of a block

    def __post_init__(self) -> None:
        super().__post_init__()
        require_depth(self.name, self.depth, 6, 4)

    def logits(self, make: LayerFactory, images: Tensor, num_classes: int) -> Tensor:
        x = make.conv(images, 16, 3, "conv1")
        for stage, (channels, strides) in enumerate([(16, 1), (32, 2), (64, 2)], start=1):
            for i in range((self.depth - 4) // 6):
                name = f"block{stage}.layer.{i}"
                x = self._block(make, x, channels, strides if i == 0 else 1, name)
        return make.classifier(make.batch_norm_relu(x, "bn1"), num_classes, "fc")

    def _block(
        self, make: LayerFactory, images: Tensor, channels: int, strides: int, name: str
    ) -> Tensor:
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


@dataclasses.dataclass(frozen=True)
class ResNeXt(Architecture):
    """Residual network of bottlenecks with grouped convolutions, n in each of three stages.

    Source: Xie et al., Aggregated Residual Transformations for Deep Neural Networks
    (arXiv 1611.05431), blocks of type C.
    """

    name: ClassVar[str] = "resnext"

    depth: int = setting(29, "Number of layers, 9n + 2", "Model", low=11)
    cardinality: int = 4  # groups of every 3x3 convolution
    base_width: int = 32  # channels of one group in the first stage; the next have 2 and 4 times

    def __post_init__(self) -> None:
        super().__post_init__()
        require_depth(self.name, self.depth, 9, 2)

    def logits(self, make: LayerFactory, images: Tensor, num_classes: int) -> Tensor:
        x = make.batch_norm_relu(make.conv(images, 64, 3, "conv_1_3x3"), "bn_1")
        for stage, (channels, strides) in enumerate([(64, 1), (128, 2), (256, 2)], start=1):
            for i in range((self.depth - 2) // 9):
                name = f"stage_{stage}.{i}"
                x = self._bottleneck(make, x, channels, strides if i == 0 else 1, name)
        return make.classifier(x, num_classes, "classifier", he_normal=True)

    def _bottleneck(
        self, make: LayerFactory, images: Tensor, channels: int, strides: int, name: str
    ) -> Tensor:
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


@dataclasses.dataclass(frozen=True)
class ResNet50(Architecture):
    """ResNet-50 in torchvision's layout, with the strides on the 3x3 convolutions.

    `max_blur_pool` blurs before every subsampling after the stem's convolution: Zhang's network
    with the 5x5 filter and its names of weights. It needs images of a fixed size.

    Source: He et al., Deep Residual Learning (arXiv 1512.03385); Zhang, Making Convolutional
    Networks Shift-Invariant Again (arXiv 1904.11486).
    """

    name: ClassVar[str] = "resnet50"
    smallest_side: ClassVar[int] = 3

    width_multiplier: float = setting(
        1.0, "Channels as a multiple of ResNet-50's", "Model", low=1 / 64
    )
    max_blur_pool: bool = setting(False, "Anti-aliased downsampling", "Model")
    blocks: Sequence[int] = (3, 4, 6, 3)  # in each stage; all but the first halve both sides

    def logits(self, make: LayerFactory, images: Tensor, num_classes: int) -> Tensor:
        fixed = not self.max_blur_pool or None not in images.shape[1:3]
        require(fixed, "max_blur_pool images of a fixed size", images.shape[1:3])
        width = int(64 * self.width_multiplier)
        x = make.batch_norm_relu(make.conv(images, width, 7, "conv1", strides=2), "bn1")
        x = self._stem_pool(x)
        for stage, count in enumerate(self.blocks):
            for i in range(count):
                strides = 2 if stage > 0 and i == 0 else 1
                x = self._bottleneck(make, x, width * 2**stage, strides, f"layer{stage + 1}.{i}")
        return make.classifier(x, num_classes, "fc")

    def _stem_pool(self, images: Tensor) -> Tensor:
        if self.max_blur_pool:
            return blur_pool(L.MaxPooling2D(2, strides=1, name="maxpool.0")(images), "maxpool.1")
        # Zeros never win a max-pool after a ReLU, so they can stand for padding.
        padded = L.ZeroPadding2D(1, name="maxpool.pad")(images)
        return L.MaxPooling2D(3, strides=2, name="maxpool")(padded)

    def _bottleneck(
        self, make: LayerFactory, images: Tensor, channels: int, strides: int, name: str
    ) -> Tensor:
        """Returns ReLU(shortcut + 1x1, 3x3, 1x1), with 4 * channels channels."""
        blurred = self.max_blur_pool and strides == 2
        conv_strides = 1 if blurred else strides
        x = make.batch_norm_relu(make.conv(images, channels, 1, f"{name}.conv1"), f"{name}.bn1")
        x = make.conv(x, channels, 3, f"{name}.conv2", strides=conv_strides)
        x = make.batch_norm_relu(x, f"{name}.bn2")
        last = f"{name}.conv3"
        if blurred:
            x, last = blur_pool(x, f"{last}.0"), f"{last}.1"
        x = make.conv(x, EXPANSION * channels, 1, last)
        x = make.batch_norm(x, f"{name}.bn3")
        shortcut, number = images, 0  # of the layer in PyTorch's `Sequential`
        if strides == 2 or images.shape[-1] != EXPANSION * channels:
            down = f"{name}.downsample"
            if blurred:
                shortcut, number = blur_pool(images, f"{down}.0"), 1
            shortcut = make.conv(
                shortcut, EXPANSION * channels, 1, f"{down}.{number}", strides=conv_strides
            )
            shortcut = make.batch_norm(shortcut, f"{down}.{number + 1}")
        return L.ReLU(name=f"{name}.relu")(L.Add(name=f"{name}.add")([shortcut, x]))


def blur_pool(images: Tensor, name: str) -> Tensor:
    """Returns every second pixel of reflected `images` under the 5x5 filter (1 4 6 4 1)."""
    # Four 2x2 means equal that filter. A fixed convolution would be a weight to save, to load and
    # to exempt from decay, and under XLA on CPUs its backward pass is 15 times slower.
    x = reflected(reflected(images, 0, f"{name}.rows"), 1, f"{name}.columns")
    for i, strides in enumerate((1, 1, 1, 2)):
        x = L.AveragePooling2D(2, strides=strides, name=f"{name}{BLUR}{i}")(x)
    return x


def reflected(images: Tensor, axis: int, name: str) -> Tensor:
    """Returns `images` with two more rows (axis 0) or columns (1) on both sides, by reflection."""
    side = images.shape[1 + axis]
    period = max(2 * (side - 1), 1)
    borders = []
    for i, place in enumerate((-2, -1, side, side + 1)):
        source = min(place % period, -place % period)
        cropping = [(0, 0), (0, 0)]
        cropping[axis] = (source, side - 1 - source)
        borders.append(L.Cropping2D(cropping, name=f"{name}.border{i}")(images))
    parts = [*borders[:2], images, *borders[2:]]
    return L.Concatenate(axis=1 + axis, name=f"{name}.reflected")(parts)
