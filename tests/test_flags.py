"""The command line and the configuration that it makes; nothing here needs TensorFlow."""

from __future__ import annotations

import ast
import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

import flags
from augmix_tf import presets
from augmix_tf.checks import CommandError
from augmix_tf.config import ExperimentConfig
from augmix_tf.request import SetRequest

REPOSITORY = Path(__file__).parents[1]
FIELDS = {field.name: field.default for field in dataclasses.fields(ExperimentConfig)}
SHOW_IMPORTS = ("-X", "importtime")
REQUEST = {"model_path", "mode", "workdir", "workdirs", "help"}
REQUEST |= {"strategy", "tpu", "cpu_replicas", "recipe"}
PART = {"names", "table", "layout", "workers", "shard_index", "shard_count"}
# Where "one more" or "the opposite" of the default is no other legal value.
OTHERS = {
    "dataset": "cifar100",
    "model": "allconv",
    "method": "standard",
    "depth": 16,
    "widen_factor": 4,
    "mixture_depth": 2,
    "precision": "mixed_bfloat16",
    "mix_ops": "autoaugment",
    "schedule": "step",
    "export_format": "onnx",
    "profile_steps": "3,8",
    **{name: "/elsewhere" for name, default in FIELDS.items() if name.endswith("_dir")},
    "alexnet_rates": "/elsewhere.json",
    "shift_dirs": "/elsewhere/a,/elsewhere/b",
    "fill": 128,
    "imagenet_crop": "reference",
    "width_multiplier": 0.5,
}


def other_value(name):
    """A legal value of a setting that is not its default, found from the default's type."""
    default = FIELDS[name]
    if name in OTHERS:
        return OTHERS[name]
    if isinstance(default, bool):
        return not default
    return default + 1 if isinstance(default, int) else default * 1.5


def spelled(name, value):
    """The flag that gives a setting this value."""
    if isinstance(value, bool):
        return f"--{name}" if value else f"--no{name}"
    return f"--{name}={value}"


def parsed(*arguments):
    return flags.parse(arguments).config


def refusal(*arguments):
    """The one line that a wrong command line is answered with."""
    with pytest.raises(CommandError) as error:
        flags.parse(arguments)
    text = str(error.value)
    assert text.strip()
    assert "\n" not in text
    return text


def main_py(*arguments, python=()):
    command = [sys.executable, *python, "main.py", *arguments]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120)


def assert_imports_are_cheap(said):
    """Holds what Python said of its imports against the modules that take seconds."""
    imported = {line.rpartition("|")[2].strip() for line in said.splitlines()}
    assert "augmix_tf.config" in imported
    heavy = {"tensorflow", "keras", "tensorflow_datasets", "matplotlib", "scipy", "cv2"}
    assert not {name.partition(".")[0] for name in imported} & heavy


# What is asked for


def test_no_flags_ask_for_the_quick_start():
    command = flags.parse([])
    assert command.mode == "train"
    assert command.workdir is None
    assert command.given == frozenset()
    assert not command.help
    assert command.quick_start
    assert command.config == presets.quick_start("wrn")


@pytest.mark.parametrize("argument", ["--seed=3", "--epochs=1", "--nocorrupted", "--train_limit=8"])
def test_the_quick_start_has_settings_as_well(argument):
    assert flags.parse([argument]).quick_start


@pytest.mark.parametrize(
    "argument",
    [
        *("--workdir=run", "--dataset=shapes", "--model=wrn", "--method=augmix", "--mode=views"),
        *("--nojsd", "--views=2", "--depth=16", "--mix_ops=autoaugment"),
    ],
)
def test_who_chooses_a_run_gets_that_run_and_no_quick_start(argument):
    assert not flags.parse([argument]).quick_start


def test_the_runs_of_a_report_are_handed_on_in_their_order():
    command = flags.parse(["--mode=report", "--workdirs=b,a/c", "--workdir=out"])
    assert command.workdirs == (Path("b"), Path("a/c"))
    assert command.workdir == Path("out")
    assert flags.parse([]).workdirs == ()


