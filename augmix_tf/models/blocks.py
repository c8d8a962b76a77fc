"""What the architectures are made of: stock Keras layers, named and initialised in one place.

A layer that holds weights bears the name that its counterpart has in the original PyTorch code
("block1.layer.0.conv1"), so that `load_torch_state` needs no table per model. Nothing here is a
class of our own, the normalisation of `batch_norm` included: a saved `.keras` file loads without
this package.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from typing import Any

import keras
import keras.layers as L

from augmix_tf.checks import CommandError, require
from augmix_tf.models.batch_norm import batch_normalization

# Ends the name of each part of a grouped convolution: "stage_1.0.conv_conv.group3".
GROUP = ".group"


@dataclasses.dataclass(frozen=True)
class LayerFactory:
    """Makes the layers of one model.

    Attributes:
        seed: initial weights and dropout are a function of it and of each layer's name; None
            leaves the choice to Keras.
        synchronized_bn: batch statistics over all replicas of a `tf.distribute` strategy.
    """

    seed: int | None = None
    synchronized_bn: bool = False

    def layer_seed(self, name: str) -> int | None:
        """Returns a 31-bit seed that belongs to the layer `name` alone, None without a seed."""
        if self.seed is None:
            return None
        digest = hashlib.sha256(f"{self.seed}/{name}".encode()).digest()
        return int.from_bytes(digest[:4], "big") >> 1

    def conv(
        self,
        images: keras.KerasTensor,
        filters: int,
        kernel_size: int,
        name: str,
        *,
        strides: int = 1,
        padding: int | None = None,
        use_bias: bool = False,
        groups: int = 1,
    ) -> keras.KerasTensor:
        """Returns the convolution [N, H', W', filters] of `images` [N, H, W, C].

        Args:
            padding: zeros on every side; None means half the kernel, as in the original code.
            groups: input and output channels fall into so many independent convolutions.
        """
        padding = kernel_size // 2 if padding is None else padding
        # TensorFlow's "same" pads a strided convolution on one side only when the size is even.
        same = strides == 1 and padding == kernel_size // 2
        if padding and not same:
            images = L.ZeroPadding2D(padding, name=f"{name}.pad")(images)
        settings = {
            "kernel_size": kernel_size,
            "strides": strides,
            "padding": "same" if same else "valid",
            "use_bias": use_bias,
        }
        # He normal by fan-out: that of the whole layer, also where it is split into groups.
        deviation = math.sqrt(2.0 / (kernel_size**2 * filters))
        if groups == 1:
            return self._conv2d(images, filters, deviation, name, **settings)
        pieces = split_channels(images, groups, name)
        outputs = [
            self._conv2d(piece, filters // groups, deviation, f"{name}{GROUP}{i}", **settings)
            for i, piece in enumerate(pieces)
        ]
        return L.Concatenate(name=f"{name}.concat")(outputs)

    def _conv2d(
        self,
        images: keras.KerasTensor,
        filters: int,
        deviation: float,
        name: str,
        **settings: Any,
    ) -> keras.KerasTensor:
        initializer = keras.initializers.RandomNormal(stddev=deviation, seed=self.layer_seed(name))
        return L.Conv2D(filters, kernel_initializer=initializer, name=name, **settings)(images)

    def batch_norm(self, images: keras.KerasTensor, name: str) -> keras.KerasTensor:
        """Returns `images` normalised per channel (momentum and epsilon as in the original)."""
        norm = batch_normalization(
            name, momentum=0.9, epsilon=1e-5, synchronized=self.synchronized_bn
        )
        return norm(images)

    def batch_norm_relu(self, images: keras.KerasTensor, name: str) -> keras.KerasTensor:
        """Returns ReLU of the batch normalisation called `name`."""
        return L.ReLU(name=f"{name}.relu")(self.batch_norm(images, name))

    def dropout(self, images: keras.KerasTensor, rate: float, name: str) -> keras.KerasTensor:
        """Returns `images` with a share `rate` of its values dropped; no layer where it is 0."""
        if rate == 0:
            return images
        return L.Dropout(rate, seed=self.layer_seed(name), name=name)(images)

    def classifier(
        self, images: keras.KerasTensor, num_classes: int, name: str, *, he_normal: bool = False
    ) -> keras.KerasTensor:
        """Returns logits float32 [N, num_classes] of the mean over all pixels.

        Args:
            he_normal: He normal weights by fan-in, as ResNeXt has them; otherwise uniform within
                1/sqrt(fan-in), the usual start of a linear layer in the original code.
        """
        # Mean and logits in float32 under any precision policy: both feed the loss directly.
        features = L.GlobalAveragePooling2D(dtype="float32", name=f"{name}.pool")(images)
        initializer = keras.initializers.VarianceScaling(
            scale=2.0 if he_normal else 1.0 / 3.0,  # uniform variance: limit^2 / 3
            mode="fan_in",
            distribution="untruncated_normal" if he_normal else "uniform",
            seed=self.layer_seed(name),
        )
        return L.Dense(num_classes, kernel_initializer=initializer, dtype="float32", name=name)(
            features
        )


def split_channels(images: keras.KerasTensor, parts: int, name: str) -> list[keras.KerasTensor]:
    """Returns `parts` tensors [N, H, W, C / parts], neighbouring channels together.

    Grouped convolutions are built of single ones, because TensorFlow's grouped kernel is slow in
    the backward pass on CPUs. Forward + backward of a 3x3 layer on [32, 32, 32, 128] and a 1x1
    before it (19 ms of each figure), TF 2.21, 2 cores; XLA gives the same order:

        cardinality    groups=      this split    one ungrouped convolution
        4              2,160 ms     56 ms         159 ms
        32             19,500 ms    89 ms         126 ms

    A whole training step of ResNeXt-29 (4x32), 32 images: 20 s with groups=, 1.9 s like this.
    """
    # With channels_first, Cropping2D cuts the last two axes, here columns and channels. A slice or
    # `keras.ops.split` (39 and 40 ms above) enters a saved file as a class of `keras.src`, which
    # Keras does not promise to keep; its layers are public.
    width = images.shape[-1] // parts
    return [
        L.Cropping2D(
            ((0, 0), (i * width, (parts - 1 - i) * width)),
            data_format="channels_first",
            name=f"{name}.split{i}",
        )(images)
        for i in range(parts)
    ]


def blocks_per_stage(kind: str, depth: int, per_block: int, extra: int) -> int:
    """Returns the n >= 1 with depth = per_block * n + extra.

    Raises:
        CommandError: there is none; the message names the nearest depths that have one.
    """
    blocks, rest = divmod(depth - extra, per_block)
    if rest == 0 and blocks >= 1:
        return blocks
    nearest = sorted({per_block * max(n, 1) + extra for n in (blocks, blocks + 1)})
    raise CommandError(
        f"want {kind} depth {per_block}n + {extra} "
        f"(nearest: {' or '.join(map(str, nearest))}), got {depth}"
    )


def require_counts(**counts: int) -> None:
    """Raises `CommandError` unless every argument is an integer from 1 on."""
    for name, count in counts.items():
        whole = isinstance(count, int) and not isinstance(count, bool)
        require(whole and count >= 1, f"{name} an integer from 1 on", repr(count))


def require_share(name: str, value: float) -> None:
    """Raises `CommandError` unless 0 <= value < 1."""
    require(0 <= value < 1, f"{name} from 0 to below 1", value)


def require_sides(images: keras.KerasTensor, smallest: int, kind: str) -> None:
    """Raises `CommandError` if a known side of `images` [N, H, W, C] is below `smallest`."""
    sides = tuple(images.shape[1:3])
    fits = all(side is None or side >= smallest for side in sides)
    require(fits, f"{kind} images of at least {smallest}x{smallest}", sides)
