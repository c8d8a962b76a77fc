"""The paper's training, and that of other methods, of any Keras classifier by `fit` alone."""

from __future__ import annotations

import inspect
import random
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from augmix_tf import errors, losses, seeds
from augmix_tf.augment import checks
from augmix_tf.augment.method import BatchShape, Method
from augmix_tf.errors import ArgumentError, SettingError
from augmix_tf.methods import METHODS as TRAINING_METHODS
from augmix_tf.metrics.classification import SUM_TOLERANCE
from augmix_tf.models import last_activation
from augmix_tf.settings import settings_of
from augmix_tf.training.step import METRICS, Trainer

# Far below what float32 probabilities distinguish, and the gradient 1 / p stays finite.
PROBABILITY_FLOOR = 1e-30

# Arguments of AugMix -> the settings of methods that they are.
_ARGUMENTS = {
    "jsd_weight": "jsd_weight",
    "views": "views",
    "severity": "aug_severity",
    "width": "mixture_width",
    "depth": "mixture_depth",
    "alpha": "alpha",
    "all_ops": "all_ops",
}


class Targets(NamedTuple):
    """What a batch has besides images."""

    labels: tf.Tensor  # as `fit` got them
    weights: tf.Tensor | None  # float [N] or [N, 1]


@keras.saving.register_keras_serializable(package="augmix_tf")
class AugMixModel(Trainer):
    """Trains a Keras classifier with AugMix and the Jensen-Shannon consistency loss.

    Or with another `method` that changes images and not labels, with its own loss.

    For `compile`, `fit`, `evaluate`, `predict`, callbacks, `save` and `keras.saving.load_model`, as
    with every Keras model; `export` exports the backbone. The loss of an example is

        weight * (CE(image, label) + jsd_weight * JSD(image, view 1, ..., view V - 1))

    averaged over the batch (the sum of weights does not matter, as in Keras), plus the backbone's
    `losses`: weight and activity penalties and `add_loss`, computed once for all views of the
    batch together. It belongs to the model: `compile` takes an optimizer and metrics, and no loss.

    What `fit` takes, in batches of (images, labels) or (images, labels, sample weights), also with
    `class_weight`:

    * images [N, H, W, 3] or [N, H, W, 1]: each step makes their views itself, on the host's CPU.
      Step s (batches that the optimizer has seen, also where it accumulates gradients) on replica
      r makes `augmix_views(images, seed, r, s, settings)`, so the same run draws the same views,
      and a saved and loaded model continues where it was. Images are not cropped or flipped.
    * views [N, V, H, W, C] from `augmix_views` in `dataset.map`, the clean image first: the
      same training, while the next batches are being made. It is the faster way.

    Labels are class ids, [N] or [N, 1], of any type, or one-hot or soft rows [N, K]. Rows with
    exactly two of three or more classes are those of mixed images (mixup, CutMix) and refused
    unless `jsd_weight` is 0: the views of the consistency loss would have to be mixed with the same
    image in the same way.

    `predict` gives what the backbone gives. `evaluate` and `validation_data` use the images as
    they are, without views: `jsd` is 0 there and the loss is the cross-entropy and the penalties.
    On all ways images reach the backbone as float32 in `value_range`: it scales them itself, by a
    `Rescaling` layer in front where it has none.

    Logged: `loss` (the sum above), `cross_entropy` and `jsd` (weighted, before `jsd_weight`),
    `error` (share of images whose top class is wrong), and the metrics of `compile`, which see the
    labels and the backbone's outputs of the images as they are.

    Args:
        backbone: Keras model, float32 [N, H, W, C] in `value_range` to [N, K], K >= 2. It stays an
            ordinary model, `model.backbone`: to be saved, exported and served without this package.
        jsd_weight: weight of the consistency term, the paper's lambda; at least 0.
        views: V >= 2 that are made of each image, itself counted.
        severity, width, depth, alpha, all_ops: as in `AugMixSettings`, for AugMix and the methods
            that have them; `all_ops=None` is the method's own default, False for AugMix.
        seed: 32-bit integer that all views follow from, or None to draw one from Python's `random`,
            which `keras.utils.set_random_seed` seeds. A saved model keeps the one that it drew.
        from_logits: whether the backbone gives logits; False: probabilities (its last activation is
            softmax), in float32.
        label_smoothing: 0 to 1, of the cross-entropy, as in Keras's losses.
        value_range: values of black and white, as in `AugMix`.
        method: what changes the images, such as "pixmix" or "trivialaugment" (docs/methods.md).
            Without a consistency loss the model is trained on one augmented view of each image,
            and `error` and the metrics of `compile` are those of that view.
        **kwargs: settings of the method, named as its flags (such as `jsd=True`), `name`, and what
            else every Keras model takes.

    Raises:
        ArgumentError: an argument out of range, or one that the method does not use; a method that
            changes labels (mixup, CutMix) or attacks the network; a backbone that gives no [N, K],
            or whose last activation is at odds with `from_logits`. From `compile`: a loss. From
            `fit`: labels, weights or images of another shape. What only the values show (float
            images that cannot be in `value_range`, labels of mixed images, outputs at odds with
            `from_logits`) raises `tf.errors.InvalidArgumentError` from `fit` and `evaluate`.

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
        all_ops: bool | None = None,
        seed: int | None = None,
        from_logits: bool = True,
        label_smoothing: float = 0.0,
        value_range: Sequence[float] = (0, 255),
        method: str = "augmix",
        **kwargs: Any,
    ) -> None:
        _check_classifier(backbone, from_logits)
        declared = settings_of(errors.lookup("method", method, TRAINING_METHODS).method)
        own = declared.keys() - set(_ARGUMENTS.values())
        chosen = {name: kwargs.pop(name) for name in sorted(own & kwargs.keys())}
        chosen |= {"jsd_weight": jsd_weight, "views": views, "severity": severity, "width": width}
        chosen |= {"depth": depth, "alpha": alpha}
        chosen |= {} if all_ops is None else {"all_ops": all_ops}
        in_range = 0 <= label_smoothing <= 1
        errors.require(in_range, "label_smoothing from 0 to 1", label_smoothing)
        seed = random.randint(0, 2**31 - 1) if seed is None else seed
        self.method = _method(method, chosen)
        super().__init__(
            backbone,
            self.method.jsd_weight,
            label_all_views=self.method.label_all_views,
            run_seed=seed,
            **kwargs,
        )
        self._chosen = {"method": method} | chosen
        self.from_logits = from_logits
        self.label_smoothing = label_smoothing
        self.value_range = checks.check_value_range(value_range)
        self.supports_jit = False
        self._rank: int | None = None

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
        """As of `keras.Model`, without a loss, which is an `ArgumentError`."""
        expected = "no loss: it is this model's own, cross-entropy + jsd_weight * JSD"
        errors.require(loss is None, expected, repr(loss))
        super().compile(optimizer, **kwargs)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles as `get_compile_config` says; `load_model` calls it."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.backbone.built:
            self.optimizer.build(self.trainable_variables)

    def fit(self, x: Any = None, *args: Any, **kwargs: Any) -> keras.callbacks.History:
        first = tf.nest.flatten(getattr(x, "element_spec", x))[0]
        rank = tf.TensorShape(getattr(first, "shape", ())).rank
        if rank != self._rank:
            # Keras traces one function for images and views, and takes their rank for unknown.
            self.train_function, self._rank = None, rank
        return super().fit(x, *args, **kwargs)

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """The backbone's outputs [N, K] of images [N, H, W, 3], [N, V, K] of views."""
        return super().call(tf.cast(images, tf.float32), training)

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        """One step of the optimizer on (images or views, labels[, sample weights])."""
        images, targets = _images_and_targets(data)
        return super().train_step((self._views(images), targets))

    def test_step(self, data: Any) -> dict[str, tf.Tensor]:
        """The same numbers of images as they are, without training."""
        images, targets = _images_and_targets(data)
        checks.check_values(images, self.value_range)
        return super().test_step((images, targets))

    def export(self, filepath: Any, *args: Any, **kwargs: Any) -> None:
        """Exports the backbone, as its own `export`."""
        self.backbone.export(filepath, *args, **kwargs)

    def compute_metrics(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None
    ) -> dict[str, Any]:
        """Keras's, with the clean view where `y_pred` has views."""
        clean = y_pred if len(y_pred.shape) == 2 else y_pred[:, 0]
        return super().compute_metrics(x, y, clean, sample_weight)

    def _views(self, images: tf.Tensor) -> tf.Tensor:
        if images.shape.rank == 5:
            checks.check_values(images, self.value_range)
            return images
        expected = "images [N, H, W, C], or views [N, V, H, W, C] from augmix_views in the pipeline"
        errors.require(images.shape.rank == 4, expected, images.shape)
        optimizer: Any = getattr(self.optimizer, "inner_optimizer", self.optimizer)
        # The first variable counts batches; `iterations` counts updates of the weights.
        step = optimizer.variables[0]
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        # The chains are one loop over images, which is no work for a GPU.
        with tf.device("CPU:0"):
            levels = checks.to_levels(images, self.value_range)
            batch = BatchShape(tf.shape(levels)[0], (levels.shape[1], levels.shape[2]))
            plan = self.method.draw(seeds.BatchSeeds(self.run_seed, replica, step), batch)
            # These methods leave labels alone.
            views = self.method.apply(levels, tf.zeros(batch.size, tf.int64), plan).views
            return checks.from_levels(views, images, self.value_range)

    def _parts(self, targets: Targets, logits: tf.Tensor) -> dict[str, tf.Tensor]:
        self.compute_metrics(None, targets.labels, logits, targets.weights)
        logits = self._logits(logits)
        clean = logits[:, 0]
        parts = super()._parts(_class_labels(targets.labels, clean.shape[-1]), logits)
        if self.label_smoothing:
            uniform = tf.ones_like(clean) / clean.shape[-1]
            change = losses.cross_entropy(uniform, clean) - parts["cross_entropy"]
            for name in ("loss", "cross_entropy"):
                parts[name] += self.label_smoothing * change
        if targets.weights is not None:
            weights = tf.cast(targets.weights, tf.float32)
            weights = _per_example(weights, "one weight for each example, [N]", weights.shape)
            parts |= {n: weights * parts[n] for n in ("loss", "cross_entropy", "jsd")}
        # Added to each example, because the mean over all replicas' examples is taken later.
        for penalty in self.losses:
            parts["loss"] += tf.reduce_sum(tf.cast(penalty, tf.float32))
        return parts

    def _logits(self, outputs: tf.Tensor) -> tf.Tensor:
        """Logits of what the backbone gave."""
        if not self.from_logits:
            exact = outputs.dtype in (tf.float32, tf.float64)
            expected = "probabilities in float32 (a last layer with dtype='float32'), or logits"
            errors.require(exact, expected, outputs.dtype.name)
        sums = tf.reduce_sum(tf.cast(outputs, tf.float32), axis=-1)
        is_distribution = tf.reduce_all(tf.abs(sums - 1) < SUM_TOLERANCE)
        is_distribution &= tf.reduce_all(outputs >= 0)
        checks.ensure(
            (is_distribution != self.from_logits) | (tf.size(outputs) == 0),
            f"Expected logits with from_logits=True and probabilities with from_logits=False; "
            f"received the other with from_logits={self.from_logits}.",
        )
        if self.from_logits:
            return outputs
        return tf.math.log(tf.maximum(outputs, PROBABILITY_FLOOR))

    def _check_consistency(self, labels: tf.Tensor, views: int) -> None:
        if labels.dtype.is_floating and labels.shape[-1] > 2:
            checks.ensure(
                tf.reduce_all(tf.math.count_nonzero(labels, axis=-1) != 2),
                "The consistency loss takes no labels of two classes, which belong to mixed images "
                "(mixup, CutMix): all views would have to be mixed with the same image in the same "
                "way. Use jsd_weight=0, or do not mix.",
            )

    def _log(self, parts: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        super()._log(parts)
        return self.get_metrics_result()

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "backbone": keras.saving.serialize_keras_object(self.backbone),
            **self._chosen,
            "seed": self.run_seed,
            "from_logits": self.from_logits,
            "label_smoothing": self.label_smoothing,
            "value_range": self.value_range,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> AugMixModel:
        """The model that `get_config` describes, its weights drawn anew."""
        backbone = keras.saving.deserialize_keras_object(config["backbone"], custom_objects)
        return cls(**(config | {"backbone": backbone}))


def _method(name: str, chosen: dict[str, Any]) -> Method:
    """Makes a method from arguments of `AugMixModel` and settings of the method."""
    kind = TRAINING_METHODS[name].method
    defaults = {n: p.default for n, p in inspect.signature(AugMixModel).parameters.items()}
    values = {}
    for argument, value in chosen.items():
        setting = _ARGUMENTS.get(argument, argument)
        if setting in settings_of(kind):
            values[setting] = value
        elif value != defaults[argument]:
            raise ArgumentError(f"The method {name} does not use {argument}; received {value}.")
    try:
        method = kind(**values)
    except SettingError as error:
        named = {setting: argument for argument, setting in _ARGUMENTS.items()}
        raise SettingError(named.get(error.setting, error.setting), error.problem) from error
    plain = not (method.mixes_examples or method.attack)
    expected = f"a method that changes only images; python main.py --method={name} trains with it"
    errors.require(plain, expected, name)
    errors.require(method.batch_norms == 1, "split_bn=False, as main.py alone has it", True)
    errors.require(not method.counts_epochs, "ramp_epochs=0, for `fit` counts no epochs", "more")
    return method


def _check_classifier(backbone: keras.Model, from_logits: bool) -> None:
    errors.require(isinstance(backbone, keras.Model), "a keras.Model as backbone", repr(backbone))
    # A subclassed model, or one that is not built yet, knows no shape.
    shape = (getattr(backbone, "output_shape", None) if backbone.built else None) or (None, 2)
    fits = isinstance(shape, tuple) and len(shape) == 2 and (shape[1] or 2) >= 2
    expected = (
        "a backbone with outputs [N, K] of K >= 2 classes (pooling and a Dense layer at its end)"
    )
    errors.require(fits, expected, shape)
    activation = last_activation(backbone)
    if from_logits and activation == "softmax":
        raise ArgumentError(
            "Expected from_logits=False, or a backbone without softmax at its end (of "
            "keras.applications: classifier_activation=None); received a softmax taken as logits"
        )
    linear = not from_logits and activation == "linear"
    errors.require(not linear, "from_logits=True where the last layer has no softmax", from_logits)


def _images_and_targets(data: Any) -> tuple[tf.Tensor, Targets]:
    images, labels, weights = keras.utils.unpack_x_y_sample_weight(data)
    errors.require(labels is not None, "batches of (images, labels)", "no labels")
    return tf.convert_to_tensor(images), Targets(tf.convert_to_tensor(labels), weights)


def _class_labels(labels: tf.Tensor, classes: int) -> tf.Tensor:
    """Labels as class ids, int64 [N], or as rows, float32 [N, K]."""
    labels = tf.cast(labels, tf.int32) if labels.dtype == tf.bool else labels
    if labels.shape.rank == 2 and labels.shape[1] in (None, classes):
        return tf.cast(labels, tf.float32)
    expected = f"labels as class ids [N] or [N, 1], or as rows [N, {classes}] of {classes} classes"
    labels = _per_example(labels, expected, f"{labels.dtype.name} {labels.shape}")
    ids = tf.cast(labels, tf.int64)
    if labels.dtype.is_floating:
        integral = tf.reduce_all(tf.cast(ids, labels.dtype) == labels)
        checks.ensure(integral, "Expected class ids that are whole numbers; received:", labels)
    return ids


def _per_example(values: tf.Tensor, expected: str, received: object) -> tf.Tensor:
    """Values [N] or [N, 1] as [N]; refuses other shapes."""
    column = values.shape.rank == 2 and values.shape[1] == 1
    errors.require(column or values.shape.rank == 1, expected, received)
    return values[:, 0] if column else values
