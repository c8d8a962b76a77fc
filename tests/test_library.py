"""The package as other programs use it: its names, and a Keras model that trains with AugMix."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import augmix_tf
from augmix_tf import AugMixModel
from augmix_tf.augment import AugMixSettings, augmix_views
from augmix_tf.errors import ArgumentError
from augmix_tf.training.step import METRICS, Trainer

ROOT = Path(__file__).resolve().parents[1]
CLASSES, SIZE, BATCH = 5, (6, 8), 4
INTERFACE = {
    "augment": ["AugMixPlan", "AugMixSettings", "apply_plan", "augmix_views", "draw_plan"],
    "corruptions": ["CORRUPTIONS", "EXTRA_CORRUPTIONS", "PERTURBATIONS", "corrupt"],
    "losses": ["augmix_loss", "jensen_shannon"],
    "metrics": [
        "brier_score",
        "expected_calibration_error",
        "flip_probability",
        "mean_corruption_error",
        "rms_calibration_error",
        "top5_distance",
    ],
    "models": ["build", "load_torch_state"],
    "ops": ["OPERATIONS", "apply_op"],
    "seeds": ["fold"],
}


def backbone(softmax=False, seed=0, **options) -> keras.Model:
    """Two classifiers of the same seed differ in their last activation only."""
    keras.utils.set_random_seed(seed)
    images = keras.Input((*SIZE, 3))
    hidden = keras.layers.Rescaling(1 / 255)(images)
    hidden = keras.layers.Conv2D(4, 3, use_bias=False)(hidden)
    hidden = keras.layers.BatchNormalization(momentum=0.9)(hidden)
    hidden = keras.layers.GlobalAveragePooling2D()(keras.layers.ReLU()(hidden))
    last = keras.layers.Dense(CLASSES, activation="softmax" if softmax else None, **options)
    return keras.Model(images, last(hidden))


def model_of(**options) -> AugMixModel:
    softmax = not options.get("from_logits", True)
    model = AugMixModel(backbone(softmax), seed=7, **options)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), metrics=["accuracy"])
    return model


def examples(batches=3):
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (batches * BATCH, *SIZE, 3), np.uint8)
    return images, rng.integers(0, CLASSES, batches * BATCH)


def batches(count=3) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices(examples(count)).batch(BATCH, drop_remainder=True)


def viewed(count=3) -> tf.data.Dataset:
    """The views that a model of seed 7 makes itself."""
    made = [
        (augmix_views(images, 7, 0, step, AugMixSettings()), labels)
        for step, (images, labels) in enumerate(batches(count))
    ]
    return tf.data.Dataset.from_tensor_slices(tuple(map(tf.stack, zip(*made, strict=True))))


def assert_same_weights(one, other, rtol=1e-5):
    for ours, theirs in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=1e-6)


# Names


def test_one_import_reaches_everything_and_lists_it():
    for room, names in INTERFACE.items():
        assert room in dir(augmix_tf)
        for name in names:
            assert hasattr(getattr(augmix_tf, room), name), f"{room}.{name}"
    assert {"AugMix", "AugMixModel", *INTERFACE} == set(augmix_tf.__all__)
    with pytest.raises(AttributeError, match="no attribute 'AugMax'"):
        augmix_tf.AugMax  # noqa: B018


@pytest.mark.parametrize(
    "thing",
    [augmix_tf.AugMix, AugMixModel]
    + [getattr(getattr(augmix_tf, room), n) for room, names in INTERFACE.items() for n in names],
    ids=lambda thing: getattr(thing, "__name__", "constant"),
)
def test_every_function_shows_an_example(thing):
    # A plan is made by `draw_plan` and shown with `apply_plan`.
    if callable(thing) and thing is not augmix_tf.augment.AugMixPlan:
        assert "\n    >>> " in thing.__doc__


def test_corruptions_work_beside_any_program_and_load_no_tensorflow(tmp_path):
    code = (
        "import sys, numpy as np, augmix_tf; p = np.full((1, 50, 70, 3), 99, np.uint8);"
        "print(augmix_tf.corruptions.corrupt(p, 'fog', 3).shape,"
        "{'keras', 'tensorflow'} & set(sys.modules))"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "(1, 50, 70, 3) set()"


@pytest.mark.parametrize("size", [(50, 70), (17, 33), (224, 300), (301, 90)])
@pytest.mark.parametrize("name", ["gaussian_noise", "fog", "jpeg_compression", "elastic_transform"])
def test_images_of_any_size_keep_it_and_only_their_number_decides(name, size):
    images = np.random.default_rng(0).integers(0, 256, (2, *size, 3), np.uint8)
    got = augmix_tf.corruptions.corrupt(images, name, 3, seed=5)
    assert (got.shape, got.dtype) == (images.shape, np.uint8)
    assert (got != images).mean() > 0.5
    alone = augmix_tf.corruptions.corrupt(images[1:], name, 3, seed=5, ids=[1])
    np.testing.assert_array_equal(alone[0], got[1])


def test_the_layer_stands_where_one_of_keras_stands():
    layer = augmix_tf.AugMix(seed=3)
    stack = keras.layers.Pipeline([keras.layers.RandomFlip(seed=1), layer])
    made = batches().map(lambda images, labels: (stack(images), labels))
    assert made.element_spec[0].shape == (BATCH, *SIZE, 3)
    assert layer.compute_output_shape((None, *SIZE, 3)) == (None, *SIZE, 3)


# A step


def test_a_step_is_the_gradient_of_the_papers_loss_by_hand():
    model, by_hand = model_of(jsd_weight=3.0), backbone()
    images, labels = next(iter(batches()))
    logs = model.train_step((images, labels))

    views = augmix_views(images, 7, 0, 0, AugMixSettings())
    with tf.GradientTape() as tape:
        logits = tf.reshape(
            by_hand(tf.reshape(views, [-1, *SIZE, 3]), training=True), [BATCH, 3, -1]
        )
        p = tf.nn.softmax(logits)
        mean = tf.reduce_mean(p, axis=1, keepdims=True)
        jsd = tf.reduce_mean(tf.reduce_sum(p * tf.math.log(p / mean), axis=-1))
        picked = tf.gather(p[:, 0], labels, batch_dims=1)
        cross_entropy = -tf.reduce_mean(tf.math.log(picked))
        loss = cross_entropy + 3.0 * jsd
    variables = by_hand.trainable_variables
    for variable, gradient in zip(variables, tape.gradient(loss, variables), strict=True):
        variable.assign_sub(0.1 * gradient)
    assert_same_weights(model.backbone, by_hand, rtol=2e-5)
    right = np.mean(np.argmax(logits[:, 0], 1) == labels)
    wanted = {"loss": loss, "cross_entropy": cross_entropy, "jsd": jsd}
    wanted |= {"error": 1 - right, "accuracy": right}
    assert list(logs) == list(wanted)
    for name, value in logs.items():
        np.testing.assert_allclose(value, wanted[name], rtol=1e-4, atol=1e-6, err_msg=name)


def test_images_views_and_the_trainer_give_the_same_weights():
    """Views made in the step, views that are given, and the step of this package's own loop."""
    with_images, with_views, trainer = model_of(), model_of(), Trainer(backbone())
    trainer.compile(keras.optimizers.SGD(0.1, momentum=0.9))
    logs = [
        model.fit(data, epochs=1, verbose=0, shuffle=False).history
        for model, data in (
            (with_images, batches()), (with_views, viewed()), (trainer, viewed())
        )
    ]  # fmt: skip
    assert_same_weights(with_images.backbone, trainer.classifier)
    assert_same_weights(with_views.backbone, trainer.classifier)
    for name in METRICS:
        np.testing.assert_allclose([log[name][0] for log in logs], logs[2][name][0], rtol=1e-5)
    right = [1 - logs[2]["error"][0]] * 2
    np.testing.assert_allclose([log["accuracy"][0] for log in logs[:2]], right, rtol=1e-5)


