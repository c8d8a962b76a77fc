"""The recipe of each dataset, model and method: what a run is when no flag says otherwise.

The numbers in the docstrings are the paper's: error in %, mean over the 15 corruptions, CIFAR-10-C
and CIFAR-100-C; of ResNet-50 on ImageNet clean error and mCE (per cent of AlexNet's). They are as
remembered, except those of AugMix for `wrn` and `resnext`, which RobustBench measured again with
the authors' weights.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from augmix_tf.checks import CommandError, lookup, require, unknown_name
from augmix_tf.config import ExperimentConfig
from augmix_tf.settings import FOLDER, IMAGENET

MODELS = ("allconv", "densenet", "resnet50", "resnext", "wrn")
RECIPES = ("script", "released")


def preset(
    dataset: str, model: str | None, method: str, recipe: str = "script"
) -> ExperimentConfig:
    """Returns the recipe of one cell of the paper's tables.

    Args:
        dataset, method: by name.
        model: by name; None: ResNet-50 for large pictures, WideResNet for small ones.
        recipe: of ImageNet: as the authors' script has it, or as their released weights were made.

    Raises:
        CommandError: unknown names (with the nearest), or a combination without a recipe.
    """
    if not dataset:
        raise CommandError(unknown_name("dataset", dataset, ("shapes", "cifar10", "cifar100")))
    of_method = lookup("method", method, METHODS)
    large = dataset.partition(":")[0] in (FOLDER, IMAGENET)
    if model is None:
        model = "resnet50" if large else "wrn"
    lookup("model", model, dict.fromkeys(MODELS))
    lookup("recipe", recipe, dict.fromkeys(RECIPES))
    require(large or recipe == "script", f"--recipe={recipe} with ImageNet", dataset)
    if large:
        base = imagenet(model) if recipe == "script" else imagenet_released(model)
    else:
        base = quick_start(model) if dataset == "shapes" else cifar(model)
    return of_method(dataclasses.replace(base, dataset=dataset))


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


def imagenet(model: str) -> ExperimentConfig:
    """What all methods share on ImageNet, as the authors' script has it.

    SGD with momentum 0.9 and no Nesterov step, learning rate 0.1 for a batch of 256 and in
    proportion to it, a tenth after a third and after two thirds of 90 epochs, weight decay 1e-4;
    operations of severity 1. As remembered, the paper's own runs warmed up for five epochs, and
    those of AutoAugment and AugMix took 180: `--warmup_epochs=5 --epochs=180`.

    Source: the authors' imagenet.py.
    """
    return ExperimentConfig(
        model=model,
        image_size=224,
        epochs=90,
        batch_size=256,
        schedule="step",
        nesterov=False,
        weight_decay=1e-4,
        aug_severity=1.0,
    )


def imagenet_released(model: str) -> ExperimentConfig:
    """As far as it is known, how the authors made the weights that they released.

    From their thread (google-research/augmix, issue 3): 180 epochs, Nesterov momentum, 128 where
    operations leave pixels empty, a rate that changes in each step. Not verified: that the rate is
    a cosine, its five epochs of warm-up, and batch 256; a reproduction with a cosine, batch 256 and
    180 epochs reached 22.2 % clean error and mCE 64.1 (alibaba/easyrobust), the released weights
    have 22.5 % and 65.3. Their width of the mix was not 3; what it was is not known.
    """
    return dataclasses.replace(
        imagenet(model), epochs=180, nesterov=True, schedule="cosine", warmup_epochs=5, fill=128
    )


def fitted(recipe: ExperimentConfig, given: Mapping[str, Any]) -> ExperimentConfig:
    """Returns a recipe with what follows from settings that were chosen, unless it was too.

    * Of a limited number of training images an eighth at most is held out: not more than the few
      that are left can spare.
    * A warm-up is shorter than the run.
    * ImageNet's learning rate is in proportion to the batch, and Cutout's square to the pictures.

    Args:
        recipe: of `preset`.
        given: names of settings -> their values.
    """
    changed: dict[str, Any] = {}
    if given.get("train_limit", 0) > 0:
        changed["calibration_images"] = min(recipe.calibration_images, given["train_limit"] // 8)
    epochs = given.get("epochs", recipe.epochs)
    most = 0 if given.get("schedule") == "constant" else max(0, epochs - 1)
    changed["warmup_epochs"] = min(recipe.warmup_epochs, most)
    if recipe.large and "batch_size" in given:
        changed["learning_rate"] = recipe.learning_rate * given["batch_size"] / recipe.batch_size
    if recipe.large and recipe.cutout_size and "image_size" in given:
        changed["cutout_size"] = given["image_size"] // 2
    return dataclasses.replace(recipe, **{n: changed[n] for n in changed if n not in given})


def standard(base: ExperimentConfig) -> ExperimentConfig:
    """Crop and flip alone.

    allconv 30.8 and 56.4, densenet 30.7 and 59.3, wrn 26.9 and 53.3, resnext 27.5 and 53.4.
    ImageNet 23.9 and 80.6, with `--max_blur_pool` 23.0 and 73.4, on stylised pictures as well
    (SIN, `--stylized_dir`) 27.2 and 73.3.
    Cost: half an hour for `wrn` on one GPU (a third party's report).
    """
    return dataclasses.replace(
        base, method="standard", jsd=False, views=1, mix_ops="augmix", split_bn=False
    )


def cutout(base: ExperimentConfig) -> ExperimentConfig:
    """One grey square in each picture: side 16, on CIFAR-100 8, as in the paper of Cutout.

    Which side AugMix's comparison took is not stated in its code. Of large pictures half the side.

    allconv 32.9 and 56.8, densenet 32.1 and 59.6, wrn 26.8 and 53.5, resnext 28.9 and 54.6.
    Cost: as `standard`.
    """
    side = base.image_size // 2 or (8 if base.dataset == "cifar100" else 16)
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

    The probability is the CutMix authors' for CIFAR; for ImageNet they take all batches. AugMix's
    comparison is not public.

    allconv 31.3 and 56.0, densenet 33.5 and 59.2, wrn 27.1 and 52.9, resnext 29.5 and 54.1.
    Cost: as `standard`.
    """
    share = 1.0 if base.large else base.cutmix_probability
    return dataclasses.replace(standard(base), method="cutmix", cutmix_probability=share)


def autoaugment(base: ExperimentConfig) -> ExperimentConfig:
    """The 25 sub-policies found for CIFAR-10, without the Cutout that AutoAugment's paper adds.

    `--cutout_size=16` adds it. Which of the two AugMix's comparison took is not known.

    On ImageNet the 25 sub-policies found for ImageNet.

    allconv 29.2 and 55.1, densenet 26.6 and 53.9, wrn 23.9 and 49.6, resnext 24.2 and 51.3.
    ImageNet 22.8 and 72.7. Cost: as `standard`.
    """
    return dataclasses.replace(standard(base), method="autoaugment")


def random_autoaugment(base: ExperimentConfig) -> ExperimentConfig:
    """Policies as AutoAugment's, drawn at random. What was drawn is known in one sentence only.

    wrn 17.0 and 43.6 (the paper's ablation). ImageNet 23.6 and 76.1. Cost: as `standard`.
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

    The paper has it for ImageNet only: 24.5 and 74.3. Cost: as `standard`.
    """
    return dataclasses.replace(standard(base), method="patch_uniform")


def augmix(base: ExperimentConfig) -> ExperimentConfig:
    """The paper's method: severity 3 (ImageNet 1), width 3, random depth, three views, JSD x 12.

    ImageNet 22.4 and 68.4, on stylised pictures as well (AugMix + SIN) 25.2 and 64.9.
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
