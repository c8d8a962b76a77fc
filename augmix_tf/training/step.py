"""The training step: one forward pass over all views of a batch, cross-entropy plus consistency."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from augmix_tf import losses

Batch = tuple[tf.Tensor, tf.Tensor]
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

    Logged metrics, over the examples since the last reset: `loss` (the sum above), `cross_entropy`,
    `jsd` (before the weight) and `error` (share of clean views whose top class is wrong).
    """

    def __init__(self, classifier: keras.Model, jsd_weight: float = 12.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.classifier = classifier
        self.jsd_weight = jsd_weight
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
        views = tf.shape(images)[1]
        together = tf.reshape(images, tf.concat([[-1], tf.shape(images)[2:]], 0))
        together = tf.ensure_shape(together, [None, *images.shape[2:]])
        logits = self.classifier(together, training=training)
        logits = tf.reshape(logits, [-1, views, tf.shape(logits)[-1]])
        return tf.ensure_shape(logits, [images.shape[0], images.shape[1], None])

    def train_step(self, data: Batch) -> dict[str, tf.Tensor]:
        """One step of the optimiser on (views [N, V, H, W, 3], labels [N])."""
        views, labels = data
        with tf.GradientTape() as tape:
            logits = self(views, training=True)
            parts = self._parts(labels, logits)
            loss = self._share_of_global_batch(parts["loss"])
            scaled = self.optimizer.scale_loss(loss)
        variables = self.trainable_variables
        self.optimizer.apply(tape.gradient(scaled, variables), variables)
        return self._log(parts)

    def test_step(self, data: Batch) -> dict[str, tf.Tensor]:
        """The same numbers without training; [N, H, W, 3] counts as one view."""
        images, labels = data
        logits = self(images, training=False)
        return self._log(self._parts(labels, logits if logits.shape.rank == 3 else logits[:, None]))

    def _parts(self, labels: tf.Tensor, logits: tf.Tensor) -> dict[str, tf.Tensor]:
        """The loss of each example and what it is made of, float32 [N] each."""
        clean = logits[:, 0]
        cross_entropy = losses.cross_entropy(labels, clean)
        jsd = tf.zeros_like(cross_entropy)
        if logits.shape[1] > 1:
            jsd = losses.jensen_shannon(logits)
        wrong = tf.argmax(clean, axis=-1, output_type=labels.dtype) != labels
        return {
            "loss": cross_entropy + self.jsd_weight * jsd,
            "cross_entropy": cross_entropy,
            "jsd": jsd,
            "error": tf.cast(wrong, tf.float32),
        }

    def _share_of_global_batch(self, loss: tf.Tensor) -> tf.Tensor:
        # Gradients are summed over replicas, so each adds its part of the mean over all examples.
        context = tf.distribute.get_replica_context()
        examples = tf.cast(tf.shape(loss)[0], loss.dtype)
        if context is not None and context.num_replicas_in_sync > 1:
            examples = context.all_reduce(tf.distribute.ReduceOp.SUM, examples)
        return tf.reduce_sum(loss) / examples

    def _log(self, parts: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        for name, mean in self._means.items():
            mean.update_state(parts[name])
        return {name: mean.result() for name, mean in self._means.items()}
