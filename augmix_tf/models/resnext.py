"""ResNeXt for small images."""

from __future__ import annotations

import keras
import keras.layers as L

from augmix_tf.models.blocks import LayerFactory, blocks_per_stage, require_counts

EXPANSION = 4


def resnext(
    make: LayerFactory,
    images: keras.KerasTensor,
    num_classes: int,
    *,
    depth: int = 29,
    cardinality: int = 4,
    base_width: int = 32,
) -> keras.KerasTensor:
    """Returns logits float32 [N, num_classes] of images [N, H, W, C].

    Args:
        depth: 9n + 2, for n bottlenecks in each of three stages.
        cardinality: groups of every 3x3 convolution.
        base_width: channels of one group in the first stage; the second has twice, the third
            four times as many.

    Raises:
        CommandError: a depth of another form, or an option out of range.

    Source: Xie et al., Aggregated Residual Transformations for Deep Neural Networks
    (arXiv 1611.05431), blocks of type C.
    """
    require_counts(depth=depth, cardinality=cardinality, base_width=base_width)
    blocks = blocks_per_stage("resnext", depth, 9, 2)
    x = make.batch_norm_relu(make.conv(images, 64, 3, "conv_1_3x3"), "bn_1")
    for stage, (planes, strides) in enumerate([(64, 1), (128, 2), (256, 2)], start=1):
        inner = planes * base_width // 64 * cardinality
        for i in range(blocks):
            name = f"stage_{stage}.{i}"
            x = bottleneck(make, x, planes, inner, cardinality, strides if i == 0 else 1, name)
    return make.classifier(x, num_classes, "classifier", he_normal=True)


def bottleneck(
    make: LayerFactory,
    images: keras.KerasTensor,
    planes: int,
    inner: int,
    cardinality: int,
    strides: int,
    name: str,
) -> keras.KerasTensor:
    """Returns ReLU(shortcut + 1x1, grouped 3x3, 1x1), with 4 * planes channels."""
    x = make.conv(images, inner, 1, f"{name}.conv_reduce")
    x = make.batch_norm_relu(x, f"{name}.bn_reduce")
    x = make.conv(x, inner, 3, f"{name}.conv_conv", strides=strides, groups=cardinality)
    x = make.batch_norm_relu(x, f"{name}.bn")
    x = make.conv(x, EXPANSION * planes, 1, f"{name}.conv_expand")
    x = make.batch_norm(x, f"{name}.bn_expand")
    shortcut = images
    if images.shape[-1] != EXPANSION * planes:
        shortcut = make.conv(images, EXPANSION * planes, 1, f"{name}.downsample.0", strides=strides)
        shortcut = make.batch_norm(shortcut, f"{name}.downsample.1")
    return L.ReLU(name=f"{name}.relu")(L.Add(name=f"{name}.add")([shortcut, x]))
