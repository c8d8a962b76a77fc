"""The training step: one forward pass over all views of a batch, cross-entropy plus consistency."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from augmix_tf import checks, losses, seeds
from augmix_tf.models import batch_norm
from augmix_tf.training.adversary import Adversary
from augmix_tf.training.split_bn import split_batch_norm

Batch = tuple[tf.Tensor, ...]
METRICS = ("loss", "cross_entropy", "jsd", "error")


class Trainer(keras.Model):
    """A classifier with the AugMix training step, for `fit` as well as for a loop of one's own.

    The views of an image stand beside each other, [N, V, ...], and go through the network together
    as [N * V, ...]: batch normalisation sees all of them at once, as in the authors' code. The loss
    of an example is

        CE(clean view, label) + jsd_weight * JSD(all views),   averaged over the global batch.

    Args:
        classifier: float32 images [N, H, W, 3] to logits [N, K].
        jsd_weight: lambda; 12 in the paper. Has no part in it where there is one view only.
        batch_norms: 1, or V: each of exactly V views is trained with batch normalisation of its own
            (`split_batch_norm`), in V forward passes. `classifier` stays that of the clean view,
            and all else than training uses it alone.
        adversary: trains on the pictures that it makes of the only view, not on the clean ones.
        run_seed: of the adversary's random starts, with the number of the step.

    Logged metrics, over the examples since the last reset: `loss` (the sum above), `cross_entropy`,
    `jsd` (before the weight) and `error` (share of clean views whose top class is wrong; of a soft
    label, other than its top class, the first of equals). While an adversary trains, all four are
    of its pictures.

    Raises:
        CommandError: `batch_norms` is no count, or there is an adversary besides several; from
            `split_batch_norm` if the classifier has nothing to split.
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
        # Pictures of 256 levels would lose some in bfloat16. The classifier casts by itself.
        super().__init__(autocast=False, **kwargs)
        whole = isinstance(batch_norms, int) and not isinstance(batch_norms, bool)
        checks.require(whole and batch_norms >= 1, "batch_norms from 1 on", repr(batch_norms))
        alone = adversary is None or batch_norms == 1
        checks.require(alone, "one batch_norms with an adversary, which has one view", batch_norms)
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
        _, views, *picture = _sizes(images)
        logits = self.classifier(tf.reshape(images, [-1, *picture]), training=training)
        return tf.reshape(logits, [-1, views, logits.shape[-1]])

    def train_step(self, data: Batch) -> dict[str, tf.Tensor]:
        """One step of the optimiser on (views [N, V, H, W, 3], labels) or (..., present).

        Labels are integers [N], or float targets [N, K] where there is no consistency to train.
        Rows where `present`, float32 [N], is 0 only fill the batch up: neither loss nor metrics nor
        the statistics of batch normalisation know of them.
        """
        views, labels, present = _with_present(data)
        if self.adversary is not None:
            views = self._attacked(self.adversary, views, labels)
        with tf.GradientTape() as tape:
            logits = self._training_logits(views, present)
            parts = self._parts(labels, logits)
            loss = self._share_of_global_batch(parts["loss"], present)
            scaled = self.optimizer.scale_loss(loss)
        variables = self.trainable_variables
        gradients = tape.gradient(scaled, variables)
        if isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer):
            gradients = _means_over_replicas(gradients)
        self.optimizer.apply(gradients, variables)
        return self._log(parts, present)

    def test_step(self, data: Batch) -> dict[str, tf.Tensor]:
        """The same numbers without training or attack; [N, H, W, 3] counts as one view."""
        images, labels, present = _with_present(data)
        logits = self(images, training=False)
        logits = logits if logits.shape.rank == 3 else logits[:, None]
        return self._log(self._parts(labels, logits), present)

    def _training_logits(self, views: tf.Tensor, present: tf.Tensor | None) -> tf.Tensor:
        if present is None:
            return self(views, training=True)
        # A network of its own for each view gets its rows once, one for all gets them V times.
        times = 1 if self.classifiers else views.shape[1]
        with batch_norm.counting(tf.repeat(present, times)):
            return self(views, training=True)

    def _logits_of_each_view(self, views: tf.Tensor) -> tf.Tensor:
        count = len(self.classifiers)
        checks.require(views.shape[1] == count, f"{count} views [N, V, H, W, 3]", views.shape)
        logits = [c(views[:, v], training=True) for v, c in enumerate(self.classifiers)]
        return tf.stack(logits, axis=1)

    def _attacked(self, adversary: Adversary, views: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        one = views.shape.rank == 5 and views.shape[1] == 1
        checks.require(one, "one view [N, 1, H, W, 3] for adversarial training", views.shape)
        seed = seeds.fold(self.run_seed, 0, self.optimizer.iterations, seeds.ADVERSARY)
        return adversary.perturb(self.classifier, views[:, 0], labels, seed, *_replica())[:, None]

    def _parts(self, labels: tf.Tensor, logits: tf.Tensor) -> dict[str, tf.Tensor]:
        """The loss of each example and what it is made of, float32 [N] each."""
        clean, several = logits[:, 0], logits.shape[1] > 1
        if several and self.jsd_weight and labels.dtype.is_floating:
            # The mixed views would have to be mixed with the same pictures in the same places.
            raise checks.CommandError(
                "want integer labels where views are to agree: soft labels belong to a picture "
                f"that was mixed with another, got {labels.dtype.name} {labels.shape} "
                f"with {logits.shape[1]} views"
            )
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

    def _share_of_global_batch(self, loss: tf.Tensor, present: tf.Tensor | None) -> tf.Tensor:
        # Gradients are summed over replicas, so each adds its part of the mean over all examples.
        counted = tf.ones_like(loss) if present is None else tf.cast(present, loss.dtype)
        examples = tf.reduce_sum(counted)
        context = tf.distribute.get_replica_context()
        if context is not None and context.num_replicas_in_sync > 1:
            examples = context.all_reduce(tf.distribute.ReduceOp.SUM, examples)
        return tf.reduce_sum(loss * counted) / examples

    def _log(self, parts: dict[str, tf.Tensor], present: tf.Tensor | None) -> dict[str, tf.Tensor]:
        for name, mean in self._means.items():
            mean.update_state(parts[name], sample_weight=present)
        return {name: mean.result() for name, mean in self._means.items()}


def _with_present(data: Batch) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor | None]:
    views, labels, *present = data
    return views, labels, present[0] if present else None


def _means_over_replicas(gradients: list[tf.Tensor]) -> list[tf.Tensor]:
    """The same gradients on all replicas, in whose sum the optimiser finds theirs again.

    A loss scale asks one replica whether the gradients are finite. Where another one's are not, all
    have to see it.
    """
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return gradients
    return [context.all_reduce(tf.distribute.ReduceOp.MEAN, each) for each in gradients]


def _sizes(images: tf.Tensor) -> list[int | tf.Tensor]:
    """The shape, in whole numbers as far as it is known: a TPU wants no others."""
    known, whole = images.shape, tf.shape(images)
    return [whole[axis] if size is None else size for axis, size in enumerate(known)]


def _replica() -> tuple[tf.Tensor | int, int]:
    """Number of this replica, and how many there are."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return 0, 1
    return context.replica_id_in_sync_group, context.num_replicas_in_sync
