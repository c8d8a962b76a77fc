"""-C sets in the layout of ImageNet-C: what is written reads back, also after interruptions."""

import errno
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from augmix_tf import corruptions
from augmix_tf.checks import CommandError, RunError
from augmix_tf.corruptions import catalogue, frost, picture_folders, writer
from augmix_tf.data import corrupted
from tests.on_disk import OnDisk
from tests.test_corruptions import some_images

NAMES = ["gaussian_noise", "contrast"]
WNIDS = ["n02102040", "n01440764", "n03000684"]
LABELS = np.array([1, 0, 1, 0, 0])  # no picture of the third class
IDS = np.array([7, 3, 9, 1, 20])
IMAGES = some_images(5, 18, 20)


def write(folder, names=NAMES, **options):
    options = {"images": IMAGES, "class_names": WNIDS, "ids": IDS, "layout": "jpeg"} | options
    images = options.pop("images")
    return corruptions.write_corrupted(folder, images, LABELS, names, workers=1, **options)


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*.JPEG"))}


def marks(folder):
    return sorted(path for path in (folder / "parts").iterdir() if path.name != "lock")


@pytest.fixture
def small_parts(monkeypatch):
    """Two images a part: three parts for each of the five severities."""
    monkeypatch.setattr(writer, "PART_BYTES", 2 * IMAGES[:1].nbytes)
    monkeypatch.setattr(writer, "BLOCK_BYTES", IMAGES[:1].nbytes)


