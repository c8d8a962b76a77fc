"""`--mode=views`: draws training images and their augmented views."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import tensorflow as tf

from augmix_tf import files
from augmix_tf.augment.method import BatchShape
from augmix_tf.commands import build
from augmix_tf.config import ExperimentConfig
from augmix_tf.data.images import ImageStore
from augmix_tf.report import plots
from augmix_tf.request import Devices, Request
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
    source = data.source
    views = example_views(config, source.train, source.num_classes)
    names = [source.class_names[label] for label in source.train.labels[: len(views)]]
    path = (request.directory or Path()) / "views.png"
    files.write_bytes_atomically(path, plots.views_grid(views, names))
    print(f"wrote {path}: {len(views)} images of {source.description}, {views.shape[1] - 1} views")


def example_views(config: ExperimentConfig, store: ImageStore, num_classes: int) -> np.ndarray:
    """Returns the first images and their views without the crop, float32 [N, 1 + V, H, W, 3].

    The clean view is not repeated.
    """
    method, images = config.method, store.read(slice(SHOWN))
    labels = tf.constant(store.labels[: len(images)], tf.int64)
    targets = tf.one_hot(labels, num_classes) if method.mixes_examples else labels
    shape = BatchShape(len(images), store.image_size)
    plan = method.draw(BatchSeeds(config.seed, 0, 0), shape)
    views = method.apply(tf.constant(images), targets, plan).views.numpy()
    clean = images[:, None].astype(np.float32)
    has_clean = views.shape[1] > 1
    return np.concatenate([clean, views[:, 1:] if has_clean else views], axis=1)
