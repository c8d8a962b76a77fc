"""The recipe of each dataset, model and method: what a run is when no flag says otherwise.

The numbers in the docstrings are the paper's: error in %, mean over the 15 corruptions, CIFAR-10-C
and CIFAR-100-C. They are as remembered from its table 1, except those of AugMix for `wrn` and
`resnext`, which RobustBench measured again with the authors' weights.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from augmix_tf.checks import CommandError, lookup, unknown_name
from augmix_tf.config import ExperimentConfig

MODELS = ("allconv", "densenet", "resnet50", "resnext", "wrn")
# Named in the paper's tables, not in this version.
_LATER = ("imagenet2012", "folder")


def preset(dataset: str, model: str, method: str) -> ExperimentConfig:
    """Returns the recipe of one cell of the paper's tables.

    Raises:
        CommandError: unknown names (with the nearest), or a combination without a recipe.
    """
    if dataset in _LATER:
        raise CommandError(f"--dataset={dataset} is not in this version yet")
    if not dataset:
        raise CommandError(unknown_name("dataset", dataset, ("shapes", "cifar10", "cifar100")))
    recipe = lookup("method", method, METHODS)
    lookup("model", model, dict.fromkeys(MODELS))
    base = quick_start(model) if dataset == "shapes" else cifar(model)
    base = dataclasses.replace(base, dataset=dataset)
    return recipe(base)


def quick_start(model: str) -> ExperimentConfig:
    """A small network on the embedded pictures: a minute or two on two processor cores.

    Made to show the whole job at once, not to compare methods: with one seed of so short a training
    much is chance. 16 epochs because after 8 AugMix was still behind standard training; no length
    in between was tried.
    """
    recipe = dataclasses.replace(cifar(model), epochs=16, batch_size=64, calibration_images=256)
    return dataclasses.replace(recipe, depth=10, widen_factor=1) if model == "wrn" else recipe


def cifar(model: str) -> ExperimentConfig:
    """What all methods share on CIFAR-10 and CIFAR-100.

    SGD with Nesterov momentum 0.9, learning rate 0.1 with a cosine decay in each step, batch 128;
    100 epochs for AllConv and WideResNet, 200 for DenseNet and ResNeXt; weight decay 5e-4, 1e-4 for
    DenseNet. ResNet-50 has no recipe for small pictures; it takes that of WideResNet.

    Source: the authors' cifar.py and its README.
    """
    long = model in ("densenet", "resnext")
    return ExperimentConfig(
        model=model,
        epochs=200 if long else 100,
        weight_decay=1e-4 if model == "densenet" else 5e-4,
    )


def standard(base: ExperimentConfig) -> ExperimentConfig:
    """Crop and flip alone.

    allconv 30.8 and 56.4, densenet 30.7 and 59.3, wrn 26.9 and 53.3, resnext 27.5 and 53.4.
    Cost: half an hour for `wrn` on one GPU (a third party's report).
    """
    return dataclasses.replace(
        base, method="standard", jsd=False, views=1, mix_ops="augmix", split_bn=False
    )


def cutout(base: ExperimentConfig) -> ExperimentConfig:
    """One grey square in each picture: side 16, on CIFAR-100 8, as in the paper of Cutout.

    Which side AugMix's comparison took is not stated in its code.

    allconv 32.9 and 56.8, densenet 32.1 and 59.6, wrn 26.8 and 53.5, resnext 28.9 and 54.6.
    Cost: as `standard`.
    """
    side = 8 if base.dataset == "cifar100" else 16
    return dataclasses.replace(standard(base), method="cutout", cutout_size=side)


def mixup(base: ExperimentConfig) -> ExperimentConfig:
    """Pictures and labels mixed in pairs, Beta(1, 1); weight decay 1e-4.

    Both settings as remembered from the papers, not checked against a code.

    allconv 24.6 and 53.4, densenet 24.6 and 55.4, wrn 22.3 and 50.4, resnext 22.6 and 51.4.
    Cost: as `standard`.
    """
    return dataclasses.replace(standard(base), method="mixup", weight_decay=1e-4)


def cutmix(base: ExperimentConfig) -> ExperimentConfig:
    """A box of each picture from another one, in half of the batches, Beta(1, 1).

    The probability is the CutMix authors' for CIFAR; AugMix's comparison is not public.

    allconv 31.3 and 56.0, densenet 33.5 and 59.2, wrn 27.1 and 52.9, resnext 29.5 and 54.1.
    Cost: as `standard`.
    """
    return dataclasses.replace(standard(base), method="cutmix")


def autoaugment(base: ExperimentConfig) -> ExperimentConfig:
    """The 25 sub-policies found for CIFAR-10, without the Cutout that AutoAugment's paper adds.

    `--cutout_size=16` adds it. Which of the two AugMix's comparison took is not known.

    allconv 29.2 and 55.1, densenet 26.6 and 53.9, wrn 23.9 and 49.6, resnext 24.2 and 51.3.
    Cost: as `standard`.
    """
    return dataclasses.replace(standard(base), method="autoaugment")


def random_autoaugment(base: ExperimentConfig) -> ExperimentConfig:
    """Policies as AutoAugment's, drawn at random. What was drawn is known in one sentence only.

    wrn 17.0 and 43.6 (the paper's ablation). Cost: as `standard`.
    """
    return dataclasses.replace(standard(base), method="random_autoaugment")


def adversarial(base: ExperimentConfig) -> ExperimentConfig:
    """Trained on the worst pictures that 10 steps of 2/255 find within 8/255 of each value.

    Steps and ball as remembered; Madry et al. took 7 steps on CIFAR.

    allconv 28.1 and 56.0, densenet 27.6 and 55.2, wrn 26.2 and 55.1, resnext 27.0 and 54.4.
    Cost: about eleven times `standard`: each attack step is a forward and backward pass.
    """
    return dataclasses.replace(standard(base), method="adversarial")


def patch_uniform(base: ExperimentConfig) -> ExperimentConfig:
    """Uniform noise in one square of each picture. Side 25 and strength 0.3 are guesses.

    The paper has it for ImageNet only. Cost: as `standard`.
    """
    return dataclasses.replace(standard(base), method="patch_uniform")


def augmix(base: ExperimentConfig) -> ExperimentConfig:
    """The paper's method: severity 3, width 3, random depth, three views, JSD times 12.

    allconv 15.0 and 42.7, densenet 12.7 and 39.6, wrn 11.2 and 35.9, resnext 10.9 and 34.9.
    Cost: about 100 minutes for `wrn` on one GPU (a third party's report).
    """
    return dataclasses.replace(base, method="augmix")


METHODS: dict[str, Callable[[ExperimentConfig], ExperimentConfig]] = {
    "standard": standard,
    "cutout": cutout,
    "mixup": mixup,
    "cutmix": cutmix,
    "autoaugment": autoaugment,
    "random_autoaugment": random_autoaugment,
    "adversarial": adversarial,
    "patch_uniform": patch_uniform,
    "augmix": augmix,
}
