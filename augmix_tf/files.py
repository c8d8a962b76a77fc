"""Files that appear only when they are whole."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path

from augmix_tf.errors import FileError

PathLike = str | os.PathLike[str]


def write_text_atomically(path: PathLike, text: str) -> None:
    """Writes `text` as UTF-8; otherwise like `write_bytes_atomically`."""
    write_bytes_atomically(path, text.encode())


def write_bytes_atomically(path: PathLike, data: bytes) -> None:
    """Makes or replaces a file; readers see the old content or the new, never a part.

    Folders on the way are made. What was written outlasts a power cut.

    Raises:
        FileError: it cannot be written, as on a full disk; an older file stays as it was.
    """
    path = Path(path)
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = unfinished_name(path)
        try:
            with open(temporary, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def unfinished_name(path: Path) -> Path:
    """Returns a fresh hidden name beside `path`, under which to prepare it.

    The name is random, so that two processes that write the same file do not mix their bytes.
    """
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.unfinished")


def sync_folder(folder: Path) -> None:
    """Makes the names in `folder` outlast a power cut, where the system can do that."""
    with contextlib.suppress(OSError):  # Windows opens no folders, some shares sync none
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def explained(path: PathLike) -> Iterator[None]:
    """Turns an `OSError` within the block into one line about `path`.

    Raises:
        FileError: "cannot write <path>: <the system's reason>".
    """
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
