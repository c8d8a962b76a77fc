"""What keeps runs from being compared fairly."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from augmix_tf.reports import cells
from augmix_tf.reports.runs import Run, grouped, shifted_names
from augmix_tf.reports.tables import cell, plain

FEW = 3  # up to so many folders are named


def warnings(runs: Sequence[Run]) -> list[str]:
    """Says in what runs of one dataset differ that must be alike for a fair comparison."""
    shared: dict[str, Callable[[Run], Any]] = {
        "the number of clean test images": lambda run: run.clean.get("images"),
        "the corrupted set": lambda run: _source(run.corrupted),
        "the images of each corruption and severity": lambda run: _data(run.corrupted, "images"),
        "the corruptions that count": lambda run: (
            cells.set_name(cells.counted_in(run.corrupted)) if run.corrupted else None
        ),
        "the perturbed set": lambda run: _source(run.perturbed),
        "the sequences of each perturbation": lambda run: _data(run.perturbed, "images"),
    }
    for name in shifted_names(runs):
        shared |= {
            f"the {key} of {cell(name)}": functools.partial(_of_shifted, name, key)
            for key in ("images", "classes")
        }
    found = [_difference(what, "", runs, of) for what, of in shared.items()]
    for model, alike in grouped(runs, lambda run: run.model).items():
        where = f" of {model}"
        found.append(_difference("the epochs", where, alike, lambda run: run.config.get("epochs")))
        found.append(
            _difference(
                "the limit on training images",
                where,
                alike,
                lambda run: run.config.get("train_limit"),
            )
        )
        for method, members in grouped(alike, lambda run: run.method).items():
            seeds = [run.config.get("seed") for run in members]
            for seed in sorted({seed for seed in seeds if seeds.count(seed) > 1}, key=repr):
                found.append(f"seed {plain(seed)} stands more than once in {method}{where}")
    parts: dict[str, Callable[[Run], Any]] = {
        "corrupted images": lambda run: run.corrupted,
        "perturbed sequences": lambda run: run.perturbed,
    }
    for name in shifted_names(runs):
        parts[cell(name)] = functools.partial(_of_shifted, name, "error")
    for part, there in parts.items():
        without = [run for run in runs if there(run) in (None, {})]
        if 0 < len(without) < len(runs):
            found.append(f"not evaluated on {part}: {_which(without)}")
    return [line for line in found if line]


def _of_shifted(name: str, key: str, run: Run) -> Any:
    return (run.shifted.get(name) or {}).get(key)


def _source(part: Any) -> str | None:
    data = part.get("data") or {}
    said = [data.get("source"), *(f"{key} {data[key]}" for key in ("seed", "table") if key in data)]
    return ", ".join(str(entry) for entry in said if entry) or None


def _data(part: Any, key: str) -> Any:
    return (part.get("data") or {}).get(key)


def _difference(what: str, where: str, runs: Sequence[Run], of: Callable[[Run], Any]) -> str | None:
    values = grouped(runs, lambda run: plain(of(run)) if of(run) is not None else "")
    values.pop("", None)
    if len(values) < 2:
        return None
    said = "; ".join(f"{value} ({_which(members)})" for value, members in values.items())
    return f"runs{where} differ in {what}: {said}"


def _which(runs: Sequence[Run]) -> str:
    folders = ", ".join(f"`{cell(run.folder)}`" for run in runs)
    return folders if len(runs) <= FEW else f"{len(runs)} runs"