def test_the_part_of_a_set_is_handed_on():
    part = ["--names=fog,snow", "--table=cifar", "--layout=jpeg", "--workers=2", "--shard_index=1"]
    command = flags.parse(["--mode=corrupt", *part, "--shard_count=3"])
    assert command.part == SetRequest(("fog", "snow"), "cifar", "jpeg", 2, 1, 3)
    assert flags.parse(["--mode=corrupt"]).part == SetRequest()
    assert command.given == frozenset()


@pytest.mark.parametrize("mode", flags.MODES)
def test_mode_and_workdir_are_handed_on(mode):
    command = flags.parse([f"--mode={mode}", "--workdir=some/where"])
    assert (command.mode, command.workdir) == (mode, Path("some/where"))
    assert command.config == presets.quick_start("wrn")


def test_every_setting_has_a_flag_and_every_flag_a_use():
    values = flags.absl_flags.FlagValues()
    named = [name for group in flags.define(values).values() for name in group]
    assert len(named) == len(set(named))
    assert set(named) == set(FIELDS) | REQUEST | PART
    assert {field.name for field in dataclasses.fields(SetRequest)} == PART


@pytest.mark.parametrize("name", [name for name in FIELDS if name != "method"])
def test_a_flag_changes_its_setting_and_no_other(name):
    base = ["--dataset=cifar10"]
    if name == "cutout_size":
        base += ["--method=autoaugment"]
    if name == "imagenet_crop":
        base += ["--corrupted_dir=somewhere"]
    value = other_value(name)
    assert value != getattr(parsed(*base), name)
    command = flags.parse([*base, spelled(name, value)])
    changed = dataclasses.replace(parsed(*base), **{name: value})
    assert command.config == changed
    assert type(getattr(command.config, name)) is type(value)
    assert command.given == {spelt[2:].split("=")[0] for spelt in base} | {name}


@pytest.mark.parametrize("name", [name for name in FIELDS if isinstance(FIELDS[name], bool)])
def test_a_switch_is_spelled_in_four_ways(name):
    for on in (f"--{name}", f"--{name}=true"):
        assert getattr(parsed(on), name) is True
    for off in (f"--no{name}", f"--{name}=false"):
        assert getattr(parsed(off), name) is False


@pytest.mark.parametrize("name", ["epochs", "learning_rate", "data_dir", "model"])
def test_a_value_may_follow_as_a_word_of_its_own(name):
    value = other_value(name)
    assert parsed(f"--{name}", str(value)) == parsed(spelled(name, value))


def test_a_flag_given_with_the_recipes_own_value_counts_as_given():
    assert flags.parse(["--seed=1", "--jsd"]).given == {"seed", "jsd"}


# Recipes


def test_the_quick_start_is_a_small_network_for_a_few_epochs():
    config = parsed()
    assert (config.dataset, config.model, config.method) == ("shapes", "wrn", "augmix")
    assert (config.epochs, config.batch_size) == (16, 64)
    assert config.model_options == {"depth": 10, "widen_factor": 1}
    assert parsed("--model=densenet").model_options == {}
    assert parsed("--depth=16").model_options == {"depth": 16, "widen_factor": 1}


def test_any_dataset_of_tfds_gets_the_papers_recipe():
    assert parsed("--dataset=emnist/letters") == presets.preset("emnist/letters", "wrn", "augmix")
    assert parsed("--dataset=svhn_cropped").epochs == 100


def test_no_images_are_held_out_that_a_small_run_cannot_spare():
    assert parsed("--train_limit=40").calibration_images == 5
    assert parsed("--train_limit=7").calibration_images == 0
    assert parsed("--train_limit=100000") == dataclasses.replace(parsed(), train_limit=100000)
    assert parsed("--train_limit=40", "--calibration_images=30").calibration_images == 30
    assert parsed("--dataset=cifar10", "--train_limit=40").calibration_images == 0


# What is refused


@pytest.mark.parametrize(
    ("argument", "meant"),
    [
        ("--modle=wrn", "--model"),
        ("--epoch=3", "--epochs"),
        ("--batchsize=3", "--batch_size"),
        ("--learning-rate=0.1", "--learning_rate"),
        ("--nodownlod", "--download"),
        ("--mode=evalute", "evaluate"),
        ("--mode=trian", "train"),
        ("--model=wnr", "wrn"),
        ("--model=resnxt", "resnext"),
        ("--method=augmx", "augmix"),
        ("--method=standart", "standard"),
        ("--precision=float23", "float32"),
        ("--precision=mixed_bfloat61", "mixed_bfloat16"),
        ("--strategy=atuo", "auto"),
        ("--mix_ops=autoaugmnt", "autoaugment"),
        ("--method=cutmx", "cutmix"),
        ("--mode=repotr", "report"),
    ],
)
def test_a_wrong_name_is_answered_with_the_nearest(argument, meant):
    text = refusal(argument)
    assert f"did you mean {meant!r}?" in text
    wrong = argument.split("=")[0] if meant.startswith("--") else argument.split("=")[1]
    assert repr(wrong) in text


