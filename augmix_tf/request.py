"""What a command line asks for: an experiment, and what to do with it where."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

from augmix_tf.config import ExperimentConfig
from augmix_tf.settings import USES, check, setting

MODES = {
    "train": "train, evaluate, export and report",
    "evaluate": "evaluate the newest checkpoint of --workdir again, or the model at --model_path",
    "export": "write a new export version from the newest checkpoint of --workdir",
    "corrupt": "write the test images' -C benchmark to --corrupted_dir, -P to --perturbed_dir",
    "report": "compare the runs in --workdirs in tables and plots",
    "views": "draw training images and their augmented views as a PNG grid",
    "config": "print the full configuration of this command line as JSON",
}
STRATEGIES = ("auto", "none", "mirrored", "multiworker", "tpu")
LAYOUTS = ("npy", "jpeg")
TABLES = ("cifar", "imagenet")

_request = functools.partial(setting, group="Request")
_devices = functools.partial(setting, group="Devices", modes=("train", "evaluate"))
_benchmark = functools.partial(setting, group="Benchmarks", modes=("corrupt",))


@dataclasses.dataclass(frozen=True)
class Devices:
    """Which devices train and evaluate."""

    strategy: str = _devices("auto", "Strategy of tf.distribute", choices=STRATEGIES)
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
    """Which part of a -C or -P benchmark `--mode=corrupt` writes, and how."""

    names: tuple[str, ...] = _benchmark((), "Write only these corruptions or perturbations")
    table: str | None = _benchmark(
        None, "Severities to write (default: by image size)", choices=TABLES
    )
    layout: str = _benchmark(
        "npy",
        "Files of a -C benchmark: npy as CIFAR-10-C, jpeg as ImageNet-C (a tenth of the bytes)",
        choices=LAYOUTS,
        needs={"corrupted_dir": (...,)},
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
        (), "Run directories that a report compares", modes=("report",), path=True
    )
    model_path: str | None = _request(
        None,
        "Evaluate this .keras file or SavedModel directory",
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
