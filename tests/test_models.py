"""Parameter counts of the papers' code, a NumPy model of each architecture, and refusals."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from augmix_tf import models
from augmix_tf.errors import ArgumentError
from augmix_tf.models import architectures
from tests.oracles import numpy_models
from tests.processes import python
from tests.tiny_models import (
    TINY,
    batch,
    build_tiny,
    cross_entropy,
    gradients_by_torch_name,
    shake,
    torch_state,
)


@pytest.mark.parametrize(
    ("name", "num_classes", "trainable", "moving"),
    [
        ("allconv", 10, 1_409_674, 2_880),
        ("densenet", 10, 769_162, 23_988),
        ("wrn", 100, 2_255_156, 5_408),
        ("resnext", 10, 6_807_882, 25_216),
        ("resnet50", 1000, 25_557_032, 53_120),
    ],
)
def test_parameter_counts(name, num_classes, trainable, moving):
    model = models.build(name, num_classes, (None, None, 3))
    assert sum(w.numpy().size for w in model.trainable_weights) == trainable
    assert sum(w.numpy().size for w in model.non_trainable_weights) == moving
    assert model.output_shape == (None, num_classes)


def test_reflection_needs_a_fixed_size():
    message = r"Expected max_blur_pool images of a fixed size; received \(None, 64\)"
    with pytest.raises(ArgumentError, match=message):
        models.build("resnet50", 5, (None, 64, 3), max_blur_pool=True)


@pytest.mark.parametrize("shape", [(1, 2), (2, 7), (8, 5)])
def test_blur_pool_equals_loops(shape):
    images = keras.Input((*shape, 3))
    model = keras.Model(images, architectures.blur_pool(images, "blur"))
    values = np.random.default_rng(0).normal(size=(2, *shape, 3)).astype(np.float32)
    np.testing.assert_allclose(model(values), numpy_models.blur(values), atol=1e-6)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("case", TINY)
def test_logits_equal_numpy(case, training):
    model = build_tiny(case)
    shake(model)
    images, _ = batch(model.input_shape[1:])
    function, *sizes = TINY[case][3]
    want = function(numpy_models.Network(torch_state(model), training), images, *sizes)
    got = tf.function(model)(images, training=training)
    assert got.dtype == tf.float32
    np.testing.assert_allclose(got, want, atol=1e-4 * np.abs(want).max())


@pytest.mark.parametrize("case", TINY)
def test_gradients_equal_numpy_differences(case):
    model = build_tiny(case)
    shake(model)
    images, labels = batch(model.input_shape[1:])

    @tf.function
    def gradient():
        with tf.GradientTape() as tape:
            loss = cross_entropy(labels, model(images, training=True))
        return tape.gradient(loss, [w.value for w in model.trainable_weights])

    start = {name: w.astype(np.float64) for name, w in torch_state(model).items()}
    slopes = gradients_by_torch_name(model, gradient())
    rng = np.random.default_rng(4)
    direction = {n: rng.normal(size=w.shape) for n, w in start.items() if "running" not in n}

    def loss_at(step):
        state = start | {n: start[n] + step * d for n, d in direction.items()}
        function, *sizes = TINY[case][3]
        logits = function(numpy_models.Network(state, training=True), images, *sizes)
        return float(cross_entropy(labels, logits))

    step = 1e-6  # small enough that hardly a ReLU changes sides
    want = (loss_at(step) - loss_at(-step)) / (2 * step)
    got = sum(np.sum(slopes[n] * d) for n, d in direction.items())
    np.testing.assert_allclose(got, want, rtol=1e-3)


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # Keras, in writing a file
def test_saved_models_load_without_this_package(tmp_path):
    cases = ["densenet_bc", "resnext", "max_blur_pool"]
    for case in cases:
        model = build_tiny(case)
        shake(model)
        images, _ = batch(model.input_shape[1:])
        model.save(tmp_path / f"{case}.keras")
        np.savez(tmp_path / f"{case}.npz", images=images, logits=model(images))
    program = """
        import sys, keras, numpy as np
        for case in sys.argv[1:]:
            with np.load(case + ".npz") as file:
                model = keras.saving.load_model(case + ".keras")
                np.testing.assert_array_equal(model(file["images"]), file["logits"])
        assert "augmix_tf" not in sys.modules
    """
    python(program, *cases, cwd=tmp_path)


@pytest.mark.parametrize("case", TINY)
def test_mixed_precision_gives_float32_logits(case):
    exact = build_tiny(case)
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = build_tiny(case)
    images, _ = batch(model.input_shape[1:])
    logits = model(images, training=True)
    assert logits.dtype == tf.float32
    assert all(w.dtype == "float32" for w in model.weights)
    assert any(layer.compute_dtype == "bfloat16" for layer in model.layers)
    want = exact(images, training=True)
    np.testing.assert_allclose(logits, want, atol=0.1 * np.abs(want).max())


def test_seed_decides_weights():
    architecture = models.MODELS["wrn"](depth=16, widen_factor=1)

    def kernels(seed):
        model = models.build(architecture, 10, seed=seed)
        return {w.path: w.numpy() for w in model.trainable_weights if w.path.endswith("kernel")}

    once, again, other = kernels(1), kernels(1), kernels(2)
    for path, value in once.items():
        np.testing.assert_array_equal(value, again[path])
        assert not np.array_equal(value, other[path])


def test_dropout_follows_seed_and_training_only():
    images, _ = batch((32, 32, 3))

    def run(seed, training):
        model = models.build("wrn", 10, seed=seed, depth=10, widen_factor=1, dropout=0.5)
        return model(images, training=training).numpy()

    np.testing.assert_array_equal(run(1, True), run(1, True))
    without = models.build("wrn", 10, seed=1, depth=10, widen_factor=1)
    np.testing.assert_array_equal(run(1, False), without(images))
    assert np.abs(run(1, True) - without(images, training=True)).max() > 0.01


def test_initial_weights_follow_the_recipe():
    model = models.build("resnext", 10, seed=0, cardinality=4, base_width=32)
    for name, variance in [
        ("conv_1_3x3", 2 / (9 * 64)),
        ("stage_2.0.conv_conv.group1", 2 / (9 * 256)),  # fan-out of the whole layer
        ("stage_2.0.conv_expand", 2 / 512),
        ("classifier", 2 / 1024),
    ]:
        kernel = model.get_layer(name).kernel.numpy()
        np.testing.assert_allclose(kernel.std(), np.sqrt(variance), rtol=0.05)
    linear = models.build("wrn", 100, seed=0).get_layer("fc")
    limit = 1 / np.sqrt(128)
    kernel = linear.kernel.numpy()
    assert limit * 0.999 < np.abs(kernel).max() <= limit
    np.testing.assert_allclose(kernel.std(), limit / np.sqrt(3), rtol=0.02)
    np.testing.assert_array_equal(linear.bias.numpy(), 0)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("wnr", 10), {}, "Unknown model 'wnr'. Did you mean 'wrn'"),
        (("wrn", 10), {"widen_facto": 2}, "option of wrn 'widen_facto'. Did you mean 'widen_fact"),
        (("allconv", 10), {"depth": 16}, "Unknown option of allconv 'depth'"),
        (("wrn", 10), {"depth": 17}, r"depth must be 6n \+ 4 for wrn; received 17. Use 16 or 22"),
        (("wrn", 10), {"depth": 4}, "depth must be 10 or more; received 4"),
        (("densenet", 10), {"depth": 41}, r"6n \+ 4 for densenet; received 41. Use 40 or 46"),
        (("densenet", 10), {"depth": 7}, r"6n \+ 4 for densenet; received 7. Use 10\."),
        (
            ("densenet", 10),
            {"depth": 41, "bottleneck": False},
            r"3n \+ 4 for densenet without bottleneck; received 41. Use 40 or 43",
        ),
        (("resnext", 10), {"depth": 28}, r"9n \+ 2 for resnext; received 28. Use 20 or 29"),
        (("wrn", 10), {"depth": 16.0}, "depth must be of type int; received 16.0"),
        (("wrn", 10), {"widen_factor": 0}, "widen_factor must be 1 or more; received 0"),
        (("wrn", 1), {}, "Expected num_classes from 2 on; received 1"),
        (("allconv", 10, (32, 23, 3)), {}, r"at least 24x24; received \(32, 23\)"),
        (("resnet50", 10), {"width_multiplier": 0.01}, "width_multiplier must be 0.015625 or"),
    ],
)
def test_refusals(arguments, options, message):
    with pytest.raises(ArgumentError, match=message):
        models.build(*arguments, **options)
