import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from augmix_tf.export import decoding
from augmix_tf.export.decoding import (
    LARGEST_AREA,
    LARGEST_SIDE,
    TOO_LARGE,
    UNKNOWN_FORMAT,
    UNREADABLE,
)
from augmix_tf.ops import decoding as ops_decoding
from augmix_tf.ops import formats
from tests.image_files import encoded, png_header, with_size

HEIGHT, WIDTH = 24, 32
KINDS = ("png", "jpeg", "webp")
# TensorFlow 2.19 has no decoder for WebP.
WEBP = hasattr(tf.io, "decode_webp")


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (5, HEIGHT, WIDTH, 3), np.uint8)


@tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
def decoded(image_bytes):
    return decoding.decode(image_bytes, HEIGHT, WIDTH)


@tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
def decoded_centre(image_bytes):
    return decoding.decode(image_bytes, HEIGHT, WIDTH, short_side=37)


@pytest.fixture(autouse=True)
def kind_that_tensorflow_decodes(request):
    if "webp" in request.node.name and not WEBP:
        pytest.skip("TensorFlow before 2.20 decodes no WebP")


def decode(*batch: bytes) -> np.ndarray:
    """The images of a batch without errors."""
    found = decoded(tf.constant(batch))
    assert found.images.shape == [len(batch), HEIGHT, WIDTH, 3]
    assert list(found.errors.numpy()) == [b""] * len(batch)
    return found.images.numpy()


def errors(*batch: bytes) -> list[str]:
    return [error.decode() for error in decoded(tf.constant(batch, tf.string)).errors.numpy()]


def test_lossless_formats_and_all_kinds_of_png(images):
    colour = Image.fromarray(images[0])
    opacity = Image.fromarray(images[1, :, :, 0])
    transparent, grey, palette = colour.copy(), colour.convert("L"), colour.quantize(64)
    transparent.putalpha(opacity)
    grey_transparent = Image.merge("LA", (grey, opacity))
    few = palette.convert("RGB")
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    batch = {
        encoded(colour): colour,
        encoded(transparent): colour,
        encoded(grey): grey,
        encoded(grey_transparent): grey,
        encoded(deep): grey,
        encoded(palette): few,
    }
    want = [np.asarray(image.convert("RGB")) for image in batch.values()]
    np.testing.assert_array_equal(decode(*batch), want)


def test_webp_files_have_the_values_of_pillow(images):
    colour = Image.fromarray(images[0])
    transparent = colour.copy()
    transparent.putalpha(Image.fromarray(images[1, :, :, 0]))
    smooth = colour.resize((4, 4)).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = 6  # an orientation tag, in an extended file
    batch = [
        encoded(image, "webp", **options)
        for image in (colour, transparent, colour.convert("L"), smooth)
        for options in ({"lossless": True}, {"quality": 70}, {"lossless": True, "exif": exif})
    ]
    want = [np.asarray(Image.open(io.BytesIO(file)).convert("RGB")) for file in batch]
    np.testing.assert_array_equal(decode(*batch), want)
    for file in batch:
        np.testing.assert_array_equal(formats.size(tf.constant(file)), [HEIGHT, WIDTH])


def test_a_jpeg_has_the_values_of_pillow(images):
    smooth = Image.fromarray(images[0, :4, :4]).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    for image in (smooth, smooth.convert("L")):
        data = encoded(image, "jpeg", quality=75)
        want = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), np.float32)
        np.testing.assert_array_equal(decode(data)[0], want)


@pytest.mark.parametrize("size", [(90, 70), (32, 60), (1, 1)])  # width, height
def test_other_sizes_are_resized_as_pillow_does(images, size):
    image = Image.fromarray(images[0]).resize(size, Image.Resampling.NEAREST)
    want = np.asarray(image.resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR), np.float32)
    np.testing.assert_allclose(decode(encoded(image))[0], want, atol=1.5)


@pytest.mark.parametrize("size", [(90, 70), (70, 90), (37, 37), (1, 1)], ids=str)
def test_the_centre_is_what_evaluation_sees(images, size):
    """Less the rounding of evaluation, behind each of two passes."""
    files = [encoded(Image.fromarray(image).resize(size), "jpeg") for image in images[:2]]
    found = decoded_centre(tf.constant([files[0], b"none", files[1]]))
    assert [error.decode() for error in found.errors.numpy()] == ["", UNKNOWN_FORMAT, ""]
    for got, file in zip(found.images.numpy()[::2], files, strict=True):
        want = ops_decoding.decode_centre(tf.constant(file), (HEIGHT, WIDTH), 37)
        np.testing.assert_allclose(got, tf.cast(want, tf.float32), atol=1.001)


def test_an_unreadable_file_has_its_error_and_its_neighbours_their_images(images):
    sound = [encoded(image) for image in images[:3]]
    batch = (b"<html>", sound[0], sound[1][:-20], sound[1], b"", png_header(10**6, 10**6), sound[2])
    found = decoded(tf.constant(batch))
    want = [UNKNOWN_FORMAT, "", UNREADABLE, "", UNKNOWN_FORMAT, TOO_LARGE, ""]
    assert [error.decode() for error in found.errors.numpy()] == want
    np.testing.assert_array_equal(found.images.numpy()[[1, 3, 6]], images[:3])
    np.testing.assert_array_equal(found.images.numpy()[[0, 2, 4, 5]], 0)


