"""`--mode=report`: compares runs in tables and plots, or writes the report of one run again."""

from __future__ import annotations

import glob
from collections.abc import Iterable
from pathlib import Path

from augmix_tf.config import Request
from augmix_tf.errors import CommandError
from augmix_tf.report import comparison, directories
from augmix_tf.report import run as run_report


def run(request: Request) -> None:
    """Compares the runs in `--workdirs`, or reports the one in `--workdir`."""
    folders, out = _expanded(request.workdirs), request.directory
    if not folders and out is not None:
        print(f"wrote {run_report.write(out)}")
        return
    if not folders:
        raise CommandError("--mode=report needs --workdirs=a,b,c, or --workdir of one run.")
    path = comparison.write(folders, out or Path("runs") / "comparison")
    print(f"{comparison.comparison_table(folders)}\n\nwrote {path}")


def _expanded(workdirs: Iterable[str]) -> list[Path]:
    """Expands patterns, which the shell leaves in `--workdirs=runs/*`, to run directories."""
    folders = []
    for name in workdirs:
        paths = [Path(name)]
        if not paths[0].exists():
            paths = [Path(path) for path in sorted(glob.glob(name))]
            paths = [path for path in paths if directories.is_run(path)]
        if not paths:
            raise CommandError(f"--workdirs={name} matches no run directory.")
        folders += paths
    return folders
