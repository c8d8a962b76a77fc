"""The command line and the request that it makes; nothing here needs TensorFlow."""

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import flags
from augmix_tf import recipes
from augmix_tf.config import MODES, BenchmarkFiles, Devices, Request
from augmix_tf.errors import ArgumentError, CommandError
from augmix_tf.settings import settings_of
from augmix_tf.workdir import Workdir
from tests.settings_values import other_value

REPOSITORY = Path(__file__).parents[1]
SHOW_IMPORTS = ("-X", "importtime")
DECLARED = flags.declarations()
CHOICES = ("mode", "dataset", "model", "method")


def parsed(*arguments):
    return flags.parse(arguments).config


def refusal(*arguments):
    """The one line that a wrong command line is answered with."""
    with pytest.raises(ArgumentError) as error:
        flags.parse(arguments)
    text = str(error.value)
    assert text.strip()
    assert "\n" not in text
    return text


def main_py(*arguments, python=()):
    command = [sys.executable, *python, "main.py", *arguments]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120)


def assert_imports_are_cheap(listing):
    """Compares Python's list of imports with the modules that take seconds."""
    imported = {line.rpartition("|")[2].strip() for line in listing.splitlines()}
    assert "augmix_tf.config" in imported
    heavy = {"tensorflow", "keras", "tensorflow_datasets", "matplotlib", "scipy", "cv2"}
    assert not {name.partition(".")[0] for name in imported} & heavy


def test_no_flags_ask_for_the_quick_start():
    request = flags.parse([])
    assert request.mode == "train"
    assert request.directory is None
    assert request.given == frozenset()
    assert request.quick_start
    assert request.config == recipes.recipe()
    assert flags.parse(["--help"]) is None
    assert flags.parse(["-h"]) is None


def test_the_quick_start_has_settings_and_choosing_a_run_ends_it():
    assert flags.parse(["--seed=3", "--epochs=1", "--nocorrupted", "--train_limit=8"]).quick_start
    chosen = ["--workdir=run", "--dataset=shapes", "--model=wrn", "--method=augmix", "--mode=views"]
    for argument in (*chosen, "--nojsd", "--depth=16", "--mix_ops=autoaugment"):
        assert not flags.parse([argument]).quick_start


def test_a_request_has_what_the_command_line_says():
    report = flags.parse(["--mode=report", "--workdirs=b,a/c", "--workdir=out"])
    assert (report.workdirs, report.directory) == (("b", "a/c"), Path("out"))
    part = ["--names=fog,snow", "--table=cifar", "--layout=jpeg", "--workers=2", "--shard_index=1"]
    corrupt = flags.parse(["--mode=corrupt", "--corrupted_dir=c", *part, "--shard_count=3"])
    assert corrupt.benchmark == BenchmarkFiles(("fog", "snow"), "cifar", "jpeg", 2, 1, 3)
    train = flags.parse(["--strategy=mirrored", "--cpu_replicas=2"])
    assert train.devices == Devices("mirrored", None, 2)


def test_every_flag_is_declared_once_and_has_help():
    names = [n for record in (Request, Devices, BenchmarkFiles) for n in settings_of(record)]
    names += ["model", "method", *recipes.declarations()]
    assert sorted(names) == sorted(DECLARED)
    for name, setting in DECLARED.items():
        text = setting.help
        assert text[0].isupper(), name
        assert not text.endswith("."), name


def test_a_switch_is_spelled_in_four_ways():
    for name, setting in DECLARED.items():
        if bool not in setting.kinds:
            continue
        owner = setting.owners[-1] if setting.owners else None
        kind = "model" if setting.models else "method"
        dataset = "folder" if name == "skip_bad_examples" else "cifar10"
        base = [f"--dataset={dataset}", *([f"--{kind}={owner}"] if owner else [])]
        spellings = {f"--{name}": True, f"--{name}=true": True}
        spellings |= {f"--no{name}": False, f"--{name}=false": False}
        for spelling, value in spellings.items():
            assert parsed(*base, spelling).settings()[name] is value


