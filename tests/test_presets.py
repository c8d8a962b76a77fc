"""The recipes: what a run is when no flag says otherwise."""

from __future__ import annotations

import dataclasses
import itertools

import pytest

import flags
from augmix_tf import presets
from augmix_tf.checks import CommandError
from augmix_tf.config import ExperimentConfig

# What sets a method's recipe apart from the shared one.
OWN = {
    "standard": {},
    "cutout": {"cutout_size": 16},
    "mixup": {"weight_decay": 1e-4},
    "cutmix": {},
    "autoaugment": {},
    "random_autoaugment": {},
    "adversarial": {},
    "patch_uniform": {},
}
ONE_VIEW = {"jsd": False, "views": 1}


def parsed(*arguments):
    return flags.parse(arguments).config


def test_there_is_a_recipe_for_each_method_of_the_paper():
    assert list(presets.METHODS) == [*OWN, "augmix"]


@pytest.mark.parametrize("dataset", ["cifar10", "cifar100"])
@pytest.mark.parametrize("method", presets.METHODS)
@pytest.mark.parametrize(
    ("model", "epochs", "weight_decay"),
    [
        ("wrn", 100, 5e-4),
        ("allconv", 100, 5e-4),
        ("densenet", 200, 1e-4),
        ("resnext", 200, 5e-4),
        ("resnet50", 100, 5e-4),
    ],
)
def test_the_papers_recipe_stays_where_no_flag_says_otherwise(
    dataset, method, model, epochs, weight_decay
):
    arguments = [f"--dataset={dataset}", f"--model={model}", f"--method={method}"]
    config = parsed(*arguments)
    wanted = {"epochs": epochs, "weight_decay": weight_decay}
    wanted |= {} if method == "augmix" else ONE_VIEW | OWN[method]
    if (dataset, method) == ("cifar100", "cutout"):
        wanted["cutout_size"] = 8
    assert config == ExperimentConfig(dataset=dataset, model=model, method=method, **wanted)
    assert (config.learning_rate, config.batch_size) == (0.1, 128)
    assert config.model_options == {}
    assert parsed(*arguments, "--seed=7") == dataclasses.replace(config, seed=7)
    assert parsed(*arguments, "--epochs=7") == dataclasses.replace(config, epochs=7)


def test_augmix_has_the_papers_knobs():
    config = parsed("--dataset=cifar10")
    assert (config.aug_severity, config.mixture_width, config.mixture_depth) == (3, 3, -1)
    assert (config.jsd, config.jsd_weight, config.views, config.all_ops) == (True, 12, 3, False)
    assert (config.alpha, config.mix_ops, config.split_bn) == (1, "augmix", False)


def test_the_rivals_have_their_papers_knobs():
    config = parsed("--dataset=cifar10", "--method=standard")
    assert (config.mixup_alpha, config.cutmix_alpha, config.cutmix_probability) == (1, 1, 0.5)
    steps = (config.adversary_epsilon, config.adversary_step_size, config.adversary_steps)
    assert steps == (8, 2, 10)
    assert (config.patch_size, config.patch_scale) == (25, 0.3)


@pytest.mark.parametrize("method", presets.METHODS)
def test_no_method_leaves_anything_behind_in_the_next_ones_recipe(method):
    """A quick start makes the recipe of another method out of the one that was asked for."""
    for changes in (
        {"jsd": False},
        {"views": 4, "split_bn": True},
        {"mix_ops": "autoaugment"},
    ):
        asked = dataclasses.replace(presets.quick_start("wrn"), **changes)
        chosen = presets.METHODS[method](asked)
        if method == "augmix":
            assert chosen == asked
        else:
            assert chosen == presets.preset("shapes", "wrn", method)


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        (("cifar10", "wrn", "cutmx"), "did you mean 'cutmix'?"),
        (("cifar10", "resnet5", "cutmix"), "did you mean 'resnet50'?"),
        (("", "wrn", "cutmix"), "Known: cifar10, cifar100, shapes"),
        (("cifar10", "wrn", "cutmix", "released"), "want --recipe=released with ImageNet"),
        (("folder", None, "augmix", "relased"), "did you mean 'released'?"),
    ],
)
def test_a_cell_without_a_recipe_is_refused(cell, said):
    with pytest.raises(CommandError) as error:
        presets.preset(*cell)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_recipes_of_two_cells_are_never_the_same_run():
    cells = itertools.product(("shapes", "cifar10"), presets.MODELS, presets.METHODS)
    configs = [presets.preset(*cell) for cell in cells]
    assert all(a.differences(b) for a, b in itertools.combinations(configs, 2))


def test_the_recipe_of_the_authors_imagenet_script():
    for dataset in ("imagenet2012", "folder", "imagenet2012:5.1.0"):
        recipe = presets.preset(dataset, None, "augmix")
        assert (recipe.model, recipe.image_size, recipe.epochs, recipe.batch_size) == (
            "resnet50",
            224,
            90,
            256,
        )
        assert (recipe.learning_rate, recipe.schedule, recipe.nesterov) == (0.1, "step", False)
        assert (recipe.weight_decay, recipe.aug_severity, recipe.fill) == (1e-4, 1.0, None)
        assert (recipe.mixture_width, recipe.jsd, recipe.warmup_epochs) == (3, True, 0)


def test_the_recipe_of_the_released_weights_differs_as_their_authors_said():
    script = presets.preset("imagenet2012", None, "augmix")
    released = presets.preset("imagenet2012", None, "augmix", "released")
    changed = {line.split()[0] for line in script.differences(released)}
    assert changed == {"epochs", "nesterov", "schedule", "warmup_epochs", "fill"}
    assert (released.epochs, released.nesterov, released.fill) == (180, True, 128)


def test_a_recipe_is_fitted_to_what_was_chosen_beside_it():
    large, small = (presets.preset(name, None, "cutout") for name in ("folder", "cifar10"))
    released = presets.preset("folder", None, "augmix", "released")
    assert presets.fitted(large, {"batch_size": 1024}).learning_rate == pytest.approx(0.4)
    assert presets.fitted(small, {"batch_size": 1024}) == small
    assert presets.fitted(large, {"image_size": 64}).cutout_size == 32
    assert presets.fitted(released, {"epochs": 3}).warmup_epochs == 2
    assert presets.fitted(released, {"schedule": "constant"}).warmup_epochs == 0
    chosen = {"batch_size": 1024, "learning_rate": 1.0, "image_size": 64, "cutout_size": 3}
    assert presets.fitted(large, chosen) == large
