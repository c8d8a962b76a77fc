"""Building blocks of the architectures: stock Keras layers, named and initialised in one place.

Layers with weights have the names of the original PyTorch code ("block1.layer.0.conv1"), so that
`load_torch_state` needs no table per model. No layer is a class of our own, `batch_norm` included:
a saved `.keras` file loads without this package.
"""

from __future__ import annotations

import abc
import dataclasses
import hashlib
import math
from typing import ClassVar, TypeAlias

from etils import epy

from augmix_tf import settings
from augmix_tf.errors import SettingError

with epy.lazy_imports():
    import keras
    import keras.layers as L

    from augmix_tf.models import batch_norm

Tensor: TypeAlias = "keras.KerasTensor"

# Name suffix of each part of a grouped convolution: "stage_1.0.conv_conv.group3".
GROUP = ".group"
# Name suffix of the layers that blur: "maxpool.1.blur0".
BLUR = ".blur"

CIFAR_NORMALIZATION = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
"""(mean, standard deviation) of each channel, for pixels scaled to 0..1; the authors' values."""
IMAGENET_NORMALIZATION = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""The same for ImageNet, as in torchvision."""


@dataclasses.dataclass(frozen=True)
class Architecture(abc.ABC):
    """A kind of model; its fields are the options, and those declared as settings are checked."""

    name: ClassVar[str]  # in `models.MODELS`
    smallest_side: ClassVar[int] = 1  # least height and width of the images, in pixels

    def __post_init__(self) -> None:
        settings.check(self)

    @abc.abstractmethod
    def logits(self, make: LayerFactory, images: Tensor, num_classes: int) -> Tensor:
        """Returns logits float32 [N, num_classes] of normalised images [N, H, W, C]."""


@dataclasses.dataclass(frozen=True)
class LayerFactory:
    """Makes the layers of one model.

    `seed` and a layer's name determine its initial weights and dropout; None: Keras's global seed.
    """

    seed: int | None = None
    synchronized_bn: bool = False  # batch statistics over all replicas of a strategy

    def layer_seed(self, name: str) -> int | None:
        """Returns a 31-bit seed for the layer `name`, None without a seed."""
        if self.seed is None:
            return None
        digest = hashlib.sha256(f"{self.seed}/{name}".encode()).digest()
        return int.from_bytes(digest[:4], "big") >> 1

    def conv(
        self,
        images: Tensor,
        filters: int,
        kernel_size: int,
        name: str,
        *,
        strides: int = 1,
        padding: int | None = None,
        use_bias: bool = False,
        groups: int = 1,
    ) -> Tensor:
        """Returns the convolution [N, H', W', filters]; `padding` None means half the kernel."""
        padding = kernel_size // 2 if padding is None else padding
        # TensorFlow's "same" pads a strided convolution on one side only when the size is even.
        same = strides == 1 and padding == kernel_size // 2
        if padding and not same:
            images = L.ZeroPadding2D(padding, name=f"{name}.pad")(images)
        # He normal by fan-out of the complete layer, also where it is split into groups.
        deviation = math.sqrt(2.0 / (kernel_size**2 * filters))

        def conv2d(images: Tensor, name: str) -> Tensor:
            seed = self.layer_seed(name)
            return L.Conv2D(
                filters // groups,
                kernel_size,
                strides,
                "same" if same else "valid",
                use_bias=use_bias,
                kernel_initializer=keras.initializers.RandomNormal(stddev=deviation, seed=seed),
                name=name,
            )(images)

        if groups == 1:
            return conv2d(images, name)
        pieces = enumerate(split_channels(images, groups, name))
        outputs = [conv2d(piece, f"{name}{GROUP}{i}") for i, piece in pieces]
        return L.Concatenate(name=f"{name}.concat")(outputs)

    def batch_norm(self, images: Tensor, name: str) -> Tensor:
        """Returns `images` normalised per channel (momentum and epsilon as in the original)."""
        norm = batch_norm.batch_normalization(
            name, momentum=0.9, epsilon=1e-5, synchronized=self.synchronized_bn
        )
        return norm(images)

    def batch_norm_relu(self, images: Tensor, name: str) -> Tensor:
        return L.ReLU(name=f"{name}.relu")(self.batch_norm(images, name))

    def dropout(self, images: Tensor, rate: float, name: str) -> Tensor:
        """Returns `images` with the fraction `rate` of the values dropped; adds no layer for 0."""
        if rate == 0:
            return images
        return L.Dropout(rate, seed=self.layer_seed(name), name=name)(images)

    def classifier(
        self, images: Tensor, num_classes: int, name: str, *, he_normal: bool = False
    ) -> Tensor:
        """Returns logits float32 [N, num_classes] of the mean over all pixels.

        Weights are uniform within 1/sqrt(fan-in), PyTorch's default for linear layers; or He normal
        by fan-in, as in ResNeXt.
        """
        # The mean and the logits feed the loss directly, so they stay float32 under any policy.
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


def split_channels(images: Tensor, parts: int, name: str) -> list[Tensor]:
    """Returns `parts` tensors [N, H, W, C / parts] of neighbouring channels.

    Grouped convolutions are built from single ones, because the backward pass of TensorFlow's
    grouped kernel is slow on CPUs: one training step of ResNeXt-29 (4x32) on 32 images takes 20 s
    with groups= and 1.9 s this way (TF 2.21, 2 cores; XLA gives the same order).
    """
    # With channels_first, Cropping2D crops the last two axes, here columns and channels. A slice or
    # `keras.ops.split` would be saved as a private class of `keras.src`, which
    # Keras may rename; its layers are public.
    width = images.shape[-1] // parts
    return [
        L.Cropping2D(
            ((0, 0), (i * width, (parts - 1 - i) * width)),
            data_format="channels_first",
            name=f"{name}.split{i}",
        )(images)
        for i in range(parts)
    ]


def require_depth(kind: str, depth: int, step: int, offset: int) -> None:
    """Raises `SettingError`, with the nearest valid depths, unless depth = step * n + offset."""
    blocks, rest = divmod(depth - offset, step)
    if rest == 0 and blocks >= 1:
        return
    nearest = sorted({step * max(n, 1) + offset for n in (blocks, blocks + 1)})
    problem = f"must be {step}n + {offset} for {kind}; received {depth}."
    raise SettingError("depth", f"{problem} Use {' or '.join(map(str, nearest))}.")