def test_probabilities_train_as_their_logits_do():
    logits, probabilities = model_of(), model_of(from_logits=False)
    ours = probabilities.fit(viewed(), verbose=0).history
    wanted = logits.fit(viewed(), verbose=0).history
    assert_same_weights(probabilities.backbone, logits.backbone)
    np.testing.assert_allclose(ours["loss"], wanted["loss"], rtol=1e-5)
    got = probabilities.predict(examples()[0], verbose=0)
    np.testing.assert_allclose(got.sum(axis=1), 1.0, rtol=1e-5)
    tf.debugging.assert_near(got, tf.nn.softmax(logits.predict(examples()[0], verbose=0)), 1e-4)


@pytest.mark.parametrize("dtype", [np.float32, np.int64])
def test_images_and_labels_come_in_any_type(dtype):
    images, labels = examples(1)
    one, other = model_of(), model_of()
    want = one.train_step((tf.constant(images), tf.constant(labels)))
    column = tf.constant(labels[:, None].astype(np.uint8))
    got = other.train_step((tf.constant(images.astype(dtype)), column))
    for name, value in want.items():
        np.testing.assert_array_equal(got[name], value)


def test_draws_follow_from_seed_and_step_alone():
    images, labels = examples(1)
    data = tf.data.Dataset.from_tensors((images, labels)).repeat(2)

    def losses(seed):
        # At a rate of 0 the weights stay: what changes is the views.
        model = AugMixModel(backbone(), seed=seed, severity=9)
        model.compile(keras.optimizers.SGD(0.0))
        seen = keras.callbacks.LambdaCallback(on_epoch_end=lambda _, logs: got.append(logs["jsd"]))
        got = []
        model.fit(data, epochs=2, steps_per_epoch=1, verbose=0, callbacks=[seen])
        return got

    first = losses(1)
    assert losses(1) == first
    assert len({*first, *losses(2)}) == 4


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_trains_and_sees_images_in_float32(policy):
    keras.config.set_dtype_policy(policy)
    try:
        model = model_of()
        history = model.fit(batches(), verbose=0).history
    finally:
        keras.config.set_dtype_policy("float32")
    seen = []
    model.classifier.call = lambda images, **_: seen.append(images.dtype) or images[:, 0, 0]
    model(examples(1)[0])
    assert seen == [tf.float32]
    assert np.isfinite(history["loss"]).all()
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer) == (
        policy == "mixed_float16"
    )


