"""The one place where seeds are derived.

Every random choice of a run is a pure function of (run seed, epoch, step, stream). No state is
kept, so a resumed run, another process and another number of workers draw the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import tensorflow as tf

Index: TypeAlias = int | tf.Tensor
Shape: TypeAlias = Sequence[int | tf.Tensor]

# Named, because the default algorithm differs between compiled and other code.
ALGORITHM = "philox"
_PHILOX = 1  # the same in raw operations
# TensorFlow's own first key, from which it makes the key of a seed (core/kernels/
# stateless_random_ops.cc, `GenerateKey`).
_FIRST_KEY = 0x02461E293EC8F720

# Random streams of a batch. Views are numbered 1 to V - 1 (view 0, the clean image, draws nothing);
# the other streams count down from -1, so that no number of views can collide with them.
SHUFFLE = -1
CROP_AND_FLIP = -2
METHOD = -3
ADVERSARY = -4


def fold(run_seed: Index, epoch: Index, step: Index, view: Index) -> tf.Tensor:
    """Returns the seed of one view of one batch, for `tf.random.stateless_*`.

    Args:
        run_seed: seed of the run.
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
        seed = tf.stack([words(seed, []), tf.cast(index, tf.int32)])
    return tf.ensure_shape(seed, [2])


class BatchSeeds(NamedTuple):
    """Where in which run a batch stands; every random choice for it follows from this."""

    run_seed: Index
    epoch: Index  # from 0
    step: Index  # number of the batch within the epoch, from 0

    def stream(self, number: Index) -> tf.Tensor:
        """Returns the seed of a view (from 1) or of one of this module's streams, int32 [2]."""
        return fold(self.run_seed, self.epoch, self.step, number)


def split(seed: tf.Tensor, count: int) -> list[tf.Tensor]:
    """Returns `count` unrelated seeds, int32 [2] each, made from one."""
    return tf.unstack(words(seed, [count, 2]))


def integers(seed: tf.Tensor, shape: Shape, low: int, high: int) -> tf.Tensor:
    """Draws int32 of `shape`, uniform over low, ..., high - 1."""
    bounds = {"minval": tf.constant(low), "maxval": tf.constant(high)}
    return tf.raw_ops.StatelessRandomUniformIntV2(shape=shape, **_state(seed), **bounds)


def uniform(seed: tf.Tensor, shape: Shape) -> tf.Tensor:
    """Draws float64 of `shape`, uniform from 0 to below 1."""
    return tf.raw_ops.StatelessRandomUniformV2(shape=shape, **_state(seed), dtype=tf.float64)


def below(count: int | tf.Tensor, uniform: tf.Tensor) -> tf.Tensor:
    """Turns U[0, 1) into int32 that are uniform over 0, ..., count - 1."""
    return tf.cast(uniform * tf.cast(count, tf.float64), tf.int32)


def gamma(seed: tf.Tensor, shape: Shape, alpha: float) -> tf.Tensor:
    """Draws float64 of `shape` from Gamma(alpha + 1), what `log_gamma` wants.

    On the host: XLA has no gamma distribution.
    """
    return tf.random.stateless_gamma(shape, seed, alpha + 1.0, dtype=tf.float64)


def log_gamma(gamma: tf.Tensor, uniform: tf.Tensor, alpha: float) -> tf.Tensor:
    """Logarithms of Gamma(alpha) variables; divided by their sum, these are a Dirichlet's shares.

    Made from `gamma` and `uniform` draws, through Gamma(alpha) = Gamma(alpha + 1) * U^(1 / alpha),
    because small alphas underflow otherwise.
    """
    return tf.math.log(gamma) + tf.math.log1p(-uniform) / alpha


def permutation(seed: tf.Tensor, count: int) -> tf.Tensor:
    """Draws an order of 0, ..., count - 1, int32 [count]."""
    return tf.raw_ops.StatelessShuffle(value=tf.range(count), **_state(seed))


def words(seed: tf.Tensor, shape: Shape) -> tf.Tensor:
    """Draws int32 of `shape`, uniform over all of its values."""
    draw = tf.raw_ops.StatelessRandomUniformFullIntV2
    return draw(shape=shape, **_state(seed), dtype=tf.int32)


def _state(seed: tf.Tensor) -> dict[str, Any]:
    """Generator and state that `tf.random.stateless_*(seed, alg="philox")` draw with.

    Those take three times as many operations to make it, and drawing is a fifth of the time for a
    small batch of small images.
    """
    words = tf.raw_ops.StatelessRandomUniformFullIntV2(
        shape=[2],
        key=tf.constant([_FIRST_KEY], tf.uint64),
        counter=tf.cast(seed, tf.uint64),
        alg=_PHILOX,
        dtype=tf.uint64,
    )
    return {"key": words[:1], "counter": words * tf.constant([0, 1], tf.uint64), "alg": _PHILOX}
