"""What the readers of -C and -P benchmarks share: the sets, `.npy` files, folders, manifests."""

from __future__ import annotations

import collections
import itertools
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from augmix_tf import errors, robustness, runtime
from augmix_tf.data import class_folders

T = TypeVar("T")
Batch = tuple[np.ndarray, np.ndarray]
"""Images uint8 [N, H, W, 3] and their labels int64 [N]."""

BATCH = 500
_BATCH_BYTES = 64 * 2**20  # of float32 values, as of 111 images of 224x224 have
# The archives that the benchmarks were published in; unpacked, each may be a folder of its own.
_GROUPS = ("blur", "digital", "noise", "weather", "extra", "validation")


@dataclass(frozen=True)
class CorruptedSet:
    """A set of corrupted images, read or made only where it is asked for."""

    names: tuple[str, ...]  # the corruptions that it has, in the benchmark's order
    # Their origin, as `results.json` keeps it: "source" (official, generated or tfds),
    # "description", "images" (per cell) and, of generated ones, "seed", "table" and "versions".
    data: Mapping[str, Any]
    # (name, severity) -> batches of `batch_size` images and then the rest.
    cell: Callable[[str, int], Iterator[Batch]]
    severities: tuple[int, ...] = robustness.SEVERITIES  # those that it has, ascending

    @property
    def counted(self) -> tuple[str, ...]:
        """The corruptions that the benchmark's means are over."""
        return robustness.counted(self.names)

    @property
    def missing(self) -> tuple[str, ...]:
        """Those of the counted corruptions that it lacks."""
        return tuple(name for name in self.counted if name not in self.names)


@dataclass(frozen=True)
class PerturbedSet:
    """A -P set, read only where it is asked for."""

    names: tuple[str, ...]  # the perturbations that it has, those of the paper first
    data: Mapping[str, Any]  # as in `CorruptedSet`; "images" counts sequences
    # Name -> chunks uint8 [S, T, H, W, 3] of about `batch_size` frames, T constant.
    sequences: Callable[[str], Iterator[np.ndarray]]


