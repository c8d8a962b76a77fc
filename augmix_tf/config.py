"""What an experiment and a command line are: frozen records that check themselves.

The model and the method are records of their own, whose settings are only those they use.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from augmix_tf.augment.method import Method
from augmix_tf.errors import SettingError
from augmix_tf.models.blocks import Architecture
from augmix_tf.settings import RUN_MODES, USES, Setting, check, setting, settings_of, values_of

MODES = {
    "train": "train, evaluate, export and report",
    "evaluate": "evaluate the newest checkpoint of --workdir again, or the model at --model_path",
    "export": "write a new export version from the newest checkpoint of --workdir",
    "corrupt": "write the test images' -C benchmark to --corrupted_dir, C-bar to --cbar_dir, -P to "
    "--perturbed_dir",
    "report": "compare the runs in --workdirs in tables and plots",
    "views": "draw training images and their augmented views as a PNG grid",
    "config": "print the full configuration of this command line as JSON",
}
TABLES = ("cifar", "imagenet")

_EVALUATION_MODES = ("train", "evaluate", "evaluate_model")
_WITH_CORRUPT = (*_EVALUATION_MODES, "corrupt")
_WITH_VIEWS = (*RUN_MODES, "views")
# Kinds of datasets (`recipes.dataset_kind`).
_TFDS = ("cifar", "tfds", "imagenet")
_ANY_SIZE = ("tfds", "imagenet", "folder")

_data = functools.partial(
    setting, group="Data", modes=(*RUN_MODES, "evaluate_model", "corrupt", "views")
)
_training = functools.partial(setting, group="Training")
# These change what is measured, not what is trained.
_evaluation = functools.partial(setting, group="Evaluation", modes=_EVALUATION_MODES, resume="free")


_request = functools.partial(setting, group="Request")
_devices = functools.partial(setting, group="Devices", modes=("train", "evaluate"))
_benchmark = functools.partial(setting, group="Benchmarks", modes=("corrupt",))


@dataclasses.dataclass(frozen=True)
class ExperimentConfig:
    """All settings of a run; `SettingError` for a value out of range or in contradiction."""

    model: Architecture
    method: Method
    dataset: str = _data(
        "shapes",
        "Dataset: shapes (embedded), cifar10, cifar100, imagenet2012, another name of TensorFlow "
        "Datasets (TFDS), or folder",
        names_run=False,
    )
    data_dir: str | None = _data(
        None,
        "Directory of TFDS data; for --dataset=folder the one with train/<class>/* and "
        "val/<class>/*",
        datasets=(*_TFDS, "folder"),
        resume="free",
        path=True,
        per_worker=True,
    )
    download: bool = _data(
        True, "Let TFDS download missing data", datasets=_TFDS, resume="free", per_worker=True
    )
    image_size: int = _data(
        0,
        "Side of the images in pixels, for datasets whose images vary in size",
        low=0,
        datasets=_ANY_SIZE,
    )
    train_limit: int = _data(
        0, "Use only the first n training images (0: all)", low=0, modes=_WITH_VIEWS
    )
    eval_limit: int = _data(
        0,
        "Use only the first n test images (0: all)",
        low=0,
        modes=(*RUN_MODES, "evaluate_model", "corrupt"),
        resume="evaluation",
        names_run=False,
    )
    calibration_images: int = _data(
        0, "Training images held out for temperature scaling", low=0, modes=RUN_MODES
    )
    stylized_dir: str | None = _data(
        None,
        "Directory of stylized images by class, to train on as well (SIN)",
        modes=RUN_MODES,
        path=True,
    )
    skip_bad_examples: bool = _data(
        False,
        "Leave out training images that cannot be read",
        modes=_WITH_VIEWS,
        datasets=("folder",),
    )
    epochs: int = _training(100, "Passes over the training images", low=1)
    batch_size: int = _training(128, "Images per step, over all devices", low=1)
    learning_rate: float = _training(0.1, "Peak learning rate", above=0)
    schedule: str = _training(
        "cosine", "Learning-rate schedule", choices=("cosine", "step", "constant")
    )
    warmup_epochs: int = _training(
        0, "Epochs of linear learning-rate warm-up", low=0, needs={"schedule": ("cosine", "step")}
    )
    nesterov: bool = _training(True, "Nesterov momentum")
    weight_decay: float = _training(5e-4, "L2 penalty on all parameters", low=0)
    precision: str = _training(
        "float32",
        "Floating-point policy of Keras; auto is mixed_bfloat16 where the devices have "
        "instructions for it and float32 elsewhere",
        choices=("float32", "mixed_bfloat16", "mixed_float16", "auto"),
    )
    seed: int = _training(
        1,
        "Seed of every random choice",
        low=0,
        high=2**31 - 1,
        modes=(*RUN_MODES, "corrupt", "views"),
        names_run=False,
    )
    deterministic: bool = _training(
        False, "Produce the same bytes in each run, at some cost of speed", names_run=False
    )
    checkpoint_steps: int = _training(
        0,
        "Steps between checkpoints within an epoch (0: only at its end)",
        low=0,
        modes=("train",),
        resume="free",
    )
    profile_steps: str | None = _training(
        None,
        "FIRST,LAST: steps to profile for TensorBoard, counted from 1",
        modes=("train",),
        resume="free",
        per_worker=True,
    )
    export_format: str | None = _training(
        None,
        "Also export for another runtime",
        choices=("onnx", "litert"),
        modes=("train", "export"),
        resume="free",
        per_worker=True,
    )
    corrupted: bool = _evaluation(
        True, "Evaluate on corrupted test images, generated unless --corrupted_dir is given"
    )
    corrupted_dir: str | None = _evaluation(
        None,
        "Directory of a -C benchmark, official or from --mode=corrupt; an explicit directory "
        "implies --corrupted",
        modes=_WITH_CORRUPT,
        path=True,
    )
    imagenet_crop: str = _evaluation(
        "canonical",
        "ImageNet-C images as they are (canonical) or enlarged and cropped as by the authors' "
        "script (reference)",
        choices=("canonical", "reference"),
        needs={"corrupted_dir": (...,)},
        datasets=_ANY_SIZE,
    )
    cbar: bool = _evaluation(
        False, "Evaluate on C-bar as well, generated unless --cbar_dir is given"
    )
    cbar_dir: str | None = _evaluation(
        None,
        "Directory of a C-bar benchmark, official or from --mode=corrupt; an explicit directory "
        "implies --cbar",
        modes=_WITH_CORRUPT,
        path=True,
    )
    adapt_bn: int | None = _evaluation(
        None,
        "Evaluate clean and corrupted images a second time, with batch normalization adapted to "
        "each batch of them: the prior strength in images, 0 for the statistics of the batch alone",
        low=0,
    )
    adapt_batch: int = _evaluation(
        200, "Images per batch of --adapt_bn, 16 or more", low=1, needs={"adapt_bn": (...,)}
    )
    perturbed_dir: str | None = _evaluation(
        None,
        "Directory of a -P benchmark, official or from --mode=corrupt",
        modes=_WITH_CORRUPT,
        path=True,
    )
    shift_dirs: str | None = _evaluation(
        None,
        "Other test images: directories by class, such as ImageNet-R, -A, -V2, -Sketch; files "
        "<set>_data.npy (and <set>_labels.npy) or .npz, such as CIFAR-10.1 and 10.2; names of "
        "prepared TFDS sets",
        path=True,
        datasets=_ANY_SIZE,
    )
    frost_dir: str | None = _evaluation(
        None,
        "Directory of the frost photographs of the original code, for generated corruptions",
        modes=_WITH_CORRUPT,
        needs={"corrupted": (True,)},
        path=True,
    )
    alexnet_rates: str | None = _evaluation(
        None,
        "JSON file of rates on ImageNet-P that replace AlexNet's published ones",
        needs={"perturbed_dir": (...,)},
        path=True,
    )

    def __post_init__(self) -> None:
        check(self)
        if self.warmup_epochs >= self.epochs:
            raise SettingError(
                "warmup_epochs",
                f"must be below the {self.epochs} epochs; received {self.warmup_epochs}.",
            )
        parse_steps(self.profile_steps)
        if self.corrupted_dir is not None and not self.corrupted:
            raise SettingError("corrupted_dir", "cannot be combined with corrupted=False.")
        if self.cbar_dir is not None and not self.cbar:
            raise SettingError("cbar_dir", "cannot be combined with cbar=False.")

    @property
    def large(self) -> bool:
        """Whether images vary in size like ImageNet's and are cropped and normalized like them."""
        return self.image_size > 0

    def settings(self) -> dict[str, Any]:
        """Returns all settings by name, those of model and method included."""
        values = values_of(self) | {"model": self.model.name} | values_of(self.model)
        return values | {"method": self.method.name} | values_of(self.method)

    def declared(self) -> dict[str, Setting]:
        """Returns name -> `Setting` of everything that `settings` returns except the two names."""
        return settings_of(self) | settings_of(self.model) | settings_of(self.method)

    def to_json(self) -> str:
        """Returns the settings as JSON, one on each line."""
        return json.dumps(self.settings(), indent=2) + "\n"

    def replaced(self, values: Mapping[str, Any]) -> ExperimentConfig:
        """Returns the record with other values of settings of its own, its model or its method."""

        def changed(record: Any, **parts: Any) -> Any:
            changes = {name: values[name] for name in settings_of(record) if name in values}
            return dataclasses.replace(record, **changes, **parts)

        return changed(self, model=changed(self.model), method=changed(self.method))

    def identifying(self) -> dict[str, Any]:
        """Returns the settings that make this run different from others, by name."""
        free = {name for name, declared in self.declared().items() if declared.resume == "free"}
        return {name: value for name, value in self.settings().items() if name not in free}

    def identity(self) -> str:
        """Returns what makes this run different from others, as text."""
        return json.dumps(self.identifying())

    def shared_by_workers(self) -> str:
        """Returns what workers that train together must agree on, as text.

        Paths may differ between machines; whether they are given must not.
        """
        shared = self.settings()
        for name, declared in self.declared().items():
            if declared.per_worker:
                del shared[name]
            elif declared.path:
                shared[name] = shared[name] is not None
        return json.dumps(shared)

    def differences(self, other: ExperimentConfig) -> list[str]:
        """Names the settings, with both values, in which a run under `other` would differ."""
        ours, theirs = self.identifying(), other.identifying()
        return [
            f"{name} {ours.get(name)!r} -> {theirs.get(name)!r}"
            for name in dict.fromkeys([*ours, *theirs])
            if ours.get(name) != theirs.get(name)
        ]


