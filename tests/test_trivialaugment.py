"""TrivialAugment and RandAugment: the table, the law of the draws, and the authors' results."""

import collections
import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from augmix_tf import RandAugment, TrivialAugment, seeds
from augmix_tf.augment import autoaugment
from augmix_tf.augment.autoaugment import PolicyPlan, PolicyPlans
from augmix_tf.augment.method import BatchShape
from augmix_tf.augment.trivialaugment import (
    SPACES,
    RandAugmentMethod,
    TrivialAugmentMethod,
    parameter_of,
)
from augmix_tf.errors import ArgumentError
from augmix_tf.ops import OPERATIONS
from tests import golden
from tests.arrays import assert_same
from tests.runs import graph, leave_out_xla, xla
from tests.test_autoaugment import assert_law, fired
from tests.test_ops import sample_images

SEED = seeds.fold(5, 0, 2, 1)
MOVES = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
# Parameters at levels 0, 7, 15 and 30, computed by hand from the table of the authors' code.
BY_HAND = {
    "standard": {
        "rotate": (0, 7, 15, 30),
        "solarize": (256, 197, 128, 0),
        "color": (0.1, 0.52, 1.0, 1.9),
        "posterize": (8, 8, 6, 4),
        "shear_y": (0, 0.07, 0.15, 0.3),
        "translate_x": (0, 2, 5, 10),
        "equalize": (0, 0, 0, 0),
    },
    "wide": {
        "rotate": (0, 31, 67, 135),
        "solarize": (256, 197, 128, 0),
        "sharpness": (0.01, 0.01 + 1.99 * 7 / 30, 1.005, 2.0),
        "posterize": (8, 7, 5, 2),
        "shear_x": (0, 0.231, 0.495, 0.99),
        "translate_y": (0, 7, 16, 32),
        "autocontrast": (0, 0, 0, 0),
    },
}


def plan_of(names: np.ndarray, parameters: np.ndarray) -> PolicyPlan:
    """A plan of operations by name [N, D]."""
    operation = np.zeros(names.shape, np.int32)
    parameter, depth = np.zeros(names.shape), np.zeros(len(names), np.int32)
    for row, column in np.argwhere(names != "identity"):
        operation[row, depth[row]] = OPERATIONS.index(names[row, column])
        parameter[row, depth[row]] = np.nan_to_num(parameters[row, column])
        depth[row] += 1
    return PolicyPlan(*map(tf.constant, (operation, parameter, depth)))


@pytest.mark.parametrize("space", SPACES)
def test_a_level_means_what_it_means_in_the_authors_code(space):
    for name, values in BY_HAND[space].items():
        for level, want in zip((0, 7, 15, 30), values, strict=True):
            assert parameter_of(name, level, False, space) == pytest.approx(want, rel=1e-15)
            sign = -1 if name in MOVES else 1
            assert parameter_of(name, level, True, space) == pytest.approx(sign * want, rel=1e-15)


@pytest.mark.parametrize("space", SPACES)
def test_the_table_is_that_of_the_authors_code(space):
    reference = golden.load("trivialaugment")
    key = "fixed_standard" if space == "standard" else "wide_standard"
    names = list(reference[f"{key}/ops"])
    assert names == list(SPACES[space])
    for name, wanted in zip(names, reference[f"{key}/parameter"], strict=True):
        got = [parameter_of(name, level, False, space) for level in range(31)]
        assert got == np.nan_to_num(wanted).tolist(), name
    for part in ("each", "views"):
        columns = (reference[f"{key}/{part}_{c}"] for c in ("op", "level", "negative", "param"))
        for name, level, negative, wanted in zip(*columns, strict=True):
            assert parameter_of(name, level, negative, space) == np.nan_to_num(wanted)


def stored(calls) -> tuple[np.ndarray, PolicyPlan, np.ndarray]:
    names, parameters, images, outputs = [], [], [], []
    for reference, key in calls:
        name = reference[f"{key}op"].reshape(len(reference[f"{key}index"]), -1)
        parameter = reference[f"{key}param"].reshape(name.shape)
        if f"{key}matrix" in reference:
            parameter = in_our_units(name, parameter, reference[f"{key}matrix"])
        pad = [(0, 0), (0, 3 - name.shape[1])]
        names.append(np.pad(name, pad, constant_values="identity"))
        parameters.append(np.pad(parameter, pad))
        images.append(reference["inputs"][reference[f"{key}index"]])
        outputs.append(reference[f"{key}outputs"])
    plan = plan_of(np.concatenate(names), np.concatenate(parameters))
    return np.concatenate(images), plan, np.concatenate(outputs)


