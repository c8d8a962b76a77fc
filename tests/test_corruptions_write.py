"""Writing -C and -P sets: layouts, resuming, damage, full disks, shards, processes."""

import errno
import functools
import hashlib
import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from augmix_tf import corruptions
from augmix_tf.corruptions import catalogue, weather, write
from augmix_tf.data import corrupted
from augmix_tf.errors import ArgumentError, FileError, RunError
from tests.image_stores import OnDisk
from tests.test_corruptions import some_images

NAMES = ["gaussian_noise", "contrast"]
IMAGES = some_images(5, 18, 20)
LABELS = np.array([1, 0, 1, 0, 0])  # no image of the third class
CLASSES = ["n02102040", "n01440764", "n03000684"]
IDS = np.array([7, 3, 9, 1, 20])
ROWS = 5 * len(IMAGES)  # of one corruption

both_layouts = pytest.mark.parametrize("layout", ["npy", "jpeg"])


@pytest.fixture
def small_blocks(monkeypatch):
    """Two images a block: three blocks for each severity."""
    monkeypatch.setattr(write, "BLOCK_BYTES", 2 * IMAGES[:1].nbytes)


@pytest.fixture
def made(monkeypatch):
    """The ids of all images that are corrupted, in order."""
    ids_made = []
    corrupt = catalogue.corrupt

    def counting(images, ids, **options):
        ids_made.extend(ids)
        return corrupt(images, ids=ids, **options)

    monkeypatch.setattr(catalogue, "corrupt", counting)
    return ids_made


def write_set(folder, names=NAMES, **options):
    options = {"class_names": CLASSES, "ids": IDS, "workers": 1} | options
    images, labels = options.pop("images", IMAGES), options.pop("labels", LABELS)
    return corruptions.write_corrupted(folder, images, labels, names, **options)


