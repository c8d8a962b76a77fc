"""From a configuration to the things it names: data, method, model."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from augmix_tf import models
from augmix_tf.augment import augmix_views, methods
from augmix_tf.checks import require
from augmix_tf.config import ExperimentConfig
from augmix_tf.data import folders, pipeline, sources
from augmix_tf.data.sources import Source, Split
from augmix_tf.models.classifier import CIFAR_NORMALIZATION, with_normalization
from augmix_tf.training.adversary import Adversary
from augmix_tf.training.optimizer import CoupledSGD
from augmix_tf.training.schedules import CosineToFloor
from augmix_tf.training.step import Trainer


@dataclasses.dataclass(frozen=True)
class Data:
    """What a run reads.

    Attributes:
        source: what it trains and is tested on.
        held_out: training images kept for the temperature; may be none.
    """

    source: Source
    held_out: Split


def prepare(config: ExperimentConfig) -> None:
    """Sets what holds for the whole process: seeds, precision, determinism."""
    keras.utils.set_random_seed(config.seed)
    keras.mixed_precision.set_global_policy(config.precision)
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()


def load(config: ExperimentConfig) -> Data:
    """Reads the data into memory."""
    source = sources.load(
        config.dataset,
        config.data_dir,
        config.download,
        train_limit=config.train_limit,
        eval_limit=config.eval_limit,
    )
    held_out = config.calibration_images
    count = len(source.train.labels)
    wanted = f"--calibration_images below the {count} training images"
    require(held_out < count, wanted, held_out)
    train, kept = (
        _part(source.train, 0, count - held_out),
        _part(source.train, count - held_out, count),
    )
    if config.stylized_dir:
        train = _joined(train, folders.read(Path(config.stylized_dir), source))
    return Data(dataclasses.replace(source, train=train), kept)


def build(config: ExperimentConfig, source: Source) -> Trainer:
    """Makes the untrained model with its optimiser."""
    backbone = models.build(
        config.model,
        source.num_classes,
        (*source.image_size, 3),
        seed=config.seed,
        **config.model_options,
    )
    trainer = Trainer(
        with_normalization(backbone, *CIFAR_NORMALIZATION),
        config.jsd_weight,
        batch_norms=config.views if config.split_bn else 1,
        adversary=_adversary(config),
        run_seed=config.seed,
    )
    steps = pipeline.steps_per_epoch(len(source.train.labels), config.batch_size)
    rate = CosineToFloor(config.learning_rate, config.epochs * steps)
    optimizer = CoupledSGD(rate, weight_decay=config.weight_decay)
    if config.precision == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    trainer.compile(optimizer=optimizer)
    return trainer


def method_of(config: ExperimentConfig, num_classes: int) -> methods.Method:
    """Returns what is done to a batch."""
    seed, name = config.seed, config.method
    if name == "augmix":
        return _augmix(config)
    if name == "mixup":
        return methods.mixup(seed, num_classes, config.mixup_alpha)
    if name == "cutmix":
        return methods.cutmix(seed, num_classes, config.cutmix_alpha, config.cutmix_probability)
    changes = [methods.unchanged()]
    if name == "patch_uniform":
        changes = [methods.patch_uniform(config.patch_size, config.patch_scale)]
    elif name in ("autoaugment", "random_autoaugment"):
        changes = [_policy(name)]
    if config.cutout_size:
        changes.append(methods.cutout(config.cutout_size))
    return methods.one_view(seed, *changes)


def example_views(config: ExperimentConfig, images: np.ndarray) -> np.ndarray:
    """Makes the first views of some pictures with the operations of a run, without the crop."""
    place, views = (config.seed, 0, 0), max(config.views, 2)
    if config.mix_ops == "augmix":
        return augmix_views(images, *place, config.augmix, views).numpy()
    pictures = tf.constant(images)
    return methods.changed_views(pictures, *place, _policy(config.mix_ops), views).numpy()


def parameters(trainer: Trainer) -> int:
    """How many numbers of the network are trained."""
    return sum(int(np.prod(weight.shape)) for weight in trainer.classifier.trainable_variables)


def _augmix(config: ExperimentConfig) -> methods.Method:
    if config.mix_ops != "augmix":
        change = _policy(config.mix_ops)
        if not config.jsd:
            return methods.one_view(config.seed, change)
        return methods.agreeing_views(config.seed, change, config.views)
    if not config.jsd:
        return methods.augmix_without_jsd(config.seed, config.augmix)
    return methods.augmix(config.seed, config.augmix, config.views)


def _policy(name: str) -> methods.Change:
    return methods.autoaugment({"autoaugment": "cifar10", "random_autoaugment": "random"}[name])


def _adversary(config: ExperimentConfig) -> Adversary | None:
    if config.method != "adversarial":
        return None
    return Adversary(
        epsilon=config.adversary_epsilon / 255,
        step_size=config.adversary_step_size / 255,
        steps=config.adversary_steps,
    )


def _part(split: Split, first: int, last: int) -> Split:
    return Split(split.images[first:last], split.labels[first:last], split.ids[first:last])


def _joined(first: Split, second: Split) -> Split:
    return Split(
        np.concatenate([first.images, second.images]),
        np.concatenate([first.labels, second.labels]),
        np.concatenate([first.ids, second.ids]),
    )
