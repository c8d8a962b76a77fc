"""Folders of images by class: what counts as an image, labels, orders, the archives, ImageNet-C."""

import io
import os
import re
import shutil
import tarfile
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from augmix_tf.data import class_folders, corrupted, sources
from augmix_tf.data.images import Source
from augmix_tf.errors import ArgumentError, FileError
from tests.class_folders import CLASSES
from tests.image_files import encoded
from tests.image_stores import class_names, in_memory

SIDE = 24
SIZE = (16, 20)
THREE = class_names(3)


def image(seed, size=SIZE):
    values = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    values[0, 0], values[-1, -1] = 0, 255
    return values


def save(path, values, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path, **options)
    return path


def like(names):
    """A dataset of two training images, numbered 3 and 7."""
    split = in_memory(np.zeros((2, *SIZE, 3), np.uint8), ids=[3, 7])
    return Source("shapes", split, split, tuple(names), "made by hand")


def trained_on(folder):
    return class_folders.open_split(folder, None, SIZE).read()


def stylized(folder):
    return class_folders.read(folder, like([*class_folders.classes(folder), "unused"])).images


def benchmark(folder):
    for severity in range(1, 6):
        place = folder.parent / "benchmark" / "fog" / str(severity)
        if not place.exists():
            shutil.copytree(folder, place)
    opened = corrupted.open_set(folder.parent / "benchmark", SIZE, class_names(2))
    return np.concatenate([images for images, _ in opened.cell("fog", 1)])


READERS = {"training": trained_on, "stylized": stylized, "benchmark": benchmark}


@pytest.fixture(params=READERS)
def reader(request):
    return READERS[request.param]


@pytest.fixture
def folder(tmp_path):
    """Two classes of one image each, whose sides are those of the readers."""
    for number, name in enumerate(("cat", "dog")):
        save(tmp_path / "images" / name / "1.png", image(number))
    return tmp_path / "images"


def test_every_reader_passes_over_the_same_entries_and_reports_them(folder, reader, capsys):
    save(folder / "cat" / "holiday.jpg" / "1.jpg", image(2))
    (folder / "cat" / "a.txt").write_text("no image")
    (folder / "cat" / ".hidden.png").write_text("no image")
    (folder / "README").write_text("no class")
    shutil.copy(folder / "cat" / "1.png", os.fsencode(folder / "dog") + b"/\xff.png")
    assert len(reader(folder)) == 2
    text = capsys.readouterr().err
    assert re.search(
        r"passed over (3|15) in .* that are no images \(\.jpg, .*/cat/a\.txt, \.", text
    )
    assert text.count("\n") == 1


def test_every_reader_goes_by_the_content_of_a_file(folder, reader):
    kinds = {"a.png": "jpeg", "b.JPEG": "png", "c.jpg": "webp"}
    for name, kind in kinds.items():
        (folder / "cat" / name).write_bytes(encoded(image(2), kind))
    grey = image(3)[..., 0]
    (folder / "dog" / "16 bits.png").write_bytes(encoded(grey.astype(np.uint16) * 256 + 255))
    assert len(reader(folder)) == 6
    if reader is not trained_on:  # which resizes
        images = reader(folder)
        assert [(i == image(2)).all() for i in images].count(True) == 1
        assert [(i == grey[..., None]).all() for i in images].count(True) == 1


@pytest.mark.parametrize(("kind", "colors"), [("gif", 256), ("bmp", None)])
def test_every_reader_refuses_other_formats_by_name(folder, reader, kind, colors):
    content = Image.fromarray(image(0))
    content = content.quantize(colors) if colors else content
    (folder / "cat" / f"a.{kind}").write_bytes(encoded(content, kind))
    with pytest.raises(FileError, match=f"cat/a.{kind}.*received {kind.upper()}"):
        reader(folder)


@pytest.mark.parametrize("kept", [0, 100])
@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_every_reader_names_a_damaged_image(folder, reader, kept, kind):
    (folder / "cat" / "a.jpg").write_bytes(encoded(image(0), kind)[:kept])
    with pytest.raises(FileError, match=r"cat/a\.jpg") as error:
        reader(folder)
    assert "\n" not in str(error.value)


def test_names_may_have_any_letters_and_signs(tmp_path, reader):
    for name in ("ü 雪", "a[1]*?{b}"):
        save(tmp_path / "a[1]*?" / name / f"{name}.png", image(0))
    assert len(reader(tmp_path / "a[1]*?")) == 2


@pytest.mark.parametrize("reader", [trained_on, stylized])
def test_a_class_that_is_not_utf8_is_refused(folder, reader):
    os.mkdir(os.fsencode(folder) + b"/\xff")
    with pytest.raises(ArgumentError, match=r"names of classes in UTF-8; received .*udcff"):
        reader(folder)


