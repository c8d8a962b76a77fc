"""The training step: one forward pass over all views of a batch, cross-entropy plus consistency."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from augmix_tf import errors, losses, seeds
from augmix_tf.models.batch_norm import fused_call
from augmix_tf.training.adversary import Adversary

Batch = tuple[tf.Tensor, tf.Tensor]
METRICS = ("loss", "cross_entropy", "jsd", "error")


class Trainer(keras.Model):
    """A classifier with the AugMix training step, for `fit` or a custom loop.

    All views of a batch, [N, V, ...], go through the network together as [N * V, ...]: batch
    normalization sees all of them at once, as in the authors' code. The loss of an example is

        CE(clean view, label) + jsd_weight * JSD(all views),   averaged over the global batch.

    With `label_all_views` the cross-entropy is the mean over all views, not that of the clean one.
    `classifier` maps float32 images [N, H, W, 3] to logits [N, K]. With `batch_norms` = V > 1, each
    of exactly V views is trained with its own batch normalization (`split_batch_norm`), and
    inference uses that of the clean view. An `adversary` trains on adversarial images near the only
    view; its random starts follow from `run_seed` and the number of the step.

    Logged metrics, over the examples since the last reset: `loss` (the sum above), `cross_entropy`,
    `jsd` (before the weight) and `error` (fraction of clean views whose top class is not that of
    the label). With an adversary, all four are those of the adversarial images.
    """

    def __init__(
        self,
        classifier: keras.Model,
        jsd_weight: float = 12.0,
        *,
        label_all_views: bool = False,
        batch_norms: int = 1,
        adversary: Adversary | None = None,
        run_seed: int = 0,
        **kwargs: Any,
    ) -> None:
        # bfloat16 cannot hold all 256 levels of a pixel. The classifier casts by itself.
        super().__init__(autocast=False, **kwargs)
        self.classifier = classifier
        self.classifiers = split_batch_norm(classifier, batch_norms) if batch_norms > 1 else []
        self.jsd_weight = jsd_weight
        self.label_all_views = label_all_views
        self.adversary = adversary
        self.run_seed = run_seed
        self._means = {name: keras.metrics.Mean(name=name) for name in METRICS}
        self.built = True

    @property
    def metrics(self) -> list[keras.Metric]:
        """The means that `train_step` returns, under the same names."""
        return list(self._means.values())

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Logits [N, K] of images [N, H, W, 3], or [N, V, K] of views [N, V, H, W, 3]."""
        if images.shape.rank == 4:
            return self.classifier(images, training=training)
        if training and self.classifiers:
            count = len(self.classifiers)
            errors.require(images.shape[1] == count, f"{count} views [N, V, H, W, 3]", images.shape)
            logits = [c(images[:, v], training=True) for v, c in enumerate(self.classifiers)]
            return tf.stack(logits, axis=1)
        _, views, *image_shape = keras.ops.shape(images)
        logits = self.classifier(tf.reshape(images, [-1, *image_shape]), training=training)
        return tf.reshape(logits, [-1, views, logits.shape[-1]])

    def train_step(self, data: Batch) -> dict[str, tf.Tensor]:
        """One optimizer step on views [N, V, H, W, 3] and labels [N], or targets [N, K] for V = 1.

        On several replicas each one gets N examples, and the loss is the mean over all of them.
        """
        views, labels = data
        if self.adversary is not None:
            views = self._attacked(self.adversary, views, labels)
        with tf.GradientTape() as tape:
            parts = self._parts(labels, self(views, training=True))
            loss = _part_of_global_mean(parts["loss"])
            scaled = self.optimizer.scale_loss(loss)
        variables = self.trainable_variables
        gradients = tape.gradient(scaled, variables)
        if isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer):
            gradients = _means_over_replicas(gradients)
        self.optimizer.apply(gradients, variables)
        return self._log(parts)

    def test_step(self, data: Batch) -> dict[str, tf.Tensor]:
        """The same metrics without training or attack; [N, H, W, 3] counts as one view."""
        images, labels = data
        logits = self(images, training=False)
        logits = logits if logits.shape.rank == 3 else logits[:, None]
        return self._log(self._parts(labels, logits))

    def _attacked(self, adversary: Adversary, views: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        one = views.shape.rank == 5 and views.shape[1] == 1
        errors.require(one, "one view [N, 1, H, W, 3] for adversarial training", views.shape)
        seed = seeds.fold(self.run_seed, 0, self.optimizer.iterations, seeds.ADVERSARY)
        context = tf.distribute.get_replica_context()
        replica = (context.replica_id_in_sync_group, context.num_replicas_in_sync)
        return adversary.perturb(self.classifier, views[:, 0], labels, seed, *replica)[:, None]

    def _parts(self, labels: tf.Tensor, logits: tf.Tensor) -> dict[str, tf.Tensor]:
        """The loss of each example and what it is made of, float32 [N] each."""
        clean, several = logits[:, 0], logits.shape[1] > 1
        if several and self.jsd_weight:
            self._check_consistency(labels, logits.shape[1])
        labelled = range(logits.shape[1] if self.label_all_views else 1)
        each = [losses.cross_entropy(labels, logits[:, view]) for view in labelled]
        cross_entropy = tf.add_n(each) / len(each)
        jsd = losses.jensen_shannon(logits) if several else tf.zeros_like(cross_entropy)
        classes = tf.argmax(labels, axis=-1) if labels.dtype.is_floating else labels
        wrong = tf.argmax(clean, axis=-1) != tf.cast(classes, tf.int64)
        return {
            "loss": cross_entropy + self.jsd_weight * jsd,
            "cross_entropy": cross_entropy,
            "jsd": jsd,
            "error": tf.cast(wrong, tf.float32),
        }

    def _check_consistency(self, labels: tf.Tensor, views: int) -> None:
        """Raises `ArgumentError` for the labels of mixed images."""
        # All views would have to be mixed with the same image in the same way.
        if labels.dtype.is_floating:
            raise errors.ArgumentError(
                "The consistency loss needs integer labels, because soft labels belong to images "
                f"that were mixed with others; received {labels.dtype.name} {labels.shape} "
                f"with {views} views."
            )

    def _log(self, parts: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        for name, mean in self._means.items():
            mean.update_state(parts[name])
        return {name: mean.result() for name, mean in self._means.items()}


def split_batch_norm(classifier: keras.Model, views: int) -> list[keras.Model]:
    """Returns a classifier for each of V >= 2 views, which differ in batch normalization only.

    The first is `classifier` itself, unchanged: the one to evaluate and export. The others share
    its layers, except that every batch normalization, also in nested models, is a copy (statistics,
    scale and offset; named "<name>.view<v>") which starts at the values of the original. So the
    statistics of the clean view, 0, are those of clean images alone.

    Source: the auxiliary batch normalisation of Xie et al., AdvProp, CVPR 2020 (arXiv 1911.09665),
    section 4.2, which the `split_bn` option of the library timm extends to any number of views.
    """
    return [classifier, *(_with_own_batch_norm(classifier, view) for view in range(1, views))]


def _with_own_batch_norm(classifier: keras.Model, view: int) -> keras.Model:
    copies: list[tuple[keras.layers.Layer, keras.layers.Layer]] = []

    def copy_batch_norm(layer: keras.layers.Layer) -> keras.layers.Layer:
        if not isinstance(layer, keras.layers.BatchNormalization):
            return layer
        config = layer.get_config() | {"name": f"{layer.name}.view{view}"}
        copy = type(layer).from_config(config)
        # A configuration does not tell that a layer is called by the fused kernel.
        if "call" in vars(layer):
            copy.call = fused_call(copy)
        copies.append((layer, copy))
        return copy

    clone = keras.models.clone_model(classifier, clone_function=copy_batch_norm, recursive=True)
    errors.require(bool(copies), "a classifier with batch normalization", classifier.name)
    for original, copy in copies:
        copy.set_weights(original.get_weights())
    return clone


def _part_of_global_mean(loss: tf.Tensor) -> tf.Tensor:
    """This replica's part of the mean over all replicas' examples; gradients are summed."""
    examples = tf.size(loss, out_type=tf.int64)
    context = tf.distribute.get_replica_context()
    if context is not None and context.num_replicas_in_sync > 1:
        # `Model.fit` may give replicas different numbers of examples.
        examples = context.all_reduce(tf.distribute.ReduceOp.SUM, examples)
    return tf.reduce_sum(loss) / tf.cast(examples, loss.dtype)


def _means_over_replicas(gradients: list[tf.Tensor]) -> list[tf.Tensor]:
    """Returns the mean of the gradients on every replica; the optimizer's sum is unchanged.

    A loss scale checks one replica only, so that an overflow on another has to be visible there.
    """
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return gradients
    return [context.all_reduce(tf.distribute.ReduceOp.MEAN, each) for each in gradients]
