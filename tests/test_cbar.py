"""C-bar's corruptions: oracles, laws and refusals; no reference data needed."""

import numpy as np
import pytest
from scipy import ndimage

from augmix_tf import corruptions
from augmix_tf.corruptions import catalogue, distortions, patterns
from augmix_tf.corruptions.catalogue import CATALOGUE, Streams
from augmix_tf.errors import ArgumentError
from tests.test_corruptions import some_images

# At strength 0 they do nothing.
ADDED = ["single_frequency_greyscale", "cocentric_sine_waves", "plasma_noise", "brownish_noise"]
ADDED += ["checkerboard_cutout", "perlin_noise", "ripple", "lines"]


def square_images(count=3, side=24, seed=0):
    return some_images(count, side, side, seed)


def plan(name, images, strength, seed=0):
    streams, draw = Streams(seed, name, 1), CATALOGUE[name].draw
    return catalogue.draw_all(draw, streams, images, np.arange(len(images)), strength)


# Oracles


def test_waves_follow_their_formula_at_every_pixel():
    images = square_images(2, 16)
    draws = np.array([[0.3, -0.1], [2.0, 1.5]]), np.array([0.5, 4.0])
    got = patterns.single_frequency_greyscale(images, 2.5, draws)
    for image, (across, down), phase, result in zip(images, *draws, got, strict=True):
        for y, x in np.ndindex(16, 16):
            value = image[y, x] + 49 * np.sin(across * x + down * y + phase)
            assert np.abs(np.clip(value, 0, 255) - result[y, x]).max() < 1 + 1e-9


def test_bilinear_reading_equals_scipy_inside_and_is_0_far_outside():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(2, 9, 9, 3))
    y, x = rng.uniform(-1, 9, (2, 2, 9, 9))
    got = distortions.bilinear(values, y, x)
    for number, channel in np.ndindex(2, 3):
        padded = np.pad(values[number, ..., channel], 2)
        want = ndimage.map_coordinates(padded, [y[number] + 2, x[number] + 2], order=1)
        np.testing.assert_allclose(got[number, ..., channel], want, atol=1e-12)
    assert not distortions.bilinear(values, y - 20, x).any()
    assert not distortions.bilinear(values, y, x + 20).any()


@pytest.mark.parametrize("side", [16, 23])
def test_matrices_rotate_as_scipy_does(side, monkeypatch):
    images = square_images(2, side)
    with_matrices = [distortions.circular_motion_blur(images, v, ()) for v in (2.8, 10.0)]
    monkeypatch.setattr(distortions, "LARGEST_MATRIX_SIDE", 0)
    for strength, got in zip((2.8, 10.0), with_matrices, strict=True):
        want = distortions.circular_motion_blur(images, strength, ())
        np.testing.assert_array_equal(got, want)


def test_ripple_of_one_whole_pixel_moves_the_image():
    images = square_images(2, 20)
    # Endless waves: only the phase matters, and the sine is 1 down and 0 across.
    draws = np.full((2, 2), np.inf), np.array([[np.pi / 2, 0.0]] * 2)
    got = distortions.ripple(images, 20.0, draws)  # 20 pixels x 20 / 400
    np.testing.assert_array_equal(got[:, :-1], images[:, 1:])
    assert not got[:, -1].any()


def test_fields_have_their_spectrum_and_deviation():
    side = 32
    for is_brown in (False, True):
        amplitudes = patterns.spectrum(side, is_brown)
        phases = np.random.default_rng(0).uniform(0, 2 * np.pi, (200, side * side // 2))
        fields = patterns.field(phases, side, amplitudes)
        np.testing.assert_allclose(fields.std(axis=(1, 2)), 1)
        power = (np.abs(np.fft.fft2(fields)) ** 2).mean(axis=0)[1 : side // 2, 0]
        want = np.roll(amplitudes, (side // 2, side // 2), axis=(0, 1))[1 : side // 2, 0] ** 2
        np.testing.assert_allclose(power / power.sum(), want / want.sum(), rtol=0.5, atol=1e-3)


def test_lines_cover_the_pixels_that_they_pass():
    horizontal = list(patterns.line_pixels(4, 2, 4, 5))
    full = [(row, column) for row, column, covered in horizontal if covered == 1]
    assert full == [(4, 2), (4, 3), (4, 4), (4, 5)]
    assert list(patterns.line_pixels(3, 3, 3, 3)) == [(3, 3, 1.0)]
    for end in ((9, 3), (-2, 12), (-7, -7)):
        for row, column, covered in patterns.line_pixels(1, 2, *end):
            down, right = end[0] - 1, end[1] - 2
            off = abs(down * (column - 2) - right * (row - 1)) / np.hypot(down, right)
            assert covered == pytest.approx(max(0, 1 - off), abs=1e-9)


# Laws


@pytest.mark.parametrize("name", ADDED)
def test_strength_0_leaves_the_image(name):
    images = square_images(2, 21)
    got = CATALOGUE[name].apply(images, 0.0, plan(name, images, 0.0))
    np.testing.assert_array_equal(got, images)


@pytest.mark.parametrize("name", ["caustic_refraction", "circular_motion_blur"])
def test_strength_0_only_truncates(name):
    images = square_images(2, 21)
    got = CATALOGUE[name].apply(images, 0.0, plan(name, images, 0.0))
    assert np.isin(images - got, [0, 1]).all()


def test_blue_noise_blackens_whole_pixels_and_checkerboards_grey_them():
    images = np.maximum(square_images(20, 32), 1)
    grey = np.full(3, patterns.GREY)
    for name, value in (("blue_noise_sample", np.zeros(3)), ("checkerboard_cutout", grey)):
        got = corruptions.corrupt(images, name, 5, table="imagenet")
        is_value, is_kept = (got == value).all(axis=3), (got == images).all(axis=3)
        assert (is_value | is_kept).all()
        # Half of the squares can be chosen, 6 of 10 are.
        if name == "checkerboard_cutout":
            assert is_value.mean() == pytest.approx(0.3, abs=0.05)


# Tables and refusals


def test_images_get_the_other_table_where_theirs_lacks_the_corruption():
    for name, table in (("plasma_noise", "imagenet"), ("lines", "cifar")):
        for side in (24, 65):
            image = square_images(1, side)
            got = corruptions.corrupt(image, name, 2)
            np.testing.assert_array_equal(got, corruptions.corrupt(image, name, 2, table=table))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"images": some_images(1)}, "Expected square images; received 20x28 pixels for ripple"),
        ({"severity": 6}, "Expected an integer severity from 1 to 5; received 6"),
        ({"name": "riple"}, "Did you mean 'ripple'"),
        (
            {"table": "imagenet"},
            "Expected a corruption of the severity table 'imagenet'; "
            "received 'ripple', which only cifar has",
        ),
    ],
)
def test_malformed_requests_are_refused(arguments, message):
    sound = {"images": square_images(1), "name": "ripple", "severity": 1}
    with pytest.raises(ArgumentError, match=message):
        corruptions.corrupt(**sound | arguments)
