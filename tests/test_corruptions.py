"""Corruptions: independent oracles, laws and refusals; no reference data needed."""

import hashlib
import io

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from augmix_tf import corruptions
from augmix_tf.corruptions import blur, catalogue, digital, distortions, patterns, weather
from augmix_tf.corruptions.catalogue import CATALOGUE, Streams
from augmix_tf.errors import ArgumentError
from tests.arrays import assert_same
from tests.oracles import loop_corruptions as loops
from tests.processes import python

NAMES = (*corruptions.CORRUPTIONS, *corruptions.EXTRA_CORRUPTIONS, "frost_synthetic")
HERE = [name for name in NAMES if name != "frost"]  # need no photographs
ALL = [*HERE, *corruptions.CBAR_CORRUPTIONS]
KEEPS_AXES = ["defocus_blur", "gaussian_blur", "zoom_blur", "contrast", "brightness"]
KEEPS_FLAT = ["glass_blur", "motion_blur", "elastic_transform", "pixelate", "jpeg_compression"]
KEEPS_FLAT += KEEPS_AXES[:-1]


def some_images(count=3, height=20, width=28, seed=0):
    """Noise over smooth gradients, with 0 and 255 in it; wider than high, so that swaps show."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0, 255, width) + np.linspace(0, 90, height)[:, None]
    noise = rng.normal(scale=40, size=(count, height, width, 3))
    return np.clip(ramp[..., None] + noise - 30, 0, 255).astype(np.uint8)


def images_for(name, count):
    """Square where the corruption needs it."""
    return some_images(count, *((32, 32) if name in corruptions.CBAR_CORRUPTIONS else (20, 28)))


def grey(level, count=4, side=64):
    return np.full((count, side, side, 3), level, np.uint8)


@pytest.mark.parametrize("name", ALL)
def test_any_subset_order_and_chunk_gives_the_same_bytes(name, monkeypatch):
    images = images_for(name, 5)
    want = corruptions.corrupt(images, name, 3, seed=7)
    order = np.array([4, 1, 2])
    np.testing.assert_array_equal(
        corruptions.corrupt(images[order], name, 3, seed=7, ids=order), want[order]
    )
    monkeypatch.setattr(catalogue, "CHUNK_PIXELS", 1)
    np.testing.assert_array_equal(corruptions.corrupt(images, name, 3, seed=7), want)
    assert corruptions.corrupt(images[:0], name, 1).shape == (0, *images.shape[1:])


@pytest.mark.parametrize("name", [n for n in ALL if CATALOGUE[n].draw])
def test_seed_severity_and_id_change_the_draw(name):
    images = np.repeat(images_for(name, 1), 8, axis=0)
    first = corruptions.corrupt(images, name, 5, seed=1)
    assert len(np.unique(first.reshape(8, -1), axis=0)) > 2
    assert (first != corruptions.corrupt(images, name, 5, seed=2)).any()
    assert (first != corruptions.corrupt(images, name, 4, seed=1)).any()
    second = corruptions.corrupt(images[:1], name, 5, seed=1, ids=[2])
    np.testing.assert_array_equal(second, first[2:3])


def test_a_fresh_process_gives_the_same_bytes_without_tensorflow():
    script = """
import hashlib, sys
import numpy as np
from augmix_tf import corruptions
images = np.arange(2 * 20 * 28 * 3).reshape(2, 20, 28, 3).astype(np.uint8)
for name in sys.argv[1:]:
    print(hashlib.sha256(corruptions.corrupt(images, name, 4, seed=3).tobytes()).hexdigest())