def test_an_unknown_flag_is_answered_without_the_list_of_all():
    assert refusal("--modle=wrn") == "unknown flag '--modle', did you mean '--model'?"
    assert "did you mean" not in refusal("--xyzzyplugh")


@pytest.mark.parametrize(
    "argument",
    [
        "--epochs=0",
        "--epochs=1.5",
        "--batch_size=0",
        "--batch_size=-1",
        "--batch_size=x",
        "--learning_rate=0",
        "--learning_rate=nan",
        "--learning_rate=inf",
        "--weight_decay=-1e-4",
        "--weight_decay=nan",
        "--weight_decay=inf",
        "--aug_severity=11",
        "--aug_severity=0",
        "--aug_severity=nan",
        "--mixture_width=0",
        "--mixture_depth=0",
        "--mixture_depth=-2",
        "--alpha=0",
        "--alpha=-1",
        "--alpha=inf",
        "--jsd_weight=-1",
        "--jsd_weight=nan",
        "--jsd_weight=inf",
        "--views=1",
        "--views=0",
        "--seed=-1",
        f"--seed={2**31}",
        "--train_limit=-1",
        "--eval_limit=-1",
        "--jsd=perhaps",
        "--calibration_images=-1",
        "--cutout_size=-1",
        "--mixup_alpha=0",
        "--mixup_alpha=nan",
        "--cutmix_alpha=0",
        "--cutmix_alpha=1e7",
        "--cutmix_probability=1.5",
        "--cutmix_probability=-0.5",
        "--patch_size=0",
        "--patch_scale=0",
        "--patch_scale=1.5",
        "--adversary_epsilon=-1",
        "--adversary_epsilon=256",
        "--adversary_step_size=0",
        "--adversary_steps=0",
        "--workers=many",
        "--shard_count=1.5",
    ],
)
def test_an_illegal_value_is_named(argument):
    name, _, value = argument.removeprefix("--").partition("=")
    text = refusal(argument)
    assert value.lstrip("-") in text or str(float(value)) in text
    # AugMix's own settings call themselves by shorter names.
    assert name.split("_")[-1] in text


@pytest.mark.parametrize(
    ("argument", "mode"),
    [
        ("--workdirs=a,b", "report"),
        ("--model_path=x.keras", "evaluate"),
        ("--names=fog", "corrupt"),
        ("--shard_count=2", "corrupt"),
        ("--layout=jpeg", "corrupt"),
    ],
)
def test_a_flag_of_another_mode_is_refused_with_its_mode(argument, mode):
    assert f"is for --mode={mode}, got --mode=train" in refusal(argument)
    flags.parse([argument, f"--mode={mode}"])


@pytest.mark.parametrize("name", ["workdir", "corrupted_dir", "data_dir", "stylized_dir"])
def test_the_home_folder_is_found_and_an_empty_path_is_not(name, monkeypatch):
    monkeypatch.setenv("HOME", "at/home")
    command = flags.parse([f"--{name}=~/x"])
    assert str(getattr(command if name == "workdir" else command.config, name)) == "at/home/x"
    assert f"--{name}" in refusal(f"--{name}=")


def test_a_set_that_is_not_to_be_measured_is_refused():
    assert "--nocorrupted" in refusal("--nocorrupted", "--corrupted_dir=somewhere")


@pytest.mark.parametrize("name", ["dataset", "model", "method", "mode", "precision", "strategy"])
def test_an_empty_name_is_refused(name):
    refusal(f"--{name}=")


@pytest.mark.parametrize("name", ["epochs", "data_dir"])
def test_a_flag_without_its_value_is_named(name):
    assert name in refusal(f"--{name}")


