"""The recipes: what a run is when no flag says otherwise."""

import itertools
import re
from pathlib import Path

import pytest

from augmix_tf import recipes
from augmix_tf.errors import ArgumentError

# What sets a method's recipe on CIFAR-10 apart from the shared one.
OWN = {"cutout": {"cutout_size": 16}, "mixup": {"weight_decay": 1e-4}}


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
def test_the_papers_recipe_holds_where_nothing_else_is_given(model, epochs, weight_decay):
    for dataset, method in itertools.product(("cifar10", "cifar100"), recipes.METHODS):
        check_paper_recipe(dataset, model, method, epochs, weight_decay)


def check_paper_recipe(dataset, model, method, epochs, weight_decay):
    config = recipes.recipe(dataset, model, method)
    expected = {"epochs": epochs, "weight_decay": weight_decay} | OWN.get(method, {})
    if (dataset, method) == ("cifar100", "cutout"):
        expected["cutout_size"] = 8
    values = config.settings()
    assert {name: values[name] for name in expected} == expected
    assert (config.learning_rate, config.batch_size, config.schedule) == (0.1, 128, "cosine")
    assert config.model == recipes.MODELS[model]()
    changed = recipes.recipe(dataset, model, method, given={"seed": 7, "epochs": 9})
    assert changed == config.replaced({"seed": 7, "epochs": 9, "ramp_epochs": 3})


def test_augmix_has_the_papers_hyperparameters():
    method = recipes.recipe("cifar10").method
    assert (method.aug_severity, method.mixture_width, method.mixture_depth) == (3, 3, -1)
    assert (method.jsd, method.jsd_weight, method.views, method.all_ops) == (True, 12, 3, False)
    assert (method.alpha, method.mix_ops, method.split_bn) == (1, "augmix", False)


@pytest.mark.parametrize("method", recipes.METHODS)
def test_no_method_leaves_anything_behind_in_the_next_ones_recipe(method):
    """The quick start makes the recipe of another method from the one that was asked for."""
    for given in ({}, {"epochs": 3, "seed": 2}, {"train_limit": 40, "corrupted": False}):
        asked = recipes.recipe(given=given)
        assert recipes.with_method(asked, method) == recipes.recipe(method=method, given=given)


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        (("cifar10", "wrn", "cutmx"), "Did you mean 'cutmix'?"),
        (("cifar10", "resnet5", "cutmix"), "Did you mean 'resnet50'"),
        (("", "wrn", "cutmix"), "Known: cifar10, cifar100, shapes"),
        (("cifar10", "wrn", "cutmix", "released"), "an ImageNet dataset for recipe 'released'"),
        (("folder", None, "augmix", "relased"), "Did you mean 'released'?"),
    ],
)
def test_a_cell_without_a_recipe_is_refused(cell, expected):
    with pytest.raises(ArgumentError) as error:
        recipes.recipe(*cell)
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


def test_recipes_of_two_cells_are_never_the_same_run():
    cells = itertools.product(("shapes", "cifar10"), recipes.MODELS, recipes.METHODS)
    configs = [recipes.recipe(*cell) for cell in cells]
    assert all(a.differences(b) for a, b in itertools.combinations(configs, 2))


@pytest.mark.parametrize("dataset", ["imagenet2012", "folder", "imagenet2012:5.1.0"])
def test_the_recipe_of_the_authors_imagenet_script(dataset):
    recipe = recipes.recipe(dataset)
    assert (recipe.model.name, recipe.image_size, recipe.epochs) == ("resnet50", 224, 90)
    assert (recipe.learning_rate, recipe.schedule, recipe.nesterov) == (0.1, "step", False)
    assert (recipe.weight_decay, recipe.batch_size, recipe.warmup_epochs) == (1e-4, 256, 0)
    method = recipe.method
    assert (method.aug_severity, method.fill, method.mixture_width) == (1.0, None, 3)
    assert recipes.recipe(dataset, method="cutmix").method.cutmix_probability == 1
    assert recipes.recipe(dataset, method="autoaugment").method.policy == "imagenet"


def test_the_recipe_of_the_released_weights_differs_as_their_authors_said():
    script = recipes.recipe("imagenet2012")
    released = recipes.recipe("imagenet2012", variant="released")
    changed = {line.split()[0] for line in script.differences(released)}
    assert changed == {"epochs", "nesterov", "schedule", "warmup_epochs", "fill"}
    assert (released.epochs, released.nesterov, released.method.fill) == (180, True, 128)


def test_a_recipe_follows_what_was_chosen():
    def large(method="cutout", variant="script", **given):
        return recipes.recipe("folder", None, method, variant, given)

    assert large(batch_size=1024).learning_rate == pytest.approx(0.4)
    assert recipes.recipe("cifar10", given={"batch_size": 1024}).learning_rate == 0.1
    assert large(image_size=64).method.cutout_size == 32
    assert large("augmix", "released", epochs=3).warmup_epochs == 2
    assert large("augmix", "released", schedule="constant").warmup_epochs == 0
    chosen = large(batch_size=1024, learning_rate=1.0, image_size=64, cutout_size=3)
    assert (chosen.learning_rate, chosen.method.cutout_size) == (1.0, 3)


def test_no_images_are_held_out_that_a_small_run_cannot_spare():
    def held_out(dataset="shapes", **given):
        return recipes.recipe(dataset, given=given).calibration_images

    assert (held_out(train_limit=40), held_out(train_limit=7)) == (5, 0)
    assert held_out(train_limit=100000) == held_out()
    assert held_out(train_limit=40, calibration_images=30) == 30
    assert held_out("cifar10", train_limit=40) == 0


def test_the_published_errors_are_those_of_the_page():
    """`docs/reproducing.md` has a table for each CIFAR benchmark: a row per model."""
    page = (Path(__file__).parents[1] / "docs" / "reproducing.md").read_text()
    for column, benchmark in enumerate(("CIFAR-10-C", "CIFAR-100-C")):
        table = page[page.index(f"| {benchmark} |") :].split("\n\n")[0].splitlines()
        methods = [cell.strip() for cell in table[0].strip("|").split("|")][1:]
        assert len(table) == 2 + len(recipes.METHODS["augmix"].cifar_errors)
        for line in table[2:]:
            model, *cells = (cell.strip() for cell in line.strip("|").split("|"))
            errors = [recipes.METHODS[name].cifar_errors[model][column] for name in methods]
            assert [float(re.match(r"[\d.]+", cell)[0]) for cell in cells] == errors
