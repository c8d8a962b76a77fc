"""The training loop: Keras's `train_step` and callbacks, driven step by step.

`Model.fit` peeks at a batch, cannot start in the middle of an epoch and does not run under every
strategy of `tf.distribute`; this loop does what the recipe says and nothing else.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any, TypeAlias

import keras
import tensorflow as tf

from augmix_tf.data.pipeline import Position
from augmix_tf.errors import Interrupted, RunError
from augmix_tf.training import distribution
from augmix_tf.training.step import Trainer

STEPS_PER_CALL = 8

# Takes the position of the next batch and, after an epoch, the `test_error` in the logs.
Save: TypeAlias = Callable[[Position, float | None], None]


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

    Several workers call it together, with the same arguments but for their batches, which are those
    of `data.pipeline.training_batches` from `start` on. The callbacks are told of epochs and calls
    of at most `steps_per_call` steps; `logs` hold the metrics of the epoch so far. It saves after
    each epoch, after every `checkpoint_steps` steps of one, and before `Interrupted` is raised.
    """
    # Under a strategy, variables that the compiled call makes itself stay without a value.
    trainer.optimizer.build(trainer.trainable_variables)
    names, several = [m.name for m in trainer.metrics], distribution.has_several_workers()
    run_steps = _compiled_steps(trainer, steps_per_call, several)
    logs: dict[str, float] = {}
    for callback in callbacks:
        callback.set_model(trainer)

    def notify(event: str, *arguments: Any) -> None:
        for callback in callbacks:
            getattr(callback, event)(*arguments)

    with distribution.reraise_as_run_error(), _SignalsAsFlag() as stop:
        iterator = iter(batches)
        for epoch in range(start.epoch, epochs):
            step = start.step if epoch == start.epoch else 0
            if step == 0:
                trainer.reset_metrics()
            notify("on_epoch_begin", epoch)
            while step < steps_per_epoch:
                # A call ends when it is full, with the epoch, or where a checkpoint is due.
                due = step - step % checkpoint_steps + checkpoint_steps if checkpoint_steps else 0
                end = min(step + steps_per_call, steps_per_epoch, due or steps_per_epoch)
                notify("on_train_batch_begin", step)
                is_stopped = tf.constant(float(stop.signal_number > 0))
                flags, means = run_steps(iterator, tf.constant(end - step), is_stopped)
                *not_finite, stopped = (flags.numpy() > 0).tolist()
                if any(not_finite):
                    raise RunError(
                        f"The loss is not finite after step {step + not_finite.index(True) + 1} of "
                        f"epoch {epoch + 1}; the last checkpoint is kept. Lower the learning rate "
                        "or the weight of the consistency loss, or train in float32."
                    )
                step, shared = end, stopped if several else None
                logs = dict(zip(names, means.numpy().tolist(), strict=True))
                notify("on_train_batch_end", step - 1, logs)
                asked = stop.asked(shared)
                if step < steps_per_epoch and (step == due or asked):
                    save(Position(epoch, step), None)
                    if asked:
                        raise Interrupted(asked)
            notify("on_epoch_end", epoch, logs)
            save(Position(epoch + 1, 0), logs.get("test_error"))
            if asked := stop.asked(shared, at_the_end=epoch + 1 == epochs):
                raise Interrupted(asked)


def _compiled_steps(
    trainer: Trainer, most: int, several: bool
) -> Callable[[Iterator, tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    """Returns a function that runs `count` of at most `most` steps and returns flags and metrics.

    The flags, float32 [most + 1], are above 0 where a step's loss was not finite and, last, where
    `stop` was. Those of several workers are summed, so that each of them learns the same.
    """
    strategy = tf.distribute.get_strategy()

    def summed(flags: tf.Tensor) -> tf.Tensor:
        context = tf.distribute.get_replica_context()
        # The copy lies on the replica's device; without a device nothing is summed.
        return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.identity(flags))

    @tf.function
    def run_steps(
        iterator: Iterator, count: tf.Tensor, stop: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        flags = stop * tf.one_hot(most, most + 1)
        for step in tf.range(count):
            logs = strategy.run(trainer.train_step, args=(next(iterator),))
            # A running mean: once it is not finite it stays so, and the first such step counts.
            losses = strategy.experimental_local_results(logs["loss"])
            finite = tf.reduce_all([tf.math.is_finite(loss) for loss in losses])
            flags += tf.where(finite, 0.0, 1.0) * tf.one_hot(step, most + 1)
        if several:
            flags = strategy.experimental_local_results(strategy.run(summed, args=(flags,)))[0]
        return flags, tf.stack([metric.result() for metric in trainer.metrics])

    return run_steps


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

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def asked(self, shared: bool | None, at_the_end: bool = False) -> int:
        """The signal to stop for now; 0: none.

        Several workers go by what they all know (`shared`), so that all stop at the same step, but
        at the end, where nothing is left to do together, by their own too.
        """
        if shared:
            return self.signal_number or signal.SIGTERM
        return self.signal_number if shared is None or at_the_end else 0

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal_number:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.signal_number = number
