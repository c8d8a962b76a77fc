"""Trains on your own images with AugMix; tf.data makes the views while the network trains.

    python examples/own_images.py FOLDER [EPOCHS]

FOLDER has one subdirectory of images for each class. A fifth of the images is held out and
evaluated, clean and corrupted. The trained network is saved without AugMix as FOLDER.keras.

With KerasHub (`pip install 'augmix_tf[hub]'`) the network can be one of its classifiers. They give
logits and scale images in a separate `preprocessor`; add the scaling as a first layer instead:

    classifier = keras_hub.models.ImageClassifier.from_preset("...", num_classes=classes)
    keras.Sequential([keras.Input((*SIZE, 3)), keras.layers.Rescaling(1 / 255), classifier])
"""

import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import augmix_tf
from augmix_tf.augment import AugMixSettings, augmix_views

SIZE, BATCH, SEED = (64, 96), 32, 1  # height and width


def network(classes: int) -> keras.Model:
    """Returns a small classifier of images in 0..255."""
    stack = [keras.Input((*SIZE, 3)), keras.layers.Rescaling(1 / 255)]
    for filters in (16, 32, 64):
        stack += [keras.layers.Conv2D(filters, 3, 2, use_bias=False), keras.layers.ReLU()]
        stack += [keras.layers.BatchNormalization(momentum=0.9)]
    return keras.Sequential(
        [*stack, keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(classes)]
    )


def views_of(batches: tf.data.Dataset, epochs: int) -> tf.data.Dataset:
    """Returns batches of views [N, 3, H, W, 3] and labels, with other random draws in each step."""

    def views(step: tf.Tensor, batch: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        return augmix_views(batch[0], SEED, 0, step, AugMixSettings(severity=3)), batch[1]

    numbered = batches.repeat(epochs).enumerate()
    return numbered.map(views, num_parallel_calls=tf.data.AUTOTUNE).prefetch(2)


def main(folder: str, epochs: str = "10") -> dict[str, float]:
    """Returns the error on clean images and under each corruption."""
    keras.utils.set_random_seed(SEED)
    train, test = keras.utils.image_dataset_from_directory(
        folder, image_size=SIZE, batch_size=BATCH, seed=SEED, validation_split=0.2, subset="both"
    )
    model = augmix_tf.AugMixModel(network(len(train.class_names)))
    rate = keras.optimizers.schedules.CosineDecay(0.05, len(train) * int(epochs))
    model.compile(keras.optimizers.SGD(rate, momentum=0.9, nesterov=True), metrics=["accuracy"])
    model.fit(
        views_of(train, int(epochs)), epochs=int(epochs), steps_per_epoch=len(train),
        validation_data=test,
    )  # fmt: skip
    model.backbone.save(Path(folder).with_suffix(".keras"))

    batches = list(test.as_numpy_iterator())
    images = np.concatenate([x for x, _ in batches]).round().astype(np.uint8)
    labels = np.concatenate([y for _, y in batches])
    errors = {"clean": model.evaluate(images, labels, verbose=0, return_dict=True)["error"]}
    for name in ("gaussian_noise", "defocus_blur", "fog", "pixelate"):
        corrupted = augmix_tf.corruptions.corrupt(images, name, severity=3)
        errors[name] = model.evaluate(corrupted, labels, verbose=0, return_dict=True)["error"]
    return errors


if __name__ == "__main__":
    for name, error in main(*sys.argv[1:]).items():
        print(f"{name:20}{100 * error:6.1f} % error")
