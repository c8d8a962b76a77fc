"""Files that are written atomically."""

import errno
import os

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
