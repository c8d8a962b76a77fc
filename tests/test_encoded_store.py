"""Images that stay encoded on disk: found, ordered, decoded, trained on, unreadable ones named."""

import dataclasses
import re
import shutil

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

from augmix_tf import seeds
from augmix_tf.augment.augmix import AugMixMethod
from augmix_tf.augment.erasing import PatchUniformMethod
from augmix_tf.augment.method import BatchShape, StandardMethod
from augmix_tf.augment.mixing import CutmixMethod
from augmix_tf.data import class_folders, pipeline, record_files, sources, tfds_sets
from augmix_tf.data.encoded_store import EncodedStore
from augmix_tf.data.pipeline import ONE_REPLICA, Position, ReplicaSlice
from augmix_tf.errors import ArgumentError, FileError
from tests import class_folders as samples
from tests.arrays import assert_same
from tests.class_folders import CLASSES
from tests.image_files import encoded
from tests.runs import leave_out_xla

SIZE = (20, 24)
SIDE = 24


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return samples.write(tmp_path_factory.mktemp("images"))


@pytest.fixture
def own_folder(tmp_path):
    return samples.write(tmp_path / "own")


def load(folder, **options):
    return sources.load("folder", folder, image_size=SIDE, **options)


def test_a_class_is_its_folder_and_the_first_images_are_of_all_classes(own_folder):
    (own_folder / "train" / ".hidden").mkdir()
    (own_folder / "train" / CLASSES[0] / "notes.txt").write_text("no image")
    source = load(own_folder, train_limit=5)
    assert source.class_names == CLASSES
    assert source.image_size == (SIDE, SIDE)
    np.testing.assert_array_equal(source.train.labels, [0, 1, 2, 0, 1])
    np.testing.assert_array_equal(source.train.ids, range(5))
    names = [source.train.file_name(row).rsplit("/", 1)[-1] for row in range(5)]
    wanted = [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1)]
    assert names == [f"{CLASSES[label]}_{number}.JPEG" for label, number in wanted]
    assert len(source.test.labels) == 12


def test_unequal_classes_are_taken_in_turn_as_long_as_they_last():
    names = [b"b", b"a", b"c", b"x", b"y"]
    labels = np.array([1, 1, 1, 0, 2])
    np.testing.assert_array_equal(class_folders.official_order(names, labels), [3, 1, 4, 0, 2])


def test_the_validation_images_of_imagenet_keep_their_numbers_order():
    names = [b"ILSVRC2012_val_00000003.JPEG", b"ILSVRC2012_val_00000001.JPEG"]
    names += [b"ILSVRC2012_val_00000002.JPEG"]
    order = class_folders.official_order(names, np.array([0, 0, 1]))
    np.testing.assert_array_equal(order, [1, 2, 0])


def test_a_set_of_some_classes_has_the_labels_of_the_model(folder):
    store = class_folders.open_split(folder / "val", ["a", *CLASSES], SIZE)
    assert sorted(set(store.labels.tolist())) == [1, 2, 3]
    assert (len(store), store.image_size, store.pixels.shape) == (12, SIZE, (12, *SIZE, 3))


def test_without_training_images_there_is_still_a_test_set(own_folder):
    (own_folder / "train").rename(own_folder / "elsewhere")
    source = load(own_folder)
    assert (len(source.train.labels), len(source.test.labels)) == (0, 12)
    assert source.class_names == CLASSES


def break_class(folder):
    (folder / "val" / CLASSES[0]).rename(folder / "val" / "n01440765")


def break_val(folder):
    (folder / "val").rename(folder / "test")


@pytest.mark.parametrize(
    ("damage", "wanted"),
    [
        (break_class, "Unknown class 'n01440765'. Did you mean 'n01440764'"),
        (break_val, r"data_dir must hold .*val/<class>.*; received .*own with test, train\."),
        (shutil.rmtree, r"received .*own with no folders\."),
    ],
)
def test_a_folder_of_another_layout_is_refused(own_folder, damage, wanted):
    damage(own_folder)
    with pytest.raises(ArgumentError, match=wanted):
        load(own_folder)


