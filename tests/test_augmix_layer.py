"""AugMix as a Keras layer: the same mix, drawn anew at each call, in pipelines and in models."""

import collections
import functools
import hashlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from augmix_tf import seeds
from augmix_tf.augment import AugMixSettings, apply_plan, draw_plan
from augmix_tf.augment.layer import AugMix
from augmix_tf.errors import ArgumentError
from tests.runs import eager, graph, tf_data
from tests.test_ops import sample_images

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
    outputs += mapped(layer, 4)
    assert len(set(outputs)) == 8


def called(layer: AugMix, calls: int) -> list[str]:
    """What `mapped` gives, by calls one after another."""
    return digests(layer(IMAGES) for _ in range(calls))


def test_calls_draw_the_same_for_the_same_seed_in_parallel_in_any_order():
    want = called(AugMix(seed=7), 50)
    assert len(set(want)) == 50
    assert mapped(AugMix(seed=7), 50) == want
    assert collections.Counter(mapped(AugMix(seed=7), 50, parallel=8)) == collections.Counter(want)
    assert not {*called(AugMix(seed=8), 10), *called(AugMix(), 10)} & set(want)


def test_without_a_seed_it_follows_the_seed_of_keras():
    keras.utils.set_random_seed(3)
    want = called(AugMix(), 2)
    assert called(AugMix(), 2) != want
    keras.utils.set_random_seed(3)
    assert called(AugMix(), 2) == want


def test_takes_single_pictures_and_batches_of_unknown_size():
    one = AugMix(seed=1)(IMAGES[0])
    np.testing.assert_array_equal(one, AugMix(seed=1)(IMAGES[:1])[0])
    pieces = tf.data.Dataset.from_tensor_slices(IMAGES)
    for pipeline in (pieces, pieces.batch(8)):
        augmented = pipeline.map(AugMix(seed=1))
        assert augmented.element_spec.dtype == tf.float32
        assert augmented.element_spec.shape.as_list() == pipeline.element_spec.shape.as_list()


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int32])
def test_other_types_are_rounded_to_levels_first(dtype):
    want = AugMix(seed=1)(IMAGES)
    values = IMAGES.astype(dtype)
    if np.issubdtype(dtype, np.floating):
        values += dtype(0.375) * (IMAGES < 64)
        values[IMAGES == 255] = 300  # more than white is white
        values[IMAGES == 0] = -3
    got = AugMix(seed=1)(values)
    assert got.dtype == (tf.float32 if dtype == np.int32 else dtype)
    np.testing.assert_array_equal(got, tf.cast(want, got.dtype))


def test_does_nothing_when_not_training():
    layer = AugMix(seed=1)
    for images in (IMAGES, IMAGES + np.float64(0.3), IMAGES[0]):
        got = layer(images, training=False)
        assert got.dtype == (tf.float32 if images.dtype == np.uint8 else images.dtype)
        np.testing.assert_array_equal(got, images.astype(got.dtype.as_numpy_dtype))
    np.testing.assert_array_equal(layer(IMAGES), AugMix(seed=1)(IMAGES))  # and draws nothing


def test_mixed_precision_does_not_coarsen_pictures():
    want = AugMix(seed=1)(IMAGES)
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        layer = AugMix(seed=1)
    finally:
        keras.config.set_dtype_policy("float32")
    assert layer(keras.Input((12, 20, 3))).dtype == "float32"
    np.testing.assert_array_equal(layer(IMAGES.astype(np.float32)), want)


def test_configuration_makes_the_same_layer_again():
    arguments = {"severity": 2.5, "width": 2, "depth": 2, "alpha": 0.5, "all_ops": True}
    arguments |= {"seed": 9, "value_range": (0, 255), "fill": 7, "name": "mixer"}
    layer = AugMix(**arguments)
    assert arguments.items() <= layer.get_config().items()
    again = AugMix.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    assert again.settings == AugMixSettings(2.5, 2, 2, 0.5, True)
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


@pytest.mark.parametrize(
    ("run", "value_range"),
    [(eager, (0, 1)), (eager, (-1, 1)), (graph, (-1, 1)), (tf_data, (0, 1))],
)
def test_a_range_of_values_is_that_of_levels_scaled(run, value_range):
    """Whole levels and, in the second half of the batch, values near them."""
    low, high = value_range
    want = AugMix(seed=1)(IMAGES) * ((high - low) / 255) + low
    levels = (IMAGES * np.float32((high - low) / 255) + low).astype(np.float32)
    jitter = np.random.default_rng(0).uniform(-0.49, 0.49, IMAGES.shape) * (high - low) / 255
    jitter[:4] = 0
    got = run(AugMix(seed=1, value_range=value_range), (levels + jitter).astype(np.float32))
    assert got.dtype == tf.float32
    np.testing.assert_array_equal(got, want)


FLOATS = IMAGES.astype(np.float32)
STANDARDIZED = ((FLOATS - 120) / 60).astype(np.float32)


@pytest.mark.parametrize(
    ("images", "value_range"),
    [
        (FLOATS / 255, (0, 255)),
        (STANDARDIZED, (0, 255)),
        (STANDARDIZED, (0, 1)),
        (FLOATS / 127.5 - 1, (0, 1)),
        (FLOATS, (-1, 1)),
    ],
)
def test_floats_that_cannot_be_in_the_range_are_refused(images, value_range):
    with pytest.raises(ArgumentError, match=r"the value_range; received floating-point .* -?\d"):
        AugMix(value_range=value_range)(images)


