"""Readers of -C sets in CIFAR's layout, generated ones, and those of TFDS."""

import re

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from augmix_tf import corruptions
from augmix_tf.data import benchmark, corrupted
from augmix_tf.errors import ArgumentError, FileError
from augmix_tf.evaluation import sets
from tests.image_stores import StoreOnDisk, class_names, in_memory

SIZE = (6, 8)
THREE = class_names(3)
CIFAR10_C = "cifar10_corrupted"
COUNT = 7
NAMES = ("shot_noise", "fog", "spatter", "frost_synthetic")


def pictures(rows, seed=0, size=SIZE):
    return np.random.default_rng(seed).integers(0, 256, (rows, *size, 3), np.uint8)


@pytest.fixture
def files(tmp_path):
    """A set of four files, and their contents by name."""
    contents = {name: pictures(5 * COUNT, seed) for seed, name in enumerate(NAMES)}
    contents["labels"] = np.tile(np.arange(COUNT, dtype=np.uint8) % 3, 5)
    for name, array in contents.items():
        np.save(tmp_path / f"{name}.npy", array)
    return tmp_path, contents


@pytest.fixture
def small_batches(monkeypatch):
    monkeypatch.setattr(benchmark, "BATCH", 3)


def open_set(place, limit=0, names=THREE, **options):
    return corrupted.open_set(place, SIZE, names, limit, **options)


def joined(cell):
    images, labels = zip(*cell, strict=True)
    return np.concatenate(images), np.concatenate(labels)


@pytest.mark.parametrize(
    ("limit", "used", "sizes"), [(0, 7, [3, 3, 1]), (4, 4, [3, 1]), (99, 7, [3, 3, 1])]
)
def test_a_cell_is_the_first_rows_of_its_severity(files, small_batches, limit, used, sizes):
    folder, contents = files
    found = open_set(folder, limit)
    assert found.names == NAMES  # in the benchmark's order
    assert set(found.missing) == {*corruptions.CORRUPTIONS} - {*NAMES}
    for name in NAMES:
        for severity in (1, 2, 3, 4, 5):
            batches = list(found.cell(name, severity))
            assert [len(images) for images, _ in batches] == sizes
            images, labels = joined(batches)
            rows = slice(COUNT * (severity - 1), COUNT * (severity - 1) + used)
            np.testing.assert_array_equal(images, contents[name][rows])
            np.testing.assert_array_equal(labels, contents["labels"][rows])
            assert labels.dtype == np.int64
    assert found.data["images"] == used


def truncate(path):
    path.write_bytes(path.read_bytes()[:-10])


