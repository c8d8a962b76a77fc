"""CoupledSGD against PyTorch's recorded steps, a NumPy loop, and the ways Keras drives it."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from augmix_tf.training.optimizer import CoupledSGD, cosine_schedule
from tests import golden
from tests.arrays import assert_near
from tests.oracles import loop_training

TOLERANCE = {"float32": 1e-5, "float64": 1e-12}
STEPS = 12


class Table(keras.optimizers.schedules.LearningRateSchedule):
    """The rate of every step by hand, in float64."""

    def __init__(self, rates):
        self.rates = [float(rate) for rate in rates]

    def __call__(self, step):
        return tf.gather(tf.constant(self.rates, tf.float64), tf.convert_to_tensor(step))

    def get_config(self):
        return {"rates": self.rates}


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(
    ("case", "nesterov", "weight_decay"),
    [
        ("nesterov_cosine_wd5e-4", True, 5e-4),
        ("plain_step_wd1e-4", False, 1e-4),
        ("nesterov_const_wd0.1", True, 0.1),
    ],
)
def test_equals_torch(case, nesterov, weight_decay, dtype):
    data = golden.load("sgd")
    reference = f"{case}_f{dtype[-2:]}"
    weights = [keras.Variable(data[name].astype(dtype), dtype=dtype) for name in ("W0", "b0")]
    optimizer = CoupledSGD(Table(data[f"{reference}/lr"]), 0.9, nesterov, weight_decay)
    for t in range(30):
        with tf.GradientTape() as tape:
            logits = tf.matmul(data["X"][t].astype(dtype), weights[0]) + weights[1]
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(data["Y"][t], logits)
            loss = tf.reduce_mean(losses)
        optimizer.apply(tape.gradient(loss, [w.value for w in weights]), weights)
        for variable, name in zip(
            [*weights, *optimizer.momenta], ("W", "b", "mW", "mb"), strict=True
        ):
            want = data[f"{reference}/{name}"][t]
            np.testing.assert_allclose(
                variable, want, 0, TOLERANCE[dtype], err_msg=f"{name} after step {t}"
            )


def bowl(t, weights):
    """Gradients of a quadratic whose centre moves, so that momentum and rate both matter."""
    return [(i + 1.0) * weight - np.sin(t + i) for i, weight in enumerate(weights)]


def apply_bowl(optimizer, weights, apply):
    trajectory = []
    for t in range(STEPS):
        slopes = bowl(t, [weight.numpy() for weight in weights])
        apply([tf.constant(slope) for slope in slopes], weights)
        trajectory.append([weight.numpy() for weight in weights])
    return trajectory


@pytest.mark.parametrize("weight_decay", [0.0, 5e-4, 0.3])
@pytest.mark.parametrize(
    ("momentum", "nesterov"), [(0.9, True), (0.9, False), (0.5, True), (0.0, False)]
)
def test_equals_a_loop_while_the_rate_changes(momentum, nesterov, weight_decay):
    starts = [np.linspace(-1, 2, 6).reshape(2, 3), np.array([3.0, -1.0]), np.array(0.5)]
    rates = [0.1, 0.2, 0.05, 0.0, 0.3, 0.3, 0.01, 0.02, 0.1, 0.1, 0.001, 0.2]
    weights = [keras.Variable(start, dtype="float64") for start in starts]
    optimizer = CoupledSGD(Table(rates), momentum, nesterov, weight_decay)
    want = loop_training.sgd(starts, bowl, rates, momentum, nesterov, weight_decay)
    got = apply_bowl(optimizer, weights, optimizer.apply)
    for ours, theirs in zip(got, want, strict=True):
        assert_near(ours, theirs, rtol=1e-12, atol=1e-14)
    assert int(optimizer.iterations.numpy()) == STEPS


@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "xla"])
def test_compiled_equals_the_loop(jit_compile):
    starts = [np.linspace(-1, 2, 6).reshape(2, 3), np.array([3.0, -1.0])]
    weights = [keras.Variable(start, dtype="float64") for start in starts]
    rate = cosine_schedule(0.1, STEPS)
    optimizer = CoupledSGD(rate, weight_decay=0.1)
    optimizer.build(weights)
    # Traced once: rate and momenta must be read anew in every call.
    step = tf.function(lambda slopes: optimizer.apply(slopes, weights), jit_compile=jit_compile)
    got = apply_bowl(optimizer, weights, lambda slopes, _: step(slopes))
    rates = [loop_training.cosine(t, 0.1, STEPS, 1e-6) for t in range(STEPS)]
    want = loop_training.sgd(starts, bowl, rates, 0.9, True, 0.1)
    for ours, theirs in zip(got, want, strict=True):
        assert_near(ours, theirs, rtol=1e-12, atol=1e-14)


def small_model(seed=0):
    """Convolution with bias, batch normalisation and a dense layer: every kind of parameter."""
    keras.utils.set_random_seed(seed)
    images = keras.Input([6, 5, 3])
    x = keras.layers.Conv2D(4, 3)(images)
    x = keras.layers.BatchNormalization(synchronized=True)(x)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.ReLU()(x))
    return keras.Model(images, keras.layers.Dense(3, dtype="float32")(x))


def small_batch(count=8):
    rng = np.random.default_rng(1)
    return rng.standard_normal((count, 6, 5, 3), np.float32), rng.integers(0, 3, count)


def test_a_variable_without_gradient_is_left_alone():
    first, second = keras.Variable(np.ones(2)), keras.Variable(np.ones(2))
    optimizer = CoupledSGD(0.1, weight_decay=0.5)
    with pytest.warns(UserWarning, match="Gradients do not exist"):
        optimizer.apply([tf.zeros(2), None], [first, second])
    assert np.all(first.numpy() < 1)
    np.testing.assert_array_equal(second, [1.0, 1.0])


def test_sparse_gradients_decay_every_row():
    table = keras.Variable(np.ones([3, 2]))
    optimizer = CoupledSGD(0.1, 0.0, nesterov=False, weight_decay=0.5)
    slices = tf.IndexedSlices(tf.ones([2, 2]), tf.constant([1, 1]), tf.constant([3, 2]))
    optimizer.apply([slices], [table])
    np.testing.assert_allclose(table, [[0.95] * 2, [0.75] * 2, [0.95] * 2], rtol=1e-6)


@pytest.mark.parametrize(
    ("policy", "jit_compile"),
    [("float32", True), ("mixed_float16", False)],
)
def test_trains_through_fit(policy, jit_compile):
    keras.config.set_dtype_policy(policy)
    images, labels = small_batch()
    model = small_model()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    rate = cosine_schedule(0.3, 10)
    model.compile(CoupledSGD(rate), loss, jit_compile=jit_compile)
    history = model.fit(images, labels, batch_size=8, epochs=10, verbose=0).history["loss"]
    assert history[-1] < 0.9 * history[0]
    inner = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    assert isinstance(inner, CoupledSGD)
    assert {m.dtype for m in inner.momenta} == {"float32"}
