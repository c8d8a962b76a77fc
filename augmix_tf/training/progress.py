"""What a person sees while a run trains: one line, kept up to date."""

from __future__ import annotations

import sys
import time
from typing import TextIO

import keras

from augmix_tf.data.pipeline import Position


class ProgressBar(keras.callbacks.Callback):
    """Shows epoch, step, images/s, metrics and the time left; on a file, one line per epoch.

    Args:
        epochs, steps_per_epoch, batch_size: of the whole run.
        start: where this process starts, for the speed.
        stream: where it writes, standard error by default.
    """

    WIDTH = 24

    def __init__(
        self,
        epochs: int,
        steps_per_epoch: int,
        batch_size: int,
        start: Position = Position(),
        stream: TextIO | None = None,
    ) -> None:
        super().__init__()
        self._epochs, self._steps, self._batch_size = epochs, steps_per_epoch, batch_size
        self._stream = stream or sys.stderr
        self._epoch = start.epoch
        self._began = 0.0
        self._first_steps = self._last = 0

    @property
    def images_per_second(self) -> float:
        """Over this process's training so far, without the first steps (which compile)."""
        if self._last <= self._first_steps:
            return 0.0
        images = (self._last - self._first_steps) * self._batch_size
        return images / (self._now - self._began)

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Notes the epoch."""
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Redraws the line."""
        self._now, self._last = time.perf_counter(), self._epoch * self._steps + batch + 1
        if not self._began:
            self._began, self._first_steps = self._now, self._last
        if self._stream.isatty():
            self._stream.write("\r" + self._line(batch + 1, logs or {}) + "\033[K")
            self._stream.flush()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Ends the line of the epoch."""
        start = "\r" if self._stream.isatty() else ""
        self._stream.write(start + self._line(self._steps, logs or {}) + "\n")
        self._stream.flush()

    def _line(self, step: int, logs: dict[str, float]) -> str:
        filled = self.WIDTH * step // self._steps
        bar = "=" * filled + "." * (self.WIDTH - filled)
        speed = self.images_per_second
        left = self._epochs * self._steps - (self._epoch * self._steps + step)
        rest = _clock(left * self._batch_size / speed) if speed else "-:--"
        parts = [f"epoch {self._epoch + 1}/{self._epochs} [{bar}] {step}/{self._steps}"]
        parts += [f"{speed:.0f} images/s", f"{rest} left"]
        parts += [f"{name} {logs[name]:.4f}" for name in ("loss", "jsd") if name in logs]
        parts += [
            f"{label} {100 * logs[name]:.1f} %"
            for label, name in (("train error", "error"), ("test error", "test_error"))
            if name in logs
        ]
        return "  ".join(parts)


class Counter:
    """Shows how far a piece of work is, with the time left; on a file, one line at the end.

    Args:
        what: is counted, such as "corrupted images".
        stream: where it writes, standard error by default.
    """

    def __init__(self, what: str, stream: TextIO | None = None) -> None:
        self._what, self._stream = what, stream or sys.stderr
        self._began, self._first = 0.0, 0

    def __call__(self, done: int, total: int) -> None:
        """Redraws the line; to be called once before anything is done, and with all done."""
        now = time.perf_counter()
        if not self._began:
            self._began, self._first = now, done
        finished = done >= total
        if not (finished or self._stream.isatty()):
            return
        passed, here = now - self._began, done - self._first
        left = f", {_clock(passed / here * (total - done))} left" if here and not finished else ""
        line = f"{self._what}: {done:,} of {total:,}, {_clock(passed)}{left}"
        if self._stream.isatty():
            line = f"\r{line}\033[K"
        self._stream.write(line + ("\n" if finished else ""))
        self._stream.flush()


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
