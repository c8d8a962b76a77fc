"""Broken records: named and counted, or left out with everything else as it was."""

from __future__ import annotations

import io
import re
import shutil

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

from augmix_tf import recipes
from augmix_tf.commands import build
from augmix_tf.config import ExperimentConfig
from augmix_tf.data import damage, sources, tfrecord
from augmix_tf.errors import ArgumentError, FileError
from augmix_tf.settings import settings_of

COUNTS = {"train": 23, "test": 9}
HEIGHT, WIDTH = 5, 7


def examples(split, ids):
    rng = np.random.default_rng(len(split))
    for number in range(COUNTS[split]):
        image = rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
        image[0, 0], image[-1, -1] = 0, 255
        example = {"image": image, "label": number % 3}
        yield number, example | ({"id": f"{split}_{number:05d}"} if ids else {})


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Two sets in three files a split: "numbered", whose ids TFDS shuffled, and "plain"."""
    root = tmp_path_factory.mktemp("prepared")
    for name, ids in (("numbered", True), ("plain", False)):
        features = {
            "image": tfds.features.Image(shape=(HEIGHT, WIDTH, 3)),
            "label": tfds.features.ClassLabel(names=["cat", "dog", "eel"]),
        }
        tfds.dataset_builders.store_as_tfds_dataset(
            name=name,
            version="1.0.0",
            features=tfds.features.FeaturesDict(
                features | ({"id": tfds.features.Text()} if ids else {})
            ),
            split_datasets={split: list(examples(split, ids)) for split in COUNTS},
            data_dir=root,
            download_config=tfds.download.DownloadConfig(num_shards=3),
        )
    return root


@pytest.fixture
def own(prepared, tmp_path):
    return shutil.copytree(prepared, tmp_path / "data")


@pytest.fixture(scope="module")
def sound(prepared):
    return {name: sources.load(name, prepared, False) for name in ("numbered", "plain")}


def file_of(root, name, shard, split="train"):
    return sorted((root / name / "1.0.0").glob(f"{name}-{split}.tfrecord*"))[shard]


def payloads(path):
    return list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator())


def ids_of(root, name, shard):
    """What the records of a file are numbered."""
    if name == "plain":
        first = sum(len(payloads(file_of(root, name, before))) for before in range(shard))
        return list(range(first, first + len(payloads(file_of(root, name, shard)))))
    fields = [tf.train.Example.FromString(data).features.feature for data in
              payloads(file_of(root, name, shard))]  # fmt: skip
    return [int(field["id"].bytes_list.value[0][-5:]) for field in fields]


def offset(path, record):
    """Where a record starts: its length, 4 bytes of checksum, the data, 4 bytes of checksum."""
    return sum(16 + len(data) for data in payloads(path)[:record])


def flip(path, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 64
    path.write_bytes(content)


def cut(path, size):
    path.write_bytes(path.read_bytes()[:size])


def rewrite(path, record, change):
    """Has TensorFlow write the file again, with one record changed."""
    found = payloads(path)
    found[record] = change(found[record])
    with tf.io.TFRecordWriter(str(path)) as writer:
        for data in found:
            writer.write(data)


def with_field(name, **value):
    """A change of a record: one field replaced, or taken away."""

    def change(data):
        example = tf.train.Example.FromString(data)
        del example.features.feature[name]
        for kind, values in value.items():
            getattr(example.features.feature[name], kind).value.extend(values)
        return example.SerializeToString()

    return change


def png(height, width):
    buffer = io.BytesIO()
    Image.fromarray(np.full((height, width, 3), 7, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


# Name -> what is done to record 3 of a file (its path, where the record starts) and the reason.
ONE = {
    "data": (lambda path, at: flip(path, at + 12 + 40), "wrong checksum"),
    "checksum": (lambda path, at: flip(path, offset(path, 3) - 1), "wrong checksum"),
    "no example": (lambda path, _: rewrite(path, 2, lambda _: b"\xff\xff none"), "no tf.train"),
    "nothing": (lambda path, _: rewrite(path, 2, lambda _: b""), "no 'image'"),
    "no image": (lambda path, _: rewrite(path, 2, with_field("image")), "no 'image'"),
    "no label": (lambda path, _: rewrite(path, 2, with_field("label")), "no 'label'"),
    "two labels": (
        lambda path, _: rewrite(path, 2, with_field("label", int64_list=[1, 2])),
        "2 values of 'label'",
    ),
    "other kind": (
        lambda path, _: rewrite(path, 2, with_field("label", bytes_list=[b"cat"])),
        "no 'label'",
    ),
    "label": (
        lambda path, _: rewrite(path, 2, with_field("label", int64_list=[3])),
        "label 3, of 3 classes",
    ),
    "negative": (
        lambda path, _: rewrite(path, 2, with_field("label", int64_list=[-1])),
        "label -1, of 3 classes",
    ),
    "torn image": (
        lambda path, _: rewrite(path, 2, with_field("image", bytes_list=[png(5, 7)[:50]])),
        "its image cannot be decoded",
    ),
    "no bytes": (
        lambda path, _: rewrite(path, 2, with_field("image", bytes_list=[b""])),
        "its image cannot be decoded",
    ),
    "size": (
        lambda path, _: rewrite(path, 2, with_field("image", bytes_list=[png(7, 5)])),
        "its image is not 5x7x3",
    ),
}
# Name -> what is done to a file, the first record that is lost, and the reason.
REST = {
    "length": (lambda path: flip(path, offset(path, 2)), 2, "its length is damaged, and none"),
    "its checksum": (lambda path: flip(path, offset(path, 2) + 8), 2, "its length is damaged"),
    "in the data": (lambda path: cut(path, offset(path, 3) - 20), 2, "the file ends in it"),
    "in the end": (lambda path: cut(path, offset(path, 3) - 1), 2, "the file ends in it"),
    "in a length": (lambda path: cut(path, offset(path, 2) + 5), 2, "the file ends in it"),
    "between": (lambda path: cut(path, offset(path, 2)), 2, r"the file ends after 2 of \d"),
    "empty": (lambda path: cut(path, 0), 0, r"the file ends after 0 of \d"),
}


def assert_refused(path, name, root, pattern, **options):
    with pytest.raises(FileError, match=pattern) as error:
        sources.load(name, root, False, **options)
    text = str(error.value)
    assert "\n" not in text
    assert str(path) in text
    assert "prepare it again" in text
    return text


def assert_without(source, whole, lost):
    """All but the examples numbered `lost`, as they were."""
    kept = ~np.isin(whole.train.ids, lost)
    assert np.count_nonzero(~kept) == len(lost)
    np.testing.assert_array_equal(source.train.ids, whole.train.ids[kept])
    np.testing.assert_array_equal(source.train.images, whole.train.images[kept])
    np.testing.assert_array_equal(source.train.labels, whole.train.labels[kept])
    np.testing.assert_array_equal(source.test.images, whole.test.images)
    types = (source.train.images.dtype, source.train.labels.dtype, source.train.ids.dtype)
    assert types == (np.uint8, np.int64, np.int64)


# One record


@pytest.mark.parametrize("kind", ONE)
def test_a_broken_record_is_named_or_left_out(own, sound, capfd, kind):
    change, reason = ONE[kind]
    path = file_of(own, "numbered", 1)
    ids = ids_of(own, "numbered", 1)
    change(path, offset(path, 2))
    where = rf"cannot read 1 of 23 train records: .*record 3 of {len(ids)} \({reason}"
    text = assert_refused(path, "numbered", own, where)
    assert text.endswith("set skip_bad_examples to leave them out")
    source = sources.load("numbered", own, False, skip_bad_examples=True)
    assert_without(source, sound["numbered"], [ids[2]])
    assert source.description.endswith("; 1 of 23 train records left out")
    said = [line for line in capfd.readouterr().err.splitlines() if line.startswith("left out")]
    assert len(said) == 1
    assert re.search(rf"left out 1 of 23 train records.*record 3 of .*{reason}", said[0])
    assert str(path) in said[0]


def test_a_record_without_its_number_is_broken_too(own, sound):
    path = file_of(own, "numbered", 1)
    lost = ids_of(own, "numbered", 1)[2]
    rewrite(path, 2, with_field("id"))
    assert_refused(path, "numbered", own, "no 'id'")
    source = sources.load("numbered", own, False, skip_bad_examples=True)
    assert_without(source, sound["numbered"], [lost])


def test_an_image_of_one_pixel_does_not_spread(own):
    path = file_of(own, "plain", 0)
    for record in range(len(payloads(path))):
        rewrite(path, record, with_field("image", bytes_list=[png(1, 1)]))
    assert_refused(path, "plain", own, "its image is not 5x7x3", train_limit=3)


# The rest of a file


@pytest.mark.parametrize("kind", REST)
@pytest.mark.parametrize("name", ["numbered", "plain"])
def test_the_rest_of_a_file_is_counted(own, sound, name, kind):
    change, first, reason = REST[kind]
    path = file_of(own, name, 1)
    ids = ids_of(own, name, 1)
    change(path)
    lost = len(ids) - first
    where = (
        rf"read {lost} of 23 train records: .*from record {first + 1} of {len(ids)} on, the rest"
    )
    assert_refused(path, name, own, rf"{where} of the file \({reason}")
    source = sources.load(name, own, False, skip_bad_examples=True)
    assert_without(source, sound[name], ids[first:])
    assert f"; {lost} of 23 train records left out" in source.description


@pytest.mark.parametrize("name", ["numbered", "plain"])
def test_a_limit_takes_the_first_that_can_be_read(own, sound, name):
    lost = ids_of(own, name, 0)
    cut(file_of(own, name, 0), 0)
    assert_refused(file_of(own, name, 0), name, own, "ends after 0", train_limit=9)
    source = sources.load(name, own, False, train_limit=9, skip_bad_examples=True)
    kept = np.setdiff1d(np.arange(23), lost)[:9]
    np.testing.assert_array_equal(source.train.ids, kept)
    np.testing.assert_array_equal(source.train.images, sound[name].train.images[kept])


def test_several_are_counted_and_a_few_of_them_named(own, sound):
    lost = [ids_of(own, "numbered", 2)[0], *ids_of(own, "numbered", 0)[1:]]
    one, rest = file_of(own, "numbered", 2), file_of(own, "numbered", 0)
    for record in range(1, len(payloads(rest))):
        rewrite(rest, record, with_field("label"))
    flip(one, 30)
    text = assert_refused(rest, "numbered", own, rf"cannot read {len(lost)} of 23 .*record 2 of")
    assert text.count(" record ") == damage.NAMED
    assert f" and {len(lost) - damage.NAMED} more;" in text
    assert_without(
        sources.load("numbered", own, False, skip_bad_examples=True), sound["numbered"], lost
    )


# What the flag does not allow


def test_more_than_half_are_not_left_out(own):
    for shard in (0, 2):
        cut(file_of(own, "plain", shard), 0)
    path = file_of(own, "plain", 0)
    for skip in (False, True):
        text = assert_refused(path, "plain", own, "more than half", skip_bad_examples=skip)
        assert "skip_bad_examples" not in text


@pytest.mark.parametrize("skip", [False, True])
def test_test_images_are_never_left_out(own, skip):
    path = file_of(own, "numbered", 1, "test")
    flip(path, 30)
    text = assert_refused(path, "numbered", own, "1 of 9 test records", skip_bad_examples=skip)
    assert damage.TEST_IS_WHOLE in text


def test_a_missing_file_is_no_damage(own):
    path = file_of(own, "plain", 2)
    path.unlink()
    assert_refused(path, "plain", own, "is missing", skip_bad_examples=True)


def test_a_file_with_more_than_its_examples_is_refused(own):
    path = file_of(own, "plain", 1)
    path.write_bytes(path.read_bytes() + path.read_bytes()[: offset(path, 1)])
    assert_refused(path, "plain", own, "holds more than its", skip_bad_examples=True)


def test_hidden_labels_stay_what_they_are(own):
    for shard in range(3):
        path = file_of(own, "plain", shard, "test")
        for record in range(len(payloads(path))):
            rewrite(path, record, with_field("label", int64_list=[-1]))
    with pytest.raises(ArgumentError, match="test labels are hidden"):
        sources.load("plain", own, False, skip_bad_examples=True)


def test_sound_data_are_left_alone(own, sound, capfd):
    source = sources.load("numbered", own, False, skip_bad_examples=True)
    assert_without(source, sound["numbered"], [])
    assert source.description == f"numbered 1.0.0 (TFDS, {own}/numbered/1.0.0)"
    assert "left out" not in capfd.readouterr().err


# The whole command


def test_a_run_knows_what_was_left_out(own, tmp_path):
    flip(file_of(own, "numbered", 1), 30)
    (tmp_path / "art" / "dog").mkdir(parents=True)
    for name in ("a", "b", "c"):
        (tmp_path / "art" / "dog" / f"{name}.png").write_bytes(png(5, 7))
    (tmp_path / "art" / "dog" / "b.png").write_bytes(b"no picture")
    given = {"data_dir": str(own), "download": False, "skip_bad_examples": True}
    given["stylized_dir"] = str(tmp_path / "art")
    config = recipes.recipe("numbered", "wrn", "standard", given=given)
    source = build.load(config).source
    assert len(source.train.labels) == 22 + 2
    left_out = "1 of 23 train records left out; 1 of 3 images in art left out"
    assert source.description.endswith(f"; {left_out}")
    assert settings_of(ExperimentConfig)["skip_bad_examples"].resume == "fixed"


# The format


def test_checksums_are_those_that_tensorflow_writes(tmp_path):
    rng = np.random.default_rng(0)
    texts = [rng.bytes(size) for size in (0, 1, 3, 4, 5, 999, 1000, 64)] + [b"\0" * 9, b"\xff" * 40]
    path = tmp_path / "x.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for text in texts:
            writer.write(text)
    content, at, want = path.read_bytes(), 0, []
    for text in texts:
        at += 16 + len(text)
        want.append(int.from_bytes(content[at - 4 : at], "little"))
    assert tfrecord.checksums(texts).tolist() == want
    # The check value that catalogues of such sums give for CRC-32C, masked.
    masked = ((0xE3069283 >> 15 | 0xE3069283 << 17) + 0xA282EAD8) % 2**32
    assert tfrecord.checksums([b"123456789"]).tolist() == [masked]


@pytest.mark.parametrize(("count", "size"), [(2, 1 << 20), (1000, 300), (1000, 1 << 20)])
def test_records_come_in_parts_of_any_size(prepared, monkeypatch, count, size):
    monkeypatch.setattr(tfrecord, "_COUNT", count)
    monkeypatch.setattr(tfrecord, "_BYTES", size)
    path = file_of(prepared, "plain", 0)
    for check in (True, False):
        with path.open("rb") as file:
            found = list(tfrecord.read(file, check))
        assert found == [(data, "") for data in payloads(path)]
