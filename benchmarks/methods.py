"""Trains, evaluates, exports and reloads every model with every method, and times it.

    python -m benchmarks.methods [--models=wrn,allconv] [--methods=augmix,cutmix] [--data_dir=DIR]
                                 [--train_limit=512] [--out=FILE.json]
    python -m benchmarks.methods --table [--out=FILE.json]

Each cell is one epoch of `main.py` on CIFAR-10 in a process of its own, and a second process that
reads back what the first one wrote. A row is stored if all checks passed; cells with a row are
skipped, so the same command resumes. `--table` writes the rows into docs/methods.md.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import datetime
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from augmix_tf import files, recipes
from augmix_tf.errors import ArgumentError, RunError, lookup
from benchmarks import measure

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "data" / "methods.json"
PAGE = ROOT / "docs" / "methods.md"
MARKS = ("<!-- table: begin -->", "<!-- table: end -->")

MODELS = ("wrn", "allconv", "densenet", "resnet50", "resnext")
VARIANTS: dict[str, tuple[str, ...]] = {
    "augmix no JSD": ("--method=augmix", "--nojsd"),
    "augmix 2 views": ("--method=augmix", "--views=2"),
    "augmix 4 views": ("--method=augmix", "--views=4"),
    "autoaugment + JSD": ("--method=augmix", "--mix_ops=autoaugment"),
    "augmix split BN": ("--method=augmix", "--split_bn"),
}
ADVERSARY_STEPS = 3
FLAGS: dict[str, tuple[str, ...]] = {
    **{name: (f"--method={name}",) for name in recipes.METHODS},
    "adversarial": ("--method=adversarial", f"--adversary_steps={ADVERSARY_STEPS}"),
    **VARIANTS,
}
BATCH_SIZE = 64
SETTINGS = ("--dataset=cifar10", "--epochs=1", "--eval_limit=200", "--nocorrupted")


@dataclasses.dataclass(frozen=True)
class Cell:
    """A model, and a method or variant of `FLAGS`."""

    model: str
    method: str

    @property
    def flags(self) -> tuple[str, ...]:
        return (f"--model={self.model}", *FLAGS[self.method])


def cells(models: Sequence[str] = (), methods: Sequence[str] = ()) -> list[Cell]:
    """Returns the cells in the order in which they are run.

    Without `methods`, all methods for each model, and the variants for `wrn` only.

    Raises:
        ArgumentError: unknown names, with the nearest.
    """
    for name in models:
        lookup("model", name, dict.fromkeys(MODELS))
    for name in methods:
        lookup("method", name, FLAGS)
    return [
        Cell(model, method)
        for model in models or MODELS
        for method in methods or FLAGS
        if methods or model == "wrn" or method not in VARIANTS
    ]


def run_cell(cell: Cell, settings: Sequence[str], folder: Path) -> dict[str, Any]:
    """Trains one cell in `folder`, checks its files, and returns its row.

    Returns:
        `model`, `method`; `peak_mb`, of the largest training process, in 10^6 bytes; `loss` of the
        epoch and `error` (0..1) after it; what `methods_check.check` returns.

    Raises:
        RunError: a process failed, or the check found a difference.
    """
    peak = run_python("main.py", *settings, *cell.flags, f"--workdir={folder}")
    run_python("-m", "benchmarks.methods_check", str(folder))
    with (folder / "metrics.csv").open(newline="") as file:
        *_, last = csv.DictReader(file)
    return {
        "model": cell.model,
        "method": cell.method,
        "peak_mb": peak / 1e6,
        "loss": float(last["loss"]),
        "error": float(last["test_error"]),
        **json.loads((folder / "checked.json").read_text()),
    }


def run_python(*arguments: str) -> int:
    """Runs Python on this checkout and returns the peak memory of its largest process in bytes."""
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            [sys.executable, *arguments], cwd=ROOT, stdout=output, stderr=subprocess.STDOUT
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        lines = output.read().strip().splitlines()
    if process.returncode:
        raise RunError(lines[-1] if lines else f"exit code {process.returncode}")
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def run(
    wanted: Iterable[Cell],
    out: Path,
    setting: dict[str, Any],
    run_one: Callable[[Cell, Path], dict[str, Any]],
) -> int:
    """Runs the cells that have no row in `out` yet, adds their rows, returns how many failed.

    All rows of a file share the setting: machine and sizes.
    """
    new = {"setting": setting, "rows": []}
    document = json.loads(out.read_text()) if out.exists() else new
    if document["setting"] != setting:
        raise ArgumentError(f"{out} holds rows of {document['setting']}, not of {setting}")
    done = {Cell(row["model"], row["method"]) for row in document["rows"]}
    failed = 0
    for cell in wanted:
        if cell in done:
            continue
        with tempfile.TemporaryDirectory(prefix="augmix_methods_") as folder:
            try:
                row = run_one(cell, Path(folder) / "run")
            except RunError as error:
                print(f"{cell.model}, {cell.method}: FAILED: {error}", flush=True)
                failed += 1
                continue
        row["date"] = datetime.date.today().isoformat()
        document["rows"].append(row)
        files.write_text_atomically(out, json.dumps(document, indent=1) + "\n")
        print(f"{cell.model}, {cell.method}: {json.dumps(row)}", flush=True)
    return failed


def table(document: dict[str, Any], models: Sequence[str], methods: Sequence[str]) -> str:
    """Returns the rows as Markdown: step times and memory by method and model."""
    setting, rows = document["setting"], document["rows"]
    machine = setting["machine"]
    dates = sorted({row["date"] for row in rows})
    worst = max(max(row["keras_difference"], row["saved_model_difference"]) for row in rows)
    lines = [
        f"{len(rows)} cells, {' to '.join(sorted({dates[0], dates[-1]}))}, "
        f"{machine['processor']}, {machine['cores']} cores, TensorFlow {machine['tensorflow']}, "
        f"Python {machine['python']}; {setting['train_limit']} training images, batch "
        f"{setting['batch_size']}. Largest difference of a probability after reloading: "
        f"{worst:.1e}."
    ]
    columns: dict[str, Callable[[dict[str, Any]], str]] = {
        f"Milliseconds per step of {setting['batch_size']} images, elapsed / CPU": (
            lambda row: f"{row['step_ms']:,.0f} / {row['step_cpu_ms']:,.0f}"
        ),
        "Peak memory of the training process, MB": lambda row: f"{row['peak_mb']:,.0f}",
    }
    for title, shown in columns.items():
        cells = {(row["method"], row["model"]): shown(row) for row in rows}
        lines += [
            "",
            f"{title}:",
            "",
            f"| | {' | '.join(models)} |",
            "|---" * (len(models) + 1) + "|",
        ]
        for method in methods:
            if any((method, model) in cells for model in models):
                texts = (cells.get((method, model), "-") for model in models)
                lines.append(f"| {method} | {' | '.join(texts)} |")
    return "\n".join(lines)


def with_table(page: str, text: str) -> str:
    """Returns the page with `text` between its two marks."""
    for mark in MARKS:
        if page.count(mark) != 1:
            raise RunError(
                f"Expected {mark} once in the page; received it {page.count(mark)} times"
            )
    before, rest = page.split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    return f"{before}{MARKS[0]}\n{text}\n{MARKS[1]}{after}"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = {"type": lambda text: text.split(","), "default": []}
    parser.add_argument("--models", **names, help="by default all five")
    parser.add_argument("--methods", **names, help=f"of: {'; '.join(FLAGS)}")
    parser.add_argument("--data_dir", help="TFDS directory with CIFAR-10")
    parser.add_argument("--train_limit", type=int, default=512)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="write docs/methods.md, run nothing")
    options = parser.parse_args()
    if options.table:
        text = table(json.loads(options.out.read_text()), MODELS, tuple(FLAGS))
        files.write_text_atomically(PAGE, with_table(PAGE.read_text(), text))
        print(text)
        return 0
    machine = measure.machine()
    del machine["load_before"]
    settings = [*SETTINGS, f"--batch_size={BATCH_SIZE}", f"--train_limit={options.train_limit}"]
    settings += [f"--data_dir={options.data_dir}"] if options.data_dir else []
    failed = run(
        cells(options.models, options.methods),
        options.out,
        {"machine": machine, "train_limit": options.train_limit, "batch_size": BATCH_SIZE},
        lambda cell, folder: run_cell(cell, settings, folder),
    )
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (ArgumentError, RunError) as error:
        sys.exit(f"benchmarks.methods: {error}")
