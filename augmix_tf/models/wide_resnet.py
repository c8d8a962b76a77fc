"""Wide residual networks with pre-activation."""

from __future__ import annotations

import keras
import keras.layers as L

from augmix_tf.models.blocks import LayerFactory, blocks_per_stage, require_counts, require_share


def wide_resnet(
    make: LayerFactory,
    images: keras.KerasTensor,
    num_classes: int,
    *,
    depth: int = 40,
    widen_factor: int = 2,
    dropout: float = 0.0,
) -> keras.KerasTensor:
    """Returns logits float32 [N, num_classes] of images [N, H, W, C].

    Args:
        depth: 6n + 4, for n blocks in each of three stages.
        widen_factor: the stages have 16, 32 and 64 times as many channels.
        dropout: share of values dropped between the two convolutions of a block.

    Raises:
        CommandError: a depth of another form, or an option out of range.

    Source: Zagoruyko and Komodakis, Wide Residual Networks (arXiv 1605.07146).
    """
    require_counts(depth=depth, widen_factor=widen_factor)
    require_share("dropout", dropout)
    blocks = blocks_per_stage("wrn", depth, 6, 4)
    x = make.conv(images, 16, 3, "conv1")
    for stage, (planes, strides) in enumerate([(16, 1), (32, 2), (64, 2)], start=1):
        for i in range(blocks):
            name = f"block{stage}.layer.{i}"
            x = basic_block(make, x, planes * widen_factor, strides if i == 0 else 1, dropout, name)
    return make.classifier(make.batch_norm_relu(x, "bn1"), num_classes, "fc")


def basic_block(
    make: LayerFactory,
    images: keras.KerasTensor,
    filters: int,
    strides: int,
    dropout: float,
    name: str,
) -> keras.KerasTensor:
    """Returns shortcut + two 3x3 convolutions, [N, H / strides, W / strides, filters]."""
    x = make.batch_norm_relu(images, f"{name}.bn1")
    shortcut = images
    if images.shape[-1] != filters:
        # A projection takes the activated tensor, an identity the raw one.
        shortcut = make.conv(x, filters, 1, f"{name}.conv_shortcut", strides=strides)
    x = make.conv(x, filters, 3, f"{name}.conv1", strides=strides)
    x = make.batch_norm_relu(x, f"{name}.bn2")
    x = make.dropout(x, dropout, f"{name}.dropout")
    x = make.conv(x, filters, 3, f"{name}.conv2")
    return L.Add(name=f"{name}.add")([shortcut, x])
