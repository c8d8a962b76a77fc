"""Callbacks of a run: progress, `metrics.csv`, TensorBoard events and a profile."""

from __future__ import annotations

import contextlib
import csv
import importlib.util
import io
import math
import os
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tqdm import auto, std

from augmix_tf import errors, files
from augmix_tf.augment.method import Histogram
from augmix_tf.data.pipeline import Position
from augmix_tf.errors import ArgumentError, RunError
from augmix_tf.training.loop import STEPS_PER_CALL

COLUMNS = (
    "epoch",
    "step",
    "loss",
    "cross_entropy",
    "jsd",
    "train_error",
    "test_error",
    "learning_rate",
    "images_per_second",
)


def progress_bar(**options: Any) -> auto.tqdm:
    """Returns a bar that is shown on a terminal and in a notebook only."""
    in_notebook = auto.notebook_tqdm is not std.tqdm
    shown = in_notebook or sys.stderr.isatty()
    return auto.tqdm(disable=not shown, leave=False, file=sys.stderr, **options)


class Counter:
    """Shows the progress of a piece of work, then one line."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._bar: auto.tqdm | None = None

    def __call__(self, done: int, total: int) -> None:
        """Updates the bar; call it once before anything is done, and with all done."""
        if self._bar is None:
            self._began = time.perf_counter()
            self._bar = progress_bar(desc=self._what, total=total, initial=done)
        self._bar.update(done - self._bar.n)
        if done >= total:
            self._bar.close()
            duration = auto.tqdm.format_interval(time.perf_counter() - self._began)
            print(f"{self._what}: {total:,} in {duration}", file=sys.stderr, flush=True)


class _OfRun(keras.callbacks.Callback):
    """Knows the epoch, and so the number of a step within the run."""

    def __init__(self, steps_per_epoch: int) -> None:
        super().__init__()
        self._steps, self._epoch = steps_per_epoch, 0

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._epoch = epoch

    def _done(self, batch: int) -> int:
        return self._epoch * self._steps + batch


class Progress(_OfRun):
    """Shows a bar for the whole run, and prints a line after each epoch.

    `start` is the position at which this process starts.
    """

    def __init__(
        self, epochs: int, steps_per_epoch: int, batch_size: int, start: Position = Position()
    ) -> None:
        super().__init__(steps_per_epoch)
        self._epochs, self._batch_size = epochs, batch_size
        # Time and images so far, after the first call (which compiles) and now.
        self._first = self._last = (0.0, 0)
        self._bar = progress_bar(
            total=epochs * steps_per_epoch * batch_size,
            initial=(start.epoch * steps_per_epoch + start.step) * batch_size,
            unit=" images",
            unit_scale=True,
        )

    @property
    def images_per_second(self) -> float:
        """The mean throughput of this process, without the first steps; 0 during those."""
        (began, before), (now, images) = self._first, self._last
        return (images - before) / (now - began) if images > before else 0.0

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        images = self._done(batch + 1) * self._batch_size
        self._last = (time.perf_counter(), images)
        if not self._first[1]:
            self._first = self._last
        self._bar.set_description(f"epoch {self._epoch + 1}/{self._epochs}", refresh=False)
        self._bar.set_postfix_str(_metrics_text(logs or {}), refresh=False)
        self._bar.update(images - self._bar.n)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        speed = self.images_per_second
        parts = [f"epoch {epoch + 1}/{self._epochs}", f"{speed:.0f} images/s" if speed else ""]
        parts.append(_metrics_text(logs or {}))
        self._bar.write("  ".join(filter(None, parts)), file=sys.stderr)
        sys.stderr.flush()

    def close(self) -> None:
        self._bar.close()


def _metrics_text(logs: Mapping[str, float]) -> str:
    labels = {"error": "train error", "test_error": "test error"}
    parts = [f"{name} {logs[name]:.4f}" for name in ("loss", "jsd") if name in logs]
    parts += [f"{text} {100 * logs[name]:.1f} %" for name, text in labels.items() if name in logs]
    return "  ".join(parts)


class Records(_OfRun):
    """Writes `metrics.csv` (a row per epoch) and TensorBoard's scalars.

    `train/...` are the means of the epoch so far, at its end those of `metrics.csv`; `step/...` are
    the means over the steps since the last call, from the differences of the sums:

        (steps_b * mean_b - steps_a * mean_a) / (steps_b - steps_a)

    Rows of the CSV up to `start`, where this process starts, are kept. `progress` knows the
    throughput; it is called before.
    """

    def __init__(
        self,
        path: Path,
        monitor: Monitor,
        steps_per_epoch: int,
        start: Position,
        progress: Progress,
    ) -> None:
        super().__init__(steps_per_epoch)
        self._path, self._monitor, self._progress = path, monitor, progress
        self._start = start
        # Steps of the epoch and sums of their means.
        self._before: tuple[int, dict[str, float]] | None = None
        self._rows: list[dict[str, Any]] = []
        if path.exists():
            with path.open(newline="") as file:
                rows = csv.DictReader(file)
                self._rows += [row for row in rows if int(row["epoch"]) <= start.epoch]

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        super().on_epoch_begin(epoch)
        # The sums are unknown after a start within an epoch.
        self._before = None if epoch == self._start.epoch and self._start.step else (0, {})

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Logs the means of the epoch so far, and those since the last call."""
        logs, steps = logs or {}, batch + 1
        values = {f"train/{name}": value for name, value in logs.items()}
        sums = {name: steps * mean for name, mean in logs.items()}
        if self._before is not None:
            count, before = self._before
            for name, total in sums.items():
                values[f"step/{name}"] = (total - before.get(name, 0.0)) / (steps - count)
        self._before = steps, sums
        values["train/learning_rate"] = self._learning_rate()
        values["train/images_per_second"] = self._progress.images_per_second
        self._monitor.scalars(self._done(steps), values)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        logs = logs or {}
        step, test_error = self._done(self._steps), logs.get("test_error", "")
        means = [logs[name] for name in ("loss", "cross_entropy", "jsd", "error")]
        speed = round(self._progress.images_per_second, 1)
        row = [epoch + 1, step, *means, test_error, self._learning_rate(), speed]
        self._rows.append(dict(zip(COLUMNS, row, strict=True)))
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._rows)
        files.write_text_atomically(self._path, text.getvalue())
        if "test_error" in logs:
            self._monitor.scalars(step, {"test/error": logs["test_error"]})

    def _learning_rate(self) -> float:
        """The rate of the last update, which used the step before it."""
        optimizer = getattr(self.model.optimizer, "inner_optimizer", self.model.optimizer)
        schedule = optimizer._learning_rate
        if callable(schedule):
            return float(schedule(max(int(optimizer.iterations.numpy()) - 1, 0)))
        return float(optimizer.learning_rate.numpy())


