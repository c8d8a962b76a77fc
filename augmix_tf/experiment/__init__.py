"""The composer: a request goes in, what it asks for comes out.

The only room that knows all others; they know nothing of a configuration.
"""

from __future__ import annotations

from augmix_tf import quiet
from augmix_tf.checks import CommandError
from augmix_tf.request import Command, DeviceRequest
from augmix_tf.workdir import Workdir, default_root

quiet.import_tensorflow()

import tensorflow as tf  # noqa: E402

from augmix_tf.experiment import runs, studies  # noqa: E402
from augmix_tf.training import strategy  # noqa: E402


def run(command: Command) -> None:
    """Carries out a request.

    Raises:
        CommandError: the request is wrong.
        RunError: it could not be carried out.
        Interrupted: a signal stopped it; the same request again goes on.
    """
    config, root = command.config, command.workdir
    devices = _devices(command)
    if command.quick_start:
        studies.quick_start(config, devices)
    elif command.mode == "train":
        runs.train(config, Workdir(root or default_root(config)), devices)
    elif command.mode == "views":
        studies.save_views(config, root)
    elif command.mode == "corrupt":
        # Of its own: sets are shared by runs with other seeds.
        studies.corrupt(config, command.part, config.seed if "seed" in command.given else 0)
    elif command.mode == "report":
        studies.report(command.workdirs, root)
    elif command.mode == "evaluate" and command.model_path:
        studies.evaluate_saved(config, command.model_path, root)
    elif root is None:
        raise CommandError(f"--mode={command.mode} wants --workdir, the folder of a run")
    elif command.mode == "evaluate":
        runs.evaluate(config, Workdir(root), command.given, devices)
    else:
        runs.export(config, Workdir(root), command.given, devices)


def _devices(command: Command) -> tf.distribute.Strategy:
    """Those that were asked for, where several are of use; otherwise one."""
    of_run = command.mode in ("train", "evaluate") and command.model_path is None
    wanted = command.devices if of_run else DeviceRequest("none")
    with quiet.silenced():
        return strategy.make(wanted.strategy, wanted.tpu, wanted.cpu_replicas)
