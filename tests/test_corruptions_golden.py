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
TOLERANCE = {
    "elastic_transform": 0 if SAME_OPENCV else 2,
    "gaussian_blur": 0 if SAME_EXP else 1,
    "jpeg_compression": 0 if SAME_JPEG else 50,
}


def replay(name, seed, image, setting):
    """Draws as the original script did after `numpy.random.seed(seed)`."""
    draw = catalogue.CATALOGUE[name].draw
    if name == "frost" or draw is None:
        return ()
    # Salt and pepper come from scikit-image, which has a generator of its own.
    make = np.random.default_rng if name == "impulse_noise" else np.random.RandomState
    return draw(make(seed), image, setting)


def stored_draws(draws, name, severity, image):
    keys = [key for key in draws if key.startswith(f"{name}/s{severity}/i{image}/")]
    if name == "frost":
        return (draws[f"frost/s{severity}/i{image}/crop"],)
    return tuple(draws[k] for k in sorted(keys, key=lambda k: int(k.split("/")[-1].split("_")[0])))


@pytest.mark.parametrize("severity", corruptions.SEVERITIES)
@pytest.mark.parametrize("name", NAMES)
def test_cifar_equals_the_original(name, severity):
    data = golden.load("corruptions_cifar")
    draws = golden.load("corruptions_cifar_draws")
    images = data["inputs"]
    number = data["corruptions"].tolist().index(name)
    setting = catalogue.setting_of(images, name, severity)
    plan = []
    for i, image in enumerate(images):
        stored = stored_draws(draws, name, severity, i)
        drawn = replay(name, int(data["seeds"][i, number, severity - 1]), image, setting)
        if name == "fog":
            plan.append(drawn)  # stored level by level: the outputs hold the draws to account
            continue
        plan.append(stored)
        for got, want in zip(drawn, stored, strict=name != "frost"):
            np.testing.assert_array_equal(got, want)
    got = corruptions.apply(images, name, severity, catalogue.stack(plan))
    want = data["outputs"][:, number, severity - 1].astype(int)
    np.testing.assert_allclose(got, want, rtol=0, atol=TOLERANCE.get(name, 0))


@pytest.mark.parametrize("severity", [1, 3, 5])
@pytest.mark.parametrize("name", [name for name in NAMES if name != "frost"])
def test_imagenet_equals_the_original(name, severity):
    data = golden.load("corruptions_imagenet")
    images = data["input"][None]
    row, column = data["corruptions"].tolist().index(name), (severity - 1) // 2
    setting = catalogue.setting_of(images, name, severity)
    drawn = replay(name, int(data["seeds"][row, column]), images[0], setting)
    got = corruptions.apply(images, name, severity, catalogue.stack([drawn]))[0]
    tolerance = TOLERANCE.get(name, 0)
    for patch, (y, x) in zip(data["patches"][row, column], data["patch_corners_yx"], strict=True):
        piece = got[y : y + 48, x : x + 48].astype(int)
        np.testing.assert_allclose(piece, patch, rtol=0, atol=tolerance)
    if not tolerance:
        assert hashlib.sha256(got.tobytes()).hexdigest() == data["sha256"][row, column]


@pytest.mark.parametrize("severity", [1, 3, 5])
def test_imagenet_frost_equals_the_original_on_the_stored_windows(severity):
    data = golden.load("corruptions_imagenet")
    row, column = data["corruptions"].tolist().index("frost"), (severity - 1) // 2
    windows = np.stack([data["input"][y : y + 48, x : x + 48] for y, x in data["patch_corners_yx"]])
    pieces = data[f"frost_crop_patches_s{severity}"]
    got = corruptions.apply(windows, "frost", severity, (pieces,), table="imagenet")
    np.testing.assert_array_equal(got, data["patches"][row, column])


def test_seeded_corruptions_are_the_known_ones():
    data = golden.load("corruptions_imagenet")
    names, deterministic = data["corruptions"].tolist(), data["deterministic"]
    assert sorted(SEEDED) == sorted(n for n, d in zip(names, deterministic, strict=True) if not d)