def in_our_units(name: np.ndarray, parameter: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """torchvision's parameters: thresholds may be fractional, moves are those of the matrix."""
    places = {"shear_x": 1, "translate_x": 2, "shear_y": 3, "translate_y": 5}
    result = np.where(name == "solarize", np.ceil(parameter), parameter)
    for move, place in places.items():
        result = np.where(name == move, matrix[..., place], result)
    return result


def applied(images: np.ndarray, plan: PolicyPlan, **settings) -> tf.Tensor:
    method = TrivialAugmentMethod(cutout_size=0, **settings)
    return method.apply(images, tf.zeros(len(images)), PolicyPlans(plan, None)).views[:, 0]


def test_equals_the_original_code():
    """In every stored call that reads the nearest pixel."""
    trivial, rand = golden.load("trivialaugment"), golden.load("randaugment")
    calls = [
        (trivial, f"{space}/{part}_")
        for space in ("fixed_standard", "wide_standard")
        for part in ("each", "views")
    ]
    calls += [(rand, f"aug_lib_{each}/") for each in ("n3_m5", "n2_m14", "n1_m30")]
    calls += [(trivial, "torchvision_wide_nearest/")]
    calls += [(rand, f"torchvision_{each}_nearest/") for each in ("n2_m9", "n3_m5")]
    images, plan, want = stored(calls)
    np.testing.assert_array_equal(applied(images, plan), want)


def test_equals_torchvision_where_it_interpolates():
    trivial, rand = golden.load("trivialaugment"), golden.load("randaugment")
    calls = [(trivial, "torchvision_wide_bilinear/")]
    calls += [(rand, f"torchvision_{each}_bilinear/") for each in ("n2_m9", "n3_m5")]
    images, plan, want = stored(calls)
    np.testing.assert_array_equal(applied(images, plan, interpolation="bilinear"), want)


def drawn(method, count: int = 100_000) -> PolicyPlan:
    return method.draw_policy(SEED, BatchShape(count, (12, 20)))


def law(space: str, levels) -> dict:
    """Operation and parameter of one draw with its probability; None for no operation."""
    want = collections.defaultdict(float)
    draws = list(itertools.product(SPACES[space], levels, (False, True)))
    for name, level, negative in draws:
        value = round(parameter_of(name, level, negative, space), 9) + 0.0
        done = None if name == "identity" else (OPERATIONS.index(name), value)
        want[done] += 1 / len(draws)
    return want


@pytest.mark.parametrize("space", SPACES)
def test_trivialaugment_draws_operations_levels_and_signs_all_as_likely(space):
    plan = drawn(TrivialAugmentMethod(space=space))
    assert [part.dtype for part in plan] == [tf.int32, tf.float64, tf.int32]
    outcomes = [calls[0] if calls else None for calls in fired(plan)]
    assert_law(outcomes, law(space, range(31)))


def test_randaugment_draws_operations_that_do_not_depend_on_each_other():
    outcomes = fired(drawn(RandAugmentMethod(num_ops=2, magnitude=14)))
    one = law("standard", [14])
    want = collections.defaultdict(float)
    for first, second in itertools.product(one, repeat=2):
        want[tuple(done for done in (first, second) if done)] += one[first] * one[second]
    assert_law(outcomes, want)


@pytest.mark.parametrize("run", [graph, xla])
def test_a_seed_gives_the_same_plan_in_every_way_it_is_run(run):
    method = RandAugmentMethod()
    draw = lambda seed, count=50: method.draw_policy(seed, BatchShape(count, (12, 20)))  # noqa: E731
    assert_same(run(draw, SEED), draw(SEED))
    assert_same(tf.function(draw)(SEED, tf.constant(50)), draw(SEED))
    assert not np.array_equal(draw(seeds.fold(5, 0, 3, 1)).parameter, draw(SEED).parameter)


IMAGES = sample_images(12, 20)
LAYERS = {
    "trivialaugment": (
        TrivialAugment("standard", "bilinear", seed=11, fill=9),
        TrivialAugmentMethod("bilinear", space="standard"),
    ),
    "randaugment": (
        RandAugment(1, 20, seed=11),
        RandAugmentMethod(num_ops=1, magnitude=20),
    ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_applies_what_the_method_draws_anew_at_each_call(name, monkeypatch):
    leave_out_xla(monkeypatch)
    layer, method = LAYERS[name]
    layer = type(layer).from_config(layer.get_config())
    generator = tf.random.Generator.from_seed(11, "philox")
    batches = iter(tf.data.Dataset.from_tensors(IMAGES).map(layer))
    for run in (layer, lambda _: next(batches)):
        seed = seeds.fold(*generator.uniform_full_int([2], tf.int32).numpy(), 0, 1)
        plan = method.draw_policy(seed, BatchShape(8, (12, 20)))
        got = run(IMAGES)
        assert got.dtype == tf.float32
        want = autoaugment.apply_policy(IMAGES, plan, layer.fill, method.interpolation)
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_is_saved_in_a_model_and_does_nothing_when_not_training(name, tmp_path):
    model = keras.Sequential([keras.Input((12, 20, 3)), LAYERS[name][0]])
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.layers[0].get_config() == LAYERS[name][0].get_config()
    np.testing.assert_array_equal(loaded(IMAGES, training=False), IMAGES)


def test_a_layer_takes_what_augmix_takes(monkeypatch):
    leave_out_xla(monkeypatch)

    levels = TrivialAugment(seed=1)(IMAGES)
    data = {"images": IMAGES / np.float32(255), "labels": np.arange(8)}
    got = TrivialAugment(seed=1, value_range=(0, 1))(data)
    np.testing.assert_array_equal(got["images"], levels * (1 / 255))
    np.testing.assert_array_equal(got["labels"], data["labels"])
    assert TrivialAugment()(IMAGES[:0]).shape == (0, 12, 20, 3)
    grey = TrivialAugment(seed=1)(IMAGES[..., :1])
    repeated = TrivialAugment(seed=1)(np.repeat(IMAGES[..., :1], 3, -1))
    np.testing.assert_array_equal(grey, repeated[..., :1])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TrivialAugment("wider"), "Did you mean 'wide'"),
        (lambda: RandAugment(interpolation="bicubic"), "interpolation is not valid"),
        (lambda: RandAugment(num_ops=0), "num_ops must be 1 or more; received 0"),
        (lambda: RandAugment(magnitude=31), "magnitude must be 0 to 30; received 31"),
        (lambda: TrivialAugment()(np.float32(IMAGES / 255)), "the value_range; received"),
    ],
)
def test_a_layer_refuses_what_it_cannot_do(make, message):
    with pytest.raises(ArgumentError, match=message):
        make()
