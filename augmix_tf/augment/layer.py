"""Methods as Keras preprocessing layers, for a model or a pipeline that is not ours."""

from __future__ import annotations

import abc
import dataclasses
import random
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from augmix_tf import errors, seeds
from augmix_tf.augment import checks
from augmix_tf.augment.augmix import AugMixSettings, apply_plan, draw_plan
from augmix_tf.augment.autoaugment import PolicyMethod, apply_policy
from augmix_tf.augment.method import BatchShape
from augmix_tf.augment.trivialaugment import RandAugmentMethod, TrivialAugmentMethod
from augmix_tf.settings import values_of


class AugmentationLayer(keras.layers.Layer):
    """What the layers share: arguments, types of images, and seeds. `AugMix` describes it."""

    def __init__(
        self,
        *,
        seed: int | None = None,
        value_range: Sequence[float] = (0, 255),
        fill: int = 0,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        self.seed = seed
        self.value_range = checks.check_value_range(value_range)
        errors.require(0 <= fill <= 255, "a fill level in 0..255", fill)
        self.fill = fill
        channels_last = data_format in (None, "channels_last")
        errors.require(channels_last, "data_format='channels_last': transpose images", data_format)
        # A model that XLA compiles for an accelerator could not reach the generator.
        self.supports_jit = False
        with tf.device("CPU:0"):  # dataset.map cannot reach a variable of an accelerator
            self._generator = tf.random.Generator.from_seed(
                random.randint(0, 2**31 - 1) if seed is None else seed, seeds.ALGORITHM
            )

    @abc.abstractmethod
    def augment(self, levels: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Makes one view of each image: uint8 [N, H, W, 3] to float32 0 to 255."""

    def call(self, images: Any, training: bool | None = True) -> Any:
        if isinstance(images, dict):
            _check_keys(images)
            return images | {"images": self.call(images["images"], training)}
        images = tf.convert_to_tensor(images)
        checks.check_channels_last(images.shape)
        if not training:
            checks.check_values(images, self.value_range)
            return images if images.dtype.is_floating else tf.cast(images, tf.float32)
        levels = checks.to_levels(images, self.value_range)
        if levels.shape.rank == 3:
            views = self._augment(levels[None])[0]
        elif levels.shape[0]:
            views = self._augment(levels)
        else:  # XLA compiles no loop over zero images
            empty = tf.size(levels) == 0
            views = tf.cond(
                empty, lambda: tf.cast(levels, tf.float32), lambda: self._augment(levels)
            )
        return checks.from_levels(views, images, self.value_range)

    def _augment(self, levels: tf.Tensor) -> tf.Tensor:
        # One operation reads and advances the generator. With a variable that is read and then
        # assigned, parallel calls would sometimes draw the same number.
        run_seed, epoch = tf.unstack(self._generator.uniform_full_int([2], tf.int32))
        return self.augment(levels, seeds.fold(run_seed, epoch, step=0, view=1))

    def compute_output_shape(self, shape: Any) -> Any:
        return shape

    def compute_output_spec(self, images: Any, **kwargs: Any) -> Any:
        """The shape stays, integers become float32."""
        if isinstance(images, dict):
            _check_keys(images)
            spec = {key: keras.KerasTensor(x.shape, dtype=x.dtype) for key, x in images.items()}
            return spec | {"images": self.compute_output_spec(images["images"])}
        checks.check_channels_last(images.shape)
        dtype = images.dtype if tf.as_dtype(images.dtype).is_floating else "float32"
        return keras.KerasTensor(images.shape, dtype=dtype)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        arguments = {"seed": self.seed, "value_range": self.value_range, "fill": self.fill}
        return super().get_config() | arguments


@keras.saving.register_keras_serializable(package="augmix_tf")
class AugMix(AugmentationLayer):
    """Makes one augmented view of each image, drawn anew at every call.

    Works on batches and single images; eagerly, in `tf.function`, in `dataset.map` and inside a
    model. With `training=False` images pass unchanged. Map it after `dataset.batch`: batches are
    faster. Each new (H, W) is compiled once, which takes seconds: resize images to one size, or to
    a few, before the layer. XLA has no gamma distribution, so a model that contains this layer
    cannot be compiled with `jit_compile=True`; Keras chooses `False` by itself. The chains are
    compiled anyway.

    Reproducibility: the random choices of a call follow from `seed` and the number of calls before
    it, so the same sequence of calls draws the same views. Parallel calls in `dataset.map` draw the
    same set of views, but which batch gets which depends on timing, unless
    `tf.config.experimental.enable_op_determinism` makes the map sequential. To get the same views
    for each batch whatever the parallelism, or after resuming, use `augmix_views`, which keeps no
    state. `tf.train.Checkpoint` saves the state of the layer; a `.keras` file does not, so a loaded
    layer starts again. Replicas of a `tf.distribute` strategy draw independently.

    Args:
        severity, width, depth, alpha, all_ops: as in `AugMixSettings`.
        seed: integer, or None to draw one from Python's `random`, which
            `keras.utils.set_random_seed` seeds.
        value_range: values of black and white in the images: (0, 255), (0, 1), (-1, 1) or others.
        fill: level of pixels outside the image in geometric operations, 0 (black) to 255 (white)
            in any `value_range`.
        data_format: None or "channels_last".
        **kwargs: `name` and the other arguments of Keras layers.

    Call arguments:
        images: [N, H, W, C] or [H, W, C] of 3 channels, or 1 (grey, changed as three equal
            channels), H and W known when it runs. Operations are Pillow's, on 8 bits: floats are
            first rounded to the nearest of 256 levels in `value_range` and clipped to it, and
            integers are levels 0 to 255. Or a dictionary with such "images", whose other entries
            pass unchanged.
        training: False for no change. Default True, unless the model that contains the layer
            decides.

    Returns:
        Images of the same shape and range, in their float type; float32 for integers.

    Raises:
        ArgumentError: a setting out of range, images of another shape or size unknown, integers in
            another range than (0, 255), a dictionary with boxes or masks, which do not move with
            the images, and float images that cannot be in `value_range`, such as a batch in 0..1
            where 0..255 is declared. In graphs the last raises `tf.errors.InvalidArgumentError`.

    >>> images = np.random.default_rng(0).integers(0, 256, (8, 20, 24, 3), np.uint8)
    >>> layer = AugMix(severity=3, seed=1)
    >>> dataset = tf.data.Dataset.from_tensors((images, np.arange(8)))
    >>> dataset = dataset.map(lambda images, labels: (layer(images), labels))
    >>> dataset.element_spec[0]
    TensorSpec(shape=(8, 20, 24, 3), dtype=tf.float32, name=None)
    >>> model = keras.Sequential([keras.Input((20, 24, 3)), layer, keras.layers.Flatten()])
    >>> bool(tf.reduce_all(model(images, training=False) == images.reshape(8, -1)))
    True
    """

    def __init__(
        self,
        severity: float = 3.0,
        width: int = 3,
        depth: int = -1,
        alpha: float = 1.0,
        all_ops: bool = False,
        *,
        seed: int | None = None,
        value_range: Sequence[float] = (0, 255),
        fill: int = 0,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            seed=seed, value_range=value_range, fill=fill, data_format=data_format, **kwargs
        )
        self.settings = AugMixSettings(severity, width, depth, alpha, all_ops)

    def augment(self, levels: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """See the base class."""
        plan = draw_plan(seed, tf.shape(levels)[0], tuple(levels.shape[1:3]), self.settings)
        return apply_plan(levels, plan, self.fill)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return super().get_config() | dataclasses.asdict(self.settings)


class PolicyLayer(AugmentationLayer):
    """A layer that applies the operations of a method, without the Cutout after them."""

    method: PolicyMethod

    def augment(self, levels: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """See the base class."""
        batch = BatchShape(tf.shape(levels)[0], tuple(levels.shape[1:3]))
        plan = self.method.draw_policy(seed, batch)
        return tf.cast(apply_policy(levels, plan, self.fill, self.method.interpolation), tf.float32)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        arguments = values_of(self.method)
        del arguments["cutout_size"]
        return arguments | super().get_config()  # with the layer's own `fill`


@keras.saving.register_keras_serializable(package="augmix_tf")
class TrivialAugment(PolicyLayer):
    """Applies one operation at a random level to each image, drawn anew at every call.

    One of 14 operations, of which one changes nothing, at one of 31 levels, all as likely. The
    views equal those of the authors' code in every byte. Images, value ranges, seeds and
    `training=False` are treated as by `AugMix`.

    Args:
        space: "wide", or "standard" for RandAugment's ranges, see
            `augmix_tf.augment.trivialaugment.parameter_of`.
        interpolation: "nearest" as in the authors' code, or "bilinear", of rotations and shears.
        seed, value_range, fill, data_format, **kwargs: as in `AugMix`.

    Raises:
        ArgumentError: as in `AugMix`, or an unknown space or interpolation.

    Source: Mueller and Hutter, TrivialAugment, ICCV 2021 (arXiv 2103.10158).

    >>> images = np.random.default_rng(0).integers(0, 256, (8, 20, 24, 3), np.uint8)
    >>> TrivialAugment(seed=1)(images).shape
    TensorShape([8, 20, 24, 3])
    """

    def __init__(self, space: str = "wide", interpolation: str = "nearest", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.method = TrivialAugmentMethod(interpolation, space=space)


@keras.saving.register_keras_serializable(package="augmix_tf")
class RandAugment(PolicyLayer):
    """Applies some operations at one magnitude to each image, drawn anew at every call.

    Each image draws its own operations, unlike in Keras's layer of this name. They are those of
    `TrivialAugment` in the "standard" space. Images, value ranges, seeds and `training=False` are
    treated as by `AugMix`.

    Args:
        num_ops: operations on each image, at least 1.
        magnitude: level of the operations, 0 to 30; the factors of color, contrast, brightness and
            sharpness are 0.1 + 0.06 * magnitude, and at 15 they change nothing.
        interpolation: as in `TrivialAugment`.
        seed, value_range, fill, data_format, **kwargs: as in `AugMix`.

    Raises:
        ArgumentError: as in `AugMix`, or an argument out of range.

    Source: Cubuk et al., RandAugment (arXiv 1909.13719), in the code of TrivialAugment's authors.

    >>> images = np.random.default_rng(0).integers(0, 256, (8, 20, 24, 3), np.uint8)
    >>> RandAugment(num_ops=3, magnitude=5, seed=1)(images).shape
    TensorShape([8, 20, 24, 3])
    """

    def __init__(
        self, num_ops: int = 2, magnitude: int = 9, interpolation: str = "nearest", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.method = RandAugmentMethod(interpolation, num_ops=num_ops, magnitude=magnitude)


def _check_keys(data: dict[str, Any]) -> None:
    errors.require("images" in data, "a dictionary with 'images'", sorted(data))
    geometry = sorted({"bounding_boxes", "segmentation_masks"} & data.keys())
    expected = "images and labels only: boxes and masks do not move with the images"
    errors.require(not geometry, expected, geometry)
