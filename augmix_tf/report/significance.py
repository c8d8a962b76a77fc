"""Which differences between methods are larger than their noise."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from augmix_tf.metrics import Outcomes, errors_per_image, mcnemar, paired_bootstrap
from augmix_tf.report import ABSENT, cell, heading, table
from augmix_tf.report.directories import Estimate, Run

TITLES = {"corrupted": "corrupted", "cbar": "C-bar"}
"""Part of the results -> its images in tables."""


def clearly_best(values: Sequence[Estimate], higher_is_better: bool) -> Estimate | None:
    """Returns the best value if the 95 % interval of its difference to the next best excludes 0.

    The ends of two independent intervals give one of the difference: their distances from the
    values are added in squares. None where an interval is not known.

    Source: Newcombe, Statistics in Medicine 17, 1998, 873-890, method 10.
    """
    known = [(value.mean, value) for value in values if value.mean is not None]
    known.sort(key=lambda pair: pair[0], reverse=higher_is_better)
    if len(known) < 2:
        return None
    (low_mean, low), (high_mean, high) = sorted(known[:2], key=lambda pair: pair[0])
    if low.interval is None or high.interval is None:
        return None
    margin = math.hypot(low.interval.high - low_mean, high_mean - high.interval.low)
    return known[0][1] if high_mean - low_mean > margin else None


def paired(
    model: str, methods: Mapping[str, Sequence[Run]], evaluated: Mapping[str, Sequence[str]]
) -> Iterator[str]:
    """Tests of the best method against the others on the same images, as Markdown.

    `evaluated` has the corruptions that means are over, for each part of the results. The best
    method has the lowest error on the first one, without any on clean images.
    """
    outcomes = {"clean": {m: [run.clean.outcomes for run in runs] for m, runs in methods.items()}}
    for part, names in evaluated.items():
        outcomes[part] = {
            method: [
                entry.outcomes
                for run in runs
                for name in names
                for entry in run.results.part(part).corruptions.get(name, [])
            ]
            for method, runs in methods.items()
        }
    means = {
        method: float(per_image.mean())
        for method, entries in outcomes[next(iter(evaluated), "clean")].items()
        if (per_image := errors_per_image(entries)) is not None
    }
    if len(means) < 2:
        return
    best = min(means, key=lambda method: means[method])
    rows = []
    for method in [method for method in methods if method != best]:
        texts = [_difference(row[method], row[best]) for row in outcomes.values()]
        p_value = _p_value(outcomes["clean"][method], outcomes["clean"][best])
        rows.append((cell(method), texts[0], p_value, *texts[1:]))
    yield f"### {heading(cell(best))} against the others on the same images: {model}"
    parts = [f"{TITLES[part]} error (points)" for part in evaluated]
    yield table(("method", "clean error (points)", "p (McNemar)", *parts), rows)
    yield (
        f"Error of the method minus that of {cell(best)}, with the 95 % interval of a paired "
        "bootstrap over images, of the mean over seeds. The interval does not contain the "
        "variation between seeds. McNemar's test is of two networks."
    )


def _difference(first: Sequence[Outcomes | None], second: Sequence[Outcomes | None]) -> str:
    pair = _pair(first, second)
    if pair is None:
        return ABSENT
    difference, low, high = (100 * value for value in paired_bootstrap(*pair))
    return f"{difference:+.2f} ({low:+.2f} to {high:+.2f})"


def _p_value(first: Sequence[Outcomes | None], second: Sequence[Outcomes | None]) -> str:
    pair = _pair(first, second)
    if pair is None or len(first) > 1 or len(second) > 1:
        return ABSENT
    return f"{mcnemar(*(1 - values for values in pair)).p_value:.2g}"


def _pair(
    first: Sequence[Outcomes | None], second: Sequence[Outcomes | None]
) -> tuple[np.ndarray, np.ndarray] | None:
    """Errors per image of two methods, None where they are not known to be of the same images."""
    if errors_per_image([*first[:1], *second[:1]]) is None:
        return None
    ours, theirs = errors_per_image(first), errors_per_image(second)
    return None if ours is None or theirs is None else (ours, theirs)
