"""ImageNet's random crop: windows by the definition, laws of the draws, images of Pillow."""

import functools
import io
import math

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from scipy import stats

from augmix_tf import seeds
from augmix_tf.augment.crops import (
    ATTEMPTS,
    ResizedCrop,
    ResizedCropPlan,
    window,
)
from tests import image_files
from tests.arrays import assert_same
from tests.runs import eager, graph, tf_data

SEED = seeds.fold(3, 1, 4, seeds.CROP_AND_FLIP)
SIZE = (20, 24)
CROP = ResizedCrop(SIZE)
ALWAYS_FITS = [(375, 500), (500, 375), (300, 300), (1000, 901)]
OTHERS = [(1, 1), (1, 2), (2, 1), (3, 5), (1, 500), (500, 1), (90, 2000), (2000, 90), (100, 210)]

one_window = tf.function(
    window,
    input_signature=[
        ResizedCropPlan(
            area=tf.TensorSpec([ATTEMPTS], tf.float64),
            ratio=tf.TensorSpec([ATTEMPTS], tf.float64),
            place=tf.TensorSpec([2], tf.float64),
            flip=tf.TensorSpec([], tf.bool),
        ),
        tf.TensorSpec([2], tf.int32),
    ],
)


def row(plan: ResizedCropPlan, number: int) -> ResizedCropPlan:
    return ResizedCropPlan(*(part[number] for part in plan))


