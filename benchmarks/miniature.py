"""The paper's claim in miniature: methods with the same small network on real CIFAR-10.

    python -m benchmarks.miniature --data_dir=FOLDER [--only=augmix,standard] [--seeds=1,2,3]
    python -m benchmarks.miniature --table    # writes the tables of docs/results.md

WRN-16-1, 10 epochs of batch 128, bfloat16, 1,000 training images held out for the temperature,
everything else as in the recipes; names of runs say what differs. Evaluated on the 10,000 clean
test images and on sets made from the first 1,000 of them: CIFAR-10-C with its four extra
corruptions, C-bar and CIFAR-10-P; clean and corrupted images once more with adapted batch
normalization. Runs that docs/data/miniature.json has are not made again, and the same command
resumes after an interruption. Networks this small do not fill two cores: two of these commands with
other runs, each on a core of its own (`taskset -c 0`), finish half as many runs again.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from augmix_tf import files, robustness
from augmix_tf.evaluation.results import Results
from benchmarks.methods import with_table

NETWORK = ("--depth=16", "--widen_factor=1", "--batch_size=128")
LARGE = ("--depth=40", "--widen_factor=2", "--epochs=15")
MEASURED = ("--calibration_images=1000", "--adapt_bn=0")
# A name is that of a method, unless there are flags.
RUNS: dict[str, tuple[str, ...]] = {
    "standard": (),
    "augmix": (),
    # Methods that came later, and what makes them better or worse.
    "ipmix": (),
    "augmix_textures": (),
    "augmix_textures-noramp": ("--method=augmix_textures", "--ramp_epochs=0"),
    "augmix_textures-nomasks": ("--method=augmix_textures", "--notexture_masks"),
    "pixmix-jsd": ("--method=pixmix", "--jsd"),
    "pixmix-30": ("--method=pixmix", "--epochs=30"),
    "augmix-labels": ("--method=augmix", "--label_all_views"),
    "augmix_textures-labels": ("--method=augmix_textures", "--label_all_views"),
    # The paper's, and the others that came later.
    "augmix-nojsd": ("--method=augmix", "--nojsd"),
    "pixmix": (),
    "autoaugment": (),
    "trivialaugment": (),
    "cutout": (),
    "mixup": (),
    "cutmix": (),
    # As many passes through the network as AugMix has with its three views.
    "standard-30": ("--method=standard", "--epochs=30"),
    "autoaugment-30": ("--method=autoaugment", "--epochs=30"),
    "standard-float32": ("--method=standard", "--precision=float32"),
    "augmix-float32": ("--method=augmix", "--precision=float32"),
    # The paper's network.
    "standard-wrn-40-2": ("--method=standard", *LARGE),
    "augmix-wrn-40-2": ("--method=augmix", *LARGE),
}
CORRUPTED_IMAGES = 1000
SETS = {"corrupted_dir": "cifar10-c", "cbar_dir": "cifar10-c-bar", "perturbed_dir": "cifar10-p"}
ROOT = Path(__file__).resolve().parents[1]
PAGE, RUNS_FILE = ROOT / "docs" / "results.md", ROOT / "docs" / "data" / "miniature.json"

Run = dict[str, Any]
"""What RUNS_FILE has of a run: "run", "seed", cost, and the numbers of `measured`."""

COLUMNS = {
    "clean": "clean error",
    "c": "-C",
    "extra": "4 extra corruptions",
    "cbar": "C-bar",
    "p": "flips on -P",
    "adapted_clean": "adapted: clean",
    "adapted_c": "adapted: -C",
    "calibration_c": "RMS calibration error on -C",
    "calibrated_c": "the same with the temperature",
    "noise_floor_c": "its noise floor",
}
"""Numbers of a run that are shares -> their titles."""


def program(*arguments: str) -> None:
    """Runs `python main.py` with this process's stdout and stderr."""
    subprocess.run([sys.executable, "main.py", *arguments], check=True)


def write_sets(data_dir: Path, work: Path) -> list[str]:
    """Writes the corrupted test images, and returns the flags that name them."""
    flags = [f"--{flag}={work / folder}" for flag, folder in SETS.items()]
    common = ("--mode=corrupt", "--dataset=cifar10", f"--data_dir={data_dir}")
    limit = f"--eval_limit={CORRUPTED_IMAGES}"
    program(*common, limit, *flags)
    program(*common, limit, flags[0], f"--names={','.join(robustness.EXTRA_CORRUPTIONS)}")
    return flags