def parse_steps(steps: str | None) -> tuple[int, int] | None:
    """Returns the first and last step of a text such as "10,20"; None for None."""
    if steps is None:
        return None
    match = re.fullmatch("([0-9]{1,9}),([0-9]{1,9})", steps)
    first, last = map(int, match.groups()) if match else (0, 0)
    if not 1 <= first <= last:
        problem = f"must be FIRST,LAST, two steps of the run counted from 1; received {steps!r}."
        raise SettingError("profile_steps", problem)
    return first, last


@dataclasses.dataclass(frozen=True)
class Devices:
    """Which devices train and evaluate."""

    strategy: str = _devices(
        "auto",
        "Strategy of tf.distribute",
        choices=("auto", "none", "mirrored", "multiworker", "tpu"),
    )
    tpu: str | None = _devices(None, "Name or address of the TPU", needs={"strategy": ("tpu",)})
    cpu_replicas: int = _devices(
        0,
        "Replicas on the processor, to try a strategy without GPUs",
        low=0,
        needs={"strategy": ("mirrored",)},
    )

    def __post_init__(self) -> None:
        check(self)


@dataclasses.dataclass(frozen=True)
class BenchmarkFiles:
    """Which part of a -C, C-bar or -P benchmark `--mode=corrupt` writes, and how."""

    names: tuple[str, ...] = _benchmark((), "Write only these corruptions or perturbations")
    table: str | None = _benchmark(
        None, "Severities to write (default: by image size)", choices=TABLES
    )
    layout: str = _benchmark(
        "npy",
        "Files of a -C or C-bar benchmark: npy as CIFAR-10-C, jpeg as ImageNet-C (a tenth of the "
        "bytes)",
        choices=("npy", "jpeg"),
    )
    workers: int | None = _benchmark(None, "Processes that write (default: one per core)", low=1)
    shard_index: int = _benchmark(0, "Write each shard_count-th corruption, from this one", low=0)
    shard_count: int = _benchmark(1, "Number of shards", low=1)

    def __post_init__(self) -> None:
        check(self)


