"""AugMix as a Keras preprocessing layer, for a model or a pipeline that is not ours."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import keras
import tensorflow as tf

from augmix_tf import checks, seeds
from augmix_tf.augment.augmix import apply_plan, draw_plan
from augmix_tf.ops import pixels
from augmix_tf.settings import AugMixSettings


@keras.saving.register_keras_serializable(package="augmix_tf")
class AugMix(keras.layers.Layer):
    """Makes one augmented view of each picture, drawn anew at every call.

    Works on batches and single pictures; eagerly, in `tf.function`, in `dataset.map` and inside a
    model. With `training=False` pictures pass unchanged, as float32. Batches are faster: map after
    `dataset.batch`. XLA has no gamma distribution, so a model that holds this layer cannot be
    compiled with `jit_compile=True`; Keras chooses `False` by itself. The work is compiled anyway.

    What can be repeated: a call's choices follow from `seed` and how many calls the layer has seen,
    wherever they came from. The same calls one after another therefore draw the same. Several
    parallel calls in `dataset.map` draw the same choices too, none of them twice, but which batch
    gets which depends on timing, unless `tf.config.experimental.enable_op_determinism` makes such
    a map run one call at a time. Where each batch must get the same views whatever the parallelism,
    or after a run was resumed, use `augmix_views`, which keeps no state. `tf.train.Checkpoint`
    saves how far the layer has come; a `.keras` file does not, so a loaded layer starts again.
    Replicas of a `tf.distribute` strategy draw apart from each other.

    Args:
        severity, width, depth, alpha, all_ops: as in `AugMixSettings`.
        seed: integer, or None to draw one from Python's `random`, which
            `keras.utils.set_random_seed` seeds.
        **kwargs: `name` and what else every Keras layer takes.

    Call arguments:
        images: [N, H, W, 3] or [H, W, 3], 0 to 255, H and W known. Other types than uint8 are
            first rounded to whole levels and clipped to 0..255: operations are Pillow's.
        training: False for no change. Default True, unless the model that holds the layer says.

    Returns:
        float32 of the same shape, 0 to 255.

    Raises:
        CommandError: a setting out of range, or pictures of another shape.

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
        images = whole_levels(images)
        if images.shape.rank == 3:
            return self._augment(images[None])[0]
        return self._augment(images)

    def _augment(self, images: tf.Tensor) -> tf.Tensor:
        # One operation reads the generator and moves it on. A variable that is read and then
        # assigned gives two parallel calls the same number now and then.
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
        good = len(shape) in (3, 4) and None not in sides and sides[-1] == pixels.CHANNELS
        checks.require(good, "images [N, H, W, 3] or [H, W, 3], H and W known", tuple(shape))

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return super().get_config() | dataclasses.asdict(self.settings) | {"seed": self.seed}


def whole_levels(images: tf.Tensor) -> tf.Tensor:
    """Returns images of any number type as uint8: rounded to whole levels, clipped to 0..255."""
    if images.dtype == tf.uint8:
        return images
    return tf.saturate_cast(tf.round(tf.cast(images, tf.float32)), tf.uint8)
