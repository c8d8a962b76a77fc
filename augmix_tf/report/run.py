"""The report of one run: `report.md` and its plots, from the files of the run directory."""

from __future__ import annotations

import shlex
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from augmix_tf import files
from augmix_tf.evaluation.results import (
    CorruptedResults,
    Data,
    ImageResults,
    PerturbedResults,
    Results,
    ShiftedResults,
    Temperature,
)
from augmix_tf.metrics import table as metrics
from augmix_tf.report import plots
from augmix_tf.report.directories import RunFiles, read_files
from augmix_tf.report.tables import cell, describe, heading, integer, plain, spoken, table
from augmix_tf.robustness import CORRUPTION_GROUPS, CORRUPTIONS, SEVERITIES, describe_corruptions

REPORT = "report.md"
RMS = "rms_calibration_error"
# Plots over severity: name, metric, start of the title, label of the y axis.
SEVERITY_CURVES = (
    ("error_over_severity", "error", "Error", "error (%)"),
    ("calibration_over_severity", RMS, "Calibration", "RMS calibration error (%)"),
)
IMAGES_PER_CELL = "images per corruption and severity"
SEQUENCES = "sequences per perturbation"

CAPTIONS = {
    "curves": "Loss, error, Jensen-Shannon divergence and learning rate over the epochs",
    "confusion": "Confusion matrix of the clean test images",
    "reliability": "Reliability diagram: accuracy over confidence",
    "corruption_errors": "Error on each corruption",
    "error_over_severity": "Error over the severity of the corruption",
    "calibration_over_severity": "RMS calibration error over the severity of the corruption",
}
FILES = {
    "config.json": "settings of the run",
    "results.json": "results, for programs",
    "metrics.csv": "loss, errors and throughput of each epoch",
    "plots": "plots of this report",
    "checkpoints": "weights and optimizer state, to resume the run",
    "logs": "curves and example images, for TensorBoard",
    "export": "exported models to serve (TensorFlow SavedModel)",
    "model.keras": "Keras model: images 0..255 to probabilities",
}


def write(workdir: files.PathLike) -> Path:
    """Writes `report.md` and `plots/*.png` into a run directory.

    Args:
        workdir: run directory with any of `config.json`, `results.json` and `metrics.csv`. What
            they do not have is left out of the report.

    Returns:
        Path of `report.md`.

    Raises:
        ArgumentError: the directory has none of the three files.
        FileError: one of them is damaged, or a file cannot be written.
    """
    folder = Path(workdir)
    run = read_files(folder)
    results, drawn = run.results, figures(run)
    for name, png in drawn.items():
        files.write_bytes_atomically(folder / "plots" / f"{name}.png", png)
    shown = {name: f"![{CAPTIONS[name]}](plots/{name}.png)" for name in drawn}
    sections = [
        _title(run),
        _clean(results.clean),
        shown.get("confusion"),
        _corrupted(results.corrupted) if results.corrupted else "",
        *(shown.get(name) for name in ("corruption_errors", "error_over_severity")),
        _perturbed(results.perturbed) if results.perturbed else "",
        _shifted(results.shifted) if results.shifted else "",
        _calibration(results),
        *(shown.get(name) for name in ("reliability", "calibration_over_severity")),
        _training(run.metrics, shown),
        _configuration(run),
        _files(folder),
        _next_commands(folder),
    ]
    files.write_text_atomically(folder / REPORT, "\n\n".join(filter(None, sections)) + "\n")
    return folder / REPORT


def figures(run: RunFiles) -> dict[str, bytes]:
    """Plots what the files of a run have.

    Returns:
        Name -> PNG, any of the names of `CAPTIONS`, in the order of the report.
    """
    drawn: dict[str, bytes] = {}
    clean = run.results.clean or ImageResults()
    corrupted = run.results.corrupted or CorruptedResults()
    names = corrupted.evaluated
    if run.metrics.get("epoch"):
        drawn["curves"] = plots.curves(run.metrics)
    if clean.confusion:
        drawn["confusion"] = plots.confusion_matrix(
            clean.confusion.class_names, clean.confusion.counts
        )
    panels = _reliability_panels(clean, corrupted)
    if panels:
        drawn["reliability"] = plots.reliability(panels)
    if not names:
        return drawn
    errors = {name: corrupted.over_severities(name, "error") for name in names}
    errors = {"clean": clean.metric("error"), **errors, "mean": corrupted.mean_over(names, "error")}
    bars = {"error": {name: (error, None) for name, error in errors.items()}}
    title = "Error on each corruption, mean over severities 1 to 5"
    drawn["corruption_errors"] = plots.corruption_bars(bars, title)
    for name, key, title, y_label in SEVERITY_CURVES:
        lines = _by_group(clean, corrupted, key)
        if any(value is not None for points in lines.values() for _, value, _ in points):
            title = f"{title} over the severity of the corruption"
            drawn[name] = plots.severity_curves(lines, title, y_label)
    return drawn


