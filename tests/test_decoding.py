import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from augmix_tf.checks import CommandError
from augmix_tf.ops import encoded as picture_decoding
from augmix_tf.serving import decoding, headers
from augmix_tf.serving.decoding import (
    BROKEN,
    LARGEST_AREA,
    LARGEST_SIDE,
    TOO_LARGE,
    UNKNOWN_FORMAT,
)
from tests.picture_files import encoded, png_header, with_size

HEIGHT, WIDTH = 24, 32
KINDS = ("png", "jpeg", "gif", "bmp")


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (5, HEIGHT, WIDTH, 3), np.uint8)


@tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
def decoded(image_bytes):
    return decoding.decode(image_bytes, HEIGHT, WIDTH)


def decode(*batch: bytes) -> np.ndarray:
    """The images of a batch that has no errors."""
    found = decoded(tf.constant(batch))
    assert found.images.shape == [len(batch), HEIGHT, WIDTH, 3]
    assert list(found.errors.numpy()) == [b""] * len(batch)
    return found.images.numpy()


def errors(*batch: bytes) -> list[str]:
    return [error.decode() for error in decoded(tf.constant(batch, tf.string)).errors.numpy()]


# What it decodes


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
        encoded(colour, "bmp"): colour,
        encoded(transparent): colour,
        encoded(transparent, "bmp"): colour,
        encoded(grey): grey,
        encoded(grey, "bmp"): grey,
        encoded(grey_transparent): grey,
        encoded(deep): grey,
        encoded(palette): few,
        encoded(palette, "gif"): few,
        encoded(palette, "gif", save_all=True, append_images=[colour.quantize(8)]): few,
    }
    want = [np.asarray(image.convert("RGB")) for image in batch.values()]
    np.testing.assert_array_equal(decode(*batch), want)


def test_a_jpeg_has_the_values_of_pillow(images):
    smooth = Image.fromarray(images[0, :4, :4]).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    for image in (smooth, smooth.convert("L")):
        data = encoded(image, "jpeg", quality=75)
        want = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), np.float32)
        np.testing.assert_array_equal(decode(data)[0], want)


@pytest.mark.parametrize("size", [(90, 70), (11, 9), (32, 60), (1, 1)])  # width, height
def test_other_sizes_are_resized_as_pillow_does(images, size):
    image = Image.fromarray(images[0]).resize(size, Image.Resampling.NEAREST)
    want = np.asarray(image.resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR), np.float32)
    np.testing.assert_allclose(decode(encoded(image))[0], want, atol=1.5)


def test_every_format_at_every_size_is_what_tensorflow_decodes(images):
    for size in ((WIDTH, HEIGHT), (80, 60)):
        image = Image.fromarray(images[0]).resize(size)
        for kind in KINDS:
            data = encoded(image, kind)
            if kind == "jpeg":
                want = tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE")
            else:
                want = tf.io.decode_image(data, channels=3, expand_animations=False)
            if size != (WIDTH, HEIGHT):
                want = tf.image.resize(tf.cast(want, tf.float32), [HEIGHT, WIDTH], antialias=True)
            np.testing.assert_array_equal(decode(data)[0], want, err_msg=kind)


@pytest.mark.parametrize("size", [(90, 70), (70, 90), (11, 9), (37, 37), (32, 60), (1, 1)], ids=str)
def test_the_centre_is_what_evaluation_sees(images, size):
    """Less the rounding of evaluation, behind each of two passes."""
    files = [encoded(Image.fromarray(image).resize(size), "jpeg") for image in images[:2]]
    function = tf.function(lambda batch: decoding.decode(batch, HEIGHT, WIDTH, 37))
    found = function(tf.constant([files[0], b"none", files[1]]))
    assert [error.decode() for error in found.errors.numpy()] == ["", UNKNOWN_FORMAT, ""]
    for got, file in zip(found.images.numpy()[::2], files, strict=True):
        want = picture_decoding.decode_centre(tf.constant(file), (HEIGHT, WIDTH), 37)
        np.testing.assert_allclose(got, tf.cast(want, tf.float32), atol=1.001)


def test_a_centre_of_the_size_wanted_stays_as_it_is(images):
    found = decoding.decode(tf.constant([encoded(images[0])]), HEIGHT, WIDTH, short_side=37)
    np.testing.assert_array_equal(found.images[0], images[0])
    with pytest.raises(CommandError, match="want a size of at most 31, got"):
        decoding.decode(tf.constant([encoded(images[0])]), HEIGHT, WIDTH, short_side=31)


def test_no_files_give_no_images():
    found = decoded(tf.constant([], tf.string))
    assert found.images.shape == [0, HEIGHT, WIDTH, 3]
    assert found.errors.shape == [0]


# What it refuses


def test_a_broken_file_has_its_error_and_its_neighbours_their_pictures(images):
    sound = [encoded(image) for image in images[:3]]
    batch = (b"<html>", sound[0], sound[1][:-20], sound[1], b"", png_header(10**6, 10**6), sound[2])
    found = decoded(tf.constant(batch))
    want = [UNKNOWN_FORMAT, "", BROKEN, "", UNKNOWN_FORMAT, TOO_LARGE, ""]
    assert [error.decode() for error in found.errors.numpy()] == want
    np.testing.assert_array_equal(found.images.numpy()[[1, 3, 6]], images[:3])
    np.testing.assert_array_equal(found.images.numpy()[[0, 2, 4, 5]], 0)


def test_a_batch_of_nothing_but_broken_files():
    assert errors(b"GIF89a", b"\xff\xd8\xff") == [BROKEN, BROKEN]


