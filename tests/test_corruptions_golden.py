"""Corruptions against the outputs of the authors' own functions."""

import hashlib

import cv2
import numpy as np
import PIL
import pytest
from PIL import features

from augmix_tf import corruptions
from augmix_tf.corruptions import catalogue
from tests import golden

NAMES = corruptions.CORRUPTIONS + corruptions.EXTRA_CORRUPTIONS
SEEDED = [name for name in NAMES if catalogue.CATALOGUE[name].draw]
# The reference was made with numpy 2, OpenCV 5 and libjpeg-turbo 3.2; others round differently.
SAME_EXP = int(np.__version__.split(".")[0]) >= 2  # in Gaussian kernels
SAME_OPENCV = int(cv2.__version__.split(".")[0]) >= 5
SAME_JPEG = features.version("libjpeg_turbo") == "3.2.0" and PIL.__version__ >= "13"
CIFAR, IMAGENET = corruptions.CBAR_BENCHMARKS["cifar"], corruptions.CBAR_BENCHMARKS["imagenet"]
LEAST_SEED = 1000  # seeds of inner streams are larger than all other draws
TOLERANCE = {
    "elastic_transform": 0 if SAME_OPENCV else 2,
    "gaussian_blur": 0 if SAME_EXP else 1,
    "jpeg_compression": 0 if SAME_JPEG else 50,
}


def replay(name, seed, image, severity, table=None):
    """Draws as the original did after `numpy.random.seed(seed)`, for one image."""
    draw = catalogue.CATALOGUE[name].draw
    if name == "frost" or draw is None:
        return ()
    # Salt and pepper come from scikit-image, which has a generator of its own.
    make = np.random.default_rng if name == "impulse_noise" else np.random.RandomState
    return draw(make(int(seed)), image, catalogue.setting_of(image[None], name, severity, table))


def corrupted(image, name, severity, drawn, table=None):
    return corruptions.apply(image[None], name, severity, catalogue.stack([drawn]), table)[0]


def patches(image, corners):
    return np.stack([image[y : y + 48, x : x + 48] for y, x in corners])


def digest(image):
    return hashlib.sha256(image.tobytes()).hexdigest()


def stored_draws(draws, name, severity, image):
    keys = [key for key in draws if key.startswith(f"{name}/s{severity}/i{image}/")]
    if name == "frost":
        return (draws[f"frost/s{severity}/i{image}/crop"],)
    return tuple(draws[k] for k in sorted(keys, key=lambda k: int(k.split("/")[-1].split("_")[0])))


@pytest.mark.parametrize("name", NAMES)
def test_cifar_equals_the_original(name):
    data, draws = golden.load("corruptions_cifar"), golden.load("corruptions_cifar_draws")
    images, number = data["inputs"], data["corruptions"].tolist().index(name)
    for severity in corruptions.SEVERITIES:
        plan = []
        for i, image in enumerate(images):
            drawn = replay(name, data["seeds"][i, number, severity - 1], image, severity)
            # Fog's are stored level by level: the outputs hold them to account.
            plan.append(drawn if name == "fog" else stored_draws(draws, name, severity, i))
            for got, want in zip(drawn, plan[-1], strict=name != "frost"):
                np.testing.assert_array_equal(got, want)
        got = corruptions.apply(images, name, severity, catalogue.stack(plan))
        want = data["outputs"][:, number, severity - 1].astype(int)
        np.testing.assert_allclose(got, want, rtol=0, atol=TOLERANCE.get(name, 0))


@pytest.mark.parametrize("name", [name for name in NAMES if name != "frost"])
def test_imagenet_equals_the_original(name):
    data = golden.load("corruptions_imagenet")
    image, row = data["input"], data["corruptions"].tolist().index(name)
    tolerance = TOLERANCE.get(name, 0)
    for column, severity in enumerate((1, 3, 5)):
        drawn = replay(name, data["seeds"][row, column], image, severity)
        got = corrupted(image, name, severity, drawn)
        pieces = patches(got, data["patch_corners_yx"]).astype(int)
        np.testing.assert_allclose(pieces, data["patches"][row, column], rtol=0, atol=tolerance)
        assert tolerance or digest(got) == data["sha256"][row, column]


def test_imagenet_frost_equals_the_original_on_the_stored_windows():
    data = golden.load("corruptions_imagenet")
    row = data["corruptions"].tolist().index("frost")
    windows = patches(data["input"], data["patch_corners_yx"])
    for column, severity in enumerate((1, 3, 5)):
        pieces = data[f"frost_crop_patches_s{severity}"]
        got = corruptions.apply(windows, "frost", severity, (pieces,), table="imagenet")
        np.testing.assert_array_equal(got, data["patches"][row, column])


def test_seeded_corruptions_are_the_known_ones():
    data = golden.load("corruptions_imagenet")
    names, deterministic = data["corruptions"].tolist(), data["deterministic"]
    assert sorted(SEEDED) == sorted(n for n, d in zip(names, deterministic, strict=True) if not d)


# C-bar


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


@pytest.mark.parametrize("name", CIFAR)
def test_cifar_c_bar_equals_the_original(name):
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
def test_imagenet_c_bar_equals_the_original(name):
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
        pieces = patches(got, data["patch_corners_yx"])
        np.testing.assert_array_equal(pieces, data["patches224"][row, column])
        np.testing.assert_allclose(got.mean((0, 1)), data["channel_means224"][row, column], 1e-12)
        assert digest(got) == data["sha256_224"][row, column]


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
    pieces = patches(got, data["patch_corners_yx"])
    np.testing.assert_array_equal(pieces, data["pinch224/patches"])
    assert digest(got) == data["pinch224/sha256"]
