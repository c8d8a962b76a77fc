"""Whole -C and -P sets on disk, in the layout of the published files.

    -C: <corruption>.npy uint8 [5 N, H, W, 3], severity 1 first, and labels.npy [5 N], or
        <corruption>/<severity>/<class>/<id>.JPEG
    -P: <perturbation>.npy uint8 [N, T, H, W, 3]

Work is split into parts of a file (a severity, or less of it where pictures are large). A finished
part is never made again; `shard_index` and `shard_count` share the parts among processes or
machines that see the same folder, and whoever is last joins a file's parts.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from augmix_tf import checks
from augmix_tf.corruptions import catalogue, frost, pool, sequences, severities, storage
from augmix_tf.corruptions.arrays import (
    Images,
    Pictures,
    check_ids,
    check_labels,
    check_pictures,
    check_whole,
)
from augmix_tf.corruptions.picture_folders import PictureFolder, picture_names
from augmix_tf.corruptions.store import Part, SetFolder
from augmix_tf.metrics.names import FROST_SYNTHETIC, SEVERITIES

PART_BYTES = 64 * 2**20
BLOCK_BYTES = 4 * 2**20  # what a worker makes at a time
LAYOUTS = ("npy", "jpeg")

Progress = Callable[[int, int], None]


def write_corrupted(
    directory: str | Path,
    images: Pictures,
    labels: npt.NDArray[Any],
    names: Sequence[str] = catalogue.CORRUPTIONS,
    *,
    seed: int = 0,
    ids: Sequence[int] | npt.NDArray[Any] | None = None,
    table: str | None = None,
    frost_dir: str | Path | None = None,
    source: Mapping[str, str] | None = None,
    layout: str = "npy",
    class_names: Sequence[str] | None = None,
    workers: int | None = None,
    shard_index: int = 0,
    shard_count: int = 1,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Writes a -C set, or goes on with one that was interrupted.

    Where the frost photographs are missing, "frost" becomes "frost_synthetic": another file, which
    belongs in no headline number.

    Args:
        directory: folder of the set. It must be new, or hold this very set.
        images: uint8 [N, H, W, 3]; what lies on disk is read piece by piece.
        labels: whole numbers [N].
        names: corruptions to write.
        seed, ids, table, frost_dir: as for `corrupt`.
        source: what the images are ("dataset", "split", ...), for the manifest.
        layout: "npy": as CIFAR-10-C, every value as it was made. "jpeg": as ImageNet-C, a tenth of
            the bytes, at quality 85.
        class_names: names of the labels, which "jpeg" calls its folders by.
        workers: processes; without it one a core. With 1 nothing is started.
        shard_index: make every `shard_count`-th part, from this one on.
        shard_count: number of shards.
        progress: called with rows done and rows in all, of this shard; what an earlier run
            finished counts as done in the first call.

    Returns:
        The manifest, as in `manifest.json`: its "files" are the finished ones.

    Raises:
        CommandError: a malformed argument, or a folder with something else.
        RunError: the disk is full, a process died, ...
    """
    count = len(check_pictures(images))
    labels, numbers = check_labels(labels, count), check_ids(ids, count)
    checks.lookup("layout", layout, dict.fromkeys(LAYOUTS))
    names = _resolve_frost(_check_names(names, "corruption", catalogue.CATALOGUE), frost_dir)
    chosen = severities.table_name(table, *images.shape[1:3])
    settings = _settings("corruptions", images, ids, seed, chosen, source)
    parts: list[Part] = []
    for name, severity in itertools.product(names, SEVERITIES):
        make = functools.partial(
            catalogue.corrupt,
            name=name,
            severity=severity,
            seed=seed,
            table=chosen,
            frost_dir=frost_dir,
        )
        parts += _split(name, severity, count, images[:1].nbytes, make)
    shared, processes = _shared(parts, shard_index, shard_count), pool.worker_count(workers)
    if layout == "jpeg":
        pictures = picture_names(labels, numbers, class_names)
        store: SetFolder = PictureFolder(Path(directory), settings, pictures)
    else:
        store = SetFolder(Path(directory), settings)
    store.claim([*names, "labels"])
    store.put_labels(np.tile(labels, len(SEVERITIES)))
    return _write(store, parts, shared, images, numbers, processes, progress)


