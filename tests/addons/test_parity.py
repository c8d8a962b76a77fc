"""Our operations and losses beside those of tensorflow-addons, with Pillow or NumPy as the judge.

It needs the environment of `requirements-addons.txt` (`.ci/addons` makes one) and is skipped in any
other. Ours equal Pillow there too. Where tensorflow-addons differs, a test says by how much, and
gives the reason by taking it away: then the difference is gone. `docs/addons.md` has the table.
"""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from augmix_tf import losses, ops
from augmix_tf.augment import erasing
from tests.oracles import numpy_losses
from tests.test_ops import PARAMETERS, pillow, sample_images

tfa = pytest.importorskip("tensorflow_addons")

SIZES = [(17, 31), (32, 32), (24, 33)]
NEAREST, BILINEAR = Image.Resampling.NEAREST, Image.Resampling.BILINEAR
RIM = 2
AXES = {"shear_x": tfa.image.shear_x, "shear_y": tfa.image.shear_y}
# No half pixels among them, which single and double precision would send to different sides.
FACTORS = [0.03, -0.03, 0.0871, -0.09, 0.17, -0.23, 0.31, 0.47]


def difference(first, second) -> np.ndarray:
    """`first` - `second` in levels, int64."""
    return np.asarray(first, np.int64) - np.asarray(second, np.int64)


def largest(first, second) -> int:
    return int(np.abs(difference(first, second)).max())


def with_rim(image: np.ndarray) -> np.ndarray:
    """The image in a black frame."""
    return np.pad(image, ((RIM, RIM), (RIM, RIM), (0, 0)))


def without_rim(image: np.ndarray) -> np.ndarray:
    return image[RIM:-RIM, RIM:-RIM]


def affine(image: np.ndarray, matrix, resample) -> np.ndarray:
    """Pillow's transform: output (x, y) is taken from (a x + b y + c, d x + e y + f)."""
    height, width = image.shape[:2]
    picture = Image.fromarray(image)
    method = Image.Transform.AFFINE
    return np.asarray(picture.transform((width, height), method, tuple(matrix), resample))


def shear_matrix(name: str, factor: float, offset: float) -> list[float]:
    if name == "shear_x":
        return [1, factor, offset, 0, 1, 0]
    return [1, 0, 0, factor, 1, offset]


def batch(size, values) -> tuple[np.ndarray, np.ndarray]:
    """Every image with every value: uint8 [N, H, W, 3] and float64 [N]."""
    images = sample_images(*size)
    return np.repeat(images, len(values), axis=0), np.tile(np.float64(values), len(images))


@pytest.mark.parametrize("name", ops.OPERATIONS)
def test_ours_equal_pillow_beside_tensorflow_addons(name):
    images, values = batch((17, 31), list(PARAMETERS[name]))
    got = ops.apply_op(name, images, values)
    np.testing.assert_array_equal(got, pillow(name, images, values))


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_equalize_is_the_same(size):
    images = sample_images(*size)
    theirs = tfa.image.equalize(tf.constant(images))
    np.testing.assert_array_equal(theirs, ops.apply_op("equalize", images, [0.0] * len(images)))
    np.testing.assert_array_equal(theirs, pillow("equalize", images, [0] * len(images)))


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
@pytest.mark.parametrize("fill", [0, 128])
@pytest.mark.parametrize("name", ["translate_x", "translate_y"])
def test_translate_is_the_same_with_the_other_sign(name, fill, interpolation):
    images, shifts = batch((17, 31), list(PARAMETERS[name]))
    moves = np.zeros((len(images), 2), np.float32)
    moves[:, 0 if name == "translate_x" else 1] = -shifts
    theirs = tfa.image.translate(images, moves, interpolation, fill_value=float(fill))
    np.testing.assert_array_equal(theirs, ops.apply_op(name, images, shifts, fill))
    np.testing.assert_array_equal(theirs, pillow(name, images, shifts, fill))


@pytest.mark.parametrize("size", [2, 6, 16])
def test_cutout_is_the_same(size):
    images = sample_images(13, 21).astype(np.float32)
    rows = np.array([0, 0, 12, 12, 5, 6, 1, 7], np.int32)
    columns = np.array([0, 20, 0, 20, 9, 10, 3, 18], np.int32)
    centre = np.stack([rows, columns], axis=1)
    ours = erasing.apply_cutout(images, erasing.CutoutPlan(centre), size, fill=127.5)
    np.testing.assert_array_equal(tfa.image.cutout(images, size, centre, 127.5), ours)
    want = images.copy()
    for image, (row, column) in zip(want, centre, strict=True):
        top, left = row - size // 2, column - size // 2
        image[max(top, 0) : top + size, max(left, 0) : left + size] = 127.5
    np.testing.assert_array_equal(ours, want)