def test_a_value_may_follow_as_a_word_of_its_own():
    assert parsed("--epochs", "7", "--frost_dir", "x") == parsed("--epochs=7", "--frost_dir=x")


def test_a_flag_given_with_the_recipes_own_value_counts_as_given():
    assert flags.parse(["--seed=1", "--jsd"]).given == {"seed", "jsd"}


def requested(given):
    return flags.make_request(dict(given), DECLARED)


def value_in(request, name):
    """The value of a setting in the part of a request that has it."""
    if name in ("model", "method"):
        return getattr(request.config, name).name
    for part in (request, request.devices, request.benchmark):
        if name in settings_of(part):
            return getattr(part, name)
    return request.config.settings()[name]


def follow(message, name, given):
    """Changes what was given as a refusal says, to its first suggestion."""
    match = re.match(rf"--{name} applies (to|with) (no )?--(no)?(\w+)(?:=([^ ,]+))?", message)
    assert match, message
    assert "(got " in message
    _, without, off, other, value = match.groups()
    if without:
        del given[other]
        return
    if value is None:
        values = {bool: not off, int: 0, str: "/elsewhere"}
        value = next(value for kind, value in values.items() if kind in DECLARED[other].kinds)
    assert given.get(other) != value, message
    given[other] = value
    if "(with --model_path)" in message:
        given["model_path"] = "model.keras"


def assert_used_or_refused(base, name, config):
    """The setting arrives, or a chain of refusals leads to a command line where it does."""
    given = base | {name: other_value(name, config, DECLARED[name])}
    for _ in range(5):
        try:
            request = requested(given)
        except CommandError as error:
            if not str(error).startswith(f"--{name} "):  # what was chosen before does not fit now
                stray = re.match(r"--(\w+) applies", str(error))[1]
                assert stray in base
                del given[stray]
                continue
            follow(str(error), name, given)
            if name == "depth" and given.get("model"):
                given[name] = other_value(name, recipes.recipe("cifar10", given["model"]))
        else:
            assert value_in(request, name) == given[name]
            return
    raise AssertionError(f"{name}: no end of refusals, {given}")


SETTINGS = [name for name in DECLARED if name not in CHOICES]


@pytest.mark.parametrize(
    ("model", "method"),
    [("wrn", method) for method in recipes.METHODS]
    + [(model, "augmix") for model in recipes.MODELS],
)
def test_a_setting_is_used_or_refused_with_the_choice_that_uses_it(model, method):
    config = recipes.recipe("cifar10", model, method)
    for name in SETTINGS:
        base = {"dataset": "cifar10", "model": model, "method": method}
        assert_used_or_refused(base, name, config)


@pytest.mark.parametrize(
    "base",
    [
        *({"mode": "views", "method": name} for name in recipes.METHODS),
        *({"mode": name} for name in ("corrupt", "report", "config", "evaluate", "export")),
        {"mode": "evaluate", "model_path": "model.keras"},
        {"dataset": "shapes"},
        {"dataset": "folder", "data_dir": "data"},
        {"dataset": "imagenet2012"},
    ],
    ids=str,
)
def test_a_setting_is_used_or_refused_in_every_mode_and_dataset(base):
    for name in SETTINGS:
        if name not in base:
            assert_used_or_refused(base, name, recipes.recipe("cifar10"))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ("--method=standard", "--mixup_alpha=0.3"),
            "--mixup_alpha applies to --method=mixup only (got --method=standard).",
        ),
        (
            ("--model=allconv", "--depth=22"),
            "--depth applies to --model=densenet, resnext or wrn only (got --model=allconv).",
        ),
        (("--alexnet_rates=x",), "applies with --perturbed_dir only (got no --perturbed_dir)."),
        (("--nocorrupted", "--corrupted_dir=x"), "--corrupted_dir cannot be combined"),
        (("--epochs=3", "--warmup_epochs=3"), "--warmup_epochs must be below the 3 epochs"),
    ],
)
def test_a_refusal_says_which_choice_would_use_the_setting(arguments, expected):
    assert expected in refusal(*arguments)


