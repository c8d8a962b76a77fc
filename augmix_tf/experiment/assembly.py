"""From a configuration to the things it names: data, method, model."""

from __future__ import annotations

import dataclasses
import functools
import zlib
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from keras.optimizers.schedules import LearningRateSchedule

from augmix_tf import models
from augmix_tf.augment import augmix_views, methods
from augmix_tf.augment.rows import PADDED_CROP, Batch, Crop, ResizedCrop
from augmix_tf.checks import CommandError, require
from augmix_tf.config import ExperimentConfig
from augmix_tf.data import folders, folders_by_class, large, pipeline, sources
from augmix_tf.data.pictures import EncodedPictures
from augmix_tf.data.pipeline import Position
from augmix_tf.data.sources import Source, Split
from augmix_tf.models.classifier import (
    CIFAR_NORMALIZATION,
    IMAGENET_NORMALIZATION,
    with_normalization,
)
from augmix_tf.training.adversary import Adversary
from augmix_tf.training.optimizer import CoupledSGD
from augmix_tf.training.schedules import CosineToFloor, StepDecay
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

    @property
    def digest(self) -> int:
        """A number that other training images, labels or places of them would not give."""
        parts = (self.source.train, self.held_out)
        arrays = [array for part in parts for array in (part.ids, part.labels)]
        images = [part.images for part in parts if isinstance(part.images, EncodedPictures)]
        arrays += [np.array([one.digest]) for one in images]
        return functools.reduce(lambda so_far, a: zlib.crc32(a.tobytes(), so_far), arrays, 0)

    def require_training(self) -> None:
        """Refuses data with test images alone.

        Raises:
            CommandError: there is nothing to train on.
        """
        source = self.source
        if not len(source.train.labels):
            raise CommandError(f"want images to train on, got none: {source.description}")


def prepare(config: ExperimentConfig) -> None:
    """Sets what holds for the whole process: seeds, precision, determinism."""
    keras.utils.set_random_seed(config.seed)
    keras.mixed_precision.set_global_policy(config.precision)
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()


def load(config: ExperimentConfig) -> Data:
    """Reads the data, or finds them where they stay on disk."""
    source = sources.load(
        config.dataset,
        config.data_dir,
        config.download,
        train_limit=config.train_limit,
        eval_limit=config.eval_limit,
        skip_bad_examples=config.skip_bad_examples,
        image_size=config.image_size,
    )
    held_out = config.calibration_images
    count = len(source.train.labels)
    wanted = f"--calibration_images below the {count} training images"
    require(held_out < max(count, 1), wanted, held_out)
    train = source.train.part(slice(0, count - held_out))
    kept = source.train.part(slice(count - held_out, count))
    if config.stylized_dir:
        stylized = _stylized(config, source)
        train, source = train.joined(stylized), source.without(stylized.left_out)
    return Data(dataclasses.replace(source, train=train), kept)


def _stylized(config: ExperimentConfig, source: Source) -> Split:
    """The stylised pictures (SIN), which count on from the training images."""
    place = Path(str(config.stylized_dir))
    if isinstance(source.train.images, np.ndarray):
        split = folders.read(place, source, config.skip_bad_examples)
    else:
        opened = folders_by_class.open_split(place, source.class_names, source.image_size)
        split = large.encoded_split(opened, f"pictures in {place}", config.skip_bad_examples)
        first = int(source.train.ids.max(initial=-1)) + 1
        split = dataclasses.replace(split, ids=split.ids + first)
    # A card has these words, and cards travel: the folder's name is enough.
    left_out = split.left_out.replace(str(place), place.name)
    return dataclasses.replace(split, left_out=left_out)


def build(
    config: ExperimentConfig, source: Source, devices: tf.distribute.Strategy | None = None
) -> Trainer:
    """Makes the untrained model with its optimiser, on these devices or on one."""
    with (devices or tf.distribute.get_strategy()).scope():
        return _build(config, source)


def _build(config: ExperimentConfig, source: Source) -> Trainer:
    backbone = models.build(
        config.model,
        source.num_classes,
        (*source.image_size, 3),
        seed=config.seed,
        synchronized_bn=tf.distribute.get_strategy().num_replicas_in_sync > 1,
        **config.model_options,
    )
    trainer = Trainer(
        with_normalization(backbone, *_normalization(config)),
        config.jsd_weight,
        batch_norms=config.views if config.split_bn else 1,
        adversary=_adversary(config),
        run_seed=config.seed,
    )
    rate = learning_rate(config, len(source.train.labels))
    optimizer = CoupledSGD(rate, nesterov=config.nesterov, weight_decay=config.weight_decay)
    if config.precision == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    trainer.compile(optimizer=optimizer)
    return trainer