def over_severities(
    clean: ImageResults, corrupted: CorruptedResults, names: Sequence[str], metric: str
) -> list[float | None]:
    """Returns a metric on the clean images, then its mean over corruptions at severity 1 to 5."""
    means = [corrupted.at_severity(names, metric, severity) for severity in SEVERITIES]
    return [clean.metric(metric), *means]


def _by_group(
    clean: ImageResults, corrupted: CorruptedResults, metric: str
) -> dict[str, plots.Points]:
    """Points of the mean over all corruptions, and over those of each group."""
    names = corrupted.evaluated
    lines = {f"mean of {len(names)}": names}
    for group, members in CORRUPTION_GROUPS.items():
        lines[group] = [name for name in members if name in names]
    return {
        title: [
            (severity, value, None)
            for severity, value in enumerate(over_severities(clean, corrupted, members, metric))
        ]
        for title, members in lines.items()
        if members
    }


def _reliability_panels(
    clean: ImageResults, corrupted: CorruptedResults
) -> dict[str, dict[str, plots.Bins]]:
    names = corrupted.evaluated
    diagrams = {
        "Clean test images\nRMS calibration error": (clean.reliability or [], clean.metric(RMS)),
        "All corrupted test images\nmean RMS calibration error": (
            corrupted.reliability(names),
            corrupted.mean_over(names, RMS),
        ),
    }
    return {
        title.partition("\n")[0] if error is None else f"{title} {100 * error:.2f} %": {"": bins}
        for title, (bins, error) in diagrams.items()
        if bins
    }


def _title(run: RunFiles) -> str:
    settings = {**run.config, **run.results.provenance}
    names = [_name(settings.get(key)) for key in ("method", "model", "dataset")]
    title = "# {}: {} on {}".format(*names) if all(names) else "# Report of a run"
    facts = [
        f"{key}: {plain(settings[key])}"
        for key in ("epochs", "seed", "parameters", "finished")
        if settings.get(key) is not None
    ]
    return "\n\n".join(filter(None, [title, ", ".join(facts)]))


def _name(value: Any) -> str:
    """A name, also where an older configuration nests its settings."""
    value = value.get("name") if isinstance(value, Mapping) else value
    return cell(value) if value else ""


def _clean(clean: ImageResults | None) -> str:
    if clean is None:
        return "## Clean test images\n\nNot evaluated yet."
    rows = [("images", integer(clean.images))] if clean.images is not None else []
    rows += [
        (metric.title, metric.text(clean.metric(metric.name)))
        for metric in metrics.select("images")
        if clean.metric(metric.name) is not None
    ]
    return "## Clean test images\n\n" + table(("metric", "value"), rows)


def _corrupted(results: CorruptedResults) -> str:
    names, mean = results.evaluated, results.metrics.get("mean_corruption_error")
    parts = ["## Corrupted test images"]
    if mean is not None:
        parts.append(
            f"**Mean corruption error: {100 * mean:.2f} %**, the mean over corruptions of the mean "
            "error over severities, as published for CIFAR-10-C and CIFAR-100-C."
        )
    elif names:
        error = results.mean_over(names, "error") or 0.0
        parts.append(
            f"**Mean error: {100 * error:.2f} %**, over {describe_corruptions(names)}. Published "
            f"means are over all {len(CORRUPTIONS)} corruptions and are not comparable with it."
        )
    else:
        parts.append(f"None of the {len(CORRUPTIONS)} corruptions of the mean was evaluated.")
    relative = _texts(results.metrics, [m for m in _metrics_of("corrupted") if m.compared])
    parts += [f"As published for ImageNet-C: {'; '.join(relative)}."] if relative else []
    parts += _origin(results.data, IMAGES_PER_CELL)
    if names:
        parts += ["Error (%) at each severity:", _errors(results, names, with_mean=True)]
    if results.extra:
        title = "Evaluated as well, but **in no mean** (error in %):"
        parts += [title, _errors(results, results.extra, with_mean=False)]
    return "\n\n".join(parts)


