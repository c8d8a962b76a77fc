import errno
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from augmix_tf import models
from augmix_tf.errors import ArgumentError, FileError, RunError
from augmix_tf.evaluation.results import Results
from augmix_tf.export import saved_model
from augmix_tf.export.saved_model import Exported, export, verify, versions
from augmix_tf.report import model_card
from tests.image_files import encoded, png_header
from tests.tiny_models import batch, build_tiny, shake

HEIGHT, WIDTH, CLASSES = 24, 32, 10
NAMES = [f"class {i}" for i in range(CLASSES)]
TEMPERATURE = 1.75
TINY_IMAGES = np.random.default_rng(1).integers(0, 256, (5, 2, 3, 3), np.uint8)


@pytest.fixture(scope="module")
def classifier():
    backbone = models.build("wrn", CLASSES, (HEIGHT, WIDTH, 3), seed=1, depth=10, widen_factor=1)
    shake(backbone)
    images = keras.Input((HEIGHT, WIDTH, 3))
    return keras.Model(images, backbone(keras.layers.Rescaling(1 / 127.5, -1.0)(images)))


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (5, HEIGHT, WIDTH, 3), np.uint8)


@pytest.fixture(scope="module")
def folder(classifier, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    assert export(classifier, NAMES, folder, TEMPERATURE) == (folder / "export" / "1", True)
    return folder


@pytest.fixture(scope="module")
def signatures(folder):
    return tf.saved_model.load(folder / "export" / "1").signatures


@pytest.fixture(scope="module")
def logits(classifier, images):
    return saved_model.reference_logits(classifier, images)


def softmax(logits):
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


SCRIPT = """
import contextlib, sys
import keras, numpy as np, tensorflow as tf
from tensorflow.python.tools import saved_model_cli

version, keras_file, *others = sys.argv[1:]
images = np.load("images.npy")
files = np.array([tf.io.encode_png(image).numpy() for image in images])
signatures = tf.saved_model.load(version).signatures
model = keras.saving.load_model(keras_file, safe_mode=True)
np.savez(
    "outputs.npz",
    pixels=signatures["serving_default"](images=tf.constant(images))["logits"],
    files=signatures["serve_bytes"](image_bytes=tf.constant(files))["logits"],
    integers=model.predict(images, verbose=0),
    floats=model.predict(images.astype("float32"), verbose=0),
)
np.save("bytes.npy", files)
for path in others:
    with np.load(path + ".npz") as stored:
        network = keras.saving.load_model(path + ".keras")
        np.testing.assert_array_equal(network(stored["images"]), stored["logits"])
how = "--tag_set serve --signature_def serve_bytes --inputs image_bytes=bytes.npy --outdir ."
for command, options in (("show", "--all"), ("run", how)):
    sys.argv = ["saved_model_cli", command, "--dir", version, *options.split()]
    with contextlib.suppress(SystemExit):
        saved_model_cli.main()
assert "augmix_tf" not in sys.modules
"""


def test_a_fresh_process_and_saved_model_cli_give_the_outputs_without_this_package(
    folder, images, logits, tmp_path
):
    np.save(tmp_path / "images.npy", images)
    networks = ["densenet_bc", "resnext", "max_blur_pool"]
    for case in networks:
        shake(network := build_tiny(case))
        values, _ = batch(network.input_shape[1:])
        network.save(tmp_path / f"{case}.keras")
        np.savez(tmp_path / f"{case}.npz", images=values, logits=network(values))
    command = [sys.executable, "-P", "-c", SCRIPT, folder / "export" / "1", folder / "model.keras"]
    result = subprocess.run(
        [*command, *networks], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr[-2000:]
    outputs = np.load(tmp_path / "outputs.npz")
    for got in (outputs["pixels"], outputs["files"], np.load(tmp_path / "logits.npy")):
        np.testing.assert_allclose(got, logits, rtol=1e-5, atol=1e-5)
    for name in ("integers", "floats"):
        np.testing.assert_allclose(outputs[name], softmax(logits / TEMPERATURE), atol=1e-5)
    for text in (
        "signature_def['serving_default']",
        "inputs['images'] tensor_info",
        "signature_def['serve_bytes']",
        "inputs['image_bytes'] tensor_info",
        "shape: (-1, 24, 32, 3)",
    ):
        assert text in result.stdout


def test_unreadable_images_have_their_errors_and_the_others_their_outputs(
    signatures, images, logits
):
    batch = [encoded(images[0]), encoded(images[1])[:-20], png_header(10**6, 10**6), b"text"]
    batch.append(encoded(images[2]))
    out = signatures["serve_bytes"](image_bytes=tf.constant(batch))
    out = {name: value.numpy() for name, value in out.items()}
    sound, broken = [0, 4], [1, 2, 3]
    np.testing.assert_allclose(out["logits"][sound], logits[[0, 2]], rtol=1e-5, atol=1e-5)
    want = softmax(logits[[0, 2]] / TEMPERATURE)
    np.testing.assert_allclose(out["probabilities"][sound], want, atol=1e-5)
    np.testing.assert_array_equal(out["classes"][sound], logits[[0, 2]].argmax(axis=1))
    np.testing.assert_array_equal(out["logits"][broken], 0)
    np.testing.assert_array_equal(out["probabilities"][broken], 0)
    np.testing.assert_array_equal(out["classes"][broken], -1)
    assert list(out["class_names"][broken]) == [b""] * 3
    errors = [error.decode() for error in out["errors"]]
    assert errors == ["", "cannot be decoded", "too large", "unknown format", ""]


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def tiny_classifier(bias: float = 0.0) -> keras.Model:
    initial = {"kernel_initializer": "ones", "bias_initializer": keras.initializers.Constant(bias)}
    layers = [keras.Input((2, 3, 3)), keras.layers.Flatten(), keras.layers.Dense(2, **initial)]
    return keras.Sequential(layers)


@pytest.fixture
def quick_saved_model(monkeypatch):
    """Writes a small file in place of the SavedModel."""

    def write(classifier, class_names, temperature, short_side, path):
        path.mkdir()
        (path / "saved_model.pb").write_bytes(b"model")

    monkeypatch.setattr(saved_model, "_write_saved_model", write)


def card_of(seed: int) -> dict[str, str]:
    settings = {"dataset": "shapes", "seed": seed}
    return model_card.texts(model_card.make(settings, Results(), ["a", "b"], (2, 3)))


def check_cards(folder: Path, version: Path, card: dict[str, str]) -> None:
    for where in (folder, version / "assets.extra"):
        for name in ("model_card.json", "model_card.md"):
            assert (where / name).read_text() == card[name]


@pytest.mark.usefixtures("quick_saved_model")
def test_an_unchanged_export_makes_no_version_and_replaces_the_card(tmp_path):
    version, is_new = export(tiny_classifier(), ["a", "b"], tmp_path, 2.0, card_of(1))
    assert is_new
    files = content(tmp_path)
    assert export(tiny_classifier(), ["a", "b"], tmp_path, 2.0) == Exported(version, False)
    assert content(tmp_path) == files
    again = export(tiny_classifier(), ["a", "b"], tmp_path, 2.0, card_of(2))
    assert again == Exported(version, False)
    check_cards(tmp_path, version, card_of(2))
    assert versions(tmp_path) == [1]


def other_network() -> keras.Model:
    """With the weights of `tiny_classifier`."""
    network = tiny_classifier()
    return keras.Sequential([keras.Input((2, 3, 3)), keras.layers.Rescaling(2.0), *network.layers])


CHANGES = {
    "weights": {"classifier": lambda: tiny_classifier(bias=1)},
    "network": {"classifier": other_network},
    "class names": {"class_names": ["a", "c"]},
    "temperature": {"temperature": 2.1},
    "short side": {"short_side": 3},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.usefixtures("quick_saved_model")
def test_any_change_makes_a_version(tmp_path, change):
    given = {"classifier": tiny_classifier, "class_names": ["a", "b"], "temperature": 2.0}

    def exported(classifier, **others):
        return export(classifier(), folder=tmp_path, **others)

    exported(**given)
    changed = exported(**(given | change))
    assert changed == Exported(tmp_path / "export" / "2", True)
    assert exported(**(given | change)) == Exported(tmp_path / "export" / "2", False)
    # The newest version counts, and not every version.
    assert exported(**given) == Exported(tmp_path / "export" / "3", True)


@pytest.mark.usefixtures("quick_saved_model")
def test_other_code_or_a_damaged_export_makes_a_version(tmp_path, monkeypatch):
    export(tiny_classifier(), ["a", "b"], tmp_path)
    monkeypatch.setattr(saved_model, "GRAPH_VERSION", saved_model.GRAPH_VERSION + 1)
    assert export(tiny_classifier(), ["a", "b"], tmp_path).is_new
    (tmp_path / "model.keras").unlink()
    assert export(tiny_classifier(), ["a", "b"], tmp_path).is_new
    (tmp_path / "export" / "3" / saved_model.RECORD).write_text("no JSON")
    assert export(tiny_classifier(), ["a", "b"], tmp_path).is_new
    assert versions(tmp_path) == [1, 2, 3, 4]


@pytest.mark.usefixtures("quick_saved_model")
def test_a_version_is_never_overwritten(tmp_path):
    (tmp_path / "export" / "9").mkdir(parents=True)
    (tmp_path / "export" / "9" / "saved_model.pb").write_bytes(b"old")
    (tmp_path / "export" / "notes").mkdir()
    first, _ = export(tiny_classifier(), ["a", "b"], tmp_path)
    assert first == tmp_path / "export" / "10"
    files = content(first)
    export(tiny_classifier(bias=1), ["a", "b"], tmp_path)
    assert versions(tmp_path) == [9, 10, 11]
    assert content(tmp_path / "export" / "9") == {"saved_model.pb": b"old"}
    assert content(first) == files


def test_paths_are_names_and_no_patterns(tmp_path):
    images = np.arange(18, dtype=np.uint8).reshape(1, 2, 3, 3)
    folder = tmp_path / "a[1] b* c? d{1} e\\f"
    version, _ = export(tiny_classifier(), ["a", "b"], folder, card=card_of(1), images=images)
    assert version == folder / "export" / "1"
    assert export(tiny_classifier(), ["a", "b"], folder, images=images) == Exported(version, False)


FAILURES = {
    "interrupted": (KeyboardInterrupt(), KeyboardInterrupt, None),
    "full_disk": (
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        FileError,
        "cannot write .*export: No space left on device",
    ),
    "full_disk_in_tensorflow": (
        tf.errors.ResourceExhaustedError(None, None, "{{node a}} disk full [Op:SaveV2]"),
        FileError,
        "cannot write .*export: disk full$",
    ),
}


PARTS = {"version": (saved_model, "_write_saved_model"), "model.keras": (keras.Model, "save")}
PARTS |= {"verification": (saved_model, "verify")}


@pytest.mark.parametrize(("failure", "seen", "message"), FAILURES.values(), ids=FAILURES)
@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
@pytest.mark.usefixtures("quick_saved_model")
def test_a_failed_export_leaves_nothing(tmp_path, monkeypatch, failure, seen, message, part):
    export(tiny_classifier(), ["a", "b"], tmp_path)
    before = content(tmp_path)

    def fail(*arguments):
        paths = [path for path in arguments if isinstance(path, Path)]
        assert all(path.parent.name.startswith(".") for path in paths)
        if part[1] != "verify":
            paths[0].mkdir()
            (paths[0] / "half").write_bytes(b"half")
        raise failure

    monkeypatch.setattr(*part, fail)
    with pytest.raises(seen, match=message):
        export(tiny_classifier(1), ["a", "b"], tmp_path, card=card_of(1), images=TINY_IMAGES)
    assert content(tmp_path) == before
    assert [p.name for p in (tmp_path / "export").iterdir()] == ["1"]


def test_export_refusals(classifier, tmp_path):
    with pytest.raises(ArgumentError, match="Expected 10 class names; received 9"):
        export(classifier, NAMES[1:], tmp_path)
    with pytest.raises(ArgumentError, match=r"Expected a temperature above 0; received 0\.0"):
        export(classifier, NAMES, tmp_path, 0.0)
    open_sides = models.build("wrn", CLASSES, (None, None, 3), depth=10, widen_factor=1)
    with pytest.raises(ArgumentError, match=r"H and W known; received \(None, None, None, 3\)"):
        export(open_sides, NAMES, tmp_path)

    class Doubling(keras.layers.Layer):
        def call(self, x):
            return 2.0 * x

    images = keras.Input((HEIGHT, WIDTH, 3))
    foreign = keras.Model(images, classifier(Doubling(name="mine")(images)))
    with pytest.raises(ArgumentError, match=r"layers of Keras alone.*received \['mine'\]"):
        export(foreign, NAMES, tmp_path)

    class Trainer(keras.Model):
        pass

    trainer = Trainer(classifier.inputs, classifier.outputs, name="trainer")
    with pytest.raises(ArgumentError, match=r"layers of Keras alone.*received \['trainer'\]"):
        export(trainer, NAMES, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    version, _ = export(tiny_classifier(), ["a", "b"], folder, TEMPERATURE)
    return version, folder / "model.keras"


@pytest.mark.parametrize("bias", [1e3, np.nan])
def test_a_version_of_another_model_is_refused(exported, bias):
    verify(*exported, tiny_classifier(), TINY_IMAGES, TEMPERATURE)
    with pytest.raises(RunError, match=r"export/1 \(serving_default\) differ .* by"):
        verify(*exported, tiny_classifier(bias), TINY_IMAGES, TEMPERATURE)


def test_a_keras_file_of_another_model_is_refused(exported):
    network = keras.Sequential([*tiny_classifier().layers, keras.layers.Rescaling([1.0, 2.0])])
    network.build((None, 2, 3, 3))
    paths = [exported[0], exported[1].with_name("other.keras")]
    network.save(paths[1])
    with pytest.raises(RunError, match=r"other\.keras differ from those of the model"):
        verify(*paths, tiny_classifier(), TINY_IMAGES, TEMPERATURE)


def test_files_that_do_not_load_are_named(exported, tmp_path):
    (tmp_path / "model.keras").write_bytes(b"half")
    with pytest.raises(RunError, match=r"Cannot load and run .*model\.keras"):
        verify(exported[0], tmp_path / "model.keras", tiny_classifier(), TINY_IMAGES)
    with pytest.raises(RunError, match=r"Cannot load and run .* does not exist at: .*/7"):
        verify(tmp_path / "7", exported[1], tiny_classifier(), TINY_IMAGES)


FLAWS = {"pixels_of_files": ([9e3] * 5 + [0.0] * 2), "unreadable_files": ([0.0] * 5 + [1.0] * 2)}


@pytest.mark.parametrize("shift", FLAWS.values(), ids=FLAWS)
def test_a_version_with_a_flaw_is_refused(exported, tmp_path, shift):
    logits = saved_model.reference_logits(tiny_classifier(), TINY_IMAGES)

    def serve_bytes(image_bytes):
        rows = tf.shape(image_bytes)[0]
        answers = tf.pad(logits, [[0, 2], [0, 0]]) + tf.constant(shift)[:, None]
        return {"logits": answers[:rows]}

    pixels = tf.TensorSpec([None, 2, 3, 3], tf.uint8, name="images")
    files = tf.TensorSpec([None], tf.string, name="image_bytes")
    signatures = {
        "serving_default": tf.function(lambda images: {"logits": tf.constant(logits)}, [pixels]),
        "serve_bytes": tf.function(serve_bytes, [files]),
    }
    tf.saved_model.save(tf.Module(), str(tmp_path / "3"), signatures=signatures)
    with pytest.raises(RunError, match=r"\(serve_bytes\) differ from those of the model by"):
        verify(tmp_path / "3", exported[1], tiny_classifier(), TINY_IMAGES, TEMPERATURE)
