"""`--mode=report`: compares runs in tables and plots, or writes the report of one run again."""

from __future__ import annotations

from pathlib import Path

from augmix_tf.config import Request
from augmix_tf.errors import CommandError
from augmix_tf.report import comparison
from augmix_tf.report import run as run_report


def run(request: Request) -> None:
    """Compares the runs in `--workdirs`, or reports the one in `--workdir`."""
    directories, out = [Path(each) for each in request.workdirs], request.directory
    if not directories and out is not None:
        print(f"wrote {run_report.write(out)}")
        return
    if not directories:
        raise CommandError("--mode=report needs --workdirs=a,b,c, or --workdir of one run.")
    path = comparison.write(directories, out or Path("runs") / "comparison")
    print(f"{comparison.comparison_table(directories)}\n\nwrote {path}")
