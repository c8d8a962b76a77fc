"""What reports say of adapted batch normalization."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

from augmix_tf.evaluation.results import AdaptedResults, ImageResults, Results
from augmix_tf.metrics import table as metrics
from augmix_tf.report import spoken, table
from augmix_tf.robustness import at_severities, describe_corruptions

SMALL_BATCH = 16  # statistics of fewer images are noisy
Values = Callable[[str], float | None]
"""Name of a metric -> its value."""


def section(results: Results, adapted: AdaptedResults) -> Iterator[str]:
    """Errors and calibration of a network as it was trained and adapted, side by side."""
    yield "## Adapted batch normalization"
    yield (
        "**The adapted network has seen unlabelled batches of the test images.** Compare its "
        f"numbers with those of the same protocol only: {protocol(adapted)}; each corruption and "
        "severity on its own (Schneider et al., NeurIPS 2020)."
    )
    if notes := warnings(adapted):
        yield "\n".join(f"> - {note}" for note in notes)
    chosen = [metrics.select("images", name=n)[0] for n in ("error", "rms_calibration_error")]

    def row(title: str, *columns: Values) -> tuple[str, ...]:
        return title, *(m.number(of(m.name)) for m in chosen for of in columns)

    clean = results.clean or ImageResults(), adapted.clean or ImageResults()
    rows = [row("clean", *(one.metric for one in clean))]
    for part in metrics.CORRUPTED_PARTS:
        source, own = getattr(results, part), getattr(adapted, part)
        if source is None or own is None:
            continue
        for name in own.corruptions:
            parts = (functools.partial(one.over_severities, name) for one in (source, own))
            rows.append(row(spoken(name), *parts))
        if names := own.evaluated:
            over = describe_corruptions(names, own.benchmark) + at_severities(own.severities)
            parts = (functools.partial(one.mean_over, names) for one in (source, own))
            rows.append(row(f"**mean over {over}**", *parts))
    head = (title for m in chosen for title in (m.title + m.heading_unit, "adapted"))
    yield table(("images", *head), rows)


def protocol(adapted: AdaptedResults) -> str:
    """Returns what adapted results depend on besides the network and the images."""
    size, smallest = adapted.batch_size, adapted.smallest_batch
    smaller = f" (the smallest of {smallest})" if smallest < size else ""
    order = "shuffled with seed 0" if adapted.shuffled else "in the order of the set"
    return f"prior strength {adapted.prior:g} images, batches of {size} images{smaller} {order}"


def warnings(adapted: AdaptedResults) -> list[str]:
    """Returns what makes the statistics of the batches unreliable."""
    notes = []
    if adapted.smallest_batch < SMALL_BATCH:
        notes.append(
            f"The statistics of a batch of {adapted.smallest_batch} images are noisy; "
            f"use {SMALL_BATCH} or more."
        )
    if adapted.few_classes:
        notes.append(
            "The images are in the order of classes, and the statistics of a batch are those of "
            "few classes; mix the classes."
        )
    return notes
