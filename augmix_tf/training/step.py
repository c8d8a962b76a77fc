"""The training step: one forward pass over all views of a batch, cross-entropy plus consistency."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from augmix_tf import errors, losses, seeds
from augmix_tf.training.adversary import Adversary
from augmix_tf.training.split_bn import split_batch_norm

Batch = tuple[tf.Tensor, tf.Tensor]
METRICS = ("loss", "cross_entropy", "jsd", "error")


class Trainer(keras.Model):
    """A classifier with the AugMix training step, for `fit` or a custom loop.

    All views of a batch, [N, V, ...], go through the network together as [N * V, ...]: batch
    normalisation sees all of them at once, as in the authors' code. The loss of an example is

        CE(clean view, label) + jsd_weight * JSD(all views),   averaged over the global batch.

    Args:
        classifier: float32 images [N, H, W, 3] to logits [N, K].
        jsd_weight: weight of the Jensen-Shannon divergence, lambda; 12 in the paper. It has no
            effect with one view.
        batch_norms: 1, or V: each of exactly V views is trained with batch normalisation of its own
            (`split_batch_norm`), in V forward passes. `classifier` is that of the clean view;
            inference uses it alone.
        adversary: trains on adversarial images near the only view instead of that view.
        run_seed: the adversary's random starts follow from it and the number of the step.

    Logged metrics, over the examples since the last reset: `loss` (the sum above), `cross_entropy`,
    `jsd` (before the weight) and `error` (fraction of clean views whose top class is wrong; for a
    soft label, not its top class, the first of equal ones). With an adversary, all four are those
    of the adversarial images.

    Raises:
        ArgumentError: `batch_norms` is not a positive integer, or is above 1 with an adversary;
            from `split_batch_norm` if the classifier has no batch normalisation.
    """

    def __init__(
        self,
        classifier: keras.Model,
        jsd_weight: float = 12.0,
        *,
        batch_norms: int = 1,
        adversary: Adversary | None = None,
        run_seed: int = 0,
        **kwargs: Any,
    ) -> None:
        # bfloat16 cannot hold all 256 levels of a pixel. The classifier casts by itself.
        super().__init__(autocast=False, **kwargs)
        whole = isinstance(batch_norms, int) and not isinstance(batch_norms, bool)
        errors.require(whole and batch_norms >= 1, "batch_norms from 1 on", repr(batch_norms))
        alone = adversary is None or batch_norms == 1
        errors.require(alone, "one batch_norms with an adversary, which has one view", batch_norms)
        self.classifier = classifier
        self.classifiers = split_batch_norm(classifier, batch_norms) if batch_norms > 1 else []
        self.jsd_weight = jsd_weight
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
            return self._logits_of_each_view(images)
        _, views, *image_shape = _sizes(images)
        logits = self.classifier(tf.reshape(images, [-1, *image_shape]), training=training)
        return tf.reshape(logits, [-1, views, logits.shape[-1]])

    def train_step(self, data: Batch) -> dict[str, tf.Tensor]:
        """One optimiser step on (views [N, V, H, W, 3], labels).

        Labels are integers [N], or float targets [N, K] without a consistency loss. On several
        replicas each one gets N examples, and the loss is the mean over all of them.
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

    def _logits_of_each_view(self, views: tf.Tensor) -> tf.Tensor:
        count = len(self.classifiers)
        errors.require(views.shape[1] == count, f"{count} views [N, V, H, W, 3]", views.shape)
        logits = [c(views[:, v], training=True) for v, c in enumerate(self.classifiers)]
        return tf.stack(logits, axis=1)

    def _attacked(self, adversary: Adversary, views: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        one = views.shape.rank == 5 and views.shape[1] == 1
        errors.require(one, "one view [N, 1, H, W, 3] for adversarial training", views.shape)
        seed = seeds.fold(self.run_seed, 0, self.optimizer.iterations, seeds.ADVERSARY)
        return adversary.perturb(self.classifier, views[:, 0], labels, seed, *_replica())[:, None]

    def _parts(self, labels: tf.Tensor, logits: tf.Tensor) -> dict[str, tf.Tensor]:
        """The loss of each example and what it is made of, float32 [N] each."""
        clean, several = logits[:, 0], logits.shape[1] > 1
        if several and self.jsd_weight:
            self._check_consistency(labels, logits.shape[1])
        cross_entropy = losses.cross_entropy(labels, clean)
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


def _part_of_global_mean(loss: tf.Tensor) -> tf.Tensor:
    """This replica's part of the mean over all replicas' examples; gradients are summed."""
    examples = tf.size(loss, out_type=tf.int64)
    context = tf.distribute.get_replica_context()
    if context is not None and context.num_replicas_in_sync > 1:
        # `Model.fit` may give replicas different numbers of examples.
        examples = context.all_reduce(tf.distribute.ReduceOp.SUM, examples)
    return tf.reduce_sum(loss) / tf.cast(examples, loss.dtype)


def _means_over_replicas(gradients: list[tf.Tensor]) -> list[tf.Tensor]:
    """Returns the mean of the gradients on every replica; the optimiser's sum is unchanged.

    A loss scale checks the gradients of one replica only, so an overflow on another one has to be
    visible there.
    """
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return gradients
    return [context.all_reduce(tf.distribute.ReduceOp.MEAN, each) for each in gradients]


def _sizes(images: tf.Tensor) -> list[int | tf.Tensor]:
    """The shape, as Python integers where it is static, as a TPU requires."""
    static, dynamic = images.shape, tf.shape(images)
    return [dynamic[axis] if size is None else size for axis, size in enumerate(static)]


def _replica() -> tuple[tf.Tensor | int, int]:
    """Index of this replica, and the number of replicas."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return 0, 1
    return context.replica_id_in_sync_group, context.num_replicas_in_sync
