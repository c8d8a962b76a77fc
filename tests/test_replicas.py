"""Two replicas against one device: normalisation, training, checkpoints, models of Keras.

All that two replicas do is done in one process, which divides its processor before anything else.
"""

import math
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from augmix_tf import AugMixModel
from augmix_tf.augment import AugMixSettings, augmix_views
from augmix_tf.errors import RunError
from augmix_tf.models import with_normalization
from augmix_tf.training import distribution, loop
from augmix_tf.training.checkpoints import Checkpoints
from augmix_tf.training.optimizer import CoupledSGD
from augmix_tf.training.step import Trainer
from tests import test_batch_norm as batch_norm
from tests import test_distribution as training
from tests import test_keras_model as keras_model
from tests.arrays import assert_near, assert_same
from tests.processes import python
from tests.runs import RUNS
from tests.test_training import data, trainer_of, weights

# The normalisation of a batch of 8: examples of the first replica, far from 0, synchronised,
# precision, the way a step is run.
NORMS = {
    "halves": (4, False, True, "float32", "graph"),
    "uneven": (5, False, True, "float32", "graph"),
    "none on the second": (8, False, True, "float32", "graph"),
    "far": (4, True, True, "float32", "graph"),
    "eager": (4, False, True, "float32", "eager"),
    "float64": (4, False, True, "float64", "graph"),
    "mixed_bfloat16": (4, False, True, "mixed_bfloat16", "graph"),
    "mixed_float16": (4, False, True, "mixed_float16", "graph"),
    "apart": (4, False, False, "float32", "graph"),
}


def normalised(both, count, far, synchronized, policy, way):
    """Outputs and slopes for the whole batch, and both replicas' moving values."""
    keras.config.set_dtype_policy(policy)
    with both.scope():
        layer = batch_norm.ours(synchronized=synchronized)
    parts = [tf.split(part, [count, 8 - count]) for part in batch_norm.whole_batch(far)]
    parts[0] = [tf.cast(part, layer.variable_dtype) for part in parts[0]]
    own = [
        both.experimental_distribute_values_from_function(
            lambda context, part=part: part[context.replica_id_in_sync_group]
        )
        for part in parts
    ]
    step = batch_norm.outputs_and_slopes(layer)
    results = RUNS[way](lambda: both.run(step, args=own))
    outputs, by_x, *by_weights = map(both.experimental_local_results, results)
    moved = [layer.moving_mean.value.values, layer.moving_variance.value.values]
    joined = [tf.cast(tf.concat(value, 0), tf.float64) for value in (outputs, by_x)]
    return [*joined, *map(tf.add_n, by_weights), tf.stack(moved, 1)]


def overflow(both):
    """A step under a loss scale that is too large for one replica; returns scale and weights.

    Without batch normalisation, through which the other replica would notice by itself.
    """
    keras.config.set_dtype_policy("mixed_float16")
    with both.scope():
        images = keras.Input((12, 16, 3))
        start = keras.initializers.Constant(0.125)
        logits = keras.layers.Dense(6, kernel_initializer=start)
        backbone = keras.Model(images, logits(keras.layers.Flatten()(images)))
        trainer = Trainer(with_normalization(backbone, (0.5,) * 3, (0.25,) * 3))
        inner = CoupledSGD(0.1)
        trainer.compile(optimizer=keras.optimizers.LossScaleOptimizer(inner, 2.0**40))
        trainer.optimizer.build(trainer.trainable_variables)

        def batches(replicas):
            # The logits are equal, so the gradient of equal targets is 0, also when it is scaled.
            targets = [tf.fill([1, 6], 1 / 6), tf.one_hot([1], 6)]
            views = tf.fill([1, 1, 12, 16, 3], 9.0)
            return tf.data.Dataset.from_tensor_slices(targets).map(lambda part: (views, part))

        loop.train(trainer, distribution.distribute(both, batches), epochs=1, steps_per_epoch=1)
    keras.config.set_dtype_policy("float32")
    return [trainer.optimizer.dynamic_scale, *trainer.trainable_variables]


def state(trainer):
    return [*weights(trainer), *(metric.result() for metric in trainer.metrics)]


def checkpoint(folder, first, second):
    """Trains with one strategy and restores with another; returns both states."""
    with first.scope():
        trainer = trainer_of(dropout=0.5)
    checkpoints = Checkpoints(trainer, folder)  # it enters the scope by itself
    with first.scope():
        batches = first.experimental_distribute_dataset(data(batches=3))
        loop.train(trainer, batches, epochs=1, steps_per_epoch=3, save=checkpoints.save)
        before = [np.asarray(value) for value in state(trainer)]
    checkpoints.calibrated(1.5)
    with second.scope():
        other = trainer_of(seed=4, dropout=0.5)
    restored = Checkpoints(other, folder)
    position = restored.restore()
    with second.scope():
        return [*before, *state(other), [*position, restored.temperature]]


def spoilt(both):
    """The error of a run whose second replica gets images that are no numbers in its third step."""
    factors = np.ones((4, 4, 1, 1, 1, 1), np.float32)
    factors[2, 2:] = math.nan
    batches = tf.data.Dataset.zip(data(batches=4), tf.data.Dataset.from_tensor_slices(factors))
    batches = batches.map(lambda batch, factor: (batch[0] * factor, batch[1]))
    with both.scope():
        trainer, batches = trainer_of(), both.experimental_distribute_dataset(batches)
        with pytest.raises(RunError) as error:
            loop.train(trainer, batches, epochs=1, steps_per_epoch=4)
    return [str(error.value)]


