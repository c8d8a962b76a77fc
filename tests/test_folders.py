"""Stylised images beside a dataset: folders of classes, read into memory."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from augmix_tf.data import folders
from augmix_tf.data.images import Source
from augmix_tf.errors import ArgumentError, FileError
from tests.image_stores import in_memory

CLASSES = ["disc", "ring", "square"]
SIZE = (6, 8)


@pytest.fixture
def like():
    """A dataset of two training images, numbered 3 and 7."""
    images = np.zeros((2, *SIZE, 3), np.uint8)
    split = in_memory(images, ids=[3, 7])
    return Source("shapes", split, split, CLASSES, "made by hand")


def image(seed, size=SIZE):
    values = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    values[0, 0], values[-1, -1] = 0, 255
    return values


def save(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def test_images_come_by_class_and_name_with_numbers_of_their_own(tmp_path, like):
    wanted = {"disc/b.png": 1, "disc/a.png": 2, "square/x.PNG": 3, "square/y.bmp": 4}
    for name, seed in wanted.items():
        save(tmp_path / name, image(seed))
    (tmp_path / "square" / "notes.txt").write_text("no image")
    (tmp_path / "README").write_text("no class")
    split = folders.read(tmp_path, like)
    order = ["disc/a.png", "disc/b.png", "square/x.PNG", "square/y.bmp"]
    np.testing.assert_array_equal(split.images, [image(wanted[name]) for name in order])
    assert split.images.dtype == np.uint8
    np.testing.assert_array_equal(split.labels, [0, 0, 2, 2])
    assert split.labels.dtype == np.int64
    np.testing.assert_array_equal(split.ids, [8, 9, 10, 11])


@pytest.mark.parametrize("size", [(12, 16), (3, 5), (8, 6)])
def test_other_sizes_are_resized_as_pillow_does(tmp_path, like, size):
    save(tmp_path / "ring" / "a.png", image(0, size))
    split = folders.read(tmp_path, like)
    wanted = Image.fromarray(image(0, size)).resize(SIZE[::-1], Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(split.images[0], np.asarray(wanted))


def test_grey_and_transparent_images_become_red_green_and_blue(tmp_path, like):
    grey = image(0)[..., 0]
    save(tmp_path / "ring" / "a.png", grey)
    save(tmp_path / "ring" / "b.png", np.dstack([image(1), grey]))
    split = folders.read(tmp_path, like)
    np.testing.assert_array_equal(split.images[0], np.repeat(grey[..., None], 3, axis=2))
    np.testing.assert_array_equal(split.images[1], image(1))


def test_a_folder_that_is_no_class_is_answered_with_the_nearest(tmp_path, like):
    save(tmp_path / "sqare" / "a.png", image(0))
    with pytest.raises(ArgumentError, match=r"sqare.*Did you mean 'square'"):
        folders.read(tmp_path, like)


@pytest.mark.parametrize("empty", ["nowhere", "file", "bare", "unread"])
def test_a_place_without_images_is_refused(tmp_path, like, empty):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "bare" / "ring").mkdir(parents=True)
    (tmp_path / "unread" / "ring").mkdir(parents=True)
    (tmp_path / "unread" / "ring" / "a.tiff").write_bytes(b"II")
    with pytest.raises(ArgumentError) as error:
        folders.read(tmp_path / empty, like)
    assert str(tmp_path / empty) in str(error.value)
    assert "class" in str(error.value)


def broken(path, kept):
    save(path, image(1))
    path.write_bytes(path.read_bytes()[:kept])


@pytest.mark.parametrize("kept", [0, 40, 100])
@pytest.mark.parametrize("kind", ["png", "jpg", "gif"])
def test_a_damaged_image_is_named_or_left_out(tmp_path, like, capsys, kept, kind):
    for name, seed in (("disc/a.png", 0), ("disc/c.png", 2), ("ring/a.png", 3)):
        save(tmp_path / name, image(seed))
    path = tmp_path / "disc" / f"b.{kind}"
    broken(path, kept)
    with pytest.raises(FileError) as error:
        folders.read(tmp_path, like)
    text = str(error.value)
    assert f"cannot read 1 of 4 images in {tmp_path}: {path} (" in text
    assert "skip_bad_examples" in text
    assert "\n" not in text
    assert not capsys.readouterr().err
    split = folders.read(tmp_path, like, skip_bad=True)
    np.testing.assert_array_equal(split.images, [image(0), image(2), image(3)])
    np.testing.assert_array_equal(split.labels, [0, 0, 1])
    np.testing.assert_array_equal(split.ids, [8, 10, 11])  # as if 9 were there
    assert split.left_out == f"1 of 4 images in {tmp_path} left out"
    said = capsys.readouterr().err
    assert said.startswith("left out 1 of 4 images")
    assert str(path) in said
    assert said.count("\n") == 1


def test_all_damaged_images_are_counted_and_a_few_named(tmp_path, like):
    for number in range(8):
        save(tmp_path / "ring" / f"{number}.png", image(number))
        broken(tmp_path / "square" / f"{number}.png", 20)
    with pytest.raises(FileError, match=r"cannot read 8 of 16 .*/3\.png .* and 4 more;") as error:
        folders.read(tmp_path, like)
    assert "/4.png" not in str(error.value)
    assert len(folders.read(tmp_path, like, skip_bad=True).labels) == 8
    (tmp_path / "ring" / "0.png").unlink()
    with pytest.raises(FileError, match=r"8 of 15 .*more than half"):
        folders.read(tmp_path, like, skip_bad=True)


def test_what_is_left_out_stands_in_the_description(like):
    assert like.with_note("").description == "made by hand"
    assert like.with_note("1 of 4 left out").description == "made by hand; 1 of 4 left out"
