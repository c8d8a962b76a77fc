"""`AugMixModel` with other methods than AugMix: the same steps as the program's, by `fit` alone."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from augmix_tf import AugMixModel, methods, seeds
from augmix_tf.augment.method import BatchShape
from augmix_tf.errors import ArgumentError
from augmix_tf.training.step import Trainer
from tests.arrays import assert_near

SIZE, BATCH, CLASSES = (6, 8), 4, 5
MIXING = {"mixing_images": 3}
PATCHES = MIXING | {"patch_sides": "2,4"}
# A name, and the settings of the method.
CASES = [
    ("trivialaugment", {"space": "standard"}),
    ("pixmix", MIXING | {"jsd": True, "jsd_weight": 3.0, "all_ops": False}),
    ("ipmix", PATCHES | {"label_all_views": True}),
    ("augmix_textures", PATCHES | {"texture_share": 0.8, "jsd": False}),
]


def backbone() -> keras.Model:
    keras.utils.set_random_seed(0)
    layers = keras.layers
    stack = [
        layers.Rescaling(1 / 255),
        layers.Conv2D(4, 3, use_bias=False),
        layers.BatchNormalization(),
    ]
    stack += [layers.GlobalAveragePooling2D(), layers.Dense(CLASSES)]
    return keras.Sequential([keras.Input((*SIZE, 3)), *stack])


def examples():
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (2 * BATCH, *SIZE, 3), np.uint8)
    return images, rng.integers(0, CLASSES, 2 * BATCH)


@pytest.mark.parametrize(("name", "settings"), CASES)
def test_fit_trains_on_the_views_that_the_method_makes(name, settings, tmp_path):
    """As the trainer of `main.py` does when it is given these views, and again after loading."""
    model = AugMixModel(backbone(), method=name, seed=7, **settings)
    model.compile(keras.optimizers.SGD(0.1))
    model.save(tmp_path / "model.keras")
    pictures, labels = examples()
    dataset = tf.data.Dataset.from_tensor_slices((pictures, labels)).batch(BATCH)
    model.fit(dataset, verbose=0)

    method = methods.METHODS[name].method(**settings)
    weight = 3.0 if name == "pixmix" else 12.0
    trainer = Trainer(backbone(), weight, label_all_views=method.label_all_views)
    trainer.compile(keras.optimizers.SGD(0.1))
    for step, (images, classes) in enumerate(dataset):
        plan = method.draw(seeds.BatchSeeds(7, 0, step), BatchShape(BATCH, SIZE))
        trainer.train_step((method.apply(images, classes, plan).views, classes))
    assert_near(model.backbone.get_weights(), trainer.classifier.get_weights(), 1e-5, 1e-6)

    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.method == method


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("pixmx", {}, "Did you mean 'pixmix'"),
        ("mixup", {}, "changes only images.*--method=mixup.*received mixup"),
        ("adversarial", {}, "changes only images"),
        ("trivialaugment", {"width": 2}, "trivialaugment does not use width; received 2"),
        ("cutout", {"views": 2}, "cutout does not use views"),
        ("pixmix", {"pixmix_beta": 0.0}, "pixmix_beta must be above 0"),
        ("pixmix", {"severity": 11}, "^severity must be 0.1 to 10"),
        ("augmix", {"split_bn": True}, "split_bn=False"),
        ("augmix_textures", {"ramp_epochs": 2}, "ramp_epochs=0"),
        ("augmix", {"patch_sides": "2"}, "patch_sides"),
    ],
)
def test_what_a_method_cannot_use_is_refused(method, options, message):
    with pytest.raises((ArgumentError, TypeError, ValueError), match=message):
        AugMixModel(backbone(), method=method, **options)


def test_a_mask_that_does_not_fit_the_images_is_refused():
    model = AugMixModel(backbone(), method="ipmix", patch_sides="16", mixing_images=2)
    model.compile("sgd")
    with pytest.raises(ArgumentError, match="patch_sides must fit into the images of 6 x 8"):
        model.fit(*examples(), verbose=0)