def batch_size(image_size: Sequence[int]) -> int:
    """Returns how many images of (H, W) are predicted together: `BATCH`, of large ones fewer."""
    height, width = image_size
    return max(1, min(BATCH, _BATCH_BYTES // (height * width * 3 * 4)))


def taken(count: int, limit: int) -> int:
    """Returns how many of `count` examples `limit` leaves; 0 leaves all."""
    return min(limit, count) if limit else count


def folder_of(place: str | Path) -> Path:
    """Returns `place` as a path, or raises `ArgumentError` if it is no folder."""
    folder = Path(place)
    errors.require(folder.is_dir(), "a folder with a set", f"{folder}, which is none")
    return folder


# Arrays


def array_names(folder: Path, names: Iterable[str], benchmark: str) -> list[str]:
    """Returns those of `names` that have an `.npy` file which, by its manifest, is finished."""
    files = {f"{name}.npy": name for name in names if (folder / f"{name}.npy").exists()}
    return list(finished(folder, files, benchmark).values())


def open_arrays(
    folder: Path, names: Iterable[str], expected: str, fits: Callable[[np.ndarray], bool]
) -> dict[str, np.ndarray]:
    """Returns name -> `open_array` of `.npy` files, which must have the same number of rows."""
    arrays = _all_sound(names, lambda name: open_array(folder / f"{name}.npy", expected, fits))
    # The number that most files agree on: a file with fewer rows must not make all others wrong.
    counts = collections.Counter(map(len, arrays.values())).most_common(1)
    rows = counts[0][0] if counts else 0

    def check(name: str) -> None:
        count = len(arrays[name])
        if count != rows:
            problem = f"expected {rows} rows as in the other files; received {count}"
            raise errors.FileError(f"{folder / name}.npy: {problem}")

    _all_sound(arrays, check)
    return arrays


def open_array(path: Path, expected: str, fits: Callable[[np.ndarray], bool]) -> np.ndarray:
    """Returns an `.npy` file as an array whose rows are read from disk when they are used."""
    try:
        # Unlike numpy.load, it takes nothing but a complete .npy file.
        array = np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError, TypeError, OverflowError, EOFError) as error:
        reason = getattr(error, "strerror", None) or errors.first_line(error)
        problem = f"expected {expected}; received a missing, truncated or damaged file ({reason})"
        raise errors.FileError(f"{path}: {problem}") from error
    _require_fit(path, array, expected, fits)
    return array


def _require_fit(
    path: Path, array: np.ndarray, expected: str, fits: Callable[[np.ndarray], bool]
) -> None:
    if not fits(array):
        received = f"{array.dtype} {list(array.shape)}"
        raise errors.FileError(f"{path}: expected {expected}; received {received}")


def read_member(
    path: Path, name: str, expected: str, fits: Callable[[np.ndarray], bool]
) -> np.ndarray:
    """Returns an array of an `.npz` file, checked as by `open_array`."""
    try:
        with np.load(path, allow_pickle=False) as members:
            array = members[name]
    except Exception as error:  # a damaged archive raises errors of every kind
        reason = getattr(error, "strerror", None) or errors.first_line(error)
        problem = f"expected an .npz file with {name!r}, {expected}; received {reason}"
        raise errors.FileError(f"{path}: {problem}") from error
    _require_fit(path, array, expected, fits)
    return array


# Folders


def find(place: Path, names: Sequence[str]) -> dict[str, Path]:
    """Returns the folders of those `names` that are right in `place` or in a group."""
    places = {name: [place / name, *(place / group / name for group in _GROUPS)] for name in names}
    folders = {name: next(filter(Path.is_dir, paths), None) for name, paths in places.items()}
    return {name: folder for name, folder in folders.items() if folder is not None}


def severity_folders(folders: Mapping[str, Path]) -> dict[str, list[Path]]:
    """Returns the folders of severities 1 to 5 of each corruption.

    They are named 1 to 5 or, as by C-bar's script, by the five constants with two decimals.
    """

    def cells(name: str) -> list[Path]:
        folder = folders[name]
        constants = [path for path in folder.iterdir() if re.fullmatch(r"\d+\.\d\d", path.name)]
        if not constants:
            return [folder / str(severity) for severity in robustness.SEVERITIES]
        if len(constants) != len(robustness.SEVERITIES):
            names = ", ".join(sorted(path.name for path in constants))
            raise errors.FileError(f"{folder}: expected folders of 5 severities; received {names}")
        return sorted(constants, key=lambda path: float(path.name))

    return _all_sound(folders, cells)


def common_files(
    place: Path, cells: Mapping[str, Sequence[Path]], suffixes: tuple[str, ...]
) -> tuple[str, ...]:
    """Returns the files `<class>/<file>` that all folders of a benchmark hold, or refuses one.

    They are sorted by the name of the file. ImageNet's validation files are numbered in the
    official order, which mixes the classes: the first n files are a fair sample.
    """
    listings: dict[Path, tuple[str, ...]] = {}
    passed_over: list[Path] = []
    for folder in itertools.chain(*cells.values()):
        listings[folder] = ()
        if folder.is_dir():
            listing = class_folders.list_files(folder, suffixes)
            passed_over += listing.passed_over
            pairs = [(file, path.name) for path, files in listing.files.items() for file in files]
            # Each file comes once for every corruption and severity: they share one text.
            listings[folder] = tuple(sys.intern(f"{kind}/{file}") for file, kind in sorted(pairs))
    class_folders.report_passed_over(place, passed_over, suffixes)
    counts = collections.Counter(filter(None, listings.values()))
    # Of equally frequent listings the longest.
    common = max(counts, key=lambda files: (counts[files], len(files)), default=())

    def check(name: str) -> None:
        for folder in cells[name]:
            files = listings[folder]
            if files != common:
                missing, added = set(common) - set(files), set(files) - set(common)
                example = f"{min(missing)} is missing" if missing else f"{min(added)} is left over"
                problem = f"expected the same {len(common)} files as its neighbours"
                raise errors.FileError(f"{folder}: {problem}; received {len(files)} ({example})")

    if common:
        _all_sound(cells, check)
    return common


def centre(pixels: np.ndarray, image_size: tuple[int, int], path: Path) -> np.ndarray:
    """Cuts (H, W) out of the centre of [..., H', W', 3], or raises `FileError` if it is smaller."""
    sides = pixels.shape[-3:-1]
    if sides[0] < image_size[0] or sides[1] < image_size[1]:
        expected = f"{image_size[0]}x{image_size[1]} pixels or more"
        raise errors.FileError(f"{path}: expected {expected}; received {sides[0]}x{sides[1]}")
    top, left = (round((side - cut) / 2) for side, cut in zip(sides, image_size, strict=True))
    return pixels[..., top : top + image_size[0], left : left + image_size[1], :]


def read_ahead(
    paths: Sequence[Path], read: Callable[[Path], np.ndarray], size: int
) -> Iterator[list[np.ndarray]]:
    """Yields what `read` returns for each path, `size` at a time, and reads the next meanwhile."""
    pool = ThreadPoolExecutor(runtime.cores())
    waiting: collections.deque[list[Future[np.ndarray]]] = collections.deque()
    try:
        for first in range(0, len(paths), size):
            waiting.append([pool.submit(read, path) for path in paths[first : first + size]])
            if len(waiting) > 1:
                yield [future.result() for future in waiting.popleft()]
        while waiting:
            yield [future.result() for future in waiting.popleft()]
    finally:
        pool.shutdown(cancel_futures=True)


# Provenance


def provenance(folder: Path, benchmark: str, images: int, what: str) -> dict[str, Any]:
    """Returns `data` of a set in `folder`, generated if a manifest of ours lies there."""
    manifest = read_manifest(folder, benchmark)
    if manifest is None:
        text = f"{what} in {folder}, taken for the published ones (no manifest)"
        return {"source": "official", "description": text, "images": images}
    text = f"{what} in {folder}, not the published ones"
    if manifest.get("frost_source"):
        text += f"; frost from {manifest['frost_source'].replace('synthetic', 'a stand-in')}"
    data = {"source": "generated", "description": text, "images": images}
    settings = {key: manifest["settings"].get(key) for key in ("seed", "table")}
    return data | settings | {"versions": manifest.get("versions", {})}


def read_manifest(folder: Path, benchmark: str) -> dict[str, Any] | None:
    """Returns the manifest of a generated set of this benchmark, None where there is none."""
    path = folder / "manifest.json"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        received = manifest["settings"].get("benchmark")
        manifest["files"].keys()
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        problem = f"expected a manifest with settings and files; received a damaged file ({error})"
        raise errors.FileError(f"{path}: {problem}") from error
    errors.require(received == benchmark, f"a set of {benchmark} in {folder}", f"one of {received}")
    return manifest


def finished(folder: Path, files: Mapping[str, T], benchmark: str) -> dict[str, T]:
    """Returns those of `files` that the manifest of a set knows; without a manifest all."""
    manifest = read_manifest(folder, benchmark)
    return {n: file for n, file in files.items() if manifest is None or n in manifest["files"]}


def _all_sound(names: Iterable[str], open_one: Callable[[str], T]) -> dict[str, T]:
    """Returns name -> `open_one(name)`; its errors say which names can still be evaluated."""
    sound: dict[str, T] = {}
    problems: list[errors.FileError] = []
    for name in names:
        try:
            sound[name] = open_one(name)
        except errors.FileError as error:
            problems.append(error)
    if problems:
        more = f" (and {len(problems) - 1} more like it)" if problems[1:] else ""
        still = f"can still be evaluated: {', '.join(sound) or 'none'}"
        raise errors.FileError(f"{problems[0]}{more}; {still}") from problems[0]
    return sound
