import importlib.util
import json

import keras
import numpy as np
import pytest

from augmix_tf import models
from augmix_tf.checks import CommandError, RunError
from augmix_tf.serving import convert as converting
from augmix_tf.serving.convert import FILES, PACKAGES, convert
from tests.tiny_models import shake

HEIGHT, WIDTH = 8, 12
NAMES = ["cat", "dög", "owl"]


@pytest.fixture(scope="module")
def classifier():
    backbone = models.build("wrn", 3, (HEIGHT, WIDTH, 3), seed=1, depth=10, widen_factor=1)
    shake(backbone)
    images = keras.Input((HEIGHT, WIDTH, 3))
    return keras.Model(images, backbone(keras.layers.Rescaling(1 / 127.5, -1.0)(images)))


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (5, HEIGHT, WIDTH, 3), np.uint8)


def installed(export_format: str) -> None:
    for module, name in PACKAGES[export_format].items():
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{name} is not installed")


@pytest.mark.parametrize("export_format", PACKAGES)
def test_the_other_runtime_answers_as_the_model_does(classifier, images, tmp_path, export_format):
    installed(export_format)
    path, difference = convert(classifier, NAMES, tmp_path, export_format, images, 2.0)
    assert path == tmp_path / FILES[export_format]
    assert 0 <= difference <= 1e-4
    assert json.loads((tmp_path / "class_names.json").read_text(encoding="utf-8")) == NAMES
    _, ask = converting._FORMATS[export_format]
    got = ask(path.read_bytes(), images[1:4])
    logits = classifier(images[1:4].astype(np.float32)).numpy()
    np.testing.assert_allclose(got["logits"], logits, atol=1e-4)
    want = keras.ops.softmax(logits / 2.0)
    np.testing.assert_allclose(got["probabilities"], want, atol=1e-4)
    np.testing.assert_array_equal(got["classes"], logits.argmax(axis=1))


@pytest.fixture
def a_runtime(monkeypatch):
    """A format whose runtime gives the answers of `a_runtime["change"]` to those of the model."""
    change = {"change": lambda answers: answers}
    kept = []

    def write(_, function):
        kept.append(function)
        return b"converted"

    def ask(content, images):
        assert content == b"converted"
        answers = {name: value.numpy() for name, value in kept[-1](images).items()}
        return change["change"](answers)

    monkeypatch.setitem(PACKAGES, "twin", {"json": "json"})
    monkeypatch.setitem(FILES, "twin", "model.twin")
    monkeypatch.setitem(converting._FORMATS, "twin", (write, ask))
    return change


def test_a_file_is_written_when_its_answers_are_right(classifier, images, tmp_path, a_runtime):
    path, difference = convert(classifier, NAMES, tmp_path, "twin", images)
    assert path.read_bytes() == b"converted"
    assert difference == 0


def test_a_network_of_mixed_precision_is_converted_in_float32(images, tmp_path, a_runtime):
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        layers = [keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), keras.layers.Dense(3)]
        inner = keras.Sequential([keras.Input((HEIGHT, WIDTH, 3)), *layers])
        mixed = keras.Sequential([keras.Input((HEIGHT, WIDTH, 3)), inner])
    finally:
        keras.mixed_precision.set_global_policy("float32")
    seen = []
    a_runtime["change"] = lambda answers: seen.append(answers["logits"]) or answers
    convert(mixed, NAMES, tmp_path, "twin", images)
    kernel, bias = (np.asarray(w, np.float64) for w in mixed.get_weights())
    want = images.reshape(len(images), -1) / 255 @ kernel + bias
    np.testing.assert_allclose(seen[0], want, atol=1e-5)
    assert mixed.compute_dtype == inner.layers[-1].compute_dtype == "bfloat16"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda out: out | {"logits": out["logits"] + 0.1}, "want a difference of at most 0.0001"),
        (lambda out: out | {"probabilities": out["probabilities"] + 2e-4}, "got 0.0002"),
        (lambda out: out | {"logits": out["logits"] * np.nan}, "got nan"),
        (lambda out: out | {"logits": out["logits"][:1]}, "got inf"),
        (lambda out: {"logits": out["logits"]}, "got inf"),
        (lambda out: 1 / 0, "cannot convert the model to twin: division by zero"),
    ],
    ids=["logits", "probabilities", "nan", "one_row", "an_output_less", "failed"],
)
def test_a_wrong_file_is_not_written(classifier, images, tmp_path, a_runtime, change, message):
    a_runtime["change"] = change
    with pytest.raises(RunError, match=message):
        convert(classifier, NAMES, tmp_path, "twin", images)
    assert list(tmp_path.iterdir()) == []


def test_refusals(classifier, images, tmp_path, monkeypatch):
    with pytest.raises(CommandError, match="unknown export format 'onx', did you mean 'onnx'"):
        convert(classifier, NAMES, tmp_path, "onx", images)
    monkeypatch.setitem(PACKAGES, "onnx", {"json": "json", "no_such_module": "tf2onnx"})
    wanted = "want json and tf2onnx for --export_format=onnx, got none of tf2onnx; pip install tf2o"
    with pytest.raises(CommandError, match=wanted):
        convert(classifier, NAMES, tmp_path, "onnx", images)
    monkeypatch.setitem(PACKAGES, "onnx", {})
    with pytest.raises(CommandError, match="N >= 1, got float32"):
        convert(classifier, NAMES, tmp_path, "onnx", images.astype(np.float32))
    assert list(tmp_path.iterdir()) == []
