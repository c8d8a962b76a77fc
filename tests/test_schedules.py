"""The learning rates against the reference's, plain loops, and what Keras does with a schedule."""

import numpy as np
import pytest
import tensorflow as tf

from augmix_tf.training.optimizer import cosine_schedule, step_schedule
from tests import golden
from tests.oracles import loop_training
from tests.runs import RUNS


def assert_rates(got, want, peak):
    """Equal to 1e-7 of the peak, as the optimizer uses them in float32."""
    np.testing.assert_allclose(np.float32(got), want, rtol=0, atol=1e-7 * peak)
    np.testing.assert_allclose(got, want, rtol=1e-9)


def test_cosine_equals_the_reference():
    for run in golden.load("lr.json")["cosine"]:
        rate = cosine_schedule(run["lr"], run["total_steps"])
        assert_rates([rate(step) for step in run["step"]], run["lr_at_step"], run["lr"])


def test_step_decay_equals_the_reference():
    for run in golden.load("lr.json")["imagenet_step"]:
        peak = run["base_lr"] * run["batch_size"] / 256
        rate = step_schedule(peak, run["epochs"], steps_per_epoch=7)
        for where in (0, 6):  # first and last step of the epoch
            got = [rate(7 * epoch + where) for epoch in range(run["epochs"])]
            assert_rates(got, run["lr_at_epoch"], peak)


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_schedules_equal_plain_loops(run):
    steps = [0, 1, 5, 6, 7, 11, 12, 13, 17, 19, 20, 35]
    wants = {
        cosine_schedule(0.3, 20, floor=1e-4): [
            loop_training.cosine(step, 0.3, 20, 1e-4) for step in steps
        ],
        step_schedule(0.3, 10, 2): [loop_training.thirds(step, 0.3, 10, 2) for step in steps],
    }
    for rate, want in wants.items():
        # One trace for all steps.
        each = lambda steps, rate=rate: tf.stack([rate(step) for step in tf.unstack(steps)])  # noqa: E731
        assert_rates(run(each, tf.constant(steps, tf.int64)), want, 0.3)


@pytest.mark.parametrize("make", [cosine_schedule, lambda *a: step_schedule(a[0], 9, 5, *a[2:])])
def test_warm_up_is_linear_then_meets_the_peak(make):
    warm = make(0.1, 30, 4)
    assert_rates([warm(s) for s in range(5)], [0.02, 0.04, 0.06, 0.08, 0.1], 0.1)


def test_warm_up_does_not_move_the_drops():
    warm, plain = step_schedule(0.1, 9, 5, 20), step_schedule(0.1, 9, 5)
    share = np.minimum(np.arange(50) + 1, 21) / 21
    assert_rates([warm(s) for s in range(50)], share * [plain(s) for s in range(50)], 0.1)


def test_fewer_than_three_epochs_use_a_hundredth():
    assert_rates([step_schedule(0.1, 2, 5)(s) for s in (0, 9)], [0.001] * 2, 0.1)
