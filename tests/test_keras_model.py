"""A Keras model that trains any classifier with AugMix, as Keras's own models are trained."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from augmix_tf import AugMixModel
from augmix_tf.augment import AugMixSettings, augmix_views
from augmix_tf.errors import ArgumentError
from augmix_tf.training.step import METRICS, Trainer

CLASSES, SIZE, BATCH = 5, (6, 8), 4


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


def model_of(eagerly=True, **options) -> AugMixModel:
    """Eagerly by default: compiling takes longer than the few steps of a test."""
    softmax = not options.get("from_logits", True)
    model = AugMixModel(backbone(softmax), seed=7, **options)
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
    model.compile(optimizer, metrics=["accuracy"], run_eagerly=eagerly)
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


def test_images_views_and_the_trainer_give_the_same_weights():
    """Views made in the step, views that are given, and the step of this package's own loop.

    That step is the gradient of the paper's loss (tests/test_training.py).
    """
    with_images, with_views = model_of(False, jsd_weight=3.0), model_of(jsd_weight=3.0)
    trainer = Trainer(backbone(), 3.0)
    trainer.compile(keras.optimizers.SGD(0.1, momentum=0.9))
    logs = [
        model.fit(data, verbose=0, shuffle=False).history
        for model, data in ((with_images, batches()), (with_views, viewed()), (trainer, viewed()))
    ]
    assert_same_weights(with_images.backbone, trainer.classifier)
    assert_same_weights(with_views.backbone, trainer.classifier)
    for name in METRICS:
        np.testing.assert_allclose([log[name][0] for log in logs], logs[2][name][0], rtol=1e-5)
    assert set(logs[0]) == {*METRICS, "accuracy"}
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


def test_draws_follow_from_seed_and_step_alone():
    data = tf.data.Dataset.from_tensors(examples(1)).repeat(2)

    def losses(seed):
        # At a rate of 0 the weights stay: what changes is the views.
        model = AugMixModel(backbone(), seed=seed, severity=9)
        model.compile(keras.optimizers.SGD(0.0), run_eagerly=True)
        return model.fit(data, epochs=2, steps_per_epoch=1, verbose=0).history["jsd"]

    first = losses(1)
    assert losses(1) == first
    assert len({*first, *losses(2)}) == 4


def test_mixed_precision_trains_and_sees_images_in_float32():
    keras.config.set_dtype_policy("mixed_float16")
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
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)


@keras.saving.register_keras_serializable(package="tests")
class Nearness(keras.layers.Layer):
    """Adds a penalty of its own to the loss."""

    def call(self, x):
        self.add_loss(0.1 * keras.ops.mean(x**2))
        return x


def flat(size=SIZE, channels=3) -> keras.Model:
    """With every kind of penalty; without batch normalisation, whose statistics are a replica's."""
    keras.utils.set_random_seed(0)
    penalties = {"kernel_regularizer": "l2", "activity_regularizer": "l1"}
    layers = [keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), Nearness()]
    return keras.Sequential(
        [keras.Input((*size, channels)), *layers, keras.layers.Dense(CLASSES, **penalties)]
    )


def copies(images):
    """Two equal views: no divergence, and every penalty as of the images alone."""
    return np.stack([images, images], axis=1).astype(np.float32)


def labels_of(kind):
    """Labels of 12 examples in the form that a user has, and as rows for Keras's loss."""
    ids = examples()[1]
    rows = np.eye(CLASSES, dtype=np.float32)[ids]
    if kind == "soft":
        rows = np.random.default_rng(2).dirichlet(np.ones(CLASSES), len(ids)).astype(np.float32)
    forms = {"float ids": ids.astype(np.float32), "column": ids[:, None].astype(np.uint8)}
    forms |= {"one-hot integers": rows.astype(np.int64), "soft": rows}
    return forms[kind], rows


def fitted(model, images, labels, **options):
    """Losses of two epochs."""
    options = {"batch_size": 5, "epochs": 2, "shuffle": False, "verbose": 0} | options
    return model.fit(images, labels, **options).history["loss"]


