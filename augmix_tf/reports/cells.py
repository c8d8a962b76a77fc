"""The cells of a corrupted evaluation (corruption x severity): their order, names and means."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Bins = Sequence[Mapping[str, float]]

# The 15 that count, in the benchmark's order and groups, with names that fit over a column.
GROUPS: dict[str, dict[str, str]] = {
    "noise": {"gaussian_noise": "Gauss.", "shot_noise": "shot", "impulse_noise": "impulse"},
    "blur": {
        "defocus_blur": "defocus",
        "glass_blur": "glass",
        "motion_blur": "motion",
        "zoom_blur": "zoom",
    },
    "weather": {"snow": "snow", "frost": "frost", "fog": "fog", "brightness": "bright"},
    "digital": {
        "contrast": "contrast",
        "elastic_transform": "elastic",
        "pixelate": "pixelate",
        "jpeg_compression": "JPEG",
    },
}
SHORT = {name: short for names in GROUPS.values() for name, short in names.items()}
COUNTED = tuple(SHORT)
GROUP_OF = {name: group for group, names in GROUPS.items() for name in names}
SEVERITIES = 5
BINS = 15  # of a reliability diagram, equally wide


def measure(measures: Mapping[str, Any], key: str) -> float | None:
    """Returns one measure; `key` may be dotted, as in `calibrated.nll`. None: not there."""
    value: Any = measures
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def mean_of(values: Iterable[float | None]) -> float | None:
    """Returns the plain mean; None where a value is missing, or all are."""
    found = list(values)
    whole = [value for value in found if value is not None]
    return math.fsum(whole) / len(whole) if whole and len(whole) == len(found) else None


def counted_in(corrupted: Mapping[str, Any]) -> list[str]:
    """Returns the corruptions that a document counts, in the benchmark's order."""
    counted = corrupted.get("counted") or []
    return [name for name in COUNTED if name in counted]


def uncounted_in(corrupted: Mapping[str, Any]) -> list[str]:
    """Returns the corruptions that were measured but count in no mean."""
    return [name for name in corrupted.get("corruptions") or {} if name not in COUNTED]


def over_severities(corrupted: Mapping[str, Any], name: str, key: str) -> float | None:
    """Returns the mean over the severities of a measure of one corruption."""
    row = (corrupted.get("corruptions") or {}).get(name) or []
    return mean_of(measure(cell, key) for cell in row)


def over_corruptions(corrupted: Mapping[str, Any], names: Iterable[str], key: str) -> float | None:
    """Returns the mean over corruptions of the mean over severities."""
    return mean_of([over_severities(corrupted, name, key) for name in names])


def at_severity(
    corrupted: Mapping[str, Any], names: Iterable[str], key: str, severity: int
) -> float | None:
    """Returns the mean over corruptions at one severity, 1 to 5."""
    cells = corrupted.get("corruptions") or {}
    return mean_of(
        measure(cells[name][severity - 1], key) if name in cells else None for name in names
    )


def profile(
    results: Mapping[str, Any], names: Sequence[str], key: str
) -> list[tuple[int, float | None]]:
    """Returns (severity, mean over corruptions) from 0, which is the clean test set, to 5."""
    corrupted = results.get("corrupted") or {}
    clean = measure(results.get("clean") or {}, key)
    means = [at_severity(corrupted, names, key, s) for s in range(1, SEVERITIES + 1)]
    return list(enumerate([clean, *means]))


def reliability_of(corrupted: Mapping[str, Any], names: Iterable[str]) -> Bins:
    """Returns the reliability bins of all cells of `names` together."""
    cells = corrupted.get("corruptions") or {}
    return pooled(cell.get("reliability") or [] for name in names for cell in cells.get(name, []))


def pooled(diagrams: Iterable[Bins]) -> list[dict[str, float]]:
    """Returns one diagram of the images of several: means weighted by the images in a bin.

    Args:
        diagrams: bins with `confidence`, `accuracy` and `count`, cut at multiples of 1/15.
    """
    sums: dict[int, list[float]] = {}
    for entry in (entry for bins in diagrams for entry in bins if entry["count"] > 0):
        place = min(max(math.ceil(entry["confidence"] * BINS), 1), BINS)
        total = sums.setdefault(place, [0.0, 0.0, 0.0])
        for i, value in enumerate((entry["confidence"], entry["accuracy"], 1.0)):
            total[i] += entry["count"] * value
    return [
        {"confidence": confidence / count, "accuracy": accuracy / count, "count": count}
        for _, (confidence, accuracy, count) in sorted(sums.items())
    ]


def set_name(names: Sequence[str]) -> str:
    """Says of which corruptions a mean is: `15 corruptions`, or how many and which lack.

    >>> set_name(COUNTED[:-1])
    '14 of 15 corruptions, without jpeg_compression'
    """
    absent = [name for name in COUNTED if name not in names]
    if not absent:
        return f"{len(COUNTED)} corruptions"
    said = f"{len(COUNTED) - len(absent)} of {len(COUNTED)} corruptions"
    if len(absent) > len(names):
        return f"{said}: {', '.join(names)}"
    return f"{said}, without {', '.join(absent)}"


def describe(data: Mapping[str, Any], per: str) -> str:
    """Says in one line where a corrupted or perturbed set comes from."""
    facts = [data.get("description") or data.get("source") or "of unknown source"]
    if data.get("source") and data["source"] not in facts[0]:
        facts.insert(0, data["source"])
    if data.get("images") is not None:
        facts.append(f"{data['images']:,} {per}")
    facts += [f"{key} {data[key]}" for key in ("seed", "table") if data.get(key) is not None]
    return " ".join(", ".join(map(str, facts)).split())
