"""From stored images to batches of views, in an order that follows from the seed alone.

A batch is a pure function of (run seed, epoch, step), so a run that resumes in the middle of an
epoch gets the batches it would have had, without computing those before.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from augmix_tf import seeds
from augmix_tf.augment.crops import Crop
from augmix_tf.augment.method import BatchShape, Method, Views
from augmix_tf.data.images import ImageStore
from augmix_tf.errors import require
from augmix_tf.runtime import compiled, cores

_FEW_CORES = 4
# Bytes of views that are made in one call. A large batch of large images is made in pieces, so that
# the batches in progress on all cores stay small. Smaller batches are as fast whole, and joining
# their pieces takes the memory that the pieces save.
_PIECE = 2**27
# Of larger batches, in bytes, one is prefetched: TensorFlow's own choice grows without limit.
_LARGE = 2**25


class Position(NamedTuple):
    """Where a run stands: the next batch is number `step` (from 0) of epoch `epoch` (from 0)."""

    epoch: int = 0
    step: int = 0


class ReplicaSlice(NamedTuple):
    """The replicas that one process feeds; by default the only one."""

    first: int = 0  # number of its first replica
    replicas: int = 1  # number of its replicas,
    of: int = 1  # of all these


ONE_REPLICA = ReplicaSlice()


def steps_per_epoch(examples: int, batch_size: int) -> int:
    """Batches of one epoch; the last one may repeat examples of the epoch."""
    return -(-examples // batch_size)


def training_batches(
    store: ImageStore,
    method: Method,
    *,
    num_classes: int,
    run_seed: int,
    epochs: int,
    batch_size: int,
    start: Position = Position(),
    replicas: ReplicaSlice = ONE_REPLICA,
) -> tf.data.Dataset:
    """Returns all batches of a run from `start` on, shuffled anew in each epoch.

    Every batch is full: the last one of an epoch is completed with the first examples of the
    epoch's own order. `replicas` makes the rows of some replicas only; together they have the
    views that one process makes of the whole batch.

    Returns:
        Dataset of (views float32 [n, V, H, W, 3] in 0..255, labels int64 [n] or targets
        float32 [n, K]), n = batch_size / replicas.of: one element for each replica of a batch, in
        their order.
    """
    divisible = batch_size % replicas.of == 0
    require(divisible, f"a batch_size divisible by the {replicas.of} replicas", batch_size)
    make = view_maker(store, method, num_classes, run_seed, batch_size)
    dataset = _rows_of_batches(len(store), run_seed, epochs, batch_size, start)

    rows = batch_size // replicas.of
    places = tf.range(replicas.first * rows, (replicas.first + replicas.replicas) * rows)
    size = rows * method.views_per_image * 4 * 3 * math.prod(store.image_size)
    pieces = 1 if method.mixes_examples else min(rows, -(-size // _PIECE))
    if pieces > 1:
        dataset = _in_pieces(dataset, make, tf.reshape(places, [-1, rows]), pieces)
    elif replicas.of == 1:
        dataset = _parallel(dataset, lambda epoch, step, rows: make(epoch, step, rows, None))
    else:
        dataset = _parallel(dataset, lambda epoch, step, rows: make(epoch, step, rows, places))
        split = [replicas.replicas, rows]
        dataset = dataset.map(lambda *parts: [tf.reshape(p, split + p.shape[1:]) for p in parts])
        dataset = dataset.unbatch()
    return dataset.prefetch(1 if size > _LARGE else tf.data.AUTOTUNE)


def view_maker(
    store: ImageStore, method: Method, num_classes: int, run_seed: int, batch_size: int
) -> Callable[..., Views]:
    """Returns the function that makes the views of a batch, or of some places in it."""
    held = tf.constant(store.held)
    labels = tf.constant(store.labels, tf.int64)
    crop: Any = store.crop
    shape = BatchShape(batch_size, crop.size(held))
    together = method.compiled and crop.compiled
    apply = view_program(method, crop) if together else _views_function(method, crop)

    def make(epoch: tf.Tensor, step: tf.Tensor, rows: tf.Tensor, places: tf.Tensor | None) -> Views:
        streams = seeds.BatchSeeds(run_seed, epoch, step)
        # Drawn for the whole batch, so that the views do not depend on how it is divided.
        drawn = crop.draw(streams.stream(seeds.CROP_AND_FLIP), batch_size)
        batch = (tf.gather(labels, rows), drawn, method.draw(streams, shape))
        if method.mixes_examples:
            targets = tf.one_hot(batch[0], num_classes)
            made = apply(tf.gather(held, rows), targets, *batch[1:])
            return Views(*_take(made, places))
        rows, batch = _take((rows, batch), places)
        return apply(tf.gather(held, rows), *batch)

    return make


def _views_function(method: Method, crop: Crop) -> Callable[..., Views]:
    def views(held: tf.Tensor, labels: tf.Tensor, crop_plan: Any, plan: Any) -> Views:
        return method.apply(crop.apply(held, crop_plan), labels, plan)

    return views


@functools.cache
def view_program(method: Method, crop: Any) -> Callable[..., Views]:
    """Returns crop and method as one XLA program; pipelines of equal methods share it."""
    return compiled(_views_function(method, crop))


def _take(batch: Any, places: tf.Tensor | None) -> Any:
    if places is None:
        return batch
    # A part is None where a method draws nothing of its kind.
    return tf.nest.map_structure(lambda p: None if p is None else tf.gather(p, places), batch)


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
        return tf.gather(order, (step * batch_size + tf.range(batch_size, dtype=tf.int64)) % count)

    return tf.data.Dataset.range(start.epoch, epochs).flat_map(batches_of)


def _in_pieces(
    dataset: tf.data.Dataset, make: Callable[..., Views], by_replica: tf.Tensor, pieces: int
) -> tf.data.Dataset:
    """Makes the views of each replica, at places int32 [replicas, n], in pieces and joins them."""
    replicas, rows = by_replica.shape
    size = -(-rows // pieces)
    # The last piece may be completed with rows of the first ones.
    completed = tf.gather(by_replica, tf.range(pieces * size) % rows, axis=1)
    places = tf.reshape(completed, [replicas * pieces, size])

    def in_pieces(*batch: tf.Tensor) -> tf.data.Dataset:
        return tf.data.Dataset.from_tensor_slices(places).map(lambda piece: (*batch, piece))

    def joined(*parts: tf.Tensor) -> tuple[tf.Tensor, ...]:
        return tuple(tf.reshape(part, [-1, *part.shape[2:]])[:rows] for part in parts)

    dataset = _parallel(dataset.flat_map(in_pieces), make)
    dataset = dataset.batch(pieces, drop_remainder=True, num_parallel_calls=2)
    return dataset.map(joined)


def _parallel(dataset: tf.data.Dataset, function: Callable[..., Any]) -> tf.data.Dataset:
    # With few cores TensorFlow's own choice is one call per core, and a core idles whenever its
    # call waits; one more was 10 % faster on two. With many cores each call counts in memory.
    calls = cores() + 1 if cores() <= _FEW_CORES else tf.data.AUTOTUNE

    def plain(*parts: tf.Tensor) -> tuple[tf.Tensor, ...]:
        return tuple(function(*parts))

    return dataset.map(plain, num_parallel_calls=calls, deterministic=True)
