"""From pictures in memory to batches of views, in an order that follows from the seed alone.

A batch is a pure function of (run seed, epoch, step). So a run that starts in the middle gets what
it would have got, without computing what came before.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import numpy as np
import tensorflow as tf

from augmix_tf import seeds

Method: TypeAlias = Callable[..., tuple[tf.Tensor, tf.Tensor]]
"""What `augment.methods` makes: (images [N, H, W, 3], labels [N], epoch, step, rows) to the views
float32 [M, V, H, W, 3] of these rows and their labels [M] or targets float32 [M, K]."""

_FEW_CORES = 4


class Position(NamedTuple):
    """Where a run stands: the next batch is number `step` (from 0) of epoch `epoch` (from 0)."""

    epoch: int = 0
    step: int = 0


class Share(NamedTuple):
    """The part of each batch that one process makes, for the replicas that it feeds.

    Attributes:
        first: number of its first replica.
        replicas: that it feeds.
        of: replicas of all processes together.
    """

    first: int
    replicas: int
    of: int


def steps_per_epoch(examples: int, batch_size: int) -> int:
    """Batches of one epoch; the last may be partial."""
    return -(-examples // batch_size)


def training_batches(
    images: np.ndarray,
    labels: np.ndarray,
    method: Method,
    *,
    run_seed: int,
    epochs: int,
    batch_size: int,
    start: Position = Position(),
    share: Share | None = None,
) -> tf.data.Dataset:
    """Returns all batches of a run from `start` on, shuffled anew in each epoch.

    Args:
        images: uint8 [M, H, W, 3].
        labels: [M].
        method: what is done to a batch; it always gets `batch_size` examples.
        run_seed: the order of the examples follows from it and the epoch.
        epochs: of the whole run.
        batch_size: examples per batch; the last of an epoch holds the rest.
        start: the first batch that is made.
        share: makes the rows of some replicas only; all together have the views that one process
            makes of the whole batch.

    Returns:
        Dataset of (views float32 [N, V, H, W, 3], labels int64 [N] or targets float32 [N, K]).
        With a `share` each element is one replica's part of a batch, in their order: (views
        [n, V, H, W, 3], labels, present float32 [n]), n = ceil(batch_size / replicas) always;
        where `present` is 0 the row is filling.
    """
    count = len(images)
    batches = steps_per_epoch(count, batch_size)
    images_tensor, labels_tensor = tf.constant(images), tf.constant(labels, tf.int64)

    def batches_of(epoch: tf.Tensor) -> tf.data.Dataset:
        order = seeds.permutation(seeds.fold(run_seed, epoch, 0, seeds.SHUFFLE), count)
        first = tf.where(epoch == start.epoch, tf.constant(start.step, tf.int64), 0)
        steps = tf.data.Dataset.range(first, batches)
        return steps.map(lambda step: (epoch, step, _rows(order, step)))

    def _rows(order: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        begin = tf.cast(step, tf.int32) * batch_size
        return order[begin : begin + batch_size]

    def load(epoch: tf.Tensor, step: tf.Tensor, rows: tf.Tensor) -> tuple[tf.Tensor, ...]:
        # The last batch is filled up with its own examples before and cut after: one shape means
        # that the views are compiled once.
        present = tf.shape(rows)[0]
        filled = tf.gather(rows, tf.range(batch_size) % present)
        images, labels = tf.gather(images_tensor, filled), tf.gather(labels_tensor, filled)
        if share is None:
            views, targets = method(images, labels, epoch, step)
            return views[:present], targets[:present]
        places = _places(share, batch_size)
        views, targets = method(images, labels, epoch, step, places % batch_size)
        counted = tf.cast(places < present, tf.float32)
        return tuple(_by_replica(part, share) for part in (views, targets, counted))

    epochs_left = tf.data.Dataset.range(start.epoch, epochs)
    dataset = epochs_left.flat_map(batches_of)
    dataset = dataset.map(load, num_parallel_calls=_parallel_calls(), deterministic=True)
    if share is not None:
        dataset = dataset.unbatch()
    return dataset.prefetch(tf.data.AUTOTUNE)


def _places(share: Share, batch_size: int) -> tf.Tensor:
    """The places of a share in a batch that is filled up to be divisible by the replicas."""
    rows = -(-batch_size // share.of)
    return tf.range(share.first * rows, (share.first + share.replicas) * rows)


def _by_replica(part: tf.Tensor, share: Share) -> tf.Tensor:
    return tf.reshape(part, [share.replicas, -1, *part.shape[1:]])


def _parallel_calls() -> int:
    """How many batches are in the making at a time."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    # With few cores TensorFlow's own choice is one call a core, and a core waits whenever its call
    # does; one more was a tenth faster on two. With many cores each call counts in memory.
    return cores + 1 if cores and cores <= _FEW_CORES else tf.data.AUTOTUNE


def evaluation_batches(images: np.ndarray, batch_size: int) -> tf.data.Dataset:
    """Returns the images in order, float32 [N, H, W, 3] in 0..255, the last batch partial."""
    dataset = tf.data.Dataset.from_tensor_slices(images).batch(batch_size)
    return dataset.map(lambda batch: tf.cast(batch, tf.float32)).prefetch(tf.data.AUTOTUNE)
