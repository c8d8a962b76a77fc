"""Datasets in memory: the embedded one, and any of TensorFlow Datasets (TFDS) that fits.

All rows come in the official order, so that "the first n examples" are the same ones wherever and
however a set was prepared: TFDS shuffles what it writes, and each version may do so differently.

TensorFlow and TFDS are imported only where they are needed; whether data are there, and whether
they can be used, is known before TensorFlow has been loaded.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import queue
import re
import socket
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from augmix_tf import checks

EMBEDDED = "shapes"
PROBE_SECONDS = 5.0
BATCH = 1000
# Dataset, then perhaps a configuration and a version: "emnist/letters:3.1.0".
_NAME = re.compile(r"(\w+)(?:/([\w.+-]+))?(?::[\d.*]+)?")
_NUMBERED_ID = re.compile(rb"[A-Za-z_-]*(\d{1,18})")
_PORTS = {"http": 80, "https": 443, "ftp": 21}


@dataclasses.dataclass(frozen=True)
class Split:
    """One split in memory, in the official order.

    Attributes:
        images: uint8 [N, H, W, 3], RGB, C-contiguous; greyscale as three equal channels.
        labels: int64 [N], indices into the source's `class_names`.
        ids: int64 [N], rising: the example's number in the official order (CIFAR: from TFDS's
            field `id`, b"test_00042" is 42), for sets without numbered ids the place in the
            prepared files.
    """

    images: np.ndarray
    labels: np.ndarray
    ids: np.ndarray


@dataclasses.dataclass(frozen=True)
class Source:
    """A dataset to train on and to test on.

    Attributes:
        name: as it was asked for.
        train: the examples to train on.
        test: the examples to test on (TFDS's `validation` where there is no `test`).
        class_names: one per label.
        description: one line: what was read, and where.
    """

    name: str
    train: Split
    test: Split
    class_names: tuple[str, ...]
    description: str

    @property
    def num_classes(self) -> int:
        """How many classes labels tell apart."""
        return len(self.class_names)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of all images, in pixels."""
        return self.train.images.shape[1], self.train.images.shape[2]


def load(
    name: str,
    data_dir: str | os.PathLike[str] | None = None,
    download: bool = True,
    train_limit: int = 0,
    eval_limit: int = 0,
) -> Source:
    """Reads a dataset into memory.

    What would be downloaded is said on stderr beforehand. Without a network that ends within
    seconds, instead of the minutes for which TFDS keeps trying.

    Args:
        name: "shapes" (embedded: nothing to prepare), or an image classification set of TFDS whose
            images all have one size, such as "cifar10", "emnist/letters" or "cifar10:3.0.2".
        data_dir: where TFDS data are, or are to be prepared; None means TFDS's own place.
        download: whether TFDS may download and prepare what is missing.
        train_limit: how many examples to take of the train split, from the first in the official
            order; 0, or more than there are, takes all.
        eval_limit: the same for the test split.

    Raises:
        CommandError: no such dataset, one that this reader cannot hold (varying image sizes, too
            large for the memory) or that is not labelled images, or a negative limit.
        RunError: data are missing, unreadable or damaged, or could not be downloaded.
    """
    for limit, value in (("train_limit", train_limit), ("eval_limit", eval_limit)):
        checks.require(value >= 0, f"{limit} of 0 (all) or more", value)
    if name == EMBEDDED:
        return _load_shapes(train_limit, eval_limit)
    root = os.path.expanduser(os.fspath(data_dir)) if data_dir else None
    with _quiet():
        builder = _open(name, root)
        _check_features(name, builder.info.features)
        if not _is_prepared(builder):
            _prepare(builder, name, download)
        test = "test" if "test" in builder.info.splits else "validation"
        _check_splits(name, builder, {"train": train_limit, test: eval_limit})
        dataset, _, version = builder.info.full_name.rpartition("/")
        return Source(
            name=name,
            train=_read(builder, "train", train_limit),
            test=_read(builder, test, eval_limit),
            class_names=_class_names(builder.info.features["label"]),
            description=f"{dataset} {version} (TFDS, {builder.data_path})",
        )


def _load_shapes(train_limit: int, eval_limit: int) -> Source:
    from augmix_tf.data import shapes

    def draw(split: str, limit: int) -> Split:
        images, labels = shapes.make(split)
        rows = np.arange(len(images))[: limit or len(images)]
        return Split(images[rows], labels[rows], rows.astype(np.int64))

    train, test = draw("train", train_limit), draw("test", eval_limit)
    description = "shapes (embedded, drawn by this program)"
    return Source(EMBEDDED, train, test, shapes.CLASS_NAMES, description)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps TFDS's remarks to itself: what a user must know comes as an error."""
    from absl import logging

    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(before)


# Which dataset, and whether this reader can hold it


def _open(name: str, root: str | None) -> Any:
    """The TFDS builder of `name`, prepared or not; no network is touched."""
    # Anything else would make TFDS import, or fetch, code of third parties.
    wanted = "a dataset name such as 'shapes', 'cifar10' or 'emnist/letters:3.1.0'"
    checks.require(_NAME.fullmatch(name) is not None, wanted, repr(name))
    if root is not None:
        _check_directory(root)
    import tensorflow_datasets as tfds

    try:
        return tfds.builder(name, data_dir=root)
    except tfds.core.DatasetNotFoundError as error:
        raise checks.CommandError(_unknown_dataset(name)) from error
    except Exception as error:  # a set's own code may raise anything
        reason = _reason(error)
        # Only of the configuration or version that was asked for can the name be guilty.
        unreadable = isinstance(error, json.JSONDecodeError | UnicodeDecodeError)
        variant = "/" in name or ":" in name
        if variant and isinstance(error, AssertionError | ValueError) and not unreadable:
            raise checks.CommandError(_unknown_variant(name, reason)) from error
        where = f" in {root}" if root else ""
        raise checks.RunError(f"cannot open dataset {name!r}{where}: {reason}") from error


def _check_directory(root: str) -> None:
    """Refuses what is there but cannot be looked into; a missing one may be made later."""
    if "://" in root or not os.path.lexists(root):
        return
    try:
        os.listdir(root)
    except OSError as error:
        reason = error.strerror or error
        raise checks.RunError(f"cannot read the data directory {root}: {reason}") from error


def _unknown_dataset(name: str) -> str:
    import tensorflow_datasets as tfds

    dataset = re.split("[/:]", name)[0]
    names = [EMBEDDED, *tfds.list_builders(with_community_datasets=False)]
    return (
        f"unknown dataset {name!r}{checks.nearest_name(dataset.lower(), names)} "
        f"Known: {EMBEDDED}, and the {len(names) - 1} names of TensorFlow Datasets"
    )


def _unknown_variant(name: str, reason: str) -> str:
    """What to say of a configuration or a version that a known dataset does not have."""
    import tensorflow_datasets as tfds

    match = _NAME.fullmatch(name)
    dataset, config = match.groups() if match else (name, None)
    configs = tfds.builder_cls(dataset).builder_configs
    if config is None or config in configs:
        return f"dataset {name!r}: {reason}"
    if not configs:
        return f"dataset {dataset!r} has no configurations, got {name!r}"
    return f"unknown configuration {config!r} of {dataset!r}{checks.nearest_name(config, configs)}"


def _reason(error: BaseException) -> str:
    """The one line of a message from TFDS or TensorFlow that says what happened."""
    text = re.sub(r"^Failed to construct dataset .*?}\": ", "", str(error).strip())
    text = re.sub(r"{{.*?}} ?| ?\[Op:.*", "", text)  # TensorFlow's names of graph nodes
    line = next(iter(text.splitlines()), "").removesuffix(":") or type(error).__name__
    return line if len(line) <= 240 else line[:240] + "..."


def _check_features(name: str, features: Any) -> None:
    """Refuses all but uint8 images of one size, grey or RGB, with one class each."""
    import tensorflow_datasets as tfds

    known = dict(features.items()) if isinstance(features, tfds.features.FeaturesDict) else {}
    image, label = known.get("image"), known.get("label")
    if not isinstance(image, tfds.features.Image) or not isinstance(
        label, tfds.features.ClassLabel
    ):
        found = ", ".join(sorted(known)) or type(features).__name__
        raise checks.CommandError(
            f"want an image classification dataset (features image and label), "
            f"got {name!r} with {found}"
        )
    if None in image.shape:
        raise checks.CommandError(
            f"want images of one size, because they are read into memory as one array, "
            f"got {name!r} with images of varying size {image.shape}"
        )
    fits = image.shape[-1] in (1, 3) and image.np_dtype == np.uint8
    wanted = "uint8 images with 1 or 3 channels"
    checks.require(fits, wanted, f"{name!r} with {np.dtype(image.np_dtype)} {image.shape}")


def _check_splits(name: str, builder: Any, limits: dict[str, int]) -> None:
    """Refuses a set that lacks a split of `limits`, or that exceeds the memory under them."""
    splits = builder.info.splits
    missing = [key for key in limits if key not in splits or not splits[key].num_examples]
    if missing:
        wanted = "a dataset with the splits train and test (or validation)"
        raise checks.CommandError(f"want {wanted}, got {name!r} with {', '.join(splits) or 'none'}")
    height, width, _ = builder.info.features["image"].shape
    counts = {split: splits[split].num_examples for split in limits}
    rows = sum(min(limit or counts[split], counts[split]) for split, limit in limits.items())
    needed, memory = rows * height * width * 3, _memory_bytes()
    if needed > memory:
        raise checks.CommandError(
            f"want a dataset that fits into memory ({memory / 2**30:.1f} GiB), got {name!r} "
            f"with {needed / 2**30:.1f} GiB of images; a limit on the examples makes it smaller"
        )


def _memory_bytes() -> float:
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, OSError, ValueError):  # not every system tells
        return float("inf")


