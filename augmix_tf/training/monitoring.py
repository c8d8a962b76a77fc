"""TensorBoard events of a training run."""

from __future__ import annotations

import contextlib
import importlib.util
import math
import os
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from augmix_tf.augment.method import Histogram
from augmix_tf.errors import ArgumentError, RunError, require

FRAME = 1  # white pixels around each image


class Monitor:
    """Writes scalars, images and the configuration to a log folder for TensorBoard.

    Every call reaches the disk before it returns, so that a killed run keeps what it logged. Where
    a disk fills up, TensorFlow drops the events silently and training continues.

    A run that resumes repeats the steps after its checkpoint, and those were logged before. A new
    event file therefore starts where older ones lie in the folder (`tf.summary` never appends),
    and a marker tells TensorBoard to forget their later steps. Older files are not changed.

    The results of a run are logged to a directory of their own, which is
    written anew each time.
    """

    def __init__(
        self, folder: str | os.PathLike[str], resumed_step: int = 0, anew: bool = False
    ) -> None:
        """Opens a new event file in `folder`, which is made if need be.

        Args:
            folder: one run's log folder.
            resumed_step: the step of the checkpoint that the run resumes from; what older files
                say of later steps is forgotten. 0: nothing was trained yet, forget all of it.
            anew: removes the event files that lie in the folder.

        Raises:
            ArgumentError: TensorBoard is not installed.
            RunError: the folder cannot be written.
        """
        if importlib.util.find_spec("tensorboard") is None:
            raise ArgumentError("TensorBoard is not installed: python -m pip install tensorboard")
        require(resumed_step >= 0, "a resumed step of 0 or more", resumed_step)
        self.folder = Path(folder)
        self.first_step = resumed_step + 1 if resumed_step else 0
        self._writer: tf.summary.SummaryWriter | None = None
        with self._explained():
            older = list(self.folder.glob("*tfevents*"))
            for path in older if anew else ():
                path.unlink()
            if older and not anew:
                mark_restart(self.folder, self.first_step)
            self._writer = tf.summary.create_file_writer(str(self.folder))
            self._writer.flush()

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Logs numbers.

        Args:
            step: training steps done.
            values: tag, such as `train/loss` -> number. Infinite and NaN values are logged too.

        Raises:
            RunError: they cannot be written.
        """
        with self._writing():
            # One event for all of them takes a fifth of the time of one for each.
            tf.summary.experimental.write_raw_pb(_scalar_event(values), step)

    def views(self, step: int, views: npt.ArrayLike) -> None:
        """Logs one image: a row for each image, the original and then its augmented views.

        Args:
            step: training steps done.
            views: float32 or uint8 [N, V, H, W, C], 0..255; view 0 is the original.

        Raises:
            ArgumentError: views of another rank, or none.
            RunError: it cannot be written.
        """
        values = np.asarray(views)
        require(values.ndim == 5 and values.size > 0, "views [N, V, H, W, C]", values.shape)
        cells = np.rint(np.clip(values, 0, 255)).astype(np.uint8)
        frame = (FRAME, FRAME)
        cells = np.pad(cells, ((0, 0), (0, 0), frame, frame, (0, 0)), constant_values=255)
        rows, columns, height, width, channels = cells.shape
        grid = cells.transpose(0, 2, 1, 3, 4).reshape(1, rows * height, columns * width, channels)
        with self._writing():
            tf.summary.image("views", grid, step)

    def image(self, step: int, tag: str, png: bytes) -> None:
        """Logs an image that was drawn elsewhere.

        Args:
            step: training steps done.
            tag: its name in the dashboard.
            png: the file.

        Raises:
            RunError: it cannot be written.
        """
        with self._writing():
            tf.summary.image(tag, tf.io.decode_png(png, channels=3)[None], step)

    def histograms(self, step: int, histograms: Mapping[str, Histogram]) -> None:
        """Logs how often values fell into bins.

        Args:
            step: training steps done.
            histograms: tag -> what was counted.

        Raises:
            RunError: they cannot be written.
        """
        from tensorboard.plugins.histogram import metadata

        with self._writing():
            for tag, (edges, counts, description, _) in histograms.items():
                bins = np.stack([edges[:-1], edges[1:], counts], axis=1).astype(np.float64)
                tf.summary.write(
                    tag, bins, step, metadata.create_summary_metadata(tag, description)
                )

    def graph(self, graph: tf.Graph) -> None:
        """Logs what a traced function does, for the Graphs tab.

        Args:
            graph: of a concrete function.

        Raises:
            RunError: it cannot be written.
        """
        with self._writing():
            tf.summary.graph(graph)

    def trial(self, name: str, settings: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """Logs the run as a row of the HParams tab, which compares and sorts runs.

        TensorBoard makes the columns: one for each setting, with those first that differ between
        the rows, and one for each scalar of this folder.

        Args:
            name: of the row; the runs of one dashboard need different ones.
            settings: name -> value; those that are no bool, number or text are left out.
            metrics: tag -> value, logged as scalars as well.

        Raises:
            RunError: it cannot be written.
        """
        from tensorboard.plugins.hparams import api

        columns = {n: v for n, v in settings.items() if isinstance(v, bool | int | float | str)}
        row = api.hparams_pb(columns, trial_id=name)
        with self._writing():
            tf.summary.experimental.write_raw_pb(row.SerializeToString(), 0)
            tf.summary.experimental.write_raw_pb(_scalar_event(metrics), 0)

    def config(self, settings: Mapping[str, Any]) -> None:
        """Logs the settings of the run as a table, at the first step that it logs.

        Args:
            settings: name -> value; nested mappings become dotted names.

        Raises:
            RunError: it cannot be written.
        """
        with self._writing():
            tf.summary.text("config", _markdown_table(settings), self.first_step)

    def close(self) -> None:
        """Finishes the event file. Closing twice does no harm."""
        if self._writer is not None:
            writer, self._writer = self._writer, None
            with self._explained():
                writer.close()

    def __enter__(self) -> Monitor:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        if self._writer is None:
            raise ValueError("this Monitor is closed")
        with self._explained(), self._writer.as_default():
            yield
            self._writer.flush()

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (OSError, tf.errors.OpError) as error:
            # Its first line, less TensorFlow's names of its own nodes.
            message = getattr(error, "message", str(error)).splitlines()[0]
            reason = re.sub(r"\{\{.*?\}\} | \[Op:.*", "", message)
            raise RunError(f"cannot write TensorBoard logs to {self.folder}: {reason}") from error


def mark_restart(folder: Path, first_step: int) -> None:
    """Adds an event file that makes TensorBoard forget `first_step` and later steps before it.

    TensorBoard reads the files of a folder in the order of their names, which begin with the
    second in which they were made, then the host. The marker has to stand after all older files
    and before those of this run. So it waits until a younger second has begun (at most one), and
    has a hyphen instead of the host, which sorts before any host name.

    `tf.summary` has no call for this event, hence the file is written as the records that it is.
    It stands there twice, because TensorBoard takes the first one for the start of the old run.
    TensorBoard's native reader needs no marker: it forgets a tag's later steps as soon as an
    earlier one comes.
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


def _markdown_table(settings: Mapping[str, Any]) -> str:
    rows = [f"| `{_cell(name)}` | {_cell(value)} |" for name, value in _flat(settings)]
    return "\n".join(["| setting | value |", "| --- | --- |", *rows])


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _cell(value: object) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")
