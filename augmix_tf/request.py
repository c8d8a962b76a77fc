"""What the user asked for: an experiment, and what is to be done with it where."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from augmix_tf.checks import CommandError, require, unknown_name
from augmix_tf.config import ExperimentConfig

STRATEGIES = ("auto", "none", "mirrored", "multiworker", "tpu")


@dataclasses.dataclass(frozen=True)
class DeviceRequest:
    """Which devices train and evaluate; the names are those of the flags.

    Raises:
        CommandError: an unknown strategy, or options of another one.
    """

    strategy: str = "auto"
    tpu: str | None = None
    cpu_replicas: int = 0

    def __post_init__(self) -> None:
        name, got = self.strategy, f"--strategy={self.strategy}"
        if name not in STRATEGIES:
            raise CommandError(unknown_name("strategy", name, STRATEGIES))
        require(self.tpu is None or name == "tpu", "--strategy=tpu for --tpu", got)
        require(self.cpu_replicas >= 0, "--cpu_replicas of at least 0", self.cpu_replicas)
        several = name == "mirrored" or not self.cpu_replicas
        require(several, "--strategy=mirrored for --cpu_replicas", got)


@dataclasses.dataclass(frozen=True)
class SetRequest:
    """Which part of a -C or -P set `--mode=corrupt` writes; the names are those of the flags."""

    names: tuple[str, ...] = ()
    table: str | None = None
    layout: str = "npy"
    workers: int | None = None
    shard_index: int = 0
    shard_count: int = 1


@dataclasses.dataclass(frozen=True)
class Command:
    """What the user asked for.

    Attributes:
        mode: such as `train`.
        config: the recipe with the user's changes.
        given: names of the settings that the user gave.
        workdir: the run's folder; None: one of its own under `runs/`.
        workdirs: the runs that a report compares.
        model_path: a saved model to evaluate instead of a run's checkpoint.
        part: of the set to write.
        devices: that train and evaluate.
        quick_start: AugMix and standard training, side by side.
        help: only explain the flags.
    """

    mode: str
    config: ExperimentConfig
    given: frozenset[str] = frozenset()
    workdir: Path | None = None
    workdirs: tuple[Path, ...] = ()
    model_path: Path | None = None
    part: SetRequest = SetRequest()
    devices: DeviceRequest = DeviceRequest()
    quick_start: bool = False
    help: bool = False
