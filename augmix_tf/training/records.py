"""What a run writes down while it trains: `metrics.csv` and TensorBoard, from the same numbers."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from pathlib import Path

import keras

from augmix_tf import files
from augmix_tf.augment.method import Histogram
from augmix_tf.data.pipeline import Position
from augmix_tf.training.monitoring import Monitor

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


class TestError(keras.callbacks.Callback):
    """Adds `test_error` to the logs of each epoch; comes before the callbacks that show it."""

    __test__ = False  # no test for pytest to collect

    def __init__(self, measure: Callable[[], float]) -> None:
        super().__init__()
        self._measure = measure

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Measures it."""
        if logs is not None:
            logs["test_error"] = self._measure()


class Draws(keras.callbacks.Callback):
    """Logs the random parameters of each epoch's first batch, as histograms.

    Args:
        monitor: for TensorBoard.
        steps_per_epoch: of the run.
        draw: epoch, from 0 -> tag -> histogram.
    """

    def __init__(
        self,
        monitor: Monitor,
        steps_per_epoch: int,
        draw: Callable[[int], Mapping[str, Histogram]],
    ) -> None:
        super().__init__()
        self._monitor, self._steps, self._draw = monitor, steps_per_epoch, draw

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Draws and logs."""
        self._monitor.histograms(epoch * self._steps, self._draw(epoch))


class Records(keras.callbacks.Callback):
    """Keeps `metrics.csv` (a row per epoch) and TensorBoard's scalars.

    `train/...` are the means of the epoch so far, at its end those of `metrics.csv`; `step/...` are
    the means over the steps since the last call, from the differences of the sums:

        (steps_b * mean_b - steps_a * mean_a) / (steps_b - steps_a)

    Args:
        path: of the CSV; its rows up to `start` are kept.
        monitor: for TensorBoard.
        steps_per_epoch: of the run.
        start: where this process starts.
        images_per_second: the speed of training so far.
    """

    def __init__(
        self,
        path: Path,
        monitor: Monitor,
        steps_per_epoch: int,
        start: Position,
        images_per_second: Callable[[], float],
    ) -> None:
        super().__init__()
        self._path, self._monitor = path, monitor
        self._steps = steps_per_epoch
        self._speed = images_per_second
        # Steps of the epoch and sums of their means; unknown after a start within an epoch.
        self._seen: tuple[int, dict[str, float]] | None = (0, {}) if start.step == 0 else None
        self._epoch = start.epoch
        self._rows = [row for row in read(path) if int(row["epoch"]) <= start.epoch]

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Notes the epoch."""
        if epoch != self._epoch:
            self._seen = (0, {})
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Logs the means of the epoch so far, and those since the last look."""
        logs = logs or {}
        values = {f"train/{name}": value for name, value in logs.items()}
        values |= {f"step/{name}": value for name, value in self._since_last(batch, logs).items()}
        values["train/learning_rate"] = self._learning_rate()
        values["train/images_per_second"] = self._speed()
        self._monitor.scalars(self._epoch * self._steps + batch + 1, values)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Writes the epoch's row."""
        logs = logs or {}
        step = (epoch + 1) * self._steps
        row: dict[str, object] = {"epoch": epoch + 1, "step": step}
        row |= {name: logs[name] for name in ("loss", "cross_entropy", "jsd")}
        row |= {"train_error": logs["error"], "test_error": logs.get("test_error", "")}
        row |= {
            "learning_rate": self._learning_rate(),
            "images_per_second": round(self._speed(), 1),
        }
        self._rows.append({name: str(value) for name, value in row.items()})
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._rows)
        files.write_text_atomically(self._path, text.getvalue())
        if "test_error" in logs:
            self._monitor.scalars(step, {"test/error": logs["test_error"]})

    def _since_last(self, batch: int, logs: dict[str, float]) -> dict[str, float]:
        steps = batch + 1
        sums = {name: steps * mean for name, mean in logs.items()}
        before, self._seen = self._seen, (steps, sums)
        if before is None:
            return {}
        old_steps, old = before
        return {name: (sums[name] - old.get(name, 0.0)) / (steps - old_steps) for name in sums}

    def _learning_rate(self) -> float:
        """The rate of the last update, which used the step before it."""
        optimizer = getattr(self.model.optimizer, "inner_optimizer", self.model.optimizer)
        schedule = optimizer._learning_rate
        if callable(schedule):
            return float(schedule(max(int(optimizer.iterations.numpy()) - 1, 0)))
        return float(optimizer.learning_rate.numpy())


def read(path: Path) -> list[dict[str, str]]:
    """Returns the rows of a `metrics.csv`; none where there is no file."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