def _class_names(label: Any) -> tuple[str, ...]:
    # TFDS names the classes "0", "1", ... where the set has no names for them.
    return tuple(label.int2str(index) for index in range(label.num_classes))


# Data that are not there yet


def _is_prepared(builder: Any) -> bool:
    """Whether the data are there; TFDS writes this file last."""
    directory = builder.data_path
    if (directory / "dataset_info.json").exists():
        return True
    if directory.exists():
        # TFDS would take it for prepared as well, and fail on it later.
        raise checks.RunError(
            f"{directory} is incomplete (no dataset_info.json): remove it and prepare it again"
        )
    return False


def _prepare(builder: Any, name: str, download: bool) -> None:
    """Lets TFDS download and prepare what is missing, if it may and can."""
    import tensorflow_datasets as tfds

    missing = _missing(builder)
    command = f"tfds.load({name!r}, data_dir={os.fspath(builder.data_dir_root)!r})"
    command = f'python -c "import tensorflow_datasets as tfds; {command}"'
    if not download:
        raise checks.RunError(f"{missing}; prepare it with `{command}` or drop --nodownload")
    urls = builder.url_infos or {}
    _announce(builder, urls)
    unreachable = _unreachable(urls or [builder.info.homepage])
    if unreachable:
        raise checks.RunError(
            f"{missing} and cannot be downloaded: {unreachable}; where there is a network, "
            f"prepare it with `{command}`"
        )
    progress = sys.stderr.isatty()
    if not progress:
        tfds.disable_progress_bar()
    try:
        # TFDS prints to stdout what has been announced on stderr.
        with contextlib.redirect_stdout(io.StringIO()):
            builder.download_and_prepare()
    except Exception as error:  # network, disk, or the set's own code: all beyond our power
        failed = f"cannot download and prepare {builder.info.full_name}: {_reason(error)}"
        raise checks.RunError(f"{failed}; try it apart with `{command}`") from error
    finally:
        if not progress:
            tfds.enable_progress_bar()


