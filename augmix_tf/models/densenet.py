"""Densely connected networks for small images, with and without bottleneck and compression."""

from __future__ import annotations

import math

import keras
import keras.layers as L

from augmix_tf.checks import require
from augmix_tf.models.blocks import LayerFactory, blocks_per_stage, require_counts, require_sides


def densenet(
    make: LayerFactory,
    images: keras.KerasTensor,
    num_classes: int,
    *,
    depth: int = 100,
    growth_rate: int = 12,
    bottleneck: bool = True,
    reduction: float = 0.5,
) -> keras.KerasTensor:
    """Returns logits float32 [N, num_classes] of images [N, H, W, C], sides from 4 on.

    The defaults are DenseNet-BC (k = 12, L = 100), the model of the AugMix paper. The scripts
    published with it really build depth=40, bottleneck=False, reduction=1.0.

    Args:
        depth: 6n + 4 with bottleneck, 3n + 4 without, for n layers in each of three blocks.
        growth_rate: channels that every layer adds.
        bottleneck: a 1x1 convolution to 4 * growth_rate channels before each 3x3.
        reduction: share of the channels that a transition keeps, above 0, at most 1.

    Raises:
        CommandError: a depth of another form, an option out of range, or images too small.

    Source: Huang et al., Densely Connected Convolutional Networks (arXiv 1608.06993).
    """
    require_counts(depth=depth, growth_rate=growth_rate)
    require(0 < reduction <= 1, "reduction above 0, at most 1", reduction)
    require_sides(images, 4, "densenet")
    if bottleneck:
        layers = blocks_per_stage("densenet (bottleneck)", depth, 6, 4)
    else:
        layers = blocks_per_stage("densenet (no bottleneck)", depth, 3, 4)
    x = make.conv(images, 2 * growth_rate, 3, "conv1")
    for block in (1, 2, 3):
        for i in range(layers):
            x = dense_layer(make, x, growth_rate, bottleneck, f"dense{block}.{i}")
        if block < 3:
            x = transition(make, x, reduction, f"trans{block}")
    return make.classifier(make.batch_norm_relu(x, "bn1"), num_classes, "fc")


def dense_layer(
    make: LayerFactory, images: keras.KerasTensor, growth_rate: int, bottleneck: bool, name: str
) -> keras.KerasTensor:
    """Returns `images` with `growth_rate` new channels behind its own."""
    x = make.batch_norm_relu(images, f"{name}.bn1")
    if bottleneck:
        x = make.conv(x, 4 * growth_rate, 1, f"{name}.conv1")
        x = make.batch_norm_relu(x, f"{name}.bn2")
        x = make.conv(x, growth_rate, 3, f"{name}.conv2")
    else:
        x = make.conv(x, growth_rate, 3, f"{name}.conv1")
    return L.Concatenate(name=f"{name}.concat")([images, x])


def transition(
    make: LayerFactory, images: keras.KerasTensor, reduction: float, name: str
) -> keras.KerasTensor:
    """Returns half the height and width and a share `reduction` of the channels."""
    x = make.batch_norm_relu(images, f"{name}.bn1")
    # At least one channel is left, however small the share.
    x = make.conv(x, max(1, math.floor(images.shape[-1] * reduction)), 1, f"{name}.conv1")
    return L.AveragePooling2D(2, name=f"{name}.pool")(x)
