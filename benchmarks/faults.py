"""What a run loses by `kill -9`: the steps since its last checkpoint and nothing else.

    python -m benchmarks.faults --workdir=DIR [--kills=10] [--seed=0] [--cpu_replicas=2]
                                [--out=FILE.json]

Trains a small network on the embedded dataset, once without kills. Then again, killed at random
moments: while it starts, between two checkpoints, and while one is being written. The same command
resumes it each time. In the end the checkpoints and models of both runs must be equal, byte for
byte; with several replicas to 1e-6. Each kill takes 15 seconds; DIR must be new.
"""

from __future__ import annotations

import argparse
import csv
import random
import re
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import measure

EPOCHS, BATCH, NETWORK = 12, 64, "wrn-10-1"
CLOSE = 1e-6
RUN = (
    *("--dataset=shapes", "--model=wrn", "--depth=10", "--widen_factor=1", "--method=augmix"),
    *("--train_limit=1024", f"--epochs={EPOCHS}", f"--batch_size={BATCH}"),
    *("--eval_limit=100", "--nocorrupted", "--deterministic"),
)
# Steps between two checkpoints.
STEPS_BETWEEN = (1, 2, 3)
AIMS = ("anywhere", "training", "writing")
SAVES_TIMED = 20


class Attempt(NamedTuple):
    """One process of a run."""

    aim: str  # one of `AIMS`, when to kill it; "": never
    # When it was killed: "start" (before its first checkpoint), "training", "writing" (a
    # checkpoint) or "end" (evaluation and export); "" if it finished.
    hit: str
    seconds: float  # how long it ran
    first_write: float | None  # seconds until it began to write its first checkpoint
    steps_between: int  # two checkpoints


def started(folder: Path, steps_between: int, more: list[str]) -> subprocess.Popen:
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "main.py", *RUN, *more, f"--checkpoint_steps={steps_between}"]
    with (folder.parent / f"{folder.name}.log").open("ab") as log:
        return subprocess.Popen([*command, f"--workdir={folder}"], stdout=log, stderr=log)


def being_written(folder: Path) -> set[str]:
    paths = (folder / "checkpoints").glob("*")
    return {path.name for path in paths if re.search("temp|unfinished", path.name)}


def attempt(
    folder: Path, aim: str, steps_between: int, chance: random.Random, more: list, longest: float
) -> Attempt:
    """Starts or resumes the run, and kills it when `aim` says unless it finishes before."""
    left_over, first_write, hit_at = being_written(folder), None, None
    anywhere, later, within = (chance.uniform(0.0, most) for most in (longest, 1.0, 0.03))
    began, process = time.perf_counter(), started(folder, steps_between, more)
    while process.poll() is None:
        now = time.perf_counter() - began
        writing = bool(being_written(folder) - left_over)
        if writing and first_write is None:
            first_write = now
        if hit_at is None:
            if aim == "anywhere":
                hit_at = anywhere
            elif aim == "writing" and writing:
                hit_at = now + within
            elif aim == "training" and first_write is not None and not writing:
                hit_at = now + later
        if hit_at is not None and now >= hit_at:
            process.kill()
            break
        time.sleep(0.001)
    code, seconds = process.wait(), time.perf_counter() - began
    if code == 0:
        return Attempt(aim, "", seconds, first_write, steps_between)
    if code != -signal.SIGKILL:
        sys.exit(f"the run failed with code {code}: see {folder}.log")
    written = bool(being_written(folder) - left_over)
    trained = len(records(folder)) == EPOCHS
    hit = "writing" if written else "end" if trained else "start" if not first_write else "training"
    return Attempt(aim, hit, seconds, first_write, steps_between)


def broken_run(
    folder: Path, kills: int, chance: random.Random, more: list[str], longest: float
) -> list[Attempt]:
    """Kills a run repeatedly, at least once during a write, then lets it finish."""
    attempts: list[Attempt] = []
    while True:
        number = len(attempts)
        hits = [each.hit for each in attempts]
        enough = number >= kills and "writing" in hits
        aim = "" if enough else AIMS[number % len(AIMS)] if number < kills else "writing"
        between = STEPS_BETWEEN[chance.randrange(len(STEPS_BETWEEN))] if not enough else 1
        attempts.append(attempt(folder, aim, between, chance, more, longest))
        print(f"{number + 1}: aimed at {aim or 'nothing'}, hit {attempts[-1].hit or 'nothing'}")
        if not attempts[-1].hit:
            return attempts


