"""Every operation has Pillow's exact values, in every way it is run."""

import functools
import hashlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from augmix_tf import ops
from augmix_tf.errors import ArgumentError
from augmix_tf.ops import geometric, packed
from tests import golden
from tests.oracles import pillow_augmix
from tests.runs import RUNS

PARAMETERS = {
    "autocontrast": [0.0],
    "equalize": [0.0],
    "posterize": range(1, 9),
    "rotate": [0, 1, -1, 7, -9, 30, -30, 45, 90, -90, 133, 180, 270, 360, 12.34, -5.6],
    "solarize": [0, 1, 127, 128, 180, 254, 255, 256],
    "shear_x": [0.0, 0.003, -0.003, 0.03, 0.0871, -0.09, 0.1, 0.2, -0.25, 0.3, 0.5, -1.5],
    "shear_y": [0.0, 0.003, -0.003, 0.03, 0.0871, -0.09, 0.1, 0.2, -0.25, 0.3, 0.5, -1.5],
    "translate_x": [0, 1, -1, 3, -3, 10, -10, 500],
    "translate_y": [0, 1, -1, 3, -3, 10, -10, 500],
    "color": [0.0, 0.118, 0.28, 0.5, 0.64, 0.99, 1.0, 1.5, 1.9],
    "contrast": [0.0, 0.118, 0.28, 0.5, 0.64, 0.99, 1.0, 1.5, 1.9],
    "brightness": [0.0, 0.118, 0.28, 0.5, 0.64, 0.99, 1.0, 1.5, 1.9],
    "sharpness": [0.0, 0.118, 0.28, 0.5, 0.64, 0.99, 1.0, 1.5, 1.9],
}


