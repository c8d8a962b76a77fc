"""Readers of ImageNet-C trees: layout, labels, crops, damage."""

import shutil

import numpy as np
import pytest
from PIL import Image

from augmix_tf.data import corrupted, image_folders
from augmix_tf.errors import ArgumentError, FileError

SIZE = (16, 20)
WNIDS = ("n01440764", "n01443537", "n02102040")
# Official numbers mix the classes; class 1 has one image fewer than the others.
FILES = {4: 0, 1: 2, 9: 1, 6: 2, 3: 0}
ORDER = sorted(FILES)


def pixels(seed, size=SIZE):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def path_of(cell, number):
    return cell / WNIDS[FILES[number]] / f"ILSVRC2012_val_{number:08}.JPEG"


def write_tree(folder, names, size=SIZE):
    for at, name in enumerate(names):
        for severity in range(1, 6):
            for number in FILES:
                path = path_of(folder / name / str(severity), number)
                path.parent.mkdir(parents=True, exist_ok=True)
                seed = 1000 * at + 10 * severity + number
                Image.fromarray(pixels(seed, size)).save(path, quality=85)
    return folder


def joined(cell):
    images, labels = zip(*cell, strict=True)
    return np.concatenate(images), np.concatenate(labels)


def decoded(folder, name, severity, numbers=ORDER):
    paths = [path_of(folder / name / str(severity), number) for number in numbers]
    return np.stack([np.asarray(Image.open(path)) for path in paths])


@pytest.fixture(scope="module")
def flat(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("flat"), ["fog", "jpeg_compression", "saturate"])


@pytest.fixture
def own(flat, tmp_path):
    """A copy to damage."""
    return shutil.copytree(flat, tmp_path / "own")


@pytest.fixture
def small_batches(monkeypatch):
    monkeypatch.setattr("augmix_tf.data.benchmark.BATCH", 2)


def open_set(place, classes=3, limit=0, **options):
    return corrupted.open_set(place, SIZE, classes, limit, **options)


@pytest.mark.parametrize(("limit", "sizes"), [(0, [2, 2, 1]), (3, [2, 1]), (99, [2, 2, 1])])
def test_a_cell_is_decoded_in_the_order_of_the_official_numbers(flat, small_batches, limit, sizes):
    found = open_set(flat, limit=limit)
    assert found.names == ("fog", "jpeg_compression", "saturate")
    assert found.data["source"] == "official"
    for name in found.names:
        for severity in range(1, 6):
            batches = list(found.cell(name, severity))
            assert [len(images) for images, _ in batches] == sizes
            images, labels = joined(batches)
            numbers = ORDER[: limit or None]
            np.testing.assert_array_equal(images, decoded(flat, name, severity, numbers))
            np.testing.assert_array_equal(labels, [FILES[number] for number in numbers])


def test_the_public_groups_are_found_as_well_as_flat_folders(flat, tmp_path):
    for group, name in (("weather", "fog"), ("extra", "saturate")):
        shutil.copytree(flat / name, tmp_path / group / name)
    shutil.copytree(flat / "jpeg_compression", tmp_path / "jpeg_compression")
    there, grouped = open_set(flat), open_set(tmp_path)
    assert grouped.names == there.names
    for name in there.names:
        np.testing.assert_array_equal(
            joined(grouped.cell(name, 3))[0], joined(there.cell(name, 3))[0]
        )


def test_other_files_are_no_images(own):
    cell = own / "fog" / "2"
    (cell / WNIDS[0] / "notes.txt").write_text("no image")
    (cell / WNIDS[0] / "._ILSVRC2012_val_00000004.JPEG").write_bytes(b"of another system")
    (cell / "list.txt").write_text("no class")
    assert len(joined(open_set(own).cell("fog", 2))[1]) == 5


# Labels


def test_classes_are_matched_by_the_model_s_wordnet_ids(flat):
    names = ["n03000000", WNIDS[2], WNIDS[0], "n01000000", WNIDS[1]]
    _, labels = joined(open_set(flat, 5, class_names=names).cell("fog", 1))
    np.testing.assert_array_equal(labels, [names.index(WNIDS[FILES[n]]) for n in ORDER])


def test_classes_that_the_model_lacks_are_left_out_before_the_limit(flat):
    found = open_set(flat, 2, limit=3, class_names=[WNIDS[1], WNIDS[2]])
    images, labels = joined(found.cell("saturate", 5))
    np.testing.assert_array_equal(images, decoded(flat, "saturate", 5, [1, 6, 9]))
    np.testing.assert_array_equal(labels, [1, 1, 0])
    assert "2 of 3 classes" in found.data["description"]


