"""A configuration as a record: to JSON and back, compared with another one, named after."""

import itertools
import json

import pytest

from augmix_tf import recipes, workdir
from augmix_tf.errors import ArgumentError
from tests.settings_values import accepting, other_value

# They change where a run reads and what is measured, not what is trained.
FREE = {"data_dir", "download", "corrupted", "corrupted_dir", "perturbed_dir", "frost_dir"}
FREE |= {"alexnet_rates", "checkpoint_steps", "export_format", "profile_steps"}
FREE |= {"imagenet_crop", "shift_dirs", "cbar", "cbar_dir", "adapt_bn", "adapt_batch"}
NAMES = list(recipes.declarations())


def test_a_configuration_goes_to_json_and_back():
    for model, method in itertools.product(recipes.MODELS, recipes.METHODS):
        config = recipes.recipe("cifar10", model, method, given={"seed": 7, "data_dir": "/data"})
        text = config.to_json()
        assert recipes.from_json(text) == config
        assert json.loads(text) == config.settings()
        assert len(text.splitlines()) == len(config.settings()) + 2


def test_a_configuration_of_an_earlier_version_can_be_read():
    """It held the settings of all methods and models, unset ones as null."""
    values = {"seed": 7, "depth": None, "method": "mixup", "jsd": False, "views": 1, "fill": None}
    config = recipes.from_json(json.dumps(values))
    assert (config.seed, config.model.depth, config.method.mixup_alpha) == (7, 40, 1.0)
    assert "views" not in config.settings()


def test_an_unknown_setting_in_json_is_answered_with_the_nearest():
    with pytest.raises(ArgumentError, match=r"Unknown setting 'epoch'\. Did you mean 'epochs'"):
        recipes.from_json('{"epoch": 7}')


@pytest.mark.parametrize(
    "text",
    [
        *("", '{"epochs": 3', "[1]", "null", '{"epochs": "ten"}', '{"epochs": 0}'),
        *('{"learning_rate": []}', '{"epochs": true}', '{"precision": "float23"}', '{"method": 3}'),
        '{"method": "mixup", "mixup_alpha": "one"}',
    ],
)
def test_a_damaged_configuration_is_refused_in_one_line(text):
    with pytest.raises(ArgumentError) as error:
        recipes.from_json(text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", NAMES)
def test_another_value_of_a_setting_is_named_makes_another_run_and_is_shared_by_workers(name):
    """A command that would resume a run in a given directory finds it by itself as well."""
    config = accepting(name)
    value = other_value(name, config)
    other = config.replaced({name: value})
    same_run = name in FREE
    difference = f"{name} {config.settings()[name]!r} -> {value!r}"
    assert config.differences(other) == ([] if same_run else [difference])
    assert (workdir.default_root(other) == workdir.default_root(config)) == same_run
    own = ("data_dir", "download", "export_format", "profile_steps")
    assert (config.shared_by_workers() == other.shared_by_workers()) == (name in own)
    if name.endswith("_dir"):
        third = config.replaced({name: "/somewhere/else"})
        assert other.shared_by_workers() == third.shared_by_workers()


def test_another_method_differs_in_its_name_and_settings():
    mixup, cutmix = (recipes.recipe("cifar10", "wrn", name) for name in ("mixup", "cutmix"))
    found = {line.split()[0] for line in mixup.differences(cutmix)}
    expected = {"method", "weight_decay", "mixup_alpha", "cutmix_alpha", "cutmix_probability"}
    assert found == expected
    assert mixup.differences(mixup) == []
