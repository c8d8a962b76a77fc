"""Batch normalisation adapted to the test images, against the original code and NumPy."""

import itertools
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from augmix_tf import models
from augmix_tf.errors import ArgumentError
from augmix_tf.evaluation import adaptation
from augmix_tf.evaluation.adaptation import AdaptedClassifier, adapted_predictor
from tests import golden
from tests.arrays import assert_same
from tests.runs import RUNS

SIZE = (6, 8)


def images(count, seed=0):
    values = np.random.default_rng(seed).integers(0, 256, (count, *SIZE, 3), np.uint8)
    values[0], values[-1] = 0, 255
    return values


def network(**options) -> keras.Model:
    """Two batch normalisations, one nested; moving values unlike those of any batch."""
    inner = keras.Sequential([keras.Input((4,)), keras.layers.BatchNormalization(**options)])
    model = keras.Sequential(
        [
            keras.Input((*SIZE, 3)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(4, 3, kernel_initializer=keras.initializers.GlorotUniform(1)),
            keras.layers.BatchNormalization(**options),
            keras.layers.ReLU(),
            keras.layers.GlobalAveragePooling2D(),
            inner,
        ]
    )
    random = np.random.default_rng(1)
    model.set_weights(
        [w if w.ndim > 1 else random.uniform(0.2, 1, w.shape) for w in model.get_weights()]
    )
    return model


def adapted(model, prior, program=None):
    return adapted_predictor(program or (lambda x: model(x, training=False)), model, SIZE, prior)


def network_in_float64(state):
    """WRN-16-1 as a function of images, and the model in it, without the last layers in float32."""
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float64")
    model = models.build("wrn", 10, depth=16, widen_factor=1)
    keras.config.set_dtype_policy(policy)
    models.load_torch_state(model, state)
    *_, pool, dense = model.layers
    images = keras.Input((32, 32, 3), dtype="float64")  # the model's own are float32
    original = keras.Model(model.input, pool.input)
    features = keras.models.clone_model(original, input_tensors=images)
    features.set_weights(original.get_weights())
    kernel, bias = dense.get_weights()

    def program(x):
        pooled = tf.reduce_mean(features(tf.cast(x, tf.float64) / 255 * 2 - 1), axis=[1, 2])
        return pooled @ kernel.astype(np.float64) + bias

    return program, features


def test_logits_equal_those_of_the_original_code():
    data = golden.load("bn_adapt")
    prefix = "state/"
    state = {k.removeprefix(prefix): data[k] for k in data if k.startswith(prefix)}
    program, model = network_in_float64(state)
    keys = re.findall(r"\b(source|prior_N(\d+|inf)|full_set)_f64\b", " ".join(data))
    assert len(keys) >= 4
    ends = np.cumsum(data["batch_sizes"])
    adapted = {}  # each is traced once
    for name, prior in keys:
        prior = float(prior or {"source": np.inf, "full_set": 0}[name])
        if prior not in adapted:
            adapted[prior] = adapted_predictor(program, model, (32, 32), prior)
        want = data[f"{name}_f64"]
        stops = [len(want)] if name == "full_set" else ends
        parts = np.split(data["images"], stops)[: len(stops)]
        got = np.concatenate([adapted[prior](tf.cast(part, tf.float32)) for part in parts])
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-9, err_msg=name)


