"""Adversarial images: in their ball, at the known worst corner, without traces in the model."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from augmix_tf import losses, seeds
from augmix_tf.errors import ArgumentError
from augmix_tf.training.adversary import Adversary
from augmix_tf.training.optimizer import CoupledSGD
from augmix_tf.training.step import Trainer
from tests.arrays import assert_near, assert_same
from tests.runs import RUNS

SHAPE = (5, 6, 3)
LEVELS = 8.0  # the default radius, in levels of a pixel
COMPILED = {name: RUNS[name] for name in ("eager", "graph", "xla")}
SEED = (3, 4)


def pictures(count=7, classes=2) -> tuple[tf.Tensor, tf.Tensor]:
    """Noise with both ends of the range in every image."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, *SHAPE)).astype(np.float32)
    images[:, 0, :2] = 0.0
    images[:, -1, :2] = 255.0
    return tf.constant(images), tf.constant(rng.integers(0, classes, count))


def linear() -> keras.Model:
    """Two logits, each a weighted sum of the values, small enough not to saturate."""
    keras.utils.set_random_seed(1)
    start = keras.initializers.RandomUniform(-1e-3, 1e-3, seed=2)
    dense = keras.layers.Dense(2, use_bias=False, kernel_initializer=start)
    return keras.Sequential([keras.Input(SHAPE), keras.layers.Flatten(), dense])


def deep(classes=4) -> keras.Model:
    """Batch normalisation and dropout, whose state an attack could touch."""
    keras.utils.set_random_seed(3)
    layers = keras.layers
    stack = [
        keras.Input(SHAPE),
        layers.Rescaling(1 / 127.5, -1.0),
        layers.Conv2D(8, 3, padding="same", use_bias=False),
        layers.BatchNormalization(momentum=0.9),
        layers.ReLU(),
        layers.Dropout(0.5),
        layers.Flatten(),
        layers.Dense(classes),
    ]
    return keras.Sequential(stack)


def loss_of(classifier, images, labels) -> np.ndarray:
    return losses.cross_entropy(labels, classifier(images, training=False)).numpy()


def trained(**settings) -> tuple[Trainer, tf.Tensor, tf.Tensor]:
    trainer = Trainer(deep(), **settings)
    trainer.compile(optimizer=CoupledSGD(0.02))
    images, labels = pictures(count=16, classes=4)
    step = tf.function(trainer.train_step)
    for _ in range(30):
        step((images[:, None], labels))
    return trainer, images, labels


@pytest.mark.parametrize("run", COMPILED.values(), ids=COMPILED)
def test_a_linear_classifier_is_taken_to_its_worst_corner(run):
    """Of two classes the loss grows along w_other - w_label everywhere: the maximum is known."""
    classifier = linear()
    images, labels = pictures()
    attack = Adversary().perturb
    got = run(lambda x, y: attack(classifier, x, y, tf.constant(SEED)), images, labels)
    kernel = classifier.layers[-1].kernel.numpy()
    uphill = np.sign(kernel[:, 1 - labels.numpy()] - kernel[:, labels.numpy()]).T
    want = np.clip(images.numpy() + LEVELS * uphill.reshape(images.shape), 0.0, 255.0)
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("epsilon", [1 / 255, 0.4])
def test_pictures_stay_in_the_ball_and_in_the_range_and_the_model_as_it_was(epsilon):
    classifier = deep()
    images, labels = pictures(classes=4)
    before = [variable.numpy() for variable in classifier.variables]
    adversary = Adversary(epsilon=epsilon, step_size=0.3, steps=3)
    got = adversary.perturb(classifier, images, labels, tf.constant(SEED))
    moved = np.abs(got - images.numpy())
    np.testing.assert_allclose(moved.max(), 255.0 * epsilon, rtol=1e-5)
    assert got.dtype == tf.float32
    assert np.min(got) == 0.0
    assert np.max(got) == 255.0
    assert_same(classifier.variables, before)


def test_the_attack_raises_the_loss_more_than_noise_does():
    trainer, images, labels = trained()
    classifier = trainer.classifier
    clean = loss_of(classifier, images, labels)
    noise = LEVELS * np.sign(np.random.default_rng(1).normal(size=images.shape))
    noisy = loss_of(classifier, tf.clip_by_value(images + noise.astype(np.float32), 0, 255), labels)
    attacked = Adversary().perturb(classifier, images, labels, tf.constant(SEED))
    worse = loss_of(classifier, attacked, labels)
    assert np.all(worse > clean)
    assert worse.mean() > 2.0 * max(clean.mean(), noisy.mean())


