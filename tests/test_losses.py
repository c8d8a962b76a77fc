"""The training loss against the reference, a NumPy formula, its bounds and finite differences."""

import numpy as np
import pytest
import tensorflow as tf

from augmix_tf import losses
from augmix_tf.errors import ArgumentError
from tests import golden
from tests.oracles import numpy_losses
from tests.runs import RUNS

DTYPES = ["float32", "float64"]
VALUE_TOLERANCE = {"float32": 2e-6, "float64": 1e-9}
SHORT = {"float32": "f32", "float64": "f64"}
# Tolerances of the reference's values. Near a JSD of 0 its own rounding shows.
NEAR_ZERO = {"float32": 1e-7, "float64": 1e-14}
GRADIENT_TOLERANCE = {"float32": 1e-6, "float64": 1e-12}


def scores(views: int, spread: float = 3.0, examples: int = 4, classes: int = 7) -> np.ndarray:
    """Logits [N, V, K]; for a spread of about 8 or more, mixtures are below the floor."""
    rng = np.random.default_rng(views)
    return spread * rng.standard_normal((examples, views, classes))


def all_losses(labels, logits):
    divergence = losses.jensen_shannon(logits)
    entropy = losses.cross_entropy(labels, logits[:, 0])
    return entropy, divergence, losses.augmix_loss(labels, logits)


def mean_loss_and_gradient(labels, logits):
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = tf.reduce_mean(losses.augmix_loss(labels, logits))
    return loss, tape.gradient(loss, logits)


def check_against_reference(data, case, dtype, loss_and_gradient):
    labels = tf.constant(data[f"{case}/labels"])
    logits = tf.constant(data[f"{case}/logits"].transpose(1, 0, 2), dtype)
    loss, gradient = loss_and_gradient(labels, logits)
    entropy = losses.cross_entropy(labels, logits[:, 0])
    divergence = losses.jensen_shannon(logits)
    got = {"ce": tf.reduce_mean(entropy), "jsd": tf.reduce_mean(divergence), "loss": loss}
    for name, value in got.items():
        want = data[f"{case}/{name}_{SHORT[dtype]}"]
        np.testing.assert_allclose(
            value, want, VALUE_TOLERANCE[dtype], NEAR_ZERO[dtype], err_msg=f"{case} {name}"
        )
    want = data[f"{case}/grad_{SHORT[dtype]}"].transpose(1, 0, 2)
    np.testing.assert_allclose(gradient, want, 0, GRADIENT_TOLERANCE[dtype], err_msg=case)


@pytest.mark.parametrize("dtype", DTYPES)
def test_equals_the_reference(dtype):
    data = golden.load("jsd")
    assert data["lambda"] == 12.0
    assert len(data["cases"]) == 12
    for case in data["cases"]:
        check_against_reference(data, case, dtype, mean_loss_and_gradient)


@pytest.mark.parametrize(("views", "dtype"), [(2, "float64"), (5, "float32")])
@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_equals_the_formula(run, views, dtype):
    labels = np.array([0, 6, 3, 3] * 3)
    logits = np.concatenate([scores(views, spread) for spread in (0.1, 3.0, 12.0)]).astype(dtype)
    clean, pairs = logits[:, 0], list(zip(labels, logits, strict=True))
    wants = {
        "cross_entropy": list(map(numpy_losses.cross_entropy, labels, clean)),
        "jensen_shannon": list(map(numpy_losses.jensen_shannon, logits)),
        "augmix_loss": [numpy_losses.augmix_loss(*pair) for pair in pairs],
    }
    got = run(all_losses, tf.constant(labels), tf.constant(logits))
    for value, (name, want) in zip(got, wants.items(), strict=True):
        assert value.dtype == dtype
        np.testing.assert_allclose(
            value, want, VALUE_TOLERANCE[dtype], NEAR_ZERO[dtype], err_msg=name
        )