def _errors(results: CorruptedResults, names: Sequence[str], with_mean: bool) -> str:
    (error,) = metrics.select("images", name="error")
    head = ("corruption", *(f"severity {severity}" for severity in SEVERITIES), "mean")
    rows = []
    for name in names:
        values = [row.metric("error") for row in results.corruptions[name]]
        mean = results.over_severities(name, "error")
        rows.append((_label(name), *map(error.number, [*values, mean])))
    if with_mean:
        means = [results.at_severity(names, "error", severity) for severity in SEVERITIES]
        means.append(results.mean_over(names, "error"))
        rows.append(("**mean**", *(f"**{error.number(value)}**" for value in means)))
    return table(head, rows)


def _label(name: str) -> str:
    group = next((group for group, names in CORRUPTION_GROUPS.items() if name in names), None)
    return f"{group}: {spoken(name)}" if group else spoken(name)


def _metrics_of(inputs: metrics.Inputs) -> list[metrics.Metric]:
    """The metrics of a part that the report does not have a sentence for."""
    own = ("mean_corruption_error", "mean_error", "mean_flip_probability")
    return [metric for metric in metrics.select(inputs) if metric.name not in own]


def _texts(values: Mapping[str, float | None], chosen: Sequence[metrics.Metric]) -> list[str]:
    return [
        f"{metric.title} {metric.text(values[metric.name])}"
        for metric in chosen
        if values.get(metric.name) is not None
    ]


def _origin(data: Data | None, per: str) -> list[str]:
    if data is None:
        return []
    caution = " These are not the published files; compare only with results on the same files."
    caution = "" if data.source == "official" else caution
    return [f"Data: {describe(data, per)}.{caution}"]


def _perturbed(results: PerturbedResults) -> str:
    mean, counted = results.metrics.get("mean_flip_probability"), results.perturbations_counted
    parts = ["## Perturbation sequences"]
    if mean is None:
        parts.append("No mean flip probability: not all ten perturbations were evaluated.")
    else:
        text = f"**Mean flip probability: {100 * mean:.2f} %**"
        parts.append(f"{text}, over the ten perturbations of the paper.")
    others = _texts(results.metrics, _metrics_of("perturbed"))
    parts += [f"{heading('; '.join(others))}."] if others else []
    parts += _origin(results.data, SEQUENCES)
    rows = results.perturbations
    ordered = [name for name in counted if name in rows]
    ordered += [name for name in rows if name not in counted]
    chosen = metrics.select("sequences")
    if ordered:
        head = [metric.title + metric.heading_unit for metric in chosen]
        body = [
            (
                spoken(name) + ("" if name in counted else " \\*"),
                *(metric.number(rows[name].metrics.get(metric.name)) for metric in chosen),
                integer(rows[name].sequences),
                integer(rows[name].frames),
            )
            for name in ordered
        ]
        parts.append(table(("perturbation", *head, "sequences", "frames"), body))
    if set(ordered) - set(counted):
        parts.append("\\* not one of the ten of the mean.")
    return "\n\n".join(parts)


def _shifted(sets: Mapping[str, ShiftedResults]) -> str:
    chosen = metrics.select("images")
    head = [(metric.short or metric.title) + metric.heading_unit for metric in chosen]
    rows = [
        (
            cell(name),
            integer(part.images),
            integer(part.classes),
            *(metric.number(part.metric(metric.name)) for metric in chosen),
        )
        for name, part in sets.items()
    ]
    described = [
        f"- {cell(name)}: {describe(part.data, 'images')}."
        for name, part in sets.items()
        if part.data
    ]
    text = "Each set is evaluated with the logits of its own classes only."
    parts = ["## Other test sets", text, table(("set", "images", "classes", *head), rows)]
    return "\n\n".join([*parts, "\n".join(described)]).strip()


