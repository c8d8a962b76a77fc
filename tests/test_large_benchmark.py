"""The benchmark of large images: its rival's work, what it measures, what it prints."""

import importlib

import numpy as np
from PIL import Image

from augmix_tf.models import IMAGENET_NORMALIZATION

# Not imported by statement: the benchmarks are no part of what BUILD describes.
large = importlib.import_module("benchmarks.large")
large_index = importlib.import_module("benchmarks.large_index")
large_rival = importlib.import_module("benchmarks.large_rival")
rivals = importlib.import_module("benchmarks.rivals")

SIZE = (20, 24)


def test_both_sides_normalise_to_the_same_values(tmp_path):
    colour = np.array([0, 128, 255], np.uint8)
    path = tmp_path / "val" / "n00000001" / "one.png"
    path.parent.mkdir(parents=True)
    Image.fromarray(np.broadcast_to(colour, (30, 41, 3)).copy()).save(path)
    mean, deviation = np.array(IMAGENET_NORMALIZATION)
    want = np.broadcast_to((colour / 255 - mean) / deviation, (*SIZE, 3))
    rng = np.random.default_rng(0)
    theirs = large_rival.views(rng, path, 0, SIZE, IMAGENET_NORMALIZATION)
    np.testing.assert_allclose(theirs, want[None], atol=1e-5)
    store = large.images_in(tmp_path, SIZE, 5)
    views, _ = next(iter(large.batches(store, 2, views=1)))
    np.testing.assert_allclose(views, np.broadcast_to(want, (2, 1, *SIZE, 3)), atol=1e-5)


def test_the_records_are_such_as_training_indexes_and_reads():
    with large_index.made(records=3, size=700, files=6) as files:
        for entries in large_index.index(files, 2):
            assert [label for _, label, _ in entries] == [0, 1, 2]
            assert entries[2][2] == b"n01440764_2.JPEG"
        store = large_index.shuffled(files)
        assert len(store) == len(np.unique(store.places, axis=0)) == 24
        sizes = [len(store.read_encoded(place).numpy()) for place in store.places]
        assert sizes == [700] * 24
        files.forget()
        assert len(large_index.index(files, 1)[0]) == 3
        found = large_index.figures(files, rounds=1)
    assert len(found) == 5
    for row in found.values():
        assert 0 < row["seconds_per_10000"] < row["seconds_for_imagenet"]
