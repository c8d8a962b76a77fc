"""`--mode=corrupt`: writes the test images' -C benchmark, -P benchmark or both."""

from __future__ import annotations

from typing import Any

from augmix_tf import corruptions
from augmix_tf.commands import build
from augmix_tf.config import Devices, Request
from augmix_tf.errors import CommandError
from augmix_tf.training.callbacks import Counter


def run(request: Request) -> None:
    """Writes to `--corrupted_dir` and `--perturbed_dir`."""
    config, part = request.config, request.benchmark
    if not (config.corrupted_dir or config.perturbed_dir):
        raise CommandError(
            "--mode=corrupt needs --corrupted_dir (for a -C benchmark) or --perturbed_dir (for -P)."
        )
    if part.names and config.corrupted_dir and config.perturbed_dir:
        raise CommandError(
            "--names applies to either --corrupted_dir or --perturbed_dir, not both."
        )
    build.strategy(Devices("none"))
    source = build.load_test_images(config).source
    test, names = source.test, part.names
    shared: dict[str, Any] = {
        # Not the default seed of a run: runs with other seeds share a benchmark.
        "seed": config.seed if "seed" in request.given else 0,
        "ids": test.ids,
        "source": {"dataset": source.name, "split": "test", "data": source.description},
    }
    shared |= {n: getattr(part, n) for n in ("table", "workers", "shard_index", "shard_count")}
    if config.corrupted_dir:
        manifest = corruptions.write_corrupted(
            config.corrupted_dir,
            test.pixels,
            test.labels,
            names or corruptions.CORRUPTIONS,
            frost_dir=config.frost_dir,
            layout=part.layout,
            class_names=source.class_names,
            progress=Counter("corrupted images"),
            **shared,
        )
        print(f"wrote {config.corrupted_dir}: {', '.join(sorted(manifest['files']))}")
    if config.perturbed_dir:
        names, counter = names or corruptions.PERTURBATIONS, Counter("sequences")
        manifest = corruptions.write_perturbed(
            config.perturbed_dir, test.pixels, names, progress=counter, **shared
        )
        print(f"wrote {config.perturbed_dir}: {', '.join(sorted(manifest['files']))}")