def measured(results: Results) -> dict[str, Any]:
    """Returns the numbers of a run: shares, their intervals, and the error on each corruption."""
    clean, corrupted, cbar = results.clean, results.corrupted, results.cbar
    adapted = results.adapted
    means = {
        "c": (corrupted, corrupted.counted),
        "extra": (corrupted, robustness.EXTRA_CORRUPTIONS),
        "cbar": (cbar, cbar.counted),
        "adapted_c": (adapted.corrupted, corrupted.counted),
        "adapted_cbar": (adapted.cbar, cbar.counted),
    }
    single = {
        "clean": (clean, "error"),
        "p": (results.perturbed, "mean_flip_probability"),
        "adapted_clean": (adapted.clean, "error"),
    }
    rms, floor = "rms_calibration_error", "rms_noise_floor"
    return {
        **{key: part.mean_over(names, "error") for key, (part, names) in means.items()},
        **{key: part.metric(name) for key, (part, name) in single.items()},
        "calibration_clean": clean.metric(rms),
        "noise_floor_clean": clean.metric(floor),
        "calibrated_clean": clean.metric(f"calibrated.{rms}"),
        "calibration_c": corrupted.mean_over(corrupted.counted, rms),
        "noise_floor_c": corrupted.mean_over(corrupted.counted, floor),
        "calibrated_c": corrupted.mean_over(corrupted.counted, f"calibrated.{rms}"),
        "intervals": {
            **{key: part.interval_over(names, "error") for key, (part, names) in means.items()},
            **{key: part.interval(name) for key, (part, name) in single.items()},
        },
        "corruptions": {
            name: part.over_severities(name, "error")
            for part in (corrupted, cbar)
            for name in part.corruptions
        },
    }


def run(name: str, seed: int, data_dir: Path, work: Path, sets: list[str]) -> Run:
    """Trains and evaluates one run."""
    folder = work / f"{name}-seed{seed}"
    began, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    program(
        *("--dataset=cifar10", f"--data_dir={data_dir}", *sets, *NETWORK, *MEASURED),
        *("--epochs=10", "--precision=mixed_bfloat16"),
        *(RUNS[name] or (f"--method={name}",)),
        f"--seed={seed}",
        f"--workdir={folder}",
    )
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = now.ru_utime - used.ru_utime + now.ru_stime - used.ru_stime
    results = Results.from_json(json.loads((folder / "results.json").read_text()))
    return {
        "run": name,
        "seed": seed,
        "epochs": results.provenance["epochs"],
        # Of the last process that worked at it.
        "minutes": round((time.perf_counter() - began) / 60, 1),
        "cpu_minutes": round(cpu / 60, 1),
        **measured(results),
    }


def table(runs: list[Run]) -> str:
    """Returns all runs as Markdown, in percent.

    Several seeds: mean and sample deviation. One: in parentheses, where known, the 95 % interval
    over images.
    """
    titles = ["run", "epochs", "seeds", *COLUMNS.values(), "minutes: CPU, wall"]
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for name in RUNS:
        rows = [row for row in runs if row["run"] == name]
        if rows:
            cells = [name, str(rows[0]["epochs"]), str(len(rows))]
            cells += [_percent(rows, column) for column in COLUMNS]
            cells.append(", ".join(_whole(rows, cost) for cost in ("cpu_minutes", "minutes")))
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _percent(rows: list[Run], column: str) -> str:
    shares = [100 * row[column] for row in rows]
    text = f"{statistics.fmean(shares):.1f}"
    if len(rows) > 1:
        return f"{text} ± {statistics.stdev(shares):.1f}"
    bounds = rows[0].get("intervals", {}).get(column)
    return "{} ({:.1f} to {:.1f})".format(text, *(100 * x for x in bounds)) if bounds else text


def _whole(rows: list[Run], cost: str) -> str:
    minutes = sorted(row[cost] for row in rows)
    return " to ".join(dict.fromkeys(f"{end:.0f}" for end in (minutes[0], minutes[-1])))


def stored(path: Path) -> list[Run]:
    """Returns the runs that are done, by this process or another."""
    return json.loads(path.read_text()) if path.exists() else []


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dir", type=Path, help="TFDS directory with CIFAR-10")
    parser.add_argument("--work", type=Path, default=Path("runs/miniature"))
    parser.add_argument("--out", type=Path, default=RUNS_FILE)
    parser.add_argument("--only", default=",".join(RUNS), help="these runs, in this order")
    parser.add_argument("--seeds", default="1", help="of each run")
    parser.add_argument("--table", action="store_true", help="write the page, run nothing")
    options = parser.parse_args()
    if options.table:
        page = with_table(PAGE.read_text(), table(stored(options.out)))
        files.write_text_atomically(PAGE, page)
        return
    if options.data_dir is None:
        parser.error("--data_dir is needed, the TFDS directory with CIFAR-10")
    data_dir, work = options.data_dir.resolve(), options.work.resolve()
    sets = write_sets(data_dir, work)
    for seed in map(int, options.seeds.split(",")):
        for name in options.only.split(","):
            if not any((row["run"], row["seed"]) == (name, seed) for row in stored(options.out)):
                done = run(name, seed, data_dir, work, sets)
                rows = [*stored(options.out), done]
                files.write_text_atomically(options.out, json.dumps(rows, indent=1) + "\n")
                print(f"{name}, seed {seed}: done in {done['minutes']} min", flush=True)


if __name__ == "__main__":
    main()
