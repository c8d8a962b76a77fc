"""From a configuration to the objects it describes: data, network, trainer, batches."""

from __future__ import annotations

import dataclasses
import functools
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.optimizers.schedules import LearningRateSchedule

from augmix_tf import models, runtime
from augmix_tf.config import Devices, ExperimentConfig
from augmix_tf.data import FOLDER, class_folders, pipeline, sources
from augmix_tf.data.images import ImageStore, Source
from augmix_tf.data.pipeline import Position, ReplicaSlice
from augmix_tf.errors import ArgumentError, CommandError
from augmix_tf.models import CIFAR_NORMALIZATION, IMAGENET_NORMALIZATION, with_normalization
from augmix_tf.training import distribution
from augmix_tf.training.adversary import Adversary
from augmix_tf.training.checkpoints import Checkpoints
from augmix_tf.training.optimizer import CoupledSGD, cosine_schedule, step_schedule
from augmix_tf.training.step import Trainer
from augmix_tf.workdir import Workdir


@dataclasses.dataclass(frozen=True)
class Data:
    """What a run reads: training and test images, and those held out for temperature scaling."""

    source: Source
    held_out: ImageStore  # may be empty
    prepared: Mapping[str, Any]  # what else the method uses, see `Method.prepare`

    @property
    def digest(self) -> int:
        """A checksum of the training examples and their order, and of what else trains."""
        digests = (self.source.train.digest, self.held_out.digest, *self.prepared.items())
        return functools.reduce(lambda so_far, d: zlib.crc32(str(d).encode(), so_far), digests, 0)

    def require_training_images(self) -> None:
        """Raises `ArgumentError` unless there are images to train on."""
        if not len(self.source.train):
            raise ArgumentError(f"There are no training images in {self.source.description}.")


@dataclasses.dataclass(frozen=True)
class Run:
    """One run: its configuration, and the objects made from it."""

    config: ExperimentConfig
    directory: Workdir
    data: Data
    trainer: Trainer
    checkpoints: Checkpoints
    chief: bool  # whether this process writes the run directory; of several workers one does


def strategy(devices: Devices) -> tf.distribute.Strategy:
    """Returns the strategy of the chosen devices; call it before TensorFlow runs anything."""
    with runtime.silenced():
        return distribution.make_strategy(devices.strategy, devices.tpu, devices.cpu_replicas)


def decided(config: ExperimentConfig, directory: Workdir) -> ExperimentConfig:
    """Returns the configuration with the precision that "auto" stands for.

    A run keeps the precision that it began with, also on another machine.
    """
    if config.precision != "auto":
        return config
    stored = directory.stored_config().precision if directory.config.exists() else "auto"
    chosen = distribution.fastest_precision() if stored == "auto" else stored
    return dataclasses.replace(config, precision=chosen)


def prepare(config: ExperimentConfig) -> None:
    """Sets what holds for the whole process: seeds, precision, determinism."""
    keras.utils.set_random_seed(config.seed)
    keras.mixed_precision.set_global_policy(config.precision)
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()


def run(
    config: ExperimentConfig, directory: Workdir, data: Data, devices: tf.distribute.Strategy
) -> Run:
    """Builds the untrained network and its checkpoints, on these devices."""
    trainer = build_trainer(config, data.source, devices)
    chief = distribution.is_chief(devices)
    checkpoints = Checkpoints(trainer, directory.checkpoints, chief, data.digest)
    return Run(config, directory, data, trainer, checkpoints, chief)


def load(config: ExperimentConfig) -> Data:
    """Reads the data, or finds the files of images that stay on disk."""
    source = sources.load(
        config.dataset,
        config.data_dir,
        config.download,
        train_limit=config.train_limit,
        eval_limit=config.eval_limit,
        skip_bad_examples=config.skip_bad_examples,
        image_size=config.image_size,
    )
    held_out, count = config.calibration_images, len(source.train)
    if held_out >= max(count, 1):
        raise CommandError(
            f"--calibration_images must be below the {count} training images; received {held_out}."
        )
    train = source.train.slice(slice(count - held_out))
    kept = source.train.slice(slice(count - held_out, count))
    if config.stylized_dir:
        stylized = _stylized(config, source)
        train, source = train.joined(stylized), source.with_note(stylized.left_out)
    prepared = config.method.prepare(source.image_size)
    return Data(dataclasses.replace(source, train=train), kept, prepared)