def test_a_side_is_wanted_where_sizes_vary_and_nowhere_else(folder):
    with pytest.raises(ArgumentError, match=r"image_size must be above 0 for dataset .folder.;"):
        sources.load("folder", folder)
    with pytest.raises(ArgumentError, match=r"data_dir must hold train/.*; received none"):
        sources.load("folder", image_size=SIDE)
    with pytest.raises(ArgumentError, match=r"image_size does not apply to shapes.*; received 24"):
        sources.load("shapes", image_size=SIDE)


def centre(path, size):
    """By the definition: short side to 256/224 of the height, the middle cut out."""
    with Image.open(path) as file:
        pixels = file.convert("RGB")
    short = round(max(size) * 256 / 224)
    width, height = (short * side // min(pixels.size) for side in pixels.size)
    pixels = np.asarray(pixels.resize((width, height), Image.Resampling.BILINEAR), np.int64)
    top, left = round((height - size[0]) / 2), round((width - size[1]) / 2)
    return pixels[top : top + size[0], left : left + size[1]]


def test_decoded_images_are_what_pillow_cuts_out(folder):
    store = class_folders.open_split(folder / "val", None, (24, 24))
    images = store.read()
    assert (images.dtype, images.shape) == (np.uint8, (12, 24, 24, 3))
    for row in range(len(store)):
        wanted = centre(store.file_name(row), (24, 24))
        # CMYK is converted with another rounding.
        assert abs(images[row] - wanted).max() <= 2, store.file_name(row)


def test_all_ways_to_read_give_the_same_images(folder):
    store = class_folders.open_split(folder / "val", None, SIZE)
    images, rows = store.read(), np.array([7, 2, 2])
    np.testing.assert_array_equal(store.read(rows), images[rows])
    np.testing.assert_array_equal(store.pixels[3:9:2], images[3:9:2])
    assert store.read(slice(4, 4)).shape == (0, *SIZE, 3)
    part = store.slice(slice(4, 8))
    np.testing.assert_array_equal(part.read(slice(1, None)), images[5:8])
    np.testing.assert_array_equal(part.labels, store.labels[4:8])
    np.testing.assert_array_equal(part.ids, store.ids[4:8])
    batches = list(store.batches(5))
    assert [len(batch) for batch in batches] == [5, 5, 2]
    np.testing.assert_array_equal(np.concatenate(batches), images)


def test_other_images_have_another_digest_and_another_place_has_not(folder, tmp_path):
    train = class_folders.open_split(folder / "train", None, SIZE)
    moved = shutil.copytree(folder / "train", tmp_path / "moved")
    assert class_folders.open_split(moved, None, SIZE).digest == train.digest

    def renamed(old, new):
        return dataclasses.replace(train, files=np.char.replace(train.files, old, new))

    others = [train.slice(np.arange(12)[::-1]), train.slice(slice(11))]
    # Another image, another class.
    others += [renamed(b"_0.JPEG", b"_9.JPEG"), renamed(b"n01440764/", b"n0/")]
    others += [dataclasses.replace(train, labels=train.labels + 1)]
    assert len({train.digest, *(other.digest for other in others)}) == 6


@pytest.fixture(scope="module", params=record_files.FORMATS)
def data_dir(request, tmp_path_factory):
    """ImageNet as TFDS prepares it, of 20 images: three files, shuffled."""
    root = tmp_path_factory.mktemp("a") / "tfds[1]*?"
    features = tfds.features.FeaturesDict(
        {
            "file_name": tfds.features.Text(),
            "image": tfds.features.Image(encoding_format="jpeg"),
            "label": tfds.features.ClassLabel(num_classes=1000),
        }
    )
    tfds.dataset_builders.store_as_tfds_dataset(
        name="imagenet2012",
        version="5.1.0",
        features=features,
        split_datasets={split: list(examples(split)) for split in ("train", "validation")},
        data_dir=root,
        download_config=tfds.download.DownloadConfig(num_shards=3),
        file_format=request.param,
    )
    return root


def examples(split):
    for number in range(20):
        label = number * 7 % 5
        pixels = samples.image(number, 30 + number, 60 - number)
        name = f"n{label}_{number}" if split == "train" else f"ILSVRC2012_val_{number:08d}"
        yield number, {"image": pixels, "label": label, "file_name": f"{name}.JPEG"}


@pytest.fixture(scope="module")
def prepared(data_dir):
    return tfds.builder("imagenet2012", data_dir=data_dir)


def test_a_prepared_split_has_the_labels_and_images_of_tfds(prepared):
    if prepared.info.file_format.value == "array_record":
        pytest.skip("TFDS decodes these files with other values")
    store = tfds_sets.open_split(prepared, "validation", SIZE)
    by_name = {
        example["file_name"].decode(): example
        for example in prepared.as_dataset(split="validation").as_numpy_iterator()
    }
    np.testing.assert_array_equal(store.ids, range(20))
    np.testing.assert_array_equal(store.labels, [e["label"] for _, e in sorted(by_name.items())])
    for row, (_, example) in enumerate(sorted(by_name.items())):
        file = store.read_encoded(tf.constant(store.places[row]))
        np.testing.assert_array_equal(tf.io.decode_jpeg(file), example["image"])


def test_both_formats_give_the_same_examples(data_dir, seen):
    """In the same order, with the same ids; also to a training step."""
    source = sources.load("imagenet2012", data_dir, download=False, image_size=SIDE)
    columns = [source.train.read(), source.train.labels, source.train.ids, source.test.read()]
    columns += [part for batch in views_of(source.train, StandardMethod()) for part in batch]
    seen.append(columns)
    assert_same(seen[0], seen[-1])


@pytest.fixture(scope="module")
def seen():
    return []


@pytest.mark.parametrize("damage", ["truncated", "empty", "missing"])
def test_a_damaged_file_of_records_is_named(data_dir, tmp_path, damage):
    root = shutil.copytree(data_dir, tmp_path / "data")
    path = sorted((root / "imagenet2012" / "5.1.0").glob("imagenet2012-train*"))[1]
    path.unlink() if damage == "missing" else path.write_bytes(
        path.read_bytes()[: 700 if damage == "truncated" else 0]
    )
    with pytest.raises(FileError, match="prepare it again") as error:
        sources.load("imagenet2012", root, download=False, image_size=SIDE)
    assert str(error.value).startswith(f"{path} ")
    assert "\n" not in str(error.value)


def test_a_record_that_is_damaged_later_is_named(data_dir, tmp_path):
    root = shutil.copytree(data_dir, tmp_path / "data")
    train = sources.load("imagenet2012", root, download=False, image_size=SIDE).train
    path = sorted((root / "imagenet2012" / "5.1.0").glob("imagenet2012-train*"))[1]
    path.write_bytes(b"")
    with pytest.raises(FileError, match=rf"{re.escape(str(path))} \((byte|record)") as error:
        train.read()
    assert "\n" not in str(error.value)


def test_imagenet_is_a_source_like_any_other(data_dir):
    source = sources.load(
        "imagenet2012", data_dir, download=False, image_size=SIDE, train_limit=7, eval_limit=3
    )
    assert source.num_classes == 1000
    assert source.class_names[:2] == ("n01440764", "n01443537")
    np.testing.assert_array_equal(source.train.labels, [0, 1, 2, 3, 4, 0, 1])
    np.testing.assert_array_equal(source.test.labels, [0, 2, 4])
    assert source.train.read().shape == (7, SIDE, SIDE, 3)


def feature(value):
    if isinstance(value, bytes):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
    return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))


