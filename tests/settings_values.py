"""For every setting a configuration that uses it, and another legal value."""

from typing import Any

from augmix_tf import recipes
from augmix_tf.config import ExperimentConfig
from augmix_tf.settings import Setting

# Where "one more" or "the opposite" of the default is no other legal value.
OTHERS: dict[str, Any] = {
    "dataset": "cifar100",
    "depth": {"wrn": 16, "densenet": 46, "resnext": 20},
    "adapt_bn": 16,
    "mixture_depth": 2,
    "profile_steps": "3,8",
    "alexnet_rates": "/elsewhere.json",
    "shift_dirs": "/elsewhere/a,/elsewhere/b",
    "width_multiplier": 0.5,
    "patch_scale": 0.5,
    "cutmix_probability": 0.25,
    "warmup_epochs": 2,
    "patch_sides": "4,8",
    "names": ("fog",),
    "table": "cifar",
    "workers": 2,
    "tpu": "local",
    "model_path": "model.keras",
    "workdir": "/elsewhere",
    "workdirs": ("/elsewhere/a", "/elsewhere/b"),
}
# Settings that make another one used, and a dataset that has it.
NEEDED: dict[str, dict[str, Any]] = {
    "imagenet_crop": {"corrupted_dir": "/benchmark"},
    "alexnet_rates": {"perturbed_dir": "/benchmark"},
    "adapt_batch": {"adapt_bn": 16},
    "layout": {"corrupted_dir": "/benchmark"},
    "policy": {"mix_ops": "autoaugment"},
    "tpu": {"strategy": "tpu"},
    "cpu_replicas": {"strategy": "mirrored"},
}


def other_value(name: str, config: ExperimentConfig, setting: Setting | None = None) -> Any:
    """Returns a legal value of a setting that differs from the configuration's or the default."""
    if name == "depth":
        return OTHERS[name].get(config.model.name, 16)
    if name in OTHERS:
        return OTHERS[name]
    setting = setting or recipes.declarations()[name]
    default = config.settings().get(name)
    if default is None and setting.methods:
        default = getattr(recipes.METHODS[setting.methods[0]].method(), name)
    if setting.choices:
        return next(choice for choice in setting.choices[::-1] if choice != default)
    if bool in setting.kinds:
        return not default
    if str in setting.kinds:
        return "/elsewhere"
    if float in setting.kinds:
        return default * 1.5
    return (default or 0) + 1


def accepting(name: str) -> ExperimentConfig:
    """Returns a configuration in which this setting is used."""
    setting = recipes.declarations()[name]
    dataset = "imagenet2012" if name in ("imagenet_crop", "image_size") else "cifar10"
    model = setting.models[-1] if setting.models else "wrn"
    method = setting.methods[-1] if setting.methods else "augmix"
    return recipes.recipe(dataset, model, method, given=NEEDED.get(name, {}))
