"""AugMix with texture chains: against NumPy, its laws, and the ramp."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from augmix_tf import ops, recipes, seeds
from augmix_tf.augment import mixing_set
from augmix_tf.augment.augmix import AugMixMethod, AugMixPlan
from augmix_tf.augment.augmix_textures import AugMixTexturesMethod, TexturePlan, apply_textures
from augmix_tf.augment.ipmix import Patches, uniform_noise
from augmix_tf.augment.method import BatchShape
from tests.test_augmix import pillow_chains, pillow_views

COUNT, SIZE = 3, (10, 14)
BATCH = BatchShape(COUNT, SIZE)
AT = seeds.BatchSeeds(2, 5, 1)
SMALL = {"mixing_images": 4, "patch_sides": "4,8", "ramp_epochs": 0}
MIXING_IMAGE = np.random.default_rng(1).integers(0, 256, (*SIZE, 3), np.uint8)
MIXING_SET = mixing_set.of_images([MIXING_IMAGE])


@pytest.fixture(scope="module")
def images():
    drawn = np.random.default_rng(0).integers(0, 256, (COUNT, *SIZE, 3), np.uint8)
    drawn[:, 0], drawn[:, -1] = 0, 255
    return drawn


def numpy_chain(image, mixing_image, operates, patches):
    """One texture chain step by step, float64 [H, W, 3] in 0..1; its operation is always invert."""
    x = image / 255
    for step, operated in enumerate(operates):
        y = (255 - image if operated else mixing_image) / 255
        mixing, (top, left, height, width), (a, b), kept, noise = (part[step] for part in patches)
        masks = [uniform_noise(noise, (channels, *SIZE)).numpy() < kept for channels in (1, 3)]
        pixels, values = (np.moveaxis(mask, 0, -1) for mask in masks)
        mixed = [
            np.clip((a * (2 * x - 1) + b * (2 * y - 1) + 1) / 2, 0, 1),
            np.clip((2 * x) ** a * np.maximum(2 * y, 1e-37) ** b / 2, 0, 1),
            np.where(pixels, x, y),
            np.where(values, x, y),
        ][mixing]
        box = np.s_[top : top + height, left : left + width]
        x = x.copy()
        x[box] = mixed[box]
    return x


def test_texture_chains_mix_patch_by_patch(images):
    """The first chain alone: all ways to mix, both kinds of partners, depths of 1 and 3.

    tests/test_ipmix.py runs the same patches in all ways.
    """
    rng, shape = np.random.default_rng(2), (COUNT, 2, 3, 3)
    depth, operates = np.array([3, 1, 3]), rng.random(shape) < 0.5
    low = rng.integers(0, 6, (*shape, 2))
    patches = Patches(
        mixing=rng.permutation(np.arange(54) % 4).reshape(shape).astype(np.int32),
        box=np.concatenate([low, rng.integers(3, 9, (*shape, 2))], axis=-1).astype(np.int32),
        weights=np.stack([rng.uniform(0.5, 1.5, shape), rng.uniform(-0.6, 0.6, shape)], -1).astype(
            np.float32
        ),
        kept=rng.random(shape).astype(np.float32),
        noise=rng.integers(0, 2**31, (*shape, 2)).astype(np.int32),
    )
    plan = TexturePlan(
        chains=AugMixPlan(
            operation=tf.fill(shape, ops.OPERATIONS.index("solarize")),
            parameter=tf.zeros(shape, tf.float64),
            chain_depth=tf.tile(tf.constant(depth, tf.int32)[:, None, None], [1, 2, 3]),
            chain_weights=tf.constant([[[1.0, 0.0, 0.0]] * 2] * COUNT),
            mixed_share=tf.ones([COUNT, 2]),
        ),
        is_texture=tf.fill([COUNT, 2, 3], True),
        operates=tf.constant(operates),
        number=tf.zeros(shape, tf.int32),
        place=tf.zeros([*shape, 2], tf.float64),
        patches=Patches(*map(tf.constant, patches)),
    )
    got = apply_textures(tf.constant(images), MIXING_SET, plan)
    want = np.empty((COUNT, 2, *SIZE, 3))
    for n, view in np.ndindex(COUNT, 2):
        parts = [part[n, view, 0] for part in patches]
        operated = operates[n, view, 0, : depth[n]]
        want[n, view] = 255 * numpy_chain(images[n], MIXING_IMAGE, operated, parts)
    np.testing.assert_allclose(got, want, rtol=0, atol=255 * 2e-6)  # powers of another library


def test_without_textures_it_is_augmix(images):
    plain, ours = AugMixMethod(), AugMixTexturesMethod(texture_share=0.0, **SMALL)
    got = apply_textures(tf.constant(images), MIXING_SET, ours.draw(AT, BATCH))
    plan = plain.draw(AT, BATCH)
    for view in range(2):
        one = AugMixPlan(*(part[:, view] for part in plan))
        want = pillow_views(images, one, pillow_chains(images, one))
        # Through the scale 0 to 1.
        np.testing.assert_allclose(got[:, view], want, rtol=0, atol=255 * 1e-6)


def test_severity_and_share_of_textures_rise_in_equal_steps_from_epoch_to_epoch():
    method = AugMixTexturesMethod(**SMALL | {"ramp_epochs": 4})
    moves, shares = [], []
    for epoch in range(6):
        plan = method.draw(seeds.BatchSeeds(1, epoch, 0), BatchShape(3000, SIZE))
        shares.append(np.mean(plan.is_texture))
        is_shear = plan.chains.operation.numpy() == ops.OPERATIONS.index("shear_x")
        moves.append(np.abs(plan.chains.parameter.numpy()[is_shear]).max())
    strength = np.array([1 / 8, 3 / 8, 5 / 8, 7 / 8, 1, 1])
    np.testing.assert_allclose(shares, 0.5 * strength, atol=0.02)  # 4 standard deviations
    np.testing.assert_allclose(moves, 0.09 * strength, rtol=0.05)
    assert max(moves) < 0.09
    for epochs, ramp in ((100, 30), (10, 3), (1, 0)):
        config = recipes.recipe("cifar10", method="augmix_textures", given={"epochs": epochs})
        assert config.method.ramp_epochs == ramp


def test_partners_and_mixings_are_equally_frequent_and_masks_can_be_left_out():
    for masks, mixings in ((True, 4), (False, 2)):
        method = AugMixTexturesMethod(**SMALL | {"texture_masks": masks})
        plan = method.draw(AT, BatchShape(1000, SIZE))
        for part, values in ((plan.patches.mixing, mixings), (plan.number, 4)):
            frequencies = np.bincount(np.ravel(part), minlength=values)
            assert len(frequencies) == values
            assert stats.chisquare(frequencies).pvalue > 1e-6
        for part in (plan.operates, plan.is_texture):
            assert stats.binomtest(int(np.sum(part)), np.size(part)).pvalue > 1e-6
