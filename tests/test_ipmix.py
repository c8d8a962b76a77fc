"""IPMix against the authors' code, in every way it is run, how its plans are drawn, refusals."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from augmix_tf import ops, seeds
from augmix_tf.augment.ipmix import (
    MIRROR,
    MIXINGS,
    IPMixMethod,
    IPMixPlan,
    Patches,
    apply_ipmix,
    draw_ipmix,
    uniform_noise,
)
from augmix_tf.augment.method import BatchShape
from augmix_tf.errors import SettingError
from tests import golden
from tests.runs import RUNS
from tests.test_pixmix import numbers, one_view, recorded_mixing_set

ORIGINAL_MIXINGS = ("add", "multiply", "random_pixels", "random_elems")


@pytest.fixture(scope="module")
def reference():
    return golden.load("ipmix")


def recorded_plan(reference) -> IPMixPlan:
    """What the original code drew; the seed of a mask is its row of `masks`."""
    names, inverts = reference["op"], reference["op"] == "invert"
    known = numbers(np.where(inverts, "solarize", names), (*ops.OPERATIONS, "mirror"))
    patches = Patches(
        mixing=one_view(numbers(names, ORIGINAL_MIXINGS), tf.int32),
        box=one_view(reference["box"], tf.int32),
        weights=one_view(np.stack([reference["a"], reference["b"]], axis=-1), tf.float32),
        kept=one_view(np.full(names.shape, 0.5), tf.float32),
        noise=one_view(np.repeat(np.maximum(reference["mask"], 0)[..., None], 2, -1), tf.int32),
    )
    return IPMixPlan(
        number=tf.constant(reference["mixing_index"], tf.int32),
        place=tf.constant(recorded_mixing_set(reference)[1]),
        is_mixed=one_view(reference["chain_kind"] == "P", tf.bool),
        steps=one_view(reference["steps"], tf.int32),
        operation=one_view(known, tf.int32),
        parameter=one_view(np.where(inverts, 0, np.nan_to_num(reference["param"])), tf.float64),
        patches=patches,
        chain_weights=one_view(reference["w"], tf.float32),
        mixed_share=one_view(reference["m"], tf.float32),
    )


@pytest.fixture(scope="module")
def recorded_noise(reference):
    """Numbers that make the masks of the original code; one function, which is compiled once."""
    masks = np.unpackbits(reference["masks"], axis=1).reshape(-1, 32, 32, 3)
    table = tf.constant(1 - masks.transpose(0, 3, 1, 2).astype(np.float32))
    return lambda seed, shape: tf.gather(table, seed[0])[: shape[0]]


def views_of(reference, plan, noise, run=RUNS["eager"], clip=False):
    images = tf.constant(reference["inputs"][reference["index"]])
    drawn = recorded_mixing_set(reference)[0]
    return run(lambda *args: apply_ipmix(*args, clip, noise), images, drawn, plan)[:, 0].numpy()


@pytest.mark.parametrize("run", ["eager", "tf_data", "xla"])
def test_equals_the_original_code(reference, recorded_noise, run):
    got = views_of(reference, recorded_plan(reference), recorded_noise, RUNS[run])
    np.testing.assert_allclose((got / 255 - 0.5) / 0.5, reference["outputs"], rtol=0, atol=1e-6)


def test_chains_have_the_bytes_of_the_original_code_and_clipping_changes_what_wraps(
    reference, recorded_noise
):
    plan = recorded_plan(reference)
    mixes = np.isin(reference["op"], ORIGINAL_MIXINGS[:2])
    wraps = (np.where(mixes, reference["out_of_range"], 0) > 0).any(axis=2)
    assert wraps.sum() > 5
    for chain, weights in enumerate(np.eye(3, dtype=np.float32)):
        only = plan._replace(
            chain_weights=tf.constant(np.tile(weights, (len(plan.steps), 1, 1))),
            mixed_share=tf.ones_like(plan.mixed_share),
        )
        got = views_of(reference, only, recorded_noise)
        np.testing.assert_array_equal(got, reference["chain_outputs"][:, chain])
        clipped = views_of(reference, only, recorded_noise, clip=True)
        same = (clipped == got).all(axis=(1, 2, 3))
        np.testing.assert_array_equal(same, ~wraps[:, chain])


def test_draws_have_the_frequencies_of_the_original_code():
    count, size = 1500, (33, 40)
    seed = seeds.fold(1, 0, 0, 1)
    plan = draw_ipmix(seed, [seed + 1, seed + 2], BatchShape(count, size), 3.0, (4, 8, 32), 7)
    for part, values in ((plan.number, 7), (plan.steps, 4), (plan.patches.mixing, 4)):
        frequencies = np.bincount(np.ravel(part), minlength=values)
        assert len(frequencies) == values
        assert stats.chisquare(frequencies).pvalue > 1e-6
    assert stats.binomtest(int(np.sum(plan.is_mixed)), np.size(plan.is_mixed)).pvalue > 1e-6
    operation, parameter = np.ravel(plan.operation), np.ravel(plan.parameter)
    inverts = (operation == ops.OPERATIONS.index("solarize")) & (parameter == 0)
    frequencies = np.bincount(np.where(inverts, MIRROR + 1, operation))
    assert frequencies[0] == 0  # autocontrast
    assert stats.chisquare(frequencies[frequencies > 0]).pvalue > 1e-6
    assert (frequencies > 0).sum() == 10
    assert MIXINGS[2:] == ("pixels", "values")  # with these probabilities
    for part in (plan.patches.kept, plan.mixed_share):
        assert stats.kstest(np.ravel(part), stats.uniform.cdf).pvalue > 1e-6
    first = np.ravel(plan.chain_weights[..., 0])
    assert stats.kstest(first, stats.beta(1, 2).cdf).pvalue > 1e-6
    np.testing.assert_allclose(np.sum(plan.chain_weights, axis=-1), 1, rtol=1e-6)


def test_patches_lie_in_the_image_and_half_are_squares():
    size, seed = (33, 40), seeds.fold(1, 0, 0, 1)
    plan = draw_ipmix(seed, [seed], BatchShape(2000, size), 3.0, (4, 32), 7)
    top, left, height, width = np.reshape(plan.patches.box, (-1, 4)).T
    assert (top.min(), left.min()) == (0, 0)
    assert ((top + height).max(), (left + width).max()) == size
    assert min(height.min(), width.min()) == 2
    # A half, those that are drawn as squares by chance, and the same for each side.
    chance = 0.5 * np.mean([1 / 3**2, 1 / 31**2])
    for side in (4, 32):
        share = np.mean((height == side) & (width == side))
        assert abs(share - 0.25) < chance + 0.02
    np.testing.assert_array_equal(np.unique(height), np.arange(2, 33))


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_masks_are_the_same_in_every_way_they_are_drawn(run):
    seed = tf.constant([5, -9])
    got = run(lambda seed: uniform_noise(seed, (3, 40, 50)), seed)
    np.testing.assert_array_equal(got, uniform_noise(seed, (3, 40, 50)))
    assert stats.kstest(np.ravel(got), stats.uniform.cdf).pvalue > 1e-6


def test_patches_that_do_not_fit_the_images_are_refused():
    method = IPMixMethod(mixing_images=1)
    expected = "patch_sides must fit into the images of 28 x 30 pixels; received 32"
    with pytest.raises(SettingError, match=expected):
        method.prepare((28, 30))
    with pytest.raises(SettingError, match="patch_sides must be whole numbers of 2 or more"):
        IPMixMethod(patch_sides="8,x")
