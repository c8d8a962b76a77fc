"""Batch normalisation of each view: what is shared, what is not, and that nothing of it is lost."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from augmix_tf import losses
from augmix_tf.data.pipeline import Position
from augmix_tf.errors import ArgumentError
from augmix_tf.models import CIFAR_NORMALIZATION, with_normalization
from augmix_tf.training.checkpoints import Checkpoints
from augmix_tf.training.optimizer import CoupledSGD
from augmix_tf.training.step import Trainer, split_batch_norm
from tests import tiny_models
from tests.arrays import assert_near, assert_same

SHAPE = (9, 6, 3)
VIEWS = 3


def stock(seed=0) -> keras.Model:
    """Sequential, of Keras's own layers."""
    keras.utils.set_random_seed(seed)
    layers = keras.layers
    stack = [
        keras.Input(SHAPE),
        layers.Rescaling(1 / 255),
        layers.Conv2D(4, 3, use_bias=False),
        layers.BatchNormalization(momentum=0.9, epsilon=1e-5),
        layers.ReLU(),
        layers.Dropout(0.3),
        layers.GlobalAveragePooling2D(),
        layers.Dense(5),
    ]
    return keras.Sequential(stack)


def nested() -> keras.Model:
    """A model within the model, with the layers that the project's models are made of."""
    backbone = tiny_models.build_tiny("wrn")
    tiny_models.shake(backbone)
    return with_normalization(backbone, *CIFAR_NORMALIZATION)


CLASSIFIERS = {"stock": stock, "nested": nested}


def leaves(model: keras.Model) -> list[keras.layers.Layer]:
    return [layer for layer in model._flatten_layers() if not isinstance(layer, keras.Model)]


def norms(model: keras.Model) -> list[keras.layers.BatchNormalization]:
    return [x for x in leaves(model) if isinstance(x, keras.layers.BatchNormalization)]


def batch(views=VIEWS, size=4) -> tuple[tf.Tensor, tf.Tensor]:
    """Views of one image that are ever darker."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (size, 1, *SHAPE)) // np.arange(1, views + 1)[:, None, None, None]
    return tf.constant(images, tf.float32), tf.constant(rng.integers(0, 5, size))


def trainer_of(classifier: keras.Model, batch_norms=VIEWS, **settings) -> Trainer:
    trainer = Trainer(classifier, batch_norms=batch_norms, **settings)
    trainer.compile(optimizer=CoupledSGD(0.1))
    return trainer


def values(trainer: Trainer) -> list[np.ndarray]:
    means = [v for metric in trainer.metrics for v in metric.variables]
    return [v.numpy() for v in (*trainer.variables, *trainer.optimizer.variables, *means)]


@pytest.mark.parametrize("build", CLASSIFIERS.values(), ids=CLASSIFIERS)
def test_all_but_batch_normalisation_is_shared(build):
    first, *others = split_batch_norm(classifier := build(), VIEWS)
    assert first is classifier
    for view, other in enumerate(others, 1):
        pairs = [
            (a, b)
            for a, b in zip(leaves(first), leaves(other), strict=True)
            if not isinstance(a, keras.layers.InputLayer)
        ]
        assert {type(a) for a, b in pairs if a is not b} == {keras.layers.BatchNormalization}
        for a, b in zip(norms(first), norms(other), strict=True):
            assert b.name == f"{a.name}.view{view}"
            assert (b.momentum, b.epsilon) == (0.9, 1e-5)
            assert not {id(v) for v in a.variables} & {id(v) for v in b.variables}
    apart = [{id(v) for layer in norms(model) for v in layer.variables} for model in others]
    assert not apart[0] & apart[1]


def test_a_step_is_the_gradient_written_out_by_hand():
    """Each view through a model of its own, whose kernels move by the sum of the gradients."""
    trainer = trainer_of(nested(), jsd_weight=3.0)
    images, labels = batch()
    copies = [nested() for _ in range(VIEWS)]
    got = tf.function(trainer.train_step)((images, labels))

    with tf.GradientTape() as tape:
        logits = tf.stack([c(images[:, v], training=True) for v, c in enumerate(copies)], 1)
        loss = tf.reduce_mean(losses.augmix_loss(labels, logits, 3.0))
    np.testing.assert_allclose(got["loss"], loss, rtol=1e-5)
    gradients = tape.gradient(loss, [c.trainable_variables for c in copies])
    for v, copy in enumerate(copies):
        for i, variable in enumerate(copy.trainable_variables):
            own = "bn" in variable.path
            gradient = gradients[v][i] if own else tf.add_n([g[i] for g in gradients])
            # The optimiser's first step with momentum 0.9 after Nesterov and decay.
            pull = gradient + 5e-4 * variable
            variable.assign_sub(0.1 * 1.9 * pull)
    for ours, want in zip(trainer.classifiers, copies, strict=True):
        assert_near(ours.variables, want.variables, 2e-4, 2e-5)


def test_without_training_all_views_go_through_the_classifier():
    trainer = trainer_of(stock())
    images, labels = batch()
    for _ in range(3):
        trainer.train_step((images, labels))
    want = [trainer.classifier(images[:, v], training=False).numpy() for v in range(VIEWS)]
    np.testing.assert_allclose(trainer(images), np.stack(want, 1), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(trainer(images[:, 0]), want[0])
    trainer.reset_metrics()
    loss = trainer.test_step((images[:, 0], labels))["loss"]
    np.testing.assert_allclose(loss, np.mean(losses.cross_entropy(labels, want[0])), rtol=1e-6)


def test_a_checkpoint_holds_every_view(tmp_path):
    tf.config.experimental.enable_op_determinism()
    images, labels = batch()
    trainer = trainer_of(stock())
    checkpoints = Checkpoints(trainer, tmp_path)
    for _ in range(3):
        trainer.train_step((images, labels))
    checkpoints.save(Position(1, 2))
    saved = values(trainer)

    other = trainer_of(stock(seed=8))
    assert Checkpoints(other, tmp_path).restore() == Position(1, 2)
    assert_same(values(other), saved)
    for either in (trainer, other):
        either.train_step((images, labels))
    assert_same(values(other), values(trainer))


@pytest.mark.parametrize("build", CLASSIFIERS.values(), ids=CLASSIFIERS)
def test_the_classifier_is_saved_as_if_it_had_never_been_split(tmp_path, build):
    classifier = build()
    config = classifier.get_config()
    trainer = trainer_of(classifier)
    images, labels = batch()
    trainer.train_step((images, labels))
    assert classifier.get_config() == config
    classifier.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert not [layer.name for layer in leaves(loaded) if ".view" in layer.name]
    np.testing.assert_allclose(loaded(images[:, 0]), classifier(images[:, 0]), rtol=1e-6)


def test_a_classifier_without_batch_normalisation_is_refused():
    model = keras.Sequential([keras.Input(SHAPE), keras.layers.Flatten(), keras.layers.Dense(5)])
    with pytest.raises(ArgumentError, match="Expected a classifier with batch normalization;"):
        Trainer(model, batch_norms=2)


def test_another_number_of_views_is_refused():
    trainer = trainer_of(stock(), 3)
    with pytest.raises(ArgumentError, match=r"Expected 3 views .*; received \(4, 2, 9, 6, 3\)"):
        trainer.train_step(batch(views=2))
