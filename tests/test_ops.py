"""Every operation has Pillow's exact values, in every way it is run."""

import functools
import hashlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from augmix_tf import ops
from augmix_tf.errors import ArgumentError
from augmix_tf.ops import packed
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
SIZES = [(24, 33), (17, 10), (2, 5), (1, 1)]


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


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", ops.OPERATIONS)
def test_equals_pillow(name, size):
    values = list(PARAMETERS[name])
    images = np.repeat(sample_images(*size), len(values), axis=0)
    parameters = values * (len(images) // len(values))
    got = ops.apply_op(name, images, parameters)
    np.testing.assert_array_equal(got, pillow(name, images, parameters))


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
@pytest.mark.parametrize("name", ops.OPERATIONS)
def test_equals_pillow_in_every_way_it_is_run(name, run):
    images = sample_images(17, 10)
    values = list(PARAMETERS[name])
    parameters = np.resize(np.asarray(values, np.float64), len(images))
    got = run(functools.partial(ops.apply_op, name), tf.constant(images), tf.constant(parameters))
    np.testing.assert_array_equal(got, pillow(name, images, parameters))


BOTH = pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])


@BOTH
@pytest.mark.parametrize("name", ["rotate", "shear_x", "shear_y"])
def test_equals_pillow_for_many_random_parameters(name, interpolation):
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (400, 17, 10, 3), np.uint8)
    span = 40 if name == "rotate" else 0.4
    parameters = rng.uniform(-span, span, len(images))
    got = ops.apply_op(name, images, parameters, 7, interpolation)
    np.testing.assert_array_equal(got, pillow(name, images, parameters, 7, interpolation))


@BOTH
def test_rotation_by_every_whole_degree_equals_pillow(interpolation):
    degrees = np.arange(-180, 181)
    images = np.repeat(sample_images(17, 10)[:1], len(degrees), axis=0)
    got = ops.apply_op("rotate", images, degrees, interpolation=interpolation)
    np.testing.assert_array_equal(got, pillow("rotate", images, degrees, 0, interpolation))


@pytest.mark.parametrize("name", ["rotate", "shear_x", "shear_y"])
def test_the_nearest_pixel_is_that_of_pillow(name):
    values = list(PARAMETERS[name])
    images = np.repeat(sample_images(64, 40), len(values), axis=0)
    parameters = values * (len(images) // len(values))
    got = ops.apply_op(name, images, parameters, interpolation="nearest")
    np.testing.assert_array_equal(got, pillow(name, images, parameters, 0, "nearest"))


@pytest.mark.parametrize("name", ["rotate", "shear_x", "shear_y", "translate_x", "translate_y"])
def test_pixels_from_outside_have_the_fill_value(name):
    images = sample_images(17, 10)
    parameters = [list(PARAMETERS[name])[3]] * len(images)
    got = ops.apply_op(name, images, parameters, fill=128)
    np.testing.assert_array_equal(got, pillow(name, images, parameters, fill=128))


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


def test_runs_chains_of_any_depth_on_any_image():
    images = sample_images(9, 14)
    rng = np.random.default_rng(2)
    chains, longest = 40, 5
    source = rng.integers(0, len(images), chains)
    operation = rng.integers(0, len(ops.OPERATIONS), (chains, longest))
    parameter = np.vectorize(lambda k: rng.choice(list(PARAMETERS[ops.OPERATIONS[k]])))(operation)
    depth = rng.integers(0, longest + 1, chains)
    got = run_chains(images, source, operation, parameter, depth)
    for chain in range(chains):
        want = images[source[chain]][None]
        for index in range(depth[chain]):
            name = ops.OPERATIONS[operation[chain, index]]
            want = pillow(name, want, parameter[chain, index : index + 1])
        np.testing.assert_array_equal(got[chain], want[0])


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


@pytest.mark.parametrize("records", ["32", "ns0", "ns1", "ns2", "ns3"])
def test_equals_the_original_code(records):
    reference = golden.load("augmix_ops")
    if records == "32":
        names, parameters, fills = reference["op32"], reference["param32"], reference["fill32"]
        images, outputs = reference["inputs32"][reference["index32"]], reference["outputs32"]
    else:
        names, parameters = reference[f"{records}_op"], reference[f"{records}_param"]
        outputs, fills = reference[f"{records}_outputs"], np.zeros(len(names), np.uint8)
        images = np.repeat(reference[f"{records}_input"][None], len(names), axis=0)
    for fill in np.unique(fills):
        rows = np.flatnonzero(fills == fill)
        got = run_each(images[rows], names[rows], parameters[rows], int(fill))
        for image, row in zip(got, rows, strict=True):
            np.testing.assert_array_equal(image, outputs[row], err_msg=f"{names[row]}, {fill}")


def test_equals_the_original_code_at_224():
    reference = golden.load("augmix_ops")
    images = reference["inputs224"][reference["index224"]]
    got = run_each(images, reference["op224"], reference["param224"]).numpy().astype(np.uint8)
    for image, name, want in zip(got, reference["op224"], reference["sha256_224"], strict=True):
        assert hashlib.sha256(image.tobytes()).hexdigest() == want, name
