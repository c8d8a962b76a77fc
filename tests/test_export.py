import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from augmix_tf import models
from augmix_tf.checks import CommandError, RunError
from augmix_tf.serving import export as exporting
from augmix_tf.serving import model_card, verify
from augmix_tf.serving.export import export, versions
from tests.picture_files import encoded, png_header
from tests.tiny_models import shake

HEIGHT, WIDTH, CLASSES = 24, 32, 10
NAMES = [f"class {i}" for i in range(CLASSES)]
TEMPERATURE = 1.75


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
    assert export(classifier, NAMES, folder, TEMPERATURE) == folder / "export" / "1"
    return folder


@pytest.fixture(scope="module")
def signatures(folder):
    return tf.saved_model.load(folder / "export" / "1").signatures


@pytest.fixture(scope="module")
def logits(classifier, images):
    return verify.reference_logits(classifier, images)


def softmax(logits):
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def run_python(*arguments: object, cwd: Path) -> str:
    """Runs a fresh interpreter that cannot see this package."""
    command = [sys.executable, "-P", *map(str, arguments)]
    result = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout


def test_a_fresh_process_gives_the_same_answers(folder, images, logits):
    files = (folder / "export" / "1", folder / "model.keras")
    assert 0 <= verify.verify(files[0], images, logits, files[1], TEMPERATURE) <= 1e-5


def test_outputs(signatures, images, logits):
    out = signatures["serving_default"](images=tf.constant(images))
    assert {name: value.dtype for name, value in out.items()} == {
        "logits": tf.float32,
        "probabilities": tf.float32,
        "classes": tf.int64,
        "class_names": tf.string,
    }
    np.testing.assert_allclose(out["logits"], logits, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(out["probabilities"], softmax(logits / TEMPERATURE), atol=1e-5)
    np.testing.assert_array_equal(out["classes"], logits.argmax(axis=1))
    assert [name.decode() for name in out["class_names"].numpy()] == [
        NAMES[i] for i in logits.argmax(axis=1)
    ]


def test_the_keras_file_loads_without_this_package(folder, images, logits, tmp_path):
    script = (
        "import sys, keras, numpy as np\n"
        "model = keras.saving.load_model(sys.argv[1], safe_mode=True)\n"
        "images = np.load('images.npy')\n"
        "np.save('integers.npy', model.predict(images, verbose=0))\n"
        "np.save('floats.npy', model.predict(images.astype('float32'), verbose=0))\n"
        "assert 'augmix_tf' not in sys.modules\n"
    )
    np.save(tmp_path / "images.npy", images)
    run_python("-c", script, folder / "model.keras", cwd=tmp_path)
    for name in ("integers.npy", "floats.npy"):
        want = softmax(logits / TEMPERATURE)
        np.testing.assert_allclose(np.load(tmp_path / name), want, atol=1e-5)


def test_saved_model_cli_shows_and_runs_it(folder, images, logits, tmp_path):
    script = (
        "import contextlib, sys\n"
        "from tensorflow.python.tools import saved_model_cli\n"
        "place, how = ['--dir', sys.argv[1]], sys.argv[2:]\n"
        "for command in (['show', *place, '--all'], ['run', *place, *how]):\n"
        "    sys.argv = ['saved_model_cli', *command]\n"
        "    with contextlib.suppress(SystemExit):\n"
        "        saved_model_cli.main()\n"
    )
    np.save(tmp_path / "bytes.npy", np.array([encoded(image) for image in images]))
    which = ("--tag_set", "serve", "--signature_def", "serve_bytes")
    where = ("--inputs", "image_bytes=bytes.npy", "--outdir", tmp_path)
    version = folder / "export" / "1"
    shown = run_python("-c", script, version, *which, *where, cwd=tmp_path)
    for line in ("signature_def['serving_default']", "inputs['images'] tensor_info"):
        assert line in shown
    for line in ("signature_def['serve_bytes']", "inputs['image_bytes'] tensor_info"):
        assert line in shown
    assert "shape: (-1, 24, 32, 3)" in shown
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), logits, rtol=1e-5, atol=1e-5)


def test_empty_batches_give_empty_outputs(signatures):
    no_images = tf.zeros([0, HEIGHT, WIDTH, 3], tf.uint8)
    for out in (
        signatures["serving_default"](images=no_images),
        signatures["serve_bytes"](image_bytes=tf.constant([], tf.string)),
    ):
        assert out["logits"].shape == out["probabilities"].shape == [0, CLASSES]
        assert out["classes"].shape == out["class_names"].shape == [0]


def test_broken_images_have_their_errors_and_the_others_their_answers(signatures, images, logits):
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


def test_images_of_another_shape_or_type_are_refused_in_words(signatures, images, logits):
    call = signatures["serving_default"]
    for wrong in (images[:, 1:], images[0], images[..., :1]):
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"expected shape \[\?,24,32,3\]"):
            call(images=tf.constant(wrong))
    with pytest.raises(tf.errors.InvalidArgumentError, match="expected to be a uint8 tensor"):
        call(images=tf.constant(images, tf.float32))
    np.testing.assert_allclose(
        call(images=tf.constant(images))["logits"], logits, rtol=1e-5, atol=1e-5
    )


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def tiny_classifier() -> keras.Model:
    layers = [keras.Input((2, 3, 3)), keras.layers.Flatten(), keras.layers.Dense(2)]
    return keras.Sequential(layers)