def window_by_definition(plan, height: int, width: int) -> tuple[list[int], bool]:
    """The window in plain Python, and whether an attempt gave it."""
    for area, ratio in zip(plan.area.numpy(), plan.ratio.numpy(), strict=True):
        target = height * width * float(area)
        w, h = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
        if 0 < w <= width and 0 < h <= height:
            down, right = plan.place.numpy()
            return [int(down * (height - h + 1)), int(right * (width - w + 1)), h, w], True
    w, h = width, height
    if width / height < 3 / 4:
        h = round(width / (3 / 4))
    elif width / height > 4 / 3:
        w = round(height * (4 / 3))
    return [(height - h) // 2, (width - w) // 2, h, w], False


@pytest.mark.parametrize("sides", ALWAYS_FITS + OTHERS, ids=str)
def test_windows_are_those_of_the_definition(sides):
    plan = CROP.draw(SEED, 60)
    drawn = []
    for number in range(60):
        own = row(plan, number)
        want, fits = window_by_definition(own, *sides)
        got = one_window(own, tf.constant(sides))
        assert got.dtype == tf.int32
        assert got.numpy().tolist() == want
        drawn.append(fits)
    # Of such a panorama no window within the ratios has 8 % of the area.
    never = [(1, 500), (500, 1), (90, 2000), (2000, 90)]
    assert all(drawn) if sides in ALWAYS_FITS else sides not in never or not any(drawn)


def test_draws_follow_their_laws():
    plan = CROP.draw(SEED, 20_000)
    count = 20_000
    assert [part.dtype for part in plan] == [tf.float64] * 3 + [tf.bool]
    assert [part.shape for part in plan] == [[count, 10], [count, 10], [count, 2], [count]]
    area, ratio, place, flip = (part.numpy() for part in plan)
    uniform = [(area - 0.08) / 0.92, np.log(ratio / 0.75) / np.log(16 / 9), place]
    columns = np.concatenate(uniform, axis=1)
    assert columns.min() >= 0
    assert columns.max() < 1 + 1e-12
    for column in columns.T:
        assert stats.kstest(column, "uniform").pvalue > 1e-5
    assert stats.binomtest(int(flip.sum()), count).pvalue > 1e-5
    together = np.corrcoef(np.concatenate([columns, flip[:, None]], axis=1).T)
    np.testing.assert_allclose(together, np.eye(23), atol=6 / math.sqrt(count))


@pytest.mark.parametrize("run", [graph, tf_data])
def test_a_seed_gives_the_same_plan_in_every_way_it_is_run(run):
    want = CROP.draw(SEED, 9)
    got = run(CROP.draw, SEED, tf.constant(9))
    assert_same(got, want)
    another = CROP.draw(seeds.fold(3, 1, 5, seeds.CROP_AND_FLIP), 9)
    assert not np.array_equal(another.area, want.area)


LEVELS = np.random.default_rng(1).integers(0, 256, (5, 4, 4), np.uint8)
COLOUR = Image.fromarray(LEVELS[..., :3])
IMAGES = {
    "jpeg": (COLOUR.resize((61, 47), Image.Resampling.BICUBIC), "jpeg"),
    "grey": (COLOUR.resize((30, 50), Image.Resampling.BICUBIC).convert("L"), "jpeg"),
    "cmyk": (Image.fromarray(LEVELS, "CMYK").resize((40, 40)), "jpeg"),
    "png": (COLOUR.resize((33, 29)), "png"),
    "pixel": (COLOUR.resize((1, 1)), "png"),
    "panorama": (COLOUR.resize((300, 10), Image.Resampling.BICUBIC), "jpeg"),
}
FILES = [image_files.encoded(image, kind) for image, kind in IMAGES.values()]
PLAN = CROP.draw(seeds.fold(0, 0, 0, seeds.CROP_AND_FLIP), len(FILES))


@functools.partial(
    tf.function,
    input_signature=[
        tf.TensorSpec([None], tf.string),
        ResizedCropPlan(
            area=tf.TensorSpec([None, ATTEMPTS], tf.float64),
            ratio=tf.TensorSpec([None, ATTEMPTS], tf.float64),
            place=tf.TensorSpec([None, 2], tf.float64),
            flip=tf.TensorSpec([None], tf.bool),
        ),
    ],
)
def cropped(files, plan):
    return CROP.apply(files, plan)


@pytest.fixture(scope="module")
def paths(tmp_path_factory) -> list[str]:
    """The images as files, all named as ImageNet's are."""
    folder = tmp_path_factory.mktemp("images")
    for number, file in enumerate(FILES):
        (folder / f"{number}.JPEG").write_bytes(file)
    return [str(folder / f"{number}.JPEG") for number in range(len(FILES))]


def test_images_are_those_of_pillow():
    assert set(PLAN.flip.numpy()) == {False, True}
    got = cropped(FILES, PLAN)
    assert (got.dtype, got.shape) == (tf.uint8, [len(FILES), *SIZE, 3])
    for number, (name, file) in enumerate(zip(IMAGES, FILES, strict=True)):
        image = Image.open(io.BytesIO(file)).convert("RGB")
        (top, left, height, width), _ = window_by_definition(row(PLAN, number), *image.size[::-1])
        part = image.crop((left, top, left + width, top + height))
        part = part.resize(SIZE[::-1], Image.Resampling.BILINEAR)
        if PLAN.flip[number]:
            part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        # Pillow rounds twice; CMYK is up to one level off already when it is decoded.
        most = 2 if name == "cmyk" else 1
        assert np.abs(got[number].numpy().astype(int) - np.asarray(part)).max() <= most


def test_a_flip_mirrors_the_very_window():
    flipped = cropped(FILES, PLAN._replace(flip=~PLAN.flip))
    np.testing.assert_array_equal(flipped[:, :, ::-1], cropped(FILES, PLAN))


@pytest.mark.parametrize("run", [eager, tf_data])
def test_files_that_are_read_one_by_one_give_the_same_bytes(run, paths):
    def crop(places, plan):
        return ResizedCrop(SIZE, tf.io.read_file).apply(places, plan)

    got = run(crop, tf.constant(paths), PLAN)
    np.testing.assert_array_equal(got, cropped(FILES, PLAN))


@pytest.mark.parametrize("run", [eager, graph])
@pytest.mark.parametrize("kind", ["half", "gone"])
def test_a_broken_image_is_an_error(run, kind, paths, tmp_path):
    broken = tmp_path / f"{kind}.JPEG"
    if kind == "half":
        broken.write_bytes(FILES[3][:200])
    places = tf.constant([*paths[:2], str(broken), *paths[3:]])
    with pytest.raises((tf.errors.InvalidArgumentError, tf.errors.NotFoundError)):
        run(ResizedCrop(SIZE, tf.io.read_file).apply, places, PLAN)
