"""The commands: one module for each `--mode` but `config`, with a function `run`.

`build` makes objects from a configuration. Nothing below this subpackage knows the command line.
"""

from __future__ import annotations

import importlib

from augmix_tf import runtime
from augmix_tf.config import Request
from augmix_tf.errors import CommandError, SettingError


def run(request: Request) -> None:
    """Carries out a request; `Interrupted` if a signal stopped it."""
    if request.mode == "config":
        print(request.config.to_json(), end="")
        return
    if request.mode != "report":
        runtime.import_tensorflow()
    try:
        importlib.import_module(f"{__name__}.{request.mode}").run(request)
    except SettingError as error:  # of a setting that only the data show to be wrong
        raise CommandError(f"--{error.setting} {error.problem}") from error
