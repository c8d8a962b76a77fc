"""The table of docs/methods.md, from the rows that `benchmarks.methods` wrote."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from augmix_tf.errors import RunError

MARKS = ("<!-- table: begin -->", "<!-- table: end -->")


def table(document: dict[str, Any], models: Sequence[str], methods: Sequence[str]) -> str:
    """Returns the rows as Markdown: step times, memory and differences by method and model.

    Args:
        document: as `benchmarks.methods.run` writes it, with at least one row.
        models: columns, in order.
        methods: rows of the table, in order; those without results are left out.
    """
    setting, rows = document["setting"], document["rows"]
    machine = setting["machine"]
    dates = sorted({row["date"] for row in rows})
    worst = max(max(row["keras_difference"], row["saved_model_difference"]) for row in rows)
    lines = [
        f"{len(rows)} cells, {' to '.join(sorted({dates[0], dates[-1]}))}, "
        f"{machine['processor']}, {machine['cores']} cores, TensorFlow {machine['tensorflow']}, "
        f"Python {machine['python']}; {setting['train_limit']} training images, batch "
        f"{setting['batch_size']}. Largest difference of a probability after reloading: "
        f"{worst:.1e}."
    ]
    columns: dict[str, Callable[[dict[str, Any]], str]] = {
        f"Milliseconds per step of {setting['batch_size']} images, elapsed / CPU": (
            lambda row: f"{row['step_ms']:,.0f} / {row['step_cpu_ms']:,.0f}"
        ),
        "Peak memory of the training process, MB": lambda row: f"{row['peak_mb']:,.0f}",
        "Largest difference of a probability, `model.keras` / SavedModel": lambda row: (
            f"{row['keras_difference']:.1g} / {row['saved_model_difference']:.1g}"
        ),
    }
    for title, shown in columns.items():
        lines += ["", f"{title}:", "", *_matrix(rows, models, methods, shown)]
    return "\n".join(lines)


def with_table(page: str, text: str) -> str:
    """Returns the page with `text` between its two marks.

    Raises:
        RunError: a mark is missing, or is there twice.
    """
    for mark in MARKS:
        if page.count(mark) != 1:
            raise RunError(
                f"Expected {mark} once in the page; received it {page.count(mark)} times"
            )
    before, rest = page.split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    return f"{before}{MARKS[0]}\n{text}\n{MARKS[1]}{after}"


def _matrix(
    rows: Sequence[dict[str, Any]],
    models: Sequence[str],
    methods: Sequence[str],
    shown: Callable[[dict[str, Any]], str],
) -> list[str]:
    found = {(row["model"], row["method"]): shown(row) for row in rows}
    head = [f"| | {' | '.join(models)} |", "|---" * (len(models) + 1) + "|"]
    return head + [
        f"| {method} | {' | '.join(found.get((model, method), '-') for model in models)} |"
        for method in methods
        if any((model, method) in found for model in models)
    ]
