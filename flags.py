"""The command line: absl flags in groups, and the request that they make together.

Only `main.py` and its test import this. Defaults live in `augmix_tf/presets.py`: a flag that was
not given keeps the recipe's value.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags as absl_flags

from augmix_tf import presets
from augmix_tf.checks import CommandError, lookup, unknown_name
from augmix_tf.config import ExperimentConfig

MODES = {
    "train": "train, evaluate, export and report (default)",
    "evaluate": "evaluate the newest checkpoint of --workdir again",
    "export": "write a new export version from the newest checkpoint of --workdir",
    "views": "draw original and augmented views as a PNG grid",
}
_LATER_MODES = ("corrupt", "report")
_LATER_STRATEGIES = ("mirrored", "multiworker", "tpu")


@dataclasses.dataclass(frozen=True)
class Command:
    """What the user asked for."""

    mode: str
    config: ExperimentConfig
    given: frozenset[str]
    workdir: Path | None
    help: bool = False


def define(values: absl_flags.FlagValues) -> dict[str, list[str]]:
    """Declares all flags on `values` and returns their names by group."""
    groups: dict[str, list[str]] = {}

    def add(group: str, kind: str, name: str, text: str, default: object = None) -> None:
        declare = getattr(absl_flags, f"DEFINE_{kind}")
        declare(name, default, text, flag_values=values, short_name="h" if name == "help" else None)
        groups.setdefault(group, []).append(name)

    modes = "; ".join(f"{name}: {text}" for name, text in MODES.items())
    add("Request", "string", "mode", modes, "train")
    add("Request", "string", "workdir", "Folder of the run; the same folder again resumes it.")
    add("Request", "bool", "help", "Shows this.", False)
    add("Data", "string", "dataset", "shapes (embedded), cifar10, cifar100 or a TFDS name.")
    add("Data", "string", "data_dir", "Where TFDS keeps its data.")
    add("Data", "bool", "download", "Let TFDS download what is missing.")
    add("Data", "integer", "train_limit", "Use only the first n training images (0: all).")
    add("Data", "integer", "eval_limit", "Use only the first n test images (0: all).")
    add(
        "Model", "string", "model", "wrn (40-2), allconv, densenet (BC 100-12), resnext (29, 4x32)."
    )
    add("Model", "integer", "depth", "Layers of wrn, 6 n + 4.")
    add("Model", "integer", "widen_factor", "Width of wrn.")
    add("Method", "string", "method", "augmix or standard.")
    add("Method", "integer", "mixture_width", "Chains that AugMix mixes.")
    add("Method", "integer", "mixture_depth", "Operations in each chain; -1: 1 to 3 at random.")
    add("Method", "float", "aug_severity", "Strength of the operations, 0.1 to 10.")
    add("Method", "float", "alpha", "Of the Dirichlet and Beta distributions of the mix.")
    add("Method", "bool", "all_ops", "Also the four operations that overlap with -C.")
    add("Method", "bool", "jsd", "Consistency loss over clean and augmented views.")
    add("Method", "float", "jsd_weight", "Weight of the consistency loss.")
    add("Method", "integer", "views", "Views of each image, the clean one counted.")
    add("Training", "integer", "epochs", "Passes over the training images.")
    add("Training", "integer", "batch_size", "Images per step, over all devices.")
    add("Training", "float", "learning_rate", "At the start of the cosine.")
    add("Training", "float", "weight_decay", "L2 on all parameters.")
    add("Training", "string", "precision", "float32, mixed_bfloat16 or mixed_float16.")
    add("Training", "integer", "seed", "Everything random follows from it.")
    add("Training", "bool", "deterministic", "The same bytes in each run, at some cost of speed.")
    add("Training", "string", "strategy", "auto or none: one device.", "auto")
    return groups


def parse(arguments: Sequence[str]) -> Command:
    """Turns a command line (without the program's name) into a request.

    Raises:
        CommandError: unknown flags or names (with the nearest), values out of range.
    """
    values = absl_flags.FlagValues()
    define(values)
    try:
        rest = values(["main.py", *arguments])[1:]
    except absl_flags.UnrecognizedFlagError as error:
        raise CommandError(unknown_flag(error.flagname, values)) from error
    except absl_flags.Error as error:
        raise CommandError(str(error)) from error
    if rest:
        raise CommandError(f"want flags only, got {rest[0]!r}")
    if values["help"].value:
        return Command("train", ExperimentConfig(), frozenset(), None, help=True)
    mode = _checked_mode(str(values["mode"].value))
    _check_strategy(str(values["strategy"].value))
    config = apply(values, presets.preset(*_cell(values)))
    settings = {field.name for field in dataclasses.fields(config)}
    given = frozenset(name for name in settings if values[name].present)
    workdir = values["workdir"].value
    return Command(mode, config, given, Path(workdir) if workdir else None)


def apply(values: absl_flags.FlagValues, preset: ExperimentConfig) -> ExperimentConfig:
    """Returns the preset with the flags that were given."""
    names = [field.name for field in dataclasses.fields(preset)]
    given: dict[str, Any] = {n: values[n].value for n in names if values[n].value is not None}
    return dataclasses.replace(preset, **given)


def help_text() -> str:
    """Returns all flags in groups, with what they mean."""
    values = absl_flags.FlagValues()
    lines = ["Trains and evaluates image classifiers with AugMix.", ""]
    lines += ["  python main.py                                   the quick start"]
    lines += ["  python main.py --dataset=cifar100 --model=wrn    a recipe of the paper", ""]
    for group, names in define(values).items():
        lines.append(f"{group}:")
        for name in names:
            flag = values[name]
            default = f" [{flag.default}]" if flag.default not in (None, False) else ""
            lines.append(f"  --{name:<15} {flag.help}{default}")
        lines.append("")
    return "\n".join([*lines, "A flag that is not given keeps the value of the recipe."])


def unknown_flag(name: str, values: absl_flags.FlagValues) -> str:
    """Names the nearest flag, without the list of all (`--help` has it)."""
    return unknown_name("flag", f"--{name}", [f"--{flag}" for flag in values]).split(" Known:")[0]


def _cell(values: absl_flags.FlagValues) -> tuple[str, str, str]:
    default = ExperimentConfig()
    given = (values[name].value for name in ("dataset", "model", "method"))
    standard = (default.dataset, default.model, default.method)
    dataset, model, method = (
        fallback if value is None else value
        for value, fallback in zip(given, standard, strict=True)
    )
    return dataset, model, method


def _checked_mode(mode: str) -> str:
    if mode in _LATER_MODES:
        raise CommandError(f"--mode={mode} is not in this version yet")
    lookup("mode", mode, MODES)
    return mode


def _check_strategy(strategy: str) -> None:
    if strategy in _LATER_STRATEGIES:
        raise CommandError(f"--strategy={strategy} is not in this version yet")
    lookup("strategy", strategy, dict.fromkeys(("auto", "none")))
