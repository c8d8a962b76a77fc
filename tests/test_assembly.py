"""From a command line to what it names: each method and its variants train."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import functools
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import flags
import main
from augmix_tf import presets
from augmix_tf.augment import methods
from augmix_tf.checks import CommandError
from augmix_tf.data import pipeline, shapes
from augmix_tf.data.pipeline import Position
from augmix_tf.experiment import assembly, delivery
from augmix_tf.settings import AugMixSettings
from augmix_tf.training import loop

TINY = ("--train_limit=40", "--eval_limit=20", "--epochs=1", "--batch_size=16", "--depth=10")
TINY += ("--widen_factor=1", "--nocorrupted", "--calibration_images=0", "--model=wrn")
VARIANTS = {
    "no_jsd": ("--nojsd",),
    "two_views": ("--views=2",),
    "four_views": ("--views=4",),
    "autoaugment_jsd": ("--mix_ops=autoaugment",),
    "random_autoaugment_alone": ("--mix_ops=random_autoaugment", "--nojsd"),
    "split_bn": ("--split_bn",),
    "autoaugment_cutout": ("--method=autoaugment", "--cutout_size=8"),
    **{name: (f"--method={name}",) for name in presets.METHODS},
}
# One costly step shows as much as ten.
VARIANTS["adversarial"] += ("--adversary_steps=2",)
# Of the others the batches are held against the method's, below.
TRAINED = [n for n in VARIANTS if n not in ("no_jsd", "two_views", "random_autoaugment_alone")]
VIEWS = {"augmix": 3, "split_bn": 3, "four_views": 4, "autoaugment_jsd": 3}


@pytest.fixture(scope="module", autouse=True)
def pictures_drawn_once():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shapes, "make", functools.cache(shapes.make))
        yield


def config_of(*arguments):
    return flags.parse([*TINY, *arguments]).config


def batch_of(*arguments, count=16):
    """The first batch of a run on the first images, in their order."""
    images, labels = shapes.make("train")
    method = assembly.method_of(config_of(*arguments), len(shapes.CLASS_NAMES))
    made = method(
        tf.constant(images[:count]),
        tf.constant(labels[:count], tf.int64),
        tf.constant(0, tf.int64),
        tf.constant(0, tf.int64),
    )
    return tuple(value.numpy() for value in made)


@pytest.mark.parametrize("name", TRAINED)
def test_each_method_and_variant_trains_an_epoch(name):
    config = config_of(*VARIANTS[name])
    source = assembly.load(config).source
    trainer = assembly.build(config, source)
    before = [weight.numpy() for weight in trainer.trainable_variables]
    steps = pipeline.steps_per_epoch(len(source.train.labels), config.batch_size)
    assert steps == 3
    batches = pipeline.training_batches(
        source.train.images,
        source.train.labels,
        assembly.method_of(config, source.num_classes),
        run_seed=config.seed,
        epochs=1,
        batch_size=config.batch_size,
    )
    assert batches.element_spec[0].shape[1:] == (VIEWS.get(name, 1), *source.image_size, 3)
    loop.train(trainer, batches, epochs=1, steps_per_epoch=steps)
    logs = {metric.name: float(metric.result()) for metric in trainer.metrics}
    assert np.isfinite(logs["loss"])
    assert (logs["jsd"] > 0) == (name in VIEWS)
    np.testing.assert_allclose(logs["loss"], logs["cross_entropy"] + 12 * logs["jsd"], rtol=1e-5)
    assert int(trainer.optimizer.iterations) == steps
    for weight, old in zip(trainer.trainable_variables, before, strict=True):
        assert np.isfinite(weight.numpy()).all()
        assert not np.array_equal(weight, old), weight.path


# The method that was asked for


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (("--method=standard",), methods.one_view(1, methods.unchanged())),
        (("--method=adversarial",), methods.one_view(1, methods.unchanged())),
        (
            ("--method=cutout", "--cutout_size=7"),
            methods.one_view(1, methods.unchanged(), methods.cutout(7)),
        ),
        (("--method=autoaugment",), methods.one_view(1, methods.autoaugment("cifar10"))),
        (("--method=random_autoaugment",), methods.one_view(1, methods.autoaugment("random"))),
        (
            ("--method=patch_uniform", "--patch_size=9", "--patch_scale=0.5"),
            methods.one_view(1, methods.patch_uniform(9, 0.5)),
        ),
        (("--method=mixup", "--mixup_alpha=0.4"), methods.mixup(1, 10, 0.4)),
        (
            ("--method=cutmix", "--cutmix_alpha=2", "--cutmix_probability=1"),
            methods.cutmix(1, 10, 2.0, 1.0),
        ),
        (("--nojsd",), methods.augmix_without_jsd(1, AugMixSettings())),
        (("--views=2", "--aug_severity=5"), methods.augmix(1, AugMixSettings(severity=5), 2)),
        (
            ("--mix_ops=random_autoaugment", "--views=2"),
            methods.agreeing_views(1, methods.autoaugment("random"), 2),
        ),
        (
            ("--mix_ops=autoaugment", "--nojsd"),
            methods.one_view(1, methods.autoaugment("cifar10")),
        ),
    ],
)
def test_flags_name_the_method_and_its_settings(arguments, wanted):
    images, labels = shapes.make("train")
    images, labels = tf.constant(images[:16]), tf.constant(labels[:16], tf.int64)
    zero = tf.constant(0, tf.int64)
    for value, known in zip(batch_of(*arguments), wanted(images, labels, zero, zero), strict=True):
        np.testing.assert_array_equal(value, known)


def test_the_adversary_attacks_in_levels_of_the_pixels():
    config = config_of("--method=adversarial", "--adversary_epsilon=4", "--adversary_step_size=1")
    trainer = assembly.build(config, assembly.load(config).source)
    assert trainer.adversary.epsilon == pytest.approx(4 / 255)
    assert trainer.adversary.step_size == pytest.approx(1 / 255)
    assert trainer.adversary.steps == 10
    assert assembly.build(config_of(), assembly.load(config).source).adversary is None


def test_pictures_of_views_are_made_with_the_operations_of_the_run():
    images = shapes.make("train")[0][:4]
    shown = {
        name: assembly.example_views(config_of(f"--mix_ops={name}"), images)
        for name in ("augmix", "autoaugment", "random_autoaugment")
    }
    for views in shown.values():
        assert views.shape == (4, 3, *images.shape[1:])
        np.testing.assert_array_equal(views[:, 0], images)
    # AutoAugment does not mix: its views are whole levels.
    assert (shown["autoaugment"] % 1 == 0).all()
    assert not (shown["augmix"] % 1 == 0).all()
    assert not np.array_equal(shown["autoaugment"], shown["random_autoaugment"])


# What is read


def test_held_out_images_are_not_trained_on():
    whole = assembly.load(config_of())
    data = assembly.load(config_of("--calibration_images=10"))
    assert len(whole.held_out.labels) == 0
    for name in ("images", "labels", "ids"):
        parts = [getattr(data.source.train, name), getattr(data.held_out, name)]
        assert [len(part) for part in parts] == [30, 10]
        np.testing.assert_array_equal(np.concatenate(parts), getattr(whole.source.train, name))
        wanted = getattr(whole.source.test, name)
        np.testing.assert_array_equal(getattr(data.source.test, name), wanted)


@pytest.mark.parametrize("held_out", [40, 41])
def test_something_must_be_left_to_train_on(held_out):
    with pytest.raises(CommandError, match=f"below the 40 training images, got {held_out}"):
        assembly.load(config_of(f"--calibration_images={held_out}"))


def test_stylised_pictures_are_trained_on_beside_the_dataset(tmp_path):
    whole = assembly.load(config_of("--calibration_images=10"))
    name = whole.source.class_names[3]
    (tmp_path / name).mkdir()
    height, width = whole.source.image_size
    stylised = np.full((height, width, 3), 77, np.uint8)
    Image.fromarray(stylised).save(tmp_path / name / "a.png")
    data = assembly.load(config_of("--calibration_images=10", f"--stylized_dir={tmp_path}"))
    train = data.source.train
    assert len(train.labels) == 31
    np.testing.assert_array_equal(train.images[:30], whole.source.train.images)
    np.testing.assert_array_equal(train.images[30], stylised)
    assert train.labels[30] == 3
    assert train.ids[30] not in [*train.ids[:30], *data.held_out.ids]
    np.testing.assert_array_equal(data.held_out.images, whole.held_out.images)


# Longer runs


@pytest.mark.parametrize(
    ("schedule", "before", "after", "trained", "allowed"),
    [
        ("constant", 1, 9, Position(1), True),
        ("cosine", 2, 3, Position(0, 1), True),  # all cosines begin at the same rate
        ("cosine", 2, 3, Position(0, 2), False),
        ("step", 6, 9, Position(2), True),  # a tenth from epoch 2 on, or from epoch 3 on
        ("step", 6, 9, Position(2, 1), False),
    ],
)
def test_a_run_is_extended_where_its_steps_so_far_stay_the_same(
    schedule, before, after, trained, allowed
):
    config = config_of(f"--schedule={schedule}", f"--epochs={after}", "--batch_size=8")
    refused = pytest.raises(CommandError, match=f"want --epochs={before} as before, got {after}")
    with contextlib.nullcontext() if allowed else refused:
        assembly.check_extension(config, before, trained, examples=30)


# The same data


def test_other_training_data_have_another_digest():
    data = assembly.load(config_of("--calibration_images=10"))
    same = assembly.load(config_of("--calibration_images=10"))
    assert data.digest == same.digest
    train = data.source.train
    for changed in (
        dataclasses.replace(train, labels=train.labels[::-1]),
        dataclasses.replace(train, ids=train.ids + 1),
        dataclasses.replace(
            train, images=train.images[1:], labels=train.labels[1:], ids=train.ids[1:]
        ),
    ):
        source = dataclasses.replace(data.source, train=changed)
        assert dataclasses.replace(data, source=source).digest != data.digest


# Whole runs


@pytest.mark.parametrize("name", ["mixup", "adversarial"])
def test_a_whole_run_leaves_results_and_an_export(tmp_path, monkeypatch, name):
    monkeypatch.setattr(delivery, "verify", lambda *_: 0.0)
    assert main.main([*TINY, *VARIANTS[name], f"--workdir={tmp_path}"]) == 0
    with (tmp_path / "metrics.csv").open(newline="") as file:
        [row] = csv.DictReader(file)
    assert np.isfinite(float(row["loss"]))
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["provenance"]["method"] == config_of(*VARIANTS[name]).method
    assert results["clean"]["images"] == 20
    images, labels = (part[:20] for part in shapes.make("test"))
    for answers in (
        keras.saving.load_model(tmp_path / "model.keras").predict(images, verbose=0).argmax(1),
        tf.saved_model.load(str(tmp_path / "export" / "1"))
        .signatures["serving_default"](images=tf.constant(images))["classes"]
        .numpy(),
    ):
        assert np.mean(answers != labels) == pytest.approx(results["clean"]["error"], abs=1e-12)


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (("--method=mixup", "--jsd"), ["--method=augmix", "--jsd"]),
        (("--method=cutmix", "--views=3"), ["--method=augmix", "--views=3"]),
        (("--views=1",), ["--nojsd", "got 1"]),
        (("--split_bn", "--nojsd"), ["--jsd for --split_bn"]),
        (("--model=densenet", "--depth=41"), ["41"]),
        (("--mix_ops=autoaugmnt",), ["did you mean 'autoaugment'?"]),
        (("--calibration_images=40",), ["--calibration_images", "40 training images", "got 40"]),
        (("--corrupted_dir=nowhere/at/all",), ["nowhere/at/all"]),
        (("--perturbed_dir=nowhere/at/all",), ["nowhere/at/all"]),
        (("--stylized_dir=nowhere/at/all",), ["nowhere/at/all"]),
        (("--alexnet_rates=nowhere.json",), ["nowhere.json"]),
        (("--method=mixup", "--mixup_alpha=0"), ["--mixup_alpha"]),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_trained(
    tmp_path, monkeypatch, capsys, arguments, wanted
):
    monkeypatch.chdir(tmp_path)
    sizes = [] if "--model=densenet" in arguments else TINY
    few = ["--train_limit=40", "--eval_limit=20", "--calibration_images=0"]
    code = main.main([*few, *sizes, "--corrupted", *arguments, f"--workdir={tmp_path / 'run'}"])
    told = capsys.readouterr()
    assert code == 2
    assert told.out == ""
    [line] = told.err.splitlines()
    assert line.startswith("main.py: ")
    for part in wanted:
        assert part in line
    assert list(tmp_path.iterdir()) == []


def test_a_recipe_is_built_as_it_says():
    config = dataclasses.replace(config_of(), model="allconv", depth=None, widen_factor=None)
    source = assembly.load(config).source
    trainer = assembly.build(config, source)
    assert trainer.classifier.output_shape == (None, source.num_classes)
    assert assembly.parameters(trainer) == sum(
        weight.numpy().size for weight in trainer.classifier.trainable_variables
    )