@pytest.fixture
def quick_saved_model(monkeypatch):
    """Puts a small file where the SavedModel would be written."""

    def write(classifier, class_names, temperature, short_side, path):
        path.mkdir()
        (path / "saved_model.pb").write_bytes(b"model")

    monkeypatch.setattr(exporting, "_write_saved_model", write)


@pytest.mark.usefixtures("quick_saved_model")
def test_the_card_lies_in_the_version_and_in_the_folder(tmp_path):
    cards = [
        model_card.make({"dataset": "shapes", "seed": seed}, {}, ["a", "b"], (2, 3))
        for seed in (1, 2)
    ]
    first, second = (export(tiny_classifier(), ["a", "b"], tmp_path, card=card) for card in cards)
    for version, card in ((first, cards[0]), (second, cards[1])):
        assert json.loads((version / "assets.extra" / "model_card.json").read_text()) == card
    assert json.loads((tmp_path / "model_card.json").read_text()) == cards[1]
    text = (tmp_path / "model_card.md").read_text()
    assert text == (second / "assets.extra" / "model_card.md").read_text()
    assert text == model_card.markdown(cards[1])


@pytest.mark.usefixtures("quick_saved_model")
def test_a_version_is_never_overwritten(tmp_path):
    (tmp_path / "export" / "9").mkdir(parents=True)
    (tmp_path / "export" / "9" / "saved_model.pb").write_bytes(b"old")
    (tmp_path / "export" / "notes").mkdir()
    assert export(tiny_classifier(), ["a", "b"], tmp_path) == tmp_path / "export" / "10"
    assert export(tiny_classifier(), ["a", "b"], tmp_path) == tmp_path / "export" / "11"
    assert versions(tmp_path) == [9, 10, 11]
    assert content(tmp_path / "export" / "9") == {"saved_model.pb": b"old"}


@pytest.mark.usefixtures("quick_saved_model")
def test_two_exports_at_once_take_two_versions(tmp_path, monkeypatch):
    real, raced = os.rename, []

    def rename(source, target):  # another process takes the version first
        if not raced:
            raced.append(target)
            Path(target).mkdir()
            (Path(target) / "saved_model.pb").write_bytes(b"other")
        real(source, target)

    monkeypatch.setattr(os, "rename", rename)
    assert export(tiny_classifier(), ["a", "b"], tmp_path) == tmp_path / "export" / "2"
    assert content(tmp_path / "export" / "1") == {"saved_model.pb": b"other"}


FAILURES = {
    "interrupted": (KeyboardInterrupt(), KeyboardInterrupt, None),
    "full_disk": (
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        RunError,
        "cannot write .*export: No space left on device",
    ),
    "full_disk_in_tensorflow": (
        tf.errors.ResourceExhaustedError(None, None, "{{node a}} disk full [Op:SaveV2]"),
        RunError,
        "cannot write .*export: disk full$",
    ),
}


@pytest.mark.parametrize(("failure", "seen", "message"), FAILURES.values(), ids=FAILURES)
@pytest.mark.parametrize("part", ["version", "model.keras"])
@pytest.mark.usefixtures("quick_saved_model")
def test_a_failed_export_leaves_nothing(tmp_path, monkeypatch, failure, seen, message, part):
    export(tiny_classifier(), ["a", "b"], tmp_path)
    before = content(tmp_path)

    def fail_version(classifier, class_names, temperature, short_side, path):
        path.mkdir()
        (path / "saved_model.pb").write_bytes(b"half")
        raise failure

    def fail_keras(model, path):
        path.write_bytes(b"half")
        raise failure

    if part == "version":
        monkeypatch.setattr(exporting, "_write_saved_model", fail_version)
    else:
        monkeypatch.setattr(keras.Model, "save", fail_keras)
    with pytest.raises(seen, match=message):
        export(tiny_classifier(), ["a", "b"], tmp_path)
    assert content(tmp_path) == before
    assert [p.name for p in (tmp_path / "export").iterdir()] == ["1"]


@pytest.mark.parametrize("error", [RunError("it differs"), KeyboardInterrupt()])
@pytest.mark.usefixtures("quick_saved_model")
def test_what_fails_its_check_is_not_published(tmp_path, error):
    card = model_card.make({"dataset": "shapes", "seed": 1}, {}, ["a", "b"], (2, 3))
    export(tiny_classifier(), ["a", "b"], tmp_path)
    before = content(tmp_path)

    def check(version, keras_file):
        raise error

    with pytest.raises(type(error)):
        export(tiny_classifier(), ["a", "b"], tmp_path, card=card, check=check)
    assert content(tmp_path) == before
    assert [p.name for p in (tmp_path / "export").iterdir()] == ["1"]


