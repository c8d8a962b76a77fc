"""The training loop: Keras's `train_step` and callbacks, driven step by step.

`Model.fit` peeks at a batch, cannot start in the middle of an epoch and does not run under every
strategy of `tf.distribute`; this loop does what the recipe says and nothing else.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from types import FrameType, TracebackType

import keras
import numpy as np
import tensorflow as tf

from augmix_tf.checks import Interrupted, RunError
from augmix_tf.data.pipeline import Position
from augmix_tf.training.step import Trainer

STEPS_PER_CALL = 8


def train(
    trainer: Trainer,
    batches: tf.data.Dataset,
    *,
    epochs: int,
    steps_per_epoch: int,
    start: Position = Position(),
    callbacks: Sequence[keras.callbacks.Callback] = (),
    save: Callable[[Position], None] = lambda _: None,
    steps_per_call: int = STEPS_PER_CALL,
) -> None:
    """Trains from `start` to the end of the last epoch.

    Args:
        trainer: with an optimiser; its metrics hold what was logged before `start` in that epoch.
        batches: from `start` on, as `data.pipeline.training_batches` makes them.
        epochs, steps_per_epoch: of the whole run.
        start: the position of the first batch.
        callbacks: Keras callbacks; `logs` hold the metrics of the epoch so far, as floats.
        save: called with the next position after each epoch and when the run is interrupted.
        steps_per_call: steps between two looks at the callbacks and at signals.

    Raises:
        RunError: the loss is no longer finite; the message names the step.
        Interrupted: SIGINT or SIGTERM came; the position was saved before.
    """
    run_steps = _compiled_steps(trainer)
    iterator = iter(batches)
    events = keras.callbacks.CallbackList(
        list(callbacks), model=trainer, epochs=epochs, steps=steps_per_epoch
    )
    with _SignalsAsFlag() as stop:
        events.on_train_begin()
        for epoch in range(start.epoch, epochs):
            step = start.step if epoch == start.epoch else 0
            if step == 0:
                trainer.reset_metrics()
            events.on_epoch_begin(epoch)
            while step < steps_per_epoch:
                count = min(steps_per_call, steps_per_epoch - step)
                events.on_train_batch_begin(step)
                run_steps(iterator, tf.constant(count))
                step += count
                logs = {metric.name: float(metric.result()) for metric in trainer.metrics}
                _require_finite(logs["loss"], epoch, step)
                events.on_train_batch_end(step - 1, logs)
                if stop.signal_number and step < steps_per_epoch:
                    save(Position(epoch, step))
                    raise Interrupted(stop.signal_number)
            events.on_epoch_end(epoch, logs)
            save(Position(epoch + 1, 0))
            if stop.signal_number:
                raise Interrupted(stop.signal_number)
        events.on_train_end()


def _compiled_steps(trainer: Trainer) -> Callable[[tf.data.Iterator, tf.Tensor], None]:
    @tf.function
    def run_steps(iterator: tf.data.Iterator, count: tf.Tensor) -> None:
        for _ in tf.range(count):
            tf.distribute.get_strategy().run(trainer.train_step, args=(next(iterator),))

    return run_steps


def _require_finite(loss: float, epoch: int, step: int) -> None:
    if not np.isfinite(loss):
        raise RunError(
            f"the loss is {loss} after step {step} of epoch {epoch + 1}; the last checkpoint is "
            "kept. Try a lower --learning_rate or --jsd_weight, or --precision=float32"
        )


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

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal_number:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.signal_number = number
