"""`--mode=config`: prints a configuration."""

from __future__ import annotations

from augmix_tf.request import Request


def run(request: Request) -> None:
    """Prints the full configuration of a command line as JSON, without running it."""
    print(request.config.to_json(), end="")