def contents(folder):
    """Every file of the data, by its path; hidden ones show what was left behind."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    others = ("manifest.json", ".lock")
    return {str(p.relative_to(folder)): p.read_bytes() for p in files if p.name not in others}


def after_jpeg(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=85)
    return np.asarray(Image.open(file))


def test_corrupted_set_is_laid_out_as_the_published_one(tmp_path):
    seen = []
    write_set(tmp_path, seed=4, progress=lambda *at: seen.append(at))
    for name in NAMES:
        got = np.load(tmp_path / f"{name}.npy")
        assert (got.dtype, got.shape) == (np.uint8, (25, 18, 20, 3))
        for severity in corruptions.SEVERITIES:
            want = corruptions.corrupt(IMAGES, name, severity, seed=4, ids=IDS)
            np.testing.assert_array_equal(got[5 * (severity - 1) : 5 * severity], want)
    labels = np.load(tmp_path / "labels.npy")
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, np.tile(LABELS, 5))
    write_set(tmp_path / "more classes", labels=np.array([0, 999, 256, 1, 2]))
    assert np.load(tmp_path / "more classes" / "labels.npy").max() == 999
    assert seen[0] == (0, 50)
    assert seen[-1] == (50, 50)
    assert seen == sorted(seen)


def test_jpeg_set_is_read_as_imagenet_c(tmp_path):
    manifest = write_set(tmp_path, seed=4, layout="jpeg")
    opened = corrupted.open_set(tmp_path, (18, 20), CLASSES)
    assert opened.names == tuple(NAMES)
    data = opened.data
    assert (data["source"], data["seed"], data["images"]) == ("generated", 4, 5)
    order = np.argsort(IDS)
    for name in NAMES:
        for severity in corruptions.SEVERITIES:
            ((images, labels),) = opened.cell(name, severity)
            want = corruptions.corrupt(IMAGES, name, severity, 4, IDS)[order]
            np.testing.assert_array_equal(images, [after_jpeg(image) for image in want])
            np.testing.assert_array_equal(labels, LABELS[order])
    folder = tmp_path / "contrast" / "3" / "n01440764"
    assert sorted(path.name for path in folder.iterdir()) == ["00000007.JPEG", "00000009.JPEG"]
    assert (manifest["settings"]["layout"], manifest["settings"]["quality"]) == ("jpeg", 85)
    assert not (tmp_path / "labels.npy").exists()


@both_layouts
def test_manifest_lists_settings_versions_and_checksums(tmp_path, layout):
    returned = write_set(tmp_path, seed=4, source={"split": "test"}, layout=layout)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest == returned
    assert manifest["official"] is False
    settings = manifest["settings"]
    assert (settings["seed"], settings["table"]) == (4, "cifar")
    assert (settings["images"], settings["source"]) == ([5, 18, 20, 3], {"split": "test"})
    assert manifest["versions"]["numpy"] == np.__version__
    order = IDS.tolist()
    for name, entry in manifest["files"].items():
        # A folder counts as its files joined, severity by severity in the order of the images.
        paths = sorted(
            (tmp_path / name).rglob("*.JPEG"), key=lambda p: (p.parts[-3], order.index(int(p.stem)))
        )
        data = b"".join(path.read_bytes() for path in paths or [tmp_path / name])
        assert entry == {"sha256": hashlib.sha256(data).hexdigest()}


def test_perturbed_set_is_laid_out_as_the_published_one(tmp_path):
    names = ["translate", "shot_noise"]
    manifest = corruptions.write_perturbed(tmp_path, IMAGES, names, seed=2, workers=1)
    for name in names:
        got = np.load(tmp_path / f"{name}.npy")
        np.testing.assert_array_equal(got, corruptions.perturb(IMAGES, name, seed=2))
    assert manifest["settings"]["benchmark"] == "perturbations"
    assert set(manifest["files"]) == {"translate.npy", "shot_noise.npy"}


def test_images_on_disk_are_read_in_slices(tmp_path, small_blocks):
    on_disk = OnDisk(IMAGES)
    assert write.sha256_of(on_disk) == hashlib.sha256(IMAGES.tobytes()).hexdigest()
    assert on_disk.read == [2, 2, 1]
    got = write_set(tmp_path / "disk", images=on_disk, seed=3)
    assert max(on_disk.read) == 2
    assert got == write_set(tmp_path / "memory", seed=3)
    assert contents(tmp_path / "disk") == contents(tmp_path / "memory")
    write_set(tmp_path / "disk", images=IMAGES, seed=3)  # the same set


@both_layouts
def test_frost_without_photographs_becomes_frost_synthetic(tmp_path, monkeypatch, layout):
    monkeypatch.setattr(weather.importlib.util, "find_spec", lambda name: None)
    manifest = write_set(tmp_path, ["frost", "contrast"], layout=layout)
    assert manifest["frost_source"] == "synthetic"
    assert {Path(name).stem for name in manifest["files"]} >= {"frost_synthetic", "contrast"}
    assert not list(tmp_path.glob("frost")) + list(tmp_path.glob("frost.npy"))
    if layout == "npy":
        got = np.load(tmp_path / "frost_synthetic.npy")[:5]
        want = corruptions.corrupt(IMAGES, "frost_synthetic", 1, ids=IDS)
        np.testing.assert_array_equal(got, want)


@both_layouts
def test_an_interrupted_set_resumes_without_making_a_finished_file_again(
    tmp_path, made, small_blocks, layout
):
    write_set(tmp_path / "whole", layout=layout)

    def stop(done, total):
        if done >= 38:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_set(tmp_path / "stopped", layout=layout, progress=stop)
    names = {Path(name).parts[0].removesuffix(".npy") for name in contents(tmp_path / "stopped")}
    assert names == {"gaussian_noise", "labels"} - ({"labels"} if layout == "jpeg" else set())
    made.clear()
    seen = []
    write_set(tmp_path / "stopped", layout=layout, progress=lambda *at: seen.append(at))
    assert seen[0] == (ROWS, 2 * ROWS)
    assert len(made) == ROWS
    assert contents(tmp_path / "stopped") == contents(tmp_path / "whole")
    made.clear()
    write_set(tmp_path / "stopped", layout=layout)
    assert made == []


@pytest.mark.parametrize("damage", ["flipped", "gone"])
@both_layouts
def test_a_damaged_file_is_detected_and_made_again(tmp_path, layout, damage, made, caplog):
    write_set(tmp_path, layout=layout)
    want = contents(tmp_path)
    path = tmp_path / ("contrast/5/n02102040/00000020.JPEG" if layout == "jpeg" else "contrast.npy")
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    if damage == "gone":
        path.unlink()
    made.clear()
    write_set(tmp_path, layout=layout)
    # A missing .npy file is no damage.
    is_reported = layout == "jpeg" or damage != "gone"
    assert ("does not match its checksum" in caplog.text) == is_reported
    assert contents(tmp_path) == want
    assert len(made) == ROWS


def test_more_names_extend_a_set(tmp_path):
    write_set(tmp_path, ["contrast"])
    manifest = write_set(tmp_path, ["pixelate"])
    assert set(manifest["files"]) == {"contrast.npy", "pixelate.npy", "labels.npy"}


def test_a_killed_run_leaves_no_process_and_no_part_of_a_file(tmp_path):
    script = f"""
