"""The training loop: Keras's `train_step` and callbacks, driven step by step.

`Model.fit` peeks at a batch, cannot start in the middle of an epoch and does not run under every
strategy of `tf.distribute`; this loop does what the recipe says and nothing else.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from types import FrameType, TracebackType
from typing import NamedTuple, TypeAlias

import keras
import tensorflow as tf

from augmix_tf.data.pipeline import Position
from augmix_tf.errors import Interrupted, RunError
from augmix_tf.training import distribution
from augmix_tf.training.step import Trainer

STEPS_PER_CALL = 8

Save: TypeAlias = Callable[[Position, float | None], None]
"""Called with the position of the next batch and, after an epoch whose `test_error` a callback put
into the logs, that."""


def train(
    trainer: Trainer,
    batches: tf.data.Dataset,
    *,
    epochs: int,
    steps_per_epoch: int,
    start: Position = Position(),
    callbacks: Sequence[keras.callbacks.Callback] = (),
    save: Save = lambda position, test_error: None,
    checkpoint_steps: int = 0,
    steps_per_call: int = STEPS_PER_CALL,
) -> None:
    """Trains from `start` to the end of the last epoch, under the current strategy.

    Several workers call it together, with the same arguments but for their batches.

    Args:
        trainer: with an optimiser; its metrics hold what was logged before `start` in that epoch.
        batches: from `start` on, as `data.pipeline.training_batches` makes them; or distributed.
        epochs, steps_per_epoch: of the whole run.
        start: the position of the first batch.
        callbacks: Keras callbacks; `logs` hold the metrics of the epoch so far, as floats.
        save: after each epoch and when the run is interrupted.
        checkpoint_steps: saves after every so many steps of an epoch too; 0: does not.
        steps_per_call: most steps between calls of the callbacks and checks for signals.

    Raises:
        RunError: the loss is no longer finite, the message names the step; or another worker
            stopped.
        Interrupted: SIGINT or SIGTERM came, here or to another worker; the position was saved
            before, the same one by all of them.
    """
    # Under a strategy, variables that the compiled call makes itself stay without a value.
    trainer.optimizer.build(trainer.trainable_variables)
    run_steps = _Steps(trainer, steps_per_call)
    last = _LastLogs()
    events = keras.callbacks.CallbackList(
        [*callbacks, last], model=trainer, epochs=epochs, steps=steps_per_epoch
    )
    with distribution.reraise_as_run_error(), _SignalsAsFlag() as stop:
        iterator = iter(batches)
        events.on_train_begin()
        for epoch in range(start.epoch, epochs):
            step = start.step if epoch == start.epoch else 0
            if step == 0:
                trainer.reset_metrics()
            events.on_epoch_begin(epoch)
            while step < steps_per_epoch:
                end = _end_of_call(step, steps_per_epoch, steps_per_call, checkpoint_steps)
                events.on_train_batch_begin(step)
                seen = run_steps(iterator, end - step, stop.signal_number)
                _require_finite(seen.not_finite, epoch, step)
                step = end
                events.on_train_batch_end(step - 1, seen.logs)
                asked = stop.asked(seen.stop)
                due = checkpoint_steps > 0 and step % checkpoint_steps == 0
                if step < steps_per_epoch and (due or asked):
                    save(Position(epoch, step), None)
                    _raise_if(asked)
            events.on_epoch_end(epoch, seen.logs)
            save(Position(epoch + 1, 0), last.logs.get("test_error"))
            _raise_if(stop.asked(seen.stop, at_the_end=epoch + 1 == epochs))
        events.on_train_end()


class _LastLogs(keras.callbacks.Callback):
    """Keeps the logs of an epoch, with what the callbacks before it put there."""

    logs: dict[str, float] = {}  # noqa: RUF012 - it is replaced, never changed

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.logs = dict(logs or {})


class _Seen(NamedTuple):
    """What came out of some steps.

    Attributes:
        logs: the means of the epoch so far.
        not_finite: number, in the call, of the first step whose loss was not finite; None: none.
        stop: whether any worker was to stop before the call; None: there is one worker only.
    """

    logs: dict[str, float]
    not_finite: int | None
    stop: bool | None


class _Steps:
    """Runs some steps in one compiled call."""

    def __init__(self, trainer: Trainer, most: int) -> None:
        self._names = [metric.name for metric in trainer.metrics]
        self._several = distribution.has_several_workers()
        self._run = _compiled_steps(trainer, most, self._several)

    def __call__(self, iterator: Iterator, count: int, stop: int) -> _Seen:
        noted, means = self._run(iterator, tf.constant(count), tf.constant(float(stop > 0)))
        *not_finite, stopped = noted.numpy() > 0
        return _Seen(
            dict(zip(self._names, means.numpy().tolist(), strict=True)),
            not_finite.index(True) if any(not_finite) else None,
            bool(stopped) if self._several else None,
        )


def _compiled_steps(
    trainer: Trainer, most: int, several: bool
) -> Callable[[Iterator, tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    """Returns a function that runs `count` of at most `most` steps.

    It returns float32 [most + 1], above 0 where a step's loss was not finite and, last, where
    `stop` was, and the metrics. With several workers it is above 0 where it is in any of them: one
    sum for both, and each of them learns the same.
    """
    strategy = tf.distribute.get_strategy()

    def summed(noted: tf.Tensor) -> tf.Tensor:
        context = tf.distribute.get_replica_context()
        # The copy lies on the replica's device; without a device nothing is summed.
        return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.identity(noted))

    @tf.function
    def run_steps(
        iterator: Iterator, count: tf.Tensor, stop: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        noted = stop * tf.one_hot(most, most + 1)
        for step in tf.range(count):
            logs = strategy.run(trainer.train_step, args=(next(iterator),))
            # A running mean: once it is not finite it stays so, and the first such step counts.
            losses = strategy.experimental_local_results(logs["loss"])
            finite = tf.reduce_all([tf.math.is_finite(loss) for loss in losses])
            noted += tf.where(finite, 0.0, 1.0) * tf.one_hot(step, most + 1)
        if several:
            noted = strategy.experimental_local_results(strategy.run(summed, args=(noted,)))[0]
        return noted, tf.stack([metric.result() for metric in trainer.metrics])

    return run_steps


def _end_of_call(step: int, epoch_end: int, most: int, checkpoint_steps: int) -> int:
    """Where the call that begins at `step` ends: full, with the epoch, or to save."""
    ends = [step + most, epoch_end]
    if checkpoint_steps > 0:
        ends.append(step - step % checkpoint_steps + checkpoint_steps)
    return min(ends)


def _require_finite(not_finite: int | None, epoch: int, before: int) -> None:
    if not_finite is not None:
        raise RunError(
            f"The loss is not finite after step {before + not_finite + 1} of epoch {epoch + 1}; "
            "the last checkpoint is kept. Lower the learning rate or the weight of the "
            "consistency loss, or train in float32."
        )


def _raise_if(signal_number: int) -> None:
    if signal_number:
        raise Interrupted(signal_number)


class _SignalsAsFlag:
    """Within it, the first SIGINT or SIGTERM is only noted; a second one ends the process."""

    signal_number = 0

    def __enter__(self) -> _SignalsAsFlag:
        self._before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            for number in self._before:
                signal.signal(number, self._note)
        except ValueError:  # not the main thread: whoever runs us handles signals
            self._before = {}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def asked(self, shared: bool | None, at_the_end: bool = False) -> int:
        """The signal to stop for now; 0: none.

        Several workers go by what they all know (`shared`), so that all stop at the same step; at
        the end, where nothing is left to do together, each goes by its own too.
        """
        if shared:
            return self.signal_number or signal.SIGTERM
        return self.signal_number if shared is None or at_the_end else 0

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal_number:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.signal_number = number
