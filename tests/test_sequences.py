"""Perturbation sequences: the authors' frames, independent oracles, laws and refusals."""

import math

import numpy as np
import pytest

from augmix_tf import corruptions
from augmix_tf.corruptions import catalogue, sequences
from augmix_tf.errors import ArgumentError
from tests import golden
from tests.oracles import loop_corruptions as loops
from tests.test_corruptions import some_images
from tests.test_corruptions_golden import SAME_OPENCV, TOLERANCE

NAMES = corruptions.PERTURBATIONS + corruptions.EXTRA_PERTURBATIONS
ALL_NAMES = NAMES + corruptions.HARDER_PERTURBATIONS
LARGE_FRAMES = {"translate": 41}


def golden_draws(data, name, images, setting):
    """The stored draws, or, where only some are stored, all of them replayed and checked."""
    kind = sequences.CATALOGUE[name[:-2] if name in corruptions.HARDER_PERTURBATIONS else name]
    if kind.draw is None:
        return ()
    stored = [next(data[k] for k in data if k.startswith(f"{name}/i{i}/")) for i in range(3)]
    if name.startswith("gaussian_noise"):  # torch drew them
        return (np.stack(stored),)
    column = "perturbations" if name in NAMES else "harder"
    seeds = data["seeds" if name in NAMES else "harder_seeds"]
    number = data[column].tolist().index(name)
    plan = []
    for image, row, want in zip(images, seeds[:, number], stored, strict=True):
        (drawn,) = kind.draw(np.random.RandomState(row), image, setting)
        np.testing.assert_array_equal(drawn[: len(want)], want)
        plan.append((drawn,))
    return catalogue.stack(plan)