class Profile(_OfRun):
    """Writes a profile of the loop's calls that hold some steps, for TensorBoard's Profile tab.

    The loop calls its callbacks every eight steps or fewer, so a few more steps may be profiled.
    Steps, the first and the last one, are counted from 1 over the whole run. Those that an earlier
    process trained are not profiled again.
    """

    def __init__(self, folder: Path, steps: tuple[int, int], steps_per_epoch: int) -> None:
        super().__init__(steps_per_epoch)
        self._first, self._last = steps
        self._folder, self._running = folder, False

    def on_train_batch_begin(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Starts the profiler if the next call may hold the first step, or one after it."""
        is_near = self._first - STEPS_PER_CALL <= self._done(batch) < self._last
        if is_near and not self._running:
            with _about_logs(self._folder):
                tf.profiler.experimental.start(str(self._folder))
            self._running = True

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Writes the profile after the last step."""
        if self._done(batch + 1) >= self._last:
            self.close()

    def close(self) -> None:
        if self._running:
            self._running = False
            with _about_logs(self._folder):
                tf.profiler.experimental.stop()


class Monitor(contextlib.AbstractContextManager):
    """Writes TensorBoard events: scalars, images, histograms, a graph and the configuration.

    Every call reaches the disk before it returns, so that a killed run keeps what it logged. Where
    a disk fills up, TensorFlow drops the events silently and training continues.

    A run that resumes repeats the steps after its checkpoint, and those were logged before. A new
    event file therefore starts where older ones lie in the folder (`tf.summary` never appends),
    and a marker tells TensorBoard to forget their later steps. Older files are not changed.

    `resumed_step` is that of the checkpoint that the run resumes from; later steps of older files
    are forgotten (0: all of them). `anew` removes the older files.
    """

    def __init__(self, folder: files.PathLike, resumed_step: int = 0, anew: bool = False) -> None:
        if importlib.util.find_spec("tensorboard") is None:
            raise ArgumentError("TensorBoard is not installed: python -m pip install tensorboard")
        self.folder = Path(folder)
        self.first_step = resumed_step + 1 if resumed_step else 0
        with _about_logs(self.folder):
            older = list(self.folder.glob("*tfevents*"))
            for path in older if anew else ():
                path.unlink()
            if older and not anew:
                _mark_restart(self.folder, self.first_step)
            self._writer = tf.summary.create_file_writer(os.fspath(folder))
            self._writer.flush()

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Logs tag -> number after `step` training steps; NaN and infinity too."""
        with self._writing():
            # One event for all of them takes a fifth of the time of one for each.
            tf.summary.experimental.write_raw_pb(_scalar_event(values), step)

    def image(self, step: int, tag: str, png: bytes) -> None:
        with self._writing():
            tf.summary.image(tag, tf.io.decode_png(png, channels=3)[None], step)

    def histograms(self, step: int, histograms: Mapping[str, Histogram]) -> None:
        """Logs tag -> counts in bins."""
        from tensorboard.plugins.histogram import metadata

        with self._writing():
            for tag, (edges, counts, description) in histograms.items():
                bins = np.stack([edges[:-1], edges[1:], counts], axis=1).astype(np.float64)
                tf.summary.write(
                    tag, bins, step, metadata.create_summary_metadata(tag, description)
                )

    def graph(self, graph: tf.Graph) -> None:
        """Logs the graph of a concrete function, for the Graphs tab."""
        with self._writing():
            tf.summary.graph(graph)

    def trial(self, name: str, settings: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """Logs the run as a row of the HParams tab, under a name that is unique there.

        Settings other than bools, numbers and texts are left out.
        """
        from tensorboard.plugins.hparams import api

        columns = {n: v for n, v in settings.items() if isinstance(v, bool | int | float | str)}
        row = api.hparams_pb(columns, trial_id=name)
        with self._writing():
            tf.summary.experimental.write_raw_pb(row.SerializeToString(), 0)
            tf.summary.experimental.write_raw_pb(_scalar_event(metrics), 0)

    def __exit__(self, *error: object) -> None:
        with _about_logs(self.folder):
            self._writer.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        with _about_logs(self.folder), self._writer.as_default():
            yield
            self._writer.flush()


@contextlib.contextmanager
def _about_logs(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, tf.errors.OpError) as error:
        reason = errors.first_line(error)
        raise RunError(f"cannot write TensorBoard logs to {folder}: {reason}") from error


def _mark_restart(folder: Path, first_step: int) -> None:
    """Adds an event file that makes TensorBoard forget `first_step` and later steps before it.

    TensorBoard reads the files of a folder in the order of their names, which begin with the
    second in which they were made, then the host. So the marker waits for a younger second than
    that of all older files, and a hyphen instead of the host sorts it before those of this run. The
    event is written twice, because TensorBoard takes the first one for the start of the old run.
    """
    stamps = [path.name.partition("tfevents.")[2][:10] for path in folder.glob("*tfevents*")]
    if f"{int(time.time()):010d}" in stamps:
        time.sleep(1 - math.modf(time.time())[0])
    now = time.time()
    session = tf.compat.v1.SessionLog(status=tf.compat.v1.SessionLog.START)
    start = tf.compat.v1.Event(wall_time=now, step=first_step, session_log=session)
    version = tf.compat.v1.Event(wall_time=now, file_version="brain.Event:2")
    with tf.io.TFRecordWriter(str(folder / f"events.out.tfevents.{int(now):010d}.-.v2")) as file:
        for event in (version, start, start):
            file.write(event.SerializeToString())


def _scalar_event(values: Mapping[str, float]) -> bytes:
    from tensorboard.plugins.scalar.summary_v2 import scalar_pb

    # Messages of one kind that stand behind each other are read as one with all their values.
    return b"".join(scalar_pb(tag, value).SerializeToString() for tag, value in values.items())
