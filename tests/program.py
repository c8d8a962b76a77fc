"""The program in this process, with what it says."""

from __future__ import annotations

import contextlib
import dataclasses
import io

import main


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a command line left: exit code, stdout, stderr."""

    code: int
    out: str
    err: str

    def line(self):
        """All of stderr, which is to be one line of the program."""
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("main.py: ")
        return lines[0]


def command(*arguments, workdir=None):
    """Carries out a command line in this process."""
    out, err = io.StringIO(), io.StringIO()
    place = [] if workdir is None else [f"--workdir={workdir}"]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main.main([*map(str, arguments), *place])
    return Outcome(code, out.getvalue(), err.getvalue())


def finish(*arguments, workdir=None):
    """The same, of one that succeeds."""
    outcome = command(*arguments, workdir=workdir)
    assert outcome.code == 0, outcome.err
    return outcome
