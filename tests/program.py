"""The program in this process, with what it says."""

import contextlib
import dataclasses
import functools
import io

import pytest
import tensorflow as tf

import main
from augmix_tf.commands import dashboard, export
from augmix_tf.data import shapes
from augmix_tf.export import saved_model

# `data.shapes.make`, which takes seconds to draw, for all test files of a process.
shapes_drawn_once = functools.cache(shapes.make)


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


def leave_out(patch: pytest.MonkeyPatch, kept: str = "") -> None:
    """Leaves out of runs what takes long and has its own tests, except what is `kept`.

    The report, the example views of the dashboard, the export and its reloading ("verify").
    """
    patch.setattr(shapes, "make", shapes_drawn_once)
    pixel = tf.io.encode_png(tf.zeros([1, 1, 3], tf.uint8)).numpy()
    patch.setattr(dashboard, "views_png", lambda *_: pixel)
    if "report" not in kept:
        patch.setattr(dashboard, "report", lambda *_: None)
    if "export" not in kept:
        patch.setattr(export, "export", lambda *_: None)
    if "verify" not in kept:
        patch.setattr(saved_model, "verify", lambda *_: 0.0)
