"""Learning rates as functions of the optimizer step: those of the two public training scripts.

The step is the number of updates already made: the first update uses step 0. Both schedules are
Keras schedules, which any Keras optimizer takes as its `learning_rate`.
"""

from __future__ import annotations

import math
from typing import Any

import keras
import tensorflow as tf

from augmix_tf import errors

DTYPES = ("float32", "float64")


@keras.saving.register_keras_serializable(package="augmix_tf")
class CosineToFloor(keras.optimizers.schedules.LearningRateSchedule):
    """Half a cosine, step by step, from the peak down to the floor.

        rate(s) = floor + (peak - floor) (1 + cos(pi s / total_steps)) / 2

    From step `total_steps` on the rate stays at the floor. With a warm-up of w steps, step s < w
    uses peak (s + 1) / (w + 1), and the half cosine spans the steps from w, where it stands at the
    peak, to `total_steps`.

    Args:
        peak: highest rate, above `floor`.
        total_steps: epochs * steps per epoch, the last, smaller batch of an epoch counted.
        floor: last rate, at least 0.
        warmup_steps: length of the linear warm-up, 0 (none) to total_steps - 1.
        dtype: type of the rate and of the computation, "float32" or "float64".

    Raises:
        ArgumentError: an argument out of its range.

    Source: `cifar.py` of the AugMix authors' public code; it has no warm-up.
    """

    def __init__(
        self,
        peak: float,
        total_steps: int,
        floor: float = 1e-6,
        warmup_steps: int = 0,
        dtype: str = "float32",
    ) -> None:
        errors.require(0.0 <= floor < peak, "0 <= floor < peak", f"floor {floor}, peak {peak}")
        errors.require(total_steps >= 1, "total_steps of at least 1", total_steps)
        _check_warmup(warmup_steps, total_steps)
        errors.require(dtype in DTYPES, f"dtype of {DTYPES}", dtype)
        self.peak = peak
        self.total_steps = total_steps
        self.floor = floor
        self.warmup_steps = warmup_steps
        self.dtype = dtype

    def __call__(self, step: int | tf.Tensor | keras.Variable) -> tf.Tensor:
        """Returns the rate of update number `step` (integer, from 0), a scalar of `dtype`."""
        step = tf.cast(tf.convert_to_tensor(step), tf.int64)
        span = self.total_steps - self.warmup_steps
        left = tf.clip_by_value(self.total_steps - step, 0, span)
        # (1 + cos x) / 2 loses every digit near x = pi in float32; this form is exact at both ends.
        wave = tf.sin(math.pi / 2 * (tf.cast(left, self.dtype) / span)) ** 2
        rate = self.floor + (self.peak - self.floor) * wave
        return rate * _warmup_share(step, self.warmup_steps, self.dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            "peak": self.peak,
            "total_steps": self.total_steps,
            "floor": self.floor,
            "warmup_steps": self.warmup_steps,
            "dtype": self.dtype,
        }


@keras.saving.register_keras_serializable(package="augmix_tf")
class StepDecay(keras.optimizers.schedules.LearningRateSchedule):
    """A tenth of the rate after a third of the epochs, a hundredth after two thirds.

        rate(s) = peak * { 1 if e < t, 1/10 if t <= e < 2 t, 1/100 if 2 t <= e },
        e = s // steps_per_epoch,  t = epochs // 3

    With fewer than three epochs t is 0, so that the whole run uses a hundredth of the peak, as in
    the reference. With a warm-up of w steps, step s < w uses (s + 1) / (w + 1) of that rate.

    Args:
        peak: first and highest rate, positive, already scaled by batch size / 256.
        epochs: length of the run.
        steps_per_epoch: updates in one epoch.
        warmup_steps: length of the linear warm-up, 0 (none) to epochs * steps_per_epoch - 1.
        dtype: type of the rate and of the computation, "float32" or "float64".

    Raises:
        ArgumentError: an argument out of its range.

    Source: `imagenet.py` of the AugMix authors' public code; it has no warm-up.
    """

    def __init__(
        self,
        peak: float,
        epochs: int,
        steps_per_epoch: int,
        warmup_steps: int = 0,
        dtype: str = "float32",
    ) -> None:
        errors.require(peak > 0.0, "a positive peak", peak)
        errors.require(epochs >= 1, "epochs of at least 1", epochs)
        errors.require(steps_per_epoch >= 1, "steps_per_epoch of at least 1", steps_per_epoch)
        _check_warmup(warmup_steps, epochs * steps_per_epoch)
        errors.require(dtype in DTYPES, f"dtype of {DTYPES}", dtype)
        self.peak = peak
        self.epochs = epochs
        self.steps_per_epoch = steps_per_epoch
        self.warmup_steps = warmup_steps
        self.dtype = dtype

    def __call__(self, step: int | tf.Tensor | keras.Variable) -> tf.Tensor:
        """Returns the rate of update number `step` (integer, from 0), a scalar of `dtype`."""
        step = tf.cast(tf.convert_to_tensor(step), tf.int64)
        epoch = step // self.steps_per_epoch
        third = self.epochs // 3
        late = tf.where(epoch < 2 * third, self._rate(0.1), self._rate(0.01))
        rate = tf.where(epoch < third, self._rate(1.0), late)
        return rate * _warmup_share(step, self.warmup_steps, self.dtype)

    def _rate(self, share: float) -> tf.Tensor:
        return tf.constant(share * self.peak, self.dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            "peak": self.peak,
            "epochs": self.epochs,
            "steps_per_epoch": self.steps_per_epoch,
            "warmup_steps": self.warmup_steps,
            "dtype": self.dtype,
        }


def _check_warmup(warmup_steps: int, total_steps: int) -> None:
    wanted = f"warmup_steps of 0 to {total_steps - 1} (the run has {total_steps} steps)"
    errors.require(0 <= warmup_steps < total_steps, wanted, warmup_steps)


def _warmup_share(step: tf.Tensor, warmup_steps: int, dtype: str) -> tf.Tensor:
    """Share of the rate that `step` uses: above 0 from the start, 1 from step `warmup_steps` on."""
    # Bounded as an integer, so that both sides round alike and the share ends at exactly 1.
    done = tf.minimum(step, warmup_steps) + 1
    return tf.cast(done, dtype) / (warmup_steps + 1)
