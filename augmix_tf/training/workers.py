"""Several processes that train together: whether there are any, and what their loss looks like."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import tensorflow as tf

from augmix_tf.checks import RunError

# What a collective operation raises when one of those that take part is gone.
_GONE = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.InternalError,
    tf.errors.DeadlineExceededError,
    tf.errors.CancelledError,
)


def several() -> bool:
    """Whether the current strategy spreads over several processes, each with its own program."""
    strategy = tf.distribute.get_strategy()
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return False
    tasks = strategy.cluster_resolver.cluster_spec().as_dict()
    return sum(len(tasks.get(kind, ())) for kind in ("chief", "worker")) > 1


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Says what an error of TensorFlow within the block means where there are several workers.

    Raises:
        RunError: another worker stopped.
    """
    try:
        yield
    except _GONE as error:
        if not several():
            raise
        raise RunError(
            f"another worker stopped, or the connection to it ({reason(error)}); the last "
            "checkpoint is kept: start all workers again with the same commands"
        ) from error


def reason(error: Exception) -> str:
    """The first line of what TensorFlow or the system says, without the name of an operation."""
    text = str(getattr(error, "message", error))
    lines = re.sub(r"\{\{.*?\}\}", "", text).strip().splitlines()
    return lines[0].rstrip(":") if lines else type(error).__name__
