"""Writing -C and -P sets: layout, resuming, damage, full disks, shards, processes."""

import errno
import hashlib
import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from augmix_tf import corruptions
from augmix_tf.checks import CommandError, RunError
from augmix_tf.corruptions import catalogue, frost, storage, writer
from tests.on_disk import OnDisk
from tests.test_corruptions import some_images

NAMES = ["gaussian_noise", "contrast"]
LABELS = np.array([3, 1, 4, 1, 5])
IMAGES = some_images(5, 18, 20)


@pytest.fixture
def small_parts(monkeypatch):
    """Two images a part: three parts for each of the five severities."""
    monkeypatch.setattr(writer, "PART_BYTES", 2 * IMAGES[:1].nbytes)
    monkeypatch.setattr(writer, "BLOCK_BYTES", IMAGES[:1].nbytes)


def write(folder, names=NAMES, images=IMAGES, labels=LABELS, workers=1, **options):
    return corruptions.write_corrupted(folder, images, labels, names, workers=workers, **options)


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.npy"))}


def part_files(folder):
    return sorted(path for path in (folder / "parts").iterdir() if path.name != "lock")


# Layout


def test_corrupted_set_is_laid_out_as_the_published_one(tmp_path):
    seen = []
    write(tmp_path, seed=4, source={"split": "test"}, progress=lambda *at: seen.append(at))
    for name in NAMES:
        got = np.load(tmp_path / f"{name}.npy")
        assert (got.dtype, got.shape) == (np.uint8, (25, 18, 20, 3))
        for severity in corruptions.SEVERITIES:
            want = corruptions.corrupt(IMAGES, name, severity, seed=4)
            np.testing.assert_array_equal(got[5 * (severity - 1) : 5 * severity], want)
    labels = np.load(tmp_path / "labels.npy")
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, np.tile(LABELS, 5))
    assert seen[0] == (0, 50)
    assert seen[-1] == (50, 50)
    assert seen == sorted(seen)


def test_manifest_says_what_was_made(tmp_path):
    returned = write(tmp_path, seed=4, source={"split": "test"})
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest == returned
    assert manifest["official"] is False
    assert "not the published files" in manifest["note"]
    assert manifest["settings"]["seed"] == 4
    assert manifest["settings"]["table"] == "cifar"
    assert manifest["settings"]["images"] == [5, 18, 20, 3]
    assert manifest["settings"]["source"] == {"split": "test"}
    assert manifest["versions"]["numpy"] == np.__version__
    assert set(manifest["files"]) == {"gaussian_noise.npy", "contrast.npy", "labels.npy"}
    for name, entry in manifest["files"].items():
        data = (tmp_path / name).read_bytes()
        assert entry["sha256"] == hashlib.sha256(data).hexdigest()
    parts = manifest["files"]["contrast.npy"]["parts"]
    assert [part["severity"] for part in parts] == [1, 2, 3, 4, 5]
    rows = np.load(tmp_path / "contrast.npy")[5:10]
    assert parts[1]["first_row"] == 5
    assert parts[1]["sha256"] == hashlib.sha256(rows.tobytes()).hexdigest()


def test_large_labels_keep_their_values(tmp_path):
    write(tmp_path, labels=np.array([0, 999, 256, 1, 2]))
    assert np.load(tmp_path / "labels.npy").max() == 999


def test_perturbed_set_is_laid_out_as_the_published_one(tmp_path):
    names = ["translate", "shot_noise"]
    manifest = corruptions.write_perturbed(tmp_path, IMAGES, names, seed=2, workers=1)
    for name in names:
        got = np.load(tmp_path / f"{name}.npy")
        np.testing.assert_array_equal(got, corruptions.perturb(IMAGES, name, seed=2))
    assert manifest["settings"]["benchmark"] == "perturbations"
    assert set(manifest["files"]) == {"translate.npy", "shot_noise.npy"}


def test_a_memory_mapped_array_will_do(tmp_path):
    np.save(tmp_path / "images.npy", IMAGES)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    write(tmp_path / "mapped", images=mapped)
    write(tmp_path / "whole")
    assert contents(tmp_path / "mapped") == contents(tmp_path / "whole")


def test_pictures_on_disk_are_read_piece_by_piece(tmp_path, small_parts, monkeypatch):
    monkeypatch.setattr(storage, "READ_BYTES", 3 * IMAGES[:1].nbytes)
    on_disk = OnDisk(IMAGES)
    assert storage.sha256_rows(on_disk) == hashlib.sha256(IMAGES.tobytes()).hexdigest()
    assert on_disk.read == [3, 2]
    got = write(tmp_path / "disk", images=on_disk, seed=3)
    assert max(on_disk.read) == 3
    assert got == write(tmp_path / "memory", seed=3)
    assert contents(tmp_path / "disk") == contents(tmp_path / "memory")
    write(tmp_path / "disk", images=IMAGES, seed=3)  # the very same set