assert "tensorflow" not in sys.modules
"""
    images = np.arange(2 * 20 * 28 * 3).reshape(2, 20, 28, 3).astype(np.uint8)
    got = python(script, *HERE).split()
    made = (corruptions.corrupt(images, name, 4, seed=3) for name in HERE)
    assert got == [hashlib.sha256(rows.tobytes()).hexdigest() for rows in made]


def test_streams_are_philox_with_a_key_of_cell_and_id():
    digest = hashlib.sha256(b"5/fog/2").digest()
    # As an array: numpy reads a list of large numbers by way of floats.
    key = np.array([int.from_bytes(digest[:8], "little"), 9], np.uint64)
    want = np.random.RandomState(np.random.Philox(key=key))
    streams = Streams(5, "fog", 2)
    streams.of(8).normal(size=3)  # an odd number, so that a spare one is kept: it must go
    got = streams.of(9)
    np.testing.assert_array_equal(got.normal(size=5), want.normal(size=5))
    np.testing.assert_array_equal(streams.of(9).random(3), streams.of(9).random(3))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("brightness", lambda h, s, v: (h, s, min(v + 0.3, 1))),
        ("saturate", lambda h, s, v: (h, min(s * 2.5 + 0.2, 1), v)),
    ],
)
def test_hsv_corruptions_follow_colorsys(name, change):
    images = some_images(2)
    images[0, 0, :4] = [[0, 0, 0], [255, 255, 255], [9, 9, 9], [255, 0, 255]]
    got = corruptions.corrupt(images, name, 5).astype(int)
    want = np.stack([loops.through_hsv(image, change) for image in images])
    assert np.abs(got - want).max() <= 1  # truncated, and the formulas round differently
    assert (got != want).mean() < 0.02


@pytest.mark.parametrize("severity", corruptions.SEVERITIES)
def test_contrast_follows_its_formula(severity):
    images = some_images(2)
    got = corruptions.corrupt(images, "contrast", severity).astype(int)
    factor = (0.75, 0.5, 0.4, 0.3, 0.15)[severity - 1]
    want = np.stack([loops.contrast(image, factor) for image in images])
    assert np.abs(got - want).max() <= 1
    assert (got != want).mean() < 0.001


@pytest.mark.parametrize("severity", corruptions.SEVERITIES)
def test_pixelate_averages_boxes(severity):
    images = some_images(2, 20, 40)
    got = corruptions.corrupt(images, "pixelate", severity)
    share = (0.95, 0.9, 0.85, 0.75, 0.65)[severity - 1]
    np.testing.assert_array_equal(got, [loops.pixelate(image, share) for image in images])


def test_jpeg_is_what_pillow_writes():
    images = some_images(2)
    for image, got in zip(images, corruptions.corrupt(images, "jpeg_compression", 3), strict=True):
        file = io.BytesIO()
        Image.fromarray(image).save(file, format="JPEG", quality=58, subsampling="4:2:0")
        np.testing.assert_array_equal(got, np.asarray(Image.open(file)))


@pytest.mark.parametrize("angle", [-45.0, -10.0, 0.0, 33.3, 90.0, -150.0])
def test_motion_blur_follows_the_taps(angle):
    images = some_images(2, 12, 17)
    got = blur.directional_blur(images, (6, 1.5), np.full(2, angle))
    want = [loops.motion_blur(image, 6, 1.5, angle) for image in images]
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("setting", [(0.4, 1, 2), (1, 2, 3), (1.5, 4, 2)])
def test_glass_shuffle_equals_the_loop(setting):
    images = some_images(3, 18, 23)
    streams = Streams(0, "glass", 1)
    draws = [blur.draw_glass(streams.of(i), image, setting) for i, image in enumerate(images)]
    got = blur.glass_blur(images, setting, catalogue.stack(draws))
    for image, (shifts,), result in zip(images, draws, got, strict=True):
        sigma = (setting[0], setting[0], 0)
        soft = ndimage.gaussian_filter(image / 255.0, sigma, mode="nearest")
        mixed = loops.glass_shuffle(loops.to_bytes(soft), setting[1], setting[2], shifts)
        again = ndimage.gaussian_filter(mixed / 255.0, sigma, mode="nearest")
        np.testing.assert_array_equal(result, loops.to_bytes(again))


@pytest.mark.parametrize("factor", [1, 1.01, 1.13, 1.75, 2.25, 4.5])
def test_zoom_equals_scipy(factor):
    planes = np.random.default_rng(1).normal(size=(2, 24, 33, 3))
    got = blur.zoom_centre(blur.pixels_first(planes), 24, 33, factor)
    got = blur.images_first(got, planes.shape)
    for image, result in zip(planes, got, strict=True):
        for channel in range(3):
            want = loops.zoom(image[..., channel], factor)
            np.testing.assert_array_equal(result[..., channel], want)


def test_a_constant_elastic_displacement_shifts_the_image_and_mirrors_its_edge():
    images = some_images(2)
    right, down = np.full((2, 20, 28), 1.0), np.full((2, 20, 28), -0.5)
    draws = (np.zeros((2, 3, 2)), right, down)
    got = digital.elastic_transform(images, (0.3, 0.04, 0.05, 224), draws)  # 0.3 of 20 pixels
    padded = np.pad(images, ((0, 0), (3, 0), (0, 6), (0, 0)), "symmetric")
    np.testing.assert_array_equal(got, padded[:, :20, 6:])


@pytest.mark.parametrize("decay", [1.4, 3.0])
def test_fog_fractal_equals_the_loop(decay):
    draws = np.random.default_rng(3).random((2, 16 * 16 - 1))
    got = weather.plasma_fractal(draws, 16, decay)
    want = [loops.fractal(one, 16, decay) for one in draws]
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-12)
    assert got.min() == 0
    assert got.max() == 1


def test_frost_is_a_weighted_sum():
    images, pieces = some_images(2), some_images(2, seed=5)
    got = corruptions.apply(images, "frost", 4, (pieces,))
    want = np.minimum(0.85 * images.astype(float) + 0.4 * pieces, 255)
    assert np.abs(got - np.floor(want)).max() <= 1
    assert (got != np.floor(want)).mean() < 0.02  # 0.85 and 0.4 have no exact binary form


@pytest.mark.parametrize(("table", "index"), [("cifar", 4), ("imagenet", 0)])
def test_noises_have_their_moments(table, index):
    # In the middle of the range, where nothing is clipped; truncation costs half a level.
    images, light = grey(128), 128 / 255
    constants = catalogue.TABLES[table]

    def noise(name):
        return corruptions.corrupt(images, name, index + 1, table=table) / 255.0

    sigma = {
        "gaussian_noise": constants["gaussian_noise"][index],
        "speckle_noise": constants["speckle_noise"][index] * light,
        "shot_noise": np.sqrt(light / constants["shot_noise"][index]),
    }
    for name, want in sigma.items():
        got = noise(name)
        error = 5 * want / np.sqrt(got.size)
        assert got.mean() == pytest.approx(light - 0.5 / 255, abs=error + 0.5 / 255), name
        assert got.std() == pytest.approx(want, rel=0.03), name
        # Neighbours, channels and images are independent.
        for axis in range(4):
            one, other = got - got.mean(), np.roll(got, 1, axis=axis) - got.mean()
            assert abs((one * other).mean()) < 6 * want**2 / np.sqrt(got.size), (name, axis)


@pytest.mark.parametrize("name", ALL)
def test_severity_5_is_farther_from_the_image_than_1(name):
    images = some_images(6, 32, 32)
    for table in (table for table, names in catalogue.TABLES.items() if name in names):
        near, far = (
            np.abs(corruptions.corrupt(images, name, s, table=table).astype(int) - images).mean()
            for s in (1, 5)
        )
        # The rows of these two change kind, not only strength.
        is_mixed = name in ("elastic_transform", "saturate")
        assert min(near, far) > 0 if is_mixed else 0 < near < far, table


def test_size_chooses_the_table():
    small, large = some_images(1, 64, 48), some_images(1, 65, 48)
    for images, table in ((small, "cifar"), (large, "imagenet")):
        got = corruptions.corrupt(images, "contrast", 5)
        want = corruptions.corrupt(images, "contrast", 5, table=table)
        np.testing.assert_array_equal(got, want)


class Wrapped:
    """What other libraries' tensors are to NumPy."""

    def __init__(self, images):
        self.images = images

    def __array__(self, dtype=None, copy=None):
        return self.images


