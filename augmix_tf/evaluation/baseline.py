"""Flip probabilities and top-5 distances of a baseline network, from a JSON file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from augmix_tf import errors
from augmix_tf.metrics.benchmarks import LARGEST_TOP5_DISTANCE
from augmix_tf.robustness import PERTURBATIONS

LARGEST = {"flip_probability": 1.0, "top5_distance": LARGEST_TOP5_DISTANCE}


def read_rates(path: str | Path) -> dict[str, dict[str, float]]:
    """Reads the rates of a baseline network (published: AlexNet).

    Args:
        path: JSON file, {"flip_probability": {...}, "top5_distance": {...}} or one of the two,
            each with a number above 0 and up to 1 or 15 for each of the ten perturbations of the
            paper.

    Returns:
        Metric -> perturbation -> value.

    Raises:
        ArgumentError: the file is missing, or holds something else.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        wanted = "Expected a JSON file with a network's rates"
        raise errors.ArgumentError(f"{wanted}; received {path} ({reason}).") from error
    wanted = f"an object with {' or '.join(LARGEST)} in {path}"
    errors.require(isinstance(content, dict) and bool(content), wanted, repr(content)[:60])
    for key, rates in content.items():
        largest = errors.lookup(f"rate in {path}", key, LARGEST)
        errors.require(isinstance(rates, dict), f"{key} to be an object in {path}", repr(rates))
        _check_rates(path, key, rates, largest)
    return content


def _check_rates(path: str | Path, key: str, rates: Mapping[str, Any], largest: float) -> None:
    names = dict.fromkeys(PERTURBATIONS)
    for name, rate in rates.items():
        errors.lookup(f"perturbation in {key} of {path}", name, names)
        number = isinstance(rate, int | float) and not isinstance(rate, bool)
        wanted = f"{key} of {name} above 0 and up to {largest:g} in {path}"
        errors.require(number and 0 < rate <= largest, wanted, repr(rate))
    missing = [name for name in names if name not in rates]
    wanted = f"{key} of all ten perturbations in {path}"
    errors.require(not missing, wanted, f"none for {', '.join(missing)}")
