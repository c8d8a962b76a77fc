"""Other test sets of a model's classes: whose images, which classes, and what is measured."""

import types

import numpy as np
import pytest
import scipy.special
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

from augmix_tf import metrics, recipes
from augmix_tf.commands import evaluate as command
from augmix_tf.data import benchmark
from augmix_tf.errors import ArgumentError, FileError, RunError
from augmix_tf.evaluation import measure, sets
from augmix_tf.evaluation.results import Results
from tests.image_stores import in_memory

CLASSES = ("n01", "n07", "n03", "n12", "n05")  # in no order
SIZE = (14, 16)


def save(folder, kind, level, count=1, size=(40, 30)):
    """Plain images, which any resize leaves as they are: red is `level`, green the number."""
    (folder / kind).mkdir(parents=True)
    for number in range(count):
        image = Image.new("RGB", size, (level, number, 255))
        image.save(folder / kind / f"{number}.png")


@pytest.fixture
def folder(tmp_path):
    """Three of the five classes; images wider than high."""
    root = tmp_path / "imagenet-r"
    for kind, count in (("n12", 2), ("n01", 3), ("n03", 1)):
        save(root, kind, 10 * CLASSES.index(kind), count)
    return root


def by_pixels(table):
    """A program whose logits are `table[red / 10, green]`."""

    def program(images):
        assert images.dtype == tf.float32
        assert images.shape[1:] == (*SIZE, 3)
        values = np.asarray(images)
        np.testing.assert_array_equal(values, np.broadcast_to(values[:, :1, :1], values.shape))
        red, green = values[:, 3, 4, 0].astype(int), values[:, 3, 4, 1].astype(int)
        assert (values[..., 2] == 255).all()
        return tf.constant(table[red // 10, green])

    return program


def random_table():
    return 2 * np.random.default_rng(4).normal(size=(5, 3, 5)).astype(np.float32)


def evaluate(*args, **options):
    """Results on the set `r`, as in `results.json`."""
    return Results(shifted={"r": measure.shifted(*args, **options)}).to_json()["shifted"]["r"]


def open_set(folder, names, size=SIZE, eval_limit=0):
    [opened] = sets.open_shifted([folder], names, size, eval_limit)
    return opened


def test_only_the_set_s_own_classes_are_answers(folder):
    table = random_table()
    table[:, :, [1, 4]] += 50  # classes that the set lacks would win everywhere
    opened = open_set(folder, CLASSES)
    got = evaluate(by_pixels(table), opened)
    own = [0, 2, 3]
    shown = [(0, 0), (2, 0), (3, 0), (0, 1), (3, 1), (0, 2)]
    logits = np.array([table[label, number][own] for label, number in shown])
    labels = np.array([own.index(label) for label, _ in shown])
    p = scipy.special.softmax(logits.astype(np.float64), axis=1)
    assert got["images"] == 6
    assert got["classes"] == 3
    assert got["error"] == pytest.approx((p.argmax(axis=1) != labels).mean())
    assert 0 < got["error"] < 1
    assert got["nll"] == pytest.approx(-np.log(p[range(6), labels]).mean())
    assert got["brier"] == pytest.approx(((p - np.eye(3)[labels]) ** 2).sum(axis=1).mean())
    right = p.argmax(axis=1) == labels
    assert got["aurra"] == pytest.approx(metrics.aurra(p.max(axis=1), right))
    assert "calibrated" not in got
    assert got["data"] == dict(opened.data)
    assert opened.name == "imagenet-r"
    assert "3 of the model's 5 classes" in opened.data["description"]
    assert opened.data["images"] == 6
    calibrated = evaluate(by_pixels(table), opened, temperature=2.0)["calibrated"]
    assert calibrated["nll"] == pytest.approx(evaluate(by_pixels(table / 2), opened)["nll"])


def test_numbered_folders_are_places_among_the_sorted_names(tmp_path):
    names = [f"class {number:02d}" for number in (7, 3, 11, 0, 1, 2, 10, 4, 5, 6, 8, 9)]
    root = tmp_path / "v2"
    for number in range(12):  # as text, "10" comes before "2"
        save(root, str(number), 10 * number)
    table = np.full((12, 1, 12), -5, np.float32)
    for number in range(12):
        table[number, 0, names.index(f"class {number:02d}")] = 5
    opened = open_set(root, names)
    assert opened.classes.tolist() == list(range(12))
    assert evaluate(by_pixels(table), opened)["error"] == 0


def test_a_limit_takes_fewer_images_of_the_same_classes(folder):
    opened = open_set(folder, CLASSES, eval_limit=2)
    assert (len(opened.store), len(opened.store.labels), opened.data["images"]) == (2, 2, 2)
    assert opened.classes.tolist() == [0, 2, 3]
    assert len(open_set(folder, CLASSES, eval_limit=99).store) == 6


def test_a_run_is_measured_on_all_folders_that_it_names(folder, tmp_path, monkeypatch):
    save(tmp_path / "sketch", "n05", 40, 2)
    monkeypatch.setattr(benchmark, "BATCH", 2)
    images = np.zeros((3, *SIZE, 3), np.uint8)
    images[..., 2] = 255
    test = in_memory(images, [0, 1, 0])
    source = types.SimpleNamespace(test=test, class_names=CLASSES, image_size=SIZE)
    data = types.SimpleNamespace(source=source)
    places = f"{folder}/, {tmp_path / 'sketch'},"
    config = recipes.recipe(given={"corrupted": False, "shift_dirs": places})
    benchmarks = command.open_benchmarks(config, data)
    table = random_table()
    got = measure.measure(by_pixels(table), test, CLASSES, benchmarks).to_json()["shifted"]
    assert list(got) == ["imagenet-r", "sketch"]
    assert got["sketch"]["classes"] == 1
    assert got["sketch"]["error"] == 0  # one class leaves one answer
    assert got["imagenet-r"] == evaluate(by_pixels(table), benchmarks.shifted[0])


def test_logits_that_are_not_finite_are_refused_with_the_name_of_the_set(folder):
    table = random_table()
    table[3, 1, 0] = np.nan
    with pytest.raises(RunError, match=r"imagenet-r: Expected finite scores"):
        evaluate(by_pixels(table), open_set(folder, CLASSES))


def test_folders_that_are_no_classes_are_refused(folder, tmp_path):
    save(folder, "n04", 0)
    with pytest.raises(ArgumentError, match=r"imagenet-r/n04: Unknown class 'n04'. Did you mean"):
        open_set(folder, CLASSES)
    save(tmp_path / "v2", "5", 0)
    with pytest.raises(ArgumentError, match="v2/5: Unknown class '5'"):
        open_set(tmp_path / "v2", CLASSES)
    with pytest.raises(ArgumentError, match=r"Expected a folder with one folder per class;"):
        open_set(tmp_path / "none", CLASSES)


def test_two_folders_of_one_name_are_refused(folder, tmp_path):
    save(tmp_path / "other" / "imagenet-r", "n01", 0)
    places = [folder, tmp_path / "other" / "imagenet-r"]
    with pytest.raises(ArgumentError, match=r"Expected sets with different names;"):
        sets.open_shifted(places, CLASSES, SIZE)


def pixels(count, size=SIZE):
    return np.random.default_rng(count).integers(0, 256, (count, *size, 3), np.uint8)


@pytest.mark.parametrize("layout", ["pair", "archive"])
def test_arrays_of_cifar_10_1_and_10_2_are_read(tmp_path, layout):
    images, labels = pixels(7), np.array([4, 0, 1, 1, 3, 2, 0])
    path = tmp_path / "cifar10.1_v6_data.npy"
    if layout == "pair":
        np.save(path, images)
        np.save(tmp_path / "cifar10.1_v6_labels.npy", labels)
    else:
        path = tmp_path / "cifar102_test.npz"
        # The published file has further members, some of objects, which are not read.
        np.savez(path, images=images, labels=labels, keywords=np.array([{}], object))
    opened = open_set(path, CLASSES)
    assert opened.name == {"pair": "cifar10.1_v6", "archive": "cifar102_test"}[layout]
    np.testing.assert_array_equal(opened.store.read(), images)
    np.testing.assert_array_equal(opened.classes[opened.store.labels], labels)
    assert (opened.data["source"], opened.data["images"]) == ("arrays", 7)
    logits = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)
    got = evaluate(lambda batch: tf.constant(logits[: len(batch)]), opened)
    assert got["error"] == (logits.argmax(axis=1) != labels).mean()
    some = open_set(path, CLASSES, eval_limit=3)
    np.testing.assert_array_equal(some.store.labels, labels[:3])


ARRAYS = {
    "other name": ("x.npy", {}, "file named <set>_data.npy"),
    "no labels": ("x_data.npy", {"x_data.npy": pixels(2)}, "x_labels.npy: expected integers of 0"),
    "other size": (
        "x_data.npy", {"x_data.npy": pixels(2, (14, 15))}, r"x_data.npy: .*uint8 \[2, 14, 15, 3\]"
    ),
    "other class": (
        "x_data.npy", {"x_data.npy": pixels(2), "x_labels.npy": np.array([0, 5])},
        r"x_labels.npy: expected integers of 0 to 4 \[N\].*received int64 \[2\]",
    ),
    "no member": ("x.npz", {"x.npz": {"images": pixels(2)}}, "x.npz: .* 'labels', integers"),
    "objects": (
        "x.npz", {"x.npz": {"images": np.array([{}], object)}}, "x.npz: expected .* 'images', uint8"
    ),
    "no archive": ("x.npz", {"x.npz": b"PK"}, "x.npz: expected an .npz file"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "files", "message"), ARRAYS.values(), ids=ARRAYS)
def test_arrays_that_do_not_fit_are_named(tmp_path, name, files, message):
    for file, content in files.items():
        if isinstance(content, bytes):
            (tmp_path / file).write_bytes(content)
        elif isinstance(content, dict):
            np.savez(tmp_path / file, **content)
        else:
            np.save(tmp_path / file, content)
    with pytest.raises((ArgumentError, FileError), match=message):
        open_set(tmp_path / name, CLASSES)


def test_tfds_sets_follow_the_names_of_the_model_s_classes(tmp_path):
    size, images, labels = (32, 32), pixels(6, (32, 32)), np.array([0, 1, 2, 3, 9, 0])
    names = tfds.builder("cifar10", data_dir=tmp_path).info.features["label"].names
    features = {
        "image": tfds.features.Image(shape=(*size, 3)),
        "label": tfds.features.ClassLabel(names=names),
    }
    dataset = tf.data.Dataset.from_tensor_slices({"image": images, "label": labels})
    tfds.dataset_builders.store_as_tfds_dataset(
        name="cifar10_1",
        version="1.1.0",
        config="v6",
        features=tfds.features.FeaturesDict(features),
        split_datasets={"test": dataset},
        data_dir=tmp_path,
    )
    model = names[::-1]
    (opened,) = sets.open_shifted(["cifar10_1/v6"], model, size, 0, str(tmp_path))
    assert (opened.name, opened.data["source"]) == ("cifar10_1/v6", "tfds")
    shown = opened.store.read()
    order = [int(np.flatnonzero((images == image).all(axis=(1, 2, 3)))[0]) for image in shown]
    assert sorted(order) == list(range(6))
    got = [model[opened.classes[label]] for label in opened.store.labels]
    assert got == [names[labels[row]] for row in order]
    with pytest.raises(ArgumentError, match=r"images of 32x30, the model's; received cifar10_1/v6"):
        sets.open_shifted(["cifar10_1/v6"], model, (32, 30), 0, str(tmp_path))
    with pytest.raises(ArgumentError, match=r"cifar10_1/v4 in .*; received none; tfds.load"):
        sets.open_shifted(["cifar10_1/v4"], model, size, 0, str(tmp_path))
    with pytest.raises(ArgumentError, match="a set of the model's 5 classes; received 10 classes"):
        sets.open_shifted(["cifar10_1/v6"], CLASSES, size, 0, str(tmp_path))
