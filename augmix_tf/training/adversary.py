"""Adversarial training: images moved within a small ball to where the loss is high."""

from __future__ import annotations

import dataclasses

import keras
import tensorflow as tf

from augmix_tf import losses, seeds

FULL_RANGE = 255.0
# Random starts lie on a grid with this many points on either side; float32 holds each exactly.
FINENESS = 2**23


@dataclasses.dataclass(frozen=True)
class Adversary:
    """Projected gradient ascent (PGD) on the cross-entropy, in the maximum norm.

        x_0     = P(x + u),    u uniform over -epsilon to epsilon, for each value of each pixel
        x_(t+1) = P(x_t + step_size * sign(d CE(x_t) / d x_t))

    P cuts to the ball |x_t - x| <= epsilon and to the range of pixels.

    The gradient is that of the classifier in inference mode: moving statistics, no dropout. So the
    attack changes no state, does not depend on the rest of the batch, and targets the network that
    will be evaluated.

    `epsilon` and `step_size` are shares of the full range of a pixel. Each of the `steps` costs a
    forward and a backward pass.

    Source: Madry et al., ICLR 2018 (arXiv 1706.06083), section 2.1; epsilon 8/255, steps of 2/255
    and the random start are those of its CIFAR-10 runs, which take 7 steps.
    """

    epsilon: float = 8 / 255
    step_size: float = 2 / 255
    steps: int = 10

    def draw_start(self, seed: tf.Tensor, shape: seeds.Shape | tf.Tensor) -> tf.Tensor:
        """Draws float32 of `shape`, uniform within the ball, in levels: +-255 * epsilon."""
        # Of one seed, XLA and other code draw the same integers but different fractions.
        grid = seeds.integers(seed, shape, -FINENESS, FINENESS)
        return FULL_RANGE * self.epsilon / FINENESS * tf.cast(grid, tf.float32)

    def perturb(
        self,
        classifier: keras.Model,
        images: tf.Tensor,
        labels: tf.Tensor,
        seed: tf.Tensor,
        replica: int | tf.Tensor = 0,
        replicas: int = 1,
    ) -> tf.Tensor:
        """Returns adversarial images float32 [N, H, W, 3] near `images`, from a random start.

        The images, 0..255, are part `replica` of a batch of `replicas` equal parts; starts are
        drawn for the whole batch, so that the parts differ. No gradient flows through the result.
        """
        rows = images.shape[0] or tf.shape(images)[0]
        image_shape = images.shape[1:]
        starts = self.draw_start(seed, [replicas * rows, *image_shape])
        start = tf.slice(starts, [replica * rows, 0, 0, 0], [rows, *image_shape])
        return self.ascend(classifier, images, labels, start)

    def ascend(
        self, classifier: keras.Model, images: tf.Tensor, labels: tf.Tensor, start: tf.Tensor
    ) -> tf.Tensor:
        """As `perturb`, from `images` + `start`, float32 [N, H, W, 3] in levels."""
        radius, stride = FULL_RANGE * self.epsilon, FULL_RANGE * self.step_size
        lowest = tf.maximum(images - radius, 0.0)
        highest = tf.minimum(images + radius, FULL_RANGE)

        def step(attacked: tf.Tensor) -> tuple[tf.Tensor]:
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(attacked)
                # A sum, so that the gradient of an image does not shrink with the batch.
                loss = tf.reduce_sum(
                    losses.cross_entropy(labels, classifier(attacked, training=False))
                )
            uphill = tf.sign(tape.gradient(loss, attacked))
            return (tf.clip_by_value(attacked + stride * uphill, lowest, highest),)

        attacked = (tf.clip_by_value(images + start, lowest, highest),)
        # A loop in the graph: its size does not grow with the number of steps.
        (attacked,) = tf.while_loop(
            lambda _: True, step, attacked, parallel_iterations=1, maximum_iterations=self.steps
        )
        return tf.stop_gradient(attacked)
