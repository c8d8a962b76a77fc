"""The chance in AugMix: its laws, and that seed, epoch, step and view alone decide it.

Counts are held against the binomial law, distribution functions against the bound of Dvoretzky,
Kiefer, Wolfowitz and Massart, means against Hoeffding's; each is so wide that a right program fails
one comparison in 2 * 10^12. There are fewer than 2,000 comparisons (cells of a table counted one by
one): all together raise less than one false alarm in 10^9 choices of `SEED`.
"""

import functools
import hashlib
import itertools

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from augmix_tf import seeds
from augmix_tf.augment import AugMixPlan, AugMixSettings, augmix_views, draw_plan
from augmix_tf.ops import OPERATIONS, PAPER_OPERATIONS
from tests.arrays import assert_same
from tests.processes import python
from tests.runs import RUNS
from tests.test_ops import sample_images

FALSE_ALARM = 5e-13
PAPER = AugMixSettings()
SEED = 2020
BATCH, STEPS = 5_000, 10
SIGNED = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")


@functools.cache
def drawn(
    settings: AugMixSettings = PAPER,
    size: tuple[int, int] = (24, 32),
    view: int = 1,
    epoch: int = 0,
    run_seed: int = SEED,
) -> AugMixPlan:
    """The plans of 50,000 images, drawn by a pipeline batch after batch, as arrays."""
    steps = tf.data.Dataset.range(STEPS).map(
        lambda step: draw_plan(seeds.fold(run_seed, epoch, step, view), BATCH, size, settings),
        num_parallel_calls=2,
    )
    return AugMixPlan(*(np.concatenate(parts) for parts in zip(*steps, strict=True)))


def assert_counts(counts, trials: int, probability) -> None:
    """That counts come from binomial laws with these probabilities."""
    counts, probability = np.broadcast_arrays(counts, probability)
    low = stats.binom.cdf(counts, trials, probability)
    high = stats.binom.sf(counts - 1, trials, probability)
    good = np.minimum(low, high) > FALSE_ALARM / 2
    assert good.all(), f"{counts[~good]} of {trials}, expected {probability[~good] * trials}"


def assert_uniform_table(kinds: int, *columns: np.ndarray) -> None:
    """That all combinations of several columns of integers 0 to kinds - 1 are equally likely."""
    cells = np.ravel_multi_index([column.ravel() for column in columns], (kinds,) * len(columns))
    counts = np.bincount(cells, minlength=kinds ** len(columns))
    assert_counts(counts, len(cells), 1 / len(counts))


def assert_law(sample: np.ndarray, law) -> None:
    """That a sample has the distribution function of `law`, looked at where both are exact."""
    grid = np.concatenate([np.geomspace(1e-30, 1e-4), np.linspace(0.001, 0.999, 999)])
    seen = np.searchsorted(np.sort(sample), grid, side="right") / len(sample)
    bound = np.sqrt(np.log(2 / FALSE_ALARM) / (2 * len(sample)))
    np.testing.assert_allclose(seen, law.cdf(grid), rtol=0, atol=bound)


def of(plan: AugMixPlan, name: str) -> np.ndarray:
    """The parameters of all draws of one operation."""
    return plan.parameter[plan.operation == OPERATIONS.index(name)]


@pytest.mark.parametrize("all_ops", [False, True])
def test_operations_are_equally_likely_and_independent_within_and_between_chains(all_ops):
    operation = drawn(AugMixSettings(all_ops=all_ops)).operation
    kinds = len(OPERATIONS) if all_ops else len(PAPER_OPERATIONS)
    for chain, call in np.ndindex(3, 3):
        assert_uniform_table(kinds, operation[:, chain, call])
    assert_uniform_table(kinds, operation[:, :, 0], operation[:, :, 1])
    assert_uniform_table(kinds, operation[:, 0, 0], operation[:, 1, 0])


def test_depths_are_drawn_for_each_chain_by_itself():
    plan = drawn()
    assert_uniform_table(3, *(plan.chain_depth[:, chain] - 1 for chain in range(3)))
    for kind in range(len(PAPER_OPERATIONS)):  # nor does it depend on what is done
        chosen = plan.chain_depth[plan.operation[:, :, 0] == kind]
        assert_counts(np.bincount(chosen)[1:], len(chosen), 1 / 3)