LAYERS = {
    "image": ((5, 6, 7, 4), {}),
    "channels_first": ((5, 4, 6, 7), {"axis": 1}),
    "dense": ((5, 4), {"epsilon": 0.1}),
    "plain": ((2, 3, 1, 4), {"scale": False, "center": False}),
}


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
@pytest.mark.parametrize(("shape", "options"), LAYERS.values(), ids=LAYERS)
def test_a_layer_mixes_its_statistics_with_unbiased_ones_of_the_batch(run, shape, options):
    layer = keras.layers.BatchNormalization(**options)
    layer.build(shape)
    random = np.random.default_rng(0)
    layer.set_weights([random.uniform(0.5, 1.5, 4) for _ in layer.weights])
    x = random.normal(3, 2, shape).astype(np.float32)
    got = run(lambda x: adaptation.normalise(layer, x, 0.25), tf.constant(x))
    values = np.moveaxis(x.astype(np.float64), layer.axis, -1)
    own = {weight.name: weight.numpy() for weight in layer.weights}
    rows = values.reshape(-1, 4)
    mean = 0.25 * own["moving_mean"] + 0.75 * rows.mean(0)
    variance = 0.25 * own["moving_variance"] + 0.75 * rows.var(0, ddof=1)
    want = (values - mean) / np.sqrt(variance + layer.epsilon)
    want = want * own.get("gamma", 1) + own.get("beta", 0)
    np.testing.assert_allclose(got, np.moveaxis(want, -1, layer.axis), rtol=1e-5, atol=1e-5)


def test_a_single_value_has_no_variance():
    layer = keras.layers.BatchNormalization(scale=False, center=False)
    layer.build((1, 2))
    got = adaptation.normalise(layer, tf.constant([[3.0, -5.0]]), tf.constant(0.0))
    np.testing.assert_array_equal(got, [[0.0, 0.0]])


def test_an_infinite_prior_gives_the_logits_of_the_model_itself():
    model, batch = network(), tf.cast(images(5), tf.float32)
    np.testing.assert_allclose(adapted(model, np.inf)(batch), model(batch), rtol=1e-6, atol=1e-6)
    assert np.abs(adapted(model, 5)(batch) - model(batch)).max() > 0.01


def test_the_model_is_as_before():
    model = models.build("wrn", 3, (*SIZE, 3), depth=10, widen_factor=1)
    layers = [layer for layer in model._flatten_layers() if "call" in vars(layer)]
    calls, weights = [layer.call for layer in layers], model.get_weights()
    batch = tf.cast(images(5), tf.float32)
    before = model(batch)
    adapted(model, 0)(batch)
    np.testing.assert_array_equal(model(batch), before)
    assert_same(model.get_weights(), weights)
    assert calls
    assert [layer.call for layer in layers] == calls
    stock = network()
    adapted(stock, 0)
    assert not any("call" in vars(layer) for layer in stock._flatten_layers())