def train_on_two_replicas(path: str) -> None:
    """In a process of its own, which divides its processor before anything else."""
    (processor,) = tf.config.list_physical_devices("CPU")
    halves = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(processor, halves)
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        model = AugMixModel(flat(), seed=7)
        model.compile(keras.optimizers.SGD(0.1), metrics=["accuracy"])
    images, labels = examples(4)
    data = tf.data.Dataset.from_tensor_slices((images, labels)).batch(2 * BATCH)
    history = model.fit(data, verbose=0).history
    np.savez(path, *model.get_weights(), **history)


def flat() -> keras.Model:
    """Without batch normalisation, whose statistics would be of each replica."""
    keras.utils.set_random_seed(0)
    return ends_in(
        keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), keras.layers.Dense(CLASSES)
    )


def test_two_replicas_train_as_one_device_on_the_views_of_both(tmp_path):
    code = "import sys; from tests import test_library as t; t.train_on_two_replicas(sys.argv[1])"
    command = [sys.executable, "-c", code, str(tmp_path / "two.npz")]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)

    images, labels = examples(4)
    parts = [
        augmix_views(part, 7, number % 2, number // 2, AugMixSettings())
        for number, part in enumerate(np.split(images, 4))
    ]
    model = AugMixModel(flat(), seed=7)
    model.compile(keras.optimizers.SGD(0.1), metrics=["accuracy"])
    data = tf.data.Dataset.from_tensor_slices((tf.concat(parts, 0), labels)).batch(2 * BATCH)
    history = model.fit(data, verbose=0).history
    with np.load(tmp_path / "two.npz") as two:
        for name, (value,) in history.items():
            np.testing.assert_allclose(two[name][0], value, rtol=1e-5, atol=1e-7)
        for number, weight in enumerate(model.get_weights()):
            np.testing.assert_allclose(two[f"arr_{number}"], weight, rtol=1e-5, atol=1e-7)


# A life


def test_evaluation_is_of_the_images_as_they_are():
    model = model_of()
    images, labels = examples()
    logits = model.backbone.predict(images, verbose=0).astype(np.float64)
    np.testing.assert_array_equal(model.predict(images, verbose=0), logits)
    wanted = np.mean(np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(labels)), labels])
    got = model.evaluate(images, labels, batch_size=5, verbose=0, return_dict=True)
    np.testing.assert_allclose([got["loss"], got["cross_entropy"]], wanted, rtol=1e-5)
    assert got["jsd"] == 0
    np.testing.assert_allclose(got["accuracy"], np.mean(logits.argmax(axis=1) == labels), rtol=1e-6)