def test_without_ids_the_sorted_classes_are_numbered(flat):
    for names in (None, ["tench", "goldfish", "spaniel"]):
        _, labels = joined(open_set(flat, class_names=names).cell("fog", 1))
        np.testing.assert_array_equal(labels, [FILES[n] for n in ORDER])


def test_classes_that_cannot_be_matched_are_refused(flat):
    with pytest.raises(ArgumentError, match="a set of the model's 10 classes; received 3 classes"):
        open_set(flat, 10)
    with pytest.raises(ArgumentError, match=r"classes that the model knows \(n00000001, ...\)"):
        open_set(flat, 2, class_names=["n00000001", "n00000002"])


# Pixels


@pytest.mark.parametrize("stored", [(16, 20), (21, 27), (18, 40)])
def test_the_canonical_crop_is_the_centre_of_the_stored_image(tmp_path, stored):
    write_tree(tmp_path, ["snow"], stored)
    images, _ = joined(open_set(tmp_path).cell("snow", 4))
    top, left = (round((a - b) / 2) for a, b in zip(stored, SIZE, strict=True))
    paths = [path_of(tmp_path / "snow" / "4", number) for number in ORDER]
    box = (left, top, left + SIZE[1], top + SIZE[0])
    wanted = [np.asarray(Image.open(path).crop(box)) for path in paths]
    np.testing.assert_array_equal(images, wanted)


@pytest.mark.parametrize(
    ("stored", "resized"), [((224, 224), (256, 256)), ((230, 345), (256, 384))]
)
def test_the_reference_crop_enlarges_before_it_cuts(tmp_path, stored, resized):
    path = tmp_path / "x.JPEG"
    Image.fromarray(pixels(5, stored)).save(path)
    got = image_folders.read_image(path, (224, 224), "reference")
    left = (resized[1] - 224) // 2
    whole = Image.open(path).resize(resized[::-1], Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(got, np.asarray(whole.crop((left, 16, left + 224, 240))))


def test_grey_images_get_three_channels(tmp_path):
    path = tmp_path / "grey.JPEG"
    Image.fromarray(pixels(5)[..., 0]).save(path)
    got = image_folders.read_image(path, SIZE, "canonical")
    assert got.shape == (*SIZE, 3)
    np.testing.assert_array_equal(got[..., 0], np.asarray(Image.open(path)))
    assert (got == got[..., :1]).all()


# Damage


def test_a_missing_image_is_named_with_what_is_left(own):
    path_of(own / "fog" / "3", 6).unlink()
    wanted = (
        r"fog.3: expected the same 5 files.*received 4 \(n02102040/ILSVRC2012_val_00000006.JPEG is"
    )
    with pytest.raises(FileError, match=wanted + r" missing\).*: jpeg_compression, saturate"):
        open_set(own)


def test_an_image_too_many_is_named(own):
    shutil.copy(path_of(own / "fog" / "3", 6), own / "fog" / "3" / WNIDS[0] / "copy.JPEG")
    with pytest.raises(
        FileError, match=r"fog.3: .*received 6 \(n01440764/copy.JPEG is left over\)"
    ):
        open_set(own)


def test_a_missing_severity_is_named(own):
    shutil.rmtree(own / "saturate" / "5")
    with pytest.raises(FileError, match=r"saturate.5: .*received 0 .*: fog, jpeg_compression"):
        open_set(own)


@pytest.mark.parametrize("content", [b"", b"no image", None])
def test_a_damaged_image_is_named_when_it_is_read(own, content):
    path = path_of(own / "fog" / "3", 6)
    path.write_bytes(path.read_bytes()[:200] if content is None else content)
    found = open_set(own)
    assert len(joined(found.cell("fog", 2))[1]) == 5
    with pytest.raises(
        FileError, match=r"00000006.JPEG: expected an image; received a damaged.*never"
    ):
        joined(found.cell("fog", 3))


def test_an_image_that_is_too_small_is_named(flat):
    found = corrupted.open_set(flat, (17, 20), 3)
    with pytest.raises(FileError, match=r"JPEG: expected 17x20 pixels or more; received 16x20"):
        joined(found.cell("fog", 1))


def test_folders_without_images_are_refused(tmp_path):
    (tmp_path / "fog" / "1" / WNIDS[0]).mkdir(parents=True)
    with pytest.raises(ArgumentError, match="Expected images in <corruption>/<severity>/<class>"):
        open_set(tmp_path)


def test_a_reader_that_stops_early_leaves_nothing_behind(flat, small_batches, monkeypatch):
    read = []
    monkeypatch.setattr(
        image_folders, "read_image", lambda path, **_: read.append(path) or pixels(0)
    )
    cell = open_set(flat).cell("fog", 1)
    next(cell)
    cell.close()
    # The batch that was asked for and the next.
    assert len(read) <= 4
