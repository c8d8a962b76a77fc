"""The training step and loop: one forward pass, the right loss, logs that are the numbers."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from augmix_tf import losses
from augmix_tf.data.pipeline import Position
from augmix_tf.errors import ArgumentError, RunError
from augmix_tf.training import loop
from augmix_tf.training.optimizer import CoupledSGD, cosine_schedule
from augmix_tf.training.step import METRICS, Trainer
from tests.arrays import assert_near

CLASSES = 5


def small_classifier(seed=0, dropout=0.0) -> keras.Model:
    keras.utils.set_random_seed(seed)
    layers = keras.layers
    stack = [
        layers.Input((6, 7, 3)),
        layers.Rescaling(1 / 255),
        layers.Conv2D(4, 3, padding="same", use_bias=False),
        layers.BatchNormalization(momentum=0.9, epsilon=1e-5),
        layers.ReLU(),
        layers.Dropout(dropout),
        layers.GlobalAveragePooling2D(),
        layers.Dense(CLASSES),
    ]
    return keras.Sequential(stack)


def trainer_of(steps=12, weight=12.0, label_all_views=False, **kwargs) -> Trainer:
    trainer = Trainer(small_classifier(**kwargs), weight, label_all_views=label_all_views)
    trainer.compile(optimizer=CoupledSGD(cosine_schedule(0.1, steps)))
    return trainer


def data(batches=12, views=3, size=4) -> tf.data.Dataset:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (batches, size, views, 6, 7, 3)).astype(np.float32)
    labels = rng.integers(0, CLASSES, (batches, size))
    return tf.data.Dataset.from_tensor_slices((images, labels))


def weights(trainer: Trainer) -> list[np.ndarray]:
    return [np.asarray(v) for v in (*trainer.classifier.variables, *trainer.optimizer.variables)]


@pytest.mark.parametrize(("views", "labelled"), [(1, 1), (3, 1), (3, 3)])
def test_a_step_is_the_gradient_of_the_papers_loss(views, labelled):
    """Against a tape written out by hand: concatenated views, mean over the batch."""
    trainer, by_hand = trainer_of(label_all_views=labelled == 3), small_classifier()
    images, labels = next(iter(data(views=views)))
    logs = trainer.train_step((images, labels))

    with tf.GradientTape() as tape:
        stacked = tf.concat([images[:, v] for v in range(views)], axis=0)
        logits = tf.stack(tf.split(by_hand(stacked, training=True), views), axis=1)
        cross_entropy = tf.reduce_mean(
            tf.nn.sparse_softmax_cross_entropy_with_logits(
                tf.tile(labels[:, None], [1, labelled]), logits[:, :labelled]
            )
        )
        jsd = tf.reduce_mean(losses.jensen_shannon(logits)) if views > 1 else tf.constant(0.0)
        loss = cross_entropy + 12.0 * jsd
    optimizer = CoupledSGD(cosine_schedule(0.1, 12))
    optimizer.apply(tape.gradient(loss, by_hand.trainable_variables), by_hand.trainable_variables)

    assert_near(trainer.classifier.variables, by_hand.variables, rtol=2e-5, atol=2e-6)
    error = np.mean(np.argmax(logits[:, 0], 1) != labels)
    wanted = {"loss": loss, "cross_entropy": cross_entropy, "jsd": jsd, "error": error}
    assert tuple(logs) == METRICS
    for name, value in logs.items():
        np.testing.assert_allclose(value, wanted[name], rtol=1e-5, atol=1e-7)


def test_a_step_on_soft_labels_is_the_gradient_of_their_cross_entropy():
    trainer, by_hand = trainer_of(), small_classifier()
    images, labels = next(iter(data(views=1)))
    partners = tf.roll(labels, 1, axis=0)
    targets = 0.7 * tf.one_hot(labels, CLASSES) + 0.3 * tf.one_hot(partners, CLASSES)
    logs = tf.function(trainer.train_step)((images, targets))

    with tf.GradientTape() as tape:
        logits = by_hand(images[:, 0], training=True)
        of_class = [
            tf.nn.sparse_softmax_cross_entropy_with_logits(classes, logits)
            for classes in (labels, partners)
        ]
        loss = tf.reduce_mean(0.7 * of_class[0] + 0.3 * of_class[1])
    optimizer = CoupledSGD(cosine_schedule(0.1, 12))
    optimizer.apply(tape.gradient(loss, by_hand.trainable_variables), by_hand.trainable_variables)
    assert_near(trainer.classifier.variables, by_hand.variables, rtol=2e-5, atol=2e-6)
    np.testing.assert_allclose(logs["loss"], loss, rtol=1e-5)
    # The larger share counts.
    np.testing.assert_allclose(logs["error"], np.mean(np.argmax(logits, 1) != labels))


@pytest.mark.parametrize("dtype", ["uint8", "soft"])
def test_the_error_is_the_same_for_labels_of_every_type(dtype):
    trainer = trainer_of()
    images, labels = next(iter(data(size=9)))
    logits = trainer.classifier(images[:, 0]).numpy()
    given = tf.one_hot(labels, CLASSES) if dtype == "soft" else tf.cast(labels, dtype)
    got = trainer.test_step((images[:, 0], given))["error"]
    np.testing.assert_allclose(got, np.mean(logits.argmax(axis=1) != labels), rtol=1e-6)


def test_soft_labels_of_several_views_are_refused():
    images, labels = next(iter(data()))
    targets = tf.one_hot(labels, CLASSES)
    with pytest.raises(ArgumentError, match=r"mixed with others; received float32 \(4, 5\) with"):
        trainer_of().train_step((images, targets))
    without_consistency = trainer_of(weight=0.0)
    logs = without_consistency.train_step((images, targets))
    assert float(logs["loss"]) == float(logs["cross_entropy"])


def test_logs_weigh_examples_and_not_batches():
    trainer = trainer_of()
    images, labels = next(iter(data(size=5)))
    singles = [trainer.test_step((images[i : i + 1], labels[i : i + 1])) for i in range(5)]
    one_by_one = {name: float(value) for name, value in singles[-1].items()}
    trainer.reset_metrics()
    trainer.test_step((images[:3], labels[:3]))
    uneven = trainer.test_step((images[3:], labels[3:]))
    for name, value in uneven.items():
        np.testing.assert_allclose(value, one_by_one[name], rtol=1e-5, atol=1e-7)


def test_fit_and_our_loop_give_the_same_weights():
    with_fit, with_loop = trainer_of(), trainer_of()
    with_fit.fit(data(), epochs=1, verbose=0, shuffle=False)
    loop.train(with_loop, data(), epochs=1, steps_per_epoch=12, steps_per_call=5)
    assert_near(weights(with_loop), weights(with_fit), rtol=1e-4, atol=1e-6)
    assert int(with_loop.optimizer.iterations) == 12


@pytest.mark.parametrize(
    ("steps_per_call", "bad", "value"),
    [(1, 3, np.nan), (3, 1, np.inf), (3, 4, -np.inf), (9, 2, np.nan)],
)
def test_the_step_whose_loss_is_not_finite_is_named(steps_per_call, bad, value):
    """That step, and not the last one of the call in which it came."""
    factors = np.ones(10, np.float32)
    factors[2 + bad - 1] = value  # two steps of the first epoch are left
    batches = tf.data.Dataset.zip(data(), tf.data.Dataset.from_tensor_slices(factors))
    batches = batches.map(lambda batch, factor: (batch[0] * factor, batch[1]))
    with pytest.raises(RunError, match=rf"not finite after step {bad} of epoch 2; the last .*rate"):
        loop.train(
            trainer_of(), batches, epochs=3, steps_per_epoch=4, start=Position(0, 2),
            steps_per_call=steps_per_call,
        )  # fmt: skip