import numpy as np
from augmix_tf import corruptions
from augmix_tf.corruptions import write
if __name__ == "__main__":
    write.BLOCK_BYTES = 3000
    images = np.arange(200 * 16 * 16 * 3).reshape(200, 16, 16, 3).astype(np.uint8)
    names = ["contrast", "glass_blur"]
    corruptions.write_corrupted({str(tmp_path)!r}, images, np.zeros(200, int), names, workers=2)
"""
    run = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    end = time.monotonic() + 60
    while not list(tmp_path.glob(".glass_blur.*")) and time.monotonic() < end:
        time.sleep(0.01)
    run.kill()
    # The pipe stays open for as long as any process of the run lives.
    run.communicate(timeout=30)
    assert corrupted.open_set(tmp_path, (16, 16), ["a"]).names == ("contrast",)
    before = (tmp_path / "contrast.npy").stat()
    subprocess.run([sys.executable, "-c", script], check=True)
    after = (tmp_path / "contrast.npy").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert list(tmp_path.glob(".glass_blur.*")) == []
    images = np.arange(200 * 16 * 16 * 3).reshape(200, 16, 16, 3).astype(np.uint8)
    want = corruptions.corrupt(images, "glass_blur", 5)
    np.testing.assert_array_equal(np.load(tmp_path / "glass_blur.npy")[-200:], want)


def test_the_number_of_processes_does_not_change_the_bytes(tmp_path, small_blocks):
    write_set(tmp_path / "one", layout="jpeg")
    write_set(tmp_path / "two", layout="jpeg", workers=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


@both_layouts
def test_shards_make_the_set_together(tmp_path, layout):
    names = [*NAMES, "pixelate", "fog"]
    write_set(tmp_path / "one", names, layout=layout)
    totals, finished = [], []
    for shard in (2, 0, 1):
        manifest = write_set(
            tmp_path / "three",
            names,
            layout=layout,
            shard_index=shard,
            shard_count=3,
            images=OnDisk(IMAGES),
            progress=lambda done, total: totals.append((done, total)),
        )
        finished.append({Path(name).stem for name in manifest["files"]} - {"labels"})
    assert finished == [{"pixelate"}, {"pixelate", "gaussian_noise", "fog"}, set(names)]
    assert sum(total for done, total in totals if done == 0) == 4 * ROWS
    assert contents(tmp_path / "one") == contents(tmp_path / "three")
    manifests = [json.loads((tmp_path / n / "manifest.json").read_text()) for n in ("one", "three")]
    assert manifests[0] == manifests[1]


def test_a_worker_that_dies_is_reported():
    with pytest.raises(RunError, match=r"worker process died.* Use fewer `workers`"):
        list(write._run([functools.partial(os._exit, 3)], 2))


@pytest.mark.parametrize("target", ["contrast.npy", "manifest.json", "labels.npy", "contrast"])
def test_a_full_disk_leaves_no_part_of_a_file_or_folder(tmp_path, target, monkeypatch):
    layout = "jpeg" if target == "contrast" else "npy"
    write_set(tmp_path / "whole", ["contrast"], layout=layout)
    replace = os.replace

    def full(source, path):
        if Path(path).name == target:
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, path)

    monkeypatch.setattr(os, "replace", full)
    message = rf"^cannot write {tmp_path}/set/{target}: No space left on device$"
    with pytest.raises(FileError, match=message):
        write_set(tmp_path / "set", ["contrast"], layout=layout)
    assert not contents(tmp_path / "set").keys() - {"labels.npy"}
    monkeypatch.undo()
    write_set(tmp_path / "set", ["contrast"], layout=layout)
    assert contents(tmp_path / "set") == contents(tmp_path / "whole")


def test_an_image_that_cannot_be_read_is_not_reported_as_a_file_that_cannot_be_written(tmp_path):
    class Unreadable(OnDisk):
        def __getitem__(self, rows):
            if len(self.read) == 1:  # after the checksum
                raise FileError("cannot read n01440764/4.JPEG")
            return super().__getitem__(rows)

    with pytest.raises(FileError, match=r"^cannot read n01440764/4\.JPEG$"):
        write_set(tmp_path, images=Unreadable(IMAGES))
    assert set(contents(tmp_path)) == {"labels.npy"}


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_broken_manifest_is_named(tmp_path, text):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(FileError, match=r"cannot read .*manifest.json: "):
        write_set(tmp_path)


@both_layouts
def test_files_without_a_manifest_are_left_alone(tmp_path, layout):
    path = tmp_path / ("contrast" if layout == "jpeg" else "contrast.npy")
    path.mkdir() if layout == "jpeg" else path.write_bytes(b"official")
    with pytest.raises(ArgumentError, match=r"\['contrast'\] without a manifest: official files"):
        write_set(tmp_path, layout=layout)
    assert list(path.iterdir()) == [] if layout == "jpeg" else path.read_bytes() == b"official"


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"seed": 1}, "'seed': 0"),
        ({"images": IMAGES[::-1]}, "'images_sha256'"),
        ({"ids": [1, 2, 3, 4, 5]}, "'ids_sha256'"),
        ({"layout": "npy"}, "'layout': 'jpeg'"),
        ({"class_names": ["x", "y"]}, "'names_sha256'"),
    ],
)
def test_another_set_in_the_folder_is_refused(tmp_path, options, key):
    layout = "jpeg" if {"layout", "class_names"} & options.keys() else "npy"
    write_set(tmp_path, layout=layout)
    before = contents(tmp_path)
    with pytest.raises(ArgumentError, match=rf"Expected the set in {tmp_path} with .*{key}"):
        write_set(tmp_path, **{"layout": layout} | options)
    assert contents(tmp_path) == before


def test_other_library_versions_do_not_continue_a_set(tmp_path):
    manifest = write_set(tmp_path)
    manifest["versions"]["opencv"] = "3.4.18"
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ArgumentError, match=r"with {'opencv': '3.4.18'}; received {'opencv'"):
        write_set(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"names": ["contrats"]}, "Did you mean 'contrast'"),
        ({"names": ["contrast", "contrast"]}, "Expected each corruption once"),
        ({"labels": LABELS[:4]}, r"Expected integer labels \[5\].* received int64 \[4\]"),
        ({"shard_index": 2, "shard_count": 2}, "shard_index below the shard_count, 2; received 2"),
        ({"images": OnDisk(IMAGES.astype(float))}, "received float64"),
        (
            {"layout": "jpeg", "class_names": CLASSES[:1]},
            "Expected labels of 0 to 0, one for each class name; received 0 to 1",
        ),
        ({"layout": "jpeg", "class_names": ["a", "../b"]}, "valid folder names; received '../b'"),
    ],
)
def test_malformed_requests_write_nothing(tmp_path, options, message):
    with pytest.raises(ArgumentError, match=message):
        write_set(tmp_path / "set", **options)
    assert not (tmp_path / "set").exists()