def differences(ours: Path, theirs: Path) -> tuple[list[str], float]:
    """Compares all tensors of the newest checkpoint and of `model.keras`.

    Returns the names of those whose bytes differ, and the largest relative norm of a difference.
    """
    import keras
    import numpy as np
    import tensorflow as tf

    readers = [tf.train.load_checkpoint(str(folder / "checkpoints")) for folder in (ours, theirs)]
    names = set().union(*(reader.get_variable_to_dtype_map() for reader in readers))
    pairs = {
        name: [np.asarray(reader.get_tensor(name)) for reader in readers]
        for name in names
        if all(reader.has_tensor(name) for reader in readers) and "OBJECT_GRAPH" not in name
    }
    models = [keras.saving.load_model(folder / "model.keras") for folder in (ours, theirs)]
    for kept in zip(*(model.weights for model in models), strict=True):
        pairs[f"model.keras {kept[0].path}"] = [np.asarray(weight) for weight in kept]
    different = [name for name, (a, b) in pairs.items() if a.tobytes() != b.tobytes()]
    missing = [name for name in names - set(pairs) if "OBJECT_GRAPH" not in name]
    apart = [
        float(np.linalg.norm(a - b) / max(np.linalg.norm(b), 1e-12))
        for a, b in pairs.values()
        if np.issubdtype(a.dtype, np.floating) and not np.isnan(a).any()
    ]
    return sorted(different + missing), max(apart)


def save_cost(folder: Path) -> dict[str, float]:
    """Times the saving of the same network and its momenta in this process."""
    from augmix_tf.data.pipeline import Position
    from augmix_tf.training.checkpoints import Checkpoints
    from augmix_tf.training.optimizer import CoupledSGD
    from augmix_tf.training.step import Trainer
    from benchmarks import step

    trainer = Trainer(step.build(NETWORK))
    trainer.compile(optimizer=CoupledSGD(0.1))
    checkpoints, times = Checkpoints(trainer, folder), []
    for number in range(SAVES_TIMED):
        began = time.perf_counter()
        checkpoints.save(Position(0, number))
        times.append(1e3 * (time.perf_counter() - began))
    newest = list(folder.glob(f"ckpt-{SAVES_TIMED}.*"))
    return {
        "checkpoint_bytes": sum(path.stat().st_size for path in newest),
        "save_ms": statistics.median(times),
        "longest_save_ms": max(times),
    }


def records(folder: Path) -> list[dict[str, str]]:
    """The rows of `metrics.csv`, one for each epoch."""
    path = folder / "metrics.csv"
    return list(csv.DictReader(path.read_text().splitlines())) if path.exists() else []


def figures(whole: Path, broken: Path, attempts: list[Attempt], timed: Path) -> dict[str, Any]:
    hits = [each.hit for each in attempts if each.hit]
    # With a checkpoint at each step, the first one follows the first step.
    resumed = [
        each.first_write
        for each in attempts[1:]
        if each.first_write is not None and each.steps_between == 1
    ]
    cost, last = save_cost(timed), records(whole)[-1]
    step_ms, steps = 1e3 * BATCH / float(last["images_per_second"]), int(last["step"]) // EPOCHS
    different, largest = differences(broken, whole)
    return {
        "kills": len(hits),
        "hit": {name: hits.count(name) for name in ("start", "training", "writing", "end")},
        "equal": not different,
        "different": different,
        "largest_difference": largest,
        **cost,
        "step_ms": step_ms,
        "steps_per_epoch": steps,
        # The default is one checkpoint an epoch.
        "save_percent_of_epoch": 100 * cost["save_ms"] / (steps * step_ms + cost["save_ms"]),
        "seconds_to_first_resumed_step": statistics.median(resumed) if resumed else None,
        "attempts": [each._asdict() for each in attempts],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workdir", type=Path, required=True, help="a new directory")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    parser.add_argument("--cpu_replicas", type=int, default=0, help="replicas on the CPU")
    parser.add_argument("--out", help="also write the figures to this file")
    options = parser.parse_args()
    place = options.workdir.resolve()
    if place.exists():
        parser.error(f"Expected a new folder for --workdir; received {options.workdir}")
    chance = random.Random(options.seed)
    document: dict[str, Any] = {"machine": measure.machine(), "run": RUN, "seed": options.seed}
    several = options.cpu_replicas > 1
    more = ["--strategy=mirrored", f"--cpu_replicas={options.cpu_replicas}"] if several else []
    document["replicas"] = max(options.cpu_replicas, 1)
    undisturbed = attempt(place / "whole", "", 0, chance, more, 0.0)
    print(f"undisturbed: {undisturbed.seconds:.0f} s")
    longest = undisturbed.seconds / 2
    attempts = broken_run(place / "broken", options.kills, chance, more, longest)
    document |= {"undisturbed_seconds": undisturbed.seconds}
    document |= figures(place / "whole", place / "broken", attempts, place / "timed")
    for name, value in document.items():
        if name not in ("attempts", "machine", "run"):
            print(f"{name}: {value}")
    measure.save(options.out, document)
    same = document["equal"] or (several and document["largest_difference"] <= CLOSE)
    sys.exit(0 if same else "the runs differ")


if __name__ == "__main__":
    main()