def test_the_slope_is_that_of_each_picture_alone():
    """What an image becomes depends on no other one of its batch."""
    classifier = deep()
    images, labels = pictures(classes=4)
    adversary, start = Adversary(), Adversary().draw_start(tf.constant(SEED), images.shape)
    together = adversary.ascend(classifier, images, labels, start)
    alone = [
        adversary.ascend(classifier, images[i : i + 1], labels[i : i + 1], start[i : i + 1])
        for i in range(len(images))
    ]
    np.testing.assert_allclose(together, tf.concat(alone, 0), atol=1e-4)


def test_a_network_in_half_precision_is_attacked_in_float32():
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        classifier = deep()
    finally:
        keras.mixed_precision.set_global_policy("float32")
    images, labels = pictures(classes=4)
    got = Adversary().perturb(classifier, images, labels, tf.constant(SEED))
    assert got.dtype == tf.float32
    np.testing.assert_allclose(np.abs(got - images).max(), LEVELS, rtol=1e-5)
    clean = loss_of(classifier, images, labels)
    assert np.all(loss_of(classifier, got, labels) > clean)


@pytest.mark.parametrize("run", COMPILED.values(), ids=COMPILED)
def test_the_start_is_uniform_in_the_ball_and_belongs_to_its_seed(run):
    adversary = Adversary(epsilon=0.5)
    shape = [64, *SHAPE]
    start = run(lambda seed: adversary.draw_start(seed, shape), tf.constant(SEED)).numpy()
    assert np.abs(start).max() <= 127.5
    # Mean and deviation of 5,760 values: within four standard errors of 0 and 255 / sqrt(12).
    assert abs(start.mean()) < 4 * 73.6 / np.sqrt(start.size)
    assert abs(start.std() - 127.5 / np.sqrt(3)) < 2.0
    np.testing.assert_array_equal(start, adversary.draw_start(tf.constant(SEED), shape))
    other = adversary.draw_start(tf.constant((3, 5)), shape)
    assert np.mean(start == other.numpy()) < 0.01


def test_no_gradient_flows_through_the_attack():
    classifier = linear()
    images, labels = pictures()
    with tf.GradientTape() as tape:
        tape.watch(images)
        total = tf.reduce_sum(Adversary().perturb(classifier, images, labels, tf.constant(SEED)))
    sources = [images, *(variable.value for variable in classifier.trainable_variables)]
    assert tape.gradient(total, sources) == [None] * len(sources)


def test_a_step_is_a_step_on_the_adversarial_pictures_alone():
    adversary = Adversary(steps=3)
    images, labels = pictures(classes=4)
    ours, by_hand = Trainer(deep(), adversary=adversary, run_seed=5), Trainer(deep())
    for trainer in (ours, by_hand):
        trainer.compile(optimizer=CoupledSGD(0.1))
    for step in range(3):
        seed = seeds.fold(5, 0, step, seeds.ADVERSARY)
        attacked = adversary.perturb(by_hand.classifier, images, labels, seed)
        want = by_hand.train_step((attacked[:, None], labels))
        got = ours.train_step((images[:, None], labels))
        assert {name: float(value) for name, value in got.items()} == pytest.approx(
            {name: float(value) for name, value in want.items()}, rel=1e-5
        )
    assert_near(ours.classifier.variables, by_hand.classifier.variables, 1e-5, 1e-6)


def test_a_step_compiled_by_xla_is_the_same_step():
    adversary = Adversary(steps=2)
    images, labels = pictures(classes=4)
    runs = []
    for jit_compile in (False, True):
        trainer = Trainer(deep(), adversary=adversary)
        trainer.compile(optimizer=CoupledSGD(0.02))
        trainer.classifier.layers[-3].rate = 0.0  # dropout draws otherwise where it is compiled
        trainer.optimizer.build(trainer.trainable_variables)
        step = tf.function(trainer.train_step, jit_compile=jit_compile)
        logs = [step((images[:, None], labels)) for _ in range(3)][-1]
        runs.append([*logs.values(), *(v.numpy() for v in trainer.trainable_variables)])
    assert_near(runs[1], runs[0], rtol=1e-3, atol=1e-4)


def test_several_views_cannot_be_attacked():
    images, labels = pictures(classes=4)
    trainer = Trainer(deep(), adversary=Adversary())
    trainer.compile(optimizer=CoupledSGD(0.1))
    with pytest.raises(ArgumentError, match=r"one view .* received \(7, 3, 5, 6, 3\)"):
        trainer.train_step((tf.stack([images] * 3, 1), labels))
