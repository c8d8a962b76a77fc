"""The sections of a run's report about corrupted, perturbed and other test images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from augmix_tf.reports import cells
from augmix_tf.reports.tables import ABSENT, cell, percent, spoken, table

# Measure: name and how a value is written.
CALIBRATION = {
    "nll": ("negative log-likelihood (nats)", "{:.4f}"),
    "brier": ("Brier score", "{:.4f}"),
    "rms_calibration_error": ("RMS calibration error", "{:.2%}"),
    "expected_calibration_error": ("expected calibration error", "{:.2%}"),
}


def corrupted(part: Mapping[str, Any]) -> str:
    """Returns the section on corrupted images: headline, provenance, each cell."""
    if not part:
        return ""
    names = cells.counted_in(part)
    parts = ["## Corrupted test images", *_headline(part, names)]
    if part.get("data"):
        source = cells.describe(part["data"], "images of each corruption and severity")
        parts.append(f"The set: {source}.{_caution(part['data'])}")
    if names:
        parts += ["Error (%) at each severity:", _cells_table(part, names)]
    extra = cells.uncounted_in(part)
    if extra:
        said = "Measured as well, **not counted** in any mean (error in %):"
        parts += [said, _cells_table(part, extra, with_mean=False)]
    return "\n\n".join(parts)


def perturbed(part: Mapping[str, Any]) -> str:
    """Returns the section on perturbed sequences: means and each perturbation."""
    if not part:
        return ""
    parts = ["## Perturbed sequences", *_perturbed_headline(part)]
    if part.get("data"):
        source = cells.describe(part["data"], "sequences of each kind")
        parts.append(f"The set: {source}.{_caution(part['data'])}")
    rows = part.get("perturbations") or {}
    counted = part.get("perturbations_counted") or []
    ordered = [name for name in counted if name in rows]
    ordered += [name for name in rows if name not in counted]
    if ordered:
        head = ("perturbation", "flip probability (%)", "top-5 distance", "sequences", "frames")
        parts.append(table(head, [_perturbation(name, rows[name], counted) for name in ordered]))
    if set(ordered) - set(counted):
        parts.append("\\* not one of the ten that the mean counts.")
    return "\n\n".join(parts)


def shifted(sets: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns the section on other test sets of the same classes: a row for each."""
    if not sets:
        return ""
    head = ("set", "images", "classes", "error (%)", "RMS calibration error (%)", "AURRA (%)")
    rows = [
        (
            cell(name),
            _written("{:,}", part.get("images")),
            _written("{:,}", part.get("classes")),
            *(percent(part.get(key)) for key in ("error", "rms_calibration_error", "aurra")),
        )
        for name, part in sets.items()
    ]
    described = [
        f"- {cell(name)}: {cells.describe(part['data'], 'images')}."
        for name, part in sets.items()
        if part.get("data")
    ]
    said = "Each is answered among its own classes: the logits of all others are left out."
    parts = ["## Other test sets", said, table(head, rows), "\n".join(described)]
    return "\n\n".join(filter(None, parts))


def calibration(results: Mapping[str, Any]) -> str:
    """Returns the section on calibration: clean and corrupted, as trained and with temperature."""
    clean, shifted = results.get("clean") or {}, results.get("corrupted") or {}
    names = cells.counted_in(shifted)
    temperature = results.get("temperature") or {}
    values: list[tuple[str, dict[str, float | None]]] = []
    for prefix, suffix in (("", ""), ("calibrated.", ", with temperature")):
        keys = {key: f"{prefix}{key}" for key in CALIBRATION}
        on_clean = {key: cells.measure(clean, path) for key, path in keys.items()}
        on_shifted = {
            key: cells.over_corruptions(shifted, names, path) for key, path in keys.items()
        }
        values += [(f"clean{suffix}", on_clean), (f"corrupted{suffix}", on_shifted)]
    columns = [(title, column) for title, column in values if any(_given(column))]
    if not names and not temperature:
        return ""
    rows = [
        (label, *(_written(form, column[key]) for _, column in columns))
        for key, (label, form) in CALIBRATION.items()
        if any(column[key] is not None for _, column in columns)
    ]
    parts = ["## Calibration under corruption" if names else "## Calibration"]
    if names:
        parts.append(f"Corrupted: the mean over the severities of {cells.set_name(names)}.")
    if temperature:
        parts.append(_temperature(temperature))
    if rows:
        parts.append(table(("measure", *(title for title, _ in columns)), rows))
    return "\n\n".join(parts)


