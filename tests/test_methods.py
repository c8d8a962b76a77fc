"""What each method does to a batch: one crop for all, streams of its own, labels that fit."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from augmix_tf import recipes, seeds
from augmix_tf.augment.augmix import AugMixMethod
from augmix_tf.augment.augmix_textures import AugMixTexturesMethod
from augmix_tf.augment.autoaugment import AutoAugmentMethod, RandomAutoAugmentMethod
from augmix_tf.augment.crops import PaddedCrop
from augmix_tf.augment.erasing import CutoutMethod, PatchUniformMethod
from augmix_tf.augment.ipmix import IPMixMethod
from augmix_tf.augment.method import AdversarialMethod, BatchShape, StandardMethod
from augmix_tf.augment.mixing import CutmixMethod, MixupMethod
from augmix_tf.augment.pixmix import PixMixMethod
from augmix_tf.augment.trivialaugment import RandAugmentMethod, TrivialAugmentMethod
from augmix_tf.data import pipeline
from tests.arrays import assert_same
from tests.image_stores import in_memory
from tests.runs import eager, leave_out_xla, tf_data

SEED, COUNT, HEIGHT, WIDTH, CLASSES = 5, 6, 10, 14, 6
STEP = (2, 3)
STANDARD = StandardMethod()
ALL = {
    "standard": StandardMethod(),
    "adversarial": AdversarialMethod(),
    "cutout": CutoutMethod(cutout_size=5),
    "autoaugment": AutoAugmentMethod(),
    "random_autoaugment": RandomAutoAugmentMethod(),
    "patch_uniform": PatchUniformMethod(patch_size=5),
    "augmix": AugMixMethod(views=2),
    "augmix_without_jsd": AugMixMethod(jsd=False),
    "autoaugment_jsd": AugMixMethod(mix_ops="autoaugment", views=4),
    "random_autoaugment_alone": AugMixMethod(mix_ops="random_autoaugment", jsd=False),
    "mixup": MixupMethod(),
    "cutmix": CutmixMethod(cutmix_probability=1.0),
    "trivialaugment": TrivialAugmentMethod(cutout_size=5),
    "randaugment": RandAugmentMethod(num_ops=1, cutout_size=0),
    "pixmix": PixMixMethod(mixing_images=2),
    "ipmix": IPMixMethod(mixing_images=2, patch_sides="4,8", views=2),
    "augmix_textures": AugMixTexturesMethod(mixing_images=2, patch_sides="4,8", jsd=False),
}
MIXING = ("mixup", "cutmix")
# The others apply a policy as TrivialAugment does; each program takes seconds to compile, and once
# more in a pipeline.
MADE = [n for n in ALL if "autoaugment" not in n and n != "randaugment"] + ["autoaugment_jsd"]
IN_PIPELINES = ("standard", "adversarial", "cutout", "patch_uniform", "augmix", *MIXING)
BY_NAME = pytest.mark.parametrize("name", ALL)


@pytest.fixture(scope="module", autouse=True)
def without_xla():
    """The operations have tests of their own."""
    with pytest.MonkeyPatch.context() as patch:
        leave_out_xla(patch)
        yield


@pytest.fixture(scope="module")
def batch():
    """Images with rows of 0 and of 255, each with a label of its own."""
    images = np.random.default_rng(0).integers(0, 256, (COUNT, HEIGHT, WIDTH, 3), np.uint8)
    images[:, 0], images[:, -1] = 0, 255
    return tf.constant(images), tf.range(COUNT, dtype=tf.int64)


def made(method, batch, epoch=STEP[0], step=STEP[1], run=eager, seed=SEED, places=None):
    """Views and targets of a batch that stands there in a run."""
    store = in_memory(*(part.numpy() for part in batch))
    make = pipeline.view_maker(store, method, CLASSES, seed, COUNT)
    rows = tf.range(COUNT)
    function = lambda epoch, step: tuple(make(epoch, step, rows, places))  # noqa: E731
    place = tf.constant(epoch, tf.int64), tf.constant(step, tf.int64)
    return tuple(value.numpy() for value in run(function, *place))


def cropped_by_hand(batch):
    plan = PaddedCrop().draw(seeds.fold(SEED, *STEP, seeds.CROP_AND_FLIP), COUNT)
    for image, offset, flip in zip(batch[0].numpy(), *map(np.asarray, plan), strict=True):
        padded = np.pad(image[:, ::-1] if flip else image, ((4, 4), (4, 4), (0, 0)))
        yield padded[offset[0] :, offset[1] :][:HEIGHT, :WIDTH]


@BY_NAME
def test_what_is_drawn_follows_from_seed_epoch_and_step_alone(name):
    method, shape = ALL[name], BatchShape(COUNT, (HEIGHT, WIDTH))

    def parts(seed=SEED, epoch=STEP[0], step=STEP[1]):
        streams = seeds.BatchSeeds(seed, epoch, step)
        return [part for part in tf.nest.flatten(method.draw(streams, shape)) if part is not None]

    first = parts()
    assert_same(tf.function(parts)(), first)
    for other in (parts(epoch=STEP[0] + 1), parts(step=STEP[1] + 1), parts(seed=SEED + 1)):
        assert not first or any(
            not np.array_equal(one, two) for one, two in zip(first, other, strict=True)
        )


@pytest.mark.parametrize("name", MADE)
def test_a_batch_follows_from_seed_epoch_and_step_alone(batch, name):
    method = ALL[name]
    first = made(method, batch)
    views, targets = first
    assert views.dtype == np.float32
    assert views.shape == (COUNT, method.views_per_image, HEIGHT, WIDTH, 3)
    assert 0 <= views.min() < views.max() <= 255
    if name not in MIXING:
        assert targets.dtype == np.int64
        np.testing.assert_array_equal(targets, batch[1])
    others = [
        made(method, batch, epoch=STEP[0] + 1),
        made(method, batch, step=STEP[1] + 1),
        made(method, batch, seed=SEED + 1),
    ]
    for views, _ in others:
        assert not np.array_equal(views, first[0])
    # Some rows, in any order and more than once: as many, so that nothing is compiled anew.
    rows = [4, 1, 1, 5, 0, 5]
    wanted = [part[rows] for part in first]
    assert_same(made(dataclasses.replace(method), batch, places=tf.constant(rows)), wanted)
    if name in IN_PIPELINES:
        assert_same(made(method, batch, run=tf_data), first)
    if name in MIXING:  # which draw and mix before rows are taken
        assert_same(made(method, batch, run=tf_data, places=tf.constant(rows)), wanted)


def test_standard_training_sees_the_crop_and_flip_and_nothing_else(batch):
    views, _ = made(STANDARD, batch)
    np.testing.assert_array_equal(views[:, 0], list(cropped_by_hand(batch)))


@pytest.mark.parametrize("name", ["augmix", "autoaugment_jsd"])
def test_the_clean_view_is_what_standard_training_sees(batch, name):
    views, _ = made(ALL[name], batch)
    plain, _ = made(STANDARD, batch)
    np.testing.assert_array_equal(views[:, :1], plain)


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("cutout", STANDARD),
        ("patch_uniform", STANDARD),
        ("trivialaugment", TrivialAugmentMethod(cutout_size=0)),
    ],
    ids=["cutout", "patch_uniform", "trivialaugment"],
)
def test_outside_of_its_square_a_image_is_that_of_the_method_without_it(batch, name, plain):
    """The same crop, and the same operations."""
    views, _ = made(ALL[name], batch)
    wanted, _ = made(plain, batch)
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
    both, _ = made(ALL["augmix"], batch)
    alone, _ = made(ALL["augmix_without_jsd"], batch)
    np.testing.assert_array_equal(alone[:, 0], both[:, 1])


def test_more_views_leave_the_first_ones_as_they_are(batch):
    few, _ = made(AugMixMethod(mix_ops="autoaugment", views=2), batch)
    many, _ = made(AugMixMethod(mix_ops="autoaugment", views=4), batch)
    np.testing.assert_array_equal(many[:, :2], few)
    for first, second in ((1, 2), (2, 3), (1, 3)):
        assert not np.array_equal(many[:, first], many[:, second])


@BY_NAME
def test_histograms_count_what_is_drawn(name):
    plan = ALL[name].draw(seeds.BatchSeeds(SEED, *STEP), BatchShape(COUNT, (HEIGHT, WIDTH)))
    histograms = ALL[name].histograms(plan)
    draws_operations = "augment" in name or ("mix" in name and name not in MIXING)
    assert ("draws/operation" in histograms) == draws_operations
    for histogram in histograms.values():
        assert len(histogram.edges) == len(histogram.counts) + 1
        assert histogram.counts.sum() > 0


def test_every_method_has_a_recipe():
    assert {type(method) for method in ALL.values()} == {
        row.method for row in recipes.METHODS.values()
    }


def test_mixup_mixes_the_images_of_standard_training_as_it_mixes_their_labels(batch):
    """Each image has a class of its own, so that targets name the partner and the share."""
    mixed = 0
    for step in range(4):
        views, targets = made(ALL["mixup"], batch, step=step)
        plain, _ = made(STANDARD, batch, step=step)
        wanted = np.einsum("nk,khwc->nhwc", targets.astype(float), plain[:, 0].astype(float))
        np.testing.assert_allclose(views[:, 0], wanted, atol=1e-3)
        mixed += (targets.max(axis=1) < 0.999).sum()
    assert mixed > COUNT
