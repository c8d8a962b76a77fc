"""The ways in which users run a function on tensors; tests go through all of them."""

import functools
import sys
from collections.abc import Callable
from typing import Any

import pytest
import tensorflow as tf

from augmix_tf import runtime
from augmix_tf.data import pipeline


def eager(function: Callable, *args: Any) -> Any:
    return function(*args)


def graph(function: Callable, *args: Any) -> Any:
    return tf.function(function)(*args)


def tf_data(function: Callable, *args: Any) -> Any:
    return next(iter(tf.data.Dataset.from_tensors(args).map(function)))


def xla(function: Callable, *args: Any) -> Any:
    return tf.function(function, jit_compile=True)(*args)


RUNS = {run.__name__: run for run in (eager, graph, tf_data, xla)}


def compiled_functions() -> dict[tuple[str, str], runtime.Function]:
    """All that XLA compiles in the package, by module and name."""
    found = {
        (module, name): value
        for module in list(sys.modules)
        if module.startswith("augmix_tf.")
        for name, value in vars(sys.modules[module]).items()
        if hasattr(value, "trace_count")
    }
    assert found
    return found


def leave_out_xla(patch: pytest.MonkeyPatch) -> None:
    """Runs plain graphs, as on a machine without XLA: compiling takes longer than the test."""
    patch.setattr(runtime, "xla_available", lambda: False)
    for (module, name), function in compiled_functions().items():
        patch.setattr(sys.modules[module], name, runtime.compiled(function.__wrapped__))
    patch.setattr(pipeline, "view_program", functools.cache(pipeline.view_program.__wrapped__))