@pytest.fixture
def trained(tmp_path):
    directory = Workdir(tmp_path / "run")
    directory.root.mkdir()
    config = recipes.recipe("cifar10", "allconv", "mixup", given={"mixup_alpha": 0.3})
    directory.config.write_text(config.to_json())
    return directory.root, config


def test_a_run_is_evaluated_with_its_own_configuration(trained):
    root, config = trained
    for mode in ("evaluate", "export"):
        assert parsed(f"--mode={mode}", f"--workdir={root}") == config
    same = ("--method=mixup", "--mixup_alpha=0.3", "--epochs=100", "--data_dir=/x")
    again = parsed("--mode=evaluate", f"--workdir={root}", *same, "--eval_limit=7")
    assert again == dataclasses.replace(config, data_dir="/x", eval_limit=7)


@pytest.mark.parametrize(
    ("mode", "argument", "expected"),
    [
        ("evaluate", "--epochs=3", "trained with --epochs=100; received --epochs=3."),
        ("evaluate", "--mixup_alpha=1", "--mixup_alpha=0.3; received --mixup_alpha=1.0."),
        ("evaluate", "--nonesterov", "with --nesterov; received --nonesterov."),
        ("evaluate", "--depth=16", "--depth applies to --model="),
        ("export", "--eval_limit=7", "with --eval_limit=0; received --eval_limit=7."),
    ],
)
def test_a_run_is_not_evaluated_as_another_one(trained, mode, argument, expected):
    assert expected in refusal(f"--mode={mode}", f"--workdir={trained[0]}", argument)


def test_settings_of_a_run_that_is_missing_are_left_to_its_configuration(tmp_path):
    """The commands report the missing run."""
    for argument in ("--data_dir=x", "--depth=16", "--mixup_alpha=1"):
        request = flags.parse(["--mode=export", f"--workdir={tmp_path}", argument])
        assert (request.mode, request.directory) == ("export", tmp_path)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--data_dir=x",), "(got --dataset=shapes)."),
        (("--workdir=run", "--tpu=x"), "(got --strategy=auto)."),
    ],
)
def test_a_missing_run_decides_no_other_setting(tmp_path, monkeypatch, arguments, expected):
    monkeypatch.chdir(tmp_path)
    assert expected in refusal("--mode=evaluate", *arguments)


def test_an_explicit_benchmark_is_evaluated_even_where_the_run_was_not(trained):
    root, config = trained
    (root / "config.json").write_text(config.replaced({"corrupted": False}).to_json())
    plain = ("--mode=evaluate", f"--workdir={root}")
    assert not parsed(*plain).corrupted
    assert parsed(*plain, "--corrupted_dir=x").corrupted
    assert parsed(*plain, "--frost_dir=x").corrupted


@pytest.mark.parametrize(
    ("argument", "meant"),
    [
        ("--modle=wrn", "--model"),
        ("--learning-rate=0.1", "--learning_rate"),
        ("--nodownlod", "--download"),
        ("--mode=evalute", "evaluate"),
        ("--mix_ops=autoaugmnt", "autoaugment"),
    ],
)
def test_a_wrong_name_is_answered_with_the_nearest(argument, meant):
    text = refusal(argument)
    assert "Did you mean " in text
    assert repr(meant) in text
    wrong = argument.split("=")[0] if meant.startswith("--") else argument.split("=")[1]
    assert repr(wrong) in text
    assert "Did you mean" not in refusal("--xyzzyplugh")


