"""A profile of some training steps, for TensorBoard's Profile tab."""

from __future__ import annotations

import os
from types import TracebackType

import keras
import tensorflow as tf

from augmix_tf.errors import RunError, SettingError
from augmix_tf.training.loop import STEPS_PER_CALL


class Profile(keras.callbacks.Callback):
    """Writes what the host and its devices do in the calls of the loop that hold some steps.

    The loop runs up to eight steps in one call and runs its callbacks in between. What is
    profiled are therefore whole calls, from the one that holds the first step to the one that holds
    the last. (A checkpoint within an epoch may cut a call short; then one call more comes first.)
    Steps that were trained by an earlier process are not profiled again.

    To be used as a context as well, which ends a profile that is left open by an error.

    Args:
        folder: the run's log folder; the profile comes to lie in its `plugins/profile/`.
        steps: the first and the last one, counted from 1 over the whole run.
        steps_per_epoch, epochs: of the run.

    Raises:
        ArgumentError: the run has not so many steps.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        steps: tuple[int, int],
        steps_per_epoch: int,
        epochs: int,
    ) -> None:
        super().__init__()
        total = steps_per_epoch * epochs
        if steps[1] > total:
            problem = (
                f"must be within the {total} steps of the run; received {steps[0]},{steps[1]}."
            )
            raise SettingError("profile_steps", problem)
        self._folder, self._steps_per_epoch = os.fspath(folder), steps_per_epoch
        self._first, self._last = steps
        self._before = 0  # steps of the epochs before
        self._running = False
        self._call: tf.profiler.experimental.Trace | None = None

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Notes the epoch."""
        self._before = epoch * self._steps_per_epoch

    def on_train_batch_begin(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Begins the profile if the call to come holds the first step, or one after it."""
        end = self._before + min(batch + STEPS_PER_CALL, self._steps_per_epoch)
        if not self._running and self._first <= end and self._before + batch < self._last:
            try:
                tf.profiler.experimental.start(self._folder)
            except (OSError, tf.errors.OpError) as error:
                raise RunError(f"cannot profile into {self._folder}: {error}") from error
            self._running = True
        if self._running:
            # What the profiler takes for one step: it sees no smaller part of a call.
            self._call = tf.profiler.experimental.Trace(
                "train", step_num=self._before + batch + 1, _r=1
            )
            self._call.__enter__()

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Ends the call, and writes the profile if it held the last step."""
        if self._call is not None:
            self._call.__exit__(None, None, None)
            self._call = None
        if self._before + batch + 1 >= self._last:
            self._stop()

    def __enter__(self) -> Profile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        if not self._running:
            return
        self._running = False
        try:
            tf.profiler.experimental.stop()
        except (OSError, tf.errors.OpError) as error:
            raise RunError(f"cannot profile into {self._folder}: {error}") from error
