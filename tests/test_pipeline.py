"""Batches are a function of (seed, epoch, step): order, views, last batch, start in the middle."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import tensorflow as tf

from augmix_tf.augment import crop, methods
from augmix_tf.data import pipeline
from augmix_tf.data.pipeline import Position, Share
from augmix_tf.settings import AugMixSettings
from tests.oracles import pillow_augmix
from tests.runs import RUNS

COUNT, BATCH = 22, 8


@pytest.fixture
def pictures():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (COUNT, 10, 14, 3), np.uint8), np.arange(COUNT)


def batches(pictures, start=Position(), seed=3, views=None, epochs=3):
    views = views or methods.augmix(seed, AugMixSettings(), 3)
    dataset = pipeline.training_batches(
        *pictures, views, run_seed=seed, epochs=epochs, batch_size=BATCH, start=start
    )
    return [(images.numpy(), labels.numpy()) for images, labels in dataset]


def test_each_epoch_holds_each_example_once_in_another_order(pictures):
    made = batches(pictures)
    sizes = [len(labels) for _, labels in made]
    assert sizes == [8, 8, 6] * 3
    epochs = [np.concatenate([labels for _, labels in made[e : e + 3]]) for e in (0, 3, 6)]
    assert all(sorted(epoch) == list(range(COUNT)) for epoch in epochs)
    assert not any(np.array_equal(a, b) for a, b in itertools.pairwise(epochs))


@pytest.mark.parametrize("start", [Position(0, 1), Position(0, 2), Position(1, 0), Position(2, 2)])
def test_a_run_that_starts_in_the_middle_gets_the_same_bytes(pictures, start):
    whole = batches(pictures)[start.epoch * 3 + start.step :]
    rest = batches(pictures, start)
    assert len(rest) == len(whole)
    for (images, labels), (want_images, want_labels) in zip(rest, whole, strict=True):
        np.testing.assert_array_equal(labels, want_labels)
        np.testing.assert_array_equal(images, want_images)


def test_another_seed_gives_another_order_and_other_views(pictures):
    (first, first_labels), (second, second_labels) = (
        batches(pictures)[0],
        batches(pictures, seed=4)[0],
    )
    assert not np.array_equal(first_labels, second_labels)
    assert not np.array_equal(first, second)


def test_the_last_batch_has_the_views_of_its_own_rows(pictures):
    """It is filled up before the views are made; what is kept must not depend on the filling."""
    seen = []

    def views(images, labels, epoch, step):
        assert images.shape[0] == labels.shape[0] == BATCH
        seen.append(1)
        return tf.cast(images, tf.float32)[:, None], labels

    for images, labels in batches(pictures, views=views):
        np.testing.assert_array_equal(images[:, 0], pictures[0][labels])
    assert len(seen) == 1  # traced once


def test_clean_view_is_the_crop_that_the_other_views_start_from(pictures):
    """With shares of 0 in the mix all three views would be equal; here they share the crop."""
    made = batches(pictures)
    standard = batches(pictures, views=methods.one_view(3, methods.unchanged()))
    for (images, _), (plain, _) in zip(made, standard, strict=True):
        assert images.shape[1:] == (3, 10, 14, 3)
        assert plain.shape[1:] == (1, 10, 14, 3)
        np.testing.assert_array_equal(images[:, 0], plain[:, 0])


def test_without_jsd_the_only_view_is_the_augmented_one(pictures):
    settings = AugMixSettings()
    both = batches(pictures, views=methods.augmix(3, settings, 2))
    alone = batches(pictures, views=methods.augmix_without_jsd(3, settings))
    for (images, _), (single, _) in zip(both, alone, strict=True):
        np.testing.assert_array_equal(single[:, 0], images[:, 1])


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_crop_equals_numpy(pictures, run):
    images = pictures[0]
    rng = np.random.default_rng(1)
    offset = rng.integers(0, 9, (COUNT, 2)).astype(np.int32)
    offset[:4] = [[0, 0], [8, 8], [0, 8], [4, 4]]
    flip = rng.random(COUNT) < 0.5
    got = run(
        lambda x, o, f: crop.apply_crop(x, crop.CropPlan(o, f)),
        *map(tf.constant, (images, offset, flip)),
    )
    for image, (top, left), mirrored, result in zip(images, offset, flip, got, strict=True):
        picture = image[:, ::-1] if mirrored else image
        padded = np.pad(picture, ((4, 4), (4, 4), (0, 0)))
        np.testing.assert_array_equal(result, padded[top : top + 10, left : left + 14])


def test_crops_and_flips_are_uniform():
    """20,000 draws; each bound fails a right program once in a billion times (6.1 sigma)."""
    plans = tf.data.Dataset.range(20).map(
        lambda step: crop.draw_crop(tf.stack([tf.cast(step, tf.int32), 9]), 1000)
    )
    offset = np.concatenate([plan.offset for plan in plans])
    flips = np.concatenate([plan.flip for plan in plans])
    total = len(flips)
    assert abs(flips.mean() - 0.5) < 6.1 * np.sqrt(0.25 / total)
    counts = np.zeros((9, 9))
    np.add.at(counts, tuple(offset.T), 1)
    share = 1 / 81
    assert np.abs(counts / total - share).max() < 6.5 * np.sqrt(share * (1 - share) / total)


SHARED = {
    "augmix": methods.augmix(3, AugMixSettings(), 3),
    "mixup": methods.mixup(3, COUNT, 1.0),
    "cutout": methods.one_view(3, methods.unchanged(), methods.cutout(4)),
}


@pytest.mark.parametrize("name", SHARED)
@pytest.mark.parametrize("replicas", [2, 3])
def test_the_shares_of_replicas_make_up_the_batch(pictures, name, replicas):
    """8, 8 and 6 examples over 2 or 3; by one process for all, and by one for each."""

    def made(share):
        dataset = pipeline.training_batches(
            *pictures, SHARED[name], run_seed=3, epochs=2, batch_size=BATCH, share=share
        )
        return [[part.numpy() for part in batch] for batch in dataset]

    whole, together = made(None), made(Share(0, replicas, replicas))
    alone = [made(Share(number, 1, replicas)) for number in range(replicas)]
    assert len(together) == replicas * len(whole)
    for number, (images, labels) in enumerate(whole):
        parts = together[replicas * number :][:replicas]
        assert {len(part) for replica in parts for part in replica} == {-(-BATCH // replicas)}
        for got, want in zip(parts, (replica[number] for replica in alone), strict=True):
            for mine, theirs in zip(got, want, strict=True):
                np.testing.assert_array_equal(mine, theirs)
        views, targets, present = (np.concatenate(part) for part in zip(*parts, strict=True))
        assert present.dtype == np.float32
        np.testing.assert_array_equal(present, np.arange(len(present)) < len(labels))
        np.testing.assert_array_equal(views[present > 0], images)
        np.testing.assert_array_equal(targets[present > 0], labels)


def test_evaluation_keeps_order_and_the_last_partial_batch(pictures):
    made = list(pipeline.evaluation_batches(pictures[0], 8))
    assert [len(batch) for batch in made] == [8, 8, 6]
    np.testing.assert_array_equal(np.concatenate(made), pictures[0].astype(np.float32))


def test_oracle_crop_draws_what_ours_can():
    """The benchmark's Pillow side does the same job: same set of possible results."""
    image = np.arange(1, 5 * 6 * 3 + 1, dtype=np.uint8).reshape(5, 6, 3)
    theirs = {
        pillow_augmix.crop_and_flip(np.random.default_rng(seed), image).tobytes()
        for seed in range(3000)
    }
    rows, columns, flips = np.meshgrid(range(9), range(9), (False, True), indexing="ij")
    offset = np.stack([rows.ravel(), columns.ravel()], 1).astype(np.int32)
    images = np.repeat(image[None], len(offset), axis=0)
    ours = crop.apply_crop(tf.constant(images), crop.CropPlan(offset, tf.constant(flips.ravel())))
    assert theirs == {result.tobytes() for result in ours.numpy()}
