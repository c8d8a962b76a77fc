"""Files that are written atomically."""

import errno
import os
import subprocess
import sys

import pytest

from augmix_tf import files
from augmix_tf.errors import FileError


def test_atomic_files_replace_and_keep(tmp_path, monkeypatch):
    path = tmp_path / "a" / "b.txt"
    files.write_text_atomically(path, "é\n")
    files.write_bytes_atomically(str(path), "ü\n".encode())
    assert path.read_bytes() == "ü\n".encode()

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FileError, match=r"^cannot write .*b\.txt: No space left on device$"):
        files.write_text_atomically(path, "new")
    assert path.read_bytes() == "ü\n".encode()
    assert [p.name for p in path.parent.iterdir()] == ["b.txt"]


def test_atomic_files_in_the_way_of_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match=r"cannot write .*file/x\.txt: "):
        files.write_text_atomically(tmp_path / "file" / "x.txt", "")
    with pytest.raises(FileError, match=r"cannot write .*: Is a directory"):
        files.write_text_atomically(tmp_path, "")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_locked_file_is_refused_until_it_is_closed(tmp_path):
    with open(tmp_path / "lock", "wb") as first, open(tmp_path / "lock", "wb") as second:
        assert files.lock(first, wait=False)
        assert not files.lock(second, wait=False)
        first.close()
        assert files.lock(second, wait=True)


def test_everything_is_imported_without_fcntl_and_locks_say_what_is_missing(tmp_path):
    """As on Windows."""
    program = f"""
import sys
sys.modules["fcntl"] = None
import flags, main
assert "--method" in flags.help_text()
from augmix_tf import AugMix, AugMixModel, corruptions, evaluation, files
from augmix_tf.commands import corrupt, evaluate, export, report, train, views
for _ in range(2):
    assert files.lock(open({str(tmp_path / "lock")!r}, "wb"), wait=False)
import numpy as np
images = corruptions.corrupt(np.zeros((1, 16, 20, 3), np.uint8), "fog", 1)
assert images.shape == (1, 16, 20, 3)
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert "has no fcntl" in ran.stderr
