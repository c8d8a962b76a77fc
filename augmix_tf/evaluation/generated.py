"""A -C set that is made while it is evaluated, for users who have none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from augmix_tf import checks, corruptions
from augmix_tf.corruptions import arrays, frost, severities, store
from augmix_tf.data import benchmark
from augmix_tf.data.benchmark import Batch, CorruptedSet


def corrupted_set(
    images: arrays.Pictures,
    labels: np.ndarray,
    *,
    seed: int = 0,
    ids: Sequence[int] | np.ndarray | None = None,
    table: str | None = None,
    frost_dir: str | Path | None = None,
    what: str = "the test images",
) -> CorruptedSet:
    """Returns a -C set of clean images, whose cells are made each time they are asked for.

    A cell holds what `corruptions.write_corrupted` with the same arguments writes.

    Args:
        images: uint8 [N, H, W, 3]; encoded pictures are decoded once for each cell.
        labels: whole numbers [N].
        seed, ids, table, frost_dir: as for `corruptions.corrupt`.
        what: the images, for the description.

    Returns:
        The 15 corruptions; 14 where the photographs for frost are missing. Frost's stand-in is
        not among them, as it enters no mean.

    Raises:
        CommandError: a malformed argument, or a `frost_dir` without the photographs.
    """
    count = len(arrays.check_pictures(images))
    checks.require(count > 0, "at least one image", "none")
    classes = np.asarray(labels)
    sound = classes.shape == (count,) and classes.dtype.kind in "iu"
    checks.require(sound, f"labels [{count}] of integers", f"{classes.dtype} {classes.shape}")
    numbers = arrays.check_ids(ids, count)
    arrays.check_whole("seed", seed, 0)
    chosen = severities.table_name(table, *images.shape[1:3])
    no_frost = frost.find_photographs(frost_dir) is None
    names = [n for n in corruptions.CORRUPTIONS if not (no_frost and n == "frost")]

    def cell(name: str, severity: int) -> Iterator[Batch]:
        first = 0
        for block in benchmark.blocks(images, benchmark.batch_size(images.shape[1:3])):
            rows = slice(first, first + len(block))
            made = corruptions.corrupt(
                block, name, severity, seed, numbers[rows], chosen, frost_dir
            )
            yield made, classes[rows].astype(np.int64)
            first += len(block)

    without = ", without frost for want of its photographs" if no_frost else ""
    data = {
        "source": "generated",
        "description": f"made of {what} while evaluating, not the published files{without}",
        "images": count,
        "seed": seed,
        "table": chosen,
        "versions": store.versions(),
    }
    return CorruptedSet(tuple(names), data, cell)
