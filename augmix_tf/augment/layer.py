"""AugMix as a Keras preprocessing layer, for a model or a pipeline that is not ours."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import keras
import tensorflow as tf

from augmix_tf import errors, seeds
from augmix_tf.augment.augmix import AugMixSettings, apply_plan, draw_plan
from augmix_tf.ops import packed


@keras.saving.register_keras_serializable(package="augmix_tf")
class AugMix(keras.layers.Layer):
    """Makes one augmented view of each image, drawn anew at every call.

    Works on batches and single images; eagerly, in `tf.function`, in `dataset.map` and inside a
    model. With `training=False` images pass unchanged, as float32. Map it after `dataset.batch`:
    batches are faster. XLA has no gamma distribution, so a model that contains this layer cannot be
    compiled with `jit_compile=True`; Keras chooses `False` by itself. The chains are compiled
    anyway.

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
        **kwargs: `name` and the other arguments of Keras layers.

    Call arguments:
        images: [N, H, W, 3] or [H, W, 3], 0 to 255, H and W known. Other types than uint8 are
            first rounded to integers and clipped to 0..255, because operations are Pillow's.
        training: False for no change. Default True, unless the model that contains the layer
            decides.

    Returns:
        float32 of the same shape, 0 to 255.

    Raises:
        ArgumentError: a setting out of range, or images of another shape.

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
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        self.settings = AugMixSettings(severity, width, depth, alpha, all_ops)
        self.seed = seed
        self.supports_jit = False
        with tf.device("CPU:0"):  # dataset.map cannot reach a variable of an accelerator
            self._generator = tf.random.Generator.from_seed(
                random.randint(0, 2**31 - 1) if seed is None else seed, seeds.ALGORITHM
            )

    def call(self, images: tf.Tensor, training: bool | None = True) -> tf.Tensor:
        """See the class."""
        self._check_shape(images.shape)
        if not training:
            return tf.cast(images, tf.float32)
        images = to_uint8(images)
        if images.shape.rank == 3:
            return self._augment(images[None])[0]
        return self._augment(images)

    def _augment(self, images: tf.Tensor) -> tf.Tensor:
        # One operation reads and advances the generator. With a variable that is read and then
        # assigned, parallel calls would sometimes draw the same number.
        run_seed, epoch = tf.unstack(self._generator.uniform_full_int([2], tf.int32))
        seed = seeds.fold(run_seed, epoch, step=0, view=1)
        size = (images.shape[1], images.shape[2])
        return apply_plan(images, draw_plan(seed, tf.shape(images)[0], size, self.settings))

    def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The shape stays."""
        self._check_shape(shape)
        return tuple(shape)

    def compute_output_spec(self, images: keras.KerasTensor, **kwargs: Any) -> keras.KerasTensor:
        """The shape stays, the type becomes float32."""
        self._check_shape(images.shape)
        return keras.KerasTensor(images.shape, dtype="float32")

    def _check_shape(self, shape: tf.TensorShape | tuple[int | None, ...]) -> None:
        sides = tuple(shape)[-3:]
        good = len(shape) in (3, 4) and None not in sides and sides[-1] == packed.CHANNELS
        errors.require(good, "images [N, H, W, 3] or [H, W, 3], H and W known", tuple(shape))

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return super().get_config() | dataclasses.asdict(self.settings) | {"seed": self.seed}


def to_uint8(images: tf.Tensor) -> tf.Tensor:
    """Returns images of any number type as uint8: rounded and clipped to 0..255."""
    if images.dtype == tf.uint8:
        return images
    return tf.saturate_cast(tf.round(tf.cast(images, tf.float32)), tf.uint8)
