"""C-bar's corruptions against the outputs of the authors' own functions."""

import hashlib

import numpy as np
import pytest

from augmix_tf import corruptions
from augmix_tf.corruptions import catalogue
from tests import golden

CIFAR, IMAGENET = corruptions.CBAR_BENCHMARKS["cifar"], corruptions.CBAR_BENCHMARKS["imagenet"]
LEAST_SEED = 1000  # seeds of inner streams are larger than all other draws


def replay(name, seed, image, severity, table):
    """Draws as the original did after `numpy.random.seed(seed)`, for one image."""
    draw = catalogue.CATALOGUE[name].draw
    setting = catalogue.setting_of(image[None], name, severity, table)
    return () if draw is None else draw(np.random.RandomState(int(seed)), image, setting)


def assert_drawn(drawn, data, prefix):
    """Compares draws with the stored ones: what the original drew, in its order, seeds left out."""
    keys = [key for key in data.files if key.startswith(f"{prefix}/")]
    outer = [key for key in keys if key.rpartition("/")[2][0].isdigit()]
    outer.sort(key=lambda key: int(key.rpartition("/")[2].partition("_")[0]))
    stored = [data[key] for key in outer if data[key].max() < LEAST_SEED]
    if "single_frequency" in prefix:  # the permutation is of the first two draws
        first, second, order, phase = stored
        stored = [np.array([first, second])[order], phase]
    stored += [data[key] for key in keys if key.endswith(("/inner", "/choice"))]
    assert len(stored) == len(drawn) or prefix.startswith("full/")  # without inner draws
    for got, want in zip(drawn, stored, strict=False):
        if got.size > want.size:  # filled up with zeros behind the number that was drawn
            got = got[got != 0]
        np.testing.assert_array_equal(np.ravel(got), np.ravel(want))


def corrupted(image, name, severity, drawn, table):
    return corruptions.apply(image[None], name, severity, catalogue.stack([drawn]), table)[0]


@pytest.mark.parametrize("name", CIFAR)
def test_cifar_equals_the_original(name):
    data = golden.load("cbar_cifar")
    images, row = data["inputs"], data["corruptions"].tolist().index(name)
    assert catalogue.TABLES["cifar"][name] == tuple(data["severity_values"][row])
    for severity in corruptions.SEVERITIES:
        seeds = data["seeds"][:, row, severity - 1]
        plan = [replay(name, s, i, severity, "cifar") for s, i in zip(seeds, images, strict=True)]
        for number, drawn in enumerate(plan):
            assert_drawn(drawn, data, f"{name}/s{severity}/i{number}")
        got = corruptions.apply(images, name, severity, catalogue.stack(plan), "cifar")
        np.testing.assert_array_equal(got, data["outputs"][:, row, severity - 1])


@pytest.mark.parametrize("name", IMAGENET)
def test_imagenet_equals_the_original(name):
    data = golden.load("cbar_imagenet")
    images, row = data["inputs64"], data["corruptions"].tolist().index(name)
    assert catalogue.TABLES["imagenet"][name] == tuple(data["severity_values"][row])
    for column, severity in enumerate(corruptions.SEVERITIES):
        for number, image in enumerate(images):
            seed = data["seeds64"][number, row, column]
            drawn = replay(name, seed, image, severity, "imagenet")
            assert_drawn(drawn, data, f"small/{name}/s{severity}/i{number}")
            got = corrupted(image, name, severity, drawn, "imagenet")
            np.testing.assert_array_equal(got, data["outputs64"][number, row, column])
        image = data["input224"]
        drawn = replay(name, data["seeds224"][row, column], image, severity, "imagenet")
        assert_drawn(drawn, data, f"full/{name}/s{severity}/i0")
        got = corrupted(image, name, severity, drawn, "imagenet")
        for patch, corner in zip(
            data["patches224"][row, column], data["patch_corners_yx"], strict=True
        ):
            np.testing.assert_array_equal(patch_at(got, corner), patch)
        np.testing.assert_allclose(got.mean((0, 1)), data["channel_means224"][row, column], 1e-12)
        assert hashlib.sha256(got.tobytes()).hexdigest() == data["sha256_224"][row, column]


def patch_at(image, corner):
    y, x = corner
    return image[y : y + 48, x : x + 48]


@pytest.mark.parametrize(
    ("file", "table"), [("cbar_cifar", "cifar"), ("cbar_imagenet", "imagenet")]
)
def test_odd_sides_equal_the_original(file, table):
    data = golden.load(file)
    image = data["odd33/input"]
    names = [key.split("/")[1] for key in data.files if key.endswith("/seed") and "odd33" in key]
    assert names
    for name in names:
        drawn = replay(name, data[f"odd33/{name}/seed"], image, 3, table)
        assert_drawn(drawn, data, f"odd33/{name}")
        got = corrupted(image, name, 3, drawn, table)
        np.testing.assert_array_equal(got, data[f"odd33/{name}/output"], err_msg=name)


def test_a_gradient_of_length_zero_turns_perlin_noise_black():
    data = golden.load("cbar_imagenet")
    image, want = (data[f"perlin_zero_gradient/{key}"] for key in ("image", "output"))
    strength = float(data["perlin_zero_gradient/severity"])
    severity = 1 + catalogue.TABLES["imagenet"]["perlin_noise"].index(strength)
    stream = np.random.RandomState(int(data["perlin_zero_gradient/seed"]))
    drawn = (stream.randint(0, 2**31, 1284),)
    got = corrupted(image, "perlin_noise", severity, drawn, "imagenet")
    assert (want == 0).any()
    np.testing.assert_array_equal(got, want)


def test_images_of_224_pixels_have_25_twirls():
    data = golden.load("cbar_imagenet")
    strength = float(data["pinch224/severity_value"])
    severity = 1 + catalogue.TABLES["cifar"]["pinch_and_twirl"].index(strength)
    drawn = (data["pinch224/choice"],)
    got = corrupted(data["input224"], "pinch_and_twirl", severity, drawn, "cifar")
    for patch, corner in zip(data["pinch224/patches"], data["patch_corners_yx"], strict=True):
        np.testing.assert_array_equal(patch_at(got, corner), patch)
    assert hashlib.sha256(got.tobytes()).hexdigest() == data["pinch224/sha256"]
