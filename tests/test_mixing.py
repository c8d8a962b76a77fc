"""Mixup and CutMix: pixels and targets by hand, the laws of share, box and partner, refusals."""

import collections
import itertools

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from augmix_tf import seeds
from augmix_tf.augment.method import BatchShape
from augmix_tf.augment.mixing import CutmixMethod, CutmixPlan, MixupMethod, MixupPlan
from tests.arrays import assert_same
from tests.runs import RUNS, eager, graph, tf_data, xla

HEIGHT, WIDTH, CLASSES = 9, 14, 4
SIZE = (HEIGHT, WIDTH)
PARTNER = [2, 0, 1]
BOXES = [  # within the image, one pixel, all, none, no columns, over the border
    (2, 3, 7, 13), (8, 0, 9, 1), (0, 0, HEIGHT, WIDTH), (0, 0, 0, 0), (1, 6, 8, 6), (-4, 9, 5, 99),
]  # fmt: skip


def images(count: int = 3) -> np.ndarray:
    drawn = np.random.default_rng(0).integers(0, 256, (count, HEIGHT, WIDTH, 3))
    drawn[0], drawn[1] = 0, 255
    return drawn.astype(np.float32)


def targets(count: int = 3) -> np.ndarray:
    return np.eye(CLASSES, dtype=np.float32)[np.arange(count) % CLASSES]


def drawn(method, count: int, steps: int) -> list:
    """The plans of many batches of `count` images, as arrays."""
    plans = tf.data.Dataset.range(steps).map(
        lambda step: method.draw(seeds.BatchSeeds(7, 0, step), BatchShape(count, SIZE))
    )
    return [np.stack(parts) for parts in zip(*plans.as_numpy_iterator(), strict=True)]


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_mixup_mixes_pixels_and_targets_with_the_partners(run):
    share = 0.25
    plan = MixupPlan(tf.constant(share), tf.constant(PARTNER))
    mixed, labels = run(
        lambda x, t, *p: MixupMethod().apply(x, t, MixupPlan(*p)), images(), targets(), *plan
    )
    want = [share * images()[n] + (1 - share) * images()[PARTNER[n]] for n in range(3)]
    np.testing.assert_array_equal(mixed[:, 0], want)  # a quarter of a whole number is exact
    want = [[share, 0, 1 - share, 0], [1 - share, share, 0, 0], [0, 1 - share, share, 0]]
    np.testing.assert_array_equal(labels, want)


@pytest.mark.parametrize("alpha", [0.01, 5.0])
def test_the_share_is_beta(alpha):
    share, _ = drawn(MixupMethod(mixup_alpha=alpha), 2, 2_000)
    assert share.dtype == np.float32
    grid = np.concatenate([np.geomspace(1e-30, 1e-3, 30), np.linspace(0.001, 0.999, 999)])
    seen = np.searchsorted(np.sort(share), grid, side="right") / len(share)
    # Massart's bound: passed by a right program but once in a million.
    bound = np.sqrt(np.log(2e6) / (2 * len(share)))
    np.testing.assert_allclose(seen, stats.beta(alpha, alpha).cdf(grid), rtol=0, atol=bound)


@pytest.mark.parametrize("method", [MixupMethod(), CutmixMethod(cutmix_probability=1.0)])
def test_partners_are_permutations_all_as_likely(method):
    first, partner = drawn(method, 4, 2_400)
    assert partner.dtype == np.int32
    counts = collections.Counter(map(tuple, partner.tolist()))
    assert set(counts) == set(itertools.permutations(range(4)))
    assert stats.chisquare(list(counts.values())).pvalue > 1e-6
    larger = first.reshape(len(first), -1)[:, 0]  # nor do they depend on the share or the box
    table = np.histogram2d(larger > np.median(larger), partner[:, 0], bins=[2, 4])[0]
    assert stats.chi2_contingency(table).pvalue > 1e-6


@pytest.mark.parametrize(
    ("run", "box"),
    [(eager, box) for box in BOXES] + [(run, BOXES[-1]) for run in (graph, tf_data, xla)],
)
def test_cutmix_takes_the_box_from_the_partner_and_its_share_of_the_targets(run, box):
    plan = CutmixPlan(tf.constant(box), tf.constant(PARTNER))
    mixed, labels = run(
        lambda x, t, *p: CutmixMethod().apply(x, t, CutmixPlan(*p)), images(), targets(), *plan
    )
    top, left, bottom, right = np.clip(box, 0, [HEIGHT, WIDTH, HEIGHT, WIDTH])
    want = images()
    want[:, top:bottom, left:right] = images()[PARTNER][:, top:bottom, left:right]
    np.testing.assert_array_equal(mixed[:, 0], want)
    other = (bottom - top) * (right - left) / (HEIGHT * WIDTH)
    want = (1 - other) * targets() + other * targets()[PARTNER]
    np.testing.assert_allclose(labels, want, rtol=0, atol=2e-7)


def original_boxes(rng, count: int, alpha: float) -> np.ndarray:
    """Boxes as CutMix's authors lay them, one by one."""
    boxes = []
    for _ in range(count):
        ratio = np.sqrt(1 - rng.beta(alpha, alpha))
        ends = []
        for length in SIZE:
            centre, cut = rng.integers(length), int(length * ratio)
            ends.append(np.clip([centre - cut // 2, centre + cut // 2], 0, length))
        boxes.append(np.transpose(ends).ravel())
    return np.array(boxes)


@pytest.mark.parametrize("alpha", [0.3, 1.0])
def test_boxes_are_drawn_as_by_the_authors(alpha):
    got, _ = drawn(CutmixMethod(cutmix_alpha=alpha, cutmix_probability=1.0), 1, 2_400)
    want = original_boxes(np.random.default_rng(3), 2_400, alpha)
    assert got.dtype == np.int32
    for function in (
        lambda b: (b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1]),
        lambda b: b[:, 2] - b[:, 0],
        lambda b: b[:, 3] - b[:, 1],
        lambda b: b[:, 0] + b[:, 2],
        lambda b: b[:, 1] + b[:, 3],
        lambda b: b @ [2, 3, 5, 7],
    ):
        assert stats.ks_2samp(function(got), function(want)).pvalue > 1e-6
    assert got.min() == 0
    assert (got.max(axis=0)[2:] == SIZE).all()


def test_batches_are_mixed_with_the_probability_and_left_alone_otherwise():
    always, _ = drawn(CutmixMethod(cutmix_probability=1.0), 1, 2_000)
    half, _ = drawn(CutmixMethod(cutmix_probability=0.5), 1, 2_000)
    left_alone = (half == 0).all(axis=1)
    np.testing.assert_array_equal(half[~left_alone], always[~left_alone])
    mixed = always.any(axis=1)
    trials = int(mixed.sum())
    assert trials > 1_500
    assert stats.binomtest(int((~left_alone & mixed).sum()), trials).pvalue > 1e-6


@pytest.mark.parametrize("run", [graph, tf_data])
def test_a_seed_gives_the_same_plans_in_every_way_it_is_run(run):
    """Outside of what XLA compiles, because it has no gamma distribution."""
    for method in (MixupMethod(mixup_alpha=0.4), CutmixMethod(cutmix_probability=0.9)):

        def draw(step, count, method=method):
            return method.draw(seeds.BatchSeeds(5, 0, step), BatchShape(count, SIZE))

        assert_same(run(draw, tf.constant(2), tf.constant(20)), draw(2, 20))
