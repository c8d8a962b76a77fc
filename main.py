"""Trains, evaluates, exports and shows AugMix classifiers: `python main.py --help`."""

from __future__ import annotations

import signal
import sys

import flags
from augmix_tf.errors import ArgumentError, FileError, Interrupted, RunError


def main(arguments: list[str]) -> int:
    """Runs a command line and returns the exit code: 0, 1 (run failed) or 2 (wrong command)."""
    try:
        request = flags.parse(arguments)
        if request is None:
            print(flags.help_text())
            return 0
        from augmix_tf import commands  # loads TensorFlow, which takes seconds

        commands.run(request)
    except (ArgumentError, FileError, RunError) as error:
        print(f"main.py: {error}", file=sys.stderr)
        return 2 if isinstance(error, ArgumentError) else 1
    except (Interrupted, KeyboardInterrupt) as stop:
        stop = stop if isinstance(stop, Interrupted) else Interrupted(signal.SIGINT)
        print(f"main.py: {stop}", file=sys.stderr)
        return 128 + stop.signal_number
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
