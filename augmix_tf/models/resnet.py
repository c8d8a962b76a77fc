"""ResNet-50 for large images, optionally with anti-aliased (max-blur-pool) downsampling."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import keras.layers as L

from augmix_tf.checks import require
from augmix_tf.models.blocks import LayerFactory, require_counts, require_sides

EXPANSION = 4


def resnet50(
    make: LayerFactory,
    images: keras.KerasTensor,
    num_classes: int,
    *,
    max_blur_pool: bool = False,
    blocks: Sequence[int] = (3, 4, 6, 3),
    width_multiplier: float = 1.0,
) -> keras.KerasTensor:
    """Returns logits float32 [N, num_classes] of images [N, H, W, C], sides from 3 on.

    The layout is torchvision's: strides stand on the 3x3 convolutions.

    Args:
        max_blur_pool: blur before every subsampling after the stem's convolution; the weights
            keep their names and shapes.
        blocks: bottlenecks in each stage; every stage after the first halves both sides.
        width_multiplier: scales the channels of the stem and of all stages (1 is ResNet-50).

    Raises:
        CommandError: an option out of range, or images too small.

    Source: He et al., Deep Residual Learning (arXiv 1512.03385); Zhang, Making Convolutional
    Networks Shift-Invariant Again (arXiv 1904.11486).
    """
    require(len(blocks) >= 1, "blocks in at least one stage", blocks)
    for count in blocks:
        require_counts(blocks=count)
    width = int(64 * width_multiplier)
    require(width >= 1, "width_multiplier from 1/64 on", width_multiplier)
    require_sides(images, 3, "resnet50")
    x = make.batch_norm_relu(make.conv(images, width, 7, "conv1", strides=2), "bn1")
    x = stem_pool(x, max_blur_pool)
    for stage, count in enumerate(blocks):
        for i in range(count):
            strides = 2 if stage > 0 and i == 0 else 1
            name = f"layer{stage + 1}.{i}"
            x = bottleneck(make, x, width * 2**stage, strides, max_blur_pool, name)
    return make.classifier(x, num_classes, "fc")


def stem_pool(images: keras.KerasTensor, max_blur_pool: bool) -> keras.KerasTensor:
    """Returns the stem's max-pool, half the height and width."""
    if max_blur_pool:
        return blur_pool(L.MaxPooling2D(2, strides=1, name="maxpool")(images), "maxpool")
    # After a ReLU, zeros at the border never win against a real value.
    padded = L.ZeroPadding2D(1, name="maxpool.pad")(images)
    return L.MaxPooling2D(3, strides=2, name="maxpool")(padded)


def bottleneck(
    make: LayerFactory,
    images: keras.KerasTensor,
    planes: int,
    strides: int,
    max_blur_pool: bool,
    name: str,
) -> keras.KerasTensor:
    """Returns ReLU(shortcut + 1x1, 3x3, 1x1), with 4 * planes channels."""
    blurred = max_blur_pool and strides == 2
    conv_strides = 1 if blurred else strides
    x = make.batch_norm_relu(make.conv(images, planes, 1, f"{name}.conv1"), f"{name}.bn1")
    x = make.conv(x, planes, 3, f"{name}.conv2", strides=conv_strides)
    x = make.batch_norm_relu(x, f"{name}.bn2")
    if blurred:
        x = blur_pool(x, f"{name}.conv3")
    x = make.conv(x, EXPANSION * planes, 1, f"{name}.conv3")
    x = make.batch_norm(x, f"{name}.bn3")
    shortcut = images
    if strides == 2 or images.shape[-1] != EXPANSION * planes:
        source = blur_pool(images, f"{name}.downsample") if blurred else images
        shortcut = make.conv(
            source, EXPANSION * planes, 1, f"{name}.downsample.0", strides=conv_strides
        )
        shortcut = make.batch_norm(shortcut, f"{name}.downsample.1")
    return L.ReLU(name=f"{name}.relu")(L.Add(name=f"{name}.add")([shortcut, x]))


def blur_pool(images: keras.KerasTensor, name: str) -> keras.KerasTensor:
    """Returns every second pixel of `images` under the 5x5 binomial filter (1 4 6 4 1).

    Borders are padded with zeros, as those of the convolutions are (Zhang: by reflection).
    """
    # Four 2x2 means are that filter. As a fixed convolution it would be a weight to save, to load
    # and to keep from decay, and under XLA on CPUs its backward pass is 15 times slower.
    x = L.ZeroPadding2D(2, name=f"{name}.blur.pad")(images)
    for i, strides in enumerate((1, 1, 1, 2)):
        x = L.AveragePooling2D(2, strides=strides, name=f"{name}.blur{i}")(x)
    return x
