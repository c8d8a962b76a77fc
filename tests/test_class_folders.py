"""Folders of images by class as people have them: other disks, odd files, the archives."""

from __future__ import annotations

import io
import os
import re
import shutil
import tarfile
from pathlib import Path

import pytest

from augmix_tf.data import folders_by_class, sources
from augmix_tf.errors import ArgumentError, FileError
from tests import class_folders
from tests.class_folders import CLASSES

SIDE = 24


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return class_folders.write(tmp_path_factory.mktemp("images"))


def test_the_order_of_a_disk_changes_nothing(data, monkeypatch):
    def opened():
        return folders_by_class.open_split(data / "train", None, (SIDE, SIDE))

    store, read = opened(), os.listdir
    monkeypatch.setattr(os, "listdir", lambda place: sorted(read(place), reverse=True))
    again = opened()
    assert again.digest == store.digest
    assert [again.file_name(row) for row in range(12)] == [
        store.file_name(row) for row in range(12)
    ]


def test_files_that_are_no_images_are_passed_over_aloud(data, tmp_path, capsys):
    shutil.copytree(data, tmp_path / "own")
    for name in ("b.webp", "a.txt", ".hidden.txt"):
        (tmp_path / "own" / "val" / CLASSES[2] / name).write_text("")
    source = sources.load("folder", tmp_path / "own", image_size=SIDE)
    assert len(source.test.labels) == 12
    said = capsys.readouterr().err
    assert f"passed over 2 in {tmp_path / 'own' / 'val'} that are no images (.png, " in said
    assert f"{CLASSES[2]}/a.txt, ...\n" in said


def test_names_may_have_any_letters_and_none(tmp_path):
    class_folders.write(tmp_path, ("val",))
    folder = tmp_path / "val" / CLASSES[0]
    sound = (folder / f"{CLASSES[0]}_0.JPEG").read_bytes()
    (folder / "ü 雪.JPG").write_bytes(sound)
    no_text = bytes(folder) + b"/\xff.jpeg"
    Path(no_text.decode(errors="surrogateescape")).write_bytes(sound)
    test = sources.load("folder", tmp_path, image_size=SIDE).test
    assert test.read().shape == (14, SIDE, SIDE, 3)
    Path(no_text.decode(errors="surrogateescape")).unlink()
    with pytest.raises(FileError, match=r"cannot read 1 of 14 images: .*jpeg \(cannot be opened"):
        test.read()


@pytest.mark.parametrize("place", ["gs://bucket/imagenet", "gs:/bucket/imagenet"])
def test_a_bucket_is_no_folder(place):
    with pytest.raises(
        ArgumentError, match=r"data_dir must be a local directory .*; received gs:/bucket"
    ):
        sources.load("folder", place, image_size=SIDE)


# How the archives get into place


def tar(path, files):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def test_the_archives_of_imagenet_are_unpacked_as_the_page_says(tmp_path, monkeypatch):
    """The first two test images are a sea snake and an alp, by the public list of labels."""
    inner = {
        f"{name}.tar": tar(tmp_path / name, {f"{name}_{i}.JPEG": b"12" for i in (1, 2)})
        for name in CLASSES[:2]
    }
    content = {name: path.read_bytes() for name, path in inner.items()}
    tar(tmp_path / "ImageNet" / "ILSVRC2012_img_train.tar", content)
    tested = {f"ILSVRC2012_val_{i:08d}.JPEG": b"3" for i in (2, 1)}
    tar(tmp_path / "ImageNet" / "ILSVRC2012_img_val.tar", tested)
    page = (Path(__file__).parents[1] / "docs" / "imagenet.md").read_text(encoding="utf-8")
    code = re.findall(r"```python\n(.*?)```", page, re.DOTALL)[0]
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "imagenet.md", "exec"), {})
    found = sorted(path.relative_to("ImageNet") for path in Path("ImageNet").rglob("*.JPEG"))
    wanted = [Path("train", name, f"{name}_{i}.JPEG") for name in CLASSES[:2] for i in (1, 2)]
    wanted += [Path("val", "n01751748", "ILSVRC2012_val_00000001.JPEG")]
    wanted += [Path("val", "n09193705", "ILSVRC2012_val_00000002.JPEG")]
    assert found == wanted
