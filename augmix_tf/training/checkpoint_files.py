"""The files of a run's checkpoints: which there are, which are whole, and which may go.

Checkpoint n is `ckpt-n.data-*` and `ckpt-n.index`, as TensorFlow writes them. The index comes last:
where it is, the checkpoint was whole once. A file `checkpoint` names the newest for other programs.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path

import tensorflow as tf

from augmix_tf import files
from augmix_tf.training import distribution

KEPT = 2
_STATE = "checkpoint"
_NUMBERED = re.compile(r"ckpt-(\d+)\.(?:index|data-\d+-of-\d+)")
_NAMED = re.compile(rb'"ckpt-(\d{1,18})"')
_LEFT_OVER = (".ckpt-*.unfinished", f".{_STATE}.*.unfinished", ".worker-*")


def numbers(folder: Path) -> list[int]:
    """Returns the numbers of the checkpoints that were whole once, the newest first."""
    found = {number for path, number in _numbered(folder) if path.suffix == ".index"}
    # A checkpoint that lost its index is damaged, not absent.
    with contextlib.suppress(OSError):
        found |= {int(number) for number in _NAMED.findall((folder / _STATE).read_bytes())}
    return sorted(found, reverse=True)


def damage(folder: Path, number: int) -> str | None:
    """Returns why a checkpoint cannot be read, or None: everything in it is read once.

    TensorFlow compares the checksum of each tensor when it reads it.
    """
    prefix = folder / f"ckpt-{number}"
    if not prefix.with_name(f"{prefix.name}.index").exists():
        return f"{prefix.name}.index is missing"
    try:
        reader = tf.train.load_checkpoint(str(prefix))
        for name in reader.get_variable_to_dtype_map():
            reader.get_tensor(name)
    # TensorFlow raises an IndexError for a file that ends too early.
    except (tf.errors.OpError, IndexError, ValueError, RuntimeError, OSError) as error:
        return distribution.first_line(error)
    return None


@contextlib.contextmanager
def unfinished(folder: Path, number: int) -> Iterator[str]:
    """Gives a prefix to write checkpoint `number` at; it appears in `folder` when the block ends.

    After an error nothing of it is left. What appeared outlasts a power cut.
    """
    folder.mkdir(parents=True, exist_ok=True)
    place = files.unfinished_name(folder / f"ckpt-{number}")
    place.mkdir()
    try:
        yield str(place / f"ckpt-{number}")
        # Sorted: the data before the index.
        for path in sorted(place.glob(f"ckpt-{number}.*")):
            with path.open("rb+") as file:
                os.fsync(file.fileno())
            os.replace(path, folder / path.name)
            files.sync_folder(folder)
    finally:
        shutil.rmtree(place, ignore_errors=True)


@contextlib.contextmanager
def elsewhere(folder: Path) -> Iterator[str]:
    """Gives a prefix to write at beside `folder`'s checkpoints; it is gone when the block ends."""
    place = folder / f".worker-{secrets.token_hex(4)}"
    place.mkdir(parents=True)
    try:
        yield str(place / "ckpt")
    finally:
        shutil.rmtree(place, ignore_errors=True)


def keep_newest(folder: Path, damaged: Collection[int]) -> None:
    """Names the newest checkpoints in the file `checkpoint`, then removes all others.

    Args:
        folder: of the checkpoints.
        damaged: numbers of those that do not count and go.
    """
    there = {number for path, number in _numbered(folder) if path.suffix == ".index"}
    kept = sorted(there - set(damaged))[-KEPT:]
    lines = [f'model_checkpoint_path: "ckpt-{kept[-1]}"']
    lines += [f'all_model_checkpoint_paths: "ckpt-{number}"' for number in kept]
    files.write_text_atomically(folder / _STATE, "\n".join(lines) + "\n")
    _remove_others(folder, kept)


def highest(folder: Path) -> int:
    """The highest number that any file bears or the file `checkpoint` names; 0 without any."""
    return max([*numbers(folder), *(number for _, number in _numbered(folder))], default=0)


def remove_left_over(folder: Path) -> None:
    """Removes what a process left that was killed while it wrote."""
    for pattern in _LEFT_OVER:
        for path in folder.glob(pattern):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
    _remove_others(folder, numbers(folder))


def _numbered(folder: Path) -> list[tuple[Path, int]]:
    """Files of checkpoints with their numbers."""
    matches = [(path, _NUMBERED.fullmatch(path.name)) for path in folder.glob("ckpt-*")]
    return [(path, int(match[1])) for path, match in matches if match]


def _remove_others(folder: Path, kept: Collection[int]) -> None:
    # The index first: data alone are no checkpoint.
    paths = sorted(_numbered(folder), key=lambda each: each[0].suffix != ".index")
    for path, number in paths:
        if number not in kept:
            path.unlink(missing_ok=True)
