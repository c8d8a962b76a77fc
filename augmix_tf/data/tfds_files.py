"""Prepared data of TensorFlow Datasets (TFDS), read in the official order of the examples."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from augmix_tf import errors

AGAIN = "remove the directory and prepare it again"
BATCH = 1000
_NUMBERED_ID = re.compile(rb"[A-Za-z_-]*(\d{1,18})")


class UnreadableError(Exception):
    """TFDS cannot read a split; why, in one line."""


def read(builder: Any, split: str, limit: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns images, labels and ids of a split in the official order, as `InMemoryStore` has.

    Raises:
        ArgumentError: the labels are hidden.
        UnreadableError: a file is missing, damaged or unreadable; `salvage` finds out which.
    """
    import tensorflow as tf

    try:
        ids = _ids(builder, split)
        rows = np.argsort(ids, kind="stable")[: limit or len(ids)]
        images, labels = _images_and_labels(builder, split, rows)
    except (tf.errors.OpError, OSError) as error:
        raise UnreadableError(reason(error)) from error
    except UnicodeDecodeError as error:  # TensorFlow quotes the record in its message
        raise UnreadableError("a record is no tf.train.Example") from error
    except NotImplementedError as error:  # TFDS's refusal of ArrayRecord files
        kind = builder.info.file_format.value
        raise UnreadableError(f"Expected TFRecord files; received {kind}") from error
    require_labels(builder, split, labels)
    if labels.min() < 0 or labels.max() >= builder.info.features["label"].num_classes:
        raise UnreadableError("labels out of range")
    return images, labels, ids[rows]


def require_labels(builder: Any, split: str, labels: np.ndarray) -> None:
    """Refuses a split whose labels are hidden: TFDS writes -1 for all of them.

    Raises:
        ArgumentError: the labels are hidden.
    """
    if (labels == -1).all():
        raise errors.ArgumentError(
            f"Expected labelled images; received {builder.info.full_name!r} whose {split} "
            f"labels are hidden"
        )


def has_ids(builder: Any) -> bool:
    """Returns whether each example has a text `id`."""
    feature = dict(builder.info.features.items()).get("id")
    return feature is not None and feature.shape == ()


def numbers(texts: Sequence[bytes]) -> np.ndarray | None:
    """Returns the official numbers in some ids, int64 [N], or None where they hold none."""
    matches = [_NUMBERED_ID.fullmatch(text) for text in texts]
    if None in matches:
        return None
    found = np.array([int(match[1]) for match in matches if match], np.int64)
    # Numbers that repeat (one count per class, say) are no official order.
    return found if len(np.unique(found)) == len(found) else None


def _ids(builder: Any, split: str) -> np.ndarray:
    """int64 [count]: the official number of each example, in the order of the files."""
    places = np.arange(builder.info.splits[split].num_examples, dtype=np.int64)
    if not has_ids(builder):
        return places
    batches = _dataset(builder, split, "id").batch(BATCH).as_numpy_iterator()
    texts = np.concatenate([batch["id"] for batch in batches]).astype(np.bytes_)
    found = numbers(texts.tolist())
    return places if found is None else found


def _images_and_labels(builder: Any, split: str, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """uint8 [N, H, W, 3] and int64 [N] of the examples at `rows` of the files, in that order."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    feature = builder.info.features["image"]
    target = np.full(rows.max() + 1, -1, np.int64)
    target[rows] = np.arange(len(rows))
    targets = tf.constant(target)

    def decode(place: Any, example: Any) -> Any:
        # TFDS only says what the shape is, and batches take any image with as many values.
        image = tf.ensure_shape(feature.decode_example(example["image"]), feature.shape)
        return targets[place], image, example["label"]

    # Decoding costs most, so it comes after leaving out what is not wanted.
    first = tfds.core.ReadInstruction(split, to=len(target), unit="abs")
    dataset = _dataset(builder, first, "image", "label").enumerate()
    if len(rows) < len(target):
        dataset = dataset.filter(lambda place, _: targets[place] >= 0)
    dataset = dataset.map(decode, num_parallel_calls=tf.data.AUTOTUNE).batch(BATCH).prefetch(2)

    images = np.empty((len(rows), *feature.shape[:2], 3), np.uint8)
    labels = np.empty(len(rows), np.int64)
    for place, batch_images, batch_labels in dataset.as_numpy_iterator():
        images[place] = batch_images  # one grey channel spreads over three
        labels[place] = batch_labels
    return images, labels


def _dataset(builder: Any, split: Any, *names: str) -> Any:
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


def reason(error: BaseException) -> str:
    """The one line of a message from TFDS or TensorFlow that says what happened."""
    text = re.sub(r"^Failed to construct dataset .*?}\": ", "", str(error).strip())
    text = re.sub(r"{{.*?}} ?| ?\[Op:.*", "", text)  # TensorFlow's names of graph nodes
    line = next(iter(text.splitlines()), "").removesuffix(":") or type(error).__name__
    return line if len(line) <= 240 else line[:240] + "..."