def _calibration(results: Results) -> str:
    """Metrics of probabilities, clean and corrupted, without and with the temperature."""
    clean = results.clean or ImageResults()
    corrupted = results.corrupted or CorruptedResults()
    names = corrupted.evaluated
    if not names and not results.temperature:
        return ""
    chosen = [m for m in metrics.select("images", per_severity=True) if m.name != "error"]
    columns: dict[str, list[float | None]] = {}
    for prefix, suffix in (("", ""), ("calibrated.", ", with temperature")):
        keys = [prefix + metric.name for metric in chosen]
        columns[f"clean{suffix}"] = [clean.metric(key) for key in keys]
        columns[f"corrupted{suffix}"] = [corrupted.mean_over(names, key) for key in keys]
    columns = {title: values for title, values in columns.items() if set(values) != {None}}
    rows = [
        (metric.title, *map(metric.text, values))
        for metric, values in zip(chosen, zip(*columns.values(), strict=True), strict=False)
        if set(values) != {None}
    ]
    parts = ["## Calibration under corruption" if names else "## Calibration"]
    if names:
        parts.append(f"Corrupted: mean over severities and {describe_corruptions(names)}.")
    if results.temperature:
        parts.append(_temperature(results.temperature))
    return "\n\n".join([*parts, table(("metric", *columns), rows)] if rows else parts)


def _temperature(temperature: Temperature) -> str:
    value = "unknown" if temperature.value is None else f"{temperature.value:.3f}"
    fitted = ""
    if temperature.images is not None:
        fitted = f", fitted on {temperature.images:,} images"
    if temperature.held_out_of:
        fitted += f" held out of the {spoken(temperature.held_out_of)} set"
    return f"Temperature: {value}{fitted}. It divides the logits."


def _training(columns: Mapping[str, list[float]], shown: Mapping[str, str]) -> str:
    if "curves" not in shown:
        return ""
    speeds = [value for value in columns.get("images_per_second", []) if value > 0]
    text = f"Median throughput: {statistics.median_high(speeds):,.0f} images/s." if speeds else ""
    return "\n\n".join(filter(None, ["## Training", shown["curves"], text]))


def _configuration(run: RunFiles) -> str:
    parts = []
    if run.config:
        rows = [(f"`{cell(name)}`", plain(value)) for name, value in _flat(run.config).items()]
        parts += ["## Configuration", table(("setting", "value"), rows, numbers_from=2)]
    versions = run.results.provenance.get("versions")
    if isinstance(versions, Mapping) and versions:
        texts = ", ".join(f"{cell(name)} {plain(value)}" for name, value in versions.items())
        parts.append(f"Software: {texts}.")
    return "\n\n".join(parts)


def _flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted keys."""
    found: dict[str, Any] = {}
    for key, value in content.items():
        nested = isinstance(value, Mapping)
        found |= _flat(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
    return found


def _files(folder: Path) -> str:
    rows = [
        (f"`{name}/`" if (folder / name).is_dir() else f"`{name}`", description)
        for name, description in FILES.items()
        if (folder / name).exists()
    ]
    return "## Files\n\n" + table(("in this directory", "content"), rows, numbers_from=2)


def _next_commands(folder: Path) -> str:
    place = shlex.quote(str(folder))
    commands = []
    if (folder / "checkpoints").is_dir():
        commands += [
            ("evaluate again", f"python main.py --mode=evaluate --workdir={place}"),
            ("export to serve", f"python main.py --mode=export --workdir={place}"),
        ]
    if (folder / "logs").is_dir():
        commands.append(("show the curves", f"tensorboard --logdir {place}/logs"))
    versions = [path.name for path in folder.glob("export/*") if path.name.isdecimal()]
    if versions:
        newest = f"{place}/export/{max(versions, key=int)}"
        commands.append(("show the signatures", f"saved_model_cli show --dir {newest} --all"))
    commands.append(("write this report again", f"python main.py --mode=report --workdir={place}"))
    width = max(len(command) for _, command in commands)
    lines = [f"{command:<{width}}  # {text}" for text, command in commands]
    return "\n".join(["## Next commands", "", "```sh", *lines, "```"])