def test_signs_and_levels_are_drawn_for_each_call():
    plan = drawn()
    for name in SIGNED:
        values = of(plan, name)
        values = values[values != 0]
        assert_counts(np.sum(values < 0), len(values), 1 / 2)
    shears = np.isin(plan.operation, [OPERATIONS.index(n) for n in ("shear_x", "shear_y")])
    negative, above = plan.parameter < 0, np.abs(plan.parameter) > 0.03 * (0.1 + 3) / 2
    for first, second in itertools.combinations([(0, 0), (0, 1), (1, 0)], 2):
        both = shears[:, *first] & shears[:, *second]
        for value in (negative[both], above[both]):
            assert_uniform_table(2, value[:, *first], value[:, *second])
    levels = np.abs(plan.parameter[shears])
    assert len(np.unique(levels)) == len(levels)


@pytest.mark.parametrize("severity", [1, 3, 10])
def test_levels_are_uniform_whatever_the_place_sign_and_operation(severity):
    plan = drawn(AugMixSettings(severity=severity))
    law = stats.uniform(0.1 / severity, 1 - 0.1 / severity)  # of level / severity
    part = np.abs(plan.parameter) / 0.03 / severity
    for name in ("shear_x", "shear_y"):
        chosen = plan.operation == OPERATIONS.index(name)
        for group in (chosen, chosen & (plan.parameter < 0)):
            assert_law(part[group], law)
        for chain, call in np.ndindex(3, 3):
            assert_law(part[:, chain, call][chosen[:, chain, call]], law)
    enhancers = drawn(AugMixSettings(severity=severity, all_ops=True))
    for name in OPERATIONS[9:]:
        assert_law((of(enhancers, name) - 0.1) / 0.18 / severity, law)


# The side of 32 stands for S of CIFAR and 224 for S of ImageNet; the other side shows the axis.
@pytest.mark.parametrize(("severity", "size"), [(3, (24, 32)), (1, (224, 192)), (10, (50, 20))])
def test_whole_parameters_come_as_often_as_their_levels(severity, size):
    plan = drawn(AugMixSettings(severity=severity), size)
    maxima = {
        "posterize": 4,
        "rotate": 30,
        "solarize": 256,
        "translate_x": size[1] / 3,
        "translate_y": size[0] / 3,
    }
    start = {"posterize": 4, "solarize": 256}
    for name, maximum in maxima.items():
        values = of(plan, name)
        amounts = start[name] - values if name in start else np.abs(values)
        assert (amounts == np.round(amounts)).all()
        assert amounts.min() >= 0
        counts = np.bincount(amounts.astype(int), minlength=4)
        edges = np.arange(len(counts) + 1) * 10 / maximum  # levels where the amount steps up
        inside = np.diff(edges.clip(0.1, severity)) / (severity - 0.1)
        assert abs(inside.sum() - 1) < 1e-9  # no value beyond those that can be
        assert_counts(counts, len(values), inside)
    for name in ("autocontrast", "equalize"):
        assert (of(plan, name) == 0).all()


@pytest.mark.parametrize("alpha", [1e-3, 0.3, 1.0, 1e4])
def test_weights_are_dirichlet_and_the_share_is_beta(alpha):
    plan = drawn(AugMixSettings(alpha=alpha))
    weights, share = plan.chain_weights.astype(np.float64), plan.mixed_share
    assert np.isfinite(weights).all()
    assert np.isfinite(share).all()
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=0, atol=3e-7)
    assert_law(share, stats.beta(alpha, alpha))
    for chain in range(3):
        assert_law(weights[:, chain], stats.beta(alpha, 2 * alpha))
    # Independent of each other: the share, a weight, and how the rest divides between two.
    two = weights[:, 0] + weights[:, 1]
    sure = two > 1e-3  # else float32 could not tell
    divided = weights[sure, 0] / two[sure]
    for half in (share[sure] < 0.5, two[sure] <= np.median(two[sure])):
        assert half.any()
        assert_law(divided[half], stats.beta(alpha, alpha))
    for half in (share < 0.5, share >= 0.5):
        assert_law(weights[half, 0], stats.beta(alpha, 2 * alpha))
    # A mean of n values in 0..1 obeys Hoeffding's bound.
    bound = np.sqrt(np.log(2 / FALSE_ALARM) / (2 * len(share)))
    products = np.mean(weights[:, 0] * weights[:, 1])
    assert abs(products - alpha / (9 * alpha + 3)) < bound


