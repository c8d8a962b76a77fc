"""Compilation by XLA, where it is available."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from absl import logging

Function = Callable[..., Any]


def compiled(function: Function) -> Function:
    """Decorator: runs `function` compiled by XLA, or as a plain graph where XLA is missing.

    Arguments that are not tensors are part of the program, as in `tf.function`. Without XLA the
    results are the same and much slower; a warning is logged once. TensorFlow is imported at the
    first call.
    """

    @functools.cache
    def build() -> Function:
        import tensorflow as tf

        return tf.function(function, jit_compile=xla_available(), autograph=False)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return build()(*args, **kwargs)

    call.trace_count = lambda: build().experimental_get_tracing_count()  # type: ignore[attr-defined]
    return call


@functools.cache
def xla_available() -> bool:
    """Whether TensorFlow can compile with XLA here; logs a warning once where it cannot."""
    import tensorflow as tf

    with tf.init_scope():
        try:
            tf.function(lambda x: x + 1, jit_compile=True)(tf.constant(0))
        except tf.errors.OpError as error:
            logging.warning("XLA cannot compile here; AugMix will be slow: %s", error.message)
            return False
    return True