def test_classes_are_the_same_in_either_unicode_form(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))
    for split, name in (("train", decomposed), ("val", composed)):
        save(tmp_path / split / name / "1.png", image(0))
        save(tmp_path / split / "a" / "1.png", image(1))
    source = sources.load("folder", tmp_path, image_size=SIDE)
    assert source.class_names == ("a", composed)
    assert source.test.labels.tolist() == [0, 1]
    assert class_folders.read(tmp_path / "val", like([decomposed, "a"])).labels.tolist() == [1, 0]
    assert class_folders.label_table([composed], [decomposed, "b"]) == {composed: 0}
    save(tmp_path / "train" / composed / "1.png", image(2))
    with pytest.raises(ArgumentError, match="differ after Unicode normalization"):
        class_folders.classes(tmp_path / "train")


@pytest.mark.parametrize("empty", ["nowhere", "file", "bare", "unread"])
@pytest.mark.parametrize(
    "reader", [trained_on, lambda folder: class_folders.read(folder, like(["a", "b"]))]
)
def test_a_place_without_images_is_refused(tmp_path, reader, empty):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "bare").mkdir()
    (tmp_path / "unread" / "ring").mkdir(parents=True)
    (tmp_path / "unread" / "ring" / "a.tiff").write_bytes(b"II")
    with pytest.raises(ArgumentError, match=r"class|received none") as error:
        reader(tmp_path / empty)
    assert str(tmp_path / empty) in str(error.value)


def test_stylized_images_come_by_class_and_name_with_numbers_of_their_own(tmp_path):
    seeds = {"disc/b.png": 1, "disc/a.png": 2, "square/x.PNG": 3}
    for name, seed in seeds.items():
        save(tmp_path / name, image(seed))
    split = class_folders.read(tmp_path, like(["disc", "ring", "square"]))
    order = ["disc/a.png", "disc/b.png", "square/x.PNG"]
    np.testing.assert_array_equal(split.images, [image(seeds[name]) for name in order])
    np.testing.assert_array_equal(split.labels, [0, 0, 2])
    np.testing.assert_array_equal(split.ids, [8, 9, 10])
    assert (split.images.dtype, split.labels.dtype) == (np.uint8, np.int64)


