"""A -C set that is generated during evaluation, for users who have none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from augmix_tf import corruptions, errors
from augmix_tf.corruptions import arrays, catalogue, weather
from augmix_tf.data import benchmark
from augmix_tf.data.benchmark import Batch, CorruptedSet
from augmix_tf.data.images import ImageStore


def corrupted_set(
    store: ImageStore,
    *,
    seed: int = 0,
    table: str | None = None,
    frost_dir: str | Path | None = None,
    what: str = "the test images",
) -> CorruptedSet:
    """Returns a -C set of clean images, generated each time it is iterated over.

    The images are those that `corruptions.write_corrupted` with the same arguments writes.

    Args:
        store: the clean images; encoded images are decoded for each corruption and severity.
            Random choices follow from their `ids`.
        seed, table, frost_dir: as for `corruptions.corrupt`.
        what: the images, for the description.

    Returns:
        The 15 corruptions, or 14 without frost if its photographs are not available. Synthetic
        frost is left out because it enters no mean.

    Raises:
        ArgumentError: an argument is invalid, or `frost_dir` does not hold the photographs.
    """
    arrays.check_sliceable(store.pixels)
    errors.require(len(store) > 0, "at least one image", "none")
    ids = arrays.check_ids(store.ids, len(store))
    arrays.check_integer("seed", seed, 0)
    chosen = catalogue.table_name(table, *store.image_size)
    no_frost = weather.find_photographs(frost_dir) is None
    names = [n for n in corruptions.CORRUPTIONS if not (no_frost and n == "frost")]

    def cell(name: str, severity: int) -> Iterator[Batch]:
        first = 0
        for images in store.batches(benchmark.batch_size(store.image_size)):
            rows = slice(first, first + len(images))
            corrupted = corruptions.corrupt(
                images, name, severity, seed, ids[rows], chosen, frost_dir
            )
            yield corrupted, store.labels[rows].astype(np.int64)
            first += len(images)

    note = ", without frost: its photographs are not available" if no_frost else ""
    data = {
        "source": "generated",
        "description": f"generated from {what} during evaluation, not the published files{note}",
        "images": len(store),
        "seed": seed,
        "table": chosen,
        "versions": corruptions.versions(),
    }
    return CorruptedSet(tuple(names), data, cell)