@pytest.mark.parametrize("run", [graph, tf_data])
def test_in_graphs_they_are_refused_when_they_come(run):
    with pytest.raises(tf.errors.InvalidArgumentError, match="the value_range; received"):
        run(AugMix(), FLOATS / 255)


@pytest.mark.parametrize(
    "images",
    [
        np.zeros_like(FLOATS),
        np.minimum(FLOATS, 1),  # whole levels
        np.pad(FLOATS[:, :1, :1] / 512, [(0, 0), (0, 11), (0, 19), (0, 0)]),  # interpolated
        FLOATS * 1.2 - 20,  # overshoot of an interpolation
    ],
    ids=["black", "levels 0 and 1", "nearly black", "overshoot"],
)
def test_dark_and_overshooting_images_are_taken(images):
    assert AugMix()(images).shape == images.shape


@pytest.mark.parametrize("run", [eager, tf_data])
def test_a_dictionary_keeps_its_other_entries(run):
    data = {"images": IMAGES, "labels": np.arange(8), "path": np.array(["a"] * 8)}
    got = run(AugMix(seed=1), data)
    np.testing.assert_array_equal(got["images"], AugMix(seed=1)(IMAGES))
    np.testing.assert_array_equal(got["labels"], data["labels"])
    assert got.keys() == data.keys()
    np.testing.assert_array_equal(data["images"], IMAGES)


def test_a_model_of_a_dictionary_and_boxes_that_would_not_move():
    inputs = {
        name: keras.Input(shape, name=name)
        for name, shape in (("images", (12, 20, 3)), ("labels", ()))
    }
    model = keras.Model(inputs, AugMix(seed=1)(inputs))
    data = {"images": FLOATS, "labels": np.arange(8, dtype=np.float32)}
    np.testing.assert_array_equal(model(data, training=True)["images"], AugMix(seed=1)(IMAGES))
    with pytest.raises(ArgumentError, match=r"do not move with the images; received"):
        AugMix()(data | {"bounding_boxes": np.zeros((8, 1, 4))})


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_an_empty_batch_gives_an_empty_batch(dtype):
    none, layer = np.zeros((0, 12, 20, 3), dtype), AugMix()
    unknown = tf.function(layer, input_signature=[tf.TensorSpec([None, 12, 20, 3], dtype)])
    for got in (layer(none), unknown(none)):
        assert got.shape == none.shape
        assert got.dtype == tf.float32


def test_grey_images_are_changed_as_three_equal_channels():
    grey = IMAGES[..., :1]
    layer = functools.partial(AugMix, all_ops=True, seed=3)
    want = layer()(np.repeat(grey, 3, axis=-1)).numpy()
    np.testing.assert_array_equal(want, np.repeat(want[..., :1], 3, axis=-1))
    for run in (eager, tf_data):
        np.testing.assert_array_equal(run(layer(), grey), want[..., :1])
    np.testing.assert_array_equal(layer()(grey[2]), layer()(np.repeat(grey[2], 3, -1))[..., :1])


def test_pixels_outside_the_image_get_the_fill():
    seed = seeds.fold(
        *tf.random.Generator.from_seed(1, "philox").uniform_full_int([2], tf.int32), 0, 1
    )
    want = apply_plan(IMAGES, draw_plan(seed, 8, (12, 20), AugMixSettings()), 255)
    np.testing.assert_array_equal(AugMix(seed=1, fill=255)(IMAGES), want)
    assert (want != AugMix(seed=1)(IMAGES)).numpy().any()


def test_a_size_unknown_until_run_time_is_refused_with_what_to_do():
    spec = tf.TensorSpec([None, None, None, 3], tf.uint8)
    batches = tf.data.Dataset.from_generator(lambda: [IMAGES], output_signature=spec)
    with pytest.raises(Exception, match=r"received \(None, None, None, 3\)\. Resize them"):
        batches.map(AugMix())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: AugMix(severity=11), r"severity must be 0\.1 to 10; received 11\."),
        (lambda: AugMix(value_range=(1, 0)), r"value_range \(low, high\).*received \(1, 0\)"),
        (lambda: AugMix(value_range=(0, 1))(IMAGES), r"value_range=\(0, 255\) for integers"),
        (lambda: AugMix(fill=256), r"fill level in 0\.\.255; received 256"),
        (lambda: AugMix(data_format="channels_first"), "channels_last'.*received channels_first"),
        (lambda: AugMix()(IMAGES[0, 0]), r"received \(20, 3\)\. The channels are red, green"),
        (lambda: AugMix()(IMAGES[..., [0, 1, 2, 0]]), r"Drop the alpha channel: images"),
        (lambda: AugMix()(IMAGES.transpose(0, 3, 1, 2)), "Move the channels to the end"),
        (lambda: AugMix()({"labels": IMAGES}), r"dictionary with 'images'; received \['labels'\]"),
    ],
)  # fmt: skip
def test_refuses_what_it_cannot_augment_with_what_to_do(call, message):
    with pytest.raises(ArgumentError, match=message):
        call()