def _headline(part: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    whole, mean = part.get("mean_corruption_error"), part.get("mean_error")
    lines = []
    if whole is not None:
        lines.append(
            f"**Mean corruption error: {whole:.2%}** (plain mean of the error over "
            f"the severities of {cells.set_name(names)}, the quantity published for CIFAR)."
        )
    elif mean is not None:
        lines.append(
            f"**Mean error: {mean:.2%}**, over {cells.set_name(names)}. It is not comparable "
            f"with published numbers, which are means over all {len(cells.COUNTED)}."
        )
    elif not names:
        lines.append(f"None of the {len(cells.COUNTED)} corruptions that count was measured.")
    against = part.get("alexnet") or {}
    said = {"mce": "mCE", "relative_mce": "relative mCE"}
    relative = [f"{said[key]} {against[key]:.1f}" for key in said if against.get(key) is not None]
    if relative:
        lines.append(f"In % of AlexNet, as published for ImageNet: {', '.join(relative)}.")
    return lines


def _cells_table(part: Mapping[str, Any], names: Sequence[str], with_mean: bool = True) -> str:
    severities = range(1, cells.SEVERITIES + 1)
    head = ("corruption", *(f"severity {s}" for s in severities), "mean")
    rows = []
    for name in names:
        errors = [percent(measured["error"]) for measured in part["corruptions"][name]]
        mean = percent(cells.over_severities(part, name, "error"))
        rows.append((_label(name), *errors, mean))
    if with_mean:
        means = [percent(cells.at_severity(part, names, "error", s)) for s in severities]
        means.append(percent(cells.over_corruptions(part, names, "error")))
        rows.append(("**mean**", *(f"**{value}**" for value in means)))
    return table(head, rows)


def _label(name: str) -> str:
    group = cells.GROUP_OF.get(name)
    return f"{group}: {spoken(name)}" if group else spoken(name)


def _caution(data: Mapping[str, Any]) -> str:
    if data.get("source") == "official":
        return ""
    return " It is not the published set: compare its numbers only with others on the same set."


def _perturbed_headline(part: Mapping[str, Any]) -> list[str]:
    mean, script = part.get("mean_flip_probability"), part.get("mean_flip_probability_of_script")
    lines = []
    if mean is not None:
        lines.append(f"**Mean flip probability: {mean:.2%}** (the ten perturbations of the paper).")
    else:
        lines.append("No mean flip probability: not all ten perturbations of the paper are there.")
    if script is not None:
        lines.append(
            f"Over the set of the public CIFAR script (spatter in place of snow): {script:.2%}."
        )
    others = {
        "unnormalized_top5_distance": "top-5 distance, not normalised: {:.3f}",
        "mean_flip_rate": "mean flip rate, in % of AlexNet: {:.1f}",
        "mean_top5_distance": "mean top-5 distance, in % of AlexNet: {:.1f}",
    }
    said = [form.format(part[key]) for key, form in others.items() if part.get(key) is not None]
    return [*lines, *([f"Also: {'; '.join(said)}."] if said else [])]


def _perturbation(
    name: str, row: Mapping[str, Any], counted: Sequence[str]
) -> tuple[str, str, str, str, str]:
    return (
        spoken(name) + ("" if name in counted else " \\*"),
        percent(row["flip_probability"]),
        _written("{:.3f}", row.get("top5_distance")),
        _written("{:,}", row.get("sequences")),
        _written("{:,}", row.get("frames")),
    )


def _temperature(temperature: Mapping[str, Any]) -> str:
    value, images = temperature.get("value"), temperature.get("images")
    fitted = "" if images is None else f", fitted on {images:,} images"
    if temperature.get("held_out_of"):
        fitted += f" held out of the {spoken(str(temperature['held_out_of']))} set"
    return f"Temperature {_written('{:.3f}', value)}{fitted}: logits are divided by it."


def _given(column: Mapping[str, float | None]) -> list[bool]:
    return [value is not None for value in column.values()]


def _written(form: str, value: float | None) -> str:
    return ABSENT if value is None else form.format(value)