@pytest.mark.parametrize("name", ALL_NAMES)
def test_cifar_frames_equal_the_original(name):
    data = golden.load("sequences_cifar")
    images = data["inputs"]
    setting = sequences.TABLES["cifar"][name]
    draws = golden_draws(data, name, images, setting)
    kind = sequences.CATALOGUE[name[:-2] if name in corruptions.HARDER_PERTURBATIONS else name]
    fixed = name == "tilt" and not SAME_OPENCV  # at 1/32 pixels
    want = data[f"{name}/frames_fixed_point" if fixed else f"{name}/frames"]
    got = kind.apply(images, setting, draws)[:, : want.shape[1]].astype(int)
    tolerance = TOLERANCE.get(name, 0)
    np.testing.assert_allclose(got, want, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", ALL_NAMES)
@pytest.mark.parametrize("table", ["cifar", "imagenet"])
def test_any_subset_and_order_gives_the_same_frames(name, table, monkeypatch):
    images = some_images(4)
    want = corruptions.perturb(images, name, seed=3, table=table)
    counts = {"motion_blur": 21, "translate": 16} if table == "cifar" else LARGE_FRAMES
    assert want.shape == (4, counts.get(name, 31), 20, 28, 3)
    assert want.dtype == np.uint8
    assert corruptions.perturb(images[:0], name, table=table).shape == (0, *want.shape[1:])
    monkeypatch.setattr(catalogue, "CHUNK_PIXELS", 1)
    order = np.array([3, 0])
    got = corruptions.perturb(images[order], name, seed=3, ids=order, table=table)
    np.testing.assert_array_equal(got, want[order])


def test_rotation_is_clockwise_about_pixel_16_16():
    images = some_images(2, 32, 32)
    (got,) = np.moveaxis(sequences.affine_frames("angle_degrees", images, [90.0], ()), 1, 0)
    want = np.rot90(images[:, 1:, 1:], -1, axes=(1, 2)).astype(int)
    assert np.abs(got[:, 1:, 1:] - want).max() <= 1  # cosine of 90 degrees is not quite 0
    assert not got[:, :, 0].any()  # what came from outside


@pytest.mark.parametrize(
    "pose",
    [{"angle_degrees": 11.0}, {"scale": 0.7}, {"scale": 1.3}, {"shear_degrees": -9.0}],
)
def test_affine_follows_its_matrix(pose):
    (image,) = some_images(1, 18, 24)
    a, b, c, d, e, f = sequences.inverse_affine(24, 18, **pose)

    def reads(x, y):  # pixel k of Pillow covers [k, k + 1)
        x, y = x + 0.5, y + 0.5
        return a * x + b * y + c - 0.5, d * x + e * y + f - 0.5

    got = sequences.affine(image[None], (a, b, c, d, e, f))[0].astype(int)
    want = np.floor(loops.resample(image, reads))
    # Pillow repeats the edge inside the image's outermost half pixel.
    inside = [
        [0.5 <= reads(x, y)[0] < 22.5 and 0.5 <= reads(x, y)[1] < 16.5 for x in range(24)]
        for y in range(18)
    ]
    assert np.abs(got - want)[np.array(inside)].max() <= 1
    assert (got != want)[np.array(inside)].mean() < 0.01


@pytest.mark.parametrize("angle", [-11.25, 0.0, 7.5])
def test_tilt_follows_its_perspective(angle):
    (image,) = some_images(1, 18, 24)
    inverse = np.linalg.inv(sequences.tilt_matrix(24, 18, angle))

    def reads(x, y):
        u, v, w = inverse @ (x, y, 1)
        return u / w, v / w

    got = sequences.warp_tilt(image[None], angle)[0]
    far = np.abs(got - loops.resample(image, reads))
    assert far.max() <= (1 if SAME_OPENCV else 16)
    # At depth f + 1 the image is smaller by f / (f + 1), about the centre.
    focal = math.hypot(24, 18)
    middle = np.linalg.inv(inverse) @ (13, 9, 1)
    if angle == 0:
        assert middle[0] / middle[2] == pytest.approx(12 + focal / (focal + 1))


def test_translate_shifts_whole_pixels_and_fills_with_black():
    images = some_images(2)
    got = corruptions.perturb(images, "translate")
    np.testing.assert_array_equal(got[:, 7], images)
    np.testing.assert_array_equal(got[:, 0, :, :-7], images[:, :, 7:])
    np.testing.assert_array_equal(got[:, 15, :, 8:], images[:, :, :-8])
    assert not got[:, 0, :, -7:].any()
    assert not got[:, 15, :, :8].any()


def test_crop_brings_real_surroundings_into_view():
    images = some_images(2, 60, 72)
    got = corruptions.perturb(images, "translate", table="imagenet", crop=32)
    for i in (0, 20, 40):
        np.testing.assert_array_equal(got[:, i], images[:, 14:46, 40 - i : 72 - i])
    noisy = corruptions.perturb(images, "speckle_noise", crop=32)
    centre = np.ascontiguousarray(images[:, 14:46, 20:52])
    np.testing.assert_array_equal(noisy, corruptions.perturb(centre, "speckle_noise"))


@pytest.mark.parametrize("name", ["rotate", "scale", "shear"])
def test_the_middle_frame_is_the_image(name):
    images = some_images(2)
    np.testing.assert_array_equal(corruptions.perturb(images, name)[:, 15], images)


@pytest.mark.parametrize("noise", ["gaussian_noise", "shot_noise", "speckle_noise"])
@pytest.mark.parametrize("table", ["cifar", "imagenet"])
def test_noise_frames_are_independent_and_grow_with_difficulty(noise, table):
    images = np.full((1, 64, 64, 3), 128, np.uint8)
    spreads = []
    for name in (noise, f"{noise}_2", f"{noise}_3"):
        got = corruptions.perturb(images, name, table=table)[0] / 255.0
        np.testing.assert_array_equal(got[0], images[0] / 255.0)
        first, second = got[1] - got[1].mean(), got[2] - got[2].mean()
        assert abs((first * second).mean()) < 6 * first.std() ** 2 / math.sqrt(first.size)
        constant = sequences.TABLES[table][name]
        light = 128 / 255
        sigma = {
            "gaussian_noise": constant,
            "speckle_noise": constant * light,
            "shot_noise": math.sqrt(light / constant),
        }
        # Truncation to 8 bits adds 1/sqrt(12) level.
        want = math.hypot(sigma[noise], 1 / 255 / math.sqrt(12))
        assert got[1:].std() == pytest.approx(want, rel=0.03)
        spreads.append(got[1:].std())
    assert spreads == sorted(spreads)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "rotat"}, "Unknown perturbation 'rotat'. Did you mean 'rotate'"),
        ({"crop": 21}, "Expected an integer crop from 16 to 20; received 21"),
        ({"ids": [4, 4]}, r"Expected unique ids; received \[4\] repeated"),
    ],
)
def test_malformed_requests_are_refused(arguments, message):
    sound = {"images": some_images(2), "name": "rotate"}
    with pytest.raises(ArgumentError, match=message):
        corruptions.perturb(**sound | arguments)


def test_zoom_blur_is_the_running_mean():
    images = some_images(1, 18, 24)
    got = corruptions.perturb(images, "zoom_blur")[0].astype(int)
    moved = [images[0] / 255.0]
    for i in range(1, 31):
        matrix = sequences.inverse_affine(24, 18, scale=1 + 0.004 * i)
        moved.append(sequences.affine(images, matrix)[0] / 255.0)
        want = np.floor(np.mean(moved, axis=0) * 255)
        assert np.abs(got[i] - want).max() <= 1
    np.testing.assert_array_equal(got[0], images[0])


def test_motion_blur_turns_by_9_degrees():
    images = some_images(1, 16, 18)
    got = corruptions.perturb(images, "motion_blur")[0]
    for i in (0, 7, 20):
        want = loops.motion_blur(images[0], 6, 1.8, 9 * (i - 20))
        np.testing.assert_array_equal(got[i], want)


def test_brightness_adds_to_the_value():
    images = some_images(1, 16, 17)
    got = corruptions.perturb(images, "brightness")[0].astype(int)
    for i in (0, 15, 30):
        change = 1.5 * (i - 15) / 100
        want = loops.through_hsv(images[0], lambda h, s, v, c=change: (h, s, min(max(v + c, 0), 1)))
        assert np.abs(got[i] - want).max() <= 1