@pytest.mark.parametrize("kind", KINDS)
def test_no_part_of_a_file_is_taken_for_the_whole(images, kind):
    data = encoded(images[0], kind)
    ends = range(0, len(data), max(1, len(data) // 200))
    found = errors(*(data[:end] for end in ends))
    assert set(found) == {UNKNOWN_FORMAT, UNREADABLE}
    assert found.count(UNKNOWN_FORMAT) < 20


@pytest.mark.parametrize("kind", KINDS)
def test_files_with_wrong_bytes_give_an_image_or_an_error(images, kind):
    random, sound = np.random.default_rng(1), encoded(images[0], kind)
    batch = []
    for _ in range(100):
        data = np.frombuffer(sound, np.uint8).copy()
        places = random.integers(0, random.choice([30, 400, len(data)]), random.integers(1, 8))
        data[places] = random.integers(0, 256, len(places))
        batch.append(data.tobytes())
    found = decoded(tf.constant([*batch, encoded(images[1])]))
    known = {"", UNKNOWN_FORMAT, TOO_LARGE, UNREADABLE, "animated WebP is not supported"}
    assert {error.decode() for error in found.errors.numpy()} <= known
    assert found.errors.numpy()[-1] == b""
    np.testing.assert_array_equal(found.images[-1], images[1])
    assert np.isfinite(found.images).all()
    assert np.min(found.images) >= 0
    assert np.max(found.images) <= 255.5


def test_a_header_that_states_too_large_a_size_is_refused(images):
    lossy, lossless = (encoded(images[0], "webp", lossless=lossless) for lossless in (False, True))
    extended = encoded(Image.new("RGBA", (WIDTH, HEIGHT), (1, 2, 3, 4)), "webp")
    files = (
        png_header(50_000, 50_000),
        png_header(2**32 - 1, 2**32 - 1),
        png_header(2**31, 2**31),
        with_size(encoded(images[0], "jpeg"), 65_500, 65_500),
        with_size(lossy, 16_383, 16_383),
        with_size(lossless, 16_383, 16_383),
        with_size(extended, 2**24, 2**24),
    )
    assert errors(*files) == [TOO_LARGE] * len(files)


def test_the_largest_area_is_still_decoded():
    side = int(LARGEST_AREA**0.5)
    sizes = ((side, side), (side, LARGEST_AREA // side + 1))
    assert side * sizes[1][1] > LARGEST_AREA
    assert errors(*(encoded(Image.new("1", size, 1)) for size in sizes)) == ["", TOO_LARGE]


@pytest.mark.parametrize("kind", KINDS)
def test_the_longest_side_is_still_decoded(kind):
    # Resizing holds the network's height times the image's width, however few rows there are.
    limit = 16_383 if kind == "webp" else LARGEST_SIDE  # no WebP file is longer
    for shape in ((2, 1), (1, 2)):
        longest, longer = ([n if side == 2 else 3 for side in shape] for n in (limit, limit + 1))
        np.testing.assert_allclose(decode(encoded(Image.new("L", longest, 255), kind)), 255, atol=1)
        if kind != "webp":
            assert errors(encoded(Image.new("L", longer, 255), kind)) == [TOO_LARGE]


def files_of_each_format(image: np.ndarray) -> dict[str | None, list[bytes]]:
    frames = {"save_all": True, "append_images": [Image.fromarray(image[::-1])]}
    transparent = Image.fromarray(np.dstack([image, image[..., 0]]))
    return {
        "JPEG": [encoded(image, "jpeg"), encoded(image, "jpeg", progressive=True)],
        "PNG": [encoded(image), encoded(transparent)],
        "WebP": [
            *(encoded(image, "webp", lossless=lossless) for lossless in (False, True)),
            encoded(transparent, "webp"),
        ],
        "GIF": [encoded(image, "gif"), encoded(image, "gif", **frames)],
        "BMP": [encoded(image, "bmp")],
        "animated WebP": [
            encoded(image, "webp", **frames),
            encoded(transparent, "webp", lossless=True, **frames),
        ],
        None: [*(encoded(image, kind) for kind in ("tiff", "ppm", "ico")), b"", b"B", b"RIFF"],
    }


def test_formats_are_told_by_their_first_bytes(images):
    names = (*formats.NAMES, None)  # UNKNOWN is -1
    for name, files in files_of_each_format(images[0]).items():
        for file in files:
            assert formats.name_of(file[: formats.HEAD_BYTES]) == name
            assert formats.name_of(file) == name
            assert names[int(formats.format_of(tf.constant(file)))] == name


@pytest.mark.parametrize("name", formats.REFUSED)
def test_other_formats_are_refused_by_name(images, name):
    files = files_of_each_format(images[0])[name]
    assert errors(*files) == [f"{name} is not supported"] * len(files)
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"received {name}"):
        formats.decode(tf.constant(files[0]))
    unknown = files_of_each_format(images[0])[None]
    assert errors(*unknown) == [UNKNOWN_FORMAT] * len(unknown)


def test_the_frames_of_an_animation_that_claims_to_be_none_are_not_decoded(images):
    """TensorFlow 2.20 and 2.21 would write them past the end of a buffer."""
    for file in files_of_each_format(images[0])["animated WebP"]:
        still = bytearray(file)
        still[20] &= ~2
        assert errors(bytes(still)) == [UNREADABLE]
