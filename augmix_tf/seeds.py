"""The one place where seeds are derived.

Every random choice of a run is a pure function of (run seed, epoch, step, stream): no state is
kept, so a resumed run, another process and another number of workers draw the same.
"""

from __future__ import annotations

import tensorflow as tf

Index = int | tf.Tensor

# A view is numbered 1 to V - 1 (view 0, the clean picture, draws nothing). The other consumers of
# chance count down from -1, so that no number of views can meet them.
SHUFFLE = -1
CROP_AND_FLIP = -2
METHOD = -3


def fold(run_seed: Index, epoch: Index, step: Index, view: Index) -> tf.Tensor:
    """Returns the seed of one view of one batch, for `tf.random.stateless_*`.

    Args:
        run_seed: the run's `--seed`.
        epoch: number of the epoch, from 0.
        step: number of the batch within the epoch, from 0.
        view: number of the view, from 1, or one of this module's streams (negative).

    Returns:
        int32 [2]. Distinct arguments give distinct, unrelated seeds.
    """
    seed = tf.stack([tf.cast(run_seed, tf.int32), tf.constant(0, tf.int32)])
    for index in (epoch, step, view):
        seed = tf.random.experimental.stateless_fold_in(seed, tf.cast(index, tf.int32))
    return tf.ensure_shape(seed, [2])


def split(seed: tf.Tensor, count: int) -> list[tf.Tensor]:
    """Returns `count` unrelated seeds, int32 [2] each, made from one."""
    return tf.unstack(tf.random.experimental.stateless_split(seed, num=count))
