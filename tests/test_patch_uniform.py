"""Patch uniform: noise in a square and nowhere else, and how it is drawn."""

from __future__ import annotations

import re

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from augmix_tf import seeds
from augmix_tf.augment.patch_uniform import PatchPlan, apply_patch, draw_patch
from augmix_tf.errors import ArgumentError
from tests.runs import RUNS

HEIGHT, WIDTH = 9, 14
SIZE = (HEIGHT, WIDTH)
SEED = seeds.fold(5, 0, 2, 1)


def images(count: int = 4) -> np.ndarray:
    drawn = np.random.default_rng(0).integers(0, 256, (count, HEIGHT, WIDTH, 3))
    drawn[0], drawn[1] = 0, 255
    return drawn.astype(np.float32)


def by_hand() -> PatchPlan:
    """Patches in two corners, at the rim and in the middle, with eighths as noise."""
    noise = np.random.default_rng(1).integers(-8, 9, (4, HEIGHT, WIDTH, 3)) / 8
    return PatchPlan(
        centre=tf.constant([[0, 0], [HEIGHT - 1, WIDTH - 1], [0, 7], [4, 6]]),
        scale=tf.constant([1.0, 0.5, 0.25, 0.125]),
        noise=tf.constant(noise, tf.float32),
    )


def noisy(pictures: np.ndarray, plan: PatchPlan, size: int) -> np.ndarray:
    """Pixel by pixel, as the docstring says."""
    made = pictures.copy()
    for n, row, column in np.ndindex(made.shape[:3]):
        top, left = plan.centre[n].numpy() - size // 2
        if top <= row < top + size and left <= column < left + size:
            added = 255 * float(plan.scale[n]) * plan.noise[n, row, column].numpy()
            made[n, row, column] = np.clip(made[n, row, column] + added, 0, 255)
    return made


@pytest.mark.parametrize("size", [1, 4, 5, 50])
@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_noise_is_added_inside_the_patch_only(run, size):
    plan = by_hand()
    got = run(lambda *args: apply_patch(args[0], PatchPlan(*args[1:]), size), images(), *plan)
    np.testing.assert_array_equal(got, noisy(images(), plan, size))  # all sums are exact


def test_the_largest_noise_is_the_scale_of_the_whole_range():
    plan = by_hand()._replace(noise=tf.ones([4, *SIZE, 3]))
    got = apply_patch(tf.fill([4, *SIZE, 3], 50.0), plan, 50)
    assert got[:, 0, 0, 0].numpy().tolist() == [255.0, 177.5, 113.75, 81.875]
    plan = plan._replace(noise=-plan.noise)
    got = apply_patch(tf.fill([4, *SIZE, 3], 50.0), plan, 50)
    assert got[:, 0, 0, 0].numpy().tolist() == [0.0, 0.0, 0.0, 18.125]


@pytest.mark.parametrize("max_scale", [0.1, 1.0])
def test_scales_noise_and_centres_are_uniform_and_independent(max_scale):
    plan = draw_patch(SEED, 3_000, SIZE, max_scale)
    assert [part.dtype for part in plan] == [tf.int32, tf.float32, tf.float32]
    scale, noise = plan.scale.numpy(), plan.noise.numpy()
    assert stats.kstest(scale / max_scale, stats.uniform.cdf).pvalue > 1e-6
    for part in (noise[:, 0, 0, 0], noise[:, -1, -1, 2], noise[0].ravel(), noise[-1].ravel()):
        assert stats.kstest(part, stats.uniform(-1, 2).cdf).pvalue > 1e-6
    counts = np.histogram2d(*plan.centre.numpy().T, bins=[HEIGHT, WIDTH])[0]
    assert stats.chisquare(counts.ravel()).pvalue > 1e-6
    columns = (scale, noise[:, 0, 0, 0], noise[:, 0, 0, 1], *plan.centre.numpy().T)
    correlation = np.corrcoef(columns) - np.eye(len(columns))
    assert np.abs(correlation).max() < 0.1  # 5 standard deviations of 3,000 unrelated draws


# XLA makes other floats of the same seed: plans are drawn outside of what it compiles.
@pytest.mark.parametrize("name", ["eager", "graph", "tf_data"])
def test_a_seed_gives_the_same_plan_in_every_way_it_is_run(name):
    want = draw_patch(SEED, 6, SIZE, 0.3)
    got = RUNS[name](lambda seed: draw_patch(seed, 6, SIZE, 0.3), SEED)
    for part, other in zip(got, want, strict=True):
        np.testing.assert_array_equal(part, other)


def test_batches_of_any_length_keep_the_shape_of_a_picture():
    def add(batch):
        return apply_patch(batch, draw_patch(SEED, tf.shape(batch)[0], SIZE, 0.5), 4)

    made = tf.data.Dataset.from_tensor_slices(images(7)).batch(3).map(add)
    assert made.element_spec == tf.TensorSpec([None, HEIGHT, WIDTH, 3], tf.float32)
    assert [len(batch) for batch in made] == [3, 3, 1]


WRONG = {
    "bytes": (lambda: apply_patch(images().astype(np.uint8), by_hand(), 4), "received uint8"),
    "more images": (
        lambda: apply_patch(images(5), by_hand(), 4),
        "Expected noise (5, 9, 14, 3); received",
    ),
    "turned images": (
        lambda: apply_patch(images().transpose(0, 2, 1, 3), by_hand(), 4),
        "Expected noise (4, 14, 9, 3); received (4, 9, 14, 3)",
    ),
    "no patch": (lambda: apply_patch(images(), by_hand(), 0), "at least 1 pixel; received 0"),
    "no noise": (lambda: draw_patch(SEED, 2, SIZE, 0.0), "above 0 and up to 1; received 0.0"),
    "noise in bytes": (lambda: draw_patch(SEED, 2, SIZE, 25), "above 0 and up to 1; received 25"),
    "no rows": (lambda: draw_patch(SEED, 2, (0, 8), 0.5), "received (0, 8)"),
}


@pytest.mark.parametrize(("call", "message"), WRONG.values(), ids=WRONG)
def test_a_wrong_request_is_refused(call, message):
    with pytest.raises(ArgumentError, match=re.escape(message)):
        call()
