"""From a configuration to the things it names: data, method, model."""

from __future__ import annotations

import dataclasses
import functools
import zlib
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from keras.optimizers.schedules import LearningRateSchedule

from augmix_tf import models
from augmix_tf.augment import augmix_views, methods
from augmix_tf.checks import CommandError, require
from augmix_tf.config import ExperimentConfig
from augmix_tf.data import folders, pipeline, sources
from augmix_tf.data.pipeline import Position
from augmix_tf.data.sources import Source, Split
from augmix_tf.models.classifier import CIFAR_NORMALIZATION, with_normalization
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
        return functools.reduce(lambda so_far, a: zlib.crc32(a.tobytes(), so_far), arrays, 0)


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
        skip_bad_examples=config.skip_bad_examples,
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
        place = Path(config.stylized_dir)
        stylized = folders.read(place, source, config.skip_bad_examples)
        # A card has these words, and cards travel: the folder's name is enough.
        left_out = stylized.left_out.replace(str(place), place.name)
        stylized = dataclasses.replace(stylized, left_out=left_out)
        train, source = _joined(train, stylized), source.without(left_out)
    return Data(dataclasses.replace(source, train=train), kept)


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
        with_normalization(backbone, *CIFAR_NORMALIZATION),
        config.jsd_weight,
        batch_norms=config.views if config.split_bn else 1,
        adversary=_adversary(config),
        run_seed=config.seed,
    )
    rate = learning_rate(config, len(source.train.labels))
    optimizer = CoupledSGD(rate, weight_decay=config.weight_decay)
    if config.precision == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    trainer.compile(optimizer=optimizer)
    return trainer


def learning_rate(config: ExperimentConfig, examples: int) -> float | LearningRateSchedule:
    """Returns the learning rate, or its schedule."""
    steps = pipeline.steps_per_epoch(examples, config.batch_size)
    if config.schedule == "cosine":
        return CosineToFloor(config.learning_rate, config.epochs * steps)
    if config.schedule == "step":
        return StepDecay(config.learning_rate, config.epochs, steps)
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
    images, labels, ids = (a[first:last] for a in (split.images, split.labels, split.ids))
    return dataclasses.replace(split, images=images, labels=labels, ids=ids)


def _joined(first: Split, second: Split) -> Split:
    return Split(
        np.concatenate([first.images, second.images]),
        np.concatenate([first.labels, second.labels]),
        np.concatenate([first.ids, second.ids]),
        left_out="; ".join(filter(None, (first.left_out, second.left_out))),
    )