@pytest.mark.parametrize("kind", KINDS)
def test_no_part_of_a_file_is_taken_for_the_whole(images, kind):
    data = encoded(images[0], kind)
    # The last byte of a GIF says only that nothing follows.
    ends = range(0, len(data) - (kind == "gif"), max(1, len(data) // 200))
    found = errors(*(data[:end] for end in ends))
    assert set(found) == {UNKNOWN_FORMAT, BROKEN}
    assert found.count(UNKNOWN_FORMAT) < 20


@pytest.mark.parametrize("kind", KINDS)
def test_files_with_wrong_bytes_give_a_picture_or_an_error(images, kind):
    random, sound = np.random.default_rng(1), encoded(images[0], kind)
    batch = []
    for _ in range(100):
        data = np.frombuffer(sound, np.uint8).copy()
        places = random.integers(0, random.choice([30, 400, len(data)]), random.integers(1, 8))
        data[places] = random.integers(0, 256, len(places))
        batch.append(data.tobytes())
    found = decoded(tf.constant([*batch, encoded(images[1])]))
    assert {e.decode() for e in found.errors.numpy()} <= {"", UNKNOWN_FORMAT, TOO_LARGE, BROKEN}
    assert found.errors.numpy()[-1] == b""
    np.testing.assert_array_equal(found.images[-1], images[1])
    assert np.isfinite(found.images).all()
    assert np.min(found.images) >= 0
    assert np.max(found.images) <= 255.5


def test_a_header_that_announces_too_much_is_refused(images):
    jpeg, gif, bmp = (encoded(images[0], kind) for kind in ("jpeg", "gif", "bmp"))
    files = (
        png_header(50_000, 50_000),
        png_header(2**32 - 1, 2**32 - 1),
        png_header(2**31, 2**31),
        with_size(jpeg, 65_500, 65_500),
        with_size(gif, 65_535, 65_535),
        with_size(bmp, 100_000, 100_000),
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
    for shape in ((2, 1), (1, 2)):
        longest = [LARGEST_SIDE if side == 2 else 3 for side in shape]
        longer = [LARGEST_SIDE + 1 if side == 2 else 3 for side in shape]
        white, too_long = (encoded(Image.new("L", s, 255), kind) for s in (longest, longer))
        np.testing.assert_allclose(decode(white), 255, atol=0.01)
        assert errors(too_long) == [TOO_LARGE]


def test_a_small_file_of_an_extreme_aspect_is_refused():
    for size in ((999_999, 33), (33, 999_999)):
        file = encoded(Image.new("L", size))
        assert len(file) < 40_000
        assert errors(file) == [TOO_LARGE]


def gif_of_blocks(lengths) -> bytes:
    """A GIF up to the end of its first picture, whose blocks have those lengths."""
    gif = encoded(Image.new("P", (3, 2)), "gif")
    start = gif[: gif.index(b",\0\0\0\0") + 11]  # up to and with the size of a code
    return start + b"".join(bytes([n]) + b"\1" * n for n in lengths) + b"\0"


@pytest.mark.parametrize("lengths", [(1, 2), (255, 256), (1, 256)])
def test_the_end_of_a_gifs_picture_is_found(lengths):
    # About 9000 bytes: several pieces of the search.
    blocks = np.random.default_rng(0).integers(*lengths, 18_000 // sum(lengths))
    gif = gif_of_blocks(blocks)
    for follows in (b"", b";", b"\0\1" * 9000, bytes(9000)):
        file, size = headers.announced(tf.constant(gif + follows), tf.constant(headers.GIF))
        assert file.numpy() == gif + b";"
        np.testing.assert_array_equal(size, [3, 2])
    for cut in (gif[:-1], gif[:5000]):
        with pytest.raises(tf.errors.InvalidArgumentError):
            headers.announced(tf.constant(cut), tf.constant(headers.GIF))


def test_a_gif_of_megabytes(images):
    sound = encoded(Image.fromarray(images[0]).quantize(64), "gif")
    endless = gif_of_blocks([255] * (headers.LONGEST_GIF // 256 + 1))
    batch = (sound + bytes(2 * headers.LONGEST_GIF), endless, endless[:-2])
    assert errors(*batch) == ["", TOO_LARGE, TOO_LARGE]


def test_of_an_animation_the_first_picture_alone_is_looked_at(images):
    first, second = (Image.fromarray(image).quantize(64) for image in images[:2])
    options = {"save_all": True, "append_images": [second], "duration": 50, "comment": b"x" * 700}
    data = encoded(first, "gif", **options)
    want = np.asarray(first.convert("RGB"))
    np.testing.assert_array_equal(decode(data)[0], want)
    place = data.rindex(b",\0\0\0\0")  # of the second picture
    np.testing.assert_array_equal(decode(data[: place + 5] + b"\xff" * 4)[0], want)


def test_a_gif_without_a_picture_is_broken(images):
    data = encoded(images[0], "gif")
    start = data[: data.index(b",\0\0\0\0")]
    assert errors(start, start + b";", start + b"!\xf9\0" * 5000 + b";") == [BROKEN] * 3


def test_other_formats_are_unknown(images):
    files = [encoded(images[0], kind) for kind in ("tiff", "ppm", "ico")]
    assert errors(*files) == [UNKNOWN_FORMAT] * 3


def test_a_variant_that_tensorflow_does_not_read_is_an_error(images):
    assert errors(encoded(Image.fromarray(images[0]).convert("1"), "bmp")) == [BROKEN]
