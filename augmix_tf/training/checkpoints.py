"""All that a run needs to go on as if it had never stopped."""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf

from augmix_tf.checks import RunError
from augmix_tf.data.pipeline import Position
from augmix_tf.training.step import Trainer


class Checkpoints:
    """Saves and restores a trainer, its optimiser, running means, chance and position.

    A checkpoint is written under a new name and becomes the newest only when it is whole; the one
    before is kept.
    """

    def __init__(self, trainer: Trainer, folder: Path) -> None:
        optimizer = trainer.optimizer
        optimizer.build(trainer.trainable_variables)
        self._epoch = tf.Variable(0, dtype=tf.int64, name="epoch")
        self._step = tf.Variable(0, dtype=tf.int64, name="step")
        # Keras keeps the states of its seed generators (dropout) and metrics out of checkpoints.
        seeds = [v.value for v in trainer.classifier.variables if "seed" in v.path]
        means = [v.value for metric in trainer.metrics for v in metric.variables]
        self._checkpoint = tf.train.Checkpoint(
            classifier=trainer.classifier,
            # Batch normalisation that other views than the clean one have of their own.
            other_views=list(trainer.classifiers[1:]),
            optimizer=optimizer,
            seeds=seeds,
            means=means,
            epoch=self._epoch,
            step=self._step,
        )
        self._manager = tf.train.CheckpointManager(self._checkpoint, str(folder), max_to_keep=2)

    def save(self, position: Position) -> None:
        """Saves everything, with the position of the next batch.

        Raises:
            RunError: the checkpoint could not be written.
        """
        self._epoch.assign(position.epoch)
        self._step.assign(position.step)
        try:
            self._manager.save()
        except (tf.errors.OpError, OSError) as error:
            reason = str(getattr(error, "message", error)).splitlines()[0]
            raise RunError(
                f"cannot write a checkpoint to {self._manager.directory}: {reason}"
            ) from error

    def restore(self) -> Position | None:
        """Restores the newest checkpoint and returns its position; None where there is none."""
        if not self._manager.latest_checkpoint:
            return None
        try:
            status = self._checkpoint.restore(self._manager.latest_checkpoint)
            status.assert_existing_objects_matched()
        # TensorFlow raises an IndexError for a file that ends too early.
        except (tf.errors.OpError, AssertionError, ValueError, IndexError, OSError) as error:
            reason = str(error).splitlines()[0]
            raise RunError(f"cannot read {self._manager.latest_checkpoint}: {reason}") from error
        return Position(int(self._epoch.numpy()), int(self._step.numpy()))