def _missing(builder: Any) -> str:
    """What was looked for and not found, and where."""
    root, place = os.fspath(builder.data_dir_root), builder.data_path
    if "://" not in root and not os.path.exists(root):
        return f"{builder.info.full_name} is not there: no data directory {root}"
    text = f"{builder.info.full_name} is not in the data directory {root} (no {place})"
    others = sorted(path.parent.name for path in place.parent.glob("*.*.*/dataset_info.json"))
    return f"{text}; it holds version {', '.join(others)}" if others else text


def _announce(builder: Any, urls: dict[str, Any]) -> None:
    hosts = sorted({urllib.parse.urlsplit(url).hostname or url for url in urls})
    size = sum(info.size for info in urls.values()) / 2**20
    amount = f" (up to {size:.0f} MiB)" if size else ""
    origin = f" from {', '.join(hosts)}" if hosts else ""
    text = f"Downloading {builder.info.full_name}{amount}{origin} to {builder.data_dir_root}"
    print(text, file=sys.stderr, flush=True)


def _unreachable(urls: Iterable[str]) -> str:
    """Says why none of the hosts of `urls` answers; "" when one does, or none is known.

    One is enough: lists of addresses hold some that are no longer used.
    """
    targets = sorted({target for url in urls if (target := _target(url)) is not None})[:8]
    answers: queue.Queue[str] = queue.Queue()
    for target in targets:
        # A daemon, because looking up a name cannot be given a time limit.
        threading.Thread(target=_knock, args=(*target, answers), daemon=True).start()
    deadline = time.monotonic() + PROBE_SECONDS
    answer = ""
    for _ in targets:
        try:
            answer = answers.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            return f"no answer from {targets[0][0]} within {PROBE_SECONDS:g} seconds"
        if not answer:
            break
    return answer


def _target(url: str) -> tuple[str, int] | None:
    """Host and port to connect to for `url`: its own, or those of a proxy in front of it."""
    parts = urllib.parse.urlsplit(url or "")
    if parts.scheme not in _PORTS or not parts.hostname:
        return None
    if not urllib.request.proxy_bypass(parts.hostname):
        proxies = urllib.request.getproxies()
        proxy = proxies.get(parts.scheme) or proxies.get("all")
        if proxy:
            parts = urllib.parse.urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    if not parts.hostname:
        return None
    return parts.hostname, parts.port or _PORTS.get(parts.scheme, 80)