@pytest.mark.parametrize(
    ("kind", "weighted", "smoothing"),
    [
        ("float ids", "sample_weight", 0.1),
        ("column", "class_weight", 0),
        ("one-hot integers", None, 0.2),
        ("soft", "sample_weight", 0.3),
    ],
)
def test_labels_weights_smoothing_and_penalties_count_as_in_keras(kind, weighted, smoothing):
    """Penalties of weights and activities, an added loss, a smaller last batch."""
    images, (labels, rows) = examples()[0], labels_of(kind)
    weights = np.random.default_rng(3).uniform(0, 3, len(labels)).astype(np.float32)
    given = {"sample_weight": weights, "class_weight": dict(enumerate((2, 0.5, 0, 1, 3)))}
    options = {weighted: given[weighted]} if weighted else {}
    ours, theirs = AugMixModel(flat(), label_smoothing=smoothing), flat()
    rate = keras.optimizers.SGD
    ours.compile(rate(0.1), weighted_metrics=["accuracy"], run_eagerly=True)
    loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing)
    theirs.compile(rate(0.1), loss, run_eagerly=True)
    want = fitted(theirs, images, rows, **options)
    np.testing.assert_allclose(fitted(ours, copies(images), labels, **options), want, rtol=1e-5)
    assert_same_weights(ours.backbone, theirs)

    given = {"sample_weight": weights, "batch_size": 5, "verbose": 0}
    got = ours.evaluate(images, labels, return_dict=True, **given)
    np.testing.assert_allclose(got["loss"], theirs.evaluate(images, rows, **given), rtol=1e-5)
    right = theirs.predict(images, verbose=0).argmax(1) == rows.argmax(1)
    np.testing.assert_allclose(got["accuracy"], np.average(right, weights=weights), rtol=1e-5)
    np.testing.assert_allclose(got["error"], 1 - right.mean(), rtol=1e-5)


def test_weights_of_an_example_are_of_its_consistency_too():
    """Ones change nothing, zero removes, class weights are the sample weights they stand for."""
    views, labels = (np.asarray(part) for part in next(iter(viewed(1))))

    def step(rows=slice(None), data=None, **options):
        keras.utils.set_random_seed(0)
        layers = [keras.layers.Rescaling(1 / 255), keras.layers.Flatten()]
        model = AugMixModel(ends_in(*layers, keras.layers.Dense(CLASSES)))
        model.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
        given = (data,) if data else (views[rows], labels[rows])
        loss = model.fit(*given, steps_per_epoch=1, verbose=0, **options).history["loss"]
        return np.array([*loss, *np.concatenate([w.ravel() for w in model.get_weights()])])

    plain, halved = step(), step(sample_weight=np.full(BATCH, 0.5))
    np.testing.assert_allclose(step(sample_weight=np.ones((BATCH, 1))), plain, 1e-5, 1e-7)
    assert abs(plain - halved).max() > 1e-3
    removed = step(sample_weight=np.array([2, 0, 2, 2]))
    np.testing.assert_allclose(step([0, 2, 3], sample_weight=np.full(3, 1.5)), removed, 1e-5, 1e-7)
    table = dict(enumerate((0.5, 2, 3, 4, 1)))
    each = np.array([table[label] for label in labels])
    want = step(sample_weight=each)
    np.testing.assert_allclose(step(class_weight=table), want, 1e-5, 1e-7)

    triples = (views, labels, each)
    for data in (tf.data.Dataset.from_tensors(triples), (triples for _ in range(1))):
        np.testing.assert_allclose(step(data=data), want, 1e-5, 1e-7)


def mixed(images, labels):
    return {"images": tf.cast(images, tf.float32), "labels": tf.one_hot(labels, CLASSES)}


def test_labels_of_mixed_images_train_without_the_consistency_loss_only():
    mix_up = keras.layers.MixUp(seed=1)
    data = batches().map(mixed).map(mix_up).map(lambda d: (tf.round(d["images"]), d["labels"]))
    model = AugMixModel(flat(), jsd_weight=0)
    model.compile("sgd", run_eagerly=True)
    assert np.isfinite(model.fit(data, verbose=0).history["loss"]).all()
    model = AugMixModel(flat())
    model.compile("sgd")
    with pytest.raises(tf.errors.InvalidArgumentError, match="mixed with the same image"):
        model.fit(data, verbose=0)
    images, _ = next(iter(data))
    mixed_labels = 0.7 * tf.one_hot([0] * BATCH, CLASSES) + 0.3 * tf.one_hot(1, CLASSES)
    with pytest.raises(ArgumentError, match="belong to mixed images"):
        model.train_step((images, mixed_labels))


