"""`--mode=views`: draws training images and their augmented views."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import tensorflow as tf

from augmix_tf import files
from augmix_tf.augment.method import BatchShape
from augmix_tf.commands import build
from augmix_tf.config import Devices, ExperimentConfig, Request
from augmix_tf.data.images import Source
from augmix_tf.report import plots
from augmix_tf.seeds import BatchSeeds

SHOWN = 6
_LOADED = 64


def run(request: Request) -> None:
    """Writes `views.png`: a row for each image, the original and then its views."""
    build.strategy(Devices("none"))
    limit = request.config.train_limit or _LOADED
    config = dataclasses.replace(request.config, train_limit=limit, calibration_images=0)
    data = build.load(config)
    data.require_training_images()
    path = (request.directory or Path()) / "views.png"
    files.write_bytes_atomically(path, views_png(config, data.source))
    print(f"wrote {path}: views of {data.source.description}")


def views_png(config: ExperimentConfig, source: Source) -> bytes:
    """Draws the first training images and their views without the crop; the clean view once."""
    store, method = source.train, config.method
    images = store.read(slice(SHOWN))
    labels = tf.constant(store.labels[: len(images)], tf.int64)
    targets = tf.one_hot(labels, source.num_classes) if method.mixes_examples else labels
    shape = BatchShape(len(images), store.image_size)
    plan = method.draw(BatchSeeds(config.seed, 0, 0), shape)
    views = method.apply(tf.constant(images), targets, plan).views.numpy()
    clean, has_clean = images[:, None].astype(np.float32), views.shape[1] > 1
    views = np.concatenate([clean, views[:, 1:] if has_clean else views], axis=1)
    return plots.views_grid(views, [source.class_names[label] for label in labels])
