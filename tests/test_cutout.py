"""Cutout: where the hole is, how large, what fills it, and how its centre is drawn."""

from __future__ import annotations

import re

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from augmix_tf import seeds
from augmix_tf.augment.cutout import CutoutPlan, apply_cutout, draw_cutout
from augmix_tf.errors import ArgumentError
from tests.runs import RUNS

HEIGHT, WIDTH = 9, 14
CORNERS = [[0, 0], [0, WIDTH - 1], [HEIGHT - 1, 0], [HEIGHT - 1, WIDTH - 1], [4, 6]]


def images(count: int = len(CORNERS)) -> np.ndarray:
    drawn = np.random.default_rng(0).integers(0, 256, (count, HEIGHT, WIDTH, 3))
    drawn[0], drawn[1] = 0, 255
    return drawn.astype(np.float32)


def with_holes(pictures: np.ndarray, centres, size: int, fill: float) -> np.ndarray:
    """Pixel by pixel, as the docstring says."""
    cut = pictures.copy()
    for n, row, column in np.ndindex(cut.shape[:3]):
        top, left = np.subtract(centres[n], size // 2)
        if top <= row <= top + size - 1 and left <= column <= left + size - 1:
            cut[n, row, column] = fill
    return cut


@pytest.mark.parametrize("size", [1, 2, 3, 4, 8, 9, 100])
@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_the_hole_is_the_square_that_was_planned(run, size):
    pictures, centres = images(), tf.constant(CORNERS)
    cut = run(lambda x, c: apply_cutout(x, CutoutPlan(c), size), tf.constant(pictures), centres)
    np.testing.assert_array_equal(cut, with_holes(pictures, CORNERS, size, 127.5))


def test_a_hole_is_as_large_as_its_side_and_smaller_at_the_border():
    plan = CutoutPlan(tf.constant([[4, 6], [0, 6], [0, 0], [HEIGHT - 1, WIDTH - 1]]))
    cut = apply_cutout(tf.fill([4, HEIGHT, WIDTH, 3], 200.0), plan, size=4)
    assert np.sum(cut.numpy() == 127.5, axis=(1, 2, 3)).tolist() == [3 * 16, 3 * 8, 3 * 4, 3 * 9]


def test_the_hole_is_zero_after_cifars_normalisation_unless_another_fill_is_wanted():
    plan = CutoutPlan(tf.constant(CORNERS))
    everything = 2 * max(HEIGHT, WIDTH)
    assert (apply_cutout(images(), plan, everything).numpy() / 127.5 - 1 == 0).all()
    cut = apply_cutout(images(), plan, 5, fill=17.25)
    np.testing.assert_array_equal(cut, with_holes(images(), CORNERS, 5, 17.25))


def test_centres_are_uniform_over_the_pixels():
    sides = (8, 12)  # with a common divisor, so that rows and columns of one stream would show
    plan = draw_cutout(seeds.fold(1, 0, 0, 1), 50_000, sides)
    assert plan.centre.dtype == tf.int32
    cells = np.ravel_multi_index(plan.centre.numpy().T, sides)
    assert stats.chisquare(np.bincount(cells, minlength=8 * 12)).pvalue > 1e-6
    following = np.histogram2d(cells[:-1], cells[1:], bins=8)[0]  # of two images, unrelated
    assert stats.chi2_contingency(following).pvalue > 1e-6


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_a_seed_gives_the_same_centres_in_every_way_it_is_run(run):
    seed = seeds.fold(3, 1, 4, 1)
    want = draw_cutout(seed, 50, (HEIGHT, WIDTH)).centre
    got = run(lambda s: draw_cutout(s, 50, (HEIGHT, WIDTH)).centre, seed)
    np.testing.assert_array_equal(got, want)
    other = draw_cutout(seeds.fold(3, 1, 5, 1), 50, (HEIGHT, WIDTH)).centre
    assert not np.array_equal(got, other)


def test_batches_of_any_length_keep_the_shape_of_a_picture():
    def cut(batch):
        plan = draw_cutout(seeds.fold(0, 0, 0, 1), tf.shape(batch)[0], (HEIGHT, WIDTH))
        return apply_cutout(batch, plan, 4)

    made = tf.data.Dataset.from_tensor_slices(images(7)).batch(3).map(cut)
    assert made.element_spec == tf.TensorSpec([None, HEIGHT, WIDTH, 3], tf.float32)
    assert [len(batch) for batch in made] == [3, 3, 1]


WRONG = {
    "bytes": (
        lambda p: apply_cutout(images().astype(np.uint8), p, 4),
        "received uint8 (5, 9, 14, 3)",
    ),
    "one picture": (lambda p: apply_cutout(images()[0], p, 4), "received float32 (9, 14, 3)"),
    "more images": (lambda p: apply_cutout(images(6), p, 4), "for 6 images; received a plan for 5"),
    "no square": (lambda p: apply_cutout(images(), p, 0), "at least 1 pixel; received 0"),
    "part of a pixel": (lambda p: apply_cutout(images(), p, 2.5), "at least 1 pixel; received 2.5"),
    "too bright": (lambda p: apply_cutout(images(), p, 4, 256.0), "in 0..255; received 256.0"),
    "no rows": (lambda _: draw_cutout(seeds.fold(0, 0, 0, 1), 2, (0, 8)), "received (0, 8)"),
    "three sides": (
        lambda _: draw_cutout(seeds.fold(0, 0, 0, 1), 2, (8, 8, 3)),
        "received (8, 8, 3)",
    ),
}


@pytest.mark.parametrize(("call", "message"), WRONG.values(), ids=WRONG)
def test_a_wrong_request_is_refused(call, message):
    with pytest.raises(ArgumentError, match=re.escape(message)):
        call(CutoutPlan(tf.constant(CORNERS)))