def compressed(picture):
    """What is left of a picture after JPEG at quality 85."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=85)
    return np.asarray(Image.open(file))


def test_a_written_set_is_read_as_imagenet_c(tmp_path):
    manifest = write(tmp_path, seed=4)
    found = corrupted.open_set(tmp_path, (18, 20), 3, class_names=WNIDS)
    assert found.names == tuple(NAMES)
    assert (found.data["source"], found.data["seed"], found.data["images"]) == ("generated", 4, 5)
    order = np.argsort(IDS)
    for name in NAMES:
        for severity in corruptions.SEVERITIES:
            ((images, labels),) = found.cell(name, severity)
            made = corruptions.corrupt(IMAGES, name, severity, 4, IDS)[order]
            np.testing.assert_array_equal(images, [compressed(picture) for picture in made])
            np.testing.assert_array_equal(labels, LABELS[order])
    place = tmp_path / "contrast" / "3" / "n01440764"
    assert sorted(path.name for path in place.iterdir()) == ["00000007.JPEG", "00000009.JPEG"]
    assert set(manifest["files"]) == set(NAMES)
    assert manifest["files"]["contrast"]["pictures"] == 25
    assert (manifest["settings"]["layout"], manifest["settings"]["quality"]) == ("jpeg", 85)
    assert marks(tmp_path) == []
    assert not (tmp_path / "labels.npy").exists()


def test_an_interrupted_set_goes_on_where_it_stopped(tmp_path, monkeypatch, small_parts):
    write(tmp_path / "whole")

    def stop(done, total):
        if done >= 38:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "set", progress=stop)
    assert len(marks(tmp_path / "set")) == 7  # 12 of 25 pictures of the second corruption
    found = corrupted.open_set(tmp_path / "set", (18, 20), 3, class_names=WNIDS)
    assert found.names == ("gaussian_noise",)
    made = []
    corrupt = catalogue.corrupt

    def counting(images, ids, **options):
        made.extend(ids)
        return corrupt(images, ids=ids, **options)

    monkeypatch.setattr(catalogue, "corrupt", counting)
    write(tmp_path / "set")
    assert len(made) == 13
    assert contents(tmp_path / "set") == contents(tmp_path / "whole")
    assert marks(tmp_path / "set") == []
    made.clear()
    write(tmp_path / "set")
    assert made == []


@pytest.mark.parametrize("damage", ["flipped", "cut", "gone"])
def test_a_damaged_picture_is_found_and_its_corruption_made_again(tmp_path, damage, caplog):
    write(tmp_path)
    want = contents(tmp_path)
    path = tmp_path / "contrast" / "5" / "n02102040" / "00000020.JPEG"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data if damage == "flipped" else data[:50])
    if damage == "gone":
        path.unlink()
    write(tmp_path)
    assert "contrast differs from its checksum" in caplog.text
    assert contents(tmp_path) == want


def test_a_damaged_part_is_made_again(tmp_path, small_parts, caplog):
    write(tmp_path / "whole", ["contrast"])

    def stop(done, total):
        if done >= 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "set", ["contrast"], progress=stop)
    (tmp_path / "set" / "contrast" / "1" / "n02102040" / "00000003.JPEG").write_bytes(b"")
    write(tmp_path / "set", ["contrast"])
    assert "differs from its checksum" in caplog.text
    assert contents(tmp_path / "set") == contents(tmp_path / "whole")


def test_shards_make_the_set_together(tmp_path, small_parts):
    write(tmp_path / "one")
    for shard in (2, 0, 1):
        write(tmp_path / "three", shard_index=shard, shard_count=3, images=OnDisk(IMAGES))
    assert contents(tmp_path / "one") == contents(tmp_path / "three")
    manifests = [json.loads((tmp_path / n / "manifest.json").read_text()) for n in ("one", "three")]
    assert manifests[0] == manifests[1]


def test_frost_without_photographs_goes_by_another_name(tmp_path, monkeypatch):
    monkeypatch.setattr(frost.importlib.util, "find_spec", lambda name: None)
    manifest = write(tmp_path, ["frost"])
    assert manifest["frost_source"] == "synthetic"
    assert (tmp_path / "frost_synthetic" / "1").is_dir()
    assert not (tmp_path / "frost").exists()


def test_a_full_disk_is_said_and_leaves_no_broken_picture(tmp_path, monkeypatch):
    write_bytes = Path.write_bytes

    def full(path, data):
        if path.suffix == ".JPEG" and "/5/" in str(path):
            write_bytes(path, data[:9])
            raise OSError(errno.ENOSPC, "No space left on device")
        return write_bytes(path, data)

    monkeypatch.setattr(picture_folders.Path, "write_bytes", full)
    with pytest.raises(RunError, match=r"cannot write .*/5/.*JPEG: No space left on device"):
        write(tmp_path / "set", ["contrast"])
    monkeypatch.undo()
    assert all(len(data) > 9 for data in contents(tmp_path / "set").values())
    write(tmp_path / "set", ["contrast"])
    write(tmp_path / "whole", ["contrast"])
    assert contents(tmp_path / "set") == contents(tmp_path / "whole")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layout": "jpg"}, "unknown layout 'jpg', did you mean 'jpeg'"),
        ({"class_names": None}, "want class_names for the layout jpeg, got none"),
        ({"class_names": WNIDS[:1]}, "want labels of 0 to 0, one for each class name, got 0 to 1"),
        ({"class_names": ["a", "../b"]}, r"class names that folders can have, got '\.\./b'"),
        ({"class_names": ["a", ".."]}, r"class names that folders can have, got '\.\.'"),
        ({"class_names": ["", "b"]}, "class names that folders can have, got ''"),
    ],
)
def test_malformed_requests_write_nothing(tmp_path, options, message):
    with pytest.raises(CommandError, match=message):
        write(tmp_path / "set", **options)
    assert not (tmp_path / "set").exists()


def test_another_set_in_the_folder_is_refused(tmp_path):
    write(tmp_path)
    with pytest.raises(CommandError, match=r"to go on as it was begun, .*'names_sha256'"):
        write(tmp_path, class_names=["x", "y"])
    with pytest.raises(CommandError, match=r"to go on as it was begun, .*'layout': 'jpeg'"):
        write(tmp_path, layout="npy")
    (tmp_path / "other" / "contrast").mkdir(parents=True)
    with pytest.raises(CommandError, match=r"\['contrast'\] without a manifest: official files"):
        write(tmp_path / "other")
