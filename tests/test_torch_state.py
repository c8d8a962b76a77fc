"""Models with original PyTorch weights give the outputs of the original code."""

import importlib.util
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from augmix_tf import models
from augmix_tf.errors import ArgumentError
from tests import golden
from tests.arrays import assert_same
from tests.tiny_models import (
    build_tiny,
    cross_entropy,
    gradients_by_torch_name,
    shake,
    torch_state,
)

STORED = {
    "wrn_16_1": ("wrn", 10, {"depth": 16, "widen_factor": 1}),
    "wrn_10_2_c100": ("wrn", 100, {"depth": 10, "widen_factor": 2}),
    "resnext11_2x8": ("resnext", 10, {"depth": 11, "cardinality": 2, "base_width": 8}),
    "densenet_k4_d13": (
        "densenet",
        10,
        {"depth": 13, "growth_rate": 4, "bottleneck": False, "reduction": 1.0},
    ),
    "densenet_bc_k4_d22": ("densenet", 10, {"depth": 22, "growth_rate": 4}),
}
BY_RECIPE = {
    "allconv": ("allconv", 10, {"dropout": 0.0}),
    "wrn_40_2": ("wrn", 10, {}),
    "resnext29_4x32": ("resnext", 10, {}),
    "resnext29_32x4": ("resnext", 100, {"cardinality": 32, "base_width": 4}),
    "densenet_default_40_12": (
        "densenet",
        10,
        {"depth": 40, "bottleneck": False, "reduction": 1.0},
    ),
    "densenet_bc_100_12": ("densenet", 100, {}),
    "resnet50": ("resnet50", 1000, {}),
}
FULL_SIZE_TOLERANCE = {"tolerance": 2e-4, "training_tolerance": 2e-4}
# ResNet-50 normalises over 2 images only, which magnifies rounding layer by layer.
RESNET50_TOLERANCE = {
    "tolerance": 2e-4,
    "training_tolerance": 1e-3,
    "gradient_tolerance": 5e-3,
}


def stored_case(name: str) -> tuple[keras.Model, dict]:
    """A small model with the stored weights, and the reference values."""
    data = golden.load(f"forward_{name}")
    model_name, num_classes, options = STORED[name]
    model = models.build(model_name, num_classes, **options)
    load(model, {k.removeprefix("state/"): data[k] for k in data if k.startswith("state/")})
    return model, data


def recipe_case(name: str) -> tuple[keras.Model, dict]:
    """A full-size model with weights drawn from stored seeds, and the reference values."""
    everything = golden.load("forward_recipe")
    prefix = f"{name}/"
    data = {k.removeprefix(prefix): everything[k] for k in everything if k.startswith(prefix)}
    state = {}
    for i, tensor in enumerate(data["names"]):
        values = np.random.RandomState(data["seeds"][i]).randint(
            data["low"][i],
            data["high"][i] + 1,
            size=tuple(v for v in data["shapes"][i] if v),
            dtype=np.int64,
        )
        state[str(tensor)] = data["offset"][i] + data["scale"][i] * values.astype(np.float32)
        np.testing.assert_allclose(state[str(tensor)].sum(dtype=np.float64), data["check_sums"][i])
    if "x" not in data:
        pixels = np.random.RandomState(data["x_seed"]).randint(
            0, 256, data["x_shape"], dtype=np.int64
        )
        data["x"] = pixels.astype(np.float32) / 128 - 1
    model_name, num_classes, options = BY_RECIPE[name]
    model = models.build(model_name, num_classes, data["x"].shape[1:], **options)
    load(model, state)
    return model, data


def load(model: keras.Model, state: dict) -> None:
    models.load_torch_state(model, state)
    for name, value in torch_state(model).items():
        np.testing.assert_array_equal(value, state[name])


def training_step(model: keras.Model, data: dict) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """Logits in training mode and gradients of the mean cross-entropy; statistics move."""
    with tf.GradientTape() as tape:
        logits = model(data["x"], training=True)
        loss = cross_entropy(data["labels"], logits)
    return logits, tape.gradient(loss, [w.value for w in model.trainable_weights])


def check_against_reference(model, data, *, tolerance, training_tolerance, gradient_tolerance=1e-3):
    np.testing.assert_allclose(model(data["x"]), data["eval_logits_f64"], rtol=0, atol=tolerance)
    logits, gradients = training_step(model, data)
    np.testing.assert_allclose(logits, data["train_logits_f64"], rtol=0, atol=training_tolerance)
    check_moving_statistics(model, data)
    found = gradients_by_torch_name(model, gradients)
    norms = [np.linalg.norm(found[n].astype(np.float64)) for n in data["train_grad_names"]]
    largest = data["train_grad_norms"].max()
    np.testing.assert_allclose(
        norms, data["train_grad_norms"], rtol=0, atol=gradient_tolerance * largest
    )
    for key in (k for k in data if k.startswith("train_grad/")):
        want = data[key]
        got = found[key.removeprefix("train_grad/")]
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-3 * np.abs(want).max())


