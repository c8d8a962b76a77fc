"""The folder of one run: what lies where, and who may use it."""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
from pathlib import Path
from typing import IO

from augmix_tf import files
from augmix_tf.checks import CommandError, RunError
from augmix_tf.config import ExperimentConfig


class Workdir:
    """One run's folder.

    Attributes:
        config, metrics, results, report, model: files `config.json`, `metrics.csv`, `results.json`,
            `report.md` and `model.keras`.
        checkpoints, logs: folders; `export/` and `plots/` lie beside them.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.config = root / "config.json"
        self.metrics = root / "metrics.csv"
        self.results = root / "results.json"
        self.report = root / "report.md"
        self.model = root / "model.keras"
        self.checkpoints = root / "checkpoints"
        self.logs = root / "logs"
        self._lock: IO[str] | None = None

    def stored_config(self) -> ExperimentConfig:
        """Reads the configuration of the run that lies here.

        Raises:
            CommandError: there is none, or it cannot be read.
        """
        try:
            text = self.config.read_text()
        except FileNotFoundError as error:
            raise CommandError(f"no run in {self.root}: want {self.config}") from error
        except OSError as error:
            raise CommandError(f"cannot read {self.config}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise CommandError(f"cannot read {self.config}: {error}") from error
        try:
            return ExperimentConfig.from_json(text)
        except CommandError as error:
            raise CommandError(f"cannot read {self.config}: {error}") from error

    def open(self, config: ExperimentConfig) -> int:
        """Makes the folder and keeps it for this process, or goes on with the run that lies here.

        Returns:
            The epochs of the run that lies here. Where `config` has more, it is for the caller to
            find out whether the run can be extended, and then to call `extend`.

        Raises:
            CommandError: the folder holds another configuration; the differing fields are named.
            RunError: it cannot be written, or another process uses it.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self._lock = (self.root / ".lock").open("w")
        except OSError as error:
            raise RunError(f"cannot write to --workdir={self.root}: {error.strerror}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunError(f"another process uses --workdir={self.root}") from error
        if not self.config.exists():
            files.write_text_atomically(self.config, config.to_json())
            return config.epochs
        stored = self.stored_config()
        as_long = dataclasses.replace(config, epochs=min(config.epochs, stored.epochs))
        if differences := stored.differences(as_long):
            raise CommandError(
                f"--workdir={self.root} holds another run, different in: {'; '.join(differences)}. "
                "Give the same flags to resume it, or another --workdir"
            )
        return stored.epochs

    def extend(self, config: ExperimentConfig) -> None:
        """Makes the run that lies here one of more epochs.

        Raises:
            RunError: the folder cannot be written.
        """
        files.write_text_atomically(self.config, config.to_json())


def default_root(config: ExperimentConfig) -> Path:
    """`runs/<dataset>-<model>-<method>-<hash>`: one folder per configuration."""
    digest = hashlib.sha256(config.identity().encode()).hexdigest()[:6]
    return Path("runs") / f"{config.dataset}-{config.model}-{config.method}-{digest}"
