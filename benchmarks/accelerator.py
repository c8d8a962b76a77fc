"""What a GPU makes of the program, in under ten minutes: one JSON file to send to us.

    python -m benchmarks.accelerator [--out=accelerator.json] [--models=wrn-16-1,wrn-40-2]

Runs the quick start, then whole training steps with one and three views in float32 and bfloat16,
fed by the pipeline (`benchmarks.step`), and says which devices did it. Each part is a process of
its own; a part that fails is in the file with its last lines.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import measure

ROOT = Path(__file__).resolve().parents[1]
DEVICES = """
import json, tensorflow as tf
devices = tf.config.list_physical_devices()
details = [tf.config.experimental.get_device_details(device) for device in devices]
print(json.dumps([{"name": d.name} | {k: str(v) for k, v in e.items()}
                  for d, e in zip(devices, details)]))
"""


def part(arguments: list[str], folder: Path, result: Path | None) -> dict[str, Any]:
    """Runs Python in a folder and returns seconds, and the JSON file that it wrote or printed."""
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "2"},
        capture_output=True,
        text=True,
    )
    answer: dict[str, Any] = {"seconds": round(time.perf_counter() - began, 1)}
    if done.returncode:
        return answer | {"failed": (done.stdout + done.stderr).splitlines()[-20:]}
    text = result.read_text() if result else done.stdout.splitlines()[-1]
    return answer | {"result": json.loads(text)}


def main() -> None:
    options = measure.arguments(
        __doc__, out="accelerator.json", models="wrn-16-1,wrn-40-2", rounds=3
    ).parse_args()
    document: dict[str, Any] = {"machine": measure.machine()}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        steps = folder / "steps.json"
        step = ["-m", "benchmarks.step", f"--models={options.models}", f"--json={steps}"]
        parts: dict[str, tuple[list[str], Path | None]] = {
            "devices": (["-c", DEVICES], None),
            "quick_start": ([str(ROOT / "main.py")], folder / "runs/quick_start/summary.json"),
            "steps": ([*step, f"--rounds={options.rounds}"], steps),
        }
        for title, (arguments, result) in parts.items():
            document[title] = part(arguments, folder, result)
            Path(options.out).write_text(json.dumps(document, indent=2) + "\n")
            what = "failed" if "failed" in document[title] else "done"
            print(f"{title}: {what} in {document[title]['seconds']} s", flush=True)
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
