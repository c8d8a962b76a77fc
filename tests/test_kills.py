"""`kill -9` at any moment, again and again: a run ends with the bytes that it would have had."""

import json
import os
import signal
import time
import traceback
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from augmix_tf.data.pipeline import Position
from augmix_tf.training import loop
from augmix_tf.training.checkpoints import Checkpoints
from augmix_tf.training.optimizer import CoupledSGD
from augmix_tf.training.step import Trainer
from tests.processes import python

EPOCHS, STEPS, BETWEEN_SAVES = 3, 10, 2
KILLS = 6


def train(folder: Path) -> None:
    """One process of the run: starts it or goes on, up to its end.

    Without compiling, which takes the longest: what can break here is what is kept of a step.
    """
    tf.config.run_functions_eagerly(True)
    tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(0)
    layers = keras.layers
    stack = [layers.Input((2, 3, 3)), layers.Flatten(), layers.Dropout(0.5), layers.Dense(3)]
    trainer = Trainer(keras.Sequential(stack))
    trainer.compile(optimizer=CoupledSGD(0.1))
    checkpoints = Checkpoints(trainer, folder)
    start = checkpoints.restore() or Position()
    rng = np.random.default_rng(0)
    views = rng.random((EPOCHS * STEPS, 4, 1, 2, 3, 3)).astype(np.float32)
    batches = tf.data.Dataset.from_tensor_slices((views, rng.integers(0, 3, views.shape[:2])))
    loop.train(
        trainer,
        batches.skip(start.epoch * STEPS + start.step),
        epochs=EPOCHS,
        steps_per_epoch=STEPS,
        start=start,
        save=checkpoints.save,
        checkpoint_steps=BETWEEN_SAVES,
        steps_per_call=1,
    )


def forked(folder: Path) -> int:
    process = os.fork()
    if process:
        return process
    try:
        train(folder)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def saved(folder: Path) -> int:
    numbers = [int(path.stem.split("-")[1]) for path in folder.glob("ckpt-*.index")]
    return max(numbers, default=0)


def is_writing(folder: Path) -> bool:
    return any(folder.glob("ckpt-*_temp"))


def killed(folder: Path, in_a_write: bool, delay: float) -> str:
    """Lets a process come one checkpoint further and kills it then, or within the next write.

    Returns "writing" where that came into a write, "stepping" otherwise, or "done".
    """
    before, process = saved(folder), forked(folder)
    while not (ended := os.waitpid(process, os.WNOHANG))[0]:
        if saved(folder) > before and is_writing(folder) == in_a_write:
            time.sleep(delay)
            os.kill(process, signal.SIGKILL)
            ended = os.waitpid(process, 0)
            break
    if ended[1] == signal.SIGKILL:
        return "writing" if is_writing(folder) else "stepping"
    assert ended[1] == 0, "the process failed"
    return "done"


def print_kills(whole: str, broken: str) -> None:
    """For a process of its own: TensorFlow is imported once, and starts anew in each fork."""
    assert os.waitpid(forked(Path(whole)), 0)[1] == 0
    rng, outcomes = np.random.default_rng(7), []
    while (len(outcomes) < KILLS or outcomes.count("writing") < 2) and "done" not in outcomes:
        in_a_write, at_once = len(outcomes) % 2 == 0, len(outcomes) % 4 == 0
        delay = 0.0 if at_once else rng.uniform(0.0, 0.004 if in_a_write else 0.05)
        outcomes.append(killed(Path(broken), in_a_write, delay))
    if "done" not in outcomes:
        assert os.waitpid(forked(Path(broken)), 0)[1] == 0
    print(json.dumps(outcomes))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot fork")
def test_a_run_that_is_killed_six_times_ends_with_the_same_bytes(tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    code = f"from tests import test_kills as t; t.print_kills({str(whole)!r}, {str(broken)!r})"
    # A fork keeps only one thread, so none may have been started before.
    outcomes = json.loads(python(code, OPENBLAS_NUM_THREADS="1").splitlines()[-1])
    assert len(outcomes) >= KILLS
    assert "done" not in outcomes
    assert outcomes.count("writing") >= 2
    assert outcomes.count("stepping") >= 2

    ours, wanted = (tf.train.load_checkpoint(str(folder)) for folder in (broken, whole))
    shapes = wanted.get_variable_to_shape_map()
    assert ours.get_variable_to_shape_map() == shapes
    assert len(shapes) > 12
    for name in shapes:
        if "OBJECT_GRAPH" not in name:
            ours_bytes = np.asarray(ours.get_tensor(name)).tobytes()
            assert ours_bytes == np.asarray(wanted.get_tensor(name)).tobytes(), name
    assert ours.get_tensor("epoch/.ATTRIBUTES/VARIABLE_VALUE") == EPOCHS
    assert not [path.name for path in broken.iterdir() if path.name.endswith("_temp")]