@pytest.mark.parametrize("name", ["gaussian_noise", "spatter", "elastic_transform", "contrast"])
def test_one_image_a_list_of_any_sizes_and_a_batch_are_corrupted_alike(name):
    images = some_images(3)
    want = corruptions.corrupt(images, name, 4, seed=2)
    np.testing.assert_array_equal(corruptions.corrupt(images[0], name, 4, seed=2), want[0])
    np.testing.assert_array_equal(corruptions.corrupt(Wrapped(images), name, 4, seed=2), want)
    sizes = [images[0], Image.fromarray(images[1]), some_images(1, 80, 70)[0], images[2, :, :, :1]]
    alone = [
        corruptions.corrupt(np.asarray(image), name, 4, seed=2, ids=[number])
        for number, image in enumerate(sizes)
    ]
    objects = np.empty(4, object)
    objects[:] = sizes
    for several in (sizes, tuple(sizes), objects):
        got = corruptions.corrupt(several, name, 4, seed=2)
        assert isinstance(got, list)
        assert_same(got, alone)
    np.testing.assert_array_equal(alone[1], want[1])
    assert corruptions.corrupt([], name, 4) == []


@pytest.mark.parametrize("name", [*HERE, "brownish_noise"])
def test_a_grey_image_is_the_green_channel_of_three_equal_ones(name):
    images = images_for(name, 2)[..., 0]
    want = corruptions.corrupt(np.repeat(images[..., None], 3, axis=3), name, 3)[..., 1]
    np.testing.assert_array_equal(corruptions.corrupt(images, name, 3), want)
    np.testing.assert_array_equal(corruptions.corrupt(images[..., None], name, 3)[..., 0], want)
    for one in (images[0], Image.fromarray(images[0])):
        np.testing.assert_array_equal(corruptions.corrupt(one, name, 3), want[0])