ILLEGAL = """
--epochs=0 --epochs=1.5 --batch_size=x --learning_rate=0 --learning_rate=nan --weight_decay=inf
--aug_severity=11 --mixture_width=0 --mixture_depth=-2 --alpha=0 --jsd_weight=-1 --views=1
--fill=256 --seed=-1 --seed=2147483648 --train_limit=-1 --eval_limit=-1 --jsd=perhaps
--calibration_images=-1
--profile_steps=3 --profile_steps=8,3
"""
ILLEGAL_OF = {
    "--method=autoaugment": "--cutout_size=-1",
    "--method=mixup": "--mixup_alpha=0 --mixup_alpha=nan",
    "--method=cutmix": "--cutmix_alpha=1e7 --cutmix_probability=1.5 --cutmix_probability=-0.5",
    "--method=patch_uniform": "--patch_size=0 --patch_scale=0 --patch_scale=1.5",
    "--method=trivialaugment": "--space=fixed --interpolation=bicubic",
    "--method=randaugment": "--num_ops=0 --magnitude=31",
    "--method=adversarial": "--adversary_epsilon=256 --adversary_step_size=0 --adversary_steps=0",
    "--model=wrn": "--depth=11 --widen_factor=0",
    "--mode=corrupt": "--workers=many --shard_count=1.5 --shard_index=-1",
}


@pytest.mark.parametrize(
    "argument",
    [
        *ILLEGAL.split(),
        *(f"{base} {flag}" for base, text in ILLEGAL_OF.items() for flag in text.split()),
    ],
)
def test_an_illegal_value_is_named(argument):
    *_, last = argument.split()
    name, _, value = last.removeprefix("--").partition("=")
    text = refusal(*argument.split())
    assert value.lstrip("-") in text or str(float(value)) in text
    assert name in text


@pytest.mark.parametrize("name", ["workdir", "corrupted_dir", "data_dir", "stylized_dir"])
def test_the_home_directory_is_found_and_an_empty_path_is_refused(name, monkeypatch):
    monkeypatch.setenv("HOME", "/at/home")
    request = flags.parse(["--dataset=cifar10", f"--{name}=~/x"])
    assert value_in(request, name) == "/at/home/x"
    assert f"--{name} must not be empty" in refusal("--dataset=cifar10", f"--{name}=")
    shifted = parsed("--dataset=folder", "--shift_dirs=~/a,/b c, d").shift_dirs
    assert shifted == "/at/home/a,/b c, d"


def test_an_empty_name_a_missing_value_and_stray_words_are_refused():
    for name in ("dataset", "model", "method", "mode", "precision", "strategy"):
        refusal(f"--{name}=")
    assert "epochs" in refusal("--epochs")
    for arguments in (("train",), ("--epochs=2", "train"), ("--jsd", "false"), ("--", "--jsd")):
        assert repr(arguments[-1]) in refusal(*arguments)


def test_help_shows_every_flag_and_does_not_load_tensorflow():
    result = main_py("--help", python=SHOW_IMPORTS)
    assert result.returncode == 0
    for name, setting in DECLARED.items():
        spelling = f"--[no]{name} " if bool in setting.kinds else f"--{name} "
        assert spelling in result.stdout
    for name, meaning in MODES.items():
        assert name in result.stdout
        assert meaning.split()[0] in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 100
    assert_imports_are_cheap(result.stderr)


def test_help_shows_the_defaults_of_the_paper_and_of_the_quick_start():
    words = " ".join(flags.help_text().split())
    assert "--epochs Passes over the training images (default: 100; quick start: 6)." in words
    assert "(default: densenet 100, resnext 29, wrn 40; quick start: 10)" in words


def test_a_configuration_is_printed_without_running_it():
    result = main_py("--mode=config", "--method=mixup", "--epochs=3", python=SHOW_IMPORTS)
    assert result.returncode == 0
    assert json.loads(result.stdout) == parsed("--method=mixup", "--epochs=3").settings()
    assert_imports_are_cheap(result.stderr)


def test_a_wrong_command_line_ends_with_2_and_one_line_before_tensorflow_loads():
    result = main_py("--modle=wrn", python=SHOW_IMPORTS)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.endswith("Did you mean '--mode' or '--model'?\n")
    assert_imports_are_cheap(result.stderr)
