"""Pictures that stay encoded on disk: found, ordered, decoded, trained on, damaged ones named."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

from augmix_tf import seeds
from augmix_tf.augment import methods
from augmix_tf.augment.mixing import apply_cutmix, apply_mixup, draw_cutmix, draw_mixup
from augmix_tf.augment.rows import ResizedCrop
from augmix_tf.checks import CommandError, RunError
from augmix_tf.data import folders_by_class, pipeline, sources, tfds_index
from augmix_tf.data.pictures import EncodedPictures
from augmix_tf.data.pipeline import Position, Share
from augmix_tf.settings import AugMixSettings
from tests import class_folders
from tests.class_folders import CLASSES
from tests.picture_files import encoded

SIZE = (20, 24)
SIDE = 24


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return class_folders.write(tmp_path_factory.mktemp("pictures"))


@pytest.fixture
def own_folder(tmp_path):
    return class_folders.write(tmp_path / "own")


def load(folder, **options):
    return sources.load("folder", folder, image_size=SIDE, **options)


# Which pictures, and in which order


def test_a_class_is_its_folder_and_the_first_pictures_are_of_all_classes(own_folder):
    (own_folder / "train" / ".hidden").mkdir()
    (own_folder / "train" / CLASSES[0] / "notes.txt").write_text("no picture")
    source = load(own_folder, train_limit=5)
    assert source.class_names == CLASSES
    assert source.image_size == (SIDE, SIDE)
    np.testing.assert_array_equal(source.train.labels, [0, 1, 2, 0, 1])
    np.testing.assert_array_equal(source.train.ids, range(5))
    names = [source.train.images.name(row).rsplit("/", 1)[-1] for row in range(5)]
    wanted = [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1)]
    assert names == [f"{CLASSES[label]}_{number}.JPEG" for label, number in wanted]
    assert len(source.test.labels) == 12


def test_unequal_classes_are_taken_in_turn_as_long_as_they_last():
    names = [b"b", b"a", b"c", b"x", b"y"]
    labels = np.array([1, 1, 1, 0, 2])
    np.testing.assert_array_equal(folders_by_class.official_order(names, labels), [3, 1, 4, 0, 2])


def test_the_validation_pictures_of_imagenet_keep_their_numbers_order():
    names = [b"ILSVRC2012_val_00000003.JPEG", b"ILSVRC2012_val_00000001.JPEG"]
    names += [b"ILSVRC2012_val_00000002.JPEG"]
    order = folders_by_class.official_order(names, np.array([0, 0, 1]))
    np.testing.assert_array_equal(order, [1, 2, 0])


def test_a_set_of_some_classes_has_the_labels_of_the_model(folder):
    images, labels, _ = folders_by_class.open_split(folder / "val", ["a", *CLASSES], SIZE)
    assert sorted(set(labels.tolist())) == [1, 2, 3]
    assert images.shape == (12, *SIZE, 3)


def test_without_training_pictures_there_is_still_a_test_set(own_folder):
    (own_folder / "train").rename(own_folder / "elsewhere")
    source = load(own_folder)
    assert (len(source.train.labels), len(source.test.labels)) == (0, 12)
    assert source.class_names == CLASSES


def break_class(folder):
    (folder / "val" / CLASSES[0]).rename(folder / "val" / "n01440765")


def break_pictures(folder):
    for path in (folder / "train" / CLASSES[1]).iterdir():
        path.unlink()


def break_val(folder):
    (folder / "val").rename(folder / "test")


@pytest.mark.parametrize(
    ("damage", "wanted"),
    [
        (break_class, "unknown class 'n01440765', did you mean 'n01440764'"),
        (break_pictures, rf"want pictures .* in .*{CLASSES[1]}, got none"),
        (break_val, "val/<class>.* got no folder .*val"),
    ],
)
def test_a_folder_of_another_layout_is_refused(own_folder, damage, wanted):
    damage(own_folder)
    with pytest.raises(CommandError, match=wanted):
        load(own_folder)


def test_a_side_is_wanted_where_sizes_vary_and_nowhere_else(folder):
    with pytest.raises(CommandError, match="want --image_size above 0"):
        sources.load("folder", folder)
    with pytest.raises(CommandError, match="want --data_dir with train/"):
        sources.load("folder", image_size=SIDE)
    with pytest.raises(CommandError, match="want no --image_size for shapes"):
        sources.load("shapes", image_size=SIDE)


# Pictures as an array


def centre(path, size):
    """By the definition: short side to 256/224 of the height, the middle cut out."""
    with Image.open(path) as file:
        pixels = file.convert("RGB")
    short = round(max(size) * 256 / 224)
    width, height = (short * side // min(pixels.size) for side in pixels.size)
    pixels = np.asarray(pixels.resize((width, height), Image.Resampling.BILINEAR), np.int64)
    top, left = round((height - size[0]) / 2), round((width - size[1]) / 2)
    return pixels[top : top + size[0], left : left + size[1]]


def test_as_an_array_they_are_what_pillow_cuts_out(folder):
    images, _, _ = folders_by_class.open_split(folder / "val", None, (24, 24))
    everything = np.asarray(images)
    assert everything.dtype == images.dtype == np.uint8
    assert everything.shape == images.shape == (12, 24, 24, 3)
    for row in range(len(images)):
        wanted = centre(images.name(row), (24, 24))
        # CMYK is converted with another rounding.
        assert abs(everything[row] - wanted).max() <= 2, images.name(row)
    rows = np.array([7, 2, 2])
    np.testing.assert_array_equal(images[rows], everything[rows])
    np.testing.assert_array_equal(images[3:9:2], everything[3:9:2])
    np.testing.assert_array_equal(images[-1], everything[-1])
    np.testing.assert_array_equal(images.part(slice(4, 8))[1:], everything[5:8])
    np.testing.assert_array_equal(np.concatenate(list(images.arrays(5))), everything)
    assert [len(part) for part in images.arrays(5)] == [5, 5, 2]
    assert images[4:4].shape == (0, 24, 24, 3)


def test_two_sets_join_also_across_files_and_records(folder, prepared):
    first, _, _ = folders_by_class.open_split(folder / "val", None, SIZE)
    second, _, _ = tfds_index.open_split(prepared, "train", SIZE)
    both = first.part(slice(10, 12)).joined(second.part(slice(0, 2)))
    np.testing.assert_array_equal(both[:], np.concatenate([first[10:], second[:2]]))


def test_other_pictures_have_another_digest(folder):
    train, _, _ = folders_by_class.open_split(folder / "train", None, SIZE)
    again, _, _ = folders_by_class.open_split(folder / "train", None, SIZE)
    assert train.digest == again.digest
    others = [train.part(np.arange(12)[::-1]), train.part(slice(11))]
    # Another picture, another class.
    others += [renamed(train, b"_0.JPEG", b"_9.JPEG"), renamed(train, b"n01440764/", b"n0/")]
    assert len({train.digest, *(other.digest for other in others)}) == 5


def renamed(images, old, new):
    files = np.char.replace(images.files, old, new)
    return EncodedPictures(files, images.places, images.image_size)


# TensorFlow Datasets


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory, folder):
    """ImageNet as TFDS prepares it, of 20 pictures: three files, shuffled."""
    root = tmp_path_factory.mktemp("tfds")
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
    )
    return root


def examples(split):
    for number in range(20):
        label = number * 7 % 5
        pixels = class_folders.picture(number, 30 + number, 60 - number)
        name = f"n{label}_{number}" if split == "train" else f"ILSVRC2012_val_{number:08d}"
        yield number, {"image": pixels, "label": label, "file_name": f"{name}.JPEG"}


@pytest.fixture(scope="module")
def prepared(data_dir):
    return tfds.builder("imagenet2012", data_dir=data_dir)


def test_a_prepared_split_has_tfds_s_own_labels_and_pictures(prepared):
    images, labels, ids = tfds_index.open_split(prepared, "validation", SIZE)
    by_name = {
        example["file_name"].decode(): example
        for example in prepared.as_dataset(split="validation").as_numpy_iterator()
    }
    np.testing.assert_array_equal(ids, range(20))
    np.testing.assert_array_equal(labels, [e["label"] for _, e in sorted(by_name.items())])
    for row, (_, example) in enumerate(sorted(by_name.items())):
        file = images.read(tf.constant(images.places[row]))
        np.testing.assert_array_equal(tf.io.decode_jpeg(file), example["image"])


def test_imagenet_is_a_source_like_any_other(data_dir):
    source = sources.load(
        "imagenet2012", data_dir, download=False, image_size=SIDE, train_limit=7, eval_limit=3
    )
    assert source.num_classes == 1000
    assert source.class_names[:2] == ("n01440764", "n01443537")
    np.testing.assert_array_equal(source.train.labels, [0, 1, 2, 3, 4, 0, 1])
    np.testing.assert_array_equal(source.test.labels, [0, 2, 4])
    assert source.train.images.shape == (7, SIDE, SIDE, 3)


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
    found = tfds_index._index(path, 4)
    assert found.labels == [label for label, _ in wanted]
    assert found.names == [name[:512] for _, name in wanted]
    assert found.offsets == [i and sum(16 + len(r) for r in records[:i]) for i in range(4)]


def _varint(value):
    low, high = value & 127, value >> 7
    return bytes([low | 128]) + _varint(high) if high else bytes([low])


@pytest.mark.parametrize(
    ("records", "count", "cut", "wanted"),
    [
        ([b"\x0a\x00"], 1, 0, "record 1 of 1 is damaged: no label"),
        ([b"nonsense"], 1, 0, "record 1 of 1 is damaged: no tf.train.Example"),
        ([b""], 1, 0, "record 1 of 1 is damaged"),
        ([], 2, 0, "want 2 records in .*, got 0"),
        ([b"\x0a\x00"], 1, 9, "record 1 of 1 is damaged: the file ends in it"),
    ],
)
def test_a_damaged_file_of_records_is_named(tmp_path, records, count, cut, wanted):
    path = written(tmp_path / "x.tfrecord", records)
    if cut:
        (tmp_path / "x.tfrecord").write_bytes((tmp_path / "x.tfrecord").read_bytes()[:cut])
    with pytest.raises(RunError, match=wanted) as error:
        tfds_index._index(path, count)
    assert "x.tfrecord" in str(error.value)


# Training on them


def views_of(images, labels, method=None, start=Position(), share=None, batch=5):
    crop = ResizedCrop(images.image_size, images.read)
    method = method or methods.augmix(3, AugMixSettings(severity=1), 3, fill=128, crop=crop)
    dataset = pipeline.training_batches(
        images,
        labels,
        method,
        run_seed=3,
        epochs=2,
        batch_size=batch,
        start=start,
        share=share,
    )
    return [tuple(part.numpy() for part in made) for made in dataset]


@pytest.fixture(scope="module")
def train(folder):
    images, labels, _ = folders_by_class.open_split(folder / "train", None, SIZE)
    return images, labels


@pytest.fixture(scope="module")
def whole(train):
    return views_of(*train)


def test_each_epoch_has_each_picture_once_and_all_views_of_it_share_a_window(train, whole):
    made = whole
    assert [len(labels) for _, labels in made] == [5, 5, 2, 5, 5, 2]
    assert sorted(np.concatenate([labels for _, labels in made[:3]])) == sorted(train[1])
    for views, _ in made:
        assert views.shape[1:] == (3, *SIZE, 3)
        # Of severity 1 the views stay near the picture; windows of their own would not.
        distance = abs(views[:, 1:] - views[:, :1]).mean(axis=(1, 2, 3, 4))
        assert distance.max() < 40
    windows = np.concatenate([views[:, 0] for views, _ in made])
    assert len(np.unique(windows.reshape(len(windows), -1), axis=0)) == len(windows)


@pytest.mark.parametrize("piece", [1, 3 * 4 * 20 * 24 * 3 * 2])
def test_pieces_of_a_batch_have_the_bytes_of_the_whole(train, whole, monkeypatch, piece):
    """Row by row, and two rows at a time, which five are not divisible by."""
    monkeypatch.setattr(pipeline, "_PIECE", piece)
    in_pieces = views_of(*train)
    later = views_of(*train, start=Position(0, 2))
    assert len(in_pieces) == len(whole)
    for made, wanted in zip([*in_pieces, *later], [*whole, *whole[2:]], strict=True):
        for part, part_wanted in zip(made, wanted, strict=True):
            np.testing.assert_array_equal(part, part_wanted)


@pytest.mark.parametrize("piece", [2**25, 1])
def test_two_workers_read_their_rows_and_make_the_views_of_one(train, whole, monkeypatch, piece):
    monkeypatch.setattr(pipeline, "_PIECE", piece)
    shares = [views_of(*train, share=Share(first, 1, 2)) for first in (0, 1)]
    for (views, labels), *parts in zip(whole, *shares, strict=True):
        present = np.concatenate([part[2] for part in parts]).astype(bool)
        np.testing.assert_array_equal(np.concatenate([p[0] for p in parts])[present], views)
        np.testing.assert_array_equal(np.concatenate([p[1] for p in parts])[present], labels)


@pytest.mark.parametrize("name", ["standard", "agreeing"])
def test_other_methods_see_the_same_windows(train, whole, monkeypatch, name):
    monkeypatch.setattr(pipeline, "_PIECE", 1)
    crop = ResizedCrop(train[0].image_size, train[0].read)
    method = {
        "standard": methods.one_view(3, methods.unchanged(), crop=crop),
        "agreeing": methods.agreeing_views(3, methods.patch_uniform(5, 0.3), 3, crop),
    }[name]
    for (views, labels), (wanted, wanted_labels) in zip(
        views_of(*train, method), whole, strict=True
    ):
        assert views.shape == (len(wanted), 3 if name == "agreeing" else 1, *SIZE, 3)
        np.testing.assert_array_equal(labels, wanted_labels)
        np.testing.assert_array_equal(views[:, 0], wanted[:, 0])


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_mixing_methods_mix_the_same_windows(train, whole, monkeypatch, name):
    monkeypatch.setattr(pipeline, "_PIECE", 1)
    crop = ResizedCrop(train[0].image_size, train[0].read)
    method, draw, apply = {
        "mixup": (methods.mixup(3, 3, 1.0, crop), draw_mixup, apply_mixup),
        "cutmix": (methods.cutmix(3, 3, 1.0, 1.0, crop), draw_cutmix, apply_cutmix),
    }[name]
    settings = (1.0,) if name == "mixup" else (SIZE, 1.0, 1.0)
    made = views_of(*train, method)
    for number, ((views, targets), (wanted, labels)) in enumerate(zip(made, whole, strict=True)):
        assert views.shape == (len(wanted), 1, *SIZE, 3)
        if len(wanted) < 5:  # filled up with windows that cannot be seen here
            continue
        plan = draw(seeds.fold(3, number // 3, number % 3, seeds.METHOD), 5, *settings)
        mixed, mixed_targets = apply(wanted[:, 0], tf.one_hot(labels, 3), plan)
        np.testing.assert_array_equal(views[:, 0], mixed)
        np.testing.assert_array_equal(targets, mixed_targets)
        assert np.abs(views[:, 0] - wanted[:, 0]).max() > 0


# Damage


def test_errors_of_other_things_are_left_alone(train, monkeypatch):
    images, _ = train
    monkeypatch.setattr(EncodedPictures, "damaged", lambda self: pytest.fail("looked for pictures"))
    error = tf.errors.NotFoundError(None, None, "No algorithm worked!")
    with pytest.raises(tf.errors.NotFoundError), images.explained():
        raise error


def break_one(folder, split="train"):
    path = folder / split / CLASSES[1] / f"{CLASSES[1]}_0.JPEG"
    path.write_bytes(path.read_bytes()[:300])
    return path


def test_a_damaged_picture_is_named_where_it_stops_a_run(own_folder):
    path = break_one(own_folder)
    images = load(own_folder).train.images
    with pytest.raises(RunError, match="cannot read 1 of 12 pictures: ") as error:
        images[:]
    assert str(path) in str(error.value)


def test_damaged_training_pictures_are_left_out_on_demand(own_folder, capsys):
    path = break_one(own_folder)
    source = load(own_folder, skip_bad_examples=True)
    assert source.train.left_out.startswith("1 of 12 pictures in ")
    assert source.train.left_out in source.description
    assert str(path) in capsys.readouterr().err
    np.testing.assert_array_equal(source.train.ids, [0, *range(2, 12)])
    assert source.train.images[:].shape == (11, SIDE, SIDE, 3)


def test_damaged_test_pictures_stop_the_evaluation_whatever_is_asked_for(own_folder):
    break_one(own_folder, "val")
    source = load(own_folder, skip_bad_examples=True)
    with pytest.raises(RunError, match="cannot read 1 of 12 pictures"):
        source.test.images[:]


def test_a_picture_that_was_moved_away_is_named(own_folder):
    images = load(own_folder).test.images
    path = own_folder / "val" / CLASSES[2] / f"{CLASSES[2]}_3.JPEG"
    path.write_bytes(encoded(class_folders.picture(1, 30, 30)))
    assert images[:].shape[0] == 12
    path.unlink()
    with pytest.raises(RunError, match="No such file") as error:
        images[:]
    assert str(path) in str(error.value)