def written(path, records):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)
    return str(path)


@pytest.mark.parametrize(
    "order", [("image", "label", "file_name"), ("label", "file_name", "image")]
)
def test_the_fields_of_a_record_may_come_in_any_order(tmp_path, order):
    """Written entry by entry: messages put one after another are one message."""
    wanted = [(0, b"a" * 700), (999, b""), (-1, b"c"), (300, "ü".encode())]
    records = []
    for label, name in wanted:
        value = {"image": bytes(5000), "label": label, "file_name": name}
        entries = [
            tf.train.Features(feature={key: feature(value[key])}).SerializeToString()
            for key in order
        ]
        whole = b"".join(entries)
        records.append(b"\x0a" + _varint(len(whole)) + whole)
        assert set(tf.train.Example.FromString(records[-1]).features.feature) == set(order)
    path = written(tmp_path / "x.tfrecord", records)
    places = [i and sum(16 + len(r) for r in records[:i]) for i in range(4)]
    entries = [(place, *pair) for place, pair in zip(places, wanted, strict=True)]
    assert record_files.index(path, 4, "tfrecord") == entries


def _varint(value):
    low, high = value & 127, value >> 7
    return bytes([low | 128]) + _varint(high) if high else bytes([low])


LABEL = tf.train.Features(feature={"label": feature(7)})