def write_perturbed(
    directory: str | Path,
    images: Pictures,
    names: Sequence[str] = sequences.PERTURBATIONS,
    *,
    seed: int = 0,
    ids: Sequence[int] | npt.NDArray[Any] | None = None,
    table: str | None = None,
    crop: int | None = None,
    source: Mapping[str, str] | None = None,
    workers: int | None = None,
    shard_index: int = 0,
    shard_count: int = 1,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Writes a -P set, or goes on with one that was interrupted.

    Args:
        directory: folder of the set. It must be new, or hold this very set.
        images: uint8 [N, H, W, 3]; what lies on disk is read piece by piece.
        names: perturbations to write.
        seed, ids, table, crop: as for `perturb`.
        source, workers, shard_index, shard_count, progress: as for `write_corrupted`.

    Returns:
        The manifest.

    Raises:
        CommandError: a malformed argument, or a folder with something else.
        RunError: the disk is full, a process died, ...
    """
    count = len(check_pictures(images))
    checks.require(count > 0, "at least one image", "none")
    chosen = severities.table_name(table, *images.shape[1:3])
    names = _check_names(names, "perturbation", sequences.TABLES[chosen])
    settings = _settings("perturbations", images, ids, seed, chosen, source) | {"crop": crop}
    parts: list[Part] = []
    for name in names:
        make = functools.partial(sequences.perturb, name=name, seed=seed, table=chosen, crop=crop)
        parts += _split(name, None, count, make(images=images[:1]).nbytes, make)
    shared, processes = _shared(parts, shard_index, shard_count), pool.worker_count(workers)
    store = SetFolder(Path(directory), settings)
    store.claim(names)
    return _write(store, parts, shared, images, check_ids(ids, count), processes, progress)


def _check_names(names: Sequence[str], kind: str, table: Mapping[str, Any]) -> list[str]:
    for name in names:
        checks.lookup(kind, name, table)
    checks.require(len(set(names)) == len(names), f"each {kind} once", list(names))
    return list(names)


def _resolve_frost(names: list[str], frost_dir: str | Path | None) -> list[str]:
    if "frost" not in names or frost.find_photographs(frost_dir) is not None:
        return names
    others = [name for name in names if name not in ("frost", FROST_SYNTHETIC)]
    return [*others, FROST_SYNTHETIC]


def _settings(
    benchmark: str,
    images: Pictures,
    ids: Sequence[int] | npt.NDArray[Any] | None,
    seed: int,
    table: str,
    source: Mapping[str, str] | None,
) -> dict[str, Any]:
    digest = storage.sha256_rows(images)
    numbers = storage.sha256_rows(check_ids(ids, len(images)))
    return {
        "benchmark": benchmark,
        "images": list(images.shape),
        "images_sha256": digest,
        "ids_sha256": numbers,
        "seed": check_whole("seed", seed, 0),
        "table": table,
        "source": dict(source or {}),
    }


def _split(
    file: str, severity: int | None, count: int, row_bytes: int, make: Callable[..., Images]
) -> Iterator[Part]:
    """Parts of the rows that `count` images give at one severity."""
    start = count * ((severity or 1) - 1)
    size = max(1, PART_BYTES // row_bytes)
    for first in range(0, count, size):
        rows = min(size, count - first)
        yield Part(file, severity, start + first, first, rows, row_bytes, make)


def _shared(parts: list[Part], shard_index: int, shard_count: int) -> list[Part]:
    check_whole("shard_count", shard_count, 1)
    check_whole("shard_index", shard_index, 0, shard_count - 1)
    return parts[shard_index::shard_count]


def _write(
    store: SetFolder,
    parts: list[Part],
    shared: list[Part],
    images: Pictures,
    ids: npt.NDArray[np.uint64],
    workers: int,
    progress: Progress | None,
) -> dict[str, Any]:
    """Makes the `shared` parts that are missing, and joins those files that are complete."""
    files = {file: list(group) for file, group in itertools.groupby(parts, lambda p: p.file)}
    finished = {file for file in files if store.is_finished(file)}
    missing = [p for p in shared if p.file not in finished and not store.has(p)]
    last = {part.file: part for part in missing}
    for file in [f for f in files if f not in finished and f not in last]:
        store.assemble(files[file])
    total = sum(part.rows for part in shared)
    done = total - sum(part.rows for part in missing)
    report = progress or (lambda done, total: None)
    report(done, total)
    blocks = [(part, rows) for part in missing for rows in _blocks(part)]
    made: list[Images] = []
    with contextlib.closing(pool.results(_tasks(missing, images, ids), workers)) as results:
        for (part, rows), block in zip(blocks, results, strict=True):
            made.append(block)
            if rows.stop == part.first_image + part.rows:
                store.put(part, np.concatenate(made))
                made = []
                if last[part.file] is part:
                    store.assemble(files[part.file])
            done += len(block)
            report(done, total)
    return store.manifest()


def _tasks(
    parts: list[Part], images: Pictures, ids: npt.NDArray[np.uint64]
) -> Iterator[Callable[[], Images]]:
    for part in parts:
        first = part.first_image
        # Encoded pictures are decoded by many together, on all cores.
        read = images[first : first + part.rows]
        for rows in _blocks(part):
            block = np.asarray(read[rows.start - first : rows.stop - first])
            yield functools.partial(part.make, block, ids=ids[rows])


def _blocks(part: Part) -> Iterator[slice]:
    """Slices of the images, as much as a worker makes at a time."""
    size = max(1, BLOCK_BYTES // part.row_bytes)
    end = part.first_image + part.rows
    return (slice(i, min(i + size, end)) for i in range(part.first_image, end, size))
