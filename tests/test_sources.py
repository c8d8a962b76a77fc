"""Datasets in memory: tiny ones that TFDS writes here itself, and real ones where there are."""

import io
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

from augmix_tf.data import shapes, sources, tfds_sets
from augmix_tf.errors import ArgumentError, FileError
from tests.processes import python

COUNTS = {"train": 23, "test": 11}
HEIGHT, WIDTH = 5, 7
REPOSITORY = Path(__file__).parents[1]
REAL = Path(os.environ.get("AUGMIX_DATA", REPOSITORY.parent / "shared" / "data" / "tfds"))


def pictures(split, channels=3):
    """What the tiny sets hold, in official order: noise, with 0 and 255 in it."""
    rng = np.random.default_rng(len(split))
    images = rng.integers(0, 256, (COUNTS[split], HEIGHT, WIDTH, channels), np.uint8)
    images[:, 0, 0], images[:, -1, -1] = 0, 255
    return images, rng.integers(0, 3, COUNTS[split])


def examples(split, channels=3, ids="{split}_{number:05d}"):
    for number, (image, label) in enumerate(zip(*pictures(split, channels), strict=True)):
        example = {"image": image, "label": label}
        if ids:
            example["id"] = ids.format(split=split, number=number)
        yield example


def write(data_dir, name, image=None, splits=("train", "test"), shards=1, **options):
    """Has TFDS prepare a tiny set, shuffled as it does."""
    channels, ids = options.get("channels", 3), options.get("ids", "{split}_{number:05d}")
    features = {
        "image": image or tfds.features.Image(shape=(HEIGHT, WIDTH, channels)),
        "label": tfds.features.ClassLabel(names=["cat", "dog", "eel"]),
    }
    if ids:
        features["id"] = tfds.features.Text()
    like = {split: "test" if split == "validation" else split for split in splits}
    tfds.dataset_builders.store_as_tfds_dataset(
        name=name,
        version="1.0.0",
        features=tfds.features.FeaturesDict(features),
        split_datasets={
            split: list(enumerate(examples(like[split], channels, ids))) for split in splits
        },
        data_dir=data_dir,
        download_config=tfds.download.DownloadConfig(num_shards=shards),
        disable_shuffling=options.get("in_order", False),
        file_format=options.get("file_format"),
    )


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """A data directory with "tiny" in it; tests that damage it take a copy."""
    root = tmp_path_factory.mktemp("tfds")
    write(root, "tiny", shards=3)
    return root


@pytest.fixture(scope="module", params=["tfrecord", "array_record"])
def formatted(request, tmp_path_factory):
    """The same in either format, below a directory whose name TensorFlow takes for a pattern."""
    root = tmp_path_factory.mktemp("a") / "a[1]*?"
    write(root, "tiny", shards=3, file_format=request.param)
    return root


@pytest.fixture
def own_dir(formatted, tmp_path):
    shutil.copytree(formatted, tmp_path / "data")
    return tmp_path / "data"