@pytest.mark.parametrize("name", ["snow", "sparkles", "frost_synthetic"])
def test_workers_and_progress_change_no_value(name, monkeypatch, capsys):
    monkeypatch.setattr(catalogue, "CHUNK_PIXELS", 600)
    images = images_for(name, 7)
    want = corruptions.corrupt(images, name, 3)
    np.testing.assert_array_equal(corruptions.corrupt(images, name, 3, workers=4), want)
    assert capsys.readouterr().err == ""
    np.testing.assert_array_equal(corruptions.corrupt([*images], name, 3, progress=True), want)
    assert f"{name} 3: 100%" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (
            some_images(1)[..., [0, 1, 2, 0]],
            r"received uint8 \[1, 20, 28, 4\]\. Drop an alpha channel",
        ),
        (some_images(1)[0][..., [0, 1, 2, 0]], r"received uint8 \[20, 28, 4\]\. Drop an alpha"),
        (some_images(1)[0].transpose(2, 0, 1), r"\[3, 20, 28\].* move channels to the end"),
        ([some_images(2)], "single images in a list"),
        (Image.fromarray(some_images(1)[0]).convert("P"), r"image\.convert\('RGB'\); received P"),
        (None, "received object"),
    ],
)
def test_images_of_other_kinds_are_refused_with_what_to_do(images, message):
    with pytest.raises(ArgumentError, match=message):
        corruptions.corrupt(images, "fog", 1)


def test_frost_without_photographs_is_the_synthetic_one_with_a_warning(monkeypatch):
    monkeypatch.setattr(weather.importlib.util, "find_spec", lambda name: None)
    with pytest.warns(UserWarning, match=r"original frost photographs .* 'frost_synthetic'"):
        got = corruptions.corrupt(some_images(2), "frost", 1)
    want = corruptions.corrupt(some_images(2), "frost_synthetic", 1)
    np.testing.assert_array_equal(got, want)


def test_frost_dir_must_hold_the_photographs(tmp_path):
    with pytest.raises(ArgumentError, match=r"frost1.png missing or with other contents"):
        corruptions.corrupt(some_images(1), "frost", 1, frost_dir=tmp_path)


def test_photographs_are_found_by_contents(tmp_path, monkeypatch):
    folder = tmp_path / "imagecorruptions" / "frost"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").write_text("raise ImportError('must not be imported')")
    digests, photographs = {}, some_images(5, 300, 400)
    for name, photograph in zip(weather.PHOTOGRAPHS, photographs, strict=True):
        Image.fromarray(photograph).save(folder / name)
        digests[name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    monkeypatch.setattr(weather, "PHOTOGRAPHS", digests)
    monkeypatch.syspath_prepend(tmp_path)
    assert weather.find_photographs() == folder
    loaded = weather.photographs(folder, 1.0)
    np.testing.assert_array_equal(loaded[1], photographs[1])  # PNG, and RGB not BGR
    images = grey(0, 3, 32)
    found = corruptions.corrupt(images, "frost", 1)
    np.testing.assert_array_equal(found, corruptions.corrupt(images, "frost", 1, frost_dir=folder))
    assert found.std() > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "gausian_noise"}, "Did you mean 'gaussian_noise'"),
        ({"severity": 0}, "Expected an integer severity from 1 to 5; received 0"),
        ({"seed": -1}, "Expected an integer seed of at least 0; received -1"),
        ({"table": "cifr"}, "Did you mean 'cifar'"),
        ({"ids": [1, 1, 2]}, r"Expected unique ids; received \[1\] repeated"),
        ({"ids": [1, 2]}, r"Expected 3 ids, one per image; received \[2\]"),
        (
            {"ids": [0, 1, -2]},
            r"Expected ids that are integers of at least 0; received \[0, 1, -2\]",
        ),
        (
            {"images": np.zeros((3, 20, 20, 3))},
            r"Expected images uint8 .* received float64 \[3, 20, 20, 3\]",
        ),
        (
            {"images": np.zeros((3, 20, 15, 3), np.uint8)},
            r"at least 16; received uint8 \[3, 20, 15, 3\]",
        ),
        ({"images": [[1]]}, r"received int64 \[1\]"),
        ({"workers": 0}, "an integer number of workers of at least 1"),
        ({"name": "ripple"}, "Expected square images; received 20x28 pixels for ripple"),
        (
            {"name": "ripple", "table": "imagenet"},
            "Expected a corruption of the severity table 'imagenet'; "
            "received 'ripple', which only cifar has",
        ),
    ],
)
def test_malformed_requests_are_refused(arguments, message):
    sound = {"images": some_images(3), "name": "gaussian_noise", "severity": 1}
    with pytest.raises(ArgumentError, match=message):
        corruptions.corrupt(**sound | arguments)