def learning_rate(config: ExperimentConfig, examples: int) -> float | LearningRateSchedule:
    """Returns the learning rate, or its schedule."""
    steps = pipeline.steps_per_epoch(examples, config.batch_size)
    warmup = config.warmup_epochs * steps
    if config.schedule == "cosine":
        return CosineToFloor(config.learning_rate, config.epochs * steps, warmup_steps=warmup)
    if config.schedule == "step":
        return StepDecay(config.learning_rate, config.epochs, steps, warmup)
    return config.learning_rate


def check_extension(
    config: ExperimentConfig, epochs: int, trained: Position, examples: int
) -> None:
    """Refuses to train a run for longer whose steps so far would have had other learning rates.

    Args:
        config: with the epochs that are asked for.
        epochs: that were asked for before.
        trained: how far the run is.
        examples: of one epoch.

    Raises:
        CommandError: a step that is trained would have had another rate.
    """
    before = learning_rate(dataclasses.replace(config, epochs=epochs), examples)
    now = learning_rate(config, examples)
    if isinstance(before, float) or isinstance(now, float):
        return
    done = trained.epoch * pipeline.steps_per_epoch(examples, config.batch_size) + trained.step
    steps = tf.range(done, dtype=tf.int64)
    used, wanted = np.asarray(before(steps)), np.asarray(now(steps))
    if np.array_equal(used, wanted):
        return
    first = int(np.argmax(used != wanted))
    raise CommandError(
        f"want --epochs={epochs} as before, got {config.epochs}: the {config.schedule} schedule of "
        f"the learning rate depends on it, and step {first + 1}, trained with {used[first]:.6g}, "
        f"would have had {wanted[first]:.6g}. Give another --workdir; a run with "
        "--schedule=constant can be extended at any time"
    )


def crop_of(images: np.ndarray | EncodedPictures) -> Crop:
    """Returns the crop and flip of some training images."""
    if isinstance(images, EncodedPictures):
        return ResizedCrop(images.image_size, images.read)
    return PADDED_CROP


def method_of(
    config: ExperimentConfig, num_classes: int, crop: Crop = PADDED_CROP
) -> methods.Method:
    """Returns what is done to a batch."""
    seed, name = config.seed, config.method
    if name == "augmix":
        return _augmix(config, crop)
    if name == "mixup":
        return methods.mixup(seed, num_classes, config.mixup_alpha, crop)
    if name == "cutmix":
        share = config.cutmix_probability
        return methods.cutmix(seed, num_classes, config.cutmix_alpha, share, crop)
    changes = [methods.unchanged()]
    if name == "patch_uniform":
        changes = [methods.patch_uniform(config.patch_size, config.patch_scale)]
    elif name in ("autoaugment", "random_autoaugment"):
        changes = [_policy(config, name)]
    if config.cutout_size:
        changes.append(methods.cutout(config.cutout_size))
    return methods.one_view(seed, *changes, crop=crop)


def example_views(config: ExperimentConfig, images: np.ndarray) -> np.ndarray:
    """Makes the first views of some pictures with the operations of a run, without the crop."""
    place, views = (config.seed, 0, 0), max(config.views, 2)
    if config.mix_ops == "augmix":
        return augmix_views(images, *place, config.augmix, views, config.fill or 0).numpy()
    pictures = tf.constant(images)
    batch = Batch(pictures, tf.zeros(len(images)), place)
    return methods.changed_views(pictures, batch, _policy(config, config.mix_ops), views).numpy()


def parameters(trainer: Trainer) -> int:
    """How many numbers of the network are trained."""
    return sum(int(np.prod(weight.shape)) for weight in trainer.classifier.trainable_variables)


def _augmix(config: ExperimentConfig, crop: Crop) -> methods.Method:
    seed, views = config.seed, config.views
    if config.mix_ops != "augmix":
        change = _policy(config, config.mix_ops)
        if not config.jsd:
            return methods.one_view(seed, change, crop=crop)
        return methods.agreeing_views(seed, change, views, crop)
    if not config.jsd:
        return methods.augmix_without_jsd(seed, config.augmix, config.fill or 0, crop)
    return methods.augmix(seed, config.augmix, views, config.fill or 0, crop)


def _policy(config: ExperimentConfig, name: str) -> methods.Change:
    policy = "random" if name == "random_autoaugment" else config.policy
    return methods.autoaugment(policy, 128 if config.fill is None else config.fill)


def _normalization(config: ExperimentConfig) -> tuple[Sequence[float], Sequence[float]]:
    return IMAGENET_NORMALIZATION if config.large else CIFAR_NORMALIZATION


def _adversary(config: ExperimentConfig) -> Adversary | None:
    if config.method != "adversarial":
        return None
    return Adversary(
        epsilon=config.adversary_epsilon / 255,
        step_size=config.adversary_step_size / 255,
        steps=config.adversary_steps,
    )