def test_the_mixture_has_a_floor():
    # Three views that agree on p = (1 - 1e-9, 1e-9): without the floor the JSD would be 0.
    logits = tf.constant([[[0.0, np.log(1e-9)]] * 3], tf.float64)
    np.testing.assert_allclose(losses.jensen_shannon(logits), [1e-9 * np.log(1e-2)], rtol=1e-6)


@pytest.mark.parametrize(("views", "spread"), [(2, 2.0), (3, 12.0)])
def test_gradient_equals_finite_differences(views, spread):
    labels = tf.constant([1, 0])
    logits = scores(views, spread, examples=2, classes=4)
    _, gradient = mean_loss_and_gradient(labels, tf.constant(logits))

    def loss_of(point):
        pairs = zip([1, 0], point, strict=True)
        return np.mean([numpy_losses.augmix_loss(y, rows) for y, rows in pairs])

    np.testing.assert_allclose(gradient, numpy_losses.slope(loss_of, logits, 1e-5), atol=2e-8)
    assert np.all(np.abs(gradient).max(axis=(0, 2)) > 1e-6), "a view without gradient"


@pytest.mark.parametrize(("views", "dtype"), [(2, "float64"), (5, "float32")])
def test_bounds(views, dtype):
    agree = tf.repeat(tf.constant(scores(1, 1.0), dtype), views, axis=1)
    clash = 200.0 * tf.eye(views, 7, batch_shape=[2], dtype=dtype)
    np.testing.assert_allclose(losses.jensen_shannon(agree), np.zeros(4), atol=1e-7)
    np.testing.assert_allclose(losses.jensen_shannon(clash), [np.log(views)] * 2, rtol=1e-6)
    for spread, least in ((0.5, 0.0), (2.0, 0.0), (50.0, -7 * 4e-8)):
        between = losses.jensen_shannon(tf.constant(scores(views, spread, 64), dtype)).numpy()
        assert between.min() > least
        assert between.max() < np.log(views) * (1 + 1e-6)