def test_sequences_of_pictures_on_disk_are_written_piece_by_piece(tmp_path, small_parts):
    on_disk = OnDisk(IMAGES)
    corruptions.write_perturbed(tmp_path, on_disk, ["translate"], seed=2, workers=1)
    got = np.load(tmp_path / "translate.npy")
    np.testing.assert_array_equal(got, corruptions.perturb(IMAGES, "translate", seed=2))
    assert max(on_disk.read[1:]) == 1  # but for the checksum, a sequence at a time


# Frost


def test_frost_without_photographs_goes_by_another_name(tmp_path, monkeypatch):
    monkeypatch.setattr(frost.importlib.util, "find_spec", lambda name: None)
    manifest = write(tmp_path, ["frost", "contrast"])
    assert manifest["frost_source"] == "synthetic"
    assert "frost.npy" not in manifest["files"]
    got = np.load(tmp_path / "frost_synthetic.npy")
    np.testing.assert_array_equal(got[:5], corruptions.corrupt(IMAGES, "frost_synthetic", 1))


def test_frost_with_photographs(tmp_path, monkeypatch):
    digests = {}
    for name, photograph in zip(frost.PHOTOGRAPHS, some_images(5, 300, 400), strict=True):
        Image.fromarray(photograph).save(tmp_path / name)
        digests[name] = hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
    monkeypatch.setattr(frost, "PHOTOGRAPHS", digests)
    manifest = write(tmp_path / "set", ["frost"], frost_dir=tmp_path)
    assert manifest["frost_source"] == "original photographs"
    assert "frost_synthetic.npy" not in manifest["files"]


# Resuming


def test_an_interrupted_set_goes_on_where_it_stopped(tmp_path, monkeypatch, small_parts):
    write(tmp_path / "whole")

    def stop_half_way(done, total):
        if done >= total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "stopped", progress=stop_half_way)
    assert part_files(tmp_path / "stopped") == []  # the first file was joined just then
    made = []
    corrupt = catalogue.corrupt

    def counting(images, ids, **options):
        made.extend(ids)
        return corrupt(images, ids=ids, **options)

    monkeypatch.setattr(catalogue, "corrupt", counting)
    seen = []
    write(tmp_path / "stopped", progress=lambda *at: seen.append(at))
    assert seen[0] == (25, 50)
    assert len(made) == 25
    assert contents(tmp_path / "stopped") == contents(tmp_path / "whole")
    assert part_files(tmp_path / "stopped") == []
    made.clear()
    write(tmp_path / "stopped")
    assert made == []


@pytest.mark.parametrize("damage", ["flip", "cut"])
def test_a_damaged_part_is_found_and_made_again(tmp_path, damage, small_parts, caplog):
    write(tmp_path / "whole")

    def stop_early(done, total):
        if done >= 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "set", progress=stop_early)
    part = part_files(tmp_path / "set")[1]
    data = bytearray(part.read_bytes())
    data[-5] ^= 1
    part.write_bytes(data if damage == "flip" else data[:150])
    write(tmp_path / "set")
    assert f"{part} differs from its checksum" in caplog.text
    assert contents(tmp_path / "set") == contents(tmp_path / "whole")


def test_a_damaged_file_is_found_and_made_again(tmp_path, caplog):
    write(tmp_path)
    want = contents(tmp_path)
    data = bytearray(want["contrast.npy"])
    data[500] ^= 1
    (tmp_path / "contrast.npy").write_bytes(data)
    write(tmp_path)
    assert "contrast.npy differs from its checksum" in caplog.text
    assert contents(tmp_path) == want


def test_more_names_extend_a_set(tmp_path):
    write(tmp_path, ["contrast"])
    manifest = write(tmp_path, ["pixelate"])
    assert set(manifest["files"]) == {"contrast.npy", "pixelate.npy", "labels.npy"}


def test_a_killed_run_leaves_no_process_and_can_go_on(tmp_path):
    script = f"""
import sys
import numpy as np
from augmix_tf import corruptions
from augmix_tf.corruptions import writer
if __name__ == "__main__":
    writer.PART_BYTES = writer.BLOCK_BYTES = 3000
    images = np.arange(200 * 16 * 16 * 3).reshape(200, 16, 16, 3).astype(np.uint8)
    corruptions.write_corrupted(
        {str(tmp_path / "set")!r}, images, np.zeros(200, int), ["glass_blur"], workers=2)
"""
    run = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    end = time.monotonic() + 60
    while len(list(tmp_path.glob("set/parts/*.npy"))) < 3 and time.monotonic() < end:
        time.sleep(0.01)
    run.kill()
    # The pipe stays open for as long as any process of the run lives.
    run.communicate(timeout=30)
    subprocess.run([sys.executable, "-c", script], check=True)
    images = np.arange(200 * 16 * 16 * 3).reshape(200, 16, 16, 3).astype(np.uint8)
    got = np.load(tmp_path / "set" / "glass_blur.npy")
    np.testing.assert_array_equal(got[800:], corruptions.corrupt(images, "glass_blur", 5))


# Processes and shards