OTHERS = {
    "next image": lambda plan: AugMixPlan(*(np.roll(part, 1, axis=0) for part in plan)),
    "next batch": lambda plan: AugMixPlan(*(np.roll(part, BATCH, axis=0) for part in plan)),
    "other view": lambda _: drawn(view=2),
    "next epoch": lambda _: drawn(epoch=1),
    "next seed": lambda _: drawn(run_seed=SEED + 1),
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_images_batches_views_epochs_and_seeds_are_independent(other):
    one, two = drawn(), other(drawn())
    agree = np.sum(one.operation == two.operation)
    assert_counts(agree, one.operation.size, 1 / 9)
    assert_uniform_table(3, one.chain_depth - 1, two.chain_depth - 1)
    assert_uniform_table(2, one.mixed_share < 0.5, two.mixed_share < 0.5)
    middle = 1 - np.sqrt(0.5)  # median of Beta(1, 2)
    assert_uniform_table(2, one.chain_weights[:, 0] < middle, two.chain_weights[:, 0] < middle)
    shears = [OPERATIONS.index(name) for name in ("shear_x", "shear_y")]
    both = np.isin(one.operation, shears) & np.isin(two.operation, shears)
    assert_uniform_table(2, one.parameter[both] < 0, two.parameter[both] < 0)
    level = 0.03 * (0.1 + 3) / 2
    strong = [np.abs(plan.parameter[both]) > level for plan in (one, two)]
    assert_uniform_table(2, *strong)


def digest(*arrays) -> str:
    return hashlib.sha256(b"".join(np.asarray(array).tobytes() for array in arrays)).hexdigest()


# XLA has no gamma distribution: plans are drawn outside of what it compiles.
@pytest.mark.parametrize("name", ["eager", "graph", "tf_data"])
def test_draws_the_same_bytes_in_every_way_it_is_run(name):
    def draw(*place):
        return draw_plan(seeds.fold(*place), 600, (12, 20), PAPER)

    place = (SEED, 1, 2, 1)
    got = RUNS[name](draw, *map(tf.constant, place))
    assert_same(got, draw(*place))


@functools.cache
def pipeline(first: int = 0, parallel: int | None = None) -> list[str]:
    """Digests of the views of six batches, in order."""
    images = sample_images(12, 20)

    def views(step):
        return augmix_views(images, SEED, 0, step, PAPER)

    steps = tf.data.Dataset.range(6).skip(first).map(views, num_parallel_calls=parallel)
    return [digest(batch) for batch in steps]


def test_parallel_calls_and_a_later_start_change_nothing():
    want = pipeline()
    assert len(set(want)) == 6
    assert pipeline(parallel=tf.data.AUTOTUNE) == want
    assert pipeline(first=4, parallel=2) == want[4:]


IN_ANOTHER_PROCESS = """
import pathlib, sys
from augmix_tf import runtime
runtime.import_tensorflow()
from augmix_tf.augment import AugMixSettings, augmix_views
from tests.test_augmix_draws import SEED, digest
from tests.test_ops import sample_images

def programs():
    return len(list(pathlib.Path(sys.argv[1]).glob("*before_optimizations.txt")))

for step in range(6):
    print(digest(augmix_views(sample_images(12, 20), SEED, 0, step, AugMixSettings())))
    if step == 0:
        first = programs()
print(first, programs())
"""


def test_another_process_draws_the_same_and_compiles_one_program_for_all_batches(tmp_path):
    """With XLA tuned as by the program, and as it comes in this process."""
    flags = f"--xla_dump_to={tmp_path} --xla_dump_hlo_as_text"  # one file for each compilation
    output = python(IN_ANOTHER_PROCESS, tmp_path, XLA_FLAGS=flags)
    *digests, programs = output.splitlines()
    assert digests == pipeline()
    first, last = map(int, programs.split())
    assert first >= 1
    assert last == first


PUBLISHED = "1e66af82b0906dcb07316bfa161a1629c839311f626bf42f866de806eac45744"
PUBLISHED_WEIGHTS = [0.76626813, 0.14678772, 0.086944155]
PUBLISHED_SHARES = [0.94223636, 0.054654006, 0.071846321]


def test_the_stream_is_the_one_that_was_published():
    """Runs are repeated by their seed: a change here is a change of every published result."""
    plan = draw_plan(seeds.fold(SEED, 1, 2, 1), 64, (24, 32), AugMixSettings(all_ops=True))
    assert digest(*plan[:3]) == PUBLISHED
    # Logarithms may differ in the last place between machines.
    np.testing.assert_allclose(plan.chain_weights[0], PUBLISHED_WEIGHTS, rtol=1e-5)
    np.testing.assert_allclose(plan.mixed_share[:3], PUBLISHED_SHARES, rtol=1e-5)
