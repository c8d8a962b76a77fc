"""TensorFlow as this program wants it: without greetings, with the processor's full width."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from augmix_tf.checks import CommandError, RunError

_WIDE = "--xla_cpu_prefer_vector_width=512"


def import_tensorflow() -> None:
    """Imports TensorFlow without its greetings."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    use_wide_vectors()
    with silenced():
        import tensorflow  # noqa: F401


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Within it, what is written to standard error is shown only if an unexpected error ends it.

    For the import of TensorFlow and its look for devices: no log level silences the lines that its
    C++ parts print before logging is set up, so standard error goes to a temporary file meanwhile.
    """
    sys.stderr.flush()
    with tempfile.TemporaryFile() as said:
        kept = os.dup(2)
        os.dup2(said.fileno(), 2)
        try:
            yield
        except (CommandError, RunError):
            raise
        except BaseException:
            said.seek(0)
            os.write(kept, said.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def use_wide_vectors(processor: Path = Path("/proc/cpuinfo")) -> None:
    """Lets XLA use all 512 bits where the processor has them; views of 224 x 224 gain a tenth.

    Has an effect before XLA is first used. A width that the user chose in `XLA_FLAGS` stays.

    Args:
        processor: what Linux says about it; elsewhere nothing is done.
    """
    chosen = os.environ.get("XLA_FLAGS", "")
    wide = processor.exists() and " avx512f " in processor.read_text()
    if wide and "prefer_vector_width" not in chosen:
        os.environ["XLA_FLAGS"] = f"{chosen} {_WIDE}".strip()