def _knock(host: str, port: int, answers: queue.Queue[str]) -> None:
    """Puts "" for a host that accepts a connection, else why it does not."""
    try:
        socket.create_connection((host, port), timeout=PROBE_SECONDS).close()
    except OSError as error:
        answers.put(f"no connection to {host}:{port} ({error.strerror or error})")
    else:
        answers.put("")


# Reading prepared data


def _read(builder: Any, split: str, limit: int) -> Split:
    import tensorflow as tf

    try:
        ids = _ids(builder, split)
        rows = np.argsort(ids, kind="stable")[: limit or len(ids)]
        images, labels = _images_and_labels(builder, split, rows)
    except (tf.errors.OpError, OSError) as error:
        raise checks.RunError(_damage(builder, split, error)) from error
    if labels.min() < 0:
        raise checks.CommandError(
            f"want labelled images, got {builder.info.full_name!r} whose {split} labels are hidden"
        )
    return Split(images, labels, ids[rows])


def _ids(builder: Any, split: str) -> np.ndarray:
    """int64 [count]: the official number of each example, in the order of the files."""
    places = np.arange(builder.info.splits[split].num_examples, dtype=np.int64)
    feature = dict(builder.info.features.items()).get("id")
    if feature is None or feature.shape != ():
        return places
    batches = _dataset(builder, split, "id").batch(BATCH).as_numpy_iterator()
    texts = np.concatenate([batch["id"] for batch in batches]).astype(np.bytes_)
    matches = [_NUMBERED_ID.fullmatch(text) for text in texts.tolist()]
    if None in matches:
        return places
    numbers = np.array([int(match[1]) for match in matches if match], np.int64)
    # Numbers that repeat (one count per class, say) are no official order.
    return numbers if len(np.unique(numbers)) == len(numbers) else places


def _images_and_labels(builder: Any, split: str, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """uint8 [N, H, W, 3] and int64 [N] of the examples at `rows` of the files, in that order."""
    import tensorflow as tf

    feature = builder.info.features["image"]
    target = np.full(rows.max() + 1, -1, np.int64)
    target[rows] = np.arange(len(rows))
    targets = tf.constant(target)

    def decode(place: Any, example: Any) -> Any:
        return targets[place], feature.decode_example(example["image"]), example["label"]

    # Decoding costs most, so it comes after leaving out what is not wanted.
    dataset = _dataset(builder, split, "image", "label").take(len(target)).enumerate()
    if len(rows) < len(target):
        dataset = dataset.filter(lambda place, _: targets[place] >= 0)
    dataset = dataset.map(decode, num_parallel_calls=tf.data.AUTOTUNE).batch(BATCH).prefetch(2)

    images = np.empty((len(rows), *feature.shape[:2], 3), np.uint8)
    labels = np.empty(len(rows), np.int64)
    for place, batch_images, batch_labels in dataset.as_numpy_iterator():
        images[place] = batch_images  # one grey channel spreads over three
        labels[place] = batch_labels
    return images, labels


def _dataset(builder: Any, split: str, *names: str) -> Any:
    """A tf.data.Dataset of the features `names`, images encoded, in the order of the files."""
    import tensorflow_datasets as tfds

    skip = {"image": tfds.decode.SkipDecoding()} if "image" in names else None
    return builder.as_dataset(
        split=split,
        shuffle_files=False,
        # One file after the other: more at a time would mix their examples.
        read_config=tfds.ReadConfig(
            try_autocache=False, skip_prefetch=True, interleave_cycle_length=1
        ),
        decoders=tfds.decode.PartialDecoding(dict.fromkeys(names, True), decoders=skip),
    )


def _damage(builder: Any, split: str, error: Exception) -> str:
    """Which file made reading fail, and how, because TensorFlow's errors seldom name it."""
    import tensorflow as tf

    info = builder.info.splits[split]
    again = "remove the directory and prepare it again"
    for path, count in zip(info.filepaths, info.shard_lengths, strict=True):
        if not path.exists():
            return f"{path} is missing; {again}"
        if ".tfrecord" not in path.name:
            continue
        try:
            found = int(tf.data.TFRecordDataset(str(path)).reduce(0, lambda total, _: total + 1))
        except tf.errors.OpError as shard_error:
            return f"{path} is damaged or unreadable ({_reason(shard_error)}); {again}"
        if found != count:
            return f"{path} is damaged (holds {found} examples instead of {count}); {again}"
    return f"{builder.data_dir} cannot be read ({_reason(error)}); {again}"
