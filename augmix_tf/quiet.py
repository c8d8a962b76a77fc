"""Imports TensorFlow without its log lines, and tunes XLA for an input pipeline."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from augmix_tf.errors import ArgumentError, FileError

_WHOLE = "--xla_disable_hlo_passes=cpu-parallel-task-assigner"
_WIDE = "--xla_cpu_prefer_vector_width=512"


def import_tensorflow() -> None:
    """Imports TensorFlow without its greetings."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    tune_xla()
    with silenced():
        import tensorflow  # noqa: F401


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Within it, what is written to standard error is shown only if an unexpected error ends it.

    For the import of TensorFlow and its look for devices: no log level silences the lines that its
    C++ parts print before logging is set up, so standard error goes to a temporary file meanwhile.
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
    """Sets two options of XLA's processor programs; the same views come out, a third faster.

    No program is cut into parts for several cores: the pipeline has a batch in the making on each,
    and the parts of one would wait for the cores of another. And all 512 bits are used where the
    processor has them.

    Has an effect before XLA is first used. What the user chose in `XLA_FLAGS` stays.

    Args:
        processor: what Linux says about it.
    """
    flags = os.environ.get("XLA_FLAGS", "").split()
    wide = processor.exists() and " avx512f " in processor.read_text()
    for flag in (_WHOLE, _WIDE) if wide else (_WHOLE,):
        name = flag.split("=")[0]
        if not any(chosen.split("=")[0] == name for chosen in flags):
            flags.append(flag)
    os.environ["XLA_FLAGS"] = " ".join(flags)
