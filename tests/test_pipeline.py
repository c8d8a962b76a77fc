"""Batches are a function of (seed, epoch, step): order, views, last batch, start in the middle."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from augmix_tf.augment import crops
from augmix_tf.augment.erasing import CutoutMethod
from augmix_tf.augment.method import StandardMethod
from augmix_tf.augment.mixing import MixupMethod
from augmix_tf.data import pipeline
from augmix_tf.data.pipeline import ONE_REPLICA, Position, ReplicaSlice
from augmix_tf.errors import ArgumentError
from tests.arrays import assert_same
from tests.image_stores import in_memory
from tests.runs import RUNS

COUNT, BATCH = 22, 8
CUTOUT = CutoutMethod(cutout_size=4)  # compiled in no time, with choices for each image


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (COUNT, 10, 14, 3), np.uint8)


def store_of(images):
    """A store whose labels are the positions of the images."""
    return in_memory(images, np.arange(COUNT))


def dataset_of(images, method=CUTOUT, start=Position(), seed=3, epochs=3, **more):
    settings = {"num_classes": COUNT, "run_seed": seed, "epochs": epochs, "batch_size": BATCH}
    store = store_of(images)
    return pipeline.training_batches(store, method, start=start, **settings | more)


def batches(*arguments, **options):
    return [tuple(part.numpy() for part in batch) for batch in dataset_of(*arguments, **options)]


@pytest.fixture(scope="module")
def made(images):
    """All batches of a run."""
    return batches(images)


def test_each_epoch_holds_each_example_once_in_another_order(made):
    epochs = [np.concatenate([labels for _, labels in made[e : e + 3]])[:COUNT] for e in (0, 3, 6)]
    assert all(sorted(epoch) == list(range(COUNT)) for epoch in epochs)
    assert not any(np.array_equal(a, b) for a, b in itertools.pairwise(epochs))


@pytest.mark.parametrize("start", [Position(0, 2), Position(1, 0), Position(2, 1)])
def test_a_run_that_starts_in_the_middle_gets_the_same_bytes(images, made, start):
    rest = batches(images, start=start)
    for got, want in zip(rest, made[start.epoch * 3 + start.step :], strict=True):
        assert_same(got, want)


def test_the_last_batch_is_completed_with_the_first_examples_of_its_epoch(made):
    assert {len(labels) for _, labels in made} == {BATCH}
    for first, last in ((0, 2), (3, 5), (6, 8)):
        np.testing.assert_array_equal(made[last][1][6:], made[first][1][:2])


def test_a_batch_larger_than_the_epoch_repeats_it(images):
    made = batches(images, StandardMethod(), epochs=2, batch_size=2 * COUNT + 1)
    labels = [labels for _, labels in made]
    assert [len(one) for one in labels] == [2 * COUNT + 1] * 2
    for one in labels:
        assert sorted(one[:COUNT]) == list(range(COUNT))
        np.testing.assert_array_equal(one, np.resize(one[:COUNT], 2 * COUNT + 1))


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_crop_equals_numpy(images, run):
    rng = np.random.default_rng(1)
    offset = rng.integers(0, 9, (COUNT, 2)).astype(np.int32)
    offset[:4] = [[0, 0], [8, 8], [0, 8], [4, 4]]
    flip = rng.random(COUNT) < 0.5
    got = run(
        lambda x, o, f: crops.PaddedCrop().apply(x, crops.CropPlan(o, f)),
        *map(tf.constant, (images, offset, flip)),
    )
    for image, (top, left), mirrored, result in zip(images, offset, flip, got, strict=True):
        flipped = image[:, ::-1] if mirrored else image
        padded = np.pad(flipped, ((4, 4), (4, 4), (0, 0)))
        np.testing.assert_array_equal(result, padded[top : top + 10, left : left + 14])


def test_crops_and_flips_are_uniform():
    """20,000 draws; each bound fails a right program once in a billion times (6.1 sigma)."""
    plans = tf.data.Dataset.range(20).map(
        lambda step: crops.PaddedCrop().draw(tf.stack([tf.cast(step, tf.int32), 9]), 1000)
    )
    offset = np.concatenate([plan.offset for plan in plans])
    flips = np.concatenate([plan.flip for plan in plans])
    total = len(flips)
    assert abs(flips.mean() - 0.5) < 6.1 * np.sqrt(0.25 / total)
    counts = np.zeros((9, 9))
    np.add.at(counts, tuple(offset.T), 1)
    share = 1 / 81
    assert np.abs(counts / total - share).max() < 6.5 * np.sqrt(share * (1 - share) / total)


@pytest.mark.parametrize(("method", "replicas"), [(MixupMethod(), 2), (CUTOUT, 4)])
def test_the_parts_of_replicas_make_up_the_batch(images, method, replicas):
    """By one process for all replicas, and by one for each."""

    def made(part):
        return batches(images, method, epochs=2, replicas=part)

    whole, together = made(ONE_REPLICA), made(ReplicaSlice(0, replicas, replicas))
    alone = [made(ReplicaSlice(number, 1, replicas)) for number in range(replicas)]
    assert len(together) == replicas * len(whole)
    for number, (want_views, want_targets) in enumerate(whole):
        parts = together[replicas * number :][:replicas]
        assert {len(part) for replica in parts for part in replica} == {BATCH // replicas}
        for got, want in zip(parts, (replica[number] for replica in alone), strict=True):
            assert_same(got, want)
        views, targets = (np.concatenate(part) for part in zip(*parts, strict=True))
        np.testing.assert_array_equal(views, want_views)
        np.testing.assert_array_equal(targets, want_targets)


def test_a_batch_that_the_replicas_do_not_divide_is_refused(images):
    with pytest.raises(ArgumentError, match="batch_size divisible by the 3 replicas; received 8"):
        dataset_of(images, replicas=ReplicaSlice(0, 1, 3))
