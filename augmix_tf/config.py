"""What one experiment is: a frozen record that checks itself and goes to JSON and back."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any, get_args, get_type_hints

from augmix_tf.checks import CommandError, require, unknown_name
from augmix_tf.settings import AugMixSettings, first_and_last

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")

SCHEDULES = ("cosine", "step", "constant")
EXPORT_FORMATS = ("onnx", "litert")
# Of ImageNet-C, whose pictures are 224 x 224: as they are, or enlarged and cut as the AugMix
# authors' script does.
IMAGENET_CROPS = ("canonical", "reference")
MIX_OPS = ("augmix", "autoaugment", "random_autoaugment")

# May differ when a finished run is looked at again: they change what is measured of it.
OF_EVALUATION = (
    "corrupted",
    "corrupted_dir",
    "imagenet_crop",
    "perturbed_dir",
    "shift_dirs",
    "frost_dir",
    "alexnet_rates",
)
# May differ when a run is resumed: they change where it reads and what it measures, not what it
# trains.
_OF_THE_PROCESS = ("data_dir", "download", "checkpoint_steps", "export_format", "profile_steps")
FREE_TO_CHANGE = (*_OF_THE_PROCESS, *OF_EVALUATION)

_LOWEST = {
    "epochs": 1,
    "batch_size": 1,
    "views": 1,
    "weight_decay": 0,
    "jsd_weight": 0,
    "train_limit": 0,
    "eval_limit": 0,
    "calibration_images": 0,
    "checkpoint_steps": 0,
    "warmup_epochs": 0,
    "image_size": 0,
    "cutout_size": 0,
    "patch_size": 1,
    "adversary_steps": 1,
}
_ABOVE_ZERO = ("learning_rate", "patch_scale", "adversary_step_size")
_WITHIN = {
    "mixup_alpha": (1e-6, 1_000_000),
    "cutmix_alpha": (1e-6, 1_000_000),
    "cutmix_probability": (0, 1),
    "patch_scale": (0, 1),
    "adversary_epsilon": (0, 255),
    "fill": (0, 255),
    "seed": (0, 2**31 - 1),
}


@dataclasses.dataclass(frozen=True)
class ExperimentConfig:
    """All settings of a run; the names are those of the flags, which explain them.

    Raises:
        CommandError: a value out of range, or values that do not go together.
    """

    dataset: str = "shapes"
    model: str = "wrn"
    method: str = "augmix"
    depth: int | None = None
    widen_factor: int | None = None
    max_blur_pool: bool = False
    width_multiplier: float | None = None
    image_size: int = 0
    epochs: int = 100
    batch_size: int = 128
    learning_rate: float = 0.1
    schedule: str = "cosine"
    warmup_epochs: int = 0
    nesterov: bool = True
    weight_decay: float = 5e-4
    aug_severity: float = 3.0
    mixture_width: int = 3
    mixture_depth: int = -1
    alpha: float = 1.0
    all_ops: bool = False
    fill: int | None = None
    jsd: bool = True
    jsd_weight: float = 12.0
    views: int = 3
    mix_ops: str = "augmix"
    split_bn: bool = False
    cutout_size: int = 0
    mixup_alpha: float = 1.0
    cutmix_alpha: float = 1.0
    cutmix_probability: float = 0.5
    patch_size: int = 25
    patch_scale: float = 0.3
    adversary_epsilon: float = 8.0
    adversary_step_size: float = 2.0
    adversary_steps: int = 10
    precision: str = "float32"
    seed: int = 1
    deterministic: bool = False
    checkpoint_steps: int = 0
    profile_steps: str | None = None
    train_limit: int = 0
    eval_limit: int = 0
    calibration_images: int = 0
    data_dir: str | None = None
    download: bool = True
    stylized_dir: str | None = None
    skip_bad_examples: bool = False
    corrupted: bool = True
    corrupted_dir: str | None = None
    imagenet_crop: str = "canonical"
    perturbed_dir: str | None = None
    shift_dirs: str | None = None
    frost_dir: str | None = None
    alexnet_rates: str | None = None
    export_format: str | None = None

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, float):
                require(math.isfinite(value), f"a finite --{field.name}", value)
        for name, lowest in _LOWEST.items():
            value = getattr(self, name)
            require(value >= lowest, f"--{name} of at least {lowest}", value)
        for name in _ABOVE_ZERO:
            require(getattr(self, name) > 0, f"--{name} above 0", getattr(self, name))
        for name, (low, high) in _WITHIN.items():
            value = getattr(self, name)
            require(value is None or low <= value <= high, f"--{name} in {low}..{high}", value)
        for name, known in (
            ("precision", PRECISIONS),
            ("mix_ops", MIX_OPS),
            ("schedule", SCHEDULES),
            ("export_format", EXPORT_FORMATS),
            ("imagenet_crop", IMAGENET_CROPS),
        ):
            if getattr(self, name) not in (None, *known):
                raise CommandError(unknown_name(name, getattr(self, name), known))
        square = self.cutout_size > 0 or self.method != "cutout"
        require(square, "--cutout_size of at least 1 for --method=cutout", self.cutout_size)
        alone = self.cutout_size == 0 or self.method not in ("augmix", "mixup", "cutmix")
        require(alone, f"no --cutout_size with --method={self.method}", self.cutout_size)
        shorter = self.warmup_epochs < self.epochs
        require(shorter, f"--warmup_epochs below the {self.epochs} epochs", self.warmup_epochs)
        without = self.warmup_epochs == 0 or self.schedule != "constant"
        require(without, "no --warmup_epochs with --schedule=constant", self.warmup_epochs)
        _ = self.augmix, first_and_last("profile_steps", self.profile_steps)  # check themselves
        self._check_views()

    def _check_views(self) -> None:
        """Several views of a picture are for the consistency loss, and it for them."""
        if self.method == "augmix":
            several = self.views >= 2 or not self.jsd
            require(several, "--views of at least 2 for the JSD (or --nojsd)", self.views)
            require(self.jsd or not self.split_bn, "--jsd for --split_bn", "--nojsd")
            return
        for flag, wrong in (
            ("--jsd", self.jsd),
            (f"--views={self.views}", self.views > 1),
            ("--split_bn", self.split_bn),
            (f"--mix_ops={self.mix_ops}", self.mix_ops != "augmix"),
        ):
            if wrong:
                raise CommandError(
                    "want --method=augmix for several views (other operations: --mix_ops), "
                    f"got {flag} with --method={self.method}, which makes one view of a picture"
                )

    @property
    def model_options(self) -> dict[str, Any]:
        """The options of `models.build` that were set."""
        sizes: dict[str, Any] = {"depth": self.depth, "widen_factor": self.widen_factor}
        sizes["width_multiplier"] = self.width_multiplier
        sizes["max_blur_pool"] = self.max_blur_pool or None
        return {name: value for name, value in sizes.items() if value is not None}

    @property
    def large(self) -> bool:
        """Whether pictures come as ImageNet's do, of any size, and are treated like them."""
        return self.image_size > 0

    @property
    def policy(self) -> str:
        """Which of AutoAugment's policies belongs to the data."""
        return "imagenet" if self.large else "cifar10"

    @property
    def augmix(self) -> AugMixSettings:
        """The knobs of AugMix."""
        return AugMixSettings(
            severity=self.aug_severity,
            width=self.mixture_width,
            depth=self.mixture_depth,
            alpha=self.alpha,
            all_ops=self.all_ops,
        )

    def to_json(self) -> str:
        """Returns the record as JSON, one field a line."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> ExperimentConfig:
        """Returns the record that `to_json` wrote.

        Raises:
            CommandError: not such a record; the message names the field.
        """
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise CommandError(f"not a configuration in JSON: {error}") from error
        require(isinstance(values, dict), "a configuration as a JSON object", type(values).__name__)
        kinds = get_type_hints(cls)
        for name, value in values.items():
            if name not in kinds:
                raise CommandError(unknown_name("setting", name, kinds))
            wanted = get_args(kinds[name]) or (kinds[name],)
            fits = type(value) in wanted or (type(value) is int and float in wanted)
            require(fits, f"{name} of type {wanted[0].__name__}", repr(value))
        return cls(**values)

    def identity(self) -> str:
        """Returns what makes it this run and no other, as text: all but what is free to change."""
        settings = dataclasses.asdict(self)
        return json.dumps({n: settings[n] for n in settings if n not in FREE_TO_CHANGE})

    def of_all_workers(self) -> str:
        """Returns what workers that train together have to agree on, as text.

        All but what only the first one looks at, and where on its machine each of them reads.
        """
        settings = dataclasses.asdict(self)
        for name in ("data_dir", "download", "export_format", "profile_steps"):
            del settings[name]
        places = (name for name in settings if name.endswith(("_dir", "_dirs", "_rates")))
        return json.dumps(settings | {name: settings[name] is not None for name in places})

    def differences(self, other: ExperimentConfig) -> list[str]:
        """Names the fields, with both values, in which a run under `other` would differ."""
        return [
            f"{field.name} {mine!r} -> {theirs!r}"
            for field in dataclasses.fields(self)
            if field.name not in FREE_TO_CHANGE
            and (mine := getattr(self, field.name)) != (theirs := getattr(other, field.name))
        ]
