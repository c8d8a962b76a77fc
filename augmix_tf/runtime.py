"""TensorFlow as this package runs it: compiled by XLA; in the program without log lines.

The program, unlike the library, also fixes the settings of Keras and XLA that it relies on.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from absl import logging

from augmix_tf.errors import ArgumentError, FileError

Function = Callable[..., Any]

# A batch is in the making on each core, so a program cut into parts for several cores would wait
# for the cores of another; and all 512 bits are used where the processor has them.
_ONE_PART = "--xla_disable_hlo_passes=cpu-parallel-task-assigner"
_WIDE = "--xla_cpu_prefer_vector_width=512"


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


def import_tensorflow() -> None:
    """Imports TensorFlow and Keras without their log lines, with the settings we rely on.

    Keras's own come from `~/.keras/keras.json` and the environment, where a user may have chosen
    others for other programs.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    tune_xla()
    with silenced():
        import keras
        import tensorflow  # noqa: F401
    keras.config.set_image_data_format("channels_last")
    keras.config.set_floatx("float32")
    keras.config.set_epsilon(1e-7)
    keras.config.set_dtype_policy("float32")


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Within it, what is written to standard error is shown only if an unexpected error ends it.

    No log level silences what the C++ parts of TensorFlow print before logging is set up, so
    standard error goes to a temporary file meanwhile.
    """
    sys.stderr.flush()
    with tempfile.TemporaryFile() as captured:
        kept = os.dup(2)
        os.dup2(captured.fileno(), 2)
        try:
            yield
        except (ArgumentError, FileError):
            raise
        except BaseException:
            captured.seek(0)
            os.write(kept, captured.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def cores() -> int:
    """Returns the number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def tune_xla(processor: Path = Path("/proc/cpuinfo")) -> None:
    """Adds two options to `XLA_FLAGS` where the user has not set them; same views, a third faster.

    Has an effect before XLA is first used. `processor` is what Linux says about it.
    """
    flags = os.environ.get("XLA_FLAGS", "").split()
    wide = "avx512f" in processor_features(processor)
    chosen = {flag.split("=")[0] for flag in flags}
    for flag in (_ONE_PART, _WIDE) if wide else (_ONE_PART,):
        if flag.split("=")[0] not in chosen:
            flags.append(flag)
    os.environ["XLA_FLAGS"] = " ".join(flags)


def processor_features(processor: Path = Path("/proc/cpuinfo")) -> set[str]:
    """Returns the names that Linux gives to the processor's instructions; none elsewhere."""
    try:
        return set(processor.read_text().split())
    except OSError:
        return set()
