"""AutoAugment: tables, ranges, the law of what fires, and Pillow for every sub-policy."""

import collections
import itertools

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps
from scipy import stats

from augmix_tf import seeds
from augmix_tf.augment.autoaugment import (
    POLICIES,
    POLICY_OPERATIONS,
    PolicyPlan,
    apply_policy,
    draw_policy,
    draw_random_policy,
    parameter_of,
)
from augmix_tf.ops import OPERATIONS
from tests.arrays import assert_same
from tests.oracles import pillow_augmix
from tests.runs import RUNS
from tests.test_ops import sample_images

SIZE = (12, 20)
SEED = seeds.fold(5, 0, 2, 1)
BATCH = 40_000
ENHANCERS = ("color", "contrast", "brightness", "sharpness")
# How often each operation stands in the table, and the sums of probabilities and magnitudes.
TOTALS = {
    "cifar10": (
        "equalize 9, autocontrast 7, sharpness 5, translate_y 5, color 5, brightness 4, solarize 4,"
        " invert 3, contrast 2, translate_x 2, shear_y 2, rotate 1, posterize 1",
        (26.5, 267),
    ),
    "imagenet": (
        "equalize 17, solarize 7, rotate 6, color 6, posterize 5, invert 3, autocontrast 2,"
        " contrast 2, sharpness 1, shear_x 1",
        (31.0, 287),
    ),
}


def port_parameter(name: str, magnitude: int, sign: int, size=SIZE) -> float:
    """The ranges of the port, as ten steps of NumPy, in the units of our operations."""
    steps = {
        "posterize": np.round(np.linspace(8, 4, 10)),
        "solarize": np.ceil(np.linspace(256, 0, 10)),
        "rotate": sign * np.linspace(0, 30, 10),
        "shear_x": sign * np.linspace(0, 0.3, 10),
        "shear_y": sign * np.linspace(0, 0.3, 10),
        "translate_x": np.floor(sign * np.linspace(0, 150 / 331, 10) * size[1] + 0.5),
        "translate_y": np.floor(sign * np.linspace(0, 150 / 331, 10) * size[0] + 0.5),
        **dict.fromkeys(ENHANCERS, 1 + sign * np.linspace(0, 0.9, 10)),
    }
    return steps.get(name, np.zeros(10))[magnitude]


def port_call(name: str, magnitude: int, sign: int, size=SIZE) -> tuple[int, float]:
    """What a call is in a plan: number of the operation, and the parameter to 9 decimals."""
    number = OPERATIONS.index("solarize" if name == "invert" else name)
    return number, round(float(port_parameter(name, magnitude, sign, size)), 9) + 0.0


def fired(plan: PolicyPlan) -> list[tuple]:
    """For each image the calls that are applied, in order."""
    return [
        tuple((int(n), round(float(p), 9) + 0.0) for n, p in zip(*calls, strict=True))[:depth]
        for *calls, depth in zip(*(part.numpy() for part in plan), strict=True)
    ]


def assert_law(outcomes: list, want: dict) -> None:
    """That outcomes are those of the law and as frequent, by chi-square."""
    counts = collections.Counter(outcomes)
    assert set(counts) <= {outcome for outcome, probability in want.items() if probability > 0}
    assert abs(sum(want.values()) - 1) < 1e-9
    expected = np.array(list(want.values())) * len(outcomes)
    seen = np.array([counts[outcome] for outcome in want])
    common = expected >= 20  # chi-square wants cells that are not too small: the rest is one
    seen, expected = (np.append(part[common], part[~common].sum()) for part in (seen, expected))
    cells = expected >= 20
    statistic = np.sum((seen[cells] - expected[cells]) ** 2 / expected[cells])
    assert stats.chi2.sf(statistic, np.sum(cells) - 1) > 1e-6


