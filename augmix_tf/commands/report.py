"""`--mode=report`: compares runs in tables and plots, or writes the report of one run again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from augmix_tf.errors import CommandError
from augmix_tf.report import comparison, terminal
from augmix_tf.report import run as run_report
from augmix_tf.request import Request

if TYPE_CHECKING:  # it loads TensorFlow, which a comparison does not need
    from augmix_tf.commands.build import Run


def run(request: Request) -> None:
    """Compares the runs in `--workdirs`, or reports the one in `--workdir`."""
    directories, out = [Path(each) for each in request.workdirs], request.directory
    if not directories and out is not None:
        print(f"wrote {run_report.write(out)}")
        return
    if not directories:
        raise CommandError("--mode=report needs --workdirs=a,b,c, or --workdir of one run.")
    written = comparison.write(directories, out or Path("runs") / "comparison")
    print(terminal.comparison_table(directories))
    print(f"\nwrote {written}")


def report_run(run: Run) -> None:
    """Writes report and plots, into TensorBoard too, and prints the table."""
    from augmix_tf.commands import dashboard

    root = run.directory.root
    run_report.write(root)
    dashboard.log_results(run)
    print(terminal.results_table(root))
