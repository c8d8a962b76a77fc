"""AugMix as a Keras layer: the same mix, drawn anew at each call, in pipelines and in models."""

from __future__ import annotations

import collections
import hashlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from augmix_tf import seeds
from augmix_tf.augment import AugMixSettings, apply_plan, draw_plan
from augmix_tf.augment.layer import AugMix
from augmix_tf.errors import ArgumentError
from tests.test_ops import sample_images

FALSE_ALARM = 1e-12  # of one comparison
IMAGES = sample_images(12, 20)


def digests(batches) -> list[str]:
    return [hashlib.sha256(np.asarray(batch).tobytes()).hexdigest() for batch in batches]


def mapped(layer: AugMix, calls: int, parallel: int | None = None) -> list[str]:
    """The same batch again and again through `dataset.map`, which traces the layer once."""
    batches = tf.data.Dataset.from_tensors(IMAGES).repeat(calls)
    return digests(batches.map(layer, num_parallel_calls=parallel))


def test_a_call_applies_a_plan_that_follows_from_the_seed_and_the_calls_before():
    layer, generator = AugMix(severity=5, seed=11), tf.random.Generator.from_seed(11, "philox")
    for _ in range(3):
        seed = seeds.fold(*generator.uniform_full_int([2], tf.int32).numpy(), 0, 1)
        want = apply_plan(IMAGES, draw_plan(seed, 8, (12, 20), AugMixSettings(severity=5)))
        got = layer(IMAGES)
        assert got.dtype == tf.float32
        np.testing.assert_array_equal(got, want)


def test_draws_anew_at_each_call_wherever_it_is_called():
    layer = AugMix(seed=5)
    traced = tf.function(layer)
    outputs = digests([layer(IMAGES), layer(IMAGES), traced(IMAGES), traced(IMAGES)])
    outputs += mapped(layer, 4) + mapped(layer, 4, parallel=4)
    assert len(set(outputs)) == 12


def test_each_picture_of_a_batch_draws_for_itself():
    same = np.repeat(IMAGES[1:2], 8, axis=0)
    assert len(set(digests(AugMix(seed=5)(same)))) == 8


def test_calls_one_after_another_are_the_same_for_the_same_seed():
    want = mapped(AugMix(seed=7), 30)
    layer = AugMix(seed=7)
    assert digests(layer(IMAGES) for _ in range(30)) == want
    assert not set(mapped(AugMix(seed=8), 30)) & set(want)
    assert not set(mapped(AugMix(), 30)) & set(want)


def test_parallel_calls_draw_the_same_choices_in_any_order_and_none_twice():
    want = mapped(AugMix(seed=7), 200)
    got = mapped(AugMix(seed=7), 200, parallel=8)
    assert len(set(want)) == 200
    assert collections.Counter(got) == collections.Counter(want)


def test_without_a_seed_it_follows_the_seed_of_keras():
    keras.utils.set_random_seed(3)
    want = mapped(AugMix(), 2)
    assert mapped(AugMix(), 2) != want
    keras.utils.set_random_seed(3)
    assert mapped(AugMix(), 2) == want


@pytest.mark.parametrize("alpha", [1.0, 5.0])
def test_the_share_of_one_solarized_picture_has_its_distribution(alpha):
    """Solarize alone turns white to black, so its middle pixel shows the share that was drawn.

    Of the others, only posterize changes that pixel, by at most 31 levels (3 bits are kept).
    """
    white = np.full((8, 4, 4, 3), 255, np.uint8)
    layer = AugMix(width=1, depth=1, alpha=alpha, seed=13)
    batches = tf.data.Dataset.from_tensors(white).repeat(2_500).map(layer, num_parallel_calls=2)
    middle = np.concatenate([batch[:, 2, 2] for batch in batches.as_numpy_iterator()])
    np.testing.assert_array_equal(middle[:, 0], middle[:, 2])
    share = 1 - middle[:, 0] / 255
    for bound in (32 / 255, 0.3, 0.5, 0.7, 0.9):
        seen, probability = np.sum(share > bound), stats.beta(alpha, alpha).sf(bound) / 9
        tails = (
            stats.binom.cdf(seen, len(share), probability),
            stats.binom.sf(seen - 1, len(share), probability),
        )
        assert min(tails) > FALSE_ALARM / 2, f"{seen} of {len(share)}, expected {probability}"