@pytest.mark.parametrize("size", [(32, 40), (8, 10)])
def test_stylized_images_of_other_sizes_are_resized_as_pillow_does(tmp_path, size):
    save(tmp_path / "ring" / "a.png", image(0, size))
    split = class_folders.read(tmp_path, like(["disc", "ring"]))
    resized = Image.fromarray(image(0, size)).resize(SIZE[::-1], Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(split.images[0], np.asarray(resized))


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
    paths = sorted(path.relative_to("ImageNet") for path in Path("ImageNet").rglob("*.JPEG"))
    expected = [Path("train", name, f"{name}_{i}.JPEG") for name in CLASSES[:2] for i in (1, 2)]
    expected += [Path("val", "n01751748", "ILSVRC2012_val_00000001.JPEG")]
    expected += [Path("val", "n09193705", "ILSVRC2012_val_00000002.JPEG")]
    assert paths == expected


WNIDS = ("n01440764", "n01443537", "n02102040")
# Official numbers mix the classes; class 1 has one image fewer than the others.
FILES = {4: 0, 1: 2, 9: 1, 6: 2, 3: 0}
ORDER = sorted(FILES)


def path_of(cell, number):
    return cell / WNIDS[FILES[number]] / f"ILSVRC2012_val_{number:08}.JPEG"


def write_tree(folder, names, size=SIZE):
    for at, name in enumerate(names):
        for severity in range(1, 6):
            for number in FILES:
                path = path_of(folder / name / str(severity), number)
                save(path, image(1000 * at + 10 * severity + number, size), quality=85)
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


def open_set(place, names=THREE, limit=0, **options):
    return corrupted.open_set(place, SIZE, names, limit, **options)


@pytest.mark.parametrize(("limit", "sizes"), [(0, [2, 2, 1]), (3, [2, 1]), (99, [2, 2, 1])])
def test_a_cell_is_decoded_in_the_order_of_the_official_numbers(flat, small_batches, limit, sizes):
    opened = open_set(flat, limit=limit)
    assert opened.names == ("fog", "jpeg_compression", "saturate")
    assert opened.data["source"] == "official"
    for name, severity in (("fog", 1), ("fog", 5), ("saturate", 3)):
        batches = list(opened.cell(name, severity))
        assert [len(images) for images, _ in batches] == sizes
        images, labels = joined(batches)
        numbers = ORDER[: limit or None]
        np.testing.assert_array_equal(images, decoded(flat, name, severity, numbers))
        np.testing.assert_array_equal(labels, [FILES[number] for number in numbers])


def test_the_public_groups_are_found_as_well_as_flat_folders(flat, tmp_path):
    for group, name in (("weather", "fog"), ("extra", "saturate")):
        shutil.copytree(flat / name, tmp_path / group / name)
    shutil.copytree(flat / "jpeg_compression", tmp_path / "jpeg_compression")
    grouped = open_set(tmp_path)
    assert grouped.names == open_set(flat).names
    np.testing.assert_array_equal(joined(grouped.cell("fog", 3))[0], decoded(flat, "fog", 3))


def test_classes_are_matched_by_the_model_s_wordnet_ids(flat):
    names = ["n03000000", WNIDS[2], WNIDS[0], "n01000000", WNIDS[1]]
    _, labels = joined(open_set(flat, names).cell("fog", 1))
    np.testing.assert_array_equal(labels, [names.index(WNIDS[FILES[n]]) for n in ORDER])


def test_classes_that_the_model_lacks_are_left_out_before_the_limit(flat):
    opened = open_set(flat, [WNIDS[1], WNIDS[2]], limit=3)
    images, labels = joined(opened.cell("saturate", 5))
    np.testing.assert_array_equal(images, decoded(flat, "saturate", 5, [1, 6, 9]))
    np.testing.assert_array_equal(labels, [1, 1, 0])
    assert "2 of 3 classes" in opened.data["description"]


def test_classes_that_cannot_be_matched_are_refused(flat):
    with pytest.raises(ArgumentError, match="a set of the model's 10 classes; received 3 classes"):
        open_set(flat, class_names(10))
    with pytest.raises(ArgumentError, match=r"classes that the model knows \(n00000001, ...\)"):
        open_set(flat, ["n00000001", "n00000002"])


@pytest.mark.parametrize("stored", [(21, 27), (18, 40)])
def test_the_canonical_crop_is_the_centre_of_the_stored_image(tmp_path, stored):
    path = save(tmp_path / "x.JPEG", image(5, stored))
    top, left = (round((a - b) / 2) for a, b in zip(stored, SIZE, strict=True))
    box = (left, top, left + SIZE[1], top + SIZE[0])
    read = corrupted.read_image(path, SIZE, "canonical")
    np.testing.assert_array_equal(read, np.asarray(Image.open(path).crop(box)))


@pytest.mark.parametrize(
    ("stored", "resized"), [((224, 224), (256, 256)), ((230, 345), (256, 384))]
)
def test_the_reference_crop_enlarges_before_it_cuts(tmp_path, stored, resized):
    path = save(tmp_path / "x.JPEG", image(5, stored))
    read = corrupted.read_image(path, (224, 224), "reference")
    left = (resized[1] - 224) // 2
    enlarged = Image.open(path).resize(resized[::-1], Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(read, np.asarray(enlarged.crop((left, 16, left + 224, 240))))


DAMAGES = {
    "missing": (
        lambda fog: path_of(fog / "3", 6).unlink(),
        r"fog.3: expected the same 5 files.*received 4 \(n02102040/.*6.JPEG is missing\)",
    ),
    "left over": (
        lambda fog: shutil.copy(path_of(fog / "3", 6), fog / "3" / WNIDS[0] / "copy.JPEG"),
        r"fog.3: .*received 6 \(n01440764/copy.JPEG is left over\)",
    ),
    "no severity": (lambda fog: shutil.rmtree(fog / "5"), "fog.5: .*received 0 "),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_folder_that_differs_is_named_with_what_is_left(own, damage):
    make, problem = DAMAGES[damage]
    make(own / "fog")
    with pytest.raises(FileError, match=problem + ".*evaluated: jpeg_compression, saturate"):
        open_set(own)


def test_an_image_that_is_damaged_or_too_small_is_named_when_it_is_read(own):
    path = path_of(own / "fog" / "3", 6)
    path.write_bytes(path.read_bytes()[:200])
    opened = open_set(own)
    assert len(joined(opened.cell("fog", 2))[1]) == 5
    with pytest.raises(FileError, match=r"00000006.JPEG: damaged JPEG file.*never left out"):
        joined(opened.cell("fog", 3))
    with pytest.raises(FileError, match=r"JPEG: expected 17x20 pixels or more; received 16x20"):
        joined(corrupted.open_set(own, (17, 20), class_names(3)).cell("fog", 1))


def test_sets_that_hold_too_little_are_refused(tmp_path):
    (tmp_path / "c" / "fog" / "1" / WNIDS[0]).mkdir(parents=True)
    with pytest.raises(ArgumentError, match="Expected images in <corruption>/<severity>/<class>"):
        open_set(tmp_path / "c")
    for split in ("train", "val"):
        save(tmp_path / split / "sqare" / "a.png", image(0))
    with pytest.raises(ArgumentError, match="of at least 2 classes; received folder with 1"):
        sources.load("folder", tmp_path, image_size=SIDE)
    with pytest.raises(ArgumentError, match=r"sqare.*Did you mean 'square'"):
        class_folders.read(tmp_path / "train", like(["disc", "square"]))
