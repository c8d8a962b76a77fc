"""Batch normalisation by the fused kernel and over several replicas, against NumPy and Keras."""

import copy

import keras
import numpy as np
import pytest
import tensorflow as tf

from augmix_tf.models.batch_norm import batch_normalization
from tests.arrays import assert_same
from tests.processes import python, two_processors
from tests.runs import RUNS
from tests.tiny_models import batch, cross_entropy, shake

KERNEL = "FusedBatchNormV3"
SETTINGS = {"momentum": 0.8, "epsilon": 1e-3}
CHANNELS = 4
# Relative to the largest value: one rounding of the output and of its gradient.
TOLERANCE = {"float32": 2e-6, "mixed_bfloat16": 2**-7, "mixed_float16": 2**-10}


@pytest.fixture(autouse=True)
def _keep_precision_policy():
    policy = keras.config.dtype_policy()
    yield
    keras.config.set_dtype_policy(policy)


def pictures(*shape, seed=0):
    """Values whose mean and spread differ from channel to channel, exact in bfloat16."""
    rng = np.random.default_rng(seed)
    values = rng.integers(-128, 128, (*shape, CHANNELS)) * [0.25, 1.0, 4.0, 0.5] + [8, 0, -64, 2]
    return values.astype(np.float32)


def weighted(layer, shape=(None, None, None, CHANNELS)):
    """`layer` with weights and moving values that differ from channel to channel."""
    layer.build(shape)
    rng = np.random.default_rng(1)
    layer.set_weights([rng.uniform(0.5, 1.5, CHANNELS) for _ in layer.weights])
    return layer


def ours(**more):
    return weighted(batch_normalization("norm", **SETTINGS, **more))


def stock(shape=(None, None, None, CHANNELS), **more):
    return weighted(keras.layers.BatchNormalization(**SETTINGS, **more), shape)


def near(got, want, tolerance):
    want = np.asarray(want, np.float64)
    got = tf.cast(got, tf.float64).numpy()
    np.testing.assert_allclose(got, want, rtol=0, atol=tolerance * np.abs(want).max())


@pytest.mark.parametrize("policy", [*TOLERANCE, "float64"])
@pytest.mark.parametrize("way", ["eager", "graph", "xla"])
def test_training_equals_numpy(way, policy):
    keras.config.set_dtype_policy(policy)
    layer, x = ours(), pictures(3, 5, 7)
    gamma, beta, moving_mean, moving_variance = map(np.float64, layer.get_weights())
    got = RUNS[way](lambda x: layer(x, training=True), tf.constant(x))
    assert got.dtype == layer.compute_dtype
    exact = x.astype(np.float64)
    mean, variance = exact.mean((0, 1, 2)), exact.var((0, 1, 2))
    want = gamma * (exact - mean) / np.sqrt(variance + 1e-3) + beta
    near(got, want, TOLERANCE.get(policy, 1e-12))
    unbiased = exact.var((0, 1, 2), ddof=1)
    np.testing.assert_allclose(
        layer.moving_mean.numpy(), 0.8 * moving_mean + 0.2 * mean, rtol=1e-5, atol=1e-5
    )
    np.testing.assert_allclose(
        layer.moving_variance.numpy(), 0.8 * moving_variance + 0.2 * unbiased, rtol=1e-5
    )


def slopes(layer, x, training):
    """Gradients by input, scale and offset of a loss that is not symmetric."""
    factors = tf.cast(np.random.default_rng(2).normal(size=x.shape), tf.float64)

    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.cast(layer(x, training=training), tf.float64)
            loss = tf.reduce_sum(factors * y + 0.1 * y**2)
        return tape.gradient(loss, [x, layer.gamma.value, layer.beta.value])

    return gradient


@pytest.mark.parametrize("policy", TOLERANCE)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("way", ["eager", "graph", "xla"])
def test_gradients_equal_keras_in_float64(way, training, policy):
    x = tf.constant(pictures(3, 5, 7))
    exact = stock(dtype="float64")
    want = slopes(exact, x, training)(tf.cast(x, tf.float64))
    keras.config.set_dtype_policy(policy)
    for got, exact in zip(RUNS[way](slopes(ours(), x, training), x), want, strict=True):
        near(got, exact, 4 * TOLERANCE[policy])


def small_network():
    """Two convolutions with a normalisation each; weights follow from seeds."""
    images = x = keras.Input([9, 6, 3])
    for seed in (1, 2):
        start = keras.initializers.GlorotUniform(seed)
        x = keras.layers.Conv2D(6, 3, use_bias=False, kernel_initializer=start)(x)
        x = keras.layers.ReLU()(batch_normalization(f"norm{seed}", **SETTINGS)(x))
    start = keras.initializers.GlorotUniform(3)
    features = keras.layers.GlobalAveragePooling2D(dtype="float32")(x)
    logits = keras.layers.Dense(5, kernel_initializer=start, dtype="float32")(features)
    model = keras.Model(images, logits)
    shake(model)
    return model


