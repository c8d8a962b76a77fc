"""What the readers of -C and -P sets share: the sets themselves, `.npy` files and manifests."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from augmix_tf import errors, robustness

T = TypeVar("T")
Batch = tuple[np.ndarray, np.ndarray]
"""Images uint8 [N, H, W, 3] and their labels int64 [N]."""

BATCH = 500
_BATCH_BYTES = 64 * 2**20  # of float32 values, as of 111 images of 224x224 have
# The last ones are evaluated where a set has them, but enter no mean.
CORRUPTIONS = (
    *robustness.CORRUPTIONS,
    *robustness.EXTRA_CORRUPTIONS,
    robustness.FROST_SYNTHETIC,
)


@dataclass(frozen=True)
class CorruptedSet:
    """A -C set, read or made only where it is asked for.

    Attributes:
        names: the corruptions that are there, in the benchmark's order.
        data: where they come from, as `results.json` keeps it: "source" (official, generated or
            tfds), "description", "images" (per cell) and, of generated ones, "seed", "table" and
            "versions".
        cell: (name, severity 1..5) -> batches of `batch_size` images and then the rest, in the
            order of the set.
    """

    names: tuple[str, ...]
    data: Mapping[str, Any]
    cell: Callable[[str, int], Iterator[Batch]]

    @property
    def missing(self) -> tuple[str, ...]:
        """Those of the 15 counted corruptions that are not there."""
        return tuple(name for name in robustness.CORRUPTIONS if name not in self.names)


@dataclass(frozen=True)
class PerturbedSet:
    """A -P set, read only where it is asked for.

    Attributes:
        names: the perturbations that are there, those of the paper first.
        data: as in `CorruptedSet`; "images" is the number of sequences of each perturbation.
        sequences: name -> chunks uint8 [S, T, H, W, 3] of about `batch_size` frames, in the order
            of the set; T is the same in all chunks of a name.
    """

    names: tuple[str, ...]
    data: Mapping[str, Any]
    sequences: Callable[[str], Iterator[np.ndarray]]


def batch_size(image_size: Sequence[int]) -> int:
    """Returns how many images are predicted together: `BATCH`, or fewer where they are large.

    Args:
        image_size: height and width; 96x96 is the largest square that leaves `BATCH`.
    """
    height, width = image_size
    return max(1, min(BATCH, _BATCH_BYTES // (height * width * 3 * 4)))


def taken(count: int, limit: int) -> int:
    """Returns how many of `count` examples `limit` leaves; 0 leaves all.

    Raises:
        ArgumentError: a negative limit.
    """
    errors.require(limit >= 0, "eval_limit of 0 (all) or more", limit)
    return min(limit, count) if limit else count


def folder_of(place: str | Path) -> Path:
    """Returns `place` as a path.

    Raises:
        ArgumentError: it is no folder.
    """
    folder = Path(place).expanduser()
    errors.require(folder.is_dir(), "a folder with a set", f"{folder}, which is none")
    return folder


def all_sound(names: Iterable[str], open_one: Callable[[str], T]) -> dict[str, T]:
    """Returns name -> `open_one(name)`.

    Raises:
        FileError: `open_one` raised one; the message says which names can still be evaluated.
    """
    sound: dict[str, T] = {}
    problems: list[errors.FileError] = []
    for name in names:
        try:
            sound[name] = open_one(name)
        except errors.FileError as error:
            problems.append(error)
    if problems:
        more = f" (and {len(problems) - 1} more like it)" if problems[1:] else ""
        raise errors.FileError(f"{problems[0]}{more}; {still(sound)}") from problems[0]
    return sound


def still(names: Iterable[str]) -> str:
    """Says which names can still be evaluated."""
    return f"can still be evaluated: {', '.join(names) or 'none'}"


def open_array(path: Path, wanted: str, fits: Callable[[np.ndarray], bool]) -> np.ndarray:
    """Returns an `.npy` file as an array whose rows are read from disk when they are used.

    Args:
        path: the file.
        wanted: what it is to hold, for the message.
        fits: tells whether an array of this type and shape is that; it reads no values.

    Raises:
        FileError: names the file, what was wanted and what came.
    """
    try:
        # Unlike numpy.load, it takes nothing but a whole .npy file.
        array = np.lib.format.open_memmap(path, mode="r")
    except FileNotFoundError as error:
        raise errors.FileError(f"{path}: expected {wanted}; received no such file") from error
    except (OSError, ValueError, TypeError, OverflowError, EOFError) as error:
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        text = f"{path}: expected {wanted}; received a truncated or damaged file ({reason})"
        raise errors.FileError(text) from error
    if not fits(array):
        raise errors.FileError(
            f"{path}: expected {wanted}; received {array.dtype} {list(array.shape)}"
        )
    return array


def provenance(folder: Path, benchmark: str, images: int, what: str) -> dict[str, Any]:
    """Returns `data` of a set in `folder`, generated if a manifest of ours lies there.

    Args:
        folder: of the set.
        benchmark: "corruptions" or "perturbations".
        images: that are used of each file or severity.
        what: the files, in a few words.
    """
    manifest = read_manifest(folder, benchmark)
    if manifest is None:
        text = f"{what} in {folder}, taken for the published ones (no manifest)"
        return {"source": "official", "description": text, "images": images}
    text = f"{what} in {folder}, not the published ones"
    if manifest.get("frost_source"):
        text += f"; frost from {manifest['frost_source'].replace('synthetic', 'a stand-in')}"
    return {
        "source": "generated",
        "description": text,
        "images": images,
        "seed": manifest["settings"].get("seed"),
        "table": manifest["settings"].get("table"),
        "versions": manifest.get("versions", {}),
    }


def read_manifest(folder: Path, benchmark: str) -> dict[str, Any] | None:
    """Returns the manifest of a generated set, None where there is none.

    Raises:
        ArgumentError: it is of the other benchmark.
        FileError: it is damaged.
    """
    path = folder / "manifest.json"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise errors.FileError(
            f"{path}: expected a manifest; received a damaged file ({error})"
        ) from error
    parts = [manifest.get(key) for key in ("settings", "files")] if type(manifest) is dict else []
    if not parts or not all(isinstance(part, dict) for part in parts):
        wanted = "Expected a manifest with settings and files"
        raise errors.FileError(f"{path}: {wanted}; received another or damaged one")
    found = manifest["settings"].get("benchmark")
    errors.require(found == benchmark, f"a set of {benchmark} in {folder}", f"one of {found}")
    return manifest


def finished(folder: Path, found: Mapping[str, T], benchmark: str) -> dict[str, T]:
    """Returns what was `found` of a set by name, without what its manifest does not hold yet."""
    manifest = read_manifest(folder, benchmark)
    return {n: place for n, place in found.items() if manifest is None or n in manifest["files"]}


def array_names(folder: Path, names: Iterable[str], benchmark: str) -> list[str]:
    """Returns those of `names` whose `.npy` file is there and, by its manifest, finished."""
    there = {f"{name}.npy": name for name in names if (folder / f"{name}.npy").exists()}
    return list(finished(folder, there, benchmark).values())