def test_a_range_of_values_trains_as_its_levels_do():
    images, labels = examples()
    unit = keras.Sequential(flat().layers[1:])
    ours, want = AugMixModel(unit, seed=7, value_range=(0, 1)), AugMixModel(flat(), seed=7)
    unit.build((None, *SIZE, 3))
    unit.set_weights(want.backbone.get_weights())
    for model, pixels in ((ours, (images / 255).astype(np.float32)), (want, images)):
        model.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
        fitted(model, pixels, labels, batch_size=BATCH, epochs=1)
    assert_same_weights(ours.backbone, want.backbone)
    with pytest.raises(ArgumentError, match=r"value_range=\(0, 255\) for integers"):
        fitted(ours, images, labels)
    # A network that takes 0 to 255 would see nothing but black.
    unit = (images / 255).astype(np.float32)
    for x in (unit, copies(unit)):
        with pytest.raises(ArgumentError, match="Expected images in 0"):
            fitted(want, x, labels)
    want.compile("sgd")
    with pytest.raises(tf.errors.InvalidArgumentError, match="Expected images in 0"):
        want.evaluate(unit, labels, verbose=0)


def test_grey_images_train():
    images, labels = examples(1)
    grey = images[..., :1]
    views = augmix_views(grey, 7, 0, 0, AugMixSettings())
    assert views.shape == (BATCH, 3, *SIZE, 1)
    losses = []
    for data in (grey, views):
        model = AugMixModel(flat(channels=1), seed=7)
        model.compile("sgd", run_eagerly=True)
        losses.append(fitted(model, data, labels, epochs=1, batch_size=BATCH))
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)


@keras.saving.register_keras_serializable(package="tests")
class Subclassed(keras.Model):
    """Not built before its first call; its last layer is not the last that it names."""

    def __init__(self, softmax=False, **kwargs):
        super().__init__(**kwargs)
        self.softmax = softmax
        self.head = keras.layers.Dense(CLASSES, activation="softmax" if softmax else None)
        self.drop = keras.layers.Dropout(0.2)
        self.body = keras.layers.Dense(3, activation="relu", kernel_regularizer="l2")

    def call(self, images, training=False):
        flat = keras.ops.reshape(images / 255, (-1, SIZE[0] * SIZE[1] * 3))
        self.add_loss(0.1 * keras.ops.mean(flat**2))
        return self.head(self.drop(self.body(flat), training=training))

    def get_config(self):
        return super().get_config() | {"softmax": self.softmax}


ANY = {
    "sequential, not built": lambda: keras.Sequential(flat().layers),
    "subclassed, softmax": lambda: Subclassed(softmax=True),
}


@pytest.mark.parametrize("kind", ANY)
def test_any_model_is_trained_kept_cloned_and_exported(kind, tmp_path):
    keras.utils.set_random_seed(0)
    model = AugMixModel(ANY[kind](), seed=7, from_logits="softmax" not in kind)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), metrics=["accuracy"])
    views, labels = (np.concatenate([*part]) for part in zip(*viewed(2), strict=True))
    images = views[:, 0].astype(np.uint8)
    best = keras.callbacks.ModelCheckpoint(tmp_path / "best.keras")
    weights = keras.callbacks.ModelCheckpoint(tmp_path / "b.weights.h5", save_weights_only=True)
    losses = fitted(model, views, labels, batch_size=BATCH, callbacks=[best, weights])
    assert losses[1] < losses[0]
    want = model.predict(images, verbose=0)
    np.testing.assert_array_equal(want, model.backbone.predict(images, verbose=0))

    model.save(tmp_path / "model.keras")
    for name in ("model.keras", "best.keras"):
        loaded = keras.saving.load_model(tmp_path / name)
        np.testing.assert_array_equal(loaded.predict(images, verbose=0), want)
        assert loaded.optimizer.iterations == 4
    clone = keras.models.clone_model(model)
    assert type(clone.backbone) is type(model.backbone)
    clone(images)
    clone.load_weights(tmp_path / "b.weights.h5")
    np.testing.assert_array_equal(clone.predict(images, verbose=0), want)
    model.export(tmp_path / "export", verbose=False)
    served = tf.saved_model.load(str(tmp_path / "export"))
    np.testing.assert_allclose(served.serve(images.astype(np.float32)), want, rtol=1e-5, atol=1e-6)


