"""Large images through the whole program: trained on, measured, exported."""

import csv
import dataclasses
import json
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import flags
from augmix_tf.commands import build
from augmix_tf.data import sources
from augmix_tf.errors import FileError
from tests import class_folders
from tests.class_folders import CLASSES
from tests.program import command, finish, leave_out
from tests.runs import leave_out_xla

SIDE = 32
DATA = ("--dataset=folder", f"--image_size={SIDE}")
SMALL = (*DATA, "--model=wrn", "--depth=10", "--widen_factor=1", "--seed=3")
ONE_VIEW = ("--method=standard", "--epochs=1", "--batch_size=6", "--nocorrupted")
# Of 12 + 6 images 11 + 6 are taken, and 2 of the 11 held out; batches of 6, 6 and 3.
LIMITS = ("--train_limit=11", "--eval_limit=8", "--calibration_images=2", "--batch_size=6")
RELEASED = ("--recipe=released", "--epochs=2", "--warmup_epochs=1")
TRAINED, TESTED = 15, 8


def document(folder, name="results.json"):
    return json.loads((folder / name).read_text())


def kept(folder):
    """All arrays of the newest checkpoint: weights, momenta, batch statistics."""
    reader = tf.train.load_checkpoint(str(folder / "checkpoints"))
    found = reader.get_variable_to_shape_map()
    return {name: reader.get_tensor(name) for name, shape in found.items() if shape}


@pytest.fixture(scope="module", autouse=True)
def quick():
    with pytest.MonkeyPatch.context() as patch:
        leave_out(patch, kept="export")
        leave_out_xla(patch)
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder like ImageNet's, six stylised images of it, and two of its classes elsewhere."""
    root = class_folders.write(tmp_path_factory.mktemp("data") / "pictures")
    for name in CLASSES:
        (root.parent / "stylized" / name).mkdir(parents=True)
        for number in (0, 3):
            file = root / "train" / name / f"{name}_{number}.JPEG"
            shutil.copy(file, root.parent / "stylized" / name)
    shifted = root.parent / "sketches"
    shifted.mkdir()
    for name in CLASSES[1:]:
        (shifted / name).symlink_to(root / "val" / name)
    return root


@pytest.fixture
def own_data(data, tmp_path):
    """A copy with a training image that is cut off."""
    shutil.copytree(data, tmp_path / "own")
    path = tmp_path / "own" / "train" / CLASSES[1] / f"{CLASSES[1]}_0.JPEG"
    path.write_bytes(path.read_bytes()[:300])
    return tmp_path / "own", path


@pytest.fixture(scope="module")
def only_val(data, tmp_path_factory):
    """Test images without any to train on."""
    root = tmp_path_factory.mktemp("only_val")
    (root / "val").symlink_to(data / "val")
    return root


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """A finished run, by the recipe of the authors' weights; only looked at.

    A ResNet-50 takes most of the time: real images train one.
    """
    folder = tmp_path_factory.mktemp("trained") / "run"
    stylized = f"--stylized_dir={data.parent / 'stylized'}"
    place = (f"--data_dir={data}", f"--workdir={folder}", stylized)
    return folder, finish(*SMALL, *RELEASED, *LIMITS, *place, "--nocorrupted")


@pytest.fixture(scope="module")
def run(trained):
    return trained[0]


@pytest.fixture(scope="module")
def test_pictures(data):
    """What a run of `LIMITS` is tested on: uint8 [8, 32, 32, 3] and labels."""
    test = sources.load("folder", data, image_size=SIDE, eval_limit=TESTED).test
    return test.read(), test.labels


@pytest.fixture(scope="module")
def signatures(run):
    return tf.saved_model.load(str(run / "export" / "1")).signatures


def test_a_run_counts_stylised_pictures_and_those_held_out(trained):
    folder, outcome = trained
    assert f"folder {TRAINED}+{TESTED} images | wrn depth=10 widen_factor=1" in outcome.out
    found = document(folder)
    assert found["clean"]["images"] == TESTED
    assert found["temperature"]["images"] == 2
    with (folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["epoch"], row["step"]) for row in rows] == [("1", "3"), ("2", "6")]
    for row in rows:
        # The third batch of an epoch is completed, so its six examples are counted as well.
        wrong = float(row["train_error"]) * 3 * 6, float(row["test_error"]) * TESTED
        np.testing.assert_allclose(wrong, np.round(wrong), atol=1e-4)
    # A rise over three steps to 0.1 * 6 / 256, then three of a cosine: the last before its end.
    first, last = (float(row["learning_rate"]) for row in rows)
    assert first <= 0.1 * 6 / 256
    assert 0 < last < 0.1 * 3 / 256


def test_the_export_answers_as_the_checkpoint_does(run, signatures, test_pictures):
    images, labels = test_pictures
    model = keras.saving.load_model(run / "model.keras")
    values = {value.tobytes() for value in kept(run).values()}
    assert all(np.asarray(weight).tobytes() in values for weight in model.get_weights())

    answers = signatures["serving_default"](images=tf.constant(images))
    wanted = model.predict(images, verbose=0)
    np.testing.assert_allclose(answers["probabilities"], wanted, atol=1e-4)
    error = np.mean(answers["classes"].numpy() != labels)
    assert error == pytest.approx(document(run)["clean"]["error"])
    named = [CLASSES[label] for label in answers["classes"].numpy()]
    assert [name.decode() for name in answers["class_names"].numpy()] == named