def slopes_by_weights(model, images, labels):
    with tf.GradientTape() as tape:
        loss = cross_entropy(labels, model(images, training=True))
    return tape.gradient(loss, [w.value for w in model.trainable_weights])


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("way", ["graph", "xla"])
def test_an_attack_and_a_step_through_one_network_equal_keras(way, training):
    """Gradients by the images, and then by the weights at the images moved along them."""
    model = small_network()
    plain = keras.models.clone_model(model)
    plain.set_weights(model.get_weights())
    images, labels = batch([9, 6, 3])

    def attack_and_step(model):
        def run(images):
            with tf.GradientTape() as tape:
                tape.watch(images)
                loss = cross_entropy(labels, model(images, training=training))
            by_image = tape.gradient(loss, images)
            moved = images + 0.1 * by_image
            return [by_image, *slopes_by_weights(model, moved, labels)]

        return RUNS[way](run, tf.constant(images))

    for got, want in zip(attack_and_step(model), attack_and_step(plain), strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-4 * np.abs(want).max())


@pytest.mark.parametrize("policy", TOLERANCE)
@pytest.mark.parametrize("frozen", [False, True])
def test_inference_and_frozen_layers_are_keras_to_the_last_bit(frozen, policy):
    keras.config.set_dtype_policy(policy)
    layer, other, x = ours(), stock(), tf.constant(pictures(2, 5, 3))
    before = layer.get_weights()
    layer.trainable = other.trainable = not frozen
    np.testing.assert_array_equal(layer(x, training=frozen), other(x, training=frozen))
    np.testing.assert_array_equal(layer(x), other(x))
    assert_same(layer.get_weights(), before)