DAMAGES = {
    "truncated": (truncate, r"truncated or damaged file \(.+\)"),
    "a zip": (lambda p: p.write_bytes(b"PK\x03\x04" + bytes(99)), "truncated or damaged"),
    "objects": (lambda p: np.save(p, np.array([{}], object)), "truncated or damaged"),
    "floats": (lambda p: np.save(p, np.zeros((35, 6, 8, 3))), r"float64 \[35, 6, 8, 3\]"),
    "not by five": (lambda p: np.save(p, pictures(34)), r"uint8 \[34, 6, 8, 3\]"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_named_with_what_was_wanted_and_what_is_left(files, damage):
    folder, _ = files
    make, got = DAMAGES[damage]
    make(folder / "fog.npy")
    with pytest.raises(FileError, match=rf"fog\.npy: expected uint8 .5 N.*received.*{got}") as e:
        open_set(folder)
    assert str(e.value).endswith("can still be evaluated: shot_noise, spatter, frost_synthetic")


def test_a_file_with_other_rows_than_most_is_the_wrong_one(files):
    folder, _ = files
    np.save(folder / "shot_noise.npy", pictures(10))
    with pytest.raises(FileError, match=r"shot_noise.npy: expected 35 rows.*received 10; .*:"):
        open_set(folder)


LABELS = {
    "missing": (lambda p: p.unlink(), "missing, truncated or damaged"),
    "once only": (lambda p: np.save(p, np.zeros(7, np.uint8)), r"uint8 \[7\]"),
    "floats": (lambda p: np.save(p, np.zeros(35)), r"float64 \[35\]"),
    "other classes": (lambda p: np.save(p, np.full(35, 3)), r"int64 \[35\]"),
}


@pytest.mark.parametrize("damage", LABELS)
def test_without_sound_labels_nothing_can_be_evaluated(files, damage):
    folder, _ = files
    make, got = LABELS[damage]
    make(folder / "labels.npy")
    with pytest.raises(FileError, match=rf"labels.npy: expected labels of 0 to 2 \[35\].*{got}"):
        open_set(folder)


def test_a_folder_without_a_set_is_refused_with_what_it_must_hold(tmp_path):
    with pytest.raises(ArgumentError, match=r"<corruption>.npy files and labels.npy.*ImageNet-C"):
        open_set(tmp_path)
    with pytest.raises(ArgumentError, match=r"Expected a folder with a set; received .*nowhere"):
        open_set(tmp_path / "nowhere")
    np.save(tmp_path / "labels.npy", np.zeros(35, np.uint8))
    with pytest.raises(ArgumentError, match=r"received labels.npy"):
        open_set(tmp_path)


CLEAN = pictures(5, seed=3, size=(18, 20))
LABELS_OF_CLEAN = np.array([2, 0, 1, 2, 0])
IDS = [4, 0, 9, 2, 7]


def test_a_written_set_reads_back_as_what_is_made_on_the_fly(tmp_path):
    names = ["gaussian_noise", "glass_blur", "frost", "contrast", "saturate"]
    corruptions.write_corrupted(
        tmp_path, CLEAN, LABELS_OF_CLEAN, names, seed=11, ids=IDS, workers=1
    )
    written = corrupted.open_set(tmp_path, (18, 20), class_names(3))
    made = sets.generate_corrupted(in_memory(CLEAN, LABELS_OF_CLEAN, IDS), seed=11)
    common = [name for name in written.names if name in made.names]
    assert set(common) >= {"gaussian_noise", "glass_blur", "contrast"}
    for name in common:
        for severity in (1, 2, 3, 4, 5):
            for read, wanted in zip(
                joined(written.cell(name, severity)), joined(made.cell(name, severity)), strict=True
            ):
                np.testing.assert_array_equal(read, wanted)
    for key in ("source", "seed", "table", "versions", "images"):
        assert written.data[key] == made.data[key]
    assert (written.data["source"], written.data["seed"]) == ("generated", 11)
    np.save(tmp_path / "snow.npy", pictures(25, size=(18, 20)))  # the manifest does not know it
    assert corrupted.open_set(tmp_path, (18, 20), class_names(3)).names == written.names


def test_a_set_of_sequences_is_no_set_of_corruptions(tmp_path):
    corruptions.write_perturbed(tmp_path, CLEAN, ["brightness"], workers=1)
    with pytest.raises(ArgumentError, match=r"a set of corruptions in .*; received one of"):
        corrupted.open_set(tmp_path, (18, 20), class_names(3))


@pytest.mark.parametrize("text", ["{", "[]", '{"settings": {}}'])
def test_a_damaged_manifest_is_named(files, text):
    (files[0] / "manifest.json").write_text(text)
    with pytest.raises(FileError, match=r"manifest.json: expected a manifest"):
        open_set(files[0])


def test_on_the_fly_there_is_no_frost_without_photographs(monkeypatch):
    monkeypatch.setattr(sets.weather, "find_photographs", lambda folder: None)
    made = sets.generate_corrupted(in_memory(CLEAN, LABELS_OF_CLEAN))
    assert made.missing == ("frost",)
    assert len(made.names) == 14
    assert "without frost" in made.data["description"]


def test_on_the_fly_images_on_disk_are_read_batch_by_batch(monkeypatch):
    monkeypatch.setattr(benchmark, "BATCH", 2)
    ids = [9, 0, 3, 4, 5]
    on_disk = in_memory(CLEAN, LABELS_OF_CLEAN, ids, StoreOnDisk)
    made = sets.generate_corrupted(on_disk, seed=1)
    assert on_disk.sizes == []
    images, labels = joined(made.cell("shot_noise", 2))
    assert on_disk.sizes == [2, 2, 1]
    wanted = corruptions.corrupt(CLEAN, "shot_noise", 2, 1, ids)
    np.testing.assert_array_equal(images, wanted)
    np.testing.assert_array_equal(labels, LABELS_OF_CLEAN)


def prepare(root, corruption, severity, images, labels):
    """Stores a cell where TFDS's own builder looks for it."""
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship"]
    features = {
        "image": tfds.features.Image(shape=(32, 32, 3)),
        "label": tfds.features.ClassLabel(names=[*names, "truck"]),
    }
    dataset = tf.data.Dataset.from_tensor_slices({"image": images, "label": labels})
    tfds.dataset_builders.store_as_tfds_dataset(
        name=CIFAR10_C,
        version="1.0.0",
        config=f"{corruption}_{severity}",
        features=tfds.features.FeaturesDict(features),
        split_datasets={"test": dataset},
        data_dir=root,
    )


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    root = tmp_path_factory.mktemp("tfds")
    cells = {}
    for severity in range(1, 6):
        cells[severity] = pictures(6, severity, (32, 32))
        prepare(root, "frosted_glass_blur", severity, cells[severity], np.arange(6))
    prepare(root, "elastic", 1, cells[1], np.arange(6))
    return root, cells


def test_tfds_cells_come_under_the_benchmark_s_names(prepared):
    root, cells = prepared
    found = corrupted.open_set(CIFAR10_C, (32, 32), class_names(10), 4, data_dir=str(root))
    # Of elastic only one severity is there.
    assert found.names == ("glass_blur",)
    assert (found.data["source"], found.data["images"]) == ("tfds", 4)
    for severity in range(1, 6):
        images, labels = joined(found.cell("glass_blur", severity))
        assert labels.shape == (4,)
        # The order is TFDS's; the label tells which image it is.
        np.testing.assert_array_equal(images, cells[severity][labels])


def test_tfds_labels_follow_the_names_of_the_model_s_classes(prepared):
    root, cells = prepared
    names = ["truck", "ship", "horse", "frog", "dog", "deer", "cat", "bird", "automobile"]
    found = corrupted.open_set(CIFAR10_C, (32, 32), [*names, "airplane"], data_dir=str(root))
    images, labels = joined(found.cell("glass_blur", 2))
    np.testing.assert_array_equal(images, cells[2][9 - labels])


@pytest.mark.parametrize("name", corrupted.TFDS_SETS)
def test_tfds_has_every_configuration_that_is_asked_for(name):
    asked = {
        corrupted.config(name, corruption, severity)
        for corruption in (*corruptions.CORRUPTIONS, *corruptions.EXTRA_CORRUPTIONS)
        for severity in corruptions.SEVERITIES
    }
    assert asked == set(tfds.builder_cls(name).builder_configs)


def test_tfds_sets_that_are_not_prepared_or_fit_no_model_are_refused(prepared, tmp_path):
    with pytest.raises(ArgumentError, match=r"fog_1 to fog_5.*received none"):
        corrupted.open_set(CIFAR10_C, (32, 32), class_names(10), data_dir=str(tmp_path))
    root = str(prepared[0])
    with pytest.raises(ArgumentError, match=r"images of 32x30"):
        corrupted.open_set(CIFAR10_C, (32, 30), class_names(10), data_dir=root)
    with pytest.raises(ArgumentError, match="a set of the model's 7 classes; received 10"):
        corrupted.open_set(CIFAR10_C, (32, 32), class_names(7), data_dir=root)


def test_damaged_tfds_data_are_named(prepared, tmp_path):
    for severity in range(1, 6):
        prepare(tmp_path, "fog", severity, pictures(6, severity, (32, 32)), np.arange(6))
    (record,) = tmp_path.glob("cifar10_corrupted/fog_3/*/*tfrecord*")
    truncate(record)
    found = corrupted.open_set(CIFAR10_C, (32, 32), class_names(10), data_dir=str(tmp_path))
    with pytest.raises(FileError, match=re.escape(str(record)) + " is damaged"):
        joined(found.cell("fog", 3))
