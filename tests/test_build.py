"""From a command line to what it names: each method and its variants train."""

import dataclasses
import functools

import numpy as np
import pytest
from PIL import Image

import flags
import main
from augmix_tf import recipes, runtime
from augmix_tf.commands import build, views
from augmix_tf.data import shapes
from augmix_tf.data.pipeline import ONE_REPLICA, Position
from augmix_tf.errors import ArgumentError
from augmix_tf.training import loop
from augmix_tf.workdir import Workdir

TINY = ("--train_limit=40", "--eval_limit=20", "--epochs=1", "--batch_size=16", "--depth=10")
TINY += ("--widen_factor=1", "--nocorrupted", "--calibration_images=0", "--model=wrn")
TINY += ("--precision=float32",)
# Whole runs of standard and augmix are in other tests.
VARIANTS = {
    "autoaugment_jsd, split_bn": ("--mix_ops=autoaugment", "--split_bn"),
    "mixup": ("--method=mixup",),
    "adversarial": ("--method=adversarial", "--adversary_steps=2"),
}
VIEWS = {"autoaugment_jsd, split_bn": 3}


@pytest.fixture(scope="module", autouse=True)
def images_drawn_once():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shapes, "make", functools.cache(shapes.make))
        yield


def config_of(*arguments):
    return flags.parse([*TINY, *arguments]).config


@pytest.mark.parametrize("name", VARIANTS)
def test_methods_and_variants_train(name):
    config = config_of(*VARIANTS[name], "--train_limit=4", "--batch_size=4")
    source = build.load(config).source
    trainer = build.build_trainer(config, source)
    before = [weight.numpy() for weight in trainer.trainable_variables]
    batches = build.training_batches(config, source, Position(), ONE_REPLICA)
    assert batches.element_spec[0].shape[1:] == (VIEWS.get(name, 1), *source.image_size, 3)
    loop.train(trainer, batches, epochs=1, steps_per_epoch=1)
    logs = {metric.name: float(metric.result()) for metric in trainer.metrics}
    assert np.isfinite(logs["loss"])
    assert (logs["jsd"] > 0) == (name in VIEWS)
    np.testing.assert_allclose(logs["loss"], logs["cross_entropy"] + 12 * logs["jsd"], rtol=1e-5)
    for weight, old in zip(trainer.trainable_variables, before, strict=True):
        assert np.isfinite(weight.numpy()).all()
        assert not np.array_equal(weight, old), weight.path


def test_the_adversary_attacks_in_levels_of_the_pixels():
    config = config_of("--method=adversarial", "--adversary_epsilon=4", "--adversary_step_size=1")
    trainer = build.build_trainer(config, build.load(config).source)
    assert trainer.adversary.epsilon == pytest.approx(4 / 255)
    assert trainer.adversary.step_size == pytest.approx(1 / 255)
    assert trainer.adversary.steps == 10
    assert build.build_trainer(config_of(), build.load(config).source).adversary is None


def test_example_views_are_made_as_by_the_run(monkeypatch):
    monkeypatch.setattr(views.plots, "views_grid", lambda shown, titles: shown)
    shown = views.views_png(config_of("--method=cutmix"), build.load(config_of()).source)
    assert shown.shape[:2] == (views.SHOWN, 2)
    assert (shown % 1 == 0).all()  # CutMix does not blend images


def test_held_out_images_are_not_trained_on():
    whole = build.load(config_of())
    data = build.load(config_of("--calibration_images=10"))
    assert len(whole.held_out) == 0
    assert [len(data.source.train), len(data.held_out)] == [30, 10]
    for values in (lambda store: store.read(), lambda store: store.labels, lambda store: store.ids):
        parts = [values(data.source.train), values(data.held_out)]
        np.testing.assert_array_equal(np.concatenate(parts), values(whole.source.train))
        np.testing.assert_array_equal(values(data.source.test), values(whole.source.test))


@pytest.mark.parametrize("held_out", [40, 41])
def test_something_must_be_left_to_train_on(held_out):
    with pytest.raises(ArgumentError, match=f"below the 40 training images; received {held_out}"):
        build.load(config_of(f"--calibration_images={held_out}"))


def test_stylized_images_are_trained_on_beside_the_dataset(tmp_path):
    whole = build.load(config_of("--calibration_images=10"))
    name = whole.source.class_names[3]
    (tmp_path / name).mkdir()
    height, width = whole.source.image_size
    stylized = np.full((height, width, 3), 77, np.uint8)
    Image.fromarray(stylized).save(tmp_path / name / "a.png")
    data = build.load(config_of("--calibration_images=10", f"--stylized_dir={tmp_path}"))
    train = data.source.train
    assert len(train) == 31
    np.testing.assert_array_equal(train.read(slice(30)), whole.source.train.read())
    np.testing.assert_array_equal(train.read(slice(30, 31))[0], stylized)
    assert train.labels[30] == 3
    assert train.ids[30] not in [*train.ids[:30], *data.held_out.ids]
    np.testing.assert_array_equal(data.held_out.read(), whole.held_out.read())


def test_other_training_data_have_another_digest():
    data = build.load(config_of("--calibration_images=10"))
    same = build.load(config_of("--calibration_images=10"))
    assert data.digest == same.digest
    train = data.source.train
    for changed in (
        dataclasses.replace(train, labels=train.labels[::-1]),
        dataclasses.replace(train, ids=train.ids + 1),
        train.slice(slice(1, None)),
    ):
        source = dataclasses.replace(data.source, train=changed)
        assert dataclasses.replace(data, source=source).digest != data.digest


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (("--method=mixup", "--jsd"), ["--jsd applies to", "augmix"]),
        (("--model=densenet", "--depth=41"), ["41"]),
        (("--stylized_dir=nowhere/at/all",), ["nowhere/at/all"]),
        (("--alexnet_rates=nowhere.json",), ["--perturbed_dir"]),
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


@pytest.mark.parametrize(
    ("features", "want"),
    [
        ({"avx2", "avx512f"}, "float32"),
        ({"avx512f", "avx512_bf16"}, "mixed_bfloat16"),
        (set(), "float32"),
    ],
)
def test_auto_precision_follows_the_processor_and_a_run_keeps_what_it_began_with(
    tmp_path, monkeypatch, features, want
):
    monkeypatch.setattr(runtime, "processor_features", lambda: features)
    config = recipes.recipe("cifar10", given={"precision": "auto"})
    begun = build.decided(config, Workdir(tmp_path))
    assert begun == dataclasses.replace(config, precision=want)
    Workdir(tmp_path).open(begun)
    monkeypatch.setattr(runtime, "processor_features", lambda: {"amx_bf16"} - features)
    assert build.decided(config, Workdir(tmp_path)) == begun
    given = dataclasses.replace(config, precision="mixed_float16")
    assert build.decided(given, Workdir(tmp_path)) == given
