"""Stochastic gradient descent by PyTorch's rule, which the published results were trained with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from augmix_tf import errors


@keras.saving.register_keras_serializable(package="augmix_tf")
class CoupledSGD(keras.optimizers.Optimizer):
    """SGD with momentum, weight decay in the gradient, learning rate outside the momentum.

        g <- gradient + weight_decay * w
        v <- momentum * v + g                      (v starts at 0)
        w <- w - rate * (g + momentum * v)         with Nesterov
        w <- w - rate * v                          without

    `keras.optimizers.SGD` differs twice. Its `weight_decay` is decoupled: it shrinks w directly,
    which with momentum 0.9 is about ten times weaker than decay that goes through v. And its v
    holds the rate, so that a change of the rate reaches the weights some steps late.

    Every trainable variable decays: kernels, biases, and the scale and offset of normalisation. A
    variable without a gradient is left alone. Arithmetic is in the variable's own type. Clipping,
    moving averages and gradient accumulation are not offered.

    `tf.train.Checkpoint` keeps the momenta and the step: call `build` before `restore`. Under
    `tf.distribute` the replicas' gradients are summed, so each replica divides its loss by the
    global batch.

    Args:
        learning_rate: positive float (kept in a float32 variable), or a schedule by step.
        momentum: 0 to below 1.
        nesterov: look one momentum step ahead; needs momentum above 0.
        weight_decay: factor of w in the gradient (of w itself, not of w^2), at least 0.
        name: name of the optimizer.
        loss_scale_factor: gradients are divided by it, as those of a loss that `scale_loss`
            multiplied; for float16.

    Raises:
        ArgumentError: an argument out of its range.

    Source: documentation of `torch.optim.SGD` (dampening 0).
    """

    def __init__(
        self,
        learning_rate: float | keras.optimizers.schedules.LearningRateSchedule,
        momentum: float = 0.9,
        nesterov: bool = True,
        weight_decay: float = 5e-4,
        name: str = "coupled_sgd",
        loss_scale_factor: float | None = None,
    ) -> None:
        if isinstance(learning_rate, float):
            errors.require(learning_rate > 0.0, "a positive learning_rate", learning_rate)
        errors.require(0.0 <= momentum < 1.0, "momentum of 0 to below 1", momentum)
        errors.require(momentum > 0.0 or not nesterov, "momentum above 0 with nesterov", momentum)
        errors.require(weight_decay >= 0.0, "weight_decay of at least 0", weight_decay)
        # The base class is told of no decay: it would apply a decoupled one besides.
        super().__init__(learning_rate, name=name, loss_scale_factor=loss_scale_factor)
        self.momentum = momentum
        self.nesterov = nesterov
        self.coupled_weight_decay = weight_decay

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Makes the momenta, zeros, one per variable and of its shape and type."""
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

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments; a schedule in serialised form."""
        base = super().get_config()
        return {
            "learning_rate": base["learning_rate"],
            "momentum": self.momentum,
            "nesterov": self.nesterov,
            "weight_decay": self.coupled_weight_decay,
            "name": base["name"],
            "loss_scale_factor": base["loss_scale_factor"],
        }
