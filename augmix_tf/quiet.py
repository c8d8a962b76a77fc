"""Imports TensorFlow without its log lines, and sets what a user may have set otherwise."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from augmix_tf.errors import ArgumentError, FileError

# A batch is in the making on each core, so a program cut into parts for several cores would wait
# for the cores of another; and all 512 bits are used where the processor has them.
_ONE_PART = "--xla_disable_hlo_passes=cpu-parallel-task-assigner"
_WIDE = "--xla_cpu_prefer_vector_width=512"


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


def tune_xla(processor: Path = Path("/proc/cpuinfo")) -> None:
    """Adds two options to `XLA_FLAGS` where the user has not set them; same views, a third faster.

    Has an effect before XLA is first used. `processor` is what Linux says about it.
    """
    flags = os.environ.get("XLA_FLAGS", "").split()
    wide = processor.exists() and " avx512f " in processor.read_text()
    chosen = {flag.split("=")[0] for flag in flags}
    for flag in (_ONE_PART, _WIDE) if wide else (_ONE_PART,):
        if flag.split("=")[0] not in chosen:
            flags.append(flag)
    os.environ["XLA_FLAGS"] = " ".join(flags)