def test_layers_of_subclassed_models_and_layers_are_found():
    class Block(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.norm = keras.layers.BatchNormalization()

        def call(self, x):
            return self.norm(x)

    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.block = Block()

        def call(self, x, training=False):
            return tf.reduce_mean(self.block(x), axis=[1, 2])

    model, batch = Model(), tf.cast(images(4), tf.float32)
    model(batch)
    logits = adapted(model, 0)(batch)
    np.testing.assert_allclose(tf.reduce_mean(logits, axis=0), np.zeros(3), atol=1e-5)


def test_half_precision_keeps_its_type_and_the_digits_of_the_statistics():
    policy = keras.config.dtype_policy()
    exact = network()
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = network()
    keras.config.set_dtype_policy(policy)
    model.set_weights(exact.get_weights())
    batch = tf.cast(images(6), tf.float32)
    got = adapted(model, 4)(batch)
    assert got.dtype == tf.bfloat16
    want = adapted(exact, 4)(batch)
    np.testing.assert_allclose(tf.cast(got, tf.float32), want, atol=0.05)


def no_batch_norm(prior=1):
    model = keras.Sequential([keras.Input((*SIZE, 3)), keras.layers.GlobalAveragePooling2D()])
    return adapted(model, prior)


REFUSED = {
    "no batch norm": (no_batch_norm, "uses no batch normalization"),
    "negative": (lambda: no_batch_norm(-1), "at least 0 images; received -1"),
    "batch": (lambda: AdaptedClassifier(lambda x: x, 1, 0), "at least 1 image; received 0"),
}


@pytest.mark.parametrize(("make", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_adapted_is_refused(make, message):
    with pytest.raises(ArgumentError, match=message):
        make()


def rows_and_batches(batch: tf.Tensor) -> tf.Tensor:
    """For each image its own first value, and the least and number of those in its batch."""
    own = batch[:, 0, 0, 0]
    least, count = tf.reduce_min(own), tf.cast(tf.size(own), tf.float32)
    return tf.stack([own, tf.fill(tf.shape(own), least), tf.fill(tf.shape(own), count)], axis=1)


def numbered(count):
    numbers = np.arange(count, dtype=np.uint8)
    return np.broadcast_to(numbers[:, None, None, None], (count, *SIZE, 3))


MIXED = np.tile([0, 2, 1, 3], 6)[:22]


def collected(classifier, labels, parts=(22,)):
    starts = np.cumsum([0, *parts])
    for first, last in itertools.pairwise(starts):
        classifier.add(numbered(22)[first:last], labels[first:last])
    return classifier.take()


@pytest.mark.parametrize("parts", [(22,), (1, 2, 3, 5, 11), (7, 8, 7)])
@pytest.mark.parametrize("window", [1, 12, 1000])
def test_batches_are_the_same_however_the_images_come(monkeypatch, parts, window):
    monkeypatch.setattr(adaptation, "WINDOW_BYTES", window * numbered(1).nbytes)
    classifier = AdaptedClassifier(rows_and_batches, 1, 5)
    for _ in range(2):  # nothing is left over for the next set
        rows, least, counts = collected(classifier, MIXED, parts).T
        np.testing.assert_array_equal(rows, np.arange(22))
        np.testing.assert_array_equal(least, np.arange(22) // 5 * 5)
        np.testing.assert_array_equal(counts, [5] * 20 + [2] * 2)
    protocol = classifier.protocol
    assert (protocol.prior, protocol.batch_size, protocol.smallest_batch) == (1, 5, 2)
    assert not protocol.shuffled
    assert not protocol.few_classes


def test_a_set_in_the_order_of_classes_is_shuffled_always_in_the_same_way():
    labels = np.sort(MIXED)
    first, second = (AdaptedClassifier(rows_and_batches, 1, 5) for _ in range(2))
    logits = collected(first, labels)
    np.testing.assert_array_equal(logits[:, 0], np.arange(22))
    assert (logits[:, 1] != np.arange(22) // 5 * 5).mean() > 0.5
    np.testing.assert_array_equal(collected(second, labels), logits)
    assert first.protocol.shuffled
    assert not first.protocol.few_classes


def test_classes_that_are_too_far_apart_to_be_shuffled_are_noted(monkeypatch):
    monkeypatch.setattr(adaptation, "WINDOW_BYTES", 5 * numbered(1).nbytes)
    classifier = AdaptedClassifier(rows_and_batches, 1, 5)
    collected(classifier, np.repeat([0, 1, 2, 3], [5, 5, 5, 7]), parts=(5, 5, 5, 7))
    assert classifier.protocol.few_classes


@pytest.mark.parametrize(
    ("labels", "sorted_"),
    [
        (np.random.default_rng(0).integers(0, 10, 200), False),
        (np.tile(np.arange(10), 20), False),  # in turn: each batch has all classes
        (np.tile(np.arange(1000), 2), True),  # in turn: batches of neighbouring classes
        (np.repeat(np.arange(10), 20), True),
        (np.repeat([0, 1], 100), True),
        (np.random.default_rng(0).integers(0, 2, 200), False),
    ],
)
def test_the_order_of_classes_is_recognised(labels, sorted_):
    assert adaptation.in_class_order(labels) == sorted_


def test_a_batch_does_not_depend_on_the_images_of_others():
    model = network()
    first = AdaptedClassifier(adapted(model, 2), 2, 4)
    second = AdaptedClassifier(adapted(model, 2), 2, 4)
    same, labels = images(8), np.array([0, 2, 1, 3] * 2)
    first.add(same, labels)
    second.add(np.concatenate([same[:4], images(4, seed=5)]), labels)
    np.testing.assert_array_equal(first.take()[:4], second.take()[:4])
