"""The command line: absl flags derived from the declared settings, and the request they make.

A flag that is not given keeps the recipe's value (`augmix_tf/recipes.py`). A setting that the
chosen mode, dataset, model or method does not use is refused.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags as absl_flags

from augmix_tf import recipes
from augmix_tf.config import MODES, BenchmarkFiles, Devices, ExperimentConfig, Request
from augmix_tf.data import EMBEDDED
from augmix_tf.errors import CommandError, SettingError, nearest_name
from augmix_tf.settings import (
    GROUPS,
    RUN_MODES,
    Setting,
    check_value,
    settings_of,
    unused_because,
    values_of,
)
from augmix_tf.workdir import Workdir

_RECORDS = (Request, Devices, BenchmarkFiles)
_WIDTH, _INDENT = 100, 28
_DATASETS = {"cifar": "cifar10, cifar100", "tfds": "a TFDS name", "imagenet": "imagenet2012"}


def declarations() -> dict[str, Setting]:
    """Returns every flag by name, in the order of `--help`."""
    choice = {"model": recipes.MODELS, "method": recipes.METHODS}
    modes = {"model": (*RUN_MODES, "evaluate_model"), "method": (*RUN_MODES, "views")}
    declared = {
        name: setting for record in _RECORDS for name, setting in settings_of(record).items()
    }
    for name, names in choice.items():
        declared[name] = Setting(
            f"Training {name}", name.title(), choices=tuple(names), modes=modes[name], kinds=(str,)
        )
    declared |= recipes.declarations()
    return dict(sorted(declared.items(), key=lambda item: GROUPS.index(item[1].group)))


def define(values: absl_flags.FlagValues) -> dict[str, Setting]:
    """Declares all flags on `values` and returns them by name."""
    declared = declarations()
    kinds = {bool: "bool", int: "integer", float: "float", tuple: "list", str: "string"}
    for name, setting in declared.items():
        kind = next(kind for kind in kinds if kind in setting.kinds)
        define_flag = getattr(absl_flags, f"DEFINE_{kinds[kind]}")
        define_flag(name, None, setting.help, flag_values=values)
    absl_flags.DEFINE_bool("help", False, "Show this", flag_values=values, short_name="h")
    return declared


def parse(arguments: Sequence[str]) -> Request | None:
    """Turns a command line (without the program's name) into a request; None for `--help`."""
    values = absl_flags.FlagValues()
    declared = define(values)
    try:
        rest = values(["main.py", *arguments])[1:]
    except absl_flags.UnrecognizedFlagError as error:
        near = nearest_name(f"--{error.flagname}", [f"--{name}" for name in values])
        raise CommandError(f"Unknown flag '--{error.flagname}'.{near}") from error
    except absl_flags.Error as error:
        raise CommandError(str(error)) from error
    if rest:
        raise CommandError(f"Expected flags only; received {rest[0]!r}.")
    if values["help"].value:
        return None
    given = {name: values[name].value for name in declared if values[name].present}
    try:
        return make_request(given, declared)
    except SettingError as error:
        raise CommandError(f"--{error.setting} {error.problem}") from error


def make_request(given: dict[str, Any], declared: Mapping[str, Setting]) -> Request:
    """Returns the request of the settings that were given, by name."""
    for name, value in given.items():
        setting = declared[name]
        value = tuple(value) if isinstance(value, list) else value
        given[name] = _expanded(value) if setting.path else value
        if not setting.owners:  # models and methods check their own
            check_value(name, given[name], setting)
    mode = given.get("mode", "train")
    use = "train" if mode == "config" else mode
    use = "evaluate_model" if use == "evaluate" and "model_path" in given else use
    for name in given:
        modes = declared[name].modes
        if use not in modes:
            raise _stray(name, f"--mode={_listed(modes)}", f"--mode={mode}")
        path = given.get("model_path")
        is_model = name == "model" or bool(declared[name].models)
        if path is not None and is_model and not path.endswith(".safetensors"):
            raise _stray(name, "--model_path=weights.safetensors", f"--model_path={path}")

    def of(record: Any) -> dict[str, Any]:
        return {name: given[name] for name in settings_of(record) if name in given}

    chosen = {"dataset", "model", "method", "recipe", "workdir"} & given.keys()
    request = Request(
        _config(given, use),
        **of(Request),
        devices=Devices(**of(Devices)),
        benchmark=BenchmarkFiles(**of(BenchmarkFiles)),
        given=frozenset(given),
        quick_start=mode == "train" and not chosen and not any(declared[n].owners for n in given),
    )
    run = _run_of(given, use)
    # The commands report a missing run; only its configuration says what it uses.
    undecided = recipes.declarations() if run is not None and not run.config.exists() else {}
    for name in given:
        if name not in undecided:
            _require_used(name, declared[name], request)
    if "frost_dir" in given and use != "corrupt" and request.config.corrupted_dir:
        received = f"--corrupted_dir={request.config.corrupted_dir}"
        raise _stray("frost_dir", "generated corruptions", received)
    return request


def _expanded(paths: Any) -> Any:
    """Replaces `~`, which the shell leaves in `--x=~/y` and behind commas."""
    if isinstance(paths, tuple):
        return tuple(map(os.path.expanduser, paths))
    return ",".join(map(os.path.expanduser, paths.split(",")))


def _config(given: Mapping[str, Any], use: str) -> ExperimentConfig:
    """Returns the configuration of the run to evaluate or export, else a recipe, with changes."""
    changes = {name: given[name] for name in recipes.declarations() if name in given}
    if "corrupted" not in given and given.keys() & {"corrupted_dir", "frost_dir"}:
        changes["corrupted"] = True
    if "cbar" not in given and ("cbar_dir" in given or given.get("corrupted") is False):
        changes["cbar"] = "cbar_dir" in given
    run = _run_of(given, use)
    if run is not None and run.config.exists():
        stored = run.stored_config()
        _require_same_run(stored, given, use)
        return stored.replaced(changes)
    chosen = {name: given[name] for name in ("model", "method") if name in given}
    dataset = given.get("dataset", EMBEDDED)
    large = recipes.dataset_kind(dataset) in ("imagenet", "folder")
    variant = given.get("recipe", "script") if large else "script"  # refused below
    return recipes.recipe(dataset, **chosen, variant=variant, given=changes)


def _run_of(given: Mapping[str, Any], use: str) -> Workdir | None:
    """Returns the directory of the run that is evaluated or exported, or None."""
    in_run = use in ("evaluate", "export") and given.get("workdir")
    return Workdir(given["workdir"]) if in_run else None


def _require_same_run(stored: ExperimentConfig, given: Mapping[str, Any], use: str) -> None:
    """Refuses values of settings that a trained run has and cannot change."""
    values, declared = stored.settings(), stored.declared()
    for name in values.keys() & given.keys():
        resume = declared[name].resume if name in declared else "fixed"
        changeable = resume == "free" or (resume == "evaluation" and use == "evaluate")
        if not changeable and given[name] != values[name]:
            raise CommandError(
                f"The run was trained with {_spelled(name, values[name])}; "
                f"received {_spelled(name, given[name])}."
            )


def _require_used(name: str, flag: Setting, request: Request) -> None:
    """Refuses a setting that the request's model, method, dataset or other settings do not use."""
    if name in ("model", "method"):
        return
    config = request.config
    settings = config.declared() | {n: s for r in _RECORDS for n, s in settings_of(r).items()}
    if name not in settings:
        kind = "model" if flag.models else "method"
        received = f"--{kind}={getattr(config, kind).name}"
        raise _stray(name, f"--{kind}={_listed(flag.owners)}", received)
    declared, kind = settings[name], recipes.dataset_kind(config.dataset)
    if declared.datasets and kind not in declared.datasets:
        datasets = _listed([_DATASETS.get(kind, kind) for kind in declared.datasets])
        raise _stray(name, f"--dataset={datasets}", f"--dataset={config.dataset}")
    values = values_of(request) | values_of(request.devices) | config.settings()
    other = unused_because(declared.needs, values)
    if other is not None:
        needed = _listed([_spelled(other, value) for value in declared.needs[other]])
        received = _spelled(other, values[other])
        raise CommandError(f"--{name} applies with {needed} only (got {received}).")


def _stray(name: str, needed: str, received: str) -> CommandError:
    return CommandError(f"--{name} applies to {needed} only (got {received}).")


def _listed(names: Sequence[str]) -> str:
    """Returns "a, b or c"; the use `evaluate_model` reads as its mode."""
    with_path = {"evaluate_model": "evaluate (with --model_path)"}
    words = [with_path.get(n, n) for n in names if n not in with_path or "evaluate" not in names]
    return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _spelled(name: str, value: Any) -> str:
    """Returns a flag as it is typed."""
    if isinstance(value, bool):
        return f"--{name}" if value else f"--no{name}"
    if value is ...:
        return f"--{name}"
    return f"no --{name}" if value is None else f"--{name}={value}"


def help_text() -> str:
    """Returns all flags in groups, with their meaning and effective defaults."""
    lines = [
        "Trains and evaluates image classifiers with AugMix.",
        "",
        "  python main.py                                   the quick start",
        "  python main.py --dataset=cifar100 --model=wrn    a recipe of the paper",
        "",
        "Defaults are those of the paper's CIFAR-10 recipe for wrn and augmix; --mode=config",
        "prints the configuration of any other command line. In brackets: the models or methods",
        "that use a flag. A switch is turned off with --no: --nojsd, --nodownload.",
    ]
    paper, quick_start = recipes.recipe("cifar10").settings(), recipes.recipe().settings()
    for group, members in itertools.groupby(declarations().items(), lambda item: item[1].group):
        lines += ["", f"{group}:"]
        for name, setting in members:
            lines += _help_lines(name, setting, _default_text(name, setting, paper, quick_start))
    return "\n".join(lines)


def _default_text(
    name: str, setting: Setting, paper: Mapping[str, Any], quick_start: Mapping[str, Any]
) -> str:
    """Returns " (default: ...)" with the value in the paper's CIFAR recipe, or ""."""
    values = {f.name: f.default for r in _RECORDS for f in dataclasses.fields(r)} | {**paper}
    makers = recipes.MODELS if setting.models else {n: r.method for n, r in recipes.METHODS.items()}
    defaults = {owner: getattr(makers[owner](), name) for owner in setting.owners}
    texts = {owner: _plain(value) for owner, value in (defaults or {"": values[name]}).items()}
    default = ", ".join(f"{owner} {text}" for owner, text in texts.items() if text)
    if len(set(texts.values())) == 1:
        default = next(iter(texts.values()))
    quick, usual = (_plain(recipe.get(name, "")) for recipe in (quick_start, paper))
    parts = [f"default: {default}" if default else "", f"quick start: {quick}" * (quick != usual)]
    text = "; ".join(filter(None, parts))
    return f" ({text})" if text else ""


def _plain(value: Any) -> str:
    """Returns a default as text; "" for one that says nothing."""
    if value is None or value == ():
        return ""
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _help_lines(name: str, setting: Setting, default: str) -> list[str]:
    text = setting.help
    if setting.choices and name != "mode":
        text += f": {_listed(setting.choices)}"
    text += default
    if setting.owners:
        text += f" [{', '.join(setting.owners)}]"
    spelling = f"  --[no]{name}" if bool in setting.kinds else f"  --{name}"
    lines = _wrapped(f"{spelling:<{_INDENT - 2}}  {text}.", _INDENT)
    if name == "mode":
        for mode, meaning in MODES.items():
            lines += _wrapped(f"{' ' * _INDENT}{mode:<12}{meaning}", _INDENT + 12)
    return lines


def _wrapped(text: str, indent: int) -> list[str]:
    return textwrap.wrap(text, _WIDTH, subsequent_indent=" " * indent)
