"""When the loop saves and stops: at the same steps whatever happens, with every worker."""

import os
import signal

import keras
import pytest
import tensorflow as tf

from augmix_tf.data.pipeline import Position
from augmix_tf.errors import Interrupted, RunError
from augmix_tf.training import distribution, loop
from augmix_tf.training.optimizer import CoupledSGD
from augmix_tf.training.step import Trainer
from tests.test_training import CLASSES, data

STEPS = 10


@pytest.fixture(scope="module")
def trainer():
    layers = keras.layers
    small = [layers.Input((6, 7, 3)), layers.Flatten(), layers.Dense(CLASSES)]
    trainer = Trainer(keras.Sequential(small))
    trainer.compile(optimizer=CoupledSGD(1e-6))
    return trainer


@pytest.fixture(autouse=True)
def not_compiled():
    """Compiling takes longer than the rest; what is compiled, other tests look at."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


class Act(keras.callbacks.Callback):
    """Does something after a call that ends with step `at` of the run (from 1)."""

    def __init__(self, at, action):
        super().__init__()
        self.at, self.action, self.step = at, action, 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.epoch * STEPS + batch + 1 == self.at:
            self.action()

    def on_epoch_end(self, epoch, logs=None):
        if (epoch + 1) * STEPS + 0.5 == self.at:
            self.action()


def train(trainer, start=Position(), **options):
    """Two epochs; returns the steps after which was saved, and how it ended."""
    saved = []
    batches = data(batches=2 * STEPS, size=1, views=1).skip(start.step)

    def save(position, test_error):
        saved.append(STEPS * position.epoch + position.step)

    try:
        loop.train(
            trainer, batches, epochs=2, steps_per_epoch=STEPS, start=start, save=save, **options
        )
    except Interrupted as stop:
        return saved, stop.signal_number
    return saved, None


@pytest.mark.parametrize(
    ("every", "most", "start", "wanted"),
    [
        (0, 4, Position(), []),
        (3, 4, Position(), [3, 6, 9, 13, 16, 19]),
        (3, 1, Position(), [3, 6, 9, 13, 16, 19]),
        (5, 8, Position(), [5, 15]),
        (5, 3, Position(0, 4), [5, 15]),
        (10, 8, Position(), []),
        (99, 8, Position(), []),
    ],
)
def test_checkpoints_within_an_epoch_come_at_multiples(trainer, every, most, start, wanted):
    """Whatever the steps of a call, and wherever the process started."""
    saved, _ = train(trainer, start, checkpoint_steps=every, steps_per_call=most)
    assert saved == sorted([*wanted, 10, 20])


def test_the_loop_hands_on_what_a_callback_measured(trainer):
    class Measure(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs["test_error"] = 0.5 - epoch / 8

    seen = []
    loop.train(
        trainer, data(batches=4, size=1, views=1), epochs=2, steps_per_epoch=2,
        callbacks=[Measure()], save=lambda *given: seen.append(given), checkpoint_steps=1,
    )  # fmt: skip
    assert seen == [
        (Position(0, 1), None),
        (Position(1, 0), 0.5),
        (Position(1, 1), None),
        (Position(2, 0), 0.375),
    ]


@pytest.mark.parametrize(
    ("at", "every", "wanted", "number"),
    [
        (4, 0, [4], signal.SIGINT),  # in an epoch: saved there and then
        (4, 4, [4], signal.SIGTERM),  # where it is saved anyway, once
        (10, 0, [10], signal.SIGINT),  # with the last call of an epoch
        (10.5, 0, [10], signal.SIGTERM),  # while the epoch is measured
        (12, 5, [5, 10, 12], signal.SIGINT),
        (20, 0, [10, 20], signal.SIGTERM),
    ],
)
def test_a_signal_ends_the_run_where_it_was_saved(trainer, at, every, wanted, number):
    before = signal.getsignal(number)
    act = Act(at, lambda: os.kill(os.getpid(), number))
    ended = train(trainer, callbacks=[act], checkpoint_steps=every, steps_per_call=2)
    assert ended == (wanted, number)
    assert signal.getsignal(number) == before


ERRORS = (
    tf.errors.UnavailableError(None, None, "{{function_node x}} Socket closed:\nmore"),
    tf.errors.AbortedError(None, None, "{{node y}} Socket closed"),
    tf.errors.DeadlineExceededError(None, None, " Socket closed"),
    tf.errors.InternalError(None, None, "Socket closed"),
)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_worker_that_stopped_is_named_as_such(trainer, monkeypatch, error):
    def fail():
        raise error

    with pytest.raises(type(error)):  # there is no other worker here
        train(trainer, callbacks=[Act(8, fail)])
    monkeypatch.setattr(distribution, "has_several_workers", lambda: True)
    with pytest.raises(RunError, match=r"Another worker stopped, .* \(Socket closed\)\. The"):
        train(trainer, callbacks=[Act(8, fail)])
