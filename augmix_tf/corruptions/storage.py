"""Files that are either whole or not there, and their checksums."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from augmix_tf import checks
from augmix_tf.corruptions.arrays import Pictures

READ_BYTES = 16 * 2**20  # of pictures on disk, at a time


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Yields a file that becomes `path` when the block ends well, and vanishes otherwise.

    Raises:
        RunError: it cannot be written, as on a full disk; an older `path` stays as it was.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise checks.RunError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds the lock file `path`, so that processes that share a folder take turns."""
    import fcntl  # not on Windows, where only this writer would miss it

    try:
        file = open(path, "wb")  # noqa: SIM115 - closed below; only opening it can fail for want of room
    except OSError as error:
        raise checks.RunError(f"cannot write {path}: {error.strerror}") from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def sha256_rows(rows: npt.NDArray[Any] | Pictures) -> str:
    """Returns the sha256 of the values, in C order; pictures on disk are read piece by piece."""
    if isinstance(rows, np.ndarray):
        return hashlib.sha256(_bytes_of(rows)).hexdigest()
    digest = hashlib.sha256()
    size = max(1, READ_BYTES // math.prod(rows.shape[1:]))
    for first in range(0, len(rows), size):
        digest.update(_bytes_of(rows[first : first + size]))
    return digest.hexdigest()


def _bytes_of(rows: npt.NDArray[Any]) -> memoryview:
    return np.ascontiguousarray(rows).reshape(-1).view(np.uint8).data


def sha256_file(path: Path) -> str:
    """Returns the sha256 of a file, as `sha256sum` prints it."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes `content`, readable by people.

    Raises:
        RunError: it cannot be written.
    """
    with replacing(path) as file:
        file.write((json.dumps(content, indent=1, sort_keys=True) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """Returns the object in a JSON file.

    Raises:
        RunError: it cannot be read, or holds something else.
    """
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise checks.RunError(f"cannot read {path}: {error}") from error
    if not isinstance(content, dict):
        raise checks.RunError(f"cannot read {path}: want an object, got {type(content).__name__}")
    return content


def load_rows(path: Path) -> npt.NDArray[Any] | None:
    """Returns the array in an .npy file, or None if the file is cut short or no array."""
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None


class _HashingFile:
    """Writes through to a file and keeps the sha256 of all that passed."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.hash = hashlib.sha256()

    def write(self, data: bytes | memoryview) -> int:
        self.hash.update(data)
        return self._file.write(data)


def write_array(
    file: BinaryIO,
    shape: tuple[int, ...],
    dtype: npt.DTypeLike,
    blocks: Iterable[npt.NDArray[Any]],
) -> str:
    """Writes an array of this `shape` as .npy, from `blocks` of its rows.

    Unlike `numpy.save`, it fails with the system's own reason where the disk is full.

    Returns:
        The sha256 of the file.
    """
    hashing = _HashingFile(file)
    descr = np.lib.format.dtype_to_descr(np.dtype(dtype))
    header = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(hashing, header)
    for block in blocks:
        hashing.write(_bytes_of(block))
    return hashing.hash.hexdigest()
