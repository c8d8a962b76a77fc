import importlib.util
import json
from pathlib import Path

import keras
import numpy as np
import pytest

from augmix_tf.errors import ArgumentError, RunError
from augmix_tf.export.convert import FORMATS, Format, convert

HEIGHT, WIDTH = 8, 12
NAMES = ["cat", "dög", "owl"]


def network() -> keras.Model:
    layers = [keras.layers.Conv2D(4, 3), keras.layers.BatchNormalization(), keras.layers.Flatten()]
    inner = keras.Sequential([keras.Input((HEIGHT, WIDTH, 3)), *layers, keras.layers.Dense(3)])
    images = keras.Input((HEIGHT, WIDTH, 3))
    return keras.Model(images, inner(keras.layers.Rescaling(1 / 127.5, -1.0)(images)))


@pytest.fixture(scope="module")
def classifier():
    keras.utils.set_random_seed(1)
    return network()


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (5, HEIGHT, WIDTH, 3), np.uint8)


def installed(export_format: str) -> None:
    for module, name in FORMATS[export_format].packages.items():
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{name} is not installed")


@pytest.mark.parametrize("export_format", FORMATS)
def test_the_other_runtime_answers_as_the_model_does(classifier, images, tmp_path, export_format):
    installed(export_format)
    path = convert(classifier, NAMES, tmp_path, export_format, images, 2.0)
    assert path == tmp_path / FORMATS[export_format].file
    assert json.loads((tmp_path / "class_names.json").read_text(encoding="utf-8")) == NAMES
    got = FORMATS[export_format].run(path.read_bytes(), images[1:4])
    logits = classifier(images[1:4].astype(np.float32)).numpy()
    np.testing.assert_allclose(got["logits"], logits, atol=1e-4)
    want = keras.ops.softmax(logits / 2.0)
    np.testing.assert_allclose(got["probabilities"], want, atol=1e-4)
    np.testing.assert_array_equal(got["classes"], logits.argmax(axis=1))


@pytest.fixture
def a_runtime(monkeypatch):
    """A format whose runtime returns `a_runtime["change"]` of the outputs of the model."""
    change = {"change": lambda outputs: outputs}
    exported = []

    def export(model, path, verbose):
        exported.append(model)
        Path(path).write_bytes(b"converted")

    def run(content, images):
        assert content == b"converted"
        outputs = {name: np.asarray(value) for name, value in exported[-1](images).items()}
        return change["change"](outputs)

    monkeypatch.setitem(FORMATS, "twin", Format("model.twin", {"json": "json"}, {}, run))
    monkeypatch.setattr(keras.Model, "export", export)
    return change


def test_a_network_of_mixed_precision_is_converted_in_float32(images, tmp_path, a_runtime):
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        mixed = network()
    finally:
        keras.mixed_precision.set_global_policy("float32")
    seen = []
    a_runtime["change"] = lambda answers: seen.append(answers["logits"]) or answers
    path = convert(mixed, NAMES, tmp_path, "twin", images)
    assert path.read_bytes() == b"converted"
    plain = network()
    plain.set_weights(mixed.get_weights())
    np.testing.assert_allclose(seen[0], plain(images.astype(np.float32)), atol=1e-5)
    assert mixed.compute_dtype == mixed.layers[-1].layers[-1].compute_dtype == "bfloat16"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda out: out | {"logits": out["logits"] + 0.1}, "at most 0.0001 is expected"),
        (lambda out: out | {"probabilities": out["probabilities"] + 0.5}, "by 0.5;"),
        (lambda out: out | {"logits": out["logits"] * np.nan}, "by nan;"),
        (lambda out: out | {"logits": out["logits"][:1]}, "by inf;"),
        (lambda out: {"logits": out["logits"]}, "by inf;"),
        (lambda out: 1 / 0, "Cannot convert the model to twin: division by zero"),
    ],
    ids=["logits", "probabilities", "nan", "one_row", "an_output_less", "failed"],
)
def test_a_wrong_file_is_not_written(classifier, images, tmp_path, a_runtime, change, message):
    a_runtime["change"] = change
    with pytest.raises(RunError, match=message):
        convert(classifier, NAMES, tmp_path, "twin", images)
    assert list(tmp_path.iterdir()) == []


def test_refusals(classifier, images, tmp_path, monkeypatch):
    with pytest.raises(ArgumentError, match=r"Unknown export format 'onx'\. Did you mean 'onnx'"):
        convert(classifier, NAMES, tmp_path, "onx", images)
    packages = {"json": "json", "no_such_module": "tf2onnx"}
    monkeypatch.setitem(FORMATS, "onnx", FORMATS["onnx"]._replace(packages=packages))
    with pytest.raises(ArgumentError, match=r"'onnx' needs .* pip install tf2onnx"):
        convert(classifier, NAMES, tmp_path, "onnx", images)
    assert list(tmp_path.iterdir()) == []
