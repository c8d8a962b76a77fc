"""Stylised pictures beside a dataset: folders of classes, read into memory."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from augmix_tf.checks import CommandError, RunError
from augmix_tf.data import folders
from augmix_tf.data.sources import Source, Split

CLASSES = ["disc", "ring", "square"]
SIZE = (6, 8)


@pytest.fixture
def like():
    """A dataset of two training images, numbered 3 and 7."""
    images = np.zeros((2, *SIZE, 3), np.uint8)
    split = Split(images, np.zeros(2, np.int64), np.array([3, 7]))
    return Source("shapes", split, split, CLASSES, "made by hand")


def picture(seed, size=SIZE):
    values = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    values[0, 0], values[-1, -1] = 0, 255
    return values


def save(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def test_pictures_come_by_class_and_name_with_numbers_of_their_own(tmp_path, like):
    wanted = {"disc/b.png": 1, "disc/a.png": 2, "square/x.PNG": 3, "square/y.bmp": 4}
    for name, seed in wanted.items():
        save(tmp_path / name, picture(seed))
    (tmp_path / "square" / "notes.txt").write_text("no picture")
    (tmp_path / "README").write_text("no class")
    split = folders.read(tmp_path, like)
    order = ["disc/a.png", "disc/b.png", "square/x.PNG", "square/y.bmp"]
    np.testing.assert_array_equal(split.images, [picture(wanted[name]) for name in order])
    assert split.images.dtype == np.uint8
    np.testing.assert_array_equal(split.labels, [0, 0, 2, 2])
    assert split.labels.dtype == np.int64
    np.testing.assert_array_equal(split.ids, [8, 9, 10, 11])


@pytest.mark.parametrize("size", [(12, 16), (3, 5), (8, 6)])
def test_other_sizes_are_resized_as_pillow_does(tmp_path, like, size):
    save(tmp_path / "ring" / "a.png", picture(0, size))
    split = folders.read(tmp_path, like)
    wanted = Image.fromarray(picture(0, size)).resize(SIZE[::-1], Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(split.images[0], np.asarray(wanted))


def test_grey_and_transparent_pictures_become_red_green_and_blue(tmp_path, like):
    grey = picture(0)[..., 0]
    save(tmp_path / "ring" / "a.png", grey)
    save(tmp_path / "ring" / "b.png", np.dstack([picture(1), grey]))
    split = folders.read(tmp_path, like)
    np.testing.assert_array_equal(split.images[0], np.repeat(grey[..., None], 3, axis=2))
    np.testing.assert_array_equal(split.images[1], picture(1))


def test_a_folder_that_is_no_class_is_answered_with_the_nearest(tmp_path, like):
    save(tmp_path / "sqare" / "a.png", picture(0))
    with pytest.raises(CommandError, match=r"sqare.*did you mean 'square'"):
        folders.read(tmp_path, like)


@pytest.mark.parametrize("empty", ["nowhere", "file", "bare", "unread"])
def test_a_place_without_pictures_is_refused(tmp_path, like, empty):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "bare" / "ring").mkdir(parents=True)
    (tmp_path / "unread" / "ring").mkdir(parents=True)
    (tmp_path / "unread" / "ring" / "a.tiff").write_bytes(b"II")
    with pytest.raises(CommandError) as error:
        folders.read(tmp_path / empty, like)
    assert str(tmp_path / empty) in str(error.value)
    assert "class" in str(error.value)


@pytest.mark.parametrize("kept", [0, 40])
def test_a_damaged_picture_is_named(tmp_path, like, kept):
    save(tmp_path / "disc" / "a.png", picture(0))
    path = tmp_path / "disc" / "b.png"
    save(path, picture(1))
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(RunError) as error:
        folders.read(tmp_path, like)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
