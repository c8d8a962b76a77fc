"""The learning rates against the reference's, plain loops, and what Keras does with a schedule."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from augmix_tf.errors import ArgumentError
from augmix_tf.training.schedules import CosineToFloor, StepDecay
from tests import golden
from tests.oracles import loop_training
from tests.runs import RUNS

RELATIVE = {"float32": 1e-6, "float64": 1e-9}


@pytest.mark.parametrize("dtype", RELATIVE)
def test_cosine_equals_the_reference(dtype):
    for run in golden.load("lr.json")["cosine"]:
        rate = CosineToFloor(run["lr"], run["total_steps"], dtype=dtype)
        got = [rate(step) for step in run["step"]]
        np.testing.assert_allclose(got, run["lr_at_step"], RELATIVE[dtype])


@pytest.mark.parametrize("dtype", RELATIVE)
def test_step_decay_equals_the_reference(dtype):
    for run in golden.load("lr.json")["imagenet_step"]:
        peak = run["base_lr"] * run["batch_size"] / 256
        rate = StepDecay(peak, run["epochs"], steps_per_epoch=7, dtype=dtype)
        for where in (0, 6):  # first and last step of the epoch
            got = [rate(7 * epoch + where) for epoch in range(run["epochs"])]
            np.testing.assert_allclose(got, run["lr_at_epoch"], RELATIVE[dtype])


@pytest.mark.parametrize("dtype", RELATIVE)
@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_equal_plain_loops(run, dtype):
    steps = [0, 1, 5, 6, 7, 11, 12, 13, 17, 19, 20, 35]
    wants = {
        CosineToFloor(0.3, 20, floor=1e-4, dtype=dtype): [
            loop_training.cosine(step, 0.3, 20, 1e-4) for step in steps
        ],
        StepDecay(0.3, 10, 2, dtype=dtype): [
            loop_training.thirds(step, 0.3, 10, 2) for step in steps
        ],
    }
    for rate, want in wants.items():
        got = run(lambda s, r=rate: tf.map_fn(r, s, fn_output_signature=dtype), tf.constant(steps))
        assert rate(0).shape == []
        np.testing.assert_allclose(got, want, RELATIVE[dtype])


@pytest.mark.parametrize("kind", ["int", "int32", "int64", "keras"])
@pytest.mark.parametrize("rate", [CosineToFloor(0.1, 8), StepDecay(0.1, 4, 2)])
def test_steps_of_any_integer_type(rate, kind):
    step = {"int": 5, "keras": keras.Variable(5, dtype="int64")}.get(kind)
    got = rate(tf.constant(5, kind) if step is None else step)
    assert got.dtype == tf.float32
    np.testing.assert_array_equal(got, rate(5))


def test_float32_keeps_its_digits_to_the_end():
    # 1 + cos(x) in float32 would be wrong in the first digit here.
    total = 4_000_000
    rate = CosineToFloor(0.1, total, floor=0.0)
    for left in (1, 2, 10, 1000):
        want = 0.1 * np.sin(np.pi / 2 * left / total) ** 2
        np.testing.assert_allclose(rate(total - left), want, rtol=1e-6)


@pytest.mark.parametrize(
    ("warm", "plain"),
    [
        (CosineToFloor(0.1, 30, warmup_steps=4), CosineToFloor(0.1, 26)),
        (StepDecay(0.1, 9, 5, warmup_steps=4), None),
    ],
)
def test_warm_up_is_linear_then_meets_the_peak(warm, plain):
    np.testing.assert_allclose(
        [warm(s) for s in range(5)], [0.02, 0.04, 0.06, 0.08, 0.1], rtol=1e-6
    )
    if plain is not None:  # the half cosine spans what is left of the run
        got = [warm(4 + s) for s in range(30)]
        np.testing.assert_allclose(got, [plain(s) for s in range(30)], rtol=1e-6)


def test_warm_up_does_not_move_the_drops():
    warm, plain = StepDecay(0.1, 9, 5, warmup_steps=20), StepDecay(0.1, 9, 5)
    steps = np.arange(50)
    share = np.minimum(steps + 1, 21) / 21
    want = share * np.array([plain(s) for s in steps])
    np.testing.assert_allclose([warm(s) for s in steps], want, rtol=1e-6)


def test_fewer_than_three_epochs_use_a_hundredth():
    np.testing.assert_allclose([StepDecay(0.1, 2, 5)(s) for s in (0, 9)], [0.001] * 2, rtol=1e-6)


@pytest.mark.parametrize(
    "rate", [CosineToFloor(0.1, 100, 1e-5, 7, "float64"), StepDecay(0.2, 9, 5, 3, "float64")]
)
def test_keras_round_trip(rate):
    restored = keras.optimizers.schedules.deserialize(keras.optimizers.schedules.serialize(rate))
    assert type(restored) is type(rate)
    assert restored.get_config() == rate.get_config()
    assert type(rate).from_config(rate.get_config()).get_config() == rate.get_config()
    np.testing.assert_array_equal(restored(11), rate(11))


def test_a_keras_optimizer_follows_the_schedule():
    weight = keras.Variable(np.zeros(2), dtype="float64")
    rate = CosineToFloor(0.1, 5, warmup_steps=1)
    optimizer = keras.optimizers.SGD(rate)
    for step in range(6):
        before = weight.numpy()
        optimizer.apply([tf.ones(2, tf.float64)], [weight])
        np.testing.assert_allclose(before - weight.numpy(), [rate(step)] * 2, rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CosineToFloor(1e-7, 10), "floor < peak; received floor 1e-06, peak 1e-07"),
        (lambda: CosineToFloor(0.1, 10, floor=-1.0), "0 <= floor"),
        (lambda: CosineToFloor(0.1, 0), "total_steps of at least 1; received 0"),
        (lambda: CosineToFloor(0.1, 10, warmup_steps=10), r"0 to 9 .*10 steps\); received 10"),
        (lambda: CosineToFloor(0.1, 10, warmup_steps=-1), "received -1"),
        (lambda: CosineToFloor(0.1, 10, dtype="int32"), "received int32"),
        (lambda: StepDecay(0.0, 9, 5), "a positive peak; received 0.0"),
        (lambda: StepDecay(0.1, 0, 5), "epochs of at least 1; received 0"),
        (lambda: StepDecay(0.1, 9, 0), "steps_per_epoch of at least 1; received 0"),
        (lambda: StepDecay(0.1, 2, 5, warmup_steps=10), "0 to 9"),
        (lambda: StepDecay(0.1, 9, 5, dtype="half"), "received half"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(ArgumentError, match=message):
        make()
