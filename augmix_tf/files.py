"""Files that appear only when they are whole."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from augmix_tf.errors import FileError

try:
    import fcntl
except ImportError:  # it is not on Windows
    fcntl = None  # type: ignore[assignment]

PathLike = str | os.PathLike[str]


def write_text_atomically(path: PathLike, text: str) -> None:
    """Writes `text` as UTF-8; otherwise like `write_bytes_atomically`."""
    write_bytes_atomically(path, text.encode())


def write_bytes_atomically(path: PathLike, data: bytes) -> None:
    """Writes or replaces a file and its folders; readers see the old content or the new, no part.

    What was written outlasts a power cut. After an error an older file stays as it was.
    """
    path = Path(path)
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = unfinished_name(path)
        try:
            temporary.write_bytes(data)
            sync(temporary)
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync(path.parent)


def unfinished_name(path: Path) -> Path:
    """Returns a fresh hidden name beside `path`, random so that two processes do not collide."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.unfinished")


def sync(path: Path) -> None:
    """Makes a file, or the names in a folder, outlast a power cut."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError:
        if not path.is_dir():  # some network shares cannot sync folders
            raise


def lock(file: IO[Any], *, wait: bool) -> bool:
    """Locks an open file until it is closed; False where another process has it and none waits.

    Systems without `fcntl` lock nothing, and a line on standard error says so.
    """
    if fcntl is None:
        advice = "do not start two processes in one directory."
        print(f"This system has no fcntl, so {file.name} is not locked: {advice}", file=sys.stderr)
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def explained(path: PathLike) -> Iterator[None]:
    """Turns an `OSError` within the block into a `FileError`, one line about `path`."""
    try:
        yield
    except FileError:  # is an OSError that already says what is wrong
        raise
    except OSError as error:
        raise FileError(f"cannot write {path}: {error.strerror or error}") from error


@contextlib.contextmanager
def without_patterns(path: PathLike) -> Iterator[Path]:
    """Yields `path`, or a temporary link to it if TensorFlow takes its characters for a pattern.

    TensorFlow finds checkpoints and SavedModels by matching file names, so it does not find
    `runs/a[1]`. The link lasts as long as the block.
    """
    path = Path(path)
    if not re.search(r"[][*?{}\\]", str(path)):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="augmix_") as folder:
        link = Path(folder, "link")
        link.symlink_to(path.absolute())
        yield link