class TinyCode(tfds.core.GeneratorBasedBuilder):
    """A dataset that TFDS has code for, as it has for CIFAR; it downloads nothing in truth."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(HEIGHT, WIDTH, 3)),
            "label": tfds.features.ClassLabel(num_classes=3),
            "id": tfds.features.Text(),
        }
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features), homepage="https://nowhere.invalid/"
        )

    def _split_generators(self, dl_manager):
        print("remarks of TFDS")
        return {split: enumerate(examples(split)) for split in COUNTS}

    def _generate_examples(self):
        pytest.fail("_split_generators gives the examples; TFDS only wants this to exist")


def with_url(monkeypatch, url):
    info = tfds.download.checksums.UrlInfo(size=3 << 20, checksum="", filename="x") if url else None
    monkeypatch.setattr(TinyCode, "url_infos", {url: info} if url else None)


def one_line(error):
    text = str(error.value)
    assert "\n" not in text
    return text


def assert_holds(split, name, count=None, channels=3):
    """The arrays of `split` are the first `count` examples of `name`, in official order."""
    images, labels = pictures(name, channels)
    count = count or len(images)
    np.testing.assert_array_equal(
        split.images, np.broadcast_to(images, (*images.shape[:3], 3))[:count]
    )
    np.testing.assert_array_equal(split.labels, labels[:count])
    np.testing.assert_array_equal(split.ids, np.arange(count))
    types = (split.images.dtype, split.labels.dtype, split.ids.dtype)
    assert types == (np.uint8, np.int64, np.int64)
    assert split.images.flags.c_contiguous


def test_rows_come_in_official_order_from_many_shuffled_files(formatted):
    source = sources.load("tiny", formatted, download=False)
    assert_holds(source.train, "train")
    assert_holds(source.test, "test")
    assert source.class_names == ("cat", "dog", "eel")
    assert (source.name, source.num_classes, source.image_size) == ("tiny", 3, (HEIGHT, WIDTH))
    assert source.description == f"tiny 1.0.0 (TFDS, {formatted}/tiny/1.0.0)"


@pytest.mark.parametrize(("train", "test"), [(1, 3), (22, 10), (23, 11), (1000, 12)])
def test_limits_take_the_first_in_official_order(formatted, train, test):
    source = sources.load("tiny", formatted, False, train_limit=train, eval_limit=test)
    assert_holds(source.train, "train", min(train, 23))
    assert_holds(source.test, "test", min(test, 11))


def test_greyscale_becomes_three_equal_channels(tmp_path):
    write(tmp_path, "grey", channels=1)
    source = sources.load("grey", tmp_path, download=False, eval_limit=4)
    assert_holds(source.train, "train", channels=1)
    assert_holds(source.test, "test", 4, channels=1)


@pytest.mark.parametrize("ids", [None, "picture_{split}_a", "same_7"])
def test_without_numbered_ids_the_order_is_that_of_the_files(tmp_path, ids):
    write(tmp_path, "plain", ids=ids, shards=2, in_order=True)
    source = sources.load("plain", tmp_path, download=False, train_limit=9)
    assert_holds(source.train, "train", 9)
    assert_holds(source.test, "test")


def test_validation_stands_in_for_a_missing_test_split(tmp_path):
    write(tmp_path, "held", splits=("train", "validation"))
    assert_holds(sources.load("held", tmp_path, download=False).test, "test")


def test_shapes_need_no_data(tmp_path, monkeypatch):
    monkeypatch.setattr(shapes, "SPLIT_SIZES", {"train": 20, "test": 10})
    source = sources.load(
        "shapes", tmp_path / "none", download=False, train_limit=7, eval_limit=9999
    )
    images, labels = shapes.make("test")
    np.testing.assert_array_equal(source.test.images, images)
    np.testing.assert_array_equal(source.test.labels, labels)
    assert source.train.images.shape == (7, 32, 32, 3)
    assert not np.array_equal(source.train.images, images[:7])
    np.testing.assert_array_equal(source.test.ids, np.arange(10))
    assert source.train.ids.dtype == source.train.labels.dtype == np.int64
    assert source.class_names == shapes.CLASS_NAMES
    assert source.image_size == (32, 32)


def test_reading_says_nothing(data_dir, capfd):
    sources.load("tiny", data_dir)
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "tfds" not in captured.err.lower()
    assert "WARNING:absl" not in captured.err


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cifr10", "Unknown dataset 'cifr10'. Did you mean 'cifar10' or"),
        ("qqqq", r"Unknown dataset 'qqqq'\. Known: shapes, and the \d+ names"),
        (
            "imagenet2012",
            r"image_size must be 224 or .* received 0 for 'imagenet2012' with \(None, None, 3\)",
        ),
        ("ag_news_subset", "image classification.*'ag_news_subset' with description, label, title"),
        ("emnist/leters", "cannot open dataset 'emnist/leters' .* Did you mean 'letters'?"),
        ("huggingface:mnist", "Expected a dataset name such as .*; received 'huggingface:mnist'"),
        ("../cifar10", "Expected a dataset name such as"),
    ],
)
def test_wrong_names_are_refused(tmp_path, name, message):
    with pytest.raises(ArgumentError, match=message.replace("?", r"\?")) as error:
        sources.load(name, tmp_path)
    assert len(one_line(error)) < 300
    assert not list(tmp_path.iterdir())


def test_sets_without_usable_splits_are_refused(tmp_path):
    write(tmp_path, "halved", splits=("train",))
    with pytest.raises(ArgumentError, match=r"train and test \(or validation\); received"):
        sources.load("halved", tmp_path)


def test_images_of_other_kinds_are_refused(tmp_path):
    write(tmp_path, "alpha", channels=4)
    with pytest.raises(ArgumentError, match=r"1 or 3 channels; received 'alpha' with uint8 \(5,"):
        sources.load("alpha", tmp_path)


def test_hidden_labels_are_refused(tmp_path, monkeypatch):
    labels = np.full(COUNTS["test"], -1)
    real = pictures
    monkeypatch.setitem(
        globals(),
        "pictures",
        lambda s, c=3: real(s, c) if s == "train" else (real(s, c)[0], labels),
    )
    write(tmp_path, "secret")
    with pytest.raises(ArgumentError, match="test labels are hidden"):
        sources.load("secret", tmp_path)


def test_missing_data_are_noticed_before_tensorflow_is_loaded(tmp_path):
    code = (
        "import sys\nfrom augmix_tf.data import sources\n"
        f"try: sources.load('cifar10', {str(tmp_path)!r}, download=False)\n"
        "except OSError as error: print('tensorflow' in sys.modules, error)"
    )
    assert python(code).startswith("False cifar10/3.0.2 is not in")


def refuse_download(*args, **kwargs):
    raise AssertionError("TFDS was asked to download")


def test_without_network_nothing_is_tried(tmp_path, monkeypatch):
    with_url(monkeypatch, "http://127.0.0.1:9/tiny.zip")  # nobody listens there
    monkeypatch.setattr(TinyCode, "download_and_prepare", refuse_download)
    with pytest.raises(FileError) as error:
        sources.load("tiny_code", tmp_path / "new")
    text = one_line(error)
    assert "cannot be downloaded: no connection to 127.0.0.1:9 (Connection refused)" in text
    assert "tfds.load('tiny_code', data_dir=" in text
    assert not list(tmp_path.iterdir())


def test_a_host_behind_a_proxy_is_not_asked(tmp_path, monkeypatch):
    with_url(monkeypatch, "http://127.0.0.1:9/tiny.zip")
    monkeypatch.setenv("https_proxy", "http://proxy.invalid:3128")
    assert_holds(sources.load("tiny_code", tmp_path, train_limit=2).train, "train", 2)


def test_download_prepares_once_and_then_reads(tmp_path, monkeypatch, capfd):
    with_url(monkeypatch, None)  # so the home page is asked
    asked = []

    def connect(address, timeout):
        asked.append(address)
        return io.BytesIO()

    monkeypatch.setattr(tfds_sets.socket, "create_connection", connect)
    source = sources.load("tiny_code", tmp_path / "new")
    assert_holds(source.train, "train")
    assert source.class_names == ("0", "1", "2")
    assert asked == [("nowhere.invalid", 443)]
    captured = capfd.readouterr()
    assert captured.out == ""
    assert f"Downloading tiny_code/1.0.0 to {tmp_path}/new\n" in captured.err
    assert "%|" not in captured.err  # no progress bars into a log
    assert_holds(sources.load("tiny_code", tmp_path / "new", download=False).test, "test")
    assert len(asked) == 1


def test_failing_downloads_leave_nothing_and_say_why(tmp_path, monkeypatch):
    def fail(self, dl_manager):
        raise ConnectionResetError("the line went dead\nand more")

    monkeypatch.setattr(tfds_sets, "_unreachable", lambda builder: "")
    monkeypatch.setattr(TinyCode, "_split_generators", fail)
    with pytest.raises(FileError, match=r"cannot download and prepare tiny_code.*line went dead;"):
        sources.load("tiny_code", tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def train_file(root, shard=1):
    return sorted((root / "tiny" / "1.0.0").glob("tiny-train*"))[shard]


def flip(path):
    """Changes a bit in the first record of a file."""
    content = bytearray(path.read_bytes())
    content[110 if b"array_record" in os.fsencode(path) else 30] ^= 64
    path.write_bytes(content)


DAMAGES = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-40]),
    "empty": lambda path: path.write_bytes(b""),
    "flipped": flip,
    "missing": lambda path: path.unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_named_in_one_line(own_dir, damage):
    path = train_file(own_dir)
    DAMAGES[damage](path)
    with pytest.raises(FileError, match=f"^{re.escape(str(path))} is (damaged|missing)") as error:
        sources.load("tiny", own_dir, train_limit=3)
    assert one_line(error).endswith("; remove the directory and prepare it again")


def rewrite(path, **fields):
    """Has TensorFlow write a file again, with other fields in its third record; None: without."""
    records = list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator())
    example = tf.train.Example.FromString(records[2])
    for name, value in fields.items():
        del example.features.feature[name]
        if value is not None:
            example.features.feature[name].CopyFrom(value)
    records[2] = example.SerializeToString()
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)


def png(height, width):
    buffer = io.BytesIO()
    Image.fromarray(np.full((height, width, 3), 7, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def of_bytes(value):
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))


RECORDS = {
    "no image": {"image": None},
    "no label": {"label": None},
    "no id": {"id": None},
    "torn image": {"image": of_bytes(png(HEIGHT, WIDTH)[:50])},
    "other size": {"image": of_bytes(png(WIDTH, HEIGHT))},
    "one pixel": {"image": of_bytes(png(1, 1))},
}


@pytest.mark.parametrize("damage", RECORDS)
def test_a_record_without_a_labelled_image_is_named(data_dir, tmp_path, damage):
    root = shutil.copytree(data_dir, tmp_path / "data")
    path = train_file(root)
    rewrite(path, **RECORDS[damage])
    problem = f"{re.escape(str(path))} is damaged: record .* cannot be read"
    with pytest.raises(FileError, match=problem) as error:
        sources.load("tiny", root)
    one_line(error)


def test_labels_out_of_range_are_refused(data_dir, tmp_path):
    root = shutil.copytree(data_dir, tmp_path / "data")
    label = tf.train.Feature(int64_list=tf.train.Int64List(value=[3]))
    rewrite(train_file(root), label=label)
    with pytest.raises(FileError, match="expected labels of 0 to 2 in train; received 3"):
        sources.load("tiny", root)


def test_files_of_another_format_are_refused(own_dir):
    path = own_dir / "tiny" / "1.0.0" / "dataset_info.json"
    info = path.read_text()
    for name in ("tfrecord", "array_record"):
        info = info.replace(f'"fileFormat": "{name}"', '"fileFormat": "riegeli"')
    path.write_text(info)
    with pytest.raises(FileError, match="files in tfrecord or array_record; received riegeli"):
        sources.load("tiny", own_dir)


@pytest.mark.parametrize("name", ["dataset_info.json", "features.json"])
@pytest.mark.parametrize("content", ["{torn", "{}"])
def test_damaged_descriptions(own_dir, name, content):
    (own_dir / "tiny" / "1.0.0" / name).write_text(content)
    with pytest.raises(FileError, match=f"cannot open dataset 'tiny' in {own_dir}") as error:
        sources.load("tiny", own_dir)
    one_line(error)


def test_unfinished_directories(tmp_path):
    (tmp_path / "cifar10" / "3.0.2").mkdir(parents=True)
    with pytest.raises(FileError, match=r"3\.0\.2 is incomplete \(no dataset_info\.json\):"):
        sources.load("cifar10", tmp_path)


def real(name):
    if not (REAL / name).is_dir():
        pytest.skip(f"no {name} in {REAL}: set AUGMIX_DATA to a TFDS directory that holds it")
    return REAL


def test_cifar10():
    source = sources.load("cifar10", real("cifar10"), download=False, eval_limit=200)
    assert source.train.images.shape == (50000, 32, 32, 3)
    assert np.bincount(source.train.labels).tolist() == [5000] * 10
    np.testing.assert_array_equal(source.train.ids, np.arange(50000))
    # The first labels of the official files data_batch_1 and test_batch.
    assert source.train.labels[:10].tolist() == [6, 9, 9, 4, 1, 1, 2, 7, 8, 3]
    assert source.test.labels[:10].tolist() == [3, 8, 8, 0, 6, 6, 1, 6, 3, 1]
    assert source.class_names[:3] == ("airplane", "automobile", "bird")
    assert source.test.images.shape == (200, 32, 32, 3)


def test_cifar100():
    source = sources.load("cifar100", real("cifar100"), download=False, train_limit=50)
    assert (source.num_classes, source.image_size) == (100, (32, 32))
    assert source.class_names[-1] == "worm"  # the fine labels, not the twenty coarse ones
    assert source.train.images.shape == (50, 32, 32, 3)
    assert np.all(np.diff(source.test.ids) > 0)
    reference = tfds.load("cifar100", data_dir=REAL, split="test", download=False)
    by_id = {int(x["id"][-5:]): x for x in reference.take(40).as_numpy_iterator()}
    for row in np.flatnonzero(np.isin(source.test.ids, list(by_id))):
        want = by_id[source.test.ids[row]]
        np.testing.assert_array_equal(source.test.images[row], want["image"])
        assert source.test.labels[row] == want["label"]