@pytest.fixture(scope="module")
def corrupted(only_val, tmp_path_factory):
    """A set like ImageNet-C of the first six test images."""
    place = tmp_path_factory.mktemp("sets") / "pictures-c"
    part = ("--layout=jpeg", "--names=contrast,brightness", "--eval_limit=6", "--workers=1")
    arguments = ("--mode=corrupt", f"--data_dir={only_val}", f"--corrupted_dir={place}")
    finish(*DATA, *arguments, *part)
    return place


@pytest.fixture(scope="module")
def measured(run, data, corrupted, tmp_path_factory):
    folder = tmp_path_factory.mktemp("measured") / "own"
    shutil.copytree(run, folder)
    others = f"--shift_dirs={data.parent / 'sketches'}"
    place = (f"--workdir={folder}", f"--corrupted_dir={corrupted}")
    finish("--mode=evaluate", "--eval_limit=5", *place, others)
    return document(folder)


def test_a_set_is_written_as_imagenet_c_is(corrupted):
    found = sorted(str(path.relative_to(corrupted)) for path in corrupted.rglob("*.JPEG"))
    wanted = [
        f"{name}/{severity}/{CLASSES[number % 3]}/{number:08d}.JPEG"
        for name in ("brightness", "contrast")
        for severity in range(1, 6)
        for number in range(6)
    ]
    assert found == sorted(wanted)


def test_a_run_is_measured_on_such_a_set(measured, corrupted, signatures):
    found = measured["corrupted"]
    assert found["counted"] == ["brightness", "contrast"]
    assert "alexnet" not in found  # three classes, and 13 corruptions are missing
    for name, cells in found["corruptions"].items():
        for severity, cell in enumerate(cells, 1):
            files = [
                corrupted / name / str(severity) / CLASSES[number % 3] / f"{number:08d}.JPEG"
                for number in range(5)
            ]
            images = np.stack([np.asarray(Image.open(file)) for file in files])
            classes = signatures["serving_default"](images=tf.constant(images))["classes"]
            assert cell["images"] == 5
            assert cell["error"] == pytest.approx(np.mean(classes.numpy() != [0, 1, 2, 0, 1]))


def test_another_set_is_measured_over_its_own_classes(measured, data, signatures):
    """Two of the model's three, whose folders are links: the third is left out before argmax."""
    found = measured["shifted"]["sketches"]
    assert (found["classes"], found["images"]) == (2, 5)
    test = sources.load("folder", data, image_size=SIDE).test
    rows = np.flatnonzero(test.labels)[:5]
    logits = signatures["serving_default"](images=tf.constant(test.read(rows)))["logits"]
    answers = 1 + logits.numpy()[:, 1:].argmax(axis=1)
    assert found["error"] == pytest.approx(np.mean(answers != test.labels[rows]))
    assert measured["clean"]["images"] == 5


def test_a_damaged_picture_ends_training_with_its_name(own_data, tmp_path):
    root, path = own_data
    place = (f"--data_dir={root}", f"--workdir={tmp_path / 'run'}")
    outcome = command(*SMALL, *ONE_VIEW, *place)
    assert outcome.code == 1
    last = outcome.line()
    assert last.startswith(f"main.py: cannot read 1 of 12 images: {path} (")
    assert last.endswith("; set skip_bad_examples to leave them out")


def test_without_the_damaged_picture_a_run_trains_and_says_so(own_data, tmp_path):
    root, path = own_data
    place = (f"--data_dir={root}", f"--workdir={tmp_path / 'run'}")
    outcome = finish(*SMALL, *ONE_VIEW, *place, "--skip_bad_examples")
    assert str(path) in outcome.err
    assert "folder 11+12 images | wrn" in outcome.out
    left_out = f"1 of 12 images in {root / 'train'} left out"
    assert left_out in document(tmp_path / "run")["provenance"]["data"]
    limits = document(tmp_path / "run", "model_card.json")["limits"]
    assert [limit for limit in limits if "1 of 12 images" in limit]


def test_the_advice_is_that_of_the_pictures_it_is_about(own_data):
    """Held-out and stylised images are training images too."""
    root, _ = own_data
    arguments = (*DATA, f"--data_dir={root}", f"--stylized_dir={root / 'train'}")
    config = flags.parse([*arguments, "--calibration_images=10"]).config
    loaded = build.load(dataclasses.replace(config, calibration_images=11))
    for store in (loaded.held_out, loaded.source.train):
        with pytest.raises(FileError, match="set skip_bad_examples to leave them out"):
            store.read()
    skipping = build.load(dataclasses.replace(config, skip_bad_examples=True))
    ids = np.concatenate([skipping.source.train.ids, skipping.held_out.ids])
    assert len(skipping.source.train.ids) == 11 - 10 + 11
    assert len(set(ids.tolist())) == len(ids)


@pytest.mark.parametrize("mode", ["train", "views"])
def test_without_training_pictures_there_is_nothing_to_train(only_val, tmp_path, mode):
    place = (f"--data_dir={only_val}", f"--workdir={tmp_path / 'run'}")
    outcome = command(*DATA, f"--mode={mode}", *place)
    assert outcome.code == 2
    assert "There are no training images in" in outcome.line()
    assert f"{only_val}, which has no folder train" in outcome.line()
    assert not (tmp_path / "run").exists()
