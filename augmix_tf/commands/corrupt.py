"""`--mode=corrupt`: writes the test images' -C, C-bar and -P benchmarks."""

from __future__ import annotations

from typing import Any

from augmix_tf import corruptions, robustness
from augmix_tf.commands import build
from augmix_tf.config import Devices, Request
from augmix_tf.corruptions import catalogue
from augmix_tf.errors import CommandError
from augmix_tf.training.callbacks import Counter


def run(request: Request) -> None:
    """Writes to `--corrupted_dir`, `--cbar_dir` and `--perturbed_dir`."""
    config, part = request.config, request.benchmark
    folders = config.corrupted_dir, config.cbar_dir, config.perturbed_dir
    if not any(folders):
        raise CommandError(
            "--mode=corrupt needs --corrupted_dir (for a -C benchmark), --cbar_dir (for C-bar) or "
            "--perturbed_dir (for -P)."
        )
    if "layout" in request.given and not any(folders[:2]):
        raise CommandError("--layout applies with --corrupted_dir or --cbar_dir only.")
    if part.names and len(list(filter(None, folders))) > 1:
        raise CommandError(
            "--names applies to one of --corrupted_dir, --cbar_dir and --perturbed_dir only."
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
    bar = robustness.CBAR_BENCHMARKS[catalogue.table_name(part.table, *source.image_size)]
    for folder, counted in ((config.corrupted_dir, robustness.CORRUPTIONS), (config.cbar_dir, bar)):
        if folder:
            manifest = corruptions.write_corrupted(
                folder,
                test.pixels,
                test.labels,
                names or counted,
                frost_dir=config.frost_dir,
                layout=part.layout,
                class_names=source.class_names,
                progress=Counter("corrupted images"),
                **shared,
            )
            print(f"wrote {folder}: {', '.join(sorted(manifest['files']))}")
    if config.perturbed_dir:
        names, counter = names or corruptions.PERTURBATIONS, Counter("sequences")
        manifest = corruptions.write_perturbed(
            config.perturbed_dir, test.pixels, names, progress=counter, **shared
        )
        print(f"wrote {config.perturbed_dir}: {', '.join(sorted(manifest['files']))}")