@pytest.mark.parametrize("degrees", [7, -9, 30, -30, 12.34, -5.6, 133, 101])
def test_rotate_differs_by_the_rim_alone(degrees):
    """They blend the outermost half pixel with the filling, Pillow repeats the edge there."""
    images = sample_images(17, 31)
    angles = [degrees] * len(images)
    theirs = tfa.image.rotate(images, np.deg2rad(degrees), "bilinear").numpy()
    framed = np.stack([with_rim(image) for image in images])
    ours = ops.apply_op("rotate", framed, angles).numpy()
    np.testing.assert_array_equal(ours, pillow("rotate", framed, angles))
    in_frame = np.stack([without_rim(image) for image in ours])
    # Single precision against double, both cut.
    assert largest(theirs, in_frame) <= 1
    unframed = ops.apply_op("rotate", images, angles)
    assert 100 < largest(theirs, unframed) <= 255


@pytest.mark.parametrize("degrees", [7, -9, 12.34, -5.6])
def test_rotate_by_default_takes_the_nearest_pixel(degrees):
    images = sample_images(17, 31)
    theirs = tfa.image.rotate(images, np.deg2rad(degrees))
    for their, image in zip(theirs, images, strict=True):
        want = Image.fromarray(image).rotate(degrees, NEAREST)
        np.testing.assert_array_equal(their, want)


@pytest.mark.parametrize("name", AXES)
def test_their_transform_shears_as_ours_but_for_the_rim(name):
    images, factors = batch((17, 31), FACTORS)
    rows = [[*shear_matrix(name, f, f / 2), 0, 0] for f in factors]
    theirs = tfa.image.transform(images, np.float32(rows), "bilinear").numpy()
    ours = ops.apply_op(name, images, factors)
    np.testing.assert_array_equal(ours, pillow(name, images, factors))
    assert 50 < largest(theirs, ours) <= 255
    for their, image, factor in zip(theirs, images, factors, strict=True):
        # The same lines of sight, from a corner that lies `RIM` further out.
        matrix = shear_matrix(name, factor, -RIM * factor)
        assert largest(their, without_rim(affine(with_rim(image), matrix, BILINEAR))) <= 1


@pytest.mark.parametrize("fill", [0, 128])
@pytest.mark.parametrize("name", AXES)
def test_their_shear_takes_the_nearest_pixel_and_measures_from_the_first_row(name, fill):
    images, factors = batch((17, 31), FACTORS)
    for image, factor in zip(images, factors, strict=True):
        their = AXES[name](image, float(factor), [fill] * 3)
        matrix = shear_matrix(name, factor, -factor / 2)
        picture = Image.fromarray(image)
        want = picture.transform(
            picture.size, Image.Transform.AFFINE, matrix, NEAREST, fillcolor=(fill,) * 3
        )
        np.testing.assert_array_equal(their, want)


@pytest.mark.parametrize("name", AXES)
def test_so_their_shear_is_off_by_up_to_half_a_pixel_and_half_the_factor(name):
    """On a ramp of 6 levels a pixel: 6 * (1/2 + |factor| / 2), and one for the cut."""
    ramp = np.repeat(np.arange(0, 6 * 40, 6, dtype=np.uint8)[None, :, None], 3, axis=2)
    image = np.repeat(ramp, 25, axis=0)
    image = image if name == "shear_x" else image.transpose(1, 0, 2)
    found = []
    for factor in FACTORS:
        their = AXES[name](image, factor, [0] * 3).numpy()
        ours = ops.apply_op(name, image[None], [factor])[0].numpy()
        # Along the slide, as far from both ends as anything is moved.
        ends = int(np.ceil(abs(factor) * 25)) + 1
        inner = (slice(None), slice(ends, -ends))
        inner = inner if name == "shear_x" else inner[::-1]
        off = largest(their[inner], ours[inner])
        assert off <= 6 * (0.5 + abs(factor) / 2) + 1
        found.append(off)
    assert max(found) >= 3


@pytest.mark.parametrize("factor", PARAMETERS["sharpness"])
def test_sharpness_differs_by_their_rounding(factor):
    images = sample_images(17, 31)
    factors = [factor] * len(images)
    theirs = tfa.image.sharpness(tf.constant(images), factor)
    ours = ops.apply_op("sharpness", images, factors)
    np.testing.assert_array_equal(ours, pillow("sharpness", images, factors))
    # |1 - factor| for the smoothed image, one for the blend.
    assert largest(theirs, ours) <= np.ceil(abs(1 - factor)) + (factor not in (0.0, 1.0))


