"""Everything that a run needs to resume as if it had never stopped."""

from __future__ import annotations

import contextlib
import math
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import tensorflow as tf

from augmix_tf import files
from augmix_tf.data.pipeline import Position
from augmix_tf.errors import FileError, RunError, first_line
from augmix_tf.training import distribution
from augmix_tf.training.step import Trainer

KEPT = 2


class Best(NamedTuple):
    """The lowest test error of a run so far, a share, and the epoch (from 1) that it came after."""

    error: float
    epoch: int


class Checkpoints:
    """Saves and restores a trainer, its optimizer, running means, random state and position.

    `tf.train.CheckpointManager` writes the files and keeps the newest two. Where several workers
    train together all of them save and restore at the same time, and the files of one count. The
    number of replicas may change between saving and restoring.

    The files of the `chief` count, and all workers have the same `folder`. `data` tells the
    training data from others, whose checkpoints are refused.
    """

    def __init__(self, trainer: Trainer, folder: Path, chief: bool = True, data: int = 0) -> None:
        self._trainer, self._folder, self._chief = trainer, folder, chief
        self._data = data
        self._number = 0  # of the checkpoint that was saved or restored last
        integers = {"epoch": 0, "step": 0, "data": data, "best_epoch": 0}
        floats = {"best_error": math.nan, "calibration": math.nan}
        with self._strategy.scope():
            trainer.optimizer.build(trainer.trainable_variables)
            self._values = {n: tf.Variable(v, dtype=tf.int64, name=n) for n, v in integers.items()}
            self._values |= {n: tf.Variable(v, dtype=tf.float64, name=n) for n, v in floats.items()}
        # Keras keeps the states of its seed generators (dropout) and metrics out of checkpoints.
        seeds = [v.value for v in trainer.classifier.variables if "seed" in v.path]
        means = [v.value for metric in trainer.metrics for v in metric.variables]
        self._checkpoint = tf.train.Checkpoint(
            classifier=trainer.classifier,
            # Batch normalization of the views other than the clean one.
            other_views=list(trainer.classifiers[1:]),
            optimizer=trainer.optimizer,
            seeds=seeds,
            means=means,
            **self._values,
        )
        with self._strategy.scope():
            # Created now, so that it is restored with the rest and not when the manager needs it.
            self._checkpoint.save_counter.assign(0)

    @property
    def position(self) -> Position:
        """The position that was saved or restored last; the run's first before."""
        return Position(int(self._values["epoch"].numpy()), int(self._values["step"].numpy()))

    @property
    def best(self) -> Best | None:
        """The best epoch so far, the first of equals; None where no test error was measured."""
        epoch = int(self._values["best_epoch"].numpy())
        return Best(float(self._values["best_error"].numpy()), epoch) if epoch else None

    @property
    def temperature(self) -> float | None:
        """What the logits of these very weights are to be divided by; None where not fitted."""
        temperature = float(self._values["calibration"].numpy())
        return None if math.isnan(temperature) else temperature

    def save(self, position: Position, test_error: float | None = None) -> None:
        """Saves everything, with the position of the next batch and the test error if measured.

        After an error, the checkpoints from before are kept.
        """
        with self._strategy.scope(), distribution.reraise_as_run_error():
            self._require_finite(position)
            values = position._asdict() | {"calibration": math.nan}  # of the weights before
            if test_error is not None and test_error < (self.best or Best(math.inf, 0)).error:
                values |= {"best_error": test_error, "best_epoch": position.epoch}
            for name, value in values.items():
                self._values[name].assign(value)
            self._write()

    def calibrated(self, temperature: float) -> None:
        """Saves the checkpoint that was saved or restored last again, with its temperature."""
        with self._strategy.scope(), distribution.reraise_as_run_error():
            self._values["calibration"].assign(temperature)
            self._write()

    def restore(self) -> Position | None:
        """Restores the newest checkpoint that can be read; None where there is none at all.

        Damaged ones are named on standard error; later checkpoints replace them.
        """
        damaged: dict[int, str] = {}
        with files.without_patterns(self._folder) as folder:
            for number in _numbers(folder):
                try:
                    with self._strategy.scope():
                        status = self._checkpoint.read(str(folder / f"ckpt-{number}"))
                    # Otherwise TensorFlow lists what was not restored when the program ends.
                    status.expect_partial().assert_existing_objects_matched()
                # TensorFlow raises an IndexError for a file that ends too early.
                except (tf.errors.OpError, AssertionError, ValueError, IndexError) as error:
                    damaged[number] = first_line(error).replace(f"{folder}/", "")
                    continue
                self._number = number
                self._require_same_data()
                if damaged and self._chief:
                    text = f"damaged in {self._folder}: {_listed(damaged)}; ckpt-{number} is used"
                    print(text, file=sys.stderr, flush=True)
                return self.position
        if damaged:
            raise FileError(f"Cannot read {self._folder}: {_listed(damaged)}.")
        return None

    @property
    def _strategy(self) -> tf.distribute.Strategy:
        return self._trainer.distribute_strategy

    def _write(self) -> None:
        try:
            with distribution.reraise_as_run_error():
                if self._chief:
                    self._folder.mkdir(parents=True, exist_ok=True)
                    with files.without_patterns(self._folder) as folder:
                        self._write_to(folder)
                else:
                    with tempfile.TemporaryDirectory() as elsewhere:
                        tf.train.CheckpointManager(self._checkpoint, elsewhere, KEPT).save()
        except (tf.errors.OpError, OSError) as error:
            why = first_line(error)
            raise FileError(f"Cannot write a checkpoint to {self._folder}: {why}.") from error

    def _write_to(self, folder: Path) -> None:
        number = self._number + 1
        try:
            manager = tf.train.CheckpointManager(self._checkpoint, str(folder), KEPT)
        except ValueError:  # the file `checkpoint` is damaged
            (folder / "checkpoint").unlink()
            manager = tf.train.CheckpointManager(self._checkpoint, str(folder), KEPT)
        try:
            manager.save(number)
        except BaseException:
            _remove(folder.glob(f"ckpt-{number}*"))
            raise
        for path in (*folder.glob(f"ckpt-{number}.*"), folder):
            files.sync(path)
        # What an interrupted process left, and checkpoints that the manager does not know.
        kept = {f"ckpt-{self._number}", *(Path(path).name for path in manager.checkpoints)}
        _remove(path for path in folder.glob("ckpt-*") if path.stem not in kept)
        self._number = number

    def _require_finite(self, position: Position) -> None:
        epoch, step = position
        when = f"after step {step} of epoch {epoch + 1}" if step else f"after epoch {epoch}"
        for variable in (*self._trainer.weights, *self._trainer.optimizer.variables):
            value = tf.convert_to_tensor(variable)
            if value.dtype.is_floating and not tf.reduce_all(tf.math.is_finite(value)):
                raise RunError(
                    f"{variable.path} is not finite {when}, so no checkpoint is saved; "
                    "the last one is kept. Lower the learning rate or the weight of the "
                    "consistency loss, or train in float32."
                )

    def _require_same_data(self) -> None:
        if int(self._values["data"].numpy()) != self._data:
            raise RunError(
                f"The training data are not those that {self._folder.parent} began with: the "
                "labels or the images to mix with differ, or other examples were left out. Use the "
                "same data, or another run directory."
            )


def _numbers(folder: Path) -> list[int]:
    """The numbers of the checkpoints that were complete once, the newest first.

    The index of a checkpoint is written last. One that lost its index is damaged, not absent.
    """
    text = " ".join(path.name for path in folder.glob("ckpt-*.index"))
    with contextlib.suppress(OSError):
        text += (folder / "checkpoint").read_text(errors="replace")
    return sorted({int(number) for number in re.findall(r"ckpt-(\d+)", text)}, reverse=True)


def _remove(paths: Iterable[Path]) -> None:
    # The index first: data without an index are no checkpoint.
    for path in sorted(paths, key=lambda path: path.suffix != ".index"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _listed(damaged: Mapping[int, str]) -> str:
    return ", ".join(f"ckpt-{number} ({why})" for number, why in damaged.items())