def test_order_of_views_and_classes_and_offsets_do_not_matter():
    logits = scores(5)
    want = losses.jensen_shannon(logits)
    offsets = np.arange(20.0).reshape(4, 5, 1)
    others = [logits[:, [3, 0, 4, 2, 1]], logits[:, :, ::-1], logits + offsets]
    got = losses.jensen_shannon(tf.constant(np.concatenate(others)))
    np.testing.assert_allclose(got, np.tile(want, 3), rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_extreme_logits_stay_finite(dtype):
    run = RUNS["xla" if dtype == "bfloat16" else "eager"]
    high, low = 1e4, -1e4
    logits = tf.constant(
        [
            [[high, low, 0.0], [low, high, 0.0], [0.0, low, high]],  # views clash
            [[high, low, low]] * 3,  # views agree
            [[low, low, low]] * 3,  # all low, hence uniform
            [[high, high, low], [0.0, 0.0, 0.0], [low, high, high]],  # ties
        ],
        dtype,
    )
    labels = tf.constant([1, 0, 2, 2])
    loss, gradient = run(mean_loss_and_gradient, labels, logits)
    each = losses.augmix_loss(labels, logits)
    assert np.all(np.isfinite(np.asarray(gradient, np.float64)))
    assert gradient.dtype == dtype
    rows = np.asarray(tf.cast(logits, tf.float64))
    want = [
        numpy_losses.augmix_loss(y, views) for y, views in zip(labels.numpy(), rows, strict=True)
    ]
    np.testing.assert_allclose(each, want, rtol=2e-6, atol=1e-6)
    np.testing.assert_allclose(loss, np.mean(want), rtol=2e-6)


def test_weight_scales_the_divergence_only():
    labels, logits = tf.constant([0, 6, 3, 3]), tf.constant(scores(3))
    entropy = losses.cross_entropy(labels, logits[:, 0])
    np.testing.assert_allclose(losses.augmix_loss(labels, logits, 0.0), entropy, rtol=1e-12)
    more = losses.augmix_loss(labels, logits, 3.0) - entropy
    np.testing.assert_allclose(more, 3.0 * losses.jensen_shannon(logits), rtol=1e-12)


def soft_targets(examples: int, classes: int) -> np.ndarray:
    """Targets [N, K] whose rows sum to 1, some with classes of probability 0."""
    rng = np.random.default_rng(classes)
    targets = rng.dirichlet(np.full(classes, 0.5), examples)
    targets[::2, 1] = 0.0
    return targets / targets.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("target_dtype", DTYPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_soft_targets_weight_the_losses_of_the_classes(dtype, target_dtype):
    targets, logits = soft_targets(4, 7), scores(3, 8.0)
    want = [
        sum(weight * numpy_losses.cross_entropy(k, row) for k, weight in enumerate(target))
        for target, row in zip(targets, logits[:, 0], strict=True)
    ]
    clean = tf.constant(logits[:, 0], dtype)
    got = losses.cross_entropy(tf.constant(targets, target_dtype), clean)
    assert got.dtype == dtype
    rtol = 1e-9 if dtype == target_dtype == "float64" else 2e-6
    np.testing.assert_allclose(got, want, rtol)


def test_gradient_of_soft_targets_is_probability_minus_target():
    targets, logits = soft_targets(4, 7), scores(1)[:, 0]
    point = tf.constant(logits)
    with tf.GradientTape() as tape:
        tape.watch(point)
        total = tf.reduce_sum(losses.cross_entropy(tf.constant(targets), point))
    want = np.array([numpy_losses.softmax(row) for row in logits]) - targets
    np.testing.assert_allclose(tape.gradient(total, point), want, atol=1e-12)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_soft_targets_of_extreme_logits_stay_finite(dtype):
    targets = tf.constant([[1.0, 0.0, 0.0], [0.0, 0.5, 0.5], [0.25, 0.25, 0.5]])
    logits = tf.constant([[1e4, -1e4, 0.0], [1e4, -1e4, 0.0], [-1e4, -1e4, -1e4]], dtype)
    exact = np.asarray(tf.cast(logits, tf.float64))
    want = [0.0, exact[1, 0] - 0.5 * exact[1, 1], np.log(3)]
    np.testing.assert_allclose(losses.cross_entropy(targets, logits), want, rtol=2e-6)


def test_sizes_unknown_while_tracing():
    spec = [tf.TensorSpec([None], tf.int32), tf.TensorSpec([None, None, None], tf.float64)]
    traced = tf.function(losses.augmix_loss, input_signature=spec)
    for views in (2, 5):
        labels, logits = tf.constant([0, 6, 3, 3]), tf.constant(scores(views))
        want = losses.augmix_loss(labels, logits)
        np.testing.assert_allclose(traced(labels, logits), want, rtol=1e-12)


@pytest.mark.parametrize(
    ("function", "args", "message"),
    [
        (losses.jensen_shannon, [tf.zeros([4, 10])], r"\[N, V, K\]; received float32 \(4, 10\)"),
        (losses.jensen_shannon, [tf.zeros([4, 1, 10])], r"2 views .*received float32 \(4, 1, 10\)"),
        (losses.jensen_shannon, [tf.zeros([4, 3, 10], tf.int32)], "received int32"),
        (losses.augmix_loss, [[0], tf.zeros([1, 10])], r"\[N, V, K\]; received float32 \(1, 10\)"),
        (losses.cross_entropy, [[0], tf.zeros([1, 3, 10])], r"\[N, K\]; received .* \(1, 3, 10\)"),
        (losses.cross_entropy, [[0.0], tf.zeros([1, 10])], "integer labels.*received float32"),
        (
            losses.cross_entropy,
            [tf.zeros([2, 1]), tf.zeros([2, 3])],
            r"\(2, 3\); received .*\(2, 1",
        ),
    ],
)
def test_refusals(function, args, message):
    with pytest.raises(ArgumentError, match=message):
        function(*args)