def test_accumulated_gradients_are_those_of_one_larger_batch():
    def trained(data, steps, epochs=1):
        model = AugMixModel(flat(), seed=7)
        optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=steps)
        model.compile(optimizer, run_eagerly=True)
        model.fit(data, epochs=epochs, verbose=0)
        return model

    views = viewed(2)
    larger = views.unbatch().batch(2 * BATCH)
    assert_same_weights(trained(views, 2, epochs=2), trained(larger, None, epochs=2))
    # Images get the views of their batch, not of the update of the weights that they are part of.
    one_epoch = [augmix_views(x, 7, 0, s, AugMixSettings()) for s, (x, _) in enumerate(batches(4))]
    given = tf.data.Dataset.from_tensor_slices((one_epoch, np.split(examples(4)[1], 4)))
    assert_same_weights(trained(batches(4), 2), trained(given, 2))


@pytest.mark.parametrize("softmax", [True, False])
def test_outputs_at_odds_with_from_logits_are_refused_when_they_come(softmax):
    model = AugMixModel(Subclassed(softmax), from_logits=softmax)
    model.compile("sgd")
    with pytest.raises(
        tf.errors.InvalidArgumentError, match="Expected logits with from_logits=True"
    ):
        model.fit(viewed(1), verbose=0)


def test_a_saved_model_goes_on_as_if_it_had_not_been_saved(tmp_path):
    """With a schedule by step, momenta, validation and a callback that keeps the best."""

    def new():
        model = AugMixModel(backbone(), severity=2, seed=7)
        rate = keras.optimizers.schedules.CosineDecay(0.1, 12)
        optimizer = keras.optimizers.SGD(rate, momentum=0.9)
        model.compile(optimizer, metrics=["accuracy"], run_eagerly=True)
        return model

    options = {"shuffle": False, "verbose": 0, "validation_data": examples(2)}
    whole = new()
    want = whole.fit(batches(), epochs=4, **options).history
    kept = keras.callbacks.ModelCheckpoint(tmp_path / "model.keras", monitor="val_loss")
    new().fit(batches(), epochs=2, callbacks=[kept], **options)
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert isinstance(loaded, AugMixModel)
    assert (loaded.method.aug_severity, loaded.run_seed) == (2, 7)
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


def ends_in(*layers) -> keras.Model:
    return keras.Sequential([keras.Input((*SIZE, 3)), *layers])


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        (lambda: keras.layers.Dense(3), {}, "keras.Model as backbone"),
        (lambda: ends_in(keras.layers.Conv2D(4, 3)), {}, r"\[N, K\].*received \(None, 4, 6, 4\)"),
        (lambda: ends_in(keras.layers.Flatten(), keras.layers.Softmax()), {}, "taken as logits"),
        (lambda: ends_in(backbone(softmax=True)), {}, "Expected from_logits=False, or a backbone"),
        (backbone, {"from_logits": False}, "from_logits=True where the last layer has no softmax"),
        (backbone, {"views": 1}, "views must be 2 or more; received 1"),
        (backbone, {"jsd_weight": -1.0}, "jsd_weight must be 0 or more; received -1"),
        (backbone, {"severity": 11}, r"severity must be 0\.1 to 10; received 11\."),
    ],
)
def test_a_model_that_cannot_be_trained_is_refused(given, options, message):
    with pytest.raises(ArgumentError, match=message):
        AugMixModel(given(), **options)
    with pytest.raises(ArgumentError, match=r"no loss: it is this model's own.*received 'mse'"):
        AugMixModel(backbone()).compile("sgd", "mse")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sample_weight": np.ones((4, 2))}, r"one weight for each example, \[N\]; received"),
        ({"y": np.eye(4)}, r"rows \[N, 5\] of 5 classes; received float32 \(4, 4\)"),
        ({"y": None}, "received no labels"),
        ({"y": np.array([0.5, 1, 2, 3], np.float32)}, r"whole numbers; received: .*0\.5"),
        ({"x": np.zeros((4, 6, 8), np.uint8)}, r"\[N, H, W, C\].*received \(4, 6, 8\)"),
    ],
)
def test_what_the_loss_cannot_use_is_refused(arguments, message):
    images, labels = examples(1)
    model = AugMixModel(keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(CLASSES)]))
    model.compile("sgd", run_eagerly=True)
    given = {"x": images, "y": labels} | arguments
    with pytest.raises(ArgumentError, match=message):
        model.fit(**given, verbose=0)


def test_probabilities_in_half_precision_are_refused():
    half = backbone(softmax=True, dtype="mixed_bfloat16")
    model = AugMixModel(half, from_logits=False)
    model.compile("sgd", run_eagerly=True)
    with pytest.raises(ArgumentError, match=r"probabilities in float32.*received bfloat16"):
        model.fit(viewed(1), verbose=0)
