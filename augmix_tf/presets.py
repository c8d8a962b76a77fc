"""The recipe of each dataset, model and method: what a run is when no flag says otherwise."""

from __future__ import annotations

import dataclasses

from augmix_tf.checks import CommandError, lookup, unknown_name
from augmix_tf.config import ExperimentConfig

METHODS = ("standard", "augmix")
_MODELS = ("allconv", "densenet", "resnext", "wrn")
# Named in the paper's tables, not in this version.
_LATER = {
    "method": (
        "cutout",
        "mixup",
        "cutmix",
        "autoaugment",
        "random_autoaugment",
        "adversarial",
        "patch_uniform",
    ),
    "model": ("resnet50",),
    "dataset": ("imagenet2012", "folder"),
}


def preset(dataset: str, model: str, method: str) -> ExperimentConfig:
    """Returns the recipe of one cell of the paper's tables.

    Raises:
        CommandError: unknown names (with the nearest), or a combination without a recipe.
    """
    _refuse_what_is_not_there("dataset", dataset)
    _refuse_what_is_not_there("model", model)
    _refuse_what_is_not_there("method", method)
    lookup("method", method, dict.fromkeys(METHODS))
    lookup("model", model, dict.fromkeys(_MODELS))
    recipe = quick_start if dataset == "shapes" else cifar
    return dataclasses.replace(recipe(model), dataset=dataset, method=method)


def quick_start(model: str) -> ExperimentConfig:
    """A small network on the embedded pictures: two minutes on two processor cores.

    Made to show the whole job at once, not to compare methods.
    """
    recipe = dataclasses.replace(cifar(model), epochs=8, batch_size=64)
    return dataclasses.replace(recipe, depth=10, widen_factor=1) if model == "wrn" else recipe


def cifar(model: str) -> ExperimentConfig:
    """The paper's recipe for CIFAR-10 and CIFAR-100, for all methods alike.

    SGD with Nesterov momentum 0.9, learning rate 0.1 with a cosine decay in each step, batch 128;
    100 epochs for AllConv and WideResNet, 200 for DenseNet and ResNeXt; weight decay 5e-4, 1e-4 for
    DenseNet. Severity 3, width 3, random depth, JSD weight 12.

    With AugMix the paper reports (error in %, mean over the corruptions; table 1 and the authors'
    weights as measured by RobustBench for WRN and ResNeXt):

        model      CIFAR-10-C   CIFAR-100-C
        allconv       15.0         42.7
        densenet      12.7         39.6
        wrn           11.2         35.9
        resnext       10.9         34.9

    Cost: about 100 minutes for `wrn` with AugMix on one GPU (third-party report), half an hour
    without. Source: the authors' cifar.py and its README.
    """
    long = model in ("densenet", "resnext")
    return ExperimentConfig(
        model=model,
        epochs=200 if long else 100,
        weight_decay=1e-4 if model == "densenet" else 5e-4,
    )


def _refuse_what_is_not_there(kind: str, name: str) -> None:
    if name in _LATER[kind]:
        raise CommandError(f"--{kind}={name} is not in this version yet")
    if kind == "dataset" and not name:
        raise CommandError(unknown_name(kind, name, ("shapes", "cifar10", "cifar100")))
