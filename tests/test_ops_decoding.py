"""Encoded images against Pillow, and resizing against its definition in float64."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from augmix_tf.errors import ArgumentError
from augmix_tf.ops import decoding, formats
from tests import image_files
from tests.arrays import assert_same
from tests.runs import graph, tf_data

HEIGHT, WIDTH = 47, 61
LEVELS = np.random.default_rng(0).integers(0, 256, (6, 8, 4), np.uint8)
COLOUR = Image.fromarray(LEVELS[..., :3]).resize((WIDTH, HEIGHT), Image.Resampling.NEAREST)
GREY = COLOUR.convert("L")
OPACITY = Image.fromarray(LEVELS[..., 3]).resize((WIDTH, HEIGHT))
TRANSPARENT = Image.merge("RGBA", (*COLOUR.split(), OPACITY))
CMYK = Image.fromarray(LEVELS, "CMYK").resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
DEEP = Image.fromarray(np.asarray(GREY).astype(np.uint16) * 256 + 255)

JPEGS = {
    "full chroma": image_files.encoded(COLOUR, "jpeg", subsampling=0),
    "half chroma": image_files.encoded(COLOUR, "jpeg", subsampling=1),
    "quarter chroma": image_files.encoded(COLOUR, "jpeg", subsampling=2),
    "progressive": image_files.encoded(COLOUR, "jpeg", progressive=True),
    "grey": image_files.encoded(GREY, "jpeg"),
}
LOSSLESS = {
    "png": (image_files.encoded(COLOUR), COLOUR),
    "png, opacity": (image_files.encoded(TRANSPARENT), COLOUR),
    "png, grey": (image_files.encoded(GREY), GREY),
    "png, 16 bits": (image_files.encoded(DEEP), GREY),
    "png, palette": (image_files.encoded(COLOUR.quantize(32)), COLOUR.quantize(32)),
}
WEBP = {
    "webp": (image_files.encoded(COLOUR, "webp", lossless=True), COLOUR),
    "webp, alpha": (image_files.encoded(TRANSPARENT, "webp", lossless=True, exact=True), COLOUR),
    "webp, grey": (image_files.encoded(GREY, "webp", lossless=True), GREY),
}
# TensorFlow 2.19 has no decoder for WebP.
LOSSLESS |= WEBP if hasattr(tf.io, "decode_webp") else {}
FILES = LOSSLESS | {name: (file, Image.open(io.BytesIO(file))) for name, file in JPEGS.items()}


def rgb(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB"))


def triangle(length: int, whole: int, first: int, count: int) -> np.ndarray:
    """Weights [count, length] of pixels that are resized to `whole`, from pixel `first` on."""
    step = length / whole
    centres = (np.arange(first, first + count) + 0.5) * step - 0.5
    distance = np.abs(np.arange(length) - centres[:, None]) / max(step, 1)
    weights = np.maximum(0, 1 - distance)
    return weights / weights.sum(axis=1, keepdims=True)


def resized(pixels: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """The definition in float64: columns, then rows, both rounded to the nearest level, half up."""
    half = 0.5 + 1e-9
    narrow = np.floor(np.einsum("jw,hwc->hjc", columns, pixels) + half)
    return np.floor(np.einsum("ih,hjc->ijc", rows, narrow) + half)


def resized_by_pillow(image: Image.Image, size: tuple[int, int]) -> np.ndarray:
    """Resizes columns, then rows, in two calls: Pillow 13 may choose another order."""
    narrow = image.resize((size[1], image.height), Image.Resampling.BILINEAR)
    return np.asarray(narrow.resize(size[::-1], Image.Resampling.BILINEAR))


def assert_close(got: np.ndarray, want: np.ndarray) -> None:
    """Asserts that few values differ, by one level: float32 may round a tie the other way.

    The other order of passes, or no rounding between them, changes more than 10 %.
    """
    assert got.shape == want.shape
    apart = np.abs(got.astype(int) - want)
    assert apart.max() <= 1
    assert np.mean(apart > 0) <= 0.02


@pytest.mark.parametrize("name", FILES)
def test_pixels_and_sides_are_those_of_pillow(name):
    file, image = FILES[name]
    np.testing.assert_array_equal(decoding.sides(file), [HEIGHT, WIDTH])
    np.testing.assert_array_equal(formats.decode(file), rgb(image))


@pytest.mark.parametrize("transform", [0, 2], ids=["cmyk", "ycck"])
def test_cmyk_is_at_most_one_level_below_pillow(transform):
    file = image_files.encoded(CMYK, "jpeg")
    place = file.index(b"Adobe") + len("Adobe") + 6  # version and flags, two bytes each and two
    file = file[:place] + bytes([transform]) + file[place + 1 :]
    image = Image.open(io.BytesIO(file))
    assert (image.mode, image.info["adobe_transform"]) == ("CMYK", transform)
    lower = rgb(image).astype(int) - formats.decode(file).numpy()
    assert set(np.unique(lower)) == {0, 1}


@pytest.mark.parametrize("name", [*JPEGS, "png"])
def test_a_window_equals_a_crop_of_the_decoded_image(name):
    """The borders fall on every column of a JPEG block."""
    file, image = FILES[name]
    for left in range(40):
        window = [left // 3, left, 5, 1 + left % 17]
        want = rgb(image)[left // 3 :, left:][: window[2], : window[3]]
        got = decoding.decode_window(file, tf.constant(window), tuple(window[2:]))
        np.testing.assert_array_equal(got, want)


WINDOW = (3, 7, 38, 52)


@pytest.mark.parametrize(
    "size", [(24, 32), (38, 52), (90, 100), (20, 100), (100, 20), (1, 1), (37, 53)], ids=str
)
def test_resizing_a_window_equals_the_definition(size):
    file, image = FILES["png"]
    top, left, height, width = WINDOW
    part = rgb(image)[top : top + height, left : left + width]
    rows, columns = (triangle(*sides, 0, sides[1]) for sides in zip(part.shape, size, strict=False))
    got = decoding.decode_window(file, tf.constant(WINDOW), size)
    assert got.dtype == tf.uint8
    assert_close(got.numpy(), resized(part, rows, columns))
    assert_close(got.numpy(), resized_by_pillow(Image.fromarray(part), size))


@pytest.mark.parametrize("sides", [(47, 61), (61, 47), (40, 40), (30, 31), (7, 90)], ids=str)
@pytest.mark.parametrize(
    ("size", "short"), [((28, 28), 32), ((17, 24), 24), ((31, 29), 57)], ids=str
)
def test_the_centre_is_that_of_the_resized_image(sides, size, short):
    image = COLOUR.resize(sides[::-1])
    whole = [int(short * side / min(sides)) for side in sides]
    corner = [round((a - b) / 2) for a, b in zip(whole, size, strict=True)]
    rows, columns = map(triangle, sides, whole, corner, size)
    got = decoding.decode_centre(image_files.encoded(image), size, short).numpy()
    assert_close(got, resized(rgb(image), rows, columns))
    whole_image = resized_by_pillow(image.convert("RGB"), tuple(whole))
    box = whole_image[corner[0] :, corner[1] :][: size[0], : size[1]]
    assert_close(got, box)


@pytest.mark.parametrize("run", [graph, tf_data])
def test_results_are_the_same_in_every_way_they_are_run(run):
    def everything(file):
        window = decoding.decode_window(file, tf.constant(WINDOW), (20, 30))
        centre = decoding.decode_centre(file, (20, 16), 24)
        return decoding.sides(file), formats.decode(file), window, centre

    file = JPEGS["quarter chroma"]
    assert_same(run(everything, tf.constant(file)), everything(file))


BROKEN = {
    "nothing": b"",
    "text": b"no image",
    "half a jpeg": JPEGS["full chroma"][:700],
    "half a png": FILES["png"][0][:300],
}


@pytest.mark.parametrize("file", BROKEN.values(), ids=BROKEN)
def test_an_incomplete_image_is_an_error(file):
    window = [0, 0, HEIGHT, WIDTH]
    for call in (
        formats.decode,
        lambda file: decoding.decode_window(file, tf.constant(window), (8, 8)),
        lambda file: decoding.decode_centre(file, (8, 8), 8),
    ):
        with pytest.raises(tf.errors.InvalidArgumentError):
            call(file)


@pytest.mark.parametrize("name", ["quarter chroma", "png"])
@pytest.mark.parametrize(
    "window", [(0, 0, 48, 61), (0, 1, 47, 61), (-1, 0, 4, 4), (0, -1, 4, 4), (47, 0, 1, 1)], ids=str
)
def test_a_window_outside_the_image_is_an_error(name, window):
    with pytest.raises(tf.errors.InvalidArgumentError):
        decoding.decode_window(FILES[name][0], tf.constant(window), (8, 8))


def test_a_centre_larger_than_the_short_side_is_refused():
    with pytest.raises(ArgumentError, match=r"Expected a size of at most 24; received \(24, 25\)"):
        decoding.decode_centre(FILES["png"][0], (24, 25), 24)
