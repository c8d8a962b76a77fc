"""The paper's claim in miniature: methods with the same small network on real CIFAR-10.

    python -m benchmarks.miniature --data_dir=FOLDER [--only=augmix,standard] [--seeds=1,2,3]

WRN-16-1, 10 epochs of batch 128, bfloat16, 1,000 training images held out for the temperature,
everything else as in the recipes. Evaluated on the 10,000 clean test images and on sets made from
the first 1,000 of them: CIFAR-10-C with its four extra corruptions, C-bar and CIFAR-10-P; clean and
corrupted images once more with adapted batch normalization. The same command resumes after an
interruption. Configuration, metrics and results of a finished run are copied to OUT/<run>/.

    python main.py --mode=report --workdirs=OUT/<run>,... --workdir=OUT

makes tables and plots of them.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

from augmix_tf import files, robustness

NETWORK = ("--depth=16", "--widen_factor=1", "--batch_size=128")
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
}
CORRUPTED_IMAGES = 1000
SETS = {"corrupted_dir": "cifar10-c", "cbar_dir": "cifar10-c-bar", "perturbed_dir": "cifar10-p"}
# The results last: their file marks a finished run.
KEPT = ("config.json", "metrics.csv", "cost.json", "results.json")


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


def run(name: str, seed: int, data_dir: Path, work: Path, out: Path, sets: list[str]) -> None:
    """Trains and evaluates one run, unless it is finished, and copies its results."""
    kept = out / f"{name}-seed{seed}"
    if (kept / "results.json").exists():
        return
    folder = work / kept.name
    began, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    program(
        *("--dataset=cifar10", f"--data_dir={data_dir}", *sets, *NETWORK, *MEASURED),
        *("--epochs=10", "--precision=mixed_bfloat16"),
        *(RUNS[name] or (f"--method={name}",)),
        f"--seed={seed}",
        f"--workdir={folder}",
    )
    cost = {"minutes": (time.perf_counter() - began) / 60}
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    cost["cpu_minutes"] = (now.ru_utime - used.ru_utime + now.ru_stime - used.ru_stime) / 60
    (folder / "cost.json").write_text(json.dumps({n: round(v, 1) for n, v in cost.items()}) + "\n")
    kept.mkdir(parents=True, exist_ok=True)
    for file in KEPT:
        text = (folder / file).read_text()
        # Paths of one machine mean nothing on another.
        for place, word in ((data_dir, "DATA_DIR"), (work, "WORK")):
            text = text.replace(str(place), word)
        files.write_text_atomically(kept / file, text)
    print(f"{kept.name}: done in {cost['minutes']:.0f} min", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dir", type=Path, required=True, help="TFDS directory with CIFAR-10")
    parser.add_argument("--work", type=Path, default=Path("runs/miniature"))
    parser.add_argument("--out", type=Path, default=Path("docs/runs"))
    parser.add_argument("--only", default=",".join(RUNS), help="these runs, in this order")
    parser.add_argument("--seeds", default="1", help="of each run")
    options = parser.parse_args()
    data_dir, work = options.data_dir.resolve(), options.work.resolve()
    sets = write_sets(data_dir, work)
    for seed in map(int, options.seeds.split(",")):
        for name in options.only.split(","):
            run(name, seed, data_dir, work, options.out, sets)


if __name__ == "__main__":
    main()
