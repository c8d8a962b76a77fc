"""`results.csv`: the metrics of each set of images, from which any mean can be computed again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from augmix_tf.evaluation.results import CORRUPTED_PARTS, ImageResults, Results
from augmix_tf.metrics import table
from augmix_tf.report import csv_text

CELLS = "results.csv"


def cells_csv(results: Results) -> str:
    """Returns a CSV with one row for each set of images: clean, corrupted at a severity, shifted.

    Columns are `part` of `results.json` (`adapted.clean`: `clean` in `adapted`), `name` of the
    corruption or set, `severity`, `images`, and the metrics as in `results.json`; `<metric>_low`
    and `<metric>_high` are the ends of the 95 % interval, `calibrated_<metric>` is with the
    temperature. Metrics that no row has are left out.
    """
    rows = [_row(*cell) for cell in _cells(results)]
    columns = ["part", "name", "severity", "images"]
    for metric in table.select("images"):
        for name in (metric.name, f"calibrated_{metric.name}"):
            columns += [name, f"{name}_low", f"{name}_high"]
    shown = [column for column in columns if any(row.get(column) is not None for row in rows)]
    return csv_text(shown, rows)


def _cells(results: Results) -> Iterator[tuple[str, str, int | None, ImageResults]]:
    if results.clean:
        yield "clean", "", None, results.clean
    for part in CORRUPTED_PARTS:
        corrupted = results.part(part)
        for name, row in corrupted.corruptions.items():
            for severity, entry in zip(corrupted.evaluated_severities, row, strict=True):
                yield part, name, severity, entry
    for name, entry in results.shifted.items():
        yield "shifted", name, None, entry
    if results.adapted is not None:
        for part, name, at, entry in _cells(results.adapted.results):
            yield f"adapted.{part}", name, at, entry


def _row(part: str, name: str, severity: int | None, entry: ImageResults) -> dict[str, Any]:
    row: dict[str, Any] = {"part": part, "name": name, "severity": severity}
    row |= {"images": entry.images, **entry.metrics}
    for key, (low, high) in (entry.intervals or {}).items():
        metric = key.replace(".", "_")
        row |= {f"{metric}_low": low, f"{metric}_high": high}
    return row | {f"calibrated_{k}": value for k, value in (entry.calibrated or {}).items()}
