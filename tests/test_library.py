"""The package as other programs use it: its names and documented examples."""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf

import augmix_tf

CLASSES = ("AugMix", "AugMixModel", "RandAugment", "TrivialAugment")
INTERFACE = {
    "augment": ["AugMixPlan", "AugMixSettings", "apply_plan", "augmix_views", "draw_plan"],
    "corruptions": ["CORRUPTIONS", "EXTRA_CORRUPTIONS", "PERTURBATIONS", "corrupt"],
    "evaluation": ["benchmark"],
    "losses": ["augmix_loss", "jensen_shannon"],
    "metrics": [
        "brier_score",
        "expected_calibration_error",
        "flip_probability",
        "mean_corruption_error",
        "rms_calibration_error",
        "top5_distance",
    ],
    "models": ["build", "load_torch_state"],
    "ops": ["OPERATIONS", "apply_op"],
    "seeds": ["fold"],
}


def test_one_import_reaches_everything_and_lists_it():
    for room, names in INTERFACE.items():
        assert room in dir(augmix_tf)
        for name in names:
            assert hasattr(getattr(augmix_tf, room), name), f"{room}.{name}"
    assert {*CLASSES, *INTERFACE} == set(augmix_tf.__all__)
    with pytest.raises(AttributeError, match="no attribute 'AugMax'"):
        augmix_tf.AugMax  # noqa: B018


@pytest.mark.parametrize(
    "thing",
    [getattr(augmix_tf, name) for name in CLASSES]
    + [getattr(getattr(augmix_tf, room), n) for room, names in INTERFACE.items() for n in names],
    ids=lambda thing: getattr(thing, "__name__", "constant"),
)
def test_every_function_shows_an_example(thing):
    # A plan is made by `draw_plan` and shown with `apply_plan`.
    if callable(thing) and thing is not augmix_tf.augment.AugMixPlan:
        assert "\n>>> " in inspect.getdoc(thing)


def test_the_layer_stands_where_one_of_keras_stands():
    layer = augmix_tf.AugMix(seed=3)
    stack = keras.layers.Pipeline([keras.layers.RandomFlip(seed=1), layer])
    batches = tf.data.Dataset.from_tensors(np.zeros((4, 6, 8, 3), np.uint8))
    assert batches.map(stack).element_spec.shape == (4, 6, 8, 3)
    assert layer.compute_output_shape((None, 6, 8, 3)) == (None, 6, 8, 3)
