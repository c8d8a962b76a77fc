"""The recipe of each dataset, model and method: the settings of a run when no flag says otherwise.

A recipe starts from the defaults of the config, the model and the method. The tables below hold
what differs; `augmix_tf.methods` has those of the methods.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from augmix_tf.config import ExperimentConfig
from augmix_tf.data import EMBEDDED, FOLDER, IMAGENET
from augmix_tf.errors import ArgumentError, lookup, require, unknown_name
from augmix_tf.methods import METHODS
from augmix_tf.models import MODELS
from augmix_tf.settings import Setting, settings_of

# Kind of dataset -> settings. ImageNet's are those of the authors' imagenet.py; as remembered, the
# paper's own runs had five epochs of warm-up, and those of AutoAugment and AugMix took 180 epochs.
DATASETS: dict[str, dict[str, Any]] = {
    # A small network, to show the whole program in minutes on two processor cores.
    "shapes": {
        "epochs": 6,
        "batch_size": 64,
        "eval_limit": 500,
        "calibration_images": 256,
        "precision": "auto",
    },
    # The authors' cifar.py: SGD with Nesterov momentum 0.9, cosine decay in each step.
    "cifar": {},
    "imagenet": {
        "image_size": 224,
        "epochs": 90,
        "batch_size": 256,
        "schedule": "step",
        "nesterov": False,
        "weight_decay": 1e-4,
        "aug_severity": 1.0,
        "policy": "imagenet",
    },
}

# `--recipe` of ImageNet. "released" is how the authors made their published weights, as far as is
# known (google-research/augmix, issue 3). Not verified: the cosine, its warm-up, batch 256 and the
# mixture width. A reproduction with these reached 22.2 % clean error and mCE 64.1
# (alibaba/easyrobust); the published weights have 22.5 % and 65.3.
_RELEASED = {"epochs": 180, "nesterov": True, "schedule": "cosine", "warmup_epochs": 5, "fill": 128}
IMAGENET_RECIPES: dict[str, dict[str, Any]] = {"script": {}, "released": _RELEASED}

# (kind of dataset, model) -> settings.
MODEL_RECIPES: dict[tuple[str, str], dict[str, Any]] = {
    ("cifar", "densenet"): {"epochs": 200, "weight_decay": 1e-4},
    ("cifar", "resnext"): {"epochs": 200},
    ("shapes", "densenet"): {"weight_decay": 1e-4},
    ("shapes", "wrn"): {"depth": 10, "widen_factor": 1},
}


def dataset_kind(dataset: str) -> str:
    """Returns "shapes", "cifar", "imagenet", "folder" or "tfds" (any other dataset of TFDS)."""
    name = dataset.partition(":")[0]
    kinds = {EMBEDDED: "shapes", "cifar10": "cifar", "cifar100": "cifar"}
    return (kinds | {IMAGENET: "imagenet", FOLDER: "folder"}).get(name, "tfds")


def recipe(
    dataset: str = EMBEDDED,
    model: str | None = None,
    method: str = "augmix",
    variant: str = "script",
    given: Mapping[str, Any] | None = None,
) -> ExperimentConfig:
    """Returns the configuration of one cell of the paper's tables, with changes.

    The default model is ResNet-50 for ImageNet and folders, WideResNet otherwise; `variant` is a
    name of `IMAGENET_RECIPES`. The settings in `given` replace the recipe's; others follow from
    them: see `_derived`.
    """
    if not dataset:
        raise ArgumentError(unknown_name("dataset", dataset, ("shapes", "cifar10", "cifar100")))
    kind = dataset_kind(dataset)
    large = kind in ("imagenet", "folder")
    row = lookup("method", method, METHODS)
    model = model or ("resnet50" if large else "wrn")
    base = "imagenet" if large else "shapes" if kind == "shapes" else "cifar"
    # Images of other datasets may not be square, and the quick start has to be quick.
    values = (
        {"dataset": dataset, "cbar": kind == "cifar"}
        | MODEL_RECIPES.get((base, model), {})
        | DATASETS[base]
    )
    values |= lookup("recipe", variant, IMAGENET_RECIPES)
    require(large or variant == "script", f"an ImageNet dataset for recipe {variant!r}", dataset)
    values |= row.settings
    values |= row.imagenet if large else row.cifar100 if dataset == "cifar100" else {}
    plain = ExperimentConfig(lookup("model", model, MODELS)(), row.method()).replaced(values)
    chosen = dict(given or {})
    return plain.replaced(_derived(plain, chosen) | chosen)


def _derived(plain: ExperimentConfig, given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that follow from others that were given.

    * At most an eighth of a limited number of training images is held out.
    * The warm-up is shorter than the run, and there is none with a constant learning rate.
    * Textures reach their share after three tenths of the run.
    * ImageNet's learning rate is proportional to the batch, and Cutout's square to the images.
    * Policies found for ImageNet are used for images of varying size, and patches fit into them.
    """
    derived: dict[str, Any] = {}
    if given.get("train_limit", 0) > 0:
        derived["calibration_images"] = min(plain.calibration_images, given["train_limit"] // 8)
    constant = given.get("schedule") == "constant"
    most = 0 if constant else max(0, given.get("epochs", plain.epochs) - 1)
    derived["warmup_epochs"] = min(plain.warmup_epochs, most)
    derived["ramp_epochs"] = round(0.3 * given.get("epochs", plain.epochs))
    if plain.large and "batch_size" in given:
        derived["learning_rate"] = plain.learning_rate * given["batch_size"] / plain.batch_size
    if plain.large and "image_size" in given:
        derived["cutout_size"] = given["image_size"] // 2 if plain.method.name == "cutout" else 0
    if given.get("image_size", 0) > 0:
        derived["policy"] = "imagenet"
        sides = getattr(plain.method, "patch_sides", "4").split(",")
        fitting = (side for side in sides if int(side) <= given["image_size"])
        derived["patch_sides"] = ",".join(fitting) or sides[0]
    return derived


def with_method(config: ExperimentConfig, method: str) -> ExperimentConfig:
    """Returns a configuration whose method is replaced by another one's recipe on its dataset."""
    plain = recipe(config.dataset, config.model.name, config.method.name).settings()
    others = settings_of(config).keys() | settings_of(config.model).keys()
    changed = {n: v for n, v in config.settings().items() if n in others and plain[n] != v}
    return recipe(config.dataset, config.model.name, method, given=changed)


def from_json(text: str) -> ExperimentConfig:
    """Returns the configuration that `ExperimentConfig.to_json` wrote.

    Settings that another method or model uses are left out: earlier versions wrote them too.
    """
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise ArgumentError(f"The configuration is not JSON: {error}.") from error
    require(isinstance(values, dict), "a configuration that is a JSON object", text[:50])
    declared = declarations()
    for name in values:
        lookup("setting", name, declared | {"model": None, "method": None})
    model = lookup("model", str(values.get("model", "wrn")), MODELS)()
    method = lookup("method", str(values.get("method", "augmix")), METHODS).method()
    unset = {n for n, v in values.items() if v is None and type(None) not in declared[n].kinds}
    config = ExperimentConfig(model, method)
    return config.replaced({n: v for n, v in values.items() if n not in unset})


def declarations() -> dict[str, Setting]:
    """Returns every setting of every experiment by name, and which models or methods have it."""
    declared = dict(settings_of(ExperimentConfig))
    owners: list[tuple[str, str, Any]] = [("models", *item) for item in MODELS.items()]
    owners += [("methods", name, row.method) for name, row in METHODS.items()]
    for kind, owner, record in owners:
        for name, setting in settings_of(record).items():
            first = declared.get(name, setting)
            names: Any = {kind: (*getattr(first, kind), owner)}
            declared[name] = dataclasses.replace(first, **names)
    return declared
