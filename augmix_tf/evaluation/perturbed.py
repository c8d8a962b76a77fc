"""Stability along the sequences of a -P set: part "perturbed" of `results.json`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from augmix_tf import checks, metrics
from augmix_tf.data.benchmark import PerturbedSet
from augmix_tf.evaluation import predict
from augmix_tf.metrics.perturbation import LARGEST_TOP5_DISTANCE, TOP

Progress = Callable[[int, int], None]
Rates = Mapping[str, Mapping[str, float]]
"""What a baseline network reaches: "flip_probability", "top5_distance" -> perturbation -> rate."""

RATE_RANGES = {"flip_probability": 1.0, "top5_distance": LARGEST_TOP5_DISTANCE}


def evaluate(
    program: predict.Predictor,
    perturbed_set: PerturbedSet,
    *,
    alexnet: Rates | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Predicts each sequence once and measures all from the logits.

    Args:
        program: of `predict.predictor`.
        perturbed_set: of `data.perturbed.open_set`.
        alexnet: of `read_rates`; adds the means relative to them.
        progress: called with the sequences done and those in all, first with none done.

    Returns:
        Part "perturbed" of `docs/results-schema.md`.

    Raises:
        RunError: a file is damaged, or a logit is NaN or infinite; names the perturbation.
    """
    report = progress or (lambda done, total: None)
    total = len(perturbed_set.names) * int(perturbed_set.data["images"])
    done = 0
    report(done, total)
    found: dict[str, dict[str, Any]] = {}
    for name in perturbed_set.names:
        measured = _Sequences(name)
        for chunk in perturbed_set.sequences(name):
            measured.add(predict.predict_sequences(program, chunk))
            done += len(chunk)
            report(done, total)
        found[name] = measured.compute()
    return {"data": dict(perturbed_set.data), **summary(found, alexnet), "perturbations": found}


class _Sequences:
    """Counts over all sequences of one perturbation, chunk after chunk."""

    def __init__(self, name: str) -> None:
        self.name = name
        # The pictures of a noise are unrelated to each other: all are held against the first.
        self.is_noise = "noise" in name
        self.sums = metrics.SequenceSums.empty()
        self.answers: list[np.ndarray] = []
        self.classes = 0

    def add(self, logits: np.ndarray) -> None:
        """Adds logits [S, T, K]."""
        if not np.isfinite(logits).all():
            raise checks.RunError(f"{self.name}: want finite logits, got NaN or infinity")
        self.classes = logits.shape[2]
        self.answers.append(logits.argmax(axis=2))
        # With five classes or fewer the best five are always the same ones.
        if self.classes > TOP:
            self.sums = self.sums.update(logits, self.is_noise)

    def compute(self) -> dict[str, Any]:
        """Returns what `results.json` holds of one perturbation."""
        answers = np.concatenate(self.answers)
        distance = self.sums.compute()["top5_distance"] if self.classes > TOP else None
        return {
            "flip_probability": metrics.flip_probability(answers, self.is_noise),
            "top5_distance": distance,
            "sequences": len(answers),
            "frames": answers.shape[1],
        }


def summary(found: Mapping[str, Mapping[str, Any]], alexnet: Rates | None) -> dict[str, Any]:
    """Returns the means over perturbations, None where one that belongs to it is missing.

    Args:
        found: perturbation -> its "flip_probability" and "top5_distance" (None: not defined).
        alexnet: of `read_rates`.

    Returns:
        The means of `docs/results-schema.md`, each of the ten perturbations of the paper but
        "mean_flip_probability_of_script".
    """
    counted = metrics.PAPER_PERTURBATIONS
    script = metrics.CIFAR_SCRIPT_PERTURBATIONS
    flips, flips_of_script = (_of(found, "flip_probability", names) for names in (counted, script))
    distances = _of(found, "top5_distance", counted)
    means: dict[str, Any] = {
        "mean_flip_probability": flips and metrics.mean_flip_probability(flips),
        "perturbations_counted": list(counted),
        "mean_flip_probability_of_script": (
            flips_of_script and metrics.mean_flip_probability(flips_of_script, script)
        ),
        "unnormalized_top5_distance": distances and metrics.unnormalized_top5_distance(distances),
    }
    if alexnet and "flip_probability" in alexnet:
        means["mean_flip_rate"] = flips and metrics.mean_flip_rate(
            flips, alexnet["flip_probability"]
        )
    if alexnet and "top5_distance" in alexnet:
        means["mean_top5_distance"] = distances and metrics.mean_top5_distance(
            distances, alexnet["top5_distance"]
        )
    return means


def _of(
    found: Mapping[str, Mapping[str, Any]], key: str, names: Sequence[str]
) -> dict[str, float] | None:
    """Name -> value of all `names`, None where one has none."""
    values = {name: found[name][key] for name in names if name in found}
    return values if len(values) == len(names) and None not in values.values() else None


def read_rates(path: str | Path) -> dict[str, dict[str, float]]:
    """Reads the rates of a baseline network (published: AlexNet) from a JSON file.

    Args:
        path: {"flip_probability": {...}, "top5_distance": {...}}, either or both, each with a
            number for each of the ten perturbations of the paper: above 0, up to 1 and to 15.

    Raises:
        CommandError: the file is missing, or holds something else.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        wanted = "want a JSON file with a network's rates"
        raise checks.CommandError(f"{wanted}, got {path} ({reason})") from error
    wanted = f"an object with {' or '.join(RATE_RANGES)} in {path}"
    checks.require(isinstance(content, dict) and bool(content), wanted, repr(content)[:60])
    for key, rates in content.items():
        largest = checks.lookup(f"rate in {path}", key, RATE_RANGES)
        checks.require(isinstance(rates, dict), f"{key} to be an object in {path}", repr(rates))
        _check_rates(path, key, rates, largest)
    return content


def _check_rates(path: str | Path, key: str, rates: Mapping[str, Any], largest: float) -> None:
    names = dict.fromkeys(metrics.PAPER_PERTURBATIONS)
    for name, rate in rates.items():
        checks.lookup(f"perturbation in {key} of {path}", name, names)
        number = isinstance(rate, int | float) and not isinstance(rate, bool)
        wanted = f"{key} of {name} above 0 and up to {largest:g} in {path}"
        checks.require(number and 0 < rate <= largest, wanted, repr(rate))
    missing = [name for name in names if name not in rates]
    wanted = f"{key} of all ten perturbations in {path}"
    checks.require(not missing, wanted, f"none of {', '.join(missing)}")