@pytest.mark.parametrize("policy", POLICIES)
def test_a_policy_has_25_pairs_of_calls_of_known_operations(policy):
    table = POLICIES[policy]
    assert [len(pair) for pair in table] == [2] * 25
    names, probabilities, magnitudes = zip(*itertools.chain(*table), strict=True)
    counts, sums = TOTALS[policy]
    assert dict(collections.Counter(names)) == {
        name: int(count) for name, count in (item.split() for item in counts.split(","))
    }
    assert (round(sum(probabilities), 9), sum(magnitudes)) == sums
    assert set(names) <= set(POLICY_OPERATIONS)
    assert set(probabilities) <= {tenths / 10 for tenths in range(11)}
    assert set(magnitudes) <= set(range(10))


@pytest.mark.parametrize("size", [(12, 20), (32, 32), (224, 160)], ids=str)
def test_magnitudes_mean_what_they_mean_in_the_port(size):
    for name, magnitude, sign in itertools.product(POLICY_OPERATIONS, range(10), (1, -1)):
        got = parameter_of(name, magnitude, sign < 0, size)
        assert got == pytest.approx(port_parameter(name, magnitude, sign, size), rel=1e-15)


@pytest.mark.parametrize("sign", [-1, 1])
def test_whole_translations_equal_the_nearest_neighbour_of_the_port(sign):
    for picture, magnitude in itertools.product(sample_images(*SIZE)[:4], range(10)):
        for axis, name in enumerate(("translate_y", "translate_x")):
            shift = sign * np.linspace(0, 150 / 331, 10)[magnitude] * SIZE[axis]
            matrix = (1, 0, shift * axis, 0, 1, shift * (1 - axis))
            want = Image.fromarray(picture).transform(
                SIZE[::-1], Image.Transform.AFFINE, matrix, fillcolor=(128,) * 3
            )
            whole = parameter_of(name, magnitude, sign < 0, SIZE)
            got = pillow_augmix.apply_op(Image.fromarray(picture), name, whole, 128)
            np.testing.assert_array_equal(got, want)


def pillow_call(image: Image.Image, name: str, parameter: float, fill: int) -> Image.Image:
    if name == "invert":
        return ImageOps.invert(image)
    return pillow_augmix.apply_op(image, name, parameter, fill)


@pytest.mark.parametrize(("policy", "fill"), [("cifar10", 128), ("imagenet", 0)])
def test_every_sub_policy_equals_pillow(policy, fill):
    """All 25, with each pair of signs, on images of noise, gradients and extremes."""
    cases = list(itertools.product(POLICIES[policy], itertools.product((1, -1), repeat=2)))
    for number in range(13):
        # Eight at a time, each sub-policy on other images.
        chosen = [cases[(8 * number + place) % 100] for place in range(8)]
        images = np.roll(sample_images(*SIZE, number), number, axis=0)
        calls = np.array(
            [
                [port_call(name, m, sign) for (name, _, m), sign in zip(pair, signs, strict=True)]
                for pair, signs in chosen
            ]
        )
        plan = PolicyPlan(
            operation=tf.constant(calls[..., 0], tf.int32),
            parameter=tf.constant(calls[..., 1]),
            depth=tf.fill([8], 2),
        )
        want = [Image.fromarray(image) for image in images]
        for place, call in np.ndindex(8, 2):
            name, parameter = chosen[place][0][call][0], calls[place, call, 1]
            want[place] = pillow_call(want[place], name, parameter, fill)
        np.testing.assert_array_equal(apply_policy(images, plan, fill), np.stack(want))


def test_only_what_fires_is_applied_and_in_order():
    images = sample_images(*SIZE)
    solarize, shift = OPERATIONS.index("solarize"), OPERATIONS.index("translate_x")
    plan = PolicyPlan(
        operation=tf.constant(
            [[solarize, shift], [shift, solarize], [solarize, shift], *[[0] * 2] * 5]
        ),
        parameter=tf.constant([[0, 2], [2, 0], [0, 2], *[[3, 3]] * 5], tf.float64),
        depth=tf.constant([2, 2, 1, 0, 0, 0, 0, 0]),
    )
    inverted = 255 - images.astype(int)
    want = images.copy()
    want[0] = np.concatenate([inverted[0][:, 2:], np.full((SIZE[0], 2, 3), 128)], axis=1)
    want[1] = np.concatenate([inverted[1][:, 2:], np.full((SIZE[0], 2, 3), 127)], axis=1)
    want[2] = inverted[2]
    np.testing.assert_array_equal(apply_policy(images, plan), want)


