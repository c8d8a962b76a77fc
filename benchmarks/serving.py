"""Latency of an exported model: 1, 8 and 64 images, as pixels and as PNG files.

    python -m benchmarks.serving [--model=wrn-40-2] [--calls=200] [--json=FILE]

Exports an untrained network (weights do not change the time), loads it as a server does and calls
the signatures in this process, in turn, so that changes in the machine's speed affect both. Prints
a table in Markdown. A client over the network waits longer.
"""

from __future__ import annotations

import tempfile
import time

import numpy as np
import tensorflow as tf

from augmix_tf.export.saved_model import export
from benchmarks import measure
from benchmarks.step import build

SIZES = (1, 8, 64)
SIDE = 32


def requests(images: np.ndarray) -> dict[str, dict[str, tf.Tensor]]:
    """The same images for both signatures."""
    files = [tf.io.encode_png(image).numpy() for image in images]
    return {
        "serving_default": {"images": tf.constant(images)},
        "serve_bytes": {"image_bytes": tf.constant(files)},
    }


def seconds(signatures: dict, batch: dict[str, dict[str, tf.Tensor]], calls: int) -> dict:
    """Time of each call, per signature, without the first one."""
    taken: dict[str, list[float]] = {name: [] for name in batch}
    for number in range(calls + 1):
        for name, inputs in batch.items():
            start = time.perf_counter()
            signatures[name](**inputs)["probabilities"].numpy()
            if number:
                taken[name].append(time.perf_counter() - start)
    return taken


def figures(taken: list[float], images: int) -> dict[str, float]:
    return {
        "p50_ms": 1e3 * float(np.quantile(taken, 0.5)),
        "p99_ms": 1e3 * float(np.quantile(taken, 0.99)),
        "images_per_second": images * len(taken) / sum(taken),
    }


def main() -> None:
    options = measure.arguments(__doc__, model="wrn-40-2", calls=200).parse_args()
    document: dict[str, object] = {"machine": measure.machine(), "model": options.model}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        version, _ = export(build(options.model), [f"class {i}" for i in range(10)], folder)
        signatures = tf.saved_model.load(str(version)).signatures
        random = np.random.default_rng(0)
        for size in SIZES:
            images = random.integers(0, 256, (size, SIDE, SIDE, 3), np.uint8)
            for name, taken in seconds(signatures, requests(images), options.calls).items():
                found = figures(taken, size)
                document[f"{name} {size}"] = found
                rows.append((name, size, found))
                print(f"{name} {size} done", flush=True)
    print(f"\n{options.model}, {options.calls} calls each, {document['machine']}\n")
    print("| signature | images | p50 | p99 | images/s |\n|---|---|---|---|---|")
    for name, size, row in rows:
        latency = f"{row['p50_ms']:.1f} ms | {row['p99_ms']:.1f} ms"
        print(f"| `{name}` | {size} | {latency} | {row['images_per_second']:.0f} |")
    measure.save(options.json, document)


if __name__ == "__main__":
    main()
