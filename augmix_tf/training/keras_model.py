"""The paper's training of any Keras classifier, by `compile` and `fit` alone."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import keras
import tensorflow as tf

from augmix_tf import errors
from augmix_tf.augment.augmix import AugMixSettings, augmix_views
from augmix_tf.augment.layer import to_uint8
from augmix_tf.errors import ArgumentError
from augmix_tf.models.classifier import last_activation
from augmix_tf.training.step import METRICS, Batch, Trainer

# Far below what float32 probabilities distinguish, and the gradient 1 / p stays finite.
PROBABILITY_FLOOR = 1e-30


@keras.saving.register_keras_serializable(package="augmix_tf")
class AugMixModel(Trainer):
    """Trains a Keras classifier with AugMix and the Jensen-Shannon consistency loss.

    For `compile`, `fit`, `evaluate`, `predict`, callbacks, `save` and `keras.saving.load_model`, as
    with every Keras model. The loss of an example is

        CE(image, label) + jsd_weight * JSD(image, view 1, ..., view V - 1)

    and belongs to the model: `compile` takes an optimizer and metrics, and no loss.

    What `fit` takes, in batches of (images, labels):

    * images [N, H, W, 3]: each step makes their views itself, on the host's CPU. Step s
      (`optimizer.iterations`) on replica r makes `augmix_views(images, seed, r, s, settings)`, so
      the same run draws the same views, and a saved and loaded model continues where it was.
    * views [N, V, H, W, 3] from `augmix_views` in `dataset.map`, the clean image first: the
      same training, while the next batches are being made. It is the faster way.

    Labels are integers, [N] or [N, 1]. `predict` gives what the backbone gives. `evaluate` and
    `validation_data` use the images as they are, without views: `jsd` is 0 there and the loss
    is the cross-entropy. Values are 0 to 255 on both ways into the backbone, as float32: it scales
    them itself, by a `Rescaling` layer in front where it has none.

    Logged: `loss` (the sum above), `cross_entropy`, `jsd` (before the weight), `error` (share of
    images whose top class is wrong), and the metrics of `compile`, which see the labels and the
    backbone's outputs of the images as they are.

    Args:
        backbone: Keras model, float32 [N, H, W, 3] in 0..255 to [N, K], K >= 2. It stays an
            ordinary model, `model.backbone`: to be saved, exported and served without this package.
        jsd_weight: weight of the consistency term, the paper's lambda; at least 0.
        views: V >= 2 that are made of each image, itself counted.
        severity, width, depth, alpha, all_ops: as in `AugMixSettings`.
        seed: 32-bit integer that all views follow from, or None to draw one from Python's `random`,
            which `keras.utils.set_random_seed` seeds. A saved model keeps the one that it drew.
        from_logits: whether the backbone gives logits; False: probabilities (its last activation is
            softmax), in float32.
        **kwargs: `name` and what else every Keras model takes.

    Raises:
        ArgumentError: an argument out of range; a backbone that gives no [N, K], or whose last
            activation is at odds with `from_logits`. From `compile`: a loss. From `fit`: sample or
            class weights, labels that are no integers, images of another shape; images where the
            optimizer accumulates gradients (its steps do not count batches): it takes views.

    `jit_compile=True` is not followed, with Keras's warning: XLA has no gamma distribution. The
    views are compiled separately.

    Source: Hendrycks et al., AugMix, ICLR 2020 (arXiv 1912.02781), section 3.

    >>> backbone = keras.Sequential([
    ...     keras.Input((12, 20, 3)), keras.layers.Rescaling(1 / 255),
    ...     keras.layers.Flatten(), keras.layers.Dense(10)])
    >>> model = AugMixModel(backbone, seed=1)
    >>> model.compile("sgd", metrics=["accuracy"])
    >>> images, labels = np.zeros((8, 12, 20, 3), np.uint8), np.arange(8)
    >>> history = model.fit(images, labels, batch_size=4, verbose=0)
    >>> sorted(history.history)
    ['accuracy', 'cross_entropy', 'error', 'jsd', 'loss']
    >>> model.predict(images, verbose=0).shape
    (8, 10)
    """

    def __init__(
        self,
        backbone: keras.Model,
        jsd_weight: float = 12.0,
        views: int = 3,
        severity: float = 3.0,
        width: int = 3,
        depth: int = -1,
        alpha: float = 1.0,
        all_ops: bool = False,
        seed: int | None = None,
        from_logits: bool = True,
        **kwargs: Any,
    ) -> None:
        _check_classifier(backbone, from_logits)
        errors.require(jsd_weight >= 0, "jsd_weight of at least 0", jsd_weight)
        errors.require(isinstance(views, int) and views >= 2, "a whole number of views >= 2", views)
        seed = random.randint(0, 2**31 - 1) if seed is None else seed
        super().__init__(backbone, jsd_weight, run_seed=seed, **kwargs)
        self.settings = AugMixSettings(severity, width, depth, alpha, all_ops)
        self.views = views
        self.from_logits = from_logits
        self.supports_jit = False

    @property
    def backbone(self) -> keras.Model:
        """The classifier, trained as far as this model is."""
        return self.classifier

    @property
    def metrics(self) -> list[keras.Metric]:
        """The trainer's own, then those of `compile`."""
        # Keras has a loss of its own besides, which stays without a value.
        others = [m for m in keras.Model.metrics.fget(self) if m.name not in METRICS]
        return super().metrics + others

    def compile(self, optimizer: Any = "rmsprop", loss: None = None, **kwargs: Any) -> None:
        """As of `keras.Model`, without a loss.

        Args:
            optimizer: any of Keras, or its name.
            loss: None.
            **kwargs: `metrics`, `run_eagerly` and what else `keras.Model.compile` takes.

        Raises:
            ArgumentError: there is a loss.
        """
        own = "no loss: it is this model's own, cross-entropy + jsd_weight * JSD"
        errors.require(loss is None, own, repr(loss))
        super().compile(optimizer, **kwargs)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles as `get_compile_config` says; `load_model` calls it."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.backbone.built:
            self.optimizer.build(self.trainable_variables)

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """The backbone's outputs [N, K] of images [N, H, W, 3], [N, V, K] of views."""
        return super().call(tf.cast(images, tf.float32), training)

    def train_step(self, data: Batch) -> dict[str, tf.Tensor]:
        """One step of the optimizer on (images or views, labels)."""
        images, labels = _images_and_labels(data)
        return super().train_step((self._views(images), labels))

    def test_step(self, data: Batch) -> dict[str, tf.Tensor]:
        """The same numbers of images as they are, without training."""
        return super().test_step(_images_and_labels(data))

    def compute_metrics(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None
    ) -> dict[str, Any]:
        """Keras's, with the clean view where `y_pred` has views."""
        clean = y_pred if len(y_pred.shape) == 2 else y_pred[:, 0]
        return super().compute_metrics(x, y, clean, sample_weight)

    def _views(self, images: tf.Tensor) -> tf.Tensor:
        if images.shape.rank == 5:
            return images
        wanted = "views [N, V, H, W, 3] from augmix_views in the pipeline"
        errors.require(images.shape.rank == 4, f"images [N, H, W, 3] or {wanted}", images.shape)
        optimizer: Any = getattr(self.optimizer, "inner_optimizer", self.optimizer)
        steps = optimizer.gradient_accumulation_steps
        errors.require(not steps, f"{wanted} with accumulated gradients", images.shape)
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        place = (self.run_seed, replica, self.optimizer.iterations)
        # The chains are one loop over images, which is no work for a GPU.
        with tf.device("CPU:0"):
            return augmix_views(to_uint8(images), *place, self.settings, self.views)

    def _parts(self, labels: tf.Tensor, logits: tf.Tensor) -> dict[str, tf.Tensor]:
        self.compute_metrics(None, labels, logits)
        if not self.from_logits:
            exact = logits.dtype in (tf.float32, tf.float64)
            wanted = "probabilities in float32 (a last layer with dtype='float32'), or logits"
            errors.require(exact, wanted, logits.dtype.name)
            logits = tf.math.log(tf.maximum(logits, PROBABILITY_FLOOR))
        return super()._parts(labels, logits)

    def _log(self, parts: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        super()._log(parts)
        return self.get_metrics_result()

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return super().get_config() | {
            "backbone": keras.saving.serialize_keras_object(self.backbone),
            "jsd_weight": self.jsd_weight,
            "views": self.views,
            **dataclasses.asdict(self.settings),
            "seed": self.run_seed,
            "from_logits": self.from_logits,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> AugMixModel:
        """The model that `get_config` describes, its weights drawn anew."""
        backbone = keras.saving.deserialize_keras_object(config["backbone"], custom_objects)
        return cls(**(config | {"backbone": backbone}))


def _check_classifier(backbone: keras.Model, from_logits: bool) -> None:
    errors.require(isinstance(backbone, keras.Model), "a keras.Model as backbone", repr(backbone))
    # A model that is not built yet knows no shape.
    shape = getattr(backbone, "output_shape", None) if backbone.built else (None, 2)
    fits = isinstance(shape, tuple) and len(shape) == 2 and (shape[1] or 2) >= 2
    wanted = (
        "a backbone with outputs [N, K] of K >= 2 classes (pooling and a Dense layer at its end)"
    )
    errors.require(fits, wanted, shape)
    activation = last_activation(backbone)
    if from_logits and activation == "softmax":
        raise ArgumentError(
            "Expected from_logits=False, or a backbone without softmax at its end (of "
            "keras.applications: classifier_activation=None); received a softmax taken as logits"
        )
    linear = not from_logits and activation == "linear"
    errors.require(not linear, "from_logits=True where the last layer has no softmax", from_logits)


def _images_and_labels(data: Batch) -> Batch:
    images, labels, weights = keras.utils.unpack_x_y_sample_weight(data)
    errors.require(weights is None, "no sample or class weights: the loss has none", "some")
    errors.require(labels is not None, "batches of (images, labels)", "no labels")
    images, labels = tf.convert_to_tensor(images), tf.convert_to_tensor(labels)
    if labels.dtype.is_integer and labels.shape.rank == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    fits = labels.dtype.is_integer and labels.shape.rank == 1
    got = f"{labels.dtype.name} {labels.shape}"
    errors.require(fits, "integer labels [N] or [N, 1]", got)
    return images, labels
