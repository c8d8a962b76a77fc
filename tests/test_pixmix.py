"""PixMix against the authors' code, and how its plans are drawn."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from scipy import stats

from augmix_tf import ops, seeds
from augmix_tf.augment import mixing_set, pixmix
from augmix_tf.augment.augmix import AugMixSettings
from augmix_tf.augment.method import BatchShape
from augmix_tf.augment.pixmix import PixMixMethod, PixMixPlan, apply_pixmix, draw_pixmix
from tests import golden
from tests.runs import leave_out_xla

SIZE = (9, 14)


def recorded_mixing_set(reference) -> tuple[mixing_set.MixingSet, np.ndarray]:
    """The mixing set of the original code, and the places of its crops of 32 x 32 pixels."""
    names = sorted(name for name in reference if name.startswith("mixing_resized_"))
    images = [reference[name] for name in names]
    sizes = np.array([image.shape[:2] for image in images])[reference["mixing_index"]]
    return mixing_set.of_images(images), (reference["mixing_at"] + 0.5) / (sizes - 31)


def numbers(names: np.ndarray, known: tuple[str, ...]) -> np.ndarray:
    """Indexes into `known`; 0 for other names."""
    return np.vectorize({name: i for i, name in enumerate(known)}.get)(names, 0)


def one_view(values: np.ndarray, dtype: tf.DType) -> tf.Tensor:
    return tf.constant(np.nan_to_num(np.asarray(values))[:, None], dtype)


def recorded_plan(reference) -> tuple[mixing_set.MixingSet, PixMixPlan]:
    drawn, place = recorded_mixing_set(reference)
    first = reference["first_op"][:, None]
    names = np.concatenate([first, reference["round_op"]], axis=1)
    parameter = np.concatenate([reference["first_param"][:, None], reference["round_param"]], 1)
    return drawn, PixMixPlan(
        number=one_view(reference["mixing_index"], tf.int32),
        place=one_view(place, tf.float64),
        rounds=one_view(reference["rounds"], tf.int32),
        operates=one_view(
            np.concatenate([first != "", ~reference["round_from_mixing"]], axis=1), tf.bool
        ),
        operation=one_view(numbers(names, ops.OPERATIONS), tf.int32),
        parameter=one_view(parameter, tf.float64),
        multiplies=one_view(reference["mixing"] == "multiply", tf.bool),
        weights=one_view(np.stack([reference["a"], reference["b"]], axis=-1), tf.float32),
    )


def test_equals_the_original_code():
    reference = golden.load("pixmix")
    images = tf.constant(reference["inputs"][reference["index"]])
    got = apply_pixmix(images, *recorded_plan(reference))[:, 0]
    # Powers of another library.
    np.testing.assert_allclose((got / 255 - 0.5) / 0.5, reference["outputs"], rtol=0, atol=2e-6)


def test_sums_and_products_equal_the_original_code_before_they_are_clipped():
    reference = golden.load("pixmix")
    x, y = reference["corner_1"], reference["corner_2"]
    levels = np.round(y * 255).astype(np.int32)
    np.testing.assert_allclose(levels / np.float32(255), y, rtol=1e-7)  # they are levels
    for weights, (added, multiplied) in zip(
        reference["corner_ab"], reference["corner_unclipped"], strict=True
    ):
        np.testing.assert_allclose(pixmix.add(x, y, weights), added, rtol=1e-6, atol=1e-7)
        got = pixmix.multiply(tf.constant(x), levels, tf.constant(weights))
        np.testing.assert_allclose(got, multiplied, rtol=1e-6)


def test_draws_have_the_frequencies_of_the_original_code():
    count, beta = 4000, 3.0
    seed = seeds.fold(1, 0, 0, 1)
    plan = draw_pixmix([seed], BatchShape(count, SIZE), AugMixSettings(all_ops=True), beta, 5)
    for part, values in ((plan.number, 5), (plan.rounds, 5), (plan.operation, 13)):
        frequencies = np.bincount(np.ravel(part), minlength=values)
        assert len(frequencies) == values
        assert stats.chisquare(frequencies).pvalue > 1e-6
    for part in (plan.operates, plan.multiplies):
        assert stats.binomtest(int(np.sum(part)), np.size(part)).pvalue > 1e-6
    assert stats.kstest(np.ravel(plan.place), stats.uniform.cdf).pvalue > 1e-6
    a, b = np.reshape(plan.weights, (-1, 2)).T
    inside = b >= 0
    assert stats.binomtest(int(inside.sum()), inside.size).pvalue > 1e-6
    high, low = stats.beta(beta, 1).cdf, stats.beta(1, beta).cdf
    for drawn, distribution in (
        (a[inside], high),
        (b[inside], low),
        (a[~inside] - 1, low),
        (-b[~inside], low),
    ):
        assert stats.kstest(drawn, distribution).pvalue > 1e-6
    for part in (inside, ~inside):
        assert abs(np.corrcoef(a[part], b[part])[0, 1]) < 0.05


def test_with_the_consistency_loss_the_first_view_is_clean_and_the_next_as_without_it(monkeypatch):
    leave_out_xla(monkeypatch)
    images = tf.constant(np.random.default_rng(0).integers(0, 256, (4, *SIZE, 3), np.uint8))
    alone, both = (PixMixMethod(jsd=jsd, mixing_images=3) for jsd in (False, True))
    streams, batch = seeds.BatchSeeds(3, 1, 2), BatchShape(4, SIZE)
    drawn, plan = both.draw(streams, batch), alone.draw(streams, batch)
    for part, first in zip(tf.nest.flatten(drawn), tf.nest.flatten(plan), strict=True):
        np.testing.assert_array_equal(part[:, :1], first)
    views = both.apply(images, tf.zeros([4]), drawn).views
    assert views.shape == (4, 3, *SIZE, 3)
    np.testing.assert_array_equal(views[:, 0], images)
    assert (both.label({}), both.label({"jsd": True})) == ("pixmix", "pixmix + JSD")
