"""Saved models of any origin: which output is used, and what is refused."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import augmix_tf
from augmix_tf.errors import ArgumentError
from augmix_tf.evaluation import loaded

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


@pytest.mark.parametrize("dtype", [tf.uint8, tf.float32])
def test_of_several_outputs_the_logits_are_taken(tmp_path, dtype):
    """Probabilities beside them may have been calibrated."""

    def outputs(logits):
        return {
            "classes": tf.argmax(logits, axis=1),
            "features": tf.tile(logits, [1, 2]),
            "logits": logits,
            "probabilities": tf.nn.softmax(logits / 2),
        }

    folder = saved(tmp_path / "1", outputs, dtype)
    got = loaded.load(folder).program(SIZE, CLASSES)(tf.constant(IMAGES))
    np.testing.assert_allclose(got, network()(IMAGES), rtol=1e-4, atol=1e-5)


def test_probabilities_of_zero_stay_finite(tmp_path):
    images = keras.Input((*SIZE, 3))
    sure = keras.layers.Dense(
        CLASSES,
        kernel_initializer="zeros",
        bias_initializer=keras.initializers.Constant([2000.0, 0.0, 0.0, 0.0]),
        activation="softmax",
    )(keras.layers.Flatten()(images))
    keras.Model(images, sure).save(tmp_path / "model.keras")
    got = loaded.load(tmp_path / "model.keras").program(SIZE, CLASSES)(tf.constant(IMAGES)).numpy()
    assert np.isfinite(got).all()
    assert (got.argmax(axis=1) == 0).all()


IMAGES_IN = keras.Input((*SIZE, 3))
PIXELS = keras.layers.Flatten()(IMAGES_IN)
KEPT = {"kernel_initializer": "identity", "use_bias": False}
# Layers behind the first pixels of an image, and whether the output holds probabilities.
ENDS = {
    "dense": ([], False),
    "softmax_layer": ([keras.layers.Softmax()], True),
    "softmax_activation": ([keras.layers.Activation("softmax", dtype="float32")], True),
    "unknown, logits": ([keras.layers.Rescaling(1.0)], False),
    "unknown, probabilities": ([keras.layers.Softmax(), keras.layers.Rescaling(1.0)], True),
    "cast": ([keras.layers.Softmax(), keras.layers.Activation("linear", dtype="float32")], True),
}


@pytest.mark.parametrize(("end", "softmax"), ENDS.values(), ids=ENDS)
def test_what_an_output_holds_is_decided_once_and_not_by_each_batch(tmp_path, end, softmax):
    """A batch whose logits happen to be probabilities is no reason to take their logarithm."""
    outputs = keras.layers.Dense(CLASSES, **KEPT)(PIXELS)
    for layer in end:
        outputs = layer(outputs)
    model = keras.Model(IMAGES_IN, outputs)
    model.save(tmp_path / "model.keras")
    batch = np.zeros((2, SIZE[0] * SIZE[1] * 3), np.float32)
    batch[:, :CLASSES] = [0.1, 0.2, 0.3, 0.4]
    images = batch.reshape(2, *SIZE, 3)
    program = loaded.load(tmp_path / "model.keras").program(SIZE, CLASSES)
    want = np.log(model(images)) if softmax else batch[:, :CLASSES]
    np.testing.assert_allclose(program(tf.constant(images)), want, rtol=1e-5)


@pytest.mark.parametrize("from_logits", [True, False])
def test_a_checkpointed_augmix_model_gives_its_logits(tmp_path, from_logits):
    backbone = network(softmax=not from_logits)
    model = augmix_tf.AugMixModel(backbone, seed=1, from_logits=from_logits)
    model.compile(keras.optimizers.SGD(1e-3))
    path = tmp_path / "best.keras"
    save = keras.callbacks.ModelCheckpoint(path)
    views = np.stack([IMAGES[:4]] * 3, axis=1)
    model.fit(views, np.arange(4), batch_size=4, verbose=0, callbacks=[save])
    found = loaded.load(path)
    assert found.image_size == SIZE
    want = tf.math.log(backbone(IMAGES)) if not from_logits else backbone(IMAGES)
    np.testing.assert_allclose(found.program(SIZE, CLASSES)(IMAGES), want, rtol=1e-4, atol=1e-5)


def test_paths_are_names_and_no_patterns(tmp_path):
    name = "a[1] b* c? d{1} e\\f"
    folder = saved(tmp_path / "plain", lambda logits: {"logits": logits}, tf.uint8)
    folder = folder.rename(tmp_path / name)
    network().save(folder / f"{name}.keras")
    for path in (folder, folder / f"{name}.keras"):
        got = loaded.load(path).program(SIZE, CLASSES)(tf.constant(IMAGES))
        np.testing.assert_allclose(got, network()(IMAGES), rtol=1e-4, atol=1e-5)


def test_a_model_of_open_size_takes_images_of_any_size(tmp_path):
    images = keras.Input((None, None, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(images)
    keras.Model(images, keras.layers.Dense(CLASSES)(pooled)).save(tmp_path / "model.keras")
    found = loaded.load(tmp_path / "model.keras")
    assert found.image_size == (None, None)
    for size in ((6, 8), (9, 5)):
        assert found.program(size, CLASSES)(tf.zeros([2, *size, 3])).shape == (2, CLASSES)


def pooled(size) -> keras.Model:
    """Would run on images of other sizes too."""
    layers = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(CLASSES)]
    return keras.Sequential([keras.Input((*size, 3)), *layers])


def signature_of_open_size(folder):
    module = tf.Module()
    spec = tf.TensorSpec([None, None, None, 3], tf.float32, name="images")
    function = tf.function(lambda images: tf.reshape(images, [-1, 5]), input_signature=[spec])
    tf.saved_model.save(module, str(folder), signatures={"serving_default": function})
    return folder


def text_file(folder):
    path = folder / "model.keras"
    path.write_text("no model")
    return path


def keras_file(folder, model):
    model.save(folder / "model.keras")
    return folder / "model.keras"


def saved_model(folder):
    return saved(folder / "1", lambda logits: {"logits": logits}, tf.uint8)


REFUSED = {
    "nothing there": (lambda p: p / "x", SIZE, CLASSES, r"Expected a \.keras file or"),
    "no model": (text_file, SIZE, CLASSES, "Cannot load the model .*model.keras"),
    "an empty folder": (lambda p: p, SIZE, CLASSES, "Cannot load the model"),
    "other classes": (lambda p: keras_file(p, network()), SIZE, 7, "of 7 values per image"),
    "other images": (
        lambda p: keras_file(p, pooled(SIZE)),
        (9, 9),
        CLASSES,
        "Expected images of 6x8 pixels, the input size of .*; received 9x9",
    ),
    "other images of a SavedModel": (saved_model, (9, 9), CLASSES, "images of 6x8 pixels"),
    "images it fails on": (signature_of_open_size, (3, 3), 5, "Cannot run .* on 3x3 images"),
}


@pytest.mark.parametrize(("make", "size", "classes", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_evaluated_is_refused_in_one_line(tmp_path, make, size, classes, message):
    with pytest.raises(ArgumentError, match=message) as error:
        loaded.load(make(tmp_path)).program(size, classes)
    assert "\n" not in str(error.value)