def test_takes_single_pictures_and_batches_of_unknown_size():
    pieces = tf.data.Dataset.from_tensor_slices(IMAGES)
    for pipeline in (pieces, pieces.batch(4)):
        augmented = pipeline.map(AugMix(seed=1))
        assert augmented.element_spec.dtype == tf.float32
        assert augmented.element_spec.shape.as_list() == pipeline.element_spec.shape.as_list()
        assert [x.shape for x in augmented] == [x.shape for x in pipeline]
    one = AugMix(seed=1)(IMAGES[0])
    np.testing.assert_array_equal(one, AugMix(seed=1)(IMAGES[:1])[0])


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, np.int32])
def test_other_types_are_rounded_to_levels_first(dtype):
    want = AugMix(seed=1)(IMAGES)
    values = IMAGES.astype(dtype)
    if np.issubdtype(dtype, np.floating):
        values += dtype(0.375) * (IMAGES < 64)
        values[IMAGES == 255] = 300  # more than white is white
        values[IMAGES == 0] = -3
    got = AugMix(seed=1)(values)
    assert got.dtype == tf.float32
    np.testing.assert_array_equal(got, want)


def test_does_nothing_when_not_training():
    layer = AugMix(seed=1)
    for images in (IMAGES, IMAGES + np.float32(0.3), IMAGES[0]):
        got = layer(images, training=False)
        assert got.dtype == tf.float32
        np.testing.assert_array_equal(got, images.astype(np.float32))
    np.testing.assert_array_equal(layer(IMAGES), AugMix(seed=1)(IMAGES))  # and draws nothing


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_mixed_precision_does_not_coarsen_pictures(policy):
    want = AugMix(seed=1)(IMAGES)
    keras.config.set_dtype_policy(policy)
    try:
        layer = AugMix(seed=1)
    finally:
        keras.config.set_dtype_policy("float32")
    assert layer(keras.Input((12, 20, 3))).dtype == "float32"
    np.testing.assert_array_equal(layer(IMAGES.astype(np.float32)), want)


def test_configuration_makes_the_same_layer_again():
    arguments = {
        "severity": 2.5,
        "width": 2,
        "depth": 2,
        "alpha": 0.5,
        "all_ops": True,
        "seed": 9,
        "name": "mixer",
    }
    layer = AugMix(**arguments)
    assert arguments.items() <= layer.get_config().items()
    again = AugMix.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    np.testing.assert_array_equal(again(IMAGES), layer(IMAGES))
    assert AugMix().get_config()["seed"] is None


@pytest.fixture
def model():
    model = keras.Sequential(
        [
            keras.Input((12, 20, 3), dtype="uint8"),
            AugMix(severity=9, seed=4),
            keras.layers.AveragePooling2D(4),
            keras.layers.Flatten(),
            keras.layers.Dense(2),
        ]
    )
    model.compile(keras.optimizers.SGD(0.0), "mse")
    return model


def test_a_model_augments_in_training_only(model):
    assert not model.jit_compile
    np.testing.assert_array_equal(model(IMAGES, training=False), model(IMAGES, training=False))
    assert (model(IMAGES, training=True) != model(IMAGES, training=True)).numpy().any()
    targets = np.zeros((8, 2))
    losses = model.fit(IMAGES, targets, batch_size=8, epochs=4, verbose=0).history["loss"]
    assert len(set(losses)) == 4  # weights do not move at a rate of 0: the views do
    assert model.evaluate(IMAGES, targets, verbose=0) == model.evaluate(IMAGES, targets, verbose=0)


def test_a_model_is_saved_and_loaded_with_the_layer_in_it(model, tmp_path):
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert isinstance(loaded.layers[0], AugMix)
    assert loaded.layers[0].get_config() == model.layers[0].get_config()
    for training in (False, True):
        want = model(IMAGES, training=training)
        np.testing.assert_array_equal(loaded(IMAGES, training=training), want)


def test_a_checkpoint_holds_how_far_the_layer_has_come(tmp_path):
    layer = AugMix(seed=6)
    layer(IMAGES)
    path = tf.train.Checkpoint(layer=layer).save(tmp_path / "state")
    later = AugMix(seed=0)
    tf.train.Checkpoint(layer=later).restore(path).assert_consumed()
    np.testing.assert_array_equal(later(IMAGES), layer(IMAGES))


def test_refuses_what_it_cannot_augment():
    with pytest.raises(ArgumentError, match=r"severity must be 0\.1 to 10; received 11\."):
        AugMix(severity=11)
    for shape in [(12, 20), (2, 12, 20, 1), (1, 2, 12, 20, 3)]:
        with pytest.raises(ArgumentError, match="H and W known"):
            AugMix()(np.zeros(shape, np.uint8))
    with pytest.raises(ArgumentError, match=r"received \(None, None, None, 3\)"):
        AugMix()(keras.Input((None, None, 3)))
