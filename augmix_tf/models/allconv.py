"""All Convolutional Network, as the AugMix experiments use it."""

from __future__ import annotations

import keras
import keras.layers as L

from augmix_tf.models.blocks import LayerFactory, require_share, require_sides


def allconv(
    make: LayerFactory, images: keras.KerasTensor, num_classes: int, *, dropout: float = 0.5
) -> keras.KerasTensor:
    """Returns logits float32 [N, num_classes] of images [N, H, W, C], sides from 24 on.

    Nine convolutions with bias, batch normalisation and GELU (sigmoid form), two max-pools.

    Args:
        dropout: share of values dropped after each max-pool.

    Raises:
        CommandError: `dropout` outside [0, 1), or images too small for the last pool.

    Source: Springenberg et al., Striving for Simplicity (arXiv 1412.6806), in the variant of
    Hendrycks et al., AugMix (arXiv 1912.02781).
    """
    require_share("dropout", dropout)
    require_sides(images, 24, "allconv")
    x = images
    # Names count on as in the original's flat list, where a convolution takes three places
    # (convolution, normalisation, GELU) and a pool with its dropout two.
    for stage, (filters, first) in enumerate([(96, 0), (192, 11)], start=1):
        for place in (first, first + 3, first + 6):
            x = conv_norm_gelu(make, x, filters, 3, 1, place)
        x = L.MaxPooling2D(2, name=f"pool{stage}")(x)
        x = make.dropout(x, dropout, f"dropout{stage}")
    x = conv_norm_gelu(make, x, 192, 3, 0, 22)
    # Padding a 1x1 convolution adds a rim that sees nothing but the bias. The original does so:
    # 6x6 grows to 10x10, of which the 8x8 pool takes the top left.
    for place in (25, 28):
        x = conv_norm_gelu(make, x, 192, 1, 1, place)
    x = L.AveragePooling2D(8, name="pool3")(x)
    return make.classifier(x, num_classes, "classifier")


def conv_norm_gelu(
    make: LayerFactory,
    images: keras.KerasTensor,
    filters: int,
    kernel_size: int,
    padding: int,
    place: int,
) -> keras.KerasTensor:
    """Returns GELU of the normalised convolution, weights at `features.<place>` and the next."""
    x = make.conv(images, filters, kernel_size, f"features.{place}", padding=padding, use_bias=True)
    return gelu(make.batch_norm(x, f"features.{place + 1}"), f"features.{place + 2}")


def gelu(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    """Returns x * sigmoid(1.702 x), the approximation the original uses (arXiv 1606.08415)."""
    scaled = L.Rescaling(1.702, name=f"{name}.scale")(x)
    gate = L.Activation("sigmoid", name=f"{name}.sigmoid")(scaled)
    return L.Multiply(name=name)([x, gate])