@pytest.mark.parametrize(
    "arguments", [("train",), ("--epochs=2", "train"), ("--jsd", "false"), ("--", "--epochs=2")]
)
def test_stray_words_are_refused(arguments):
    assert repr(arguments[-1]) in refusal(*arguments)


def test_imagenet_s_learning_rate_follows_the_batch_unless_it_is_given():
    assert parsed("--dataset=imagenet2012", "--batch_size=512").learning_rate == 0.2
    assert parsed("--dataset=folder", "--batch_size=8", "--learning_rate=1").learning_rate == 1
    assert parsed("--batch_size=512").learning_rate == 0.1


def test_a_short_trial_of_a_recipe_needs_no_other_flags():
    assert parsed("--dataset=folder", "--recipe=released", "--epochs=1").warmup_epochs == 0
    assert parsed("--dataset=folder", "--method=cutout", "--image_size=64").cutout_size == 32


def test_a_recipe_is_chosen_by_its_name():
    assert parsed("--dataset=imagenet2012", "--recipe=released").epochs == 180
    assert "did you mean 'released'" in refusal("--dataset=imagenet2012", "--recipe=relesed")
    assert "--recipe=released" in refusal("--dataset=cifar10", "--recipe=released")


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (("--epochs=3", "--warmup_epochs=3"), "want --warmup_epochs below the 3 epochs, got 3"),
        (("--schedule=constant", "--warmup_epochs=1"), "no --warmup_epochs with --schedule"),
        (("--fill=256",), "--fill in 0..255"),
        (("--corrupted_dir=x", "--imagenet_crop=canonicl"), "did you mean 'canonical'"),
        (("--imagenet_crop=reference",), "want --corrupted_dir for --imagenet_crop"),
        (("--shift_dirs=",), "want a path as --shift_dirs"),
    ],
)
def test_settings_of_imagenet_are_checked(arguments, wanted):
    assert wanted in refusal(*arguments)


@pytest.mark.parametrize("free", ["--nojsd", "--method=standard"])
def test_one_view_is_enough_without_the_consistency_loss(free):
    assert parsed("--views=1", free).views == 1


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (("--method=mixup", "--jsd"), ("--method=augmix", "--jsd", "--method=mixup")),
        (("--method=cutmix", "--views=3"), ("--views=3", "--method=cutmix", "one view")),
        (("--method=standard", "--split_bn"), ("--split_bn", "--method=standard")),
        (
            ("--method=autoaugment", "--mix_ops=autoaugment"),
            ("--mix_ops=autoaugment", "--method=autoaugment"),
        ),
        (("--views=1",), ("--views", "JSD", "--nojsd", "got 1")),
        (("--split_bn", "--nojsd"), ("--jsd", "--split_bn", "--nojsd")),
        (("--method=cutout", "--cutout_size=0"), ("--cutout_size", "at least 1", "got 0")),
        (("--method=mixup", "--cutout_size=8"), ("--cutout_size", "--method=mixup", "got 8")),
    ],
)
def test_settings_that_do_not_go_together_are_refused_with_the_reason(arguments, wanted):
    text = refusal(*arguments)
    assert text.startswith("want ")
    for part in wanted:
        assert part in text


# The program itself


def test_help_shows_every_flag_and_does_not_load_tensorflow():
    result = main_py("--help", python=SHOW_IMPORTS)
    assert result.returncode == 0
    for name in [*FIELDS, *REQUEST, *PART]:
        assert f"--{name} " in result.stdout
    for name in flags.MODES:
        assert f"{name}: " in result.stdout
    assert_imports_are_cheap(result.stderr)


def test_a_wrong_command_line_ends_with_2_and_one_line_before_tensorflow_loads():
    result = main_py("--modle=wrn")
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr == "main.py: unknown flag '--modle', did you mean '--model'?\n"
    assert_imports_are_cheap(main_py("--modle=wrn", python=SHOW_IMPORTS).stderr)


def test_the_package_never_imports_the_command_line():
    for path in (REPOSITORY / "augmix_tf").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                modules = [node.module or "", *(alias.name for alias in node.names)]
                modules = modules if node.level or node.module == "absl" else modules[:1]
            else:
                continue
            roots = {module.partition(".")[0] for module in modules}
            assert not roots & {"flags", "main", "tests"}, f"{path} imports {sorted(roots)}"
