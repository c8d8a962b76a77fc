"""What reports say of adapted batch normalization."""

from __future__ import annotations

from collections.abc import Iterator

from augmix_tf.evaluation.results import CORRUPTED_PARTS, AdaptedResults, Results
from augmix_tf.evaluation.values import ADAPTED, metric_values
from augmix_tf.metrics import table as metrics
from augmix_tf.report import spoken, table

SMALL_BATCH = 16  # statistics of fewer images are noisy


def section(results: Results, adapted: AdaptedResults) -> Iterator[str]:
    """Results of a network as it was trained and adapted, side by side."""
    yield "## Adapted batch normalization"
    yield (
        "**The adapted network has seen unlabelled batches of the test images.** Compare its "
        f"numbers with those of the same protocol only: {protocol(adapted)}; each corruption and "
        "severity on its own (Schneider et al., NeurIPS 2020)."
    )
    if notes := warnings(adapted):
        yield "\n".join(f"> - {note}" for note in notes)
    by_title = {v.title: v for v in metric_values(results) if v.metric.compared}
    pairs = ((value, by_title.get(title + ADAPTED)) for title, value in by_title.items())
    rows = [
        (value.title, *(one.metric.text(one.value, one.interval) for one in (value, twin)))
        for value, twin in pairs
        if twin
    ]
    yield table(("metric", "as trained", "adapted"), rows)
    (error,) = metrics.select("images", name="error")
    rows = []
    for part in CORRUPTED_PARTS:
        source, own = getattr(results, part), getattr(adapted, part)
        for name in own.corruptions if source and own else ():
            values = (one.over_severities(name, "error") for one in (source, own))
            rows.append((spoken(name), *map(error.number, values)))
    if rows:
        yield "Error (%) on each corruption:"
        yield table(("corruption", "as trained", "adapted"), rows)


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
