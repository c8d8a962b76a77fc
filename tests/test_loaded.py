"""Saved models of any origin: what is taken of them, and what is refused."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from augmix_tf.checks import CommandError
from augmix_tf.evaluation import loaded, results

SIZE, CLASSES = (6, 8), 4
IMAGES = np.random.default_rng(0).integers(0, 256, (5, *SIZE, 3)).astype(np.float32)


def network(softmax: bool = False) -> keras.Model:
    images = keras.Input((*SIZE, 3))
    features = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(images))
    initial = keras.initializers.RandomNormal(stddev=0.3, seed=1)
    logits = keras.layers.Dense(CLASSES, kernel_initializer=initial)(features)
    return keras.Model(images, keras.layers.Softmax()(logits) if softmax else logits)


def saved(folder, outputs, dtype):
    """A SavedModel whose `serving_default` takes images of this type."""
    module, model = tf.Module(), network()
    module.model = model  # its variables belong to what is saved
    spec = tf.TensorSpec([None, *SIZE, 3], dtype, name="images")
    function = tf.function(
        lambda images: outputs(model(tf.cast(images, tf.float32))), input_signature=[spec]
    )
    tf.saved_model.save(module, str(folder), signatures={"serving_default": function})
    return folder


@pytest.mark.parametrize("softmax", [False, True])
def test_a_keras_file_gives_its_logits_or_the_logarithms_of_its_probabilities(tmp_path, softmax):
    network(softmax).save(tmp_path / "model.keras")
    got = loaded.program(tmp_path / "model.keras", SIZE, CLASSES)(tf.constant(IMAGES))
    want = network()(IMAGES).numpy()
    if softmax:
        want -= np.log(np.exp(want).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [tf.uint8, tf.float32])
def test_of_several_outputs_the_logits_are_taken(tmp_path, dtype):
    """Of probabilities beside them nobody knows how they were calibrated."""

    def outputs(logits):
        return {
            "classes": tf.argmax(logits, axis=1),
            "features": tf.tile(logits, [1, 2]),
            "logits": logits,
            "probabilities": tf.nn.softmax(logits / 2),
        }

    place = saved(tmp_path / "1", outputs, dtype)
    got = loaded.program(place, SIZE, CLASSES)(tf.constant(IMAGES))
    np.testing.assert_allclose(got, network()(IMAGES), rtol=1e-4, atol=1e-5)


def test_measures_of_probabilities_and_of_logits_are_the_same(tmp_path):
    labels = np.arange(len(IMAGES)) % CLASSES
    measured = []
    for softmax in (False, True):
        network(softmax).save(tmp_path / "model.keras")
        logits = loaded.program(tmp_path / "model.keras", SIZE, CLASSES)(tf.constant(IMAGES))
        measured.append(results.measures(logits.numpy(), labels))
    for name in ("error", "nll", "brier", "rms_calibration_error"):
        assert measured[0][name] == pytest.approx(measured[1][name], rel=1e-4)
    json.dumps(measured)


def test_probabilities_of_zero_stay_finite(tmp_path):
    images = keras.Input((*SIZE, 3))
    sure = keras.layers.Dense(
        CLASSES,
        kernel_initializer="zeros",
        bias_initializer=keras.initializers.Constant([2000.0, 0.0, 0.0, 0.0]),
        activation="softmax",
    )(keras.layers.Flatten()(images))
    keras.Model(images, sure).save(tmp_path / "model.keras")
    got = loaded.program(tmp_path / "model.keras", SIZE, CLASSES)(tf.constant(IMAGES)).numpy()
    assert np.isfinite(got).all()
    assert (got.argmax(axis=1) == 0).all()


def text_file(tmp_path):
    (tmp_path / "model.keras").write_text("no model")
    return tmp_path / "model.keras", SIZE, CLASSES


def keras_file(tmp_path, size=SIZE, classes=CLASSES):
    network().save(tmp_path / "model.keras")
    return tmp_path / "model.keras", size, classes


REFUSED = {
    "nothing there": (lambda p: (p / "x", SIZE, CLASSES), "want --model_path"),
    "no model": (text_file, "cannot use"),
    "an empty folder": (lambda p: (p, SIZE, CLASSES), "cannot use"),
    "other classes": (lambda p: keras_file(p, classes=7), "want 7 values for each image"),
    "other images": (lambda p: keras_file(p, size=(9, 9)), "on 9x9 images"),
}


@pytest.mark.parametrize(("make", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_evaluated_is_refused_in_one_line(tmp_path, make, message):
    with pytest.raises(CommandError, match=message) as error:
        loaded.program(*make(tmp_path))
    assert "\n" not in str(error.value)
