"""What the benchmarks share: interleaved rounds, medians, the description of the machine."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def arguments(doc: str | None, **defaults: Any) -> argparse.ArgumentParser:
    """A parser with `--json` and the given flags, which have the types of their defaults."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", help="also write the figures to this file")
    for name, default in defaults.items():
        if default is False:
            parser.add_argument(f"--{name}", action="store_true")
        else:
            parser.add_argument(f"--{name}", type=type(default), default=default)
    return parser


def machine() -> dict[str, Any]:
    """Describes the machine and the versions."""
    model = "unknown"
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [x for x in cpuinfo.read_text().splitlines() if x.startswith("model name")]
        model = names[0].split(":")[1].strip() if names else model
    import tensorflow as tf

    return {
        "processor": model,
        "cores": os.cpu_count(),
        "load_before": os.getloadavg()[0],
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
    }


def interleaved(
    sides: Mapping[str, Callable[[], dict[str, float]]], rounds: int
) -> dict[str, dict[str, float]]:
    """Runs all sides in turn, `rounds` times, and returns the median of each figure.

    They take turns so that changes in the machine's speed affect all of them.
    """
    seen: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
    for side in sides.values():  # not counted: compiles, fills caches
        side()
    for number in range(rounds):
        for name, side in sides.items():
            seen[name].append(side())
        print(f"round {number + 1}/{rounds} done", flush=True)
    return {
        name: {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        for name, runs in seen.items()
    }


def timed(work: Callable[[], int]) -> dict[str, float]:
    """Runs `work`, which returns a number of images, and returns throughput and CPU time."""
    cpu, wall = time.process_time(), time.perf_counter()
    images = work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"images_per_second": images / wall, "cpu_us_per_image": 1e6 * cpu / images}


def save(path: str | None, document: dict[str, Any]) -> None:
    """Writes the figures as JSON if there is a path."""
    if path:
        Path(path).write_text(json.dumps(document, indent=2) + "\n")
        print(f"wrote {path}")
