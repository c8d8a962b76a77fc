"""Batch normalisation adapted to the test images, against the original code and NumPy."""

import dataclasses
import itertools
import json
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from augmix_tf import models
from augmix_tf.data import shapes
from augmix_tf.data.benchmark import CorruptedSet
from augmix_tf.data.images import InMemoryStore
from augmix_tf.errors import ArgumentError
from augmix_tf.evaluation import adaptation, measure
from augmix_tf.evaluation.adaptation import AdaptedClassifier, adapted_predictor
from augmix_tf.evaluation.results import Results
from augmix_tf.evaluation.sets import Benchmarks
from augmix_tf.evaluation.values import metric_values
from augmix_tf.report.cells import cells_csv
from tests import golden
from tests.arrays import assert_same
from tests.program import command, finish
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
    "one value": ((1, 1, 1, 4), {"scale": False, "center": False}),
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
    of_batch = rows.var(0, ddof=1) if len(rows) > 1 else 0  # a single value has none
    variance = 0.25 * own["moving_variance"] + 0.75 * of_batch
    want = (values - mean) / np.sqrt(variance + layer.epsilon)
    want = want * own.get("gamma", 1) + own.get("beta", 0)
    np.testing.assert_allclose(got, np.moveaxis(want, -1, layer.axis), rtol=1e-5, atol=1e-5)


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


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (no_batch_norm, "uses no batch normalization"),
        (lambda: no_batch_norm(-1), "at least 0 images; received -1"),
        (lambda: AdaptedClassifier(lambda x: x, 1, 0), "at least 1 image; received 0"),
    ],
)
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


