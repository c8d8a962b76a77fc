import hashlib

import numpy as np
import pytest

from augmix_tf.data import shapes
from augmix_tf.errors import ArgumentError
from tests.processes import python

# Images, then labels as little-endian int64. They never change: results on the embedded dataset
# are compared over releases.
SHA256 = {
    "train": "6bbb90cd9915ee0627cb19441b484fb93733a99b044e62cc2731d009505aae6e",
    "test": "a078e2eaee8de1e35720c4df3795b4e815577cbc69237488e498ff857d62c2dc",
}
CLASSES = len(shapes.CLASS_NAMES)


def digest(images, labels):
    return hashlib.sha256(images.tobytes() + labels.astype("<i8").tobytes()).hexdigest()


@pytest.fixture(scope="module")
def splits():
    return {split: shapes.make(split) for split in SHA256}


@pytest.mark.parametrize("split", SHA256)
def test_every_byte_is_pinned(splits, split):
    images, labels = splits[split]
    assert (images.dtype, labels.dtype) == (np.uint8, np.int64)
    assert images.shape == (shapes.SPLIT_SIZES[split], 32, 32, 3)
    assert digest(images, labels) == SHA256[split]


def test_a_fresh_process_draws_the_same_without_tensorflow():
    script = """
import hashlib, sys
from augmix_tf.data import shapes
images, labels = shapes.make("test")
print(hashlib.sha256(images.tobytes() + labels.astype("<i8").tobytes()).hexdigest())
sys.exit("tensorflow" in sys.modules)
"""
    assert python(script).strip() == SHA256["test"]


def test_another_seed_gives_other_images(splits):
    images, labels = shapes.make("test", seed=2**64 - 1)
    want_images, want_labels = splits["test"]
    assert np.abs(images.astype(int) - want_images).mean() > 20
    assert np.mean(labels == want_labels) < 0.2
    assert np.bincount(labels).tolist() == [100] * CLASSES


def test_no_image_is_repeated(splits):
    contents = [image.tobytes() for images, _ in splits.values() for image in images]
    assert len(set(contents)) == len(contents) == 6000


def test_the_weave_of_a_class_is_in_its_images_only_also_mirrored(splits):
    images, labels = splits["test"]
    power = np.abs(np.fft.fft2(images.mean(axis=3))) ** 2
    power += np.abs(np.fft.fft2(images[:, :, ::-1].mean(axis=3))) ** 2
    for label, (across, down) in enumerate(shapes.WEAVES):
        at = power[:, down, across]
        assert at[labels == label].mean() > 3 * at[labels != label].mean()


def test_another_split_is_refused():
    with pytest.raises(ArgumentError, match=r"Unknown split 'tset'\. Did you mean 'test'"):
        shapes.make("tset")