@pytest.mark.usefixtures("quick_saved_model")
def test_the_check_sees_what_is_published_and_before_it_is(tmp_path):
    seen = []

    def check(version, keras_file):
        assert versions(tmp_path) == []
        assert not (tmp_path / "model.keras").exists()
        assert version.parent.name.startswith(".")
        seen.extend([content(version), keras_file.read_bytes()])

    version = export(tiny_classifier(), ["a", "b"], tmp_path, check=check)
    assert seen == [content(version), (tmp_path / "model.keras").read_bytes()]


def test_export_refusals(classifier, tmp_path):
    with pytest.raises(CommandError, match="want 10 class names, got 9"):
        export(classifier, NAMES[1:], tmp_path)
    with pytest.raises(CommandError, match=r"want a temperature above 0, got 0\.0"):
        export(classifier, NAMES, tmp_path, 0.0)
    open_sides = models.build("wrn", CLASSES, (None, None, 3), depth=10, widen_factor=1)
    with pytest.raises(CommandError, match=r"H and W known, got \(None, None, None, 3\)"):
        export(open_sides, NAMES, tmp_path)

    class Doubling(keras.layers.Layer):
        def call(self, x):
            return 2.0 * x

    images = keras.Input((HEIGHT, WIDTH, 3))
    foreign = keras.Model(images, classifier(Doubling(name="mine")(images)))
    with pytest.raises(CommandError, match=r"layers of Keras alone.*got \['mine'\]"):
        export(foreign, NAMES, tmp_path)

    class Trainer(keras.Model):
        pass

    trainer = Trainer(classifier.inputs, classifier.outputs, name="trainer")
    with pytest.raises(CommandError, match=r"layers of Keras alone.*got \['trainer'\]"):
        export(trainer, NAMES, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_folder_is_one_line(classifier, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"cannot write .*file/export: Not a directory"):
        export(classifier, NAMES, tmp_path / "file")


@pytest.mark.parametrize("wrong", ["logits", "shape", "nan"])
def test_verify_refuses_another_model(monkeypatch, images, logits, wrong):
    changed = {"logits": logits + 1e-3, "shape": logits[:, 1:], "nan": logits * np.nan}[wrong]
    got = {"serving_default": logits, "serve_bytes": changed}
    monkeypatch.setattr(verify, "_reload", lambda *_: got)
    with pytest.raises(RunError, match=r"export/3 gives other logits .* through serve_bytes"):
        verify.verify("export/3", images, logits)


@pytest.mark.parametrize("add", [1e-3, np.nan])
def test_verify_refuses_another_keras_file(monkeypatch, images, logits, add):
    got = {"serving_default": logits, "serve_bytes": logits}
    got["model.keras"] = softmax(logits / TEMPERATURE) + add
    monkeypatch.setattr(verify, "_reload", lambda *_: got)
    with pytest.raises(RunError, match=r"export/3 gives other prob.* through model\.keras"):
        verify.verify("export/3", images, logits, "model.keras", TEMPERATURE)
    assert verify.verify("export/3", images, logits) == 0


def test_verify_names_a_keras_file_that_does_not_load(folder, images, logits, tmp_path):
    (tmp_path / "model.keras").write_bytes(b"half")
    with pytest.raises(RunError, match=r"export/1 cannot be loaded .*: model\.keras: .*keras"):
        verify.verify(folder / "export" / "1", images, logits, tmp_path / "model.keras")


def test_verify_names_a_version_that_does_not_load(tmp_path, images, logits):
    with pytest.raises(RunError, match=r"export/7 cannot be loaded .* does not exist"):
        verify.verify(tmp_path / "export" / "7", images, logits)


def test_verify_refuses_a_version_that_takes_broken_files_for_images(tmp_path, images, logits):
    module = tf.Module()

    def answer(rows):
        return {"logits": tf.zeros([rows, CLASSES]), "errors": tf.fill([rows], "")}

    pixels = tf.TensorSpec([None, HEIGHT, WIDTH, 3], tf.uint8, name="images")
    files = tf.TensorSpec([None], tf.string, name="image_bytes")
    signatures = {
        "serving_default": tf.function(lambda images: answer(tf.shape(images)[0]), [pixels]),
        "serve_bytes": tf.function(lambda image_bytes: answer(tf.shape(image_bytes)[0]), [files]),
    }
    tf.saved_model.save(module, str(tmp_path / "3"), signatures=signatures)
    with pytest.raises(RunError, match="two broken images behind sound ones give the errors"):
        verify.verify(tmp_path / "3", images, logits)


def test_verify_refusals(folder, images, logits):
    with pytest.raises(CommandError, match="N >= 1, got float32"):
        verify.verify(folder, images.astype(np.float32), logits)
    with pytest.raises(CommandError, match=r"N >= 1, got uint8 \(0, 24, 32, 3\)"):
        verify.verify(folder, images[:0], logits[:0])
    with pytest.raises(CommandError, match="want 5 rows of expected logits"):
        verify.verify(folder, images, logits[:4])
