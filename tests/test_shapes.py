import hashlib

import numpy as np
import pytest

from augmix_tf.data import shapes
from augmix_tf.errors import ArgumentError
from tests.processes import python

# Images, then labels as little-endian int64. They never change: results on the embedded dataset
# are compared over releases.
SHA256 = {
    "train": "03d899ee37e2d5c2c4885b1cfaded445547e06d4485bfa6e0e3a43d91f43488b",
    "test": "0caa81d72d892455f8c04274aceb59ded9783d2338dd10c0400be65974317f4a",
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


def test_another_split_is_refused():
    with pytest.raises(ArgumentError, match=r"Unknown split 'tset'\. Did you mean 'test'"):
        shapes.make("tset")
