"""The paper's claim in miniature: its methods with the same small network on real CIFAR-10.

    python -m benchmarks.miniature --data_dir=FOLDER [--work=runs/miniature] [--out=docs/results]

WRN-16-1, 10 epochs of batch 128, everything else as in the recipes. Evaluated on the 10,000 clean
test images and on a CIFAR-10-C made from the first 1,000 of them. The same command resumes after an
interruption. Configuration, metrics and results of a finished run are copied to OUT/<run>/.

    python main.py --mode=report --workdirs=OUT/<run>,... --workdir=OUT

makes tables and plots of them.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

from augmix_tf import files

SIZES = ("--depth=16", "--widen_factor=1", "--epochs=10", "--batch_size=128")
METHODS = {
    "standard": (),
    "augmix": (),
    "augmix-nojsd": ("--method=augmix", "--nojsd"),
    "cutout": (),
    "mixup": (),
    "cutmix": (),
    "autoaugment": (),
}
# One seed of each first, then two more where it matters.
RUNS = [(name, 1) for name in METHODS] + [
    (name, seed) for seed in (2, 3) for name in ("standard", "augmix")
]
CORRUPTED_IMAGES = 1000
# The results last: their file marks a finished run.
KEPT = ("config.json", "metrics.csv", "results.json")


def program(*arguments: str) -> None:
    """Runs `python main.py` with this process's stdout and stderr."""
    subprocess.run([sys.executable, "main.py", *arguments], check=True)


def run(name: str, seed: int, data_dir: Path, work: Path, out: Path) -> None:
    """Trains and evaluates one run, unless it is finished, and copies its results."""
    kept = out / f"{name}-seed{seed}"
    if (kept / "results.json").exists():
        return
    folder, corrupted = work / kept.name, work / "cifar10-c"
    began = time.perf_counter()
    program(
        *("--dataset=cifar10", f"--data_dir={data_dir}", f"--corrupted_dir={corrupted}"),
        *(METHODS[name] or (f"--method={name}",)),
        *SIZES,
        f"--seed={seed}",
        f"--workdir={folder}",
    )
    kept.mkdir(parents=True, exist_ok=True)
    for file in KEPT:
        text = (folder / file).read_text()
        # Paths of one machine mean nothing on another.
        for place, word in ((data_dir, "DATA_DIR"), (work, "WORK")):
            text = text.replace(str(place), word)
        files.write_text_atomically(kept / file, text)
    print(f"{kept.name}: done in {(time.perf_counter() - began) / 60:.0f} min", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data_dir", type=Path, required=True, help="TFDS directory with CIFAR-10")
    parser.add_argument("--work", type=Path, default=Path("runs/miniature"))
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    options = parser.parse_args()
    data_dir, work = options.data_dir.resolve(), options.work.resolve()
    program(
        *("--mode=corrupt", "--dataset=cifar10", f"--data_dir={data_dir}"),
        f"--eval_limit={CORRUPTED_IMAGES}",
        f"--corrupted_dir={work / 'cifar10-c'}",
    )
    for name, seed in RUNS:
        run(name, seed, data_dir, work, options.out)


if __name__ == "__main__":
    main()