# C-bar

# At strength 0 they do nothing.
ADDED = ["single_frequency_greyscale", "cocentric_sine_waves", "plasma_noise", "brownish_noise"]
ADDED += ["checkerboard_cutout", "perlin_noise", "ripple", "lines"]


def square_images(count=3, side=24, seed=0):
    return some_images(count, side, side, seed)


def plan(name, images, strength, seed=0):
    streams, draw = Streams(seed, name, 1), CATALOGUE[name].draw
    return catalogue.draw_all(draw, streams, images, np.arange(len(images)), strength)


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


def test_images_get_the_other_table_where_theirs_lacks_the_corruption():
    for name, table in (("plasma_noise", "imagenet"), ("lines", "cifar")):
        for side in (24, 65):
            image = square_images(1, side)
            got = corruptions.corrupt(image, name, 2)
            np.testing.assert_array_equal(got, corruptions.corrupt(image, name, 2, table=table))


def test_impulse_noise_replaces_values_evenly():
    got = corruptions.corrupt(grey(100), "impulse_noise", 5, table="imagenet")
    assert set(np.unique(got)) == {0, 100, 255}
    assert (got != 100).mean() == pytest.approx(0.27, abs=0.01)
    assert (got == 255).sum() / (got != 100).sum() == pytest.approx(0.5, abs=0.02)
    replaced = (got != 100).reshape(-1, 3)
    assert replaced.any(axis=1).mean() == pytest.approx(1 - 0.73**3, abs=0.02)  # not whole pixels


@pytest.mark.parametrize("level", [0, 255])
@pytest.mark.parametrize("severity", [1, 5])
@pytest.mark.parametrize("name", KEEPS_FLAT)
def test_black_stays_black_and_white_stays_white(name, severity, level):
    got = corruptions.corrupt(grey(level, 2, 32), name, severity).astype(int)
    assert np.abs(got - level).max() <= 1


@pytest.mark.parametrize("name", KEEPS_AXES)
def test_transposing_the_image_transposes_the_result(name):
    images = some_images(2, 20, 28)
    transposed = np.ascontiguousarray(images.transpose(0, 2, 1, 3))
    got = corruptions.corrupt(transposed, name, 4, table="imagenet").transpose(0, 2, 1, 3)
    want = corruptions.corrupt(images, name, 4, table="imagenet")
    assert np.abs(got.astype(int) - want).max() <= 1


def test_sparkles_brighten_and_the_centre_is_white():
    images = square_images(4)
    draws = plan("sparkles", images, 5.0)
    got = patterns.sparkles(images, 5.0, draws)
    assert (got >= images).all()
    for image, centres in zip(got, draws[0], strict=True):
        for y, x in np.minimum(np.round(centres).astype(int), 23):
            assert image[y, x].min() == 255
    inverse = patterns.inverse_sparkles(images, 5.0, plan("inverse_sparkles", images, 5.0))
    assert (inverse >= images).all()
    assert inverse[:, 0].mean() > inverse[:, 8:16, 8:16].mean()


def test_twirls_leave_the_margin_and_the_corners_of_cells():
    images = square_images(2, 32)
    got = distortions.pinch_and_twirl(images, 10.0, plan("pinch_and_twirl", images, 10.0))
    is_moved = (got != images).any(axis=3)
    assert not is_moved[:, 30:].any()
    assert not is_moved[:, :, 30:].any()
    assert not is_moved[:, ::10, ::10].any()
    assert is_moved[:, :30, :30].any()


def test_channels_are_enlarged_by_their_factor():
    images = np.zeros((1, 32, 32, 3), np.uint8)
    images[:, 12:20, 12:20] = 255
    got = distortions.transverse_chromatic_abberation(images, 10.0, (np.array([[0, 2, 1]]),))
    widths = (got[0, 16] > 127).sum(axis=0)
    np.testing.assert_allclose(widths, [8, 12, 10], atol=1)


def test_perlin_noise_is_0_at_lattice_points():
    numbers = Streams(0, "perlin", 1).of(0).randint(0, 2**31, 1284)
    steps = np.arange(5.0)
    turbulence = patterns._turbulence(numbers, steps[:, None], steps[None])
    np.testing.assert_array_equal(turbulence, 0)


# Tables and refusals
