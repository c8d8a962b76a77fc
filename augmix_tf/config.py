"""What an experiment is: a frozen record that checks itself and goes to JSON and back.

The model and the method are records of their own, whose settings are only those they use.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from typing import Any

from augmix_tf.augment.method import Method
from augmix_tf.errors import ArgumentError, SettingError
from augmix_tf.models.blocks import Architecture
from augmix_tf.settings import RUN_MODES, check, setting, settings_of, values_of

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
SCHEDULES = ("cosine", "step", "constant")
EXPORT_FORMATS = ("onnx", "litert")
# ImageNet-C's images are 224 x 224: used as they are, or enlarged and cropped as the authors'
# script does.
IMAGENET_CROPS = ("canonical", "reference")

_DATA_MODES = (*RUN_MODES, "evaluate_model", "corrupt", "views")
_EVALUATION_MODES = ("train", "evaluate", "evaluate_model")
_TRAIN_MODES = ("train",)
# Kinds of datasets, `recipes.dataset_kind`.
_ON_DISK = ("cifar", "tfds", "imagenet", "folder")
_TFDS = ("cifar", "tfds", "imagenet")
_ANY_SIZE = ("tfds", "imagenet", "folder")


def _evaluation(default: Any, help: str, **facts: Any) -> Any:
    """A setting that changes what is measured, not what is trained."""
    facts = {"modes": _EVALUATION_MODES, "resume": "free"} | facts
    return setting(default, help, "Evaluation", **facts)


@dataclasses.dataclass(frozen=True)
class ExperimentConfig:
    """All settings of a run.

    Attributes:
        model: the network, with its own settings.
        method: what training does to the images, with its own settings.
        Others: see the help text of each.

    Raises:
        SettingError: a value out of range, or one that contradicts another.
    """

    model: Architecture
    method: Method
    dataset: str = setting(
        "shapes",
        "Dataset: shapes (embedded), cifar10, cifar100, imagenet2012, another name of TensorFlow "
        "Datasets (TFDS), or folder",
        "Data",
        modes=_DATA_MODES,
        names_run=False,
    )
    data_dir: str | None = setting(
        None,
        "Directory of TFDS data; for --dataset=folder the one with train/<class>/* and "
        "val/<class>/*",
        "Data",
        modes=_DATA_MODES,
        datasets=_ON_DISK,
        resume="free",
        path=True,
        per_worker=True,
    )
    download: bool = setting(
        True,
        "Let TFDS download missing data",
        "Data",
        modes=_DATA_MODES,
        datasets=_TFDS,
        resume="free",
        per_worker=True,
    )
    image_size: int = setting(
        0,
        "Side of the images in pixels, for datasets whose images vary in size",
        "Data",
        low=0,
        modes=_DATA_MODES,
        datasets=_ANY_SIZE,
    )
    train_limit: int = setting(
        0,
        "Use only the first n training images (0: all)",
        "Data",
        low=0,
        modes=(*RUN_MODES, "views"),
    )
    eval_limit: int = setting(
        0,
        "Use only the first n test images (0: all)",
        "Data",
        low=0,
        modes=(*RUN_MODES, "evaluate_model", "corrupt"),
        resume="evaluation",
        names_run=False,
    )
    calibration_images: int = setting(
        0, "Training images held out for temperature scaling", "Data", low=0
    )
    stylized_dir: str | None = setting(
        None,
        "Directory of stylized images by class, to train on as well (SIN)",
        "Data",
        path=True,
    )
    skip_bad_examples: bool = setting(
        False,
        "Leave out training images that cannot be read",
        "Data",
        modes=(*RUN_MODES, "views"),
        datasets=_ON_DISK,
    )
    epochs: int = setting(100, "Passes over the training images", "Training", low=1)
    batch_size: int = setting(128, "Images per step, over all devices", "Training", low=1)
    learning_rate: float = setting(0.1, "Peak learning rate", "Training", above=0)
    schedule: str = setting("cosine", "Learning-rate schedule", "Training", choices=SCHEDULES)
    warmup_epochs: int = setting(
        0,
        "Epochs of linear learning-rate warm-up",
        "Training",
        low=0,
        needs={"schedule": ("cosine", "step")},
    )
    nesterov: bool = setting(True, "Nesterov momentum", "Training")
    weight_decay: float = setting(5e-4, "L2 penalty on all parameters", "Training", low=0)
    precision: str = setting(
        "float32", "Floating-point policy of Keras", "Training", choices=PRECISIONS
    )
    seed: int = setting(
        1,
        "Seed of every random choice",
        "Training",
        low=0,
        high=2**31 - 1,
        modes=(*RUN_MODES, "corrupt", "views"),
        names_run=False,
    )
    deterministic: bool = setting(
        False,
        "Produce the same bytes in each run, at some cost of speed",
        "Training",
        names_run=False,
    )
    checkpoint_steps: int = setting(
        0,
        "Steps between checkpoints within an epoch (0: only at its end)",
        "Training",
        low=0,
        modes=_TRAIN_MODES,
        resume="free",
    )
    profile_steps: str | None = setting(
        None,
        "FIRST,LAST: steps to profile for TensorBoard, counted from 1",
        "Training",
        modes=_TRAIN_MODES,
        resume="free",
        per_worker=True,
    )
    export_format: str | None = setting(
        None,
        "Also export for another runtime",
        "Training",
        choices=EXPORT_FORMATS,
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
        modes=(*_EVALUATION_MODES, "corrupt"),
        path=True,
    )
    imagenet_crop: str = _evaluation(
        "canonical",
        "ImageNet-C images as they are (canonical) or enlarged and cropped as by the authors' "
        "script (reference)",
        choices=IMAGENET_CROPS,
        needs={"corrupted_dir": (...,)},
        datasets=_ANY_SIZE,
    )
    perturbed_dir: str | None = _evaluation(
        None,
        "Directory of a -P benchmark, official or from --mode=corrupt",
        modes=(*_EVALUATION_MODES, "corrupt"),
        path=True,
    )
    shift_dirs: str | None = _evaluation(
        None,
        "Directories of other test images by class, such as ImageNet-R, -A, -V2, -Sketch",
        path=True,
        datasets=_ANY_SIZE,
    )
    frost_dir: str | None = _evaluation(
        None,
        "Directory of the frost photographs of the original code, for generated corruptions",
        modes=(*_EVALUATION_MODES, "corrupt"),
        needs={"corrupted": (True,)},
        path=True,
    )
    alexnet_rates: str | None = _evaluation(
        None,
        "JSON file of AlexNet's rates on ImageNet-P",
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

    @property
    def large(self) -> bool:
        """Whether images vary in size like ImageNet's and are cropped and normalized like them."""
        return self.image_size > 0

    def settings(self) -> dict[str, Any]:
        """Returns all settings by name, those of model and method included."""
        values = values_of(self) | {"model": self.model.name} | values_of(self.model)
        return values | {"method": self.method.name} | values_of(self.method)

    def to_json(self) -> str:
        """Returns the settings as JSON, one on each line."""
        return json.dumps(self.settings(), indent=2) + "\n"

    def replaced(self, values: Mapping[str, Any]) -> ExperimentConfig:
        """Returns the record with other values of settings of its own, its model or its method."""

        def changed(record: Any, **parts: Any) -> Any:
            own = {name: values[name] for name in settings_of(record) if name in values}
            return dataclasses.replace(record, **own, **parts)

        return changed(self, model=changed(self.model), method=changed(self.method))

    def declared(self) -> dict[str, Any]:
        """Returns name -> `Setting` of everything that `settings` returns except the two names."""
        return settings_of(self) | settings_of(self.model) | settings_of(self.method)

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
        declared, values = self.declared(), self.settings()
        shared = {
            n: v for n, v in values.items() if n not in declared or not declared[n].per_worker
        }
        paths = (name for name in shared if name in declared and declared[name].path)
        return json.dumps(shared | {name: shared[name] is not None for name in paths})

    def differences(self, other: ExperimentConfig) -> list[str]:
        """Names the settings, with both values, in which a run under `other` would differ."""
        mine, theirs = json.loads(self.identity()), json.loads(other.identity())
        names = dict.fromkeys([*mine, *theirs])
        return [
            f"{name} {mine.get(name)!r} -> {theirs.get(name)!r}"
            for name in names
            if mine.get(name) != theirs.get(name)
        ]


def parse_steps(steps: str | None) -> tuple[int, int] | None:
    """Returns the first and last step of a text such as "10,20"; None for None.

    Raises:
        SettingError: not two integers from 1 on, the first at most the last.
    """
    if steps is None:
        return None
    first, _, last = steps.partition(",")
    numbers = all(re.fullmatch("[0-9]{1,9}", step) for step in (first, last))
    if not (numbers and 1 <= int(first) <= int(last)):
        problem = f"must be FIRST,LAST, two steps of the run counted from 1; received {steps!r}."
        raise SettingError("profile_steps", problem)
    return int(first), int(last)


def parse_json(text: str) -> dict[str, Any]:
    """Returns the settings in the text of a `config.json`.

    Raises:
        ArgumentError: not a JSON object.
    """
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise ArgumentError(f"The configuration is not JSON: {error}.") from error
    if not isinstance(values, dict):
        raise ArgumentError(
            f"The configuration must be a JSON object; received {type(values).__name__}."
        )
    return values
