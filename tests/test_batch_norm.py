"""Batch normalisation by the fused kernel, against NumPy and Keras."""

import copy

import keras
import numpy as np
import pytest
import tensorflow as tf

from augmix_tf.models.batch_norm import batch_normalization
from tests.arrays import assert_same
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

    def attack_and_step(model, way):
        def run(images):
            with tf.GradientTape() as tape:
                tape.watch(images)
                loss = cross_entropy(labels, model(images, training=training))
            by_image = tape.gradient(loss, images)
            moved = images + 0.1 * by_image
            return [by_image, *slopes_by_weights(model, moved, labels)]

        return RUNS[way](run, tf.constant(images))

    pairs = zip(attack_and_step(model, way), attack_and_step(plain, "graph"), strict=True)
    for got, want in pairs:
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


def test_one_value_per_channel_becomes_the_offset():
    layer, x = ours(), tf.constant(pictures(1, 1, 1))
    _, beta, moving_mean, moving_variance = layer.get_weights()
    y = layer(x, training=True)
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


# float32 holds a mean of 1000 to 6e-5, and the standard deviation is 1.
FAR = 1.5e-4


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


def test_the_kernel_is_as_near_where_the_mean_is_far():
    """So is one device, whose mean is rounded in the same way."""
    x, _ = whole_batch(far=True)
    want = stock(dtype="float64")(x.astype(np.float64), training=True)
    near(ours()(x, training=True), want, FAR)