@pytest.mark.parametrize("way", ["eager", "graph", "xla"])
def test_one_value_per_channel_becomes_the_offset(way):
    layer, x = ours(), tf.constant(pictures(1, 1, 1))
    _, beta, moving_mean, moving_variance = layer.get_weights()
    y = RUNS[way](lambda x: layer(x, training=True), x)
    np.testing.assert_allclose(y[0, 0, 0], beta, atol=1e-6)
    np.testing.assert_allclose(layer.moving_mean, 0.8 * moving_mean + 0.2 * x[0, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(layer.moving_variance, 0.8 * moving_variance, rtol=1e-6)


FALLBACKS = {
    "weights in bfloat16": ({"dtype": "bfloat16"}, (3, 5, 7), {}),
    "vectors": ({}, (9,), {}),
    "masked": ({}, (3, 5, 7), {"mask": np.arange(105).reshape(3, 5, 7) % 3 > 0}),
}


@pytest.mark.parametrize(("policy", "shape", "more"), FALLBACKS.values(), ids=FALLBACKS)
def test_what_the_kernel_cannot_do_is_left_to_keras(policy, shape, more):
    keras.config.set_dtype_policy(policy.get("dtype", "float32"))
    x = tf.constant(pictures(*shape))
    layer = weighted(batch_normalization("norm", **SETTINGS), x.shape)
    other = stock(x.shape)
    for _ in range(2):
        np.testing.assert_array_equal(
            layer(x, training=True, **more), other(x, training=True, **more)
        )
    assert_same(layer.get_weights(), other.get_weights())


def operations(layer, **arguments):
    graph = tf.function(lambda x: layer(x, **arguments)).get_concrete_function(
        tf.TensorSpec([3, 5, 7, CHANNELS], layer.compute_dtype)
    )
    return [op.type for op in graph.graph.get_operations()]


@pytest.mark.parametrize("policy", TOLERANCE)
def test_the_kernel_trains_and_does_nothing_else(policy):
    keras.config.set_dtype_policy(policy)
    layer = ours()
    assert operations(layer, training=True).count(KERNEL) == 1
    # Its gradient in inference would stop a deterministic run on a GPU.
    assert KERNEL not in operations(layer, training=False)
    layer.trainable = False
    assert KERNEL not in operations(layer, training=True)


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # Keras, in copying
def test_the_layer_is_keras_own_and_so_are_its_copies():
    layer = ours()
    assert type(layer) is keras.layers.BatchNormalization
    assert layer.get_config() | {"name": ""} == stock().get_config() | {"name": ""}
    assert [w.path for w in layer.weights] == [
        f"norm/{name}" for name in ("gamma", "beta", "moving_mean", "moving_variance")
    ]
    images = keras.Input([5, 7, CHANNELS])
    model = keras.Model(images, layer(images))
    config = keras.saving.serialize_keras_object(model)
    kept = keras.saving.deserialize_keras_object(config)
    x = tf.constant(pictures(2, 5, 7))
    for other in (kept, keras.models.clone_model(model), copy.deepcopy(model)):
        other.set_weights(layer.get_weights())
        np.testing.assert_array_equal(other(x), layer(x))
        plain = stock()
        np.testing.assert_array_equal(other(x, training=True), plain(x, training=True))
        assert_same(other.get_weights(), plain.get_weights())


# Several replicas. A batch of 8: each of two replicas has four examples, or 5 and 3, or 8 and none.
# float32 holds a mean of 1000 to 6e-5, and the standard deviation is 1.
FAR = 1.5e-4
SPLITS = {"halves": 4, "uneven": 5, "none on the second": 8}


def whole_batch(far=False):
    """Input, and the factors of a loss that is not symmetric."""
    x = pictures(8, 5, 7)
    if far:
        x = (1000 + np.random.default_rng(3).normal(size=x.shape)).astype(np.float32)
    return x, np.random.default_rng(2).normal(size=x.shape)


def outputs_and_slopes(layer):
    """Outputs, and gradients by input, scale and offset."""

    def step(x, factors):
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = layer(x, training=True)
            y = tf.cast(outputs, tf.float64)
            loss = tf.reduce_sum(factors * y + 0.1 * y**2)
        return outputs, *tape.gradient(loss, [x, layer.gamma.value, layer.beta.value])

    return step


# Examples of the first replica, far from 0, synchronised, precision, the way a step is run
ON_TWO = {
    **{name: (count, False, True, "float32", "graph") for name, count in SPLITS.items()},
    "far": (4, True, True, "float32", "graph"),
    "eager": (4, False, True, "float32", "eager"),
    "float64": (4, False, True, "float64", "graph"),
    "mixed_bfloat16": (4, False, True, "mixed_bfloat16", "graph"),
    "mixed_float16": (4, False, True, "mixed_float16", "graph"),
    "apart": (4, False, False, "float32", "graph"),
}


def on_two_replicas(strategy, count, far, synchronized, policy, way):
    """What `outputs_and_slopes` gives for the whole batch, and both replicas' moving values."""
    keras.config.set_dtype_policy(policy)
    with strategy.scope():
        layer = ours(synchronized=synchronized)
    parts = [tf.split(part, [count, 8 - count]) for part in whole_batch(far)]
    parts[0] = [tf.cast(part, layer.variable_dtype) for part in parts[0]]
    own = [
        strategy.experimental_distribute_values_from_function(
            lambda context, part=part: part[context.replica_id_in_sync_group]
        )
        for part in parts
    ]
    results = RUNS[way](lambda: strategy.run(outputs_and_slopes(layer), args=own))
    outputs, by_x, *by_weights = map(strategy.experimental_local_results, results)
    moved = [layer.moving_mean.value.values, layer.moving_variance.value.values]
    joined = [tf.cast(tf.concat(value, 0), tf.float64) for value in (outputs, by_x)]
    return [*joined, *map(tf.add_n, by_weights), tf.stack(moved, 1)]


def save_two_replicas(path):
    """For a process of its own, because of its two devices."""
    # One for all: two of them number their collective operations alike.
    strategy = two_processors()
    runs = {name: on_two_replicas(strategy, *how) for name, how in ON_TWO.items()}
    np.savez(path, **{f"{name}/{i}": v for name, run in runs.items() for i, v in enumerate(run)})


@pytest.fixture(scope="module")
def two_replicas(tmp_path_factory):
    path = tmp_path_factory.mktemp("replicas") / "runs.npz"
    python(f"from tests import test_batch_norm as t; t.save_two_replicas({str(path)!r})")
    with np.load(path) as saved:
        return {name: [saved[f"{name}/{i}"] for i in range(5)] for name in ON_TWO}


@pytest.mark.parametrize("name", [name for name in ON_TWO if name != "apart"])
def test_two_synchronised_replicas_equal_one_device_in_float64(two_replicas, name):
    *got, moved = two_replicas[name]
    np.testing.assert_array_equal(moved[0], moved[1])
    _, far, _, policy, _ = ON_TWO[name]
    tolerance = FAR if far else TOLERANCE.get(policy, 1e-12)
    x, factors = whole_batch(far)
    x, exact = x.astype(np.float64), stock(dtype="float64")
    moving_mean, moving_variance = exact.get_weights()[2:]
    y, *slopes = outputs_and_slopes(exact)(tf.constant(x), factors)
    near(got[0], y, tolerance)
    for value, want in zip(got[1:], slopes, strict=True):
        near(value, want, 4 * tolerance)
    mean, unbiased = x.mean((0, 1, 2)), x.var((0, 1, 2), ddof=1)
    np.testing.assert_allclose(moved[0][0], 0.8 * moving_mean + 0.2 * mean, rtol=1e-6, atol=1e-6)
    rtol = 1e-5 if far else 2e-6
    np.testing.assert_allclose(moved[0][1], 0.8 * moving_variance + 0.2 * unbiased, rtol=rtol)


def test_the_kernel_is_as_near_where_the_mean_is_far():
    """So is one device, whose mean is rounded in the same way."""
    x, _ = whole_batch(far=True)
    want = stock(dtype="float64")(x.astype(np.float64), training=True)
    near(ours()(x, training=True), want, FAR)


def test_two_replicas_apart_normalise_by_their_own_examples(two_replicas):
    y, *_, moved = two_replicas["apart"]
    x, _ = whole_batch()
    for half, own in zip((slice(4), slice(4, 8)), moved, strict=True):
        layer = ours()
        near(y[half], layer(x[half], training=True), 2e-6)
        np.testing.assert_allclose(own, layer.get_weights()[2:], rtol=1e-6)