def sample_images(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Noise, narrow noise, a gradient, two values, one value, and the extremes."""
    rng = np.random.default_rng(seed)
    shape = (height, width, 3)
    ramp = np.linspace(0, 255, height * width * 3).reshape(shape)
    return np.stack(
        [
            rng.integers(0, 256, shape),
            rng.integers(90, 131, shape),
            rng.normal(128, 20, shape).clip(0, 255),
            ramp,
            np.where(rng.random(shape) < 0.3, 255, 0),
            np.full(shape, 77),
            np.zeros(shape),
            np.full(shape, 255),
        ]
    ).astype(np.uint8)


def pillow(
    name: str, images: np.ndarray, parameters, fill: int = 0, interpolation: str = "bilinear"
) -> np.ndarray:
    resample = Image.Resampling[interpolation.upper()]
    calls = zip(map(Image.fromarray, images), parameters, strict=True)
    return np.stack(
        [pillow_augmix.apply_op(image, name, value, fill, resample) for image, value in calls]
    )


def all_values(name: str, images: np.ndarray) -> tuple[np.ndarray, list]:
    """Each image with each of the operation's parameters."""
    values = list(PARAMETERS[name])
    return np.repeat(images, len(values), axis=0), values * len(images)


@pytest.mark.parametrize("name", ops.OPERATIONS)
def test_equals_pillow(name):
    images, parameters = all_values(name, sample_images(17, 10))
    got = ops.apply_op(name, images, parameters)
    np.testing.assert_array_equal(got, pillow(name, images, parameters))


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
@pytest.mark.parametrize("name", ["equalize", "rotate"])
def test_equals_pillow_in_every_way_it_is_run(name, run):
    images, parameters = all_values(name, sample_images(17, 10))
    parameters = np.asarray(parameters, np.float64)
    got = run(functools.partial(ops.apply_op, name), tf.constant(images), tf.constant(parameters))
    np.testing.assert_array_equal(got, pillow(name, images, parameters))


@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
@pytest.mark.parametrize("name", ["rotate", "shear_x", "shear_y", "translate_x", "translate_y"])
def test_equals_pillow_for_many_parameters_and_another_fill_value(name, interpolation):
    images, parameters = all_values(name, sample_images(64, 40))
    if name == "rotate":
        more = np.arange(-180, 181)
    else:
        span = 0.4 if "shear" in name else 40
        more = np.random.default_rng(1).uniform(-span, span, 400)
        more = more if "shear" in name else more.round()
    images = np.concatenate([images, np.repeat(images[:1], len(more), axis=0)])
    parameters = np.concatenate([parameters, more])
    got = ops.apply_op(name, images, parameters, 7, interpolation)
    np.testing.assert_array_equal(got, pillow(name, images, parameters, 7, interpolation))


def test_a_product_is_rounded_before_it_is_added():
    """A fused multiply-add would give 16 more here; Pillow's build has none."""
    factor = tf.constant(1.0 + 2.0**-30, tf.float64)
    run = tf.function(lambda a, b: packed.rounded(a * a) + b, jit_compile=True)
    want = float(factor) * float(factor) + float(-factor - 2.0**-30)
    assert float(run(factor, -factor - 2.0**-30)) == want


def run_chains(images, source, operation, parameter, depth, fill=0) -> np.ndarray:
    """Chains as AugMix runs them: all operations in one program."""
    run = tf.function(
        lambda images, *plan: packed.unpack(ops.run_chains(images, *plan, fill)), jit_compile=True
    )
    plan = zip((source, operation, parameter, depth), "iidi", strict=True)
    return run(packed.pack(tf.constant(images)), *(np.asarray(part, kind) for part, kind in plan))


@pytest.mark.parametrize("size", [(9, 14), (1, 1)], ids=str)
def test_runs_each_operation_and_chains_of_any_depth_on_any_image(size):
    images, longest = sample_images(*size), 5
    calls = [(k, value) for k, name in enumerate(ops.OPERATIONS) for value in PARAMETERS[name]]
    rng = np.random.default_rng(2)
    chosen = np.array(calls)[rng.integers(0, len(calls), (40, longest))]
    # Each call alone on each image, then random chains.
    chosen = np.concatenate([np.repeat(calls, longest, 0).reshape(-1, longest, 2)] * 8 + [chosen])
    count = 8 * len(calls)
    source = np.concatenate([np.repeat(range(8), len(calls)), rng.integers(0, 8, 40)])
    depth = np.concatenate([np.ones(count, int), rng.integers(0, longest + 1, 40)])
    got = run_chains(images, source, chosen[..., 0], chosen[..., 1], depth)
    for result, row, chain, calls in zip(got.numpy(), source, chosen, depth, strict=True):
        want = images[row][None]
        for operation, value in chain[:calls]:
            want = pillow(ops.OPERATIONS[int(operation)], want, [value])
        np.testing.assert_array_equal(result, want[0])


def run_each(images, names, parameters, fill=0) -> np.ndarray:
    """Each image by the operation of this name."""
    operation = [[ops.OPERATIONS.index(name)] for name in names]
    parameters = np.nan_to_num(parameters)[:, None]
    rows = range(len(images))
    return run_chains(images, rows, operation, parameters, np.ones(len(images)), fill)


def test_refuses_unknown_names_and_other_types():
    images = sample_images(4, 4)
    with pytest.raises(ArgumentError, match="Did you mean 'rotate'"):
        ops.apply_op("rotat", images, [0.0] * len(images))
    with pytest.raises(ArgumentError, match="interpolation 'bicubic'"):
        ops.apply_op("rotate", images, [0.0] * len(images), interpolation="bicubic")
    with pytest.raises(ArgumentError, match="received float32"):
        ops.apply_op("rotate", images.astype(np.float32), [0.0] * len(images))
    with pytest.raises(ArgumentError, match=r"received uint8 \(4, 4, 3\)"):
        ops.apply_op("rotate", images[0], [0.0])


@pytest.mark.parametrize("fill", [0, 128])
def test_equals_the_original_code(fill):
    reference = golden.load("augmix_ops")
    rows = np.flatnonzero(reference["fill32"] == fill)
    images, outputs = reference["inputs32"][reference["index32"][rows]], reference["outputs32"]
    names, parameters = reference["op32"][rows], reference["param32"][rows]
    np.testing.assert_array_equal(run_each(images, names, parameters, fill), outputs[rows])


@pytest.mark.parametrize("number", range(4))
def test_equals_the_original_code_on_other_sizes(number):
    reference = golden.load("augmix_ops")
    image, names, parameters, outputs = (
        reference[f"ns{number}_{part}"] for part in ("input", "op", "param", "outputs")
    )
    images = np.repeat(image[None], len(names), axis=0)
    np.testing.assert_array_equal(run_each(images, names, parameters), outputs)


def test_equals_the_original_code_at_224():
    reference = golden.load("augmix_ops")
    images = reference["inputs224"][reference["index224"]]
    got = run_each(images, reference["op224"], reference["param224"]).numpy().astype(np.uint8)
    for image, name, want in zip(got, reference["op224"], reference["sha256_224"], strict=True):
        assert hashlib.sha256(image.tobytes()).hexdigest() == want, name


def test_rotations_in_a_plain_graph_equal_pillow():
    """TensorFlow's graphs reorder sums, and where sides are odd a centre lies on a pixel."""
    image = np.random.default_rng(0).integers(0, 256, (17, 31, 3), np.uint8)
    angles = np.array([2.0, -26.691202360015907, -13.501837925637714, 7.25, -45.0])
    rotate = tf.function(
        lambda degrees: packed.unpack(geometric.rotate(packed.pack(image), degrees)),
        autograph=False,
        input_signature=[tf.TensorSpec([], tf.float64)],
    )
    for degrees in angles:
        want = Image.fromarray(image).rotate(degrees, Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(rotate(degrees), np.asarray(want), err_msg=str(degrees))
