"""The ways in which users run a function on tensors; tests go through all of them."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf


def eager(function: Callable, *args: Any) -> Any:
    return function(*args)


def graph(function: Callable, *args: Any) -> Any:
    return tf.function(function)(*args)


def tf_data(function: Callable, *args: Any) -> Any:
    return next(iter(tf.data.Dataset.from_tensors(args).map(function)))


def xla(function: Callable, *args: Any) -> Any:
    return tf.function(function, jit_compile=True)(*args)


RUNS = {run.__name__: run for run in (eager, graph, tf_data, xla)}