def law_of_pair(pair, chance: float) -> dict:
    """What one sub-policy does with which probability, by going through all that can be drawn."""
    law = collections.defaultdict(float)
    for fires in itertools.product((True, False), repeat=2):
        for signs in itertools.product((1, -1), repeat=2):
            weight, done = chance / 4, []
            for (name, p, magnitude), fire, sign in zip(pair, fires, signs, strict=True):
                weight *= p if fire else 1 - p
                done += [port_call(name, magnitude, sign)] if fire else []
            law[tuple(done)] += weight
    return law


@pytest.mark.parametrize("policy", POLICIES)
def test_each_sub_policy_fires_with_its_probabilities(policy):
    want = collections.defaultdict(float)
    for pair in POLICIES[policy]:
        for outcome, weight in law_of_pair(pair, 1 / 25).items():
            want[outcome] += weight
    plan = draw_policy(SEED, BATCH, SIZE, policy)
    assert [part.dtype for part in plan] == [tf.int32, tf.float64, tf.int32]
    outcomes = fired(plan)
    assert_law(outcomes, want)
    both = [(first[:1], second[:1]) for first, second in itertools.pairwise(outcomes)]
    first = collections.defaultdict(float)
    for outcome, weight in want.items():
        first[outcome[:1]] += weight
    assert_law(both, {(a, b): first[a] * first[b] for a, b in itertools.product(first, first)})


def test_random_autoaugment_draws_calls_and_magnitudes_all_as_likely():
    outcomes = fired(draw_random_policy(SEED, BATCH, SIZE))
    assert_law([len(outcome) for outcome in outcomes], {0: 0.25, 1: 0.5, 2: 0.25})
    law = collections.defaultdict(float)
    for name, magnitude, sign in itertools.product(POLICY_OPERATIONS, range(10), (1, -1)):
        law[port_call(name, magnitude, sign)] += 1 / 280
    for place in range(2):
        assert_law([outcome[place] for outcome in outcomes if len(outcome) > place], law)
    share = collections.Counter([*range(len(OPERATIONS)), OPERATIONS.index("solarize")])
    pairs = itertools.product(share, repeat=2)
    assert_law(
        [(one[0], two[0]) for one, two in filter(lambda o: len(o) == 2, outcomes)],
        {(a, b): share[a] * share[b] / 14**2 for a, b in pairs},
    )


DRAWS = {
    "imagenet": lambda seed, count: draw_policy(seed, count, SIZE, "imagenet"),
    "random": lambda seed, count: draw_random_policy(seed, count, SIZE),
}


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
@pytest.mark.parametrize("run", [RUNS["graph"], RUNS["xla"]], ids=["graph", "xla"])
def test_a_seed_gives_the_same_plan_in_every_way_it_is_run(run, draw):
    want = draw(SEED, 50)
    assert_same(run(lambda seed: draw(seed, 50), SEED), want)
    unknown = tf.function(draw)(SEED, tf.constant(50))
    assert_same(unknown, want)
    assert not np.array_equal(draw(seeds.fold(5, 0, 3, 1), 50).operation, want.operation)


@pytest.mark.parametrize("run", ["tf_data", "xla"])
def test_applies_the_same_bytes_in_every_way_it_is_run(run):
    images = tf.constant(sample_images(*SIZE))
    plan = draw_random_policy(SEED, len(images), SIZE)
    want = apply_policy(images, plan)
    np.testing.assert_array_equal(RUNS[run](apply_policy, images, plan), want)
    assert not np.array_equal(want, images)