def check_moving_statistics(model, data):
    after = torch_state(model)
    for key in (k for k in data if k.startswith("after_train_step/")):
        name = key.removeprefix("after_train_step/")
        np.testing.assert_allclose(after[name], data[key], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", STORED)
def test_stored_models_equal_original(name):
    model, data = stored_case(name)
    check_against_reference(model, data, tolerance=1e-4, training_tolerance=1e-4)


@pytest.mark.parametrize("name", BY_RECIPE)
def test_full_size_models_equal_original(name):
    model, data = recipe_case(name)
    tolerances = RESNET50_TOLERANCE if name == "resnet50" else FULL_SIZE_TOLERANCE
    check_against_reference(model, data, **tolerances)


def equal_to_source(source, target) -> bool:
    pairs = zip(source.get_weights(), target.get_weights(), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


def per_channel(*values):
    return np.array(values, np.float32).reshape(1, 3, 1, 1)


def test_the_copies_of_robustbench_load_without_renaming():
    source = build_tiny("wrn")
    shake(source)
    state = torch_state(source)
    half = per_channel(0.5, 0.5, 0.5)
    copy = {n.replace("conv_shortcut", "convShortcut"): value for n, value in state.items()}
    assert copy.keys() != state.keys()
    sequential = {f"model.{name}": value for name, value in state.items()}
    sequential |= {"normalize.mean": half, "normalize.std": half}
    parallel = {f"module.{name}": value for name, value in (copy | {"mu": half}).items()}
    counted = state | {"bn1.num_batches_tracked": np.array(7)}
    for variant in (copy | {"mu": half, "sigma": half}, sequential, parallel, counted):
        target = build_tiny("wrn")
        assert not equal_to_source(source, target)
        models.load_torch_state(target, variant)
        assert equal_to_source(source, target)


def test_another_normalization_is_refused_unless_it_is_given():
    model = build_tiny("wrn")
    state = torch_state(model) | {"mu": per_channel(0.49, 0.48, 0.45)}
    state |= {"sigma": per_channel(0.2, 0.2, 0.2)}
    with pytest.raises(ArgumentError, match=r"model 'wrn'\. Other values: mu, sigma\.$"):
        models.load_torch_state(model, state)
    models.load_torch_state(model, state, ((0.49, 0.48, 0.45), (0.2, 0.2, 0.2)))


# `BlurPool` of the tiny network, with the channels that it blurs.
BLUR_POOLS = {"maxpool.1": 4, "layer2.0.conv3.0": 8, "layer2.0.downsample.0": 16}


def blur_filters(taps):
    row = np.array(taps, np.float32) / sum(taps)
    return {
        f"{name}.filt": np.tile(np.outer(row, row), (channels, 1, 1, 1))
        for name, channels in BLUR_POOLS.items()
    }


def test_the_anti_aliased_network_loads_without_renaming():
    source, target = build_tiny("max_blur_pool"), build_tiny("max_blur_pool")
    shake(source)
    state = torch_state(source)
    block = {n.removeprefix("layer2.0.").rsplit(".", 1)[0] for n in state if "layer2.0" in n}
    assert block == {
        *("conv1", "bn1", "conv2", "bn2", "conv3.1", "bn3", "downsample.1", "downsample.2")
    }
    models.load_torch_state(target, state | blur_filters([1, 4, 6, 4, 1]))
    assert equal_to_source(source, target)
    with pytest.raises(ArgumentError, match=r"Other values: layer2\.0\.conv3\.0\.filt, "):
        models.load_torch_state(target, state | blur_filters([1, 3, 3, 1]))
    plain = build_tiny("resnet50")
    with pytest.raises(ArgumentError, match=r"Unexpected: layer2\.0\.conv3\.0\.filt"):
        models.load_torch_state(
            plain, torch_state(plain) | {"layer2.0.conv3.0.filt": np.ones((8, 1, 5, 5))}
        )


def test_a_file_of_weights_is_refused_where_it_cannot_be_read(tmp_path, monkeypatch):
    model, path = build_tiny("wrn"), tmp_path / "weights.safetensors"
    with pytest.raises(ArgumentError, match=r"Expected a \.safetensors file"):
        models.load_torch_state(model, path)
    path.write_bytes(b"no weights")
    if importlib.util.find_spec("safetensors"):
        with pytest.raises(ArgumentError, match="Cannot load the weights "):
            models.load_torch_state(model, str(path))
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    with pytest.raises(ArgumentError, match="pip install safetensors"):
        models.load_torch_state(model, path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("fc.weight"), r"does not fit model 'wrn'\. Missing: fc\.weight\.$"),
        (lambda s: s.update({"head.bias": np.zeros(3)}), r"Unexpected: head\.bias\.$"),
        (
            lambda s: s.update({"conv1.weight": np.zeros((16, 1, 3, 3))}),
            r"Wrong shape: conv1\.weight \(expected \(16, 3, 3, 3\), received \(16, 1, 3, 3\)\)\.$",
        ),
        (lambda s: s.clear(), r"Missing: block1\.layer\.0\.bn1\.bias, .* and \d+ more\.$"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(change, message):
    model = build_tiny("wrn")
    state = {name: np.ones_like(value) for name, value in torch_state(model).items()}
    change(state)
    before = model.get_weights()
    with pytest.raises(ArgumentError, match=message):
        models.load_torch_state(model, state)
    assert_same(before, model.get_weights())


def test_the_shape_of_a_grouped_convolution_is_reported():
    model = build_tiny("resnext")
    state = torch_state(model) | {"stage_1.0.conv_conv.weight": np.zeros((6, 6, 3, 3))}
    message = r"conv_conv\.weight \(expected \(6, 2, 3, 3\), received \(6, 6, 3, 3\)\)"
    with pytest.raises(ArgumentError, match=message):
        models.load_torch_state(model, state)


def test_absent_reference_data_skip_the_test(monkeypatch, tmp_path):
    monkeypatch.setenv("AUGMIX_GOLDEN", str(tmp_path))
    with pytest.raises(pytest.skip.Exception, match=r"no reference data jsd\.npz .* AUGMIX_GOLDEN"):
        golden.load("jsd")