def test_a_saved_model_goes_on_as_if_it_had_not_been_saved(tmp_path):
    """With a schedule by step, momenta, validation and a callback that keeps the best."""

    def new():
        model = AugMixModel(backbone(), severity=2, seed=7)
        rate = keras.optimizers.schedules.CosineDecay(0.1, 12)
        model.compile(keras.optimizers.SGD(rate, momentum=0.9), metrics=["accuracy"])
        return model

    options = {"shuffle": False, "verbose": 0, "validation_data": examples(2)}
    whole = new()
    want = whole.fit(batches(), epochs=4, **options).history
    kept = keras.callbacks.ModelCheckpoint(tmp_path / "model.keras", monitor="val_loss")
    new().fit(batches(), epochs=2, callbacks=[kept], **options)
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert isinstance(loaded, AugMixModel)
    assert (loaded.settings.severity, loaded.run_seed) == (2, 7)
    got = loaded.fit(batches(), initial_epoch=2, epochs=4, **options).history
    for name in (*METRICS, "accuracy", "val_loss", "val_accuracy"):
        np.testing.assert_allclose(got[name], want[name][2:], rtol=1e-4, atol=1e-6, err_msg=name)
    assert_same_weights(loaded, whole, rtol=1e-4)

    whole.backbone.save(tmp_path / "backbone.keras")
    alone = keras.saving.load_model(tmp_path / "backbone.keras")
    assert type(alone) is type(backbone())
    images = examples(1)[0]
    np.testing.assert_array_equal(
        alone.predict(images, verbose=0), whole.predict(images, verbose=0)
    )


def test_a_seed_that_was_drawn_is_kept():
    model = AugMixModel(backbone())
    again = AugMixModel.from_config(model.get_config())
    assert again.run_seed == model.run_seed != AugMixModel(backbone(seed=1)).run_seed
    assert again.get_config() == model.get_config()


# Refusals


def ends_in(*layers) -> keras.Model:
    return keras.Sequential([keras.Input((*SIZE, 3)), *layers])


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        (lambda: keras.layers.Dense(3), {}, "keras.Model as backbone"),
        (lambda: ends_in(keras.layers.Conv2D(4, 3)), {}, r"\[N, K\].*received \(None, 4, 6, 4\)"),
        (lambda: ends_in(keras.layers.Flatten(), keras.layers.Dense(1)), {}, r"K >= 2 classes"),
        (lambda: ends_in(keras.layers.Flatten(), keras.layers.Softmax()), {}, "taken as logits"),
        (lambda: ends_in(backbone(softmax=True)), {}, "Expected from_logits=False, or a backbone"),
        (backbone, {"from_logits": False}, "from_logits=True where the last layer has no softmax"),
        (backbone, {"views": 1}, "views >= 2; received 1"),
        (backbone, {"jsd_weight": -1.0}, "at least 0; received -1"),
        (backbone, {"severity": 11}, r"severity must be 0\.1 to 10; received 11\."),
    ],
)
def test_a_model_that_cannot_be_trained_is_refused(given, options, message):
    with pytest.raises(ArgumentError, match=message):
        AugMixModel(given(), **options)


def test_a_loss_is_refused():
    with pytest.raises(ArgumentError, match=r"no loss: it is this model's own.*received 'mse'"):
        AugMixModel(backbone()).compile("sgd", "mse")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sample_weight": np.ones(4)}, "no sample or class weights"),
        ({"class_weight": {0: 1.0, 1: 2.0}}, "no sample or class weights"),
        ({"y": np.eye(CLASSES)[:4]}, r"integer labels \[N\] or \[N, 1\]; received float"),
        ({"y": None}, "received no labels"),
        ({"x": np.zeros((4, 6, 8), np.uint8)}, r"\[N, H, W, 3\].*received \(None, 6, 8\)"),
        (
            {"x": np.zeros((4, *SIZE, 1), np.uint8)},
            r"\[N, H, W, 3\].*received uint8 \(None, 6, 8, 1\)",
        ),
    ],
)
def test_what_the_loss_cannot_use_is_refused(arguments, message):
    images, labels = examples(1)
    model = AugMixModel(keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(CLASSES)]))
    model.compile("sgd")
    given = {"x": images, "y": labels} | arguments
    with pytest.raises(ArgumentError, match=message):
        model.fit(**given, verbose=0)


def test_an_optimizer_whose_steps_count_no_batches_wants_views():
    def fitted(data):
        model = AugMixModel(backbone(), seed=7)
        model.compile(keras.optimizers.SGD(0.1, gradient_accumulation_steps=2))
        return model.fit(data, verbose=0).history

    with pytest.raises(ArgumentError, match=r"views \[N, V, H, W, 3\].*accumulated gradients"):
        fitted(batches())
    assert np.isfinite(fitted(viewed())["loss"]).all()


def test_probabilities_in_half_precision_are_refused():
    half = backbone(softmax=True, dtype="mixed_bfloat16")
    model = AugMixModel(half, from_logits=False)
    model.compile("sgd")
    with pytest.raises(ArgumentError, match=r"probabilities in float32.*received bfloat16"):
        model.fit(viewed(1), verbose=0)
