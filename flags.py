"""The command line: absl flags in groups, and the request that they make together.

Only `main.py` and its test import this. Defaults live in `augmix_tf/presets.py`: a flag that was
not given keeps the recipe's value.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from absl import flags as absl_flags

from augmix_tf import presets
from augmix_tf.checks import CommandError, lookup, require, unknown_name
from augmix_tf.config import EXPORT_FORMATS, IMAGENET_CROPS, MIX_OPS, SCHEDULES, ExperimentConfig
from augmix_tf.request import STRATEGIES, Command, DeviceRequest, SetRequest

MODES = {
    "train": "train, evaluate, export and report (default)",
    "evaluate": "evaluate the newest checkpoint of --workdir again",
    "export": "write a new export version from the newest checkpoint of --workdir",
    "corrupt": "write the test images' -C set to --corrupted_dir, -P set to --perturbed_dir",
    "report": "compare the runs of --workdirs in tables and plots",
    "views": "draw original and augmented views as a PNG grid",
}
Add: TypeAlias = Callable[..., None]
_CELL = ("dataset", "model", "method")
# Settings that say nothing about model or method: the quick start may have them.
_OF_BOTH = {"epochs", "batch_size", "learning_rate", "weight_decay", "precision", "seed"}
_OF_BOTH |= {"schedule", "checkpoint_steps", "deterministic", "train_limit", "eval_limit"}
_OF_BOTH |= {"calibration_images", "corrupted", "frost_dir", "profile_steps"}
_PATHS = {"data_dir", "stylized_dir", "corrupted_dir", "perturbed_dir", "frost_dir"}
_PATHS |= {"alexnet_rates"}
_DEVICES = [field.name for field in dataclasses.fields(DeviceRequest)]
_PART = [field.name for field in dataclasses.fields(SetRequest)]
# Flags that only some modes look at.
_ONLY: dict[str, tuple[str, ...]] = {"workdirs": ("report",), "model_path": ("evaluate",)}
_ONLY["export_format"] = ("train", "export")
_ONLY |= dict.fromkeys(_PART, ("corrupt",)) | dict.fromkeys(_DEVICES, ("train", "evaluate"))


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
    add("Request", "list", "workdirs", "Folders of the runs that a report compares.", [])
    add("Request", "string", "model_path", "Evaluate this .keras file or SavedModel folder.")
    formats = "Export for another runtime as well: " + ", ".join(EXPORT_FORMATS) + "."
    add("Request", "string", "export_format", formats)
    add("Request", "bool", "help", "Shows this.", False)
    _define_data(add)
    _define_model_and_method(add)
    recipe = "Of ImageNet: " + ", ".join(presets.RECIPES) + " (how the authors' weights were made)."
    add("Training", "string", "recipe", recipe, "script")
    add("Training", "integer", "epochs", "Passes over the training images.")
    add("Training", "integer", "batch_size", "Images per step, over all devices.")
    add("Training", "float", "learning_rate", "At the start.")
    add("Training", "string", "schedule", "Of the learning rate: " + ", ".join(SCHEDULES) + ".")
    add("Training", "integer", "warmup_epochs", "In which the learning rate rises.")
    add("Training", "bool", "nesterov", "Momentum that looks one step ahead.")
    add("Training", "float", "weight_decay", "L2 on all parameters.")
    add("Training", "string", "precision", "float32, mixed_bfloat16 or mixed_float16.")
    add("Training", "integer", "seed", "Everything random follows from it.")
    add("Training", "bool", "deterministic", "The same bytes in each run, at some cost of speed.")
    often = "Steps between checkpoints within an epoch (0: only at its end)."
    add("Training", "integer", "checkpoint_steps", often)
    add("Training", "string", "profile_steps", "FIRST,LAST: profile these steps for TensorBoard.")
    _define_devices(add)
    _define_robustness(add)
    return groups


def _define_data(add: Add) -> None:
    names = "shapes (embedded), cifar10, cifar100, imagenet2012, another TFDS name, or folder."
    add("Data", "string", "dataset", names)
    place = "Where TFDS keeps its data; of --dataset=folder: train/<class>/*, val/<class>/*."
    add("Data", "string", "data_dir", place)
    side = "Side of the pictures, where the data's have any size (ImageNet: 224)."
    add("Data", "integer", "image_size", side)
    add("Data", "bool", "download", "Let TFDS download what is missing.")
    add("Data", "integer", "train_limit", "Use only the first n training images (0: all).")
    add("Data", "integer", "eval_limit", "Use only the first n test images (0: all).")
    add("Data", "integer", "calibration_images", "Training images held out for the temperature.")
    add("Data", "string", "stylized_dir", "Stylised pictures by class, trained on as well (SIN).")
    broken = "Leave out images and records that cannot be read."
    add("Data", "bool", "skip_bad_examples", broken)


def _define_model_and_method(add: Add) -> None:
    models = "wrn (40-2), allconv, densenet (BC 100-12), resnext (29, 4x32), resnet50."
    add("Model", "string", "model", models)
    add("Model", "integer", "depth", "Layers of wrn or densenet, 6 n + 4.")
    add("Model", "integer", "widen_factor", "Width of wrn.")
    add("Model", "float", "width_multiplier", "Width of resnet50, as a share of its own.")
    add("Model", "bool", "max_blur_pool", "Blurred down-sampling in resnet50.")
    add("Method", "string", "method", ", ".join(presets.METHODS) + ".")
    add("Method", "integer", "mixture_width", "Chains that AugMix mixes.")
    add("Method", "integer", "mixture_depth", "Operations in each chain; -1: 1 to 3 at random.")
    add("Method", "float", "aug_severity", "Strength of the operations, 0.1 to 10.")
    add("Method", "float", "alpha", "Of the Dirichlet and Beta distributions of the mix.")
    add("Method", "bool", "all_ops", "Also the four operations that overlap with -C.")
    add("Method", "integer", "fill", "Value of pixels that move in (unset: 0, of AutoAugment 128).")
    add("Method", "bool", "jsd", "Consistency loss over clean and augmented views.")
    add("Method", "float", "jsd_weight", "Weight of the consistency loss.")
    add("Method", "integer", "views", "Views of each image, the clean one counted.")
    add("Method", "string", "mix_ops", "What makes the other views: " + ", ".join(MIX_OPS) + ".")
    add("Method", "bool", "split_bn", "Batch normalisation of its own for each view.")
    add("Method", "integer", "cutout_size", "Side of the square, in pixels (0: none).")
    add("Method", "float", "mixup_alpha", "Of the Beta distribution of mixup's share.")
    add("Method", "float", "cutmix_alpha", "Of the Beta distribution of CutMix's share.")
    add("Method", "float", "cutmix_probability", "Share of the batches that CutMix mixes.")
    add("Method", "integer", "patch_size", "Side of patch_uniform's square, in pixels.")
    add("Method", "float", "patch_scale", "Its strongest noise, as a share of 255.")
    add("Method", "float", "adversary_epsilon", "Largest change of a value, of 255.")
    add("Method", "float", "adversary_step_size", "Change in one step, of 255.")
    add("Method", "integer", "adversary_steps", "Steps of the attack.")


def _define_devices(add: Add) -> None:
    add("Devices", "string", "strategy", ", ".join(STRATEGIES) + ".", "auto")
    add("Devices", "string", "tpu", "Name or address of the TPU.")
    add("Devices", "integer", "cpu_replicas", "Replicas on a processor, to try a strategy.", 0)


def _define_robustness(add: Add) -> None:
    group = "Robustness"
    add(group, "bool", "corrupted", "Evaluate on corrupted test images; made where none are given.")
    add(group, "string", "corrupted_dir", "A -C set: official or from --mode=corrupt.")
    cut = "Of ImageNet-C's pictures: " + ", ".join(IMAGENET_CROPS) + " (the authors' script)."
    add(group, "string", "imagenet_crop", cut)
    others = "Folders of other test pictures by class: ImageNet-R, -A, -V2, -Sketch."
    add(group, "string", "shift_dirs", others)
    add(group, "string", "perturbed_dir", "A -P set: official or from --mode=corrupt.")
    add(group, "string", "frost_dir", "The photographs for frost of the authors' code.")
    add(group, "string", "alexnet_rates", "AlexNet's rates on ImageNet-P, as JSON.")
    add(group, "list", "names", "Only these corruptions or perturbations are written.", [])
    add(group, "string", "table", "Severities to write: cifar or imagenet (default: by size).")
    layout = "Of a -C set: npy (as CIFAR-10-C) or jpeg (as ImageNet-C, a tenth of the bytes)."
    add(group, "string", "layout", layout, "npy")
    add(group, "integer", "workers", "Processes that write (default: one a core).")
    add(group, "integer", "shard_index", "Write every shard_count-th part, from this one on.", 0)
    add(group, "integer", "shard_count", "Number of shards.", 1)


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
        return Command("train", ExperimentConfig(), help=True)
    lookup("mode", str(values["mode"].value), MODES)
    config = apply(values, presets.preset(*_cell(values), str(values["recipe"].value)))
    settings = {field.name for field in dataclasses.fields(config)}
    given = frozenset(name for name in settings if values[name].present)
    cut = config.corrupted_dir is not None or "imagenet_crop" not in given
    require(cut, "--corrupted_dir for --imagenet_crop", "none")
    measured = config.corrupted or "corrupted_dir" not in given
    require(measured, "--corrupted for --corrupted_dir", "--nocorrupted")
    mode, workdir, model = (values[name].value for name in ("mode", "workdir", "model_path"))
    for name, only in _ONLY.items():
        if values[name].present and mode not in only:
            modes = " and ".join(f"--mode={name}" for name in only)
            raise CommandError(f"--{name} is for {modes}, got --mode={mode}")
    for name in ("workdir", "model_path", "shift_dirs", *_PATHS):
        require(values[name].value != "", f"a path as --{name}", "none")
    part: dict[str, Any] = {name: values[name].value for name in _PART}
    devices: dict[str, Any] = {name: values[name].value for name in _DEVICES}
    return Command(
        str(mode),
        config,
        given,
        workdir=Path(workdir).expanduser() if workdir else None,
        workdirs=tuple(Path(place).expanduser() for place in values["workdirs"].value or ()),
        model_path=Path(model).expanduser() if model else None,
        part=SetRequest(**part | {"names": tuple(part["names"])}),
        devices=DeviceRequest(**devices),
        # Nothing chosen: show what AugMix is for.
        quick_start=mode == "train" and not workdir and given <= _OF_BOTH,
    )


def apply(values: absl_flags.FlagValues, preset: ExperimentConfig) -> ExperimentConfig:
    """Returns the preset with the flags that were given, and with what follows from them."""
    names = [field.name for field in dataclasses.fields(preset)]
    given: dict[str, Any] = {n: values[n].value for n in names if values[n].value is not None}
    for name in _PATHS & set(given):
        given[name] = str(Path(given[name]).expanduser())  # the shell leaves --x=~/y as it is
    return dataclasses.replace(presets.fitted(preset, given), **given)


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
    lines += ["A flag that is not given keeps the value of the recipe; config.json has all values."]
    return "\n".join([*lines, "A switch is turned off with --no: --nojsd, --nodownload."])


def unknown_flag(name: str, values: absl_flags.FlagValues) -> str:
    """Names the nearest flag, without the list of all (`--help` has it)."""
    return unknown_name("flag", f"--{name}", [f"--{flag}" for flag in values]).split(" Known:")[0]


def _cell(values: absl_flags.FlagValues) -> tuple[str, str | None, str]:
    default = ExperimentConfig()
    dataset, model, method = (values[name].value for name in _CELL)
    dataset = default.dataset if dataset is None else dataset
    return dataset, model, default.method if method is None else method
