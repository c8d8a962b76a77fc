"""The authors' optimizer and learning rates: SGD by PyTorch's rule, and two schedules."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf
from keras.optimizers.schedules import CosineDecay, LearningRateSchedule, PiecewiseConstantDecay


def cosine_schedule(
    peak: float, total_steps: int, warmup_steps: int = 0, floor: float = 1e-6
) -> LearningRateSchedule:
    """Half a cosine, step by step, from the peak down to the floor.

        rate(s) = floor + (peak - floor) (1 + cos(pi s / total_steps)) / 2

    With a warm-up of w steps, step s < w uses peak (s + 1) / (w + 1), and the half cosine spans the
    steps from w, where it stands at the peak, to `total_steps`.

    Source: `cifar.py` of the AugMix authors' public code; it has no warm-up.
    """
    # Keras computes in the type of the first rate. In float32 it is off by 1.5e-7 of the peak.
    return CosineDecay(
        np.float64(peak / (warmup_steps + 1)),
        total_steps - warmup_steps,
        floor / peak,
        warmup_target=np.float64(peak) if warmup_steps else None,
        warmup_steps=warmup_steps,
    )


def step_schedule(
    peak: float, epochs: int, steps_per_epoch: int, warmup_steps: int = 0
) -> LearningRateSchedule:
    """A tenth of the rate after a third of the epochs, a hundredth after two thirds.

        rate(s) = peak * { 1 if e < t, 1/10 if t <= e < 2 t, 1/100 if 2 t <= e },
        e = s // steps_per_epoch,  t = epochs // 3

    With fewer than three epochs t is 0, so that the whole run uses a hundredth of the peak, as in
    the reference. With a warm-up of w steps, step s < w uses (s + 1) / (w + 1) of that rate.

    Source: `imagenet.py` of the AugMix authors' public code; it has no warm-up.
    """
    third = epochs // 3 * steps_per_epoch
    rates = [np.float64(share * peak) for share in (1.0, 0.1, 0.01)]
    schedule = PiecewiseConstantDecay([third - 1, 2 * third - 1], rates)
    return WarmUp(schedule, warmup_steps) if warmup_steps else schedule


class WarmUp(LearningRateSchedule):
    """(s + 1) / (w + 1) of another schedule's rate at each step s before `warmup_steps`, w."""

    def __init__(self, schedule: LearningRateSchedule, warmup_steps: int) -> None:
        self.schedule, self.warmup_steps = schedule, warmup_steps

    def __call__(self, step: int | tf.Tensor | keras.Variable) -> tf.Tensor:
        rate = self.schedule(step)
        done = tf.minimum(tf.cast(tf.convert_to_tensor(step), rate.dtype), self.warmup_steps) + 1
        return rate * done / (self.warmup_steps + 1)


class CoupledSGD(keras.optimizers.Optimizer):
    """SGD with momentum, weight decay in the gradient, learning rate outside the momentum.

        g <- gradient + weight_decay * w
        v <- momentum * v + g                      (v starts at 0)
        w <- w - rate * (g + momentum * v)         with Nesterov
        w <- w - rate * v                          without

    `keras.optimizers.SGD` differs twice. Its `weight_decay` is decoupled: it shrinks w directly,
    which with momentum 0.9 is about ten times weaker than decay that goes through v. And its v
    holds the rate, so that a change of the rate reaches the weights some steps late.

    Every trainable variable decays: kernels, biases, and the scale and offset of normalization. A
    variable without a gradient is left alone. Arithmetic is in the variable's own type.

    Source: documentation of `torch.optim.SGD` (dampening 0).
    """

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule,
        momentum: float = 0.9,
        nesterov: bool = True,
        weight_decay: float = 5e-4,
    ) -> None:
        # The base class is told of no decay: it would apply a decoupled one besides.
        super().__init__(learning_rate, name="coupled_sgd")
        self.momentum = momentum
        self.nesterov = nesterov
        self.coupled_weight_decay = weight_decay

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Creates the momenta: zeros, one per variable and of its shape and type."""
        if self.built:
            return
        super().build(variables)
        self.momenta = self.add_optimizer_variables(variables, "momentum")

    def update_step(
        self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor
    ) -> None:
        """Updates one variable and its momentum; Keras calls it with the reduced gradient."""
        weight = tf.convert_to_tensor(variable)
        # Also turns the sparse gradient of an embedding dense: decay moves every row.
        gradient = tf.cast(tf.convert_to_tensor(gradient), weight.dtype)
        gradient += self.coupled_weight_decay * weight
        momenta = self.momenta[self._get_variable_index(variable)]
        velocity = self.momentum * tf.convert_to_tensor(momenta) + gradient
        self.assign(momenta, velocity)
        direction = gradient + self.momentum * velocity if self.nesterov else velocity
        self.assign_sub(variable, tf.cast(learning_rate, weight.dtype) * direction)
