"""The directory of one run: its files, and who may use it."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import IO

from augmix_tf import files, recipes
from augmix_tf.config import ExperimentConfig
from augmix_tf.errors import ArgumentError, FileError


class Workdir:
    """The files of one run's directory; `export/` and `plots/` are beside them."""

    def __init__(self, root: files.PathLike) -> None:
        self.root = root = Path(root)
        self.config = root / "config.json"
        self.metrics = root / "metrics.csv"
        self.results = root / "results.json"
        self.report = root / "report.md"
        self.model = root / "model.keras"
        self.checkpoints = root / "checkpoints"
        self.logs = root / "logs"
        self._lock: IO[str] | None = None

    def stored_config(self) -> ExperimentConfig:
        """Reads the configuration of the run; `ArgumentError` where that is not possible."""
        try:
            return recipes.from_json(self.config.read_text())
        except FileNotFoundError as error:
            problem = f"There is no run in {self.root}: {self.config} is missing."
            raise ArgumentError(problem) from error
        except (OSError, UnicodeDecodeError, ArgumentError) as error:
            raise ArgumentError(f"Cannot read {self.config}: {error}") from error

    def open(self, config: ExperimentConfig) -> int:
        """Creates and locks the directory for a new run, or for resuming the run in it.

        Returns the epochs of the run in it. Where `config` has more, the caller decides whether the
        run can be extended, and then calls `extend`.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self._lock = (self.root / ".lock").open("w")
        except OSError as error:
            raise FileError(f"Cannot write to {self.root}: {error.strerror}.") from error
        if not files.lock(self._lock, wait=False):
            raise FileError(f"Another process uses {self.root}.")
        if not self.config.exists():
            files.write_text_atomically(self.config, config.to_json())
            return config.epochs
        stored = self.stored_config()
        as_long = dataclasses.replace(config, epochs=min(config.epochs, stored.epochs))
        if differences := stored.differences(as_long):
            raise ArgumentError(
                f"{self.root} holds another run, which differs in: {'; '.join(differences)}. Use "
                "the same settings to resume it, or another run directory."
            )
        return stored.epochs

    def extend(self, config: ExperimentConfig) -> None:
        """Gives the run in the directory more epochs."""
        files.write_text_atomically(self.config, config.to_json())


def default_root(config: ExperimentConfig) -> Path:
    """Returns `runs/<dataset>-<model>-<method>-<hash>`: one directory per configuration."""
    digest = hashlib.sha256(config.identity().encode()).hexdigest()[:6]
    name = f"{config.dataset}-{config.model.name}-{config.method.name}-{digest}"
    return Path("runs") / name