@dataclasses.dataclass(frozen=True)
class Request:
    """A command line."""

    config: ExperimentConfig  # of `evaluate` and `export`, that of the run
    mode: str = _request("train", "What to do", choices=tuple(MODES), modes=USES)
    workdir: str | None = _request(
        None,
        "Run directory, or directory of what the mode writes; running again resumes it",
        modes=tuple(use for use in USES if use != "corrupt"),
        path=True,
    )
    workdirs: tuple[str, ...] = _request(
        (), "Run directories or patterns that a report compares", modes=("report",), path=True
    )
    model_path: str | None = _request(
        None,
        "Evaluate this .keras file or SavedModel directory, or the weights of --model in a "
        ".safetensors file",
        modes=("evaluate_model",),
        path=True,
    )
    recipe: str = _request(
        "script",
        "ImageNet recipe: the authors' script, or as their released weights were trained",
        choices=("script", "released"),
        modes=("train", "views"),
        datasets=("imagenet", "folder"),
    )
    devices: Devices = Devices()
    benchmark: BenchmarkFiles = BenchmarkFiles()
    given: frozenset[str] = frozenset()  # settings that the command line has
    quick_start: bool = False  # compare standard and AugMix on the embedded dataset

    def __post_init__(self) -> None:
        check(self)

    @property
    def directory(self) -> Path | None:
        """`workdir` as a path."""
        return Path(self.workdir) if self.workdir else None
