"""What one experiment is: a frozen record that checks itself and goes to JSON and back."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any, get_args, get_type_hints

from augmix_tf.checks import CommandError, require, unknown_name
from augmix_tf.settings import AugMixSettings

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")

# May differ when a run is resumed: they change where or how fast it runs, not what it computes.
FREE_TO_CHANGE = ("data_dir", "download")


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
    epochs: int = 100
    batch_size: int = 128
    learning_rate: float = 0.1
    weight_decay: float = 5e-4
    aug_severity: float = 3.0
    mixture_width: int = 3
    mixture_depth: int = -1
    alpha: float = 1.0
    all_ops: bool = False
    jsd: bool = True
    jsd_weight: float = 12.0
    views: int = 3
    precision: str = "float32"
    seed: int = 1
    deterministic: bool = False
    train_limit: int = 0
    eval_limit: int = 0
    data_dir: str | None = None
    download: bool = True

    def __post_init__(self) -> None:
        for name in ("learning_rate", "weight_decay", "jsd_weight"):
            value = getattr(self, name)
            require(math.isfinite(value), f"a finite --{name}", value)
        require(self.views >= 1, "--views of at least 1", self.views)
        require(self.epochs >= 1, "--epochs of at least 1", self.epochs)
        require(self.batch_size >= 1, "--batch_size of at least 1", self.batch_size)
        require(self.learning_rate > 0, "--learning_rate above 0", self.learning_rate)
        require(self.weight_decay >= 0, "--weight_decay of at least 0", self.weight_decay)
        require(self.jsd_weight >= 0, "--jsd_weight of at least 0", self.jsd_weight)
        require(0 <= self.seed < 2**31, "--seed in 0..2147483647", self.seed)
        require(self.train_limit >= 0, "--train_limit of at least 0", self.train_limit)
        require(self.eval_limit >= 0, "--eval_limit of at least 0", self.eval_limit)
        if self.precision not in PRECISIONS:
            raise CommandError(unknown_name("precision", self.precision, PRECISIONS))
        _ = self.augmix  # checks itself
        if self.method == "augmix" and self.jsd:
            require(self.views >= 2, "--views of at least 2 for the JSD (or --nojsd)", self.views)

    @property
    def model_options(self) -> dict[str, Any]:
        """The options of `models.build` that were set."""
        sizes = {"depth": self.depth, "widen_factor": self.widen_factor}
        return {name: value for name, value in sizes.items() if value is not None}

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

    def differences(self, other: ExperimentConfig) -> list[str]:
        """Names the fields, with both values, in which a run under `other` would differ."""
        return [
            f"{field.name} {mine!r} -> {theirs!r}"
            for field in dataclasses.fields(self)
            if field.name not in FREE_TO_CHANGE
            and (mine := getattr(self, field.name)) != (theirs := getattr(other, field.name))
        ]
