"""What each method does to a batch: one crop for all, chance of its own, labels that fit."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from augmix_tf import seeds
from augmix_tf.augment import methods
from augmix_tf.augment.crop import draw_crop
from augmix_tf.data import pipeline
from augmix_tf.settings import AugMixSettings
from tests.runs import eager, tf_data

SEED, COUNT, HEIGHT, WIDTH, CLASSES = 5, 6, 10, 14, 6
STEP = (2, 3)
STANDARD = methods.one_view(SEED, methods.unchanged())


def all_methods(seed):
    """Name -> method, views."""
    settings, policy = AugMixSettings(), methods.autoaugment("cifar10")
    one_view = {
        "standard": [methods.unchanged()],
        "cutout": [methods.unchanged(), methods.cutout(5)],
        "autoaugment": [policy],
        "autoaugment_cutout": [policy, methods.cutout(5)],
        "random_autoaugment": [methods.autoaugment("random")],
        "patch_uniform": [methods.patch_uniform(5, 0.3)],
    }
    found = {name: (methods.one_view(seed, *changes), 1) for name, changes in one_view.items()}
    return found | {
        "augmix": (methods.augmix(seed, settings, 3), 3),
        "augmix_without_jsd": (methods.augmix_without_jsd(seed, settings), 1),
        "autoaugment_jsd": (methods.agreeing_views(seed, policy, 4), 4),
        "mixup": (methods.mixup(seed, CLASSES, 1.0), 1),
        "cutmix": (methods.cutmix(seed, CLASSES, 1.0, 1.0), 1),
    }


ALL = all_methods(SEED)
MIXING = ("mixup", "cutmix")
BY_NAME = pytest.mark.parametrize("name", ALL)


@pytest.fixture(scope="module")
def batch():
    """Pictures with whole rows of 0 and of 255, and a label for each one alone."""
    images = np.random.default_rng(0).integers(0, 256, (COUNT, HEIGHT, WIDTH, 3), np.uint8)
    images[:, 0], images[:, -1] = 0, 255
    return tf.constant(images), tf.range(COUNT, dtype=tf.int64)


def made(method, batch, epoch=STEP[0], step=STEP[1], run=eager):
    place = tf.constant(epoch, tf.int64), tf.constant(step, tf.int64)
    return tuple(value.numpy() for value in run(method, *batch, *place))


def cropped_by_hand(batch):
    plan = draw_crop(seeds.fold(SEED, *STEP, seeds.CROP_AND_FLIP), COUNT)
    for picture, offset, flip in zip(batch[0].numpy(), *map(np.asarray, plan), strict=True):
        padded = np.pad(picture[:, ::-1] if flip else picture, ((4, 4), (4, 4), (0, 0)))
        yield padded[offset[0] :, offset[1] :][:HEIGHT, :WIDTH]


# All of them


@BY_NAME
def test_views_are_floats_in_the_range_of_pixels(batch, name):
    method, count = ALL[name]
    views, _ = made(method, batch)
    assert views.dtype == np.float32
    assert views.shape == (COUNT, count, HEIGHT, WIDTH, 3)
    assert views.min() >= 0
    assert views.max() <= 255


@BY_NAME
def test_a_batch_follows_from_seed_epoch_and_step_alone(batch, name):
    method, _ = ALL[name]
    first = made(method, batch)
    again, _ = all_methods(SEED)[name]
    for value, wanted in zip(made(again, batch, run=tf_data), first, strict=True):
        np.testing.assert_array_equal(value, wanted)
    other_seed, _ = all_methods(SEED + 1)[name]
    others = [
        made(method, batch, epoch=STEP[0] + 1),
        made(method, batch, step=STEP[1] + 1),
        made(other_seed, batch),
    ]
    for views, _ in others:
        assert not np.array_equal(views, first[0])


@pytest.mark.parametrize("name", [name for name in ALL if name not in MIXING])
@pytest.mark.parametrize("dtype", ["int64", "uint8"])
def test_labels_come_out_as_they_went_in(batch, name, dtype):
    labels = tf.cast(batch[1], dtype)
    _, targets = made(ALL[name][0], (batch[0], labels), run=tf_data)
    assert targets.dtype == labels.dtype.as_numpy_dtype
    np.testing.assert_array_equal(targets, labels)


@BY_NAME
def test_the_partial_last_batch_has_as_many_views_as_labels(batch, name):
    method, views = ALL[name]
    images, labels = (np.concatenate([value, value[:2]]) for value in batch)
    dataset = pipeline.training_batches(
        images, labels, method, run_seed=SEED, epochs=1, batch_size=COUNT
    )
    found = [(images.numpy(), targets.numpy()) for images, targets in dataset]
    assert [images.shape[:2] for images, _ in found] == [(COUNT, views), (2, views)]
    assert [len(targets) for _, targets in found] == [COUNT, 2]
    for _, targets in found:
        if name in MIXING:
            np.testing.assert_allclose(targets.sum(axis=1), 1, rtol=1e-6)
        else:
            assert targets.dtype == np.int64


# One crop and flip for all


def test_standard_training_sees_the_crop_and_flip_and_nothing_else(batch):
    views, _ = made(STANDARD, batch)
    np.testing.assert_array_equal(views[:, 0], list(cropped_by_hand(batch)))


@pytest.mark.parametrize("name", ["augmix", "autoaugment_jsd"])
def test_the_clean_view_is_what_standard_training_sees(batch, name):
    views, _ = made(ALL[name][0], batch)
    plain, _ = made(STANDARD, batch)
    np.testing.assert_array_equal(views[:, :1], plain)


@pytest.mark.parametrize(
    ("name", "plain"),
    [("cutout", "standard"), ("patch_uniform", "standard"), ("autoaugment_cutout", "autoaugment")],
)
def test_outside_of_its_square_a_picture_is_that_of_the_method_without_it(batch, name, plain):
    """The same crop, and with AutoAugment the same sub-policies."""
    views, _ = made(ALL[name][0], batch)
    wanted, _ = made(ALL[plain][0], batch)
    inside = 0
    for view, original in zip(views[:, 0], wanted[:, 0], strict=True):
        changed = (view != original).any(axis=2)
        rows, columns = changed.any(axis=1).nonzero()[0], changed.any(axis=0).nonzero()[0]
        inside += len(rows) * len(columns)
        for places in (rows, columns):
            assert np.ptp(places) < 5
        if name != "patch_uniform":
            assert (view[changed] == 127.5).all()
    assert inside > COUNT * 5


def test_the_augmented_view_alone_is_that_beside_the_clean_one(batch):
    both, _ = made(methods.augmix(SEED, AugMixSettings(), 2), batch)
    alone, _ = made(ALL["augmix_without_jsd"][0], batch)
    np.testing.assert_array_equal(alone[:, 0], both[:, 1])


def test_more_agreeing_views_leave_the_first_ones_as_they_are(batch):
    policy = methods.autoaugment("cifar10")
    few, _ = made(methods.agreeing_views(SEED, policy, 2), batch)
    many, _ = made(methods.agreeing_views(SEED, policy, 4), batch)
    np.testing.assert_array_equal(many[:, :2], few)
    for first, second in ((1, 2), (2, 3), (1, 3)):
        assert not np.array_equal(many[:, first], many[:, second])


def test_every_agreeing_view_starts_from_the_same_picture(batch):
    """With a change that draws nothing all views are the crop, changed in the same way."""
    views, _ = made(
        methods.agreeing_views(SEED, lambda x, *_: 255.0 - tf.cast(x, "float32"), 3), batch
    )
    plain, _ = made(STANDARD, batch)
    np.testing.assert_array_equal(views[:, :1], plain)
    for view in (1, 2):
        np.testing.assert_array_equal(views[:, view], 255 - plain[:, 0])


# Shared between devices


@BY_NAME
def test_some_rows_are_the_rows_of_the_whole_batch(batch, name):
    """In any order and more than once, in eager code and as the pipeline calls it."""
    method, _ = ALL[name]
    chosen = tf.constant([4, 1, 1, 5])
    place = tf.constant(STEP[0], tf.int64), tf.constant(STEP[1], tf.int64)
    for run in (eager, tf_data):
        some = run(lambda *arguments: method(*arguments, chosen), *batch, *place)
        for part, whole in zip(some, made(method, batch), strict=True):
            np.testing.assert_array_equal(part, whole[chosen.numpy()])


# Changes one after the other


def test_changes_come_in_their_order_and_the_first_on_bytes(batch):
    seen = []

    def noted(name, change):
        def function(images, seed, batch):
            seen.append((name, images.dtype, tuple(seed.numpy())))
            return change(images)

        return function

    halved = noted("halved", lambda images: tf.cast(images, tf.float32) / 2)
    lifted = noted("lifted", lambda images: images + 100)
    views, _ = made(methods.one_view(SEED, halved, lifted), batch)
    plain, _ = made(STANDARD, batch)
    np.testing.assert_array_equal(views, plain / 2 + 100)
    names, dtypes, own_seeds = zip(*seen, strict=True)
    assert names == ("halved", "lifted")
    assert dtypes == (tf.uint8, tf.float32)
    crop = tuple(seeds.fold(SEED, *STEP, seeds.CROP_AND_FLIP).numpy())
    assert len({*own_seeds, crop}) == 3


def test_each_change_draws_for_itself(batch):
    """The same change twice lays two squares, not one square twice."""
    black = tf.zeros_like(batch[0]), batch[1]
    once, _ = made(methods.one_view(SEED, methods.unchanged(), methods.cutout(3)), black)
    twice, _ = made(
        methods.one_view(SEED, methods.unchanged(), methods.cutout(3), methods.cutout(3)), black
    )
    assert (twice > 0).sum() > (once > 0).sum()


# Mixed labels


@pytest.mark.parametrize("name", MIXING)
def test_mixed_targets_are_probabilities(batch, name):
    for step in range(4):
        _, targets = made(ALL[name][0], batch, step=step)
        assert targets.dtype == np.float32
        assert targets.shape == (COUNT, CLASSES)
        assert targets.min() >= 0
        np.testing.assert_allclose(targets.sum(axis=1), 1, rtol=1e-6)


def test_mixup_mixes_the_pictures_of_standard_training_as_it_mixes_their_labels(batch):
    """Each picture has a class of its own, so that targets name the partner and the share."""
    mixed = 0
    for step in range(4):
        views, targets = made(ALL["mixup"][0], batch, step=step)
        plain, _ = made(STANDARD, batch, step=step)
        wanted = np.einsum("nk,khwc->nhwc", targets.astype(float), plain[:, 0].astype(float))
        np.testing.assert_allclose(views[:, 0], wanted, atol=1e-3)
        mixed += (targets.max(axis=1) < 0.999).sum()
    assert mixed > COUNT


def test_cutmix_puts_in_so_much_of_another_picture_as_of_its_label(batch):
    mixed = 0
    for step in range(4):
        views, targets = made(ALL["cutmix"][0], batch, step=step)
        plain, _ = made(STANDARD, batch, step=step)
        for row, (view, target) in enumerate(zip(views[:, 0], targets, strict=True)):
            [own, *others] = [row, *(k for k in target.nonzero()[0] if k != row)]
            from_own = (view == plain[own, 0]).all(axis=2)
            for other in others:
                from_other = (view == plain[other, 0]).all(axis=2)
                assert (from_own | from_other).all()
                # Pixels that both pictures share may count for either.
                both = (from_own & from_other).mean()
                assert 0 <= from_own.mean() - target[own] + 1e-6 <= both + 2e-6
                mixed += 1
            if not others:
                assert from_own.all()
    assert mixed > COUNT


def test_cutmix_leaves_batches_alone_as_often_as_it_is_told(batch):
    never = methods.cutmix(SEED, CLASSES, 1.0, 0.0)
    views, targets = made(never, batch)
    np.testing.assert_array_equal(views, made(STANDARD, batch)[0])
    np.testing.assert_array_equal(targets, np.eye(CLASSES))
