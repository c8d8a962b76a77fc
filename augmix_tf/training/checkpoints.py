"""Everything that a run needs to resume as if it had never stopped."""

from __future__ import annotations

import math
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

import tensorflow as tf

from augmix_tf.data.pipeline import Position
from augmix_tf.errors import FileError, RunError
from augmix_tf.training import checkpoint_files, distribution
from augmix_tf.training.step import Trainer


class Best(NamedTuple):
    """The lowest test error of a run so far, a share, and the epoch (from 1) that it came after."""

    error: float
    epoch: int


_NOTHING = Best(math.inf, 0)


class Checkpoints:
    """Saves and restores a trainer, its optimiser, running means, random state and position.

    A checkpoint is written under a hidden name and becomes the newest only when it is whole and on
    the disk; the one before is kept. Where several workers train together all of them save and
    restore at the same time, and the files of one count. The number of replicas may change between
    saving and restoring.

    Args:
        trainer: with an optimiser.
        folder: of the checkpoints, the same for all workers; made when it is first saved to.
        chief: whether this process's files count.
        data: tells the training data from others; a checkpoint of others is refused.
    """

    def __init__(self, trainer: Trainer, folder: Path, chief: bool = True, data: int = 0) -> None:
        self._trainer, self._folder, self._chief = trainer, folder, chief
        self._data_here = data
        self._damaged: set[int] = set()
        with self._strategy.scope():
            trainer.optimizer.build(trainer.trainable_variables)
            self._epoch = tf.Variable(0, dtype=tf.int64, name="epoch")
            self._step = tf.Variable(0, dtype=tf.int64, name="step")
            self._data = tf.Variable(data, dtype=tf.int64, name="data")
            self._best_error = tf.Variable(math.nan, dtype=tf.float64, name="best_error")
            self._best_epoch = tf.Variable(0, dtype=tf.int64, name="best_epoch")
            self._calibration = tf.Variable(math.nan, dtype=tf.float64, name="calibration")
        # Keras keeps the states of its seed generators (dropout) and metrics out of checkpoints.
        seeds = [v.value for v in trainer.classifier.variables if "seed" in v.path]
        means = [v.value for metric in trainer.metrics for v in metric.variables]
        self._checkpoint = tf.train.Checkpoint(
            classifier=trainer.classifier,
            # Batch normalisation that other views than the clean one have of their own.
            other_views=list(trainer.classifiers[1:]),
            optimizer=trainer.optimizer,
            seeds=seeds,
            means=means,
            epoch=self._epoch,
            step=self._step,
            data=self._data,
            best_error=self._best_error,
            best_epoch=self._best_epoch,
            calibration=self._calibration,
        )

    @property
    def position(self) -> Position:
        """The position that was saved or restored last; the run's first before."""
        return Position(int(self._epoch.numpy()), int(self._step.numpy()))

    @property
    def best(self) -> Best | None:
        """The best epoch so far, the first of equals; None where no test error was measured."""
        epoch = int(self._best_epoch.numpy())
        return Best(float(self._best_error.numpy()), epoch) if epoch else None

    @property
    def temperature(self) -> float | None:
        """What the logits of these very weights are to be divided by; None where not fitted."""
        temperature = float(self._calibration.numpy())
        return None if math.isnan(temperature) else temperature

    def save(self, position: Position, test_error: float | None = None) -> None:
        """Saves everything, with the position of the next batch.

        Args:
            position: of the next batch; its `epoch` counts the whole epochs before it.
            test_error: as measured after these epochs; None: it was not.

        Raises:
            RunError: a weight is not finite. The checkpoints from before are kept.
            FileError: the files could not be written. The checkpoints from before are kept.
        """
        with self._strategy.scope(), distribution.reraise_as_run_error():
            self._require_finite(position)
            self._epoch.assign(position.epoch)
            self._step.assign(position.step)
            self._calibration.assign(math.nan)  # a temperature belongs to the weights before
            if test_error is not None and test_error < (self.best or _NOTHING).error:
                self._best_error.assign(test_error)
                self._best_epoch.assign(position.epoch)
            self._write()

    def calibrated(self, temperature: float) -> None:
        """Saves the checkpoint that was saved or restored last again, with its temperature.

        Raises:
            FileError: the files could not be written.
        """
        with self._strategy.scope(), distribution.reraise_as_run_error():
            self._calibration.assign(temperature)
            self._write()

    def restore(self) -> Position | None:
        """Restores the newest checkpoint that is whole and returns its position.

        Damaged ones are named on standard error; they go with the next save. What a killed process
        left half written is removed.

        Returns:
            The position of the next batch; None where there is no checkpoint.

        Raises:
            FileError: there are checkpoints, and none can be read or belongs to this trainer.
            RunError: the newest is of other training data.
        """
        if self._chief:
            checkpoint_files.remove_left_over(self._folder)
        damaged: dict[int, str] = {}
        for number in checkpoint_files.numbers(self._folder):
            why = checkpoint_files.damage(self._folder, number) or self._mismatch(number)
            if why is None:
                self._require_same_data()
                self._say(damaged, f"ckpt-{number} is used")
                self._damaged = set(damaged)
                return self.position
            damaged[number] = why
        if damaged:
            raise FileError(f"Cannot read {self._folder}: {_listed(damaged)}.")
        return None

    @property
    def _strategy(self) -> tf.distribute.Strategy:
        return self._trainer.distribute_strategy

    def _mismatch(self, number: int) -> str | None:
        """Restores a checkpoint that is whole; returns why it does not belong to the trainer."""
        try:
            with self._strategy.scope():
                status = self._checkpoint.read(str(self._folder / f"ckpt-{number}"))
            # Otherwise TensorFlow lists what was not restored when the program ends.
            status.expect_partial().assert_existing_objects_matched()
        except (tf.errors.OpError, AssertionError, ValueError, IndexError, OSError) as error:
            return distribution.first_line(error)
        return None

    def _write(self) -> None:
        place: AbstractContextManager[str]
        if self._chief:
            number = checkpoint_files.highest(self._folder) + 1
            place = checkpoint_files.unfinished(self._folder, number)
        else:
            place = checkpoint_files.elsewhere(self._folder)
        try:
            with place as prefix, distribution.reraise_as_run_error():
                self._checkpoint.write(prefix)
            if self._chief:
                checkpoint_files.keep_newest(self._folder, self._damaged)
        except (tf.errors.OpError, OSError) as error:
            why = distribution.first_line(error)
            raise FileError(f"Cannot write a checkpoint to {self._folder}: {why}.") from error

    def _require_finite(self, position: Position) -> None:
        for variable in (*self._trainer.weights, *self._trainer.optimizer.variables):
            value = tf.convert_to_tensor(variable)
            if value.dtype.is_floating and not tf.reduce_all(tf.math.is_finite(value)):
                raise RunError(
                    f"{variable.path} is not finite {_words(position)}, so no checkpoint is saved; "
                    "the last one is kept. Lower the learning rate or the weight of the "
                    "consistency loss, or train in float32."
                )

    def _require_same_data(self) -> None:
        if int(self._data.numpy()) != self._data_here:
            raise RunError(
                f"The training data are not those that {self._folder.parent} began with: the "
                "labels differ, or other examples were left out. Use the same data, or another "
                "run directory."
            )

    def _say(self, damaged: dict[int, str], used: str) -> None:
        if damaged and self._chief:
            text = f"damaged in {self._folder}: {_listed(damaged)}; {used}"
            print(text, file=sys.stderr, flush=True)


def _listed(damaged: dict[int, str]) -> str:
    return ", ".join(f"ckpt-{number} ({why})" for number, why in damaged.items())


def _words(position: Position) -> str:
    if position.step:
        return f"after step {position.step} of epoch {position.epoch + 1}"
    return f"after epoch {position.epoch}"