def new_model(eagerly=False):
    model = AugMixModel(keras_model.flat(), seed=7)
    model.compile(keras.optimizers.SGD(0.1), metrics=["accuracy"], run_eagerly=eagerly)
    return model


def fitted(model, images, labels):
    batches = tf.data.Dataset.from_tensor_slices((images, labels)).batch(2 * keras_model.BATCH)
    history = model.fit(batches, verbose=0).history
    return [*model.get_weights(), *(history[name][0] for name in sorted(history))]


def run(folder):
    """Saves what two replicas do, as lists of arrays by name."""
    folder = Path(folder)
    # One for all: two of them number their collective operations alike.
    both = distribution.make_strategy("mirrored", cpu_replicas=2)
    one = tf.distribute.OneDeviceStrategy("CPU:0")
    assert both.num_replicas_in_sync == 2
    results = {name: normalised(both, *how) for name, how in NORMS.items()}
    results["overflow"] = overflow(both)
    results["two to one"] = checkpoint(folder / "1", both, one)
    results["one to two"] = checkpoint(folder / "2", one, both)
    results["spoilt"] = spoilt(both)
    with both.scope():
        model = new_model()
    results["model"] = fitted(model, *keras_model.examples(4))
    for name, values in results.items():
        np.savez(folder / f"{name}.npz", *values)
    for case in training.CASES:
        np.savez(folder / f"{case[0]}.npz", **training.train(both, *case))


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What `run` saves, by name."""
    folder = tmp_path_factory.mktemp("replicas")
    python(f"from tests import test_replicas as t; t.run({str(folder)!r})")
    return {path.stem: dict(np.load(path)) for path in folder.glob("*.npz")}


@pytest.mark.parametrize("case", training.CASES, ids=lambda case: case[0])
def test_two_replicas_train_and_answer_as_one_device(two, case):
    training.assert_as_one_device(two[case[0]], case)


def test_an_overflow_on_one_replica_is_left_out_by_all(two):
    """float16: the step is not made, and the loss scale goes down."""
    scale, kernel, bias = two["overflow"].values()
    assert scale == 2.0**39
    assert (kernel == 0.125).all()  # as they began
    assert (bias == 0).all()


@pytest.mark.parametrize("name", [name for name in NORMS if name != "apart"])
def test_synchronised_normalisation_equals_one_device_in_float64(two, name):
    *got, moved = two[name].values()
    np.testing.assert_array_equal(moved[0], moved[1])
    _, far, _, policy, _ = NORMS[name]
    tolerance = batch_norm.FAR if far else batch_norm.TOLERANCE.get(policy, 1e-12)
    x, factors = batch_norm.whole_batch(far)
    x, exact = x.astype(np.float64), batch_norm.stock(dtype="float64")
    moving_mean, moving_variance = exact.get_weights()[2:]
    y, *slopes = batch_norm.outputs_and_slopes(exact)(tf.constant(x), factors)
    batch_norm.near(got[0], y, tolerance)
    for value, want in zip(got[1:], slopes, strict=True):
        batch_norm.near(value, want, 4 * tolerance)
    mean, unbiased = x.mean((0, 1, 2)), x.var((0, 1, 2), ddof=1)
    np.testing.assert_allclose(moved[0][0], 0.8 * moving_mean + 0.2 * mean, rtol=1e-6, atol=1e-6)
    rtol = 1e-5 if far else 2e-6
    np.testing.assert_allclose(moved[0][1], 0.8 * moving_variance + 0.2 * unbiased, rtol=rtol)


def test_two_replicas_apart_normalise_by_their_own_examples(two):
    y, *_, moved = two["apart"].values()
    x, _ = batch_norm.whole_batch()
    for half, own in zip((slice(4), slice(4, 8)), moved, strict=True):
        layer = batch_norm.ours()
        batch_norm.near(y[half], layer(x[half], training=True), 2e-6)
        np.testing.assert_allclose(own, layer.get_weights()[2:], rtol=1e-6)


@pytest.mark.parametrize("name", ["two to one", "one to two"])
def test_a_checkpoint_may_go_on_with_other_replicas(two, name):
    *values, place = two[name].values()
    np.testing.assert_array_equal(place, [1, 0, 1.5])
    before, after = values[: len(values) // 2], values[len(values) // 2 :]
    assert len(before) > 14
    assert_same(before[:-4], after[:-4])
    assert_near(before[-4:], after[-4:], rtol=1e-6)  # means of the metrics


def test_one_replica_whose_loss_is_not_finite_ends_the_run(two):
    [error] = two["spoilt"].values()
    assert "not finite after step 3 of epoch 1" in str(error)


def test_a_model_of_keras_trains_as_one_device_on_the_views_of_both(two):
    images, labels = keras_model.examples(4)
    parts = [
        augmix_views(part, 7, number % 2, number // 2, AugMixSettings())
        for number, part in enumerate(np.split(images, 4))
    ]
    want = fitted(new_model(eagerly=True), tf.concat(parts, 0), labels)
    assert_near(two["model"].values(), want, rtol=1e-5, atol=1e-7)
