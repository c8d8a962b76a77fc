"""The programs in `examples/` that a Keras user starts from, run on a few images."""

import json
import runpy
import tempfile
from pathlib import Path

import keras
import matplotlib.pyplot as plt
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from augmix_tf.data import shapes
from tests.program import shapes_drawn_once
from tests.runs import leave_out_xla

ROOT = Path(__file__).resolve().parents[1]
COUNTS = {"train": 130, "test": 12}


def program(name: str) -> dict:
    """What a program defines; its `main` is called by the tests."""
    return runpy.run_path(str(ROOT / "examples" / f"{name}.py"), run_name=name)


@pytest.fixture
def cifar10(tmp_path):
    """A data directory of TFDS with a few random CIFAR-10 images."""
    rng = np.random.default_rng(0)

    def example(number):
        image = rng.integers(0, 256, (32, 32, 3), np.uint8)
        return {"id": str(number), "image": image, "label": number % 10}

    splits = {s: [(number, example(number)) for number in range(n)] for s, n in COUNTS.items()}
    features = {
        "id": tfds.features.Text(),
        "image": tfds.features.Image(shape=(32, 32, 3)),
        "label": tfds.features.ClassLabel(num_classes=10),
    }
    tfds.dataset_builders.store_as_tfds_dataset(
        name="cifar10",
        version="3.0.2",
        features=tfds.features.FeaturesDict(features),
        split_datasets=splits,
        data_dir=tmp_path,
    )
    return tmp_path


@pytest.fixture(autouse=True)
def without_xla(monkeypatch):
    leave_out_xla(monkeypatch)


def test_a_network_of_keras_on_a_dataset_of_tfds(cifar10, monkeypatch):
    whole = keras.applications.MobileNet

    def first_block(*arguments, **options):
        """The first block of the program's network, because tracing all of it takes long."""
        network = whole(*arguments, **options)
        block = network.get_layer("conv_pw_1_relu").output
        pooled = keras.layers.GlobalAveragePooling2D()(block)
        last = keras.layers.Dense(network.output_shape[-1], activation="softmax")
        return keras.Model(network.input, last(pooled))

    monkeypatch.setattr(keras.applications, "MobileNet", first_block)
    errors = program("keras_applications")["main"](str(cifar10), "1")
    assert list(errors) == ["clean", "gaussian_noise", "motion_blur", "fog", "jpeg_compression"]
    twelfths = np.array(list(errors.values())) * COUNTS["test"]
    np.testing.assert_allclose(twelfths, twelfths.round(), atol=1e-4)


def test_own_images_are_learnt_and_the_network_is_saved(tmp_path):
    """Two classes of two colours, of any size and format."""
    rng = np.random.default_rng(0)
    for name, channel in (("red", 0), ("blue", 2)):
        (tmp_path / "mine" / name).mkdir(parents=True)
        for number in range(20):
            sides = rng.integers(30, 80, 2)
            image = rng.integers(0, 120, (*sides, 3), np.uint8)
            image[..., channel] += 130
            kind = "png" if number % 2 else "jpg"
            Image.fromarray(image).save(tmp_path / "mine" / name / f"{number}.{kind}")
    errors = program("own_images")["main"](str(tmp_path / "mine"), "5")
    assert errors.keys() == {"clean", "gaussian_noise", "defocus_blur", "fog", "pixelate"}
    assert errors["clean"] == 0.0
    saved = keras.saving.load_model(tmp_path / "mine.keras")
    assert saved.output_shape == (None, 2)
    colours = np.zeros((2, 64, 96, 3), np.float32) + 60
    colours[0, ..., 2] = colours[1, ..., 0] = 190
    # Classes are sorted by name.
    np.testing.assert_array_equal(np.argmax(saved(colours), axis=1), [0, 1])


def test_the_notebook_runs_and_its_figures_are_drawn(monkeypatch, tmp_path):
    """All cells one after another, with some of the images."""
    counts = {"train": 16, "test": 6}
    few = {split: [part[:n] for part in shapes_drawn_once(split)] for split, n in counts.items()}
    monkeypatch.setattr(shapes, "make", few.get)
    monkeypatch.setattr(tempfile, "mkdtemp", lambda: str(tmp_path))
    notebook = json.loads((ROOT / "examples" / "quick_start.ipynb").read_text())
    cells = ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code"]
    names: dict = {"__name__": "notebook"}
    for cell in cells:
        exec(compile(cell, "quick_start.ipynb", "exec"), names)
    assert len(plt.get_fignums()) == 1  # the views
    plt.close("all")
    for result in names["results"].values():
        assert len(result.corrupted.counted) == 14
        assert result.figure().axes
