"""Cutout and patch uniform: which pixels change, by how much, and how the squares are drawn."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from augmix_tf import seeds
from augmix_tf.augment.erasing import (
    CutoutPlan,
    PatchPlan,
    PatchUniformMethod,
    apply_cutout,
    draw_cutout,
)
from augmix_tf.augment.method import BatchShape
from tests.arrays import assert_same
from tests.runs import RUNS

HEIGHT, WIDTH = SIZE = (9, 14)
CENTRES = [[0, 0], [HEIGHT - 1, WIDTH - 1], [0, 7], [4, 6]]


def images(count: int = len(CENTRES)) -> np.ndarray:
    drawn = np.random.default_rng(0).integers(0, 256, (count, *SIZE, 3))
    drawn[0], drawn[1] = 0, 255
    return drawn.astype(np.float32)


def patch_plan() -> PatchPlan:
    """Patches in two corners, at the rim and in the middle, with eighths as noise."""
    noise = np.random.default_rng(1).integers(-8, 9, (4, *SIZE, 3)) / 8
    return PatchPlan(
        centre=tf.constant(CENTRES),
        scale=tf.constant([1.0, 0.5, 0.25, 0.125]),
        noise=tf.constant(noise, tf.float32),
    )


def apply_patch(batch, plan: PatchPlan, size: int) -> tf.Tensor:
    return PatchUniformMethod(patch_size=size).apply(batch, tf.zeros([4]), plan).views[:, 0]


def draw_patch(step, count: int, max_scale: float) -> PatchPlan:
    method = PatchUniformMethod(patch_scale=max_scale)
    return method.draw(seeds.BatchSeeds(5, 0, step), BatchShape(count, SIZE))


def changed(batch: np.ndarray, size: int, value) -> np.ndarray:
    """`value(n, row, column)` in the square of each image, pixel by pixel as documented."""
    result = batch.copy()
    for n, row, column in np.ndindex(result.shape[:3]):
        top, left = np.subtract(CENTRES[n], size // 2)
        if top <= row < top + size and left <= column < left + size:
            result[n, row, column] = value(n, row, column)
    return result


@pytest.mark.parametrize("size", [1, 4, 5, 50])
@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_cutout_fills_the_square_that_was_planned(run, size):
    got = run(lambda x, c: apply_cutout(x, CutoutPlan(c), size), images(), tf.constant(CENTRES))
    np.testing.assert_array_equal(got, changed(images(), size, lambda *_: 127.5))


def test_a_hole_is_smaller_at_the_border_and_zero_after_cifars_normalisation():
    plan = CutoutPlan(tf.constant([[4, 6], [0, 6], [0, 0], [HEIGHT - 1, WIDTH - 1]]))
    cut = apply_cutout(tf.fill([4, *SIZE, 3], 200.0), plan, size=4)
    assert np.sum(cut.numpy() / 127.5 - 1 == 0, axis=(1, 2, 3)).tolist() == [48, 24, 12, 27]
    cut = apply_cutout(images(), CutoutPlan(tf.constant(CENTRES)), 5, fill=17.25)
    np.testing.assert_array_equal(cut, changed(images(), 5, lambda *_: 17.25))


@pytest.mark.parametrize("size", [1, 4, 5, 50])
@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_noise_is_added_inside_the_patch_only(run, size):
    plan, batch = patch_plan(), images()

    def noisy(n, row, column):
        added = 255 * float(plan.scale[n]) * plan.noise[n, row, column].numpy()
        return np.clip(batch[n, row, column] + added, 0, 255)

    got = run(lambda *args: apply_patch(args[0], PatchPlan(*args[1:]), size), batch, *plan)
    np.testing.assert_array_equal(got, changed(batch, size, noisy))  # all sums are exact


def test_centres_are_uniform_over_the_pixels():
    sides = (8, 12)  # with a common divisor, so that rows and columns of one stream would show
    plan = draw_cutout(seeds.fold(1, 0, 0, 1), 50_000, sides)
    assert plan.centre.dtype == tf.int32
    cells = np.ravel_multi_index(plan.centre.numpy().T, sides)
    assert stats.chisquare(np.bincount(cells, minlength=8 * 12)).pvalue > 1e-6
    following = np.histogram2d(cells[:-1], cells[1:], bins=8)[0]  # of two images, unrelated
    assert stats.chi2_contingency(following).pvalue > 1e-6


@pytest.mark.parametrize("max_scale", [0.1, 1.0])
def test_scales_noise_and_centres_are_uniform_and_independent(max_scale):
    plan = draw_patch(2, 3_000, max_scale)
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


# XLA makes other floats of the same seed: patches are drawn outside of what it compiles.
@pytest.mark.parametrize("name", ["eager", "graph", "tf_data"])
def test_a_seed_gives_the_same_plans_in_every_way_it_is_run(name):
    def draw(step):
        return (*draw_patch(step, 6, 0.3), *draw_cutout(seeds.fold(5, 0, step, 1), 6, SIZE))

    assert_same(RUNS[name](draw, tf.constant(2)), draw(2))
    assert not np.array_equal(draw(3)[3], draw(2)[3])
