"""The one place where seeds are derived.

Every random choice of a run is a pure function of (run seed, epoch, step, stream): no state is
kept, so a resumed run, another process and another number of workers draw the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import tensorflow as tf

Index: TypeAlias = int | tf.Tensor
Shape: TypeAlias = Sequence[int | tf.Tensor]

# Named, because the default algorithm differs between compiled and other code.
ALGORITHM = "philox"

# A view is numbered 1 to V - 1 (view 0, the clean picture, draws nothing). The other consumers of
# chance count down from -1, so that no number of views can meet them.
SHUFFLE = -1
CROP_AND_FLIP = -2
METHOD = -3
ADVERSARY = -4


def fold(run_seed: Index, epoch: Index, step: Index, view: Index) -> tf.Tensor:
    """Returns the seed of one view of one batch, for `tf.random.stateless_*`.

    Args:
        run_seed: the run's `--seed`.
        epoch: number of the epoch, from 0.
        step: number of the batch within the epoch, from 0.
        view: number of the view, from 1, or one of this module's streams (negative).

    Returns:
        int32 [2]. Distinct arguments give distinct, unrelated seeds.

    >>> seed = fold(run_seed=1, epoch=0, step=7, view=1)
    >>> seed.dtype, seed.shape
    (tf.int32, TensorShape([2]))
    >>> bool(tf.reduce_all(seed == fold(1, 0, 7, 1))), bool(tf.reduce_all(seed == fold(1, 0, 7, 2)))
    (True, False)
    """
    seed = tf.stack([tf.cast(run_seed, tf.int32), tf.constant(0, tf.int32)])
    for index in (epoch, step, view):
        seed = tf.random.experimental.stateless_fold_in(seed, tf.cast(index, tf.int32), ALGORITHM)
    return tf.ensure_shape(seed, [2])


def split(seed: tf.Tensor, count: int) -> list[tf.Tensor]:
    """Returns `count` unrelated seeds, int32 [2] each, made from one."""
    return tf.unstack(tf.random.experimental.stateless_split(seed, count, ALGORITHM))


def integers(seed: tf.Tensor, shape: Shape, low: int, high: int) -> tf.Tensor:
    """Draws int32 of `shape`, uniform over low, ..., high - 1."""
    return tf.random.stateless_uniform(shape, seed, low, high, tf.int32, alg=ALGORITHM)


def uniform(seed: tf.Tensor, shape: Shape, low: float = 0.0, high: float = 1.0) -> tf.Tensor:
    """Draws float64 of `shape`, uniform from low to below high."""
    return tf.random.stateless_uniform(shape, seed, low, high, tf.float64, alg=ALGORITHM)


def gamma(seed: tf.Tensor, shape: Shape, alpha: float) -> tf.Tensor:
    """Draws float64 of `shape` from Gamma(alpha + 1), what `log_gamma` wants.

    On the host: XLA has no gamma distribution.
    """
    return tf.random.stateless_gamma(shape, seed, alpha + 1.0, dtype=tf.float64)


def log_gamma(gamma: tf.Tensor, uniform: tf.Tensor, alpha: float) -> tf.Tensor:
    """Logarithms of Gamma(alpha) variables; divided by their sum, these are a Dirichlet's shares.

    Through Gamma(alpha) = Gamma(alpha + 1) * U^(1 / alpha), because small alphas underflow
    otherwise.

    Args:
        gamma: from `gamma`, float64.
        uniform: from `uniform`, of the same shape.
        alpha: above 0.
    """
    return tf.math.log(gamma) + tf.math.log1p(-uniform) / alpha


def permutation(seed: tf.Tensor, count: int) -> tf.Tensor:
    """Draws an order of 0, ..., count - 1, int32 [count]."""
    return tf.random.experimental.stateless_shuffle(tf.range(count), seed, ALGORITHM)