def test_their_smoothed_picture_is_cut_where_pillow_rounds():
    images = sample_images(17, 31)
    theirs = tfa.image.sharpness(tf.constant(images), 0.0)
    off = difference(pillow("sharpness", images, [0.0] * len(images)), theirs)
    assert set(np.unique(off)) == {0, 1}


@pytest.mark.parametrize("name", ["brightness", "color", "contrast"])
@pytest.mark.parametrize("factor", [0.118, 0.5, 0.99, 1.5, 1.9])
def test_their_blend_is_rounded_where_pillow_cuts(name, factor):
    images = sample_images(17, 31)
    factors = np.full(len(images), factor)
    other = pillow(name, images, 0 * factors)
    theirs = tfa.image.blend(tf.constant(other), tf.constant(images), factor)
    ours = ops.apply_op(name, images, factors)
    np.testing.assert_array_equal(ours, pillow(name, images, factors))
    assert set(np.unique(difference(theirs, ours))) == {0, 1}


def test_random_cutout_keeps_the_whole_square_inside():
    """Ours may reach over the rim, as in the paper; for their centres both are the same."""
    images = np.ones((200, 13, 21, 3), np.float32)
    theirs = tfa.image.random_cutout(images, 6, constant_values=0, seed=3).numpy()
    holes = theirs[..., 0] == 0.0
    assert set(holes.sum(axis=(1, 2))) == {36}
    centre = np.stack([holes.any(axis=2).argmax(axis=1), holes.any(axis=1).argmax(axis=1)], axis=1)
    plan = erasing.CutoutPlan(np.int32(centre + 3))
    np.testing.assert_array_equal(erasing.apply_cutout(images, plan, 6, fill=0.0), theirs)
    drawn = erasing.draw_cutout(tf.constant([1, 2]), 200, (13, 21))
    ours = erasing.apply_cutout(images, drawn, 6, fill=0.0).numpy()[..., 0] == 0.0
    assert 9 <= ours.sum(axis=(1, 2)).min() < 36 == ours.sum(axis=(1, 2)).max()


def test_cross_entropy_is_their_n_pairs_loss():
    """A row's targets are shared by all columns of its class; the loss is a mean."""
    logits = 4 * np.random.default_rng(0).standard_normal((7, 7))
    classes = np.array([0, 1, 2, 1, 0, 3, 1])
    same = (classes[:, None] == classes).astype(np.float64)
    targets = same / same.sum(axis=1, keepdims=True)
    ours = losses.cross_entropy(targets, logits)
    theirs = tfa.losses.npairs_loss(classes, logits)
    np.testing.assert_allclose(tf.reduce_mean(ours), theirs, rtol=1e-12)
    plain = [
        sum(t * numpy_losses.cross_entropy(k, row) for k, t in enumerate(target))
        for target, row in zip(targets, logits, strict=True)
    ]
    np.testing.assert_allclose(ours, plain, rtol=1e-12)


def test_cross_entropy_of_two_classes_is_their_focal_loss_without_focus():
    scores = np.linspace(-9, 9, 12)
    labels = np.arange(12) % 2
    logits = np.stack([np.zeros(12), scores], axis=1)
    ours = losses.cross_entropy(labels, logits)
    theirs = tfa.losses.sigmoid_focal_crossentropy(
        labels[:, None], scores[:, None], alpha=None, gamma=None, from_logits=True
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-9)
    plain = [numpy_losses.cross_entropy(*pair) for pair in zip(labels, logits, strict=True)]
    np.testing.assert_allclose(ours, plain, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("views", [2, 3])
def test_jensen_shannon_is_the_mean_divergence_of_keras_2(views):
    """tensorflow-addons has no such loss; the Keras beside it has the divergence."""
    logits = 4 * np.random.default_rng(1).standard_normal((6, views, 5))
    probabilities = tf.nn.softmax(logits)
    mixture = tf.reduce_mean(probabilities, axis=1)
    divergence = tf.keras.losses.kl_divergence
    divergences = [divergence(p, mixture) for p in tf.unstack(probabilities, axis=1)]
    ours = losses.jensen_shannon(logits)
    # Keras lifts every probability to 1e-7.
    np.testing.assert_allclose(ours, sum(divergences) / views, atol=5e-6)
    plain = [numpy_losses.jensen_shannon(row) for row in logits]
    np.testing.assert_allclose(ours, plain, rtol=1e-12, atol=1e-15)
