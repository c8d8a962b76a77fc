"""A configuration as a record: to JSON and back, held against another one, named after."""

from __future__ import annotations

import dataclasses
import json

import pytest

from augmix_tf import presets, workdir
from augmix_tf.checks import CommandError
from augmix_tf.config import ExperimentConfig
from tests.test_flags import FIELDS, other_value

# Where a run reads and what it is measured on: no matter of what is trained.
FREE = {"data_dir", "download", "corrupted", "corrupted_dir", "perturbed_dir", "frost_dir"}
FREE |= {"alexnet_rates", "checkpoint_steps", "export_format", "profile_steps"}
FREE |= {"imagenet_crop", "shift_dirs"}


def base_of(name):
    """A configuration in which this setting alone can be changed."""
    if name == "cutout_size":
        return ExperimentConfig(method="standard", jsd=False, views=1)
    return ExperimentConfig(jsd=False, views=1) if name == "method" else ExperimentConfig()


def changed_config():
    """Other values of all settings that can have them together."""
    names = [name for name in FIELDS if name not in ("method", "jsd", "cutout_size")]
    return ExperimentConfig(**{name: other_value(name) for name in names})


def test_a_configuration_goes_to_json_and_back():
    for config in (
        ExperimentConfig(),
        changed_config(),
        presets.preset("cifar10", "allconv", "mixup"),
    ):
        text = config.to_json()
        assert ExperimentConfig.from_json(text) == config
        assert list(json.loads(text)) == list(FIELDS)
        assert len(text.splitlines()) == len(FIELDS) + 2


def test_a_configuration_of_an_older_version_gets_the_defaults():
    assert ExperimentConfig.from_json('{"seed": 7}') == ExperimentConfig(seed=7)


def test_an_unknown_setting_in_json_is_answered_with_the_nearest():
    with pytest.raises(CommandError, match="unknown setting 'epoch', did you mean 'epochs'"):
        ExperimentConfig.from_json('{"epoch": 7}')


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        '{"epochs": 3',
        "[]",
        "[1]",
        "null",
        "3",
        '"epochs"',
        '{"epochs": "ten"}',
        '{"epochs": null}',
        '{"learning_rate": []}',
        '{"method": 3}',
        '{"epochs": 0}',
        '{"precision": "float23"}',
    ],
)
def test_a_damaged_configuration_is_refused_in_one_line(text):
    with pytest.raises(CommandError) as error:
        ExperimentConfig.from_json(text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", FIELDS)
def test_differences_name_the_setting_and_both_values(name):
    config, value = base_of(name), other_value(name)
    found = config.differences(dataclasses.replace(config, **{name: value}))
    if name in FREE:
        assert found == []
    else:
        assert found == [f"{name} {FIELDS[name]!r} -> {value!r}"]


def test_equal_configurations_differ_in_nothing():
    assert changed_config().differences(changed_config()) == []


@pytest.mark.parametrize("name", FIELDS)
def test_workers_agree_on_all_but_places_and_what_the_first_one_does(name):
    config = base_of(name)
    other = dataclasses.replace(config, **{name: other_value(name)})
    own = ("data_dir", "download", "export_format", "profile_steps")
    assert (config.of_all_workers() == other.of_all_workers()) == (name in own)
    if name.endswith("_dir"):
        third = dataclasses.replace(config, **{name: "/somewhere/else"})
        assert other.of_all_workers() == third.of_all_workers()


@pytest.mark.parametrize("name", FIELDS)
def test_each_run_has_a_default_folder_of_its_own(name):
    """A request that would resume a run in a given folder finds it by itself as well."""
    config = base_of(name)
    other = dataclasses.replace(config, **{name: other_value(name)})
    same_run = not config.differences(other)
    assert (workdir.default_root(other) == workdir.default_root(config)) == same_run