def test_a_set_in_the_order_of_classes_is_shuffled_as_far_as_it_is_held(monkeypatch):
    first, second = (AdaptedClassifier(rows_and_batches, 1, 5) for _ in range(2))
    logits = collected(first, np.sort(MIXED))
    np.testing.assert_array_equal(logits[:, 0], np.arange(22))
    assert (logits[:, 1] != np.arange(22) // 5 * 5).mean() > 0.5
    np.testing.assert_array_equal(collected(second, np.sort(MIXED)), logits)
    assert first.protocol.shuffled
    assert not first.protocol.few_classes
    monkeypatch.setattr(adaptation, "WINDOW_BYTES", 5 * numbered(1).nbytes)
    collected(second, np.repeat([0, 1, 2, 3], [5, 5, 5, 7]), parts=(5, 5, 5, 7))
    assert second.protocol.few_classes


@pytest.mark.parametrize(
    ("labels", "sorted_"),
    [
        (np.random.default_rng(0).integers(0, 10, 200), False),
        (np.tile(np.arange(10), 20), False),  # in turn: each batch has all classes
        (np.tile(np.arange(1000), 2), True),  # in turn: batches of neighbouring classes
        (np.repeat(np.arange(10), 20), True),
        (np.array([3]), False),
    ],
)
def test_the_order_of_classes_is_recognised(labels, sorted_):
    assert adaptation.in_class_order(labels) == sorted_


def corrupted_set(labels):
    """Two corruptions of the numbered images, in parts."""

    def cell(name, severity):
        for rows in (slice(0, 8), slice(8, 22)):
            yield numbered(22)[rows] + np.uint8(severity), labels[rows]

    return CorruptedSet(("fog", "jpeg_compression"), {"source": "generated"}, cell, (2, 5))


def brightest_of_batch(batch):
    """Class 1 for the brightest image of each batch, else 0; sure of it in large batches."""
    own = batch[:, 0, 0, 0]
    is_most = tf.cast(own == tf.reduce_max(own), tf.float32) - 0.5
    return tf.stack([-is_most, is_most], axis=1) * tf.cast(tf.size(own), tf.float32)


def test_both_networks_are_evaluated_on_the_same_images():
    labels = np.tile([0, 1, 0, 0, 1], 5)[:22]
    store = InMemoryStore(images=numbered(22), labels=labels, ids=np.arange(22))
    benchmarks = Benchmarks(corrupted=corrupted_set(labels))

    def plain(batch):
        return tf.stack([batch[:, 0, 0, 0] - 5, tf.ones(len(batch))], axis=1)

    classifier = AdaptedClassifier(brightest_of_batch, 3, 5)
    measured = measure.measure(plain, store, ["a", "b"], benchmarks, adapted=classifier)
    alone = measure.measure(plain, store, ["a", "b"], benchmarks)
    assert dataclasses.replace(measured, adapted=None) == alone
    adapted = measured.adapted
    assert (adapted.prior, adapted.batch_size, adapted.smallest_batch) == (3, 5, 2)
    batches = np.split(numbered(22).astype(np.float32), [5, 10, 15, 20])
    logits = np.concatenate([brightest_of_batch(batch) for batch in batches])
    want = measure.of_images(logits, labels)
    assert adapted.clean == want
    cells = adapted.corrupted.corruptions
    assert list(cells) == ["fog", "jpeg_compression"]
    for row in cells.values():
        assert [cell.outcomes for cell in row] == [want.outcomes] * 2
    assert adapted.corrupted.mean["error"] == want.metrics["error"]
    assert adapted.cbar is None
    values = {value.column: value.value for value in metric_values(measured)}
    assert values["adapted_clean_error"] == values["adapted_mean_error"] == want.metrics["error"]
    assert values["clean_error"] != want.metrics["error"]
    rows = [line.split(",")[:3] for line in cells_csv(measured).splitlines()]
    assert rows[-2:] == [["adapted.corrupted", "jpeg_compression", at] for at in "25"]
    assert Results.from_json(json.loads(json.dumps(measured.to_json()))).adapted == adapted


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory):
    """Arguments that evaluate a saved model on 20 images and one corruption."""
    folder = tmp_path_factory.mktemp("evaluation")
    pixels, labels = (values[:20] for values in shapes.make("test"))
    (folder / "c").mkdir()
    np.save(folder / "c" / "fog.npy", np.concatenate([pixels // n for n in range(1, 6)]))
    np.save(folder / "c" / "labels.npy", np.tile(labels, 5))
    inputs = keras.Input(pixels.shape[1:])
    features = keras.layers.BatchNormalization(name="norm")(keras.layers.Flatten()(inputs))
    kernel = keras.initializers.RandomNormal(0, 0.1, seed=1)
    outputs = keras.layers.Dense(len(shapes.CLASS_NAMES), kernel_initializer=kernel)(features)
    model = keras.Model(inputs, outputs)
    model.save(folder / "model.keras")
    model.export(folder / "exported", verbose=False)
    return folder, (
        "--mode=evaluate",
        "--dataset=shapes",
        "--eval_limit=20",
        f"--corrupted_dir={folder / 'c'}",
    )


def test_a_command_adapts_a_saved_model(evaluation, tmp_path):
    folder, arguments = evaluation
    outcome = finish(
        *arguments, f"--model_path={folder / 'model.keras'}", "--adapt_bn=4", "--adapt_batch=12",
        workdir=tmp_path,
    )  # fmt: skip
    assert "--adapt_bn: The statistics of a batch of 8 images are noisy" in outcome.err
    model = keras.models.load_model(folder / "model.keras")
    pixels, labels = (values[:20] for values in shapes.make("test"))
    adapted = adapted_predictor(lambda x: model(x, training=False), model, pixels.shape[1:3], 4)

    def error(images):
        parts = (images[:12], images[12:])
        logits = np.concatenate([adapted(tf.cast(part, tf.float32)) for part in parts])
        return (logits.argmax(1) != labels).mean()

    results = json.loads((tmp_path / "results.json").read_text())
    found = results["adapted"]
    assert (found["prior"], found["batch_size"], found["smallest_batch"]) == (4, 12, 8)
    assert found["clean"]["error"] == error(pixels)
    for number, cell in enumerate(found["corrupted"]["corruptions"]["fog"], 1):
        assert cell["error"] == error(pixels // number)
    report = (tmp_path / "report.md").read_text()
    assert "prior strength 4 images, batches of 12 images (the smallest of 8)" in report
    numbers = [f"{100 * part['clean']['error']:.2f} %" for part in (results, results["adapted"])]
    assert re.search(rf"\| clean error \| {numbers[0]} .*\| {numbers[1]} \(", report)
    mean = np.mean([error(pixels // number) for number in range(1, 6)])
    title = "error, mean over 1 of 15 corruptions: fog"
    assert re.search(rf"\| {title} \| .*\| {100 * mean:.2f} % \(", report)
    assert re.search(rf"\| fog \| [\d.]+ \| {100 * mean:.2f} \|", report)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--model_path={}/exported", "--adapt_bn=1"], "needs a .keras file"),
        (["--model_path={}/model.keras", "--adapt_bn=-1"], "must be 0 or more"),
        (["--model_path={}/model.keras", "--adapt_batch=9"], "with --adapt_bn only"),
    ],
)
def test_a_command_that_cannot_adapt_says_so_in_one_line(evaluation, tmp_path, more, message):
    folder, arguments = evaluation
    outcome = command(*arguments, *(text.format(folder) for text in more), workdir=tmp_path)
    assert outcome.code == 2
    assert message in outcome.line()