@pytest.mark.parametrize(
    ("record", "count", "problem"),
    [
        (b"\x0a\x00", 1, "record 1 of 1: no label"),
        (b"nonsense", 1, r"record 1 of 1: no tf\.train\.Example"),
        (b"", 1, "record 1 of 1: "),
        (tf.train.Example(features=LABEL).SerializeToString(), 2, "1 instead of 2 records"),
    ],
)
def test_what_is_wrong_with_a_record_is_said(tmp_path, record, count, problem):
    path = written(tmp_path / "x.tfrecord", [record])
    with pytest.raises(record_files.DamagedError, match=problem):
        record_files.index(path, count, "tfrecord")


AUGMIX = AugMixMethod(aug_severity=1, fill=128)
# Quick to compile, with random choices for each image.
PATCH = PatchUniformMethod(patch_size=5, patch_scale=0.3)


def views_of(store, method, start=Position(), replicas=ONE_REPLICA, batch=5):
    dataset = pipeline.training_batches(
        store,
        method,
        num_classes=3,
        run_seed=3,
        epochs=2,
        batch_size=batch,
        start=start,
        replicas=replicas,
    )
    return [tuple(part.numpy() for part in made) for made in dataset]


@pytest.fixture(scope="module")
def train(folder):
    return class_folders.open_split(folder / "train", None, SIZE)


@pytest.fixture(scope="module")
def windows(train):
    """The batches without augmentation."""
    return views_of(train, StandardMethod())


def test_each_epoch_has_each_image_and_all_views_of_it_share_a_window(train, windows, monkeypatch):
    leave_out_xla(monkeypatch)
    batches = views_of(train, AUGMIX)
    assert [len(labels) for _, labels in batches] == [5] * 6
    for epoch in (batches[:3], batches[3:]):
        labels = np.concatenate([labels for _, labels in epoch])
        assert sorted(labels[:12]) == sorted(train.labels)
        np.testing.assert_array_equal(labels[12:], labels[:3])
    for (views, labels), (clean, clean_labels) in zip(batches, windows, strict=True):
        assert views.shape[1:] == (3, *SIZE, 3)
        np.testing.assert_array_equal(views[:, :1], clean)
        np.testing.assert_array_equal(labels, clean_labels)
        # At severity 1 the views stay near the image; windows of their own would not.
        distance = abs(views[:, 1:] - views[:, :1]).mean(axis=(1, 2, 3, 4))
        assert distance.max() < 40
    images = np.concatenate([views[:, 0] for views, _ in batches])
    assert len(np.unique(images.reshape(len(images), -1), axis=0)) == len(images)


