"""Trains a network of keras.applications with AugMix, then evaluates it on corrupted images.

python examples/keras_applications.py [DATA_DIR [EPOCHS [IMAGES]]]

DATA_DIR is the directory of TFDS for CIFAR-10. IMAGES limits the training and test images.
"""

import sys

import keras
import tensorflow_datasets as tfds

import augmix_tf


def main(data_dir: str | None = None, epochs: str = "10", limit: str = "") -> dict[str, float]:
    """Returns the test error on clean images and under each corruption."""
    part = f"[:{limit}]" if limit else ""
    split = [f"train{part}", f"test{part}"]
    train, test = tfds.load("cifar10", split=split, data_dir=data_dir, as_supervised=True)
    scale = keras.layers.Rescaling(1 / 127.5, offset=-1)  # views are 0 to 255
    network = keras.applications.MobileNet((32, 32, 3), weights=None, classes=10)
    backbone = keras.Sequential([keras.Input((32, 32, 3)), scale, network])
    model = augmix_tf.AugMixModel(backbone, from_logits=False, seed=1)
    model.compile(keras.optimizers.Adam(1e-3), metrics=["accuracy"])
    train = train.cache().shuffle(50_000).batch(128, drop_remainder=True).prefetch(2)
    model.fit(train, validation_data=test.batch(500), epochs=int(epochs))

    images, labels = next(iter(test.batch(2_000)))
    errors = {"clean": model.evaluate(images, labels, return_dict=True)["error"]}
    for name in ("gaussian_noise", "motion_blur", "fog", "jpeg_compression"):
        corrupted = augmix_tf.corruptions.corrupt(images.numpy(), name, severity=3)
        errors[name] = model.evaluate(corrupted, labels, return_dict=True)["error"]
    return errors


if __name__ == "__main__":
    print(main(*sys.argv[1:]))
