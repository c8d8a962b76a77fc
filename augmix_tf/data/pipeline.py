"""From pictures to batches of views, in an order that follows from the seed alone.

A batch is a pure function of (run seed, epoch, step). So a run that starts in the middle gets what
it would have got, without computing what came before.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import tensorflow as tf

from augmix_tf import seeds
from augmix_tf.data.pictures import EncodedPictures

Images: TypeAlias = np.ndarray | EncodedPictures
"""uint8 [M, H, W, 3], in memory or encoded on disk."""

_FEW_CORES = 4
# Views that are made in one go, in bytes of their pixels: a large batch of large pictures is made
# in pieces, so that what is in the making on all cores stays small. Smaller ones are as fast, and
# to put them together takes the memory that they save.
_PIECE = 2**27
# Of larger batches, in bytes, one waits for the model: TensorFlow's own choice grows and grows.
_LARGE = 2**25


Method: TypeAlias = Callable[..., Any]
"""What `augment.methods` makes: (images [N, H, W, 3], or the places [N, 2] of encoded ones, labels
[N], epoch, step, rows) to the views float32 [M, V, H, W, 3] of these rows and their labels [M] or
targets float32 [M, K]. Its attribute `mixes` tells that a row needs the pictures of others."""


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
    images: Images,
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
        images: of all M examples.
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
    held = tf.constant(images.places if isinstance(images, EncodedPictures) else images)
    labels_tensor = tf.constant(labels, tf.int64)

    def load(
        epoch: tf.Tensor, step: tf.Tensor, rows: tf.Tensor, places: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, ...]:
        # The last batch is filled up with its own examples before and cut after: one shape means
        # that the views are compiled once.
        present = tf.shape(rows)[0]
        filled = tf.gather(rows, tf.range(batch_size) % present)
        whole = tf.gather(held, filled), tf.gather(labels_tensor, filled), epoch, step
        if places is None:
            views, targets = method(*whole)
            return views[:present], targets[:present]
        views, targets = method(*whole, places % batch_size)
        return views, targets, tf.cast(places < present, tf.float32)

    dataset = _rows_of_batches(len(images), run_seed, epochs, batch_size, start)
    rows, size = _rows_of_replica(batch_size, share), _bytes_of_views(images)
    pieces = min(rows, -(-rows * size // _PIECE))
    if pieces > 1 and not getattr(method, "mixes", False):
        dataset = _in_pieces(dataset, load, pieces, batch_size, share)
    elif share is None:
        dataset = _parallel(dataset, load)
    else:
        places = _places(share, batch_size)
        dataset = _parallel(
            dataset, lambda e, s, rows: _by_replica(share, *load(e, s, rows, places))
        )
        dataset = dataset.unbatch()
    return dataset.prefetch(1 if rows * size > _LARGE else tf.data.AUTOTUNE)


def _rows_of_batches(
    count: int, run_seed: int, epochs: int, batch_size: int, start: Position
) -> tf.data.Dataset:
    """Dataset of (epoch, step, rows): which of `count` examples are in each batch, int32 [N]."""

    def batches_of(epoch: tf.Tensor) -> tf.data.Dataset:
        order = seeds.permutation(seeds.fold(run_seed, epoch, 0, seeds.SHUFFLE), count)
        first = tf.where(epoch == start.epoch, tf.constant(start.step, tf.int64), 0)
        steps = tf.data.Dataset.range(first, steps_per_epoch(count, batch_size))
        return steps.map(lambda step: (epoch, step, rows(order, step)))

    def rows(order: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        begin = tf.cast(step, tf.int32) * batch_size
        return order[begin : begin + batch_size]

    return tf.data.Dataset.range(start.epoch, epochs).flat_map(batches_of)


def _parallel(dataset: tf.data.Dataset, function: Callable[..., tuple]) -> tf.data.Dataset:
    return dataset.map(function, num_parallel_calls=_parallel_calls(), deterministic=True)


def _rows_of_replica(batch_size: int, share: Share | None) -> int:
    return -(-batch_size // (share.of if share else 1))


def _bytes_of_views(images: Images) -> int:
    """Of one example: three views of float32, as a rule."""
    return 3 * 4 * math.prod(images.shape[1:])


def _in_pieces(
    dataset: tf.data.Dataset,
    load: Callable[..., tuple],
    pieces: int,
    batch_size: int,
    share: Share | None,
) -> tf.data.Dataset:
    """Makes the views of each replica piece by piece, and puts them together."""
    own = share or Share(0, 1, 1)
    by_replica = tf.reshape(_places(own, batch_size), [own.replicas, -1])
    rows = by_replica.shape[1]
    size = -(-rows // pieces)
    # The last piece may be filled up with rows of the first ones.
    filled = tf.gather(by_replica, tf.range(pieces * size) % rows, axis=1)
    places = tf.reshape(filled, [own.replicas * pieces, size])

    def in_pieces(*batch: tf.Tensor) -> tf.data.Dataset:
        return tf.data.Dataset.from_tensor_slices(places).map(lambda piece: (*batch, piece))

    def joined(*made: tf.Tensor) -> tuple[tf.Tensor, ...]:
        whole = [tf.reshape(part, [-1, *part.shape[2:]])[:rows] for part in made]
        if share is not None:
            return tuple(whole)
        present = tf.cast(tf.reduce_sum(whole[2]), tf.int32)
        return whole[0][:present], whole[1][:present]

    dataset = _parallel(dataset.flat_map(in_pieces), load)
    dataset = dataset.batch(pieces, drop_remainder=True, num_parallel_calls=2)
    return dataset.map(joined)


def _places(share: Share, batch_size: int) -> tf.Tensor:
    """The places of a share in a batch that is filled up to be divisible by the replicas."""
    rows = -(-batch_size // share.of)
    return tf.range(share.first * rows, (share.first + share.replicas) * rows)


def _by_replica(share: Share, *parts: tf.Tensor) -> tuple[tf.Tensor, ...]:
    return tuple(tf.reshape(part, [share.replicas, -1, *part.shape[1:]]) for part in parts)


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