def test_processes_change_nothing(tmp_path, small_parts):
    write(tmp_path / "one")
    write(tmp_path / "two", workers=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_shards_make_the_set_together(tmp_path, small_parts):
    write(tmp_path / "one")
    totals = []
    for shard in (2, 0, 1):
        manifest = write(
            tmp_path / "three",
            shard_index=shard,
            shard_count=3,
            progress=lambda done, total: totals.append((done, total)),
        )
        assert ("contrast.npy" in manifest["files"]) == (shard == 1)
    assert sum(total for done, total in totals if done == 0) == 50
    assert contents(tmp_path / "one") == contents(tmp_path / "three")
    assert part_files(tmp_path / "three") == []


def test_ids_make_a_subset_equal_to_its_rows(tmp_path):
    write(tmp_path / "all")
    chosen = np.array([4, 2])
    write(tmp_path / "two", images=IMAGES[chosen], labels=LABELS[chosen], ids=chosen)
    whole = np.load(tmp_path / "all" / "gaussian_noise.npy").reshape(5, 5, 18, 20, 3)
    two = np.load(tmp_path / "two" / "gaussian_noise.npy").reshape(5, 2, 18, 20, 3)
    np.testing.assert_array_equal(two, whole[:, chosen])


# Full disks and other failures


@pytest.mark.parametrize("target", ["part", "file", "manifest", "labels"])
def test_a_full_disk_leaves_no_broken_file(tmp_path, target, monkeypatch):
    write(tmp_path / "whole")
    marks = {"part": "parts/contrast", "file": "contrast.npy"}
    mark = marks.get(target, target)
    replace = os.replace

    def full(source, path):
        if mark in str(path) and ("parts" in str(path)) == (target == "part"):
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, path)

    monkeypatch.setattr(storage.os, "replace", full)
    with pytest.raises(RunError, match=rf"cannot write .*{mark}.*: No space left on device"):
        write(tmp_path / "set", ["contrast"])
    assert list((tmp_path / "set").rglob("*.tmp")) == []
    assert not (tmp_path / "set" / "contrast.npy").exists() or target == "manifest"
    monkeypatch.undo()
    write(tmp_path / "set")
    assert contents(tmp_path / "set") == contents(tmp_path / "whole")


def test_a_file_that_cannot_grow_leaves_nothing(tmp_path):
    script = f"""
import resource
import numpy as np
from augmix_tf import checks, corruptions
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
images = np.zeros((40, 16, 16, 3), np.uint8)
try:
    corruptions.write_corrupted(
        {str(tmp_path)!r}, images, np.zeros(40, int), ["contrast"], workers=1)
except checks.RunError as error:
    print(error)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.startswith(f"cannot write {tmp_path}")
    assert "File too large" in run.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "labels.npy",
        "manifest.json",
        "parts",
    ]
    assert part_files(tmp_path) == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"cannot make .*file/set/parts"):
        write(tmp_path / "file" / "set")


def test_a_broken_manifest_is_named(tmp_path):
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(RunError, match=r"cannot read .*manifest.json"):
        write(tmp_path)


# Refusals


def test_files_of_others_are_left_alone(tmp_path):
    (tmp_path / "contrast.npy").write_bytes(b"official")
    with pytest.raises(CommandError, match=r"\['contrast'\] without a manifest: official files"):
        write(tmp_path)
    assert (tmp_path / "contrast.npy").read_bytes() == b"official"


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"seed": 1}, "'seed': 0"),
        ({"table": "imagenet"}, "'table': 'cifar'"),
        ({"images": IMAGES[::-1]}, "'images_sha256'"),
        ({"ids": [1, 2, 3, 4, 5]}, "'ids_sha256'"),
        ({"source": {"split": "train"}}, "'source': {}"),
    ],
)
def test_another_set_in_the_folder_is_refused(tmp_path, options, key):
    write(tmp_path)
    with pytest.raises(CommandError, match=f"to go on as it was begun, .*{key}"):
        write(tmp_path, **options)


def test_other_library_versions_do_not_go_on_with_a_set(tmp_path):
    manifest = write(tmp_path)
    manifest["versions"]["opencv"] = "3.4.18"
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CommandError, match=r"begun, {'opencv': '3.4.18'}, got {'opencv'"):
        write(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"names": ["contrats"]}, "did you mean 'contrast'"),
        ({"names": ["contrast", "contrast"]}, "want each corruption once"),
        ({"labels": LABELS[:4]}, r"want labels that are whole numbers \[5\].* got int64 \[4\]"),
        ({"labels": LABELS / 2}, r"got float64 \[5\]"),
        ({"shard_count": 0}, "want shard_count from 1 on, got 0"),
        ({"shard_index": 2, "shard_count": 2}, "want shard_index 0 to 1, got 2"),
        ({"workers": 0}, "want workers from 1 on, got 0"),
        ({"images": IMAGES.astype(float)}, "got float64"),
        ({"images": OnDisk(IMAGES.astype(float))}, "got float64"),
        ({"images": IMAGES.tolist()}, "got list"),
        ({"seed": -1}, "want seed from 0 on"),
    ],
)
def test_malformed_requests_write_nothing(tmp_path, options, message):
    with pytest.raises(CommandError, match=message):
        write(tmp_path / "set", **options)
    assert not (tmp_path / "set").exists()