def test_pieces_of_a_batch_have_the_bytes_of_the_complete_batch(train, monkeypatch):
    """Two rows at a time, which do not divide five."""
    batches = views_of(train, PATCH)
    monkeypatch.setattr(pipeline, "_PIECE", 4 * 20 * 24 * 3 * 2)
    in_pieces = views_of(train, PATCH)
    later = views_of(train, PATCH, start=Position(0, 2))
    for made, expected in zip([*in_pieces, *later], [*batches, *batches[2:]], strict=True):
        assert_same(made, expected)


def test_two_workers_read_their_rows_and_make_the_views_of_one(train, monkeypatch):
    """Row by row."""
    whole = views_of(train, PATCH, batch=8)
    monkeypatch.setattr(pipeline, "_PIECE", 1)
    slices = [ReplicaSlice(first, 1, 2) for first in (0, 1)]
    by_worker = [views_of(train, PATCH, replicas=one, batch=8) for one in slices]
    for (views, labels), *parts in zip(whole, *by_worker, strict=True):
        np.testing.assert_array_equal(np.concatenate([p[0] for p in parts]), views)
        np.testing.assert_array_equal(np.concatenate([p[1] for p in parts]), labels)


def test_mixing_methods_mix_the_same_windows(train, windows, monkeypatch):
    monkeypatch.setattr(pipeline, "_PIECE", 1)
    method = CutmixMethod(cutmix_probability=1.0)
    batches = zip(views_of(train, method), windows, strict=True)
    for number, ((views, targets), (clean, labels)) in enumerate(batches):
        assert views.shape == (len(clean), 1, *SIZE, 3)
        streams = seeds.BatchSeeds(3, *divmod(number, 3))
        plan = method.draw(streams, BatchShape(5, SIZE))
        mixed, mixed_targets = method.apply(clean[:, 0], tf.one_hot(labels, 3), plan)
        np.testing.assert_array_equal(views, mixed)
        np.testing.assert_array_equal(targets, mixed_targets)
        assert np.abs(views[:, 0] - clean[:, 0]).max() > 0


def test_errors_of_other_things_are_left_alone(train, monkeypatch):
    monkeypatch.setattr(EncodedStore, "unreadable", lambda self: pytest.fail("decoded images"))
    error = tf.errors.NotFoundError(None, None, "No algorithm worked!")
    with pytest.raises(tf.errors.NotFoundError), train.unreadable_named():
        raise error


def break_one(folder, split="train"):
    path = folder / split / CLASSES[1] / f"{CLASSES[1]}_0.JPEG"
    path.write_bytes(path.read_bytes()[:300])
    return path


def test_unreadable_training_images_are_left_out_on_demand(own_folder, capsys):
    path = break_one(own_folder)
    source = load(own_folder, skip_bad_examples=True)
    assert source.train.left_out.startswith("1 of 12 images in ")
    assert source.train.left_out in source.description
    assert str(path) in capsys.readouterr().err
    np.testing.assert_array_equal(source.train.ids, [0, *range(2, 12)])
    assert source.train.read().shape == (11, SIDE, SIDE, 3)


def test_unreadable_test_images_stop_the_evaluation_whatever_is_asked_for(own_folder):
    break_one(own_folder, "val")
    source = load(own_folder, skip_bad_examples=True)
    with pytest.raises(FileError, match="cannot read 1 of 12 images"):
        source.test.read()


def test_an_image_that_was_moved_away_is_named(own_folder):
    test = load(own_folder).test
    path = own_folder / "val" / CLASSES[2] / f"{CLASSES[2]}_3.JPEG"
    path.write_bytes(encoded(samples.image(1, 30, 30)))
    assert len(test.read()) == 12
    path.unlink()
    with pytest.raises(FileError, match="No such file") as error:
        test.read()
    assert str(path) in str(error.value)
