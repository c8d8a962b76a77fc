"""Other test sets of a model's classes: whose images, which classes, and what is measured."""

import types

import numpy as np
import pytest
import scipy.special
import tensorflow as tf
from PIL import Image

from augmix_tf import metrics, recipes
from augmix_tf.commands import evaluate as command
from augmix_tf.data import benchmark
from augmix_tf.errors import ArgumentError, RunError
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
    with pytest.raises(ArgumentError, match=r"Expected directories with different names;"):
        sets.open_shifted(places, CLASSES, SIZE)