def _stylized(config: ExperimentConfig, source: Source) -> ImageStore:
    """The stylized images (SIN), whose ids follow those of the training images."""
    place = Path(str(config.stylized_dir))
    if not config.large:
        return class_folders.read(place, source)
    store = class_folders.open_split(place, source.class_names, source.image_size)
    first = int(source.train.ids.max(initial=-1)) + 1
    store = dataclasses.replace(store, ids=store.ids + first)
    if config.dataset != FOLDER:
        return store
    # The model card repeats this text, and cards are published without the local path.
    return store.for_training(f"images in {place.name}", config.skip_bad_examples)


def load_test_images(config: ExperimentConfig) -> Data:
    """Reads the data for commands that do not train."""
    return load(dataclasses.replace(config, train_limit=1, calibration_images=0))


def build_trainer(
    config: ExperimentConfig, source: Source, devices: tf.distribute.Strategy | None = None
) -> Trainer:
    """Builds the untrained network with its optimizer, on these devices or on one."""
    with (devices or tf.distribute.get_strategy()).scope():
        backbone = models.build(
            config.model,
            source.num_classes,
            (*source.image_size, 3),
            seed=config.seed,
            synchronized_bn=tf.distribute.get_strategy().num_replicas_in_sync > 1,
        )
        attack = config.method.attack
        trainer = Trainer(
            with_normalization(backbone, *normalization(config)),
            config.method.jsd_weight,
            label_all_views=config.method.label_all_views,
            batch_norms=config.method.batch_norms,
            adversary=attack
            and Adversary(attack.epsilon / 255, attack.step_size / 255, attack.steps),
            run_seed=config.seed,
        )
        rate = learning_rate(config, len(source.train))
        optimizer = CoupledSGD(rate, nesterov=config.nesterov, weight_decay=config.weight_decay)
        if config.precision == "mixed_float16":
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        trainer.compile(optimizer=optimizer)
        return trainer


def load_weights(config: ExperimentConfig, source: Source, path: Path) -> keras.Model:
    """Returns the classifier with the weights of a PyTorch network in a `.safetensors` file."""
    shape = (*source.image_size, 3)
    backbone = models.build(config.model, source.num_classes, shape)
    models.load_torch_state(backbone, path, normalization(config))
    return with_normalization(backbone, *normalization(config))


def normalization(config: ExperimentConfig) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns mean and standard deviation of the images, 0 to 1."""
    return IMAGENET_NORMALIZATION if config.large else CIFAR_NORMALIZATION


def learning_rate(config: ExperimentConfig, examples: int) -> float | LearningRateSchedule:
    """Returns the learning rate, or its schedule."""
    steps = pipeline.steps_per_epoch(examples, config.batch_size)
    warmup = config.warmup_epochs * steps
    if config.schedule == "cosine":
        return cosine_schedule(config.learning_rate, config.epochs * steps, warmup)
    if config.schedule == "step":
        return step_schedule(config.learning_rate, config.epochs, steps, warmup)
    return config.learning_rate


def training_batches(
    config: ExperimentConfig, source: Source, start: Position, replicas: ReplicaSlice
) -> tf.data.Dataset:
    """Returns the batches of a run from `start` on, for some replicas."""
    return pipeline.training_batches(
        source.train,
        config.method,
        num_classes=source.num_classes,
        run_seed=config.seed,
        epochs=config.epochs,
        batch_size=config.batch_size,
        start=start,
        replicas=replicas,
    )


def parameters(trainer: Trainer) -> int:
    """Returns the number of trainable parameters of the network."""
    return sum(int(np.prod(weight.shape)) for weight in trainer.classifier.trainable_variables)
