"""Errors that name what was meant; seeds that never meet."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from augmix_tf import errors, seeds
from tests.arrays import assert_same
from tests.runs import RUNS


def test_the_nearest_names_are_offered_and_none_that_is_far_away():
    names = ["allconv", "densenet", "resnet50", "wrn"]
    assert "Did you mean 'wrn'? Known" in errors.unknown_name("thing", "wnr", names)
    assert "mean 'densenet' or 'resnet50'?" in errors.unknown_name("thing", "densnet", names)
    assert "Did you mean" not in errors.unknown_name("thing", "zebra", ["wrn", "allconv"])


def test_lookup_and_require_raise_command_errors():
    assert errors.lookup("number", "one", {"one": 1}) == 1
    with pytest.raises(errors.ArgumentError, match=r"Unknown number 'tow'\. Did you mean 'two'"):
        errors.lookup("number", "tow", {"two": 2})
    with pytest.raises(errors.ArgumentError, match="Expected a batch size above 0; received -3"):
        errors.require(False, "a batch size above 0", -3)


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_seeds_are_the_same_in_every_way_they_are_run(run):
    want = seeds.fold(5, 2, 7, 1).numpy().tolist()
    arguments = [tf.constant(value) for value in (5, 2, 7, 1)]
    assert run(seeds.fold, *arguments).numpy().tolist() == want
    assert want == seeds.fold(5, tf.constant(2, tf.int64), 7, 1).numpy().tolist()


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_draws_are_those_of_tensorflow_s_own_philox(run):
    def ours(seed):
        drawn = seeds.integers(seed, [5, 4], -3, 9)
        return seeds.fold(-5, 2**31 - 1, 7, -2), *seeds.split(seed, 2), drawn

    def theirs(seed):
        folded = tf.constant([-5, 0])
        for index in (2**31 - 1, 7, -2):
            folded = tf.random.experimental.stateless_fold_in(folded, index, "philox")
        halves = tf.random.experimental.stateless_split(seed, 2, "philox")
        drawn = tf.random.stateless_uniform([5, 4], seed, -3, 9, tf.int32, alg="philox")
        return folded, *tf.unstack(halves), drawn

    for seed in ([1, 2], [0, 0], [-(2**31), 2**31 - 1]):
        assert_same(run(ours, tf.constant(seed)), theirs(seed))


def test_numbers_and_orders_are_those_of_tensorflow_s_own_philox():
    """On the host: XLA draws other float64, and cannot shuffle."""
    for seed in ([1, 2], [0, 0], [-(2**31), 2**31 - 1]):
        want = tf.random.stateless_uniform([5, 4], seed, dtype=tf.float64, alg="philox")
        np.testing.assert_array_equal(seeds.uniform(tf.constant(seed), [5, 4]), want)
        want = tf.random.experimental.stateless_shuffle(tf.range(11), seed, "philox")
        np.testing.assert_array_equal(seeds.permutation(tf.constant(seed), 11), want)


def test_seeds_of_different_places_differ():
    streams = (seeds.SHUFFLE, seeds.CROP_AND_FLIP, 1, 2)
    places = list(itertools.product((0, 1), (0, 1, 2), (0, 1, 2), streams))
    drawn = {tuple(seeds.fold(*place).numpy().tolist()) for place in places}
    assert len(drawn) == len(places)
