"""`--mode=corrupt`: writes the test images' -C benchmark, -P benchmark or both."""

from __future__ import annotations

from typing import Any

from augmix_tf import corruptions
from augmix_tf.commands import build
from augmix_tf.errors import CommandError
from augmix_tf.request import Devices, Request
from augmix_tf.training.progress import Counter


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
    test = source.test
    shared: dict[str, Any] = {
        # Not the default seed of a run: runs with other seeds share a benchmark.
        "seed": config.seed if "seed" in request.given else 0,
        "ids": test.ids,
        "table": part.table,
        "source": {"dataset": source.name, "split": "test", "data": source.description},
        "workers": part.workers,
        "shard_index": part.shard_index,
        "shard_count": part.shard_count,
    }
    if config.corrupted_dir:
        manifest = corruptions.write_corrupted(
            config.corrupted_dir,
            test.pixels,
            test.labels,
            part.names or corruptions.CORRUPTIONS,
            frost_dir=config.frost_dir,
            layout=part.layout,
            class_names=source.class_names,
            progress=Counter("corrupted images"),
            **shared,
        )
        _print_written(config.corrupted_dir, manifest)
    if config.perturbed_dir:
        manifest = corruptions.write_perturbed(
            config.perturbed_dir,
            test.pixels,
            part.names or corruptions.PERTURBATIONS,
            progress=Counter("sequences"),
            **shared,
        )
        _print_written(config.perturbed_dir, manifest)


def _print_written(place: str, manifest: dict[str, Any]) -> None:
    print(f"wrote {place}: {', '.join(sorted(manifest['files']))}")
