"""The report of one run: `report.md` and its plots, made from the run's own files alone."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from augmix_tf import files
from augmix_tf.reports import run_files, shift_sections
from augmix_tf.reports.figures import figures
from augmix_tf.reports.tables import cell, plain, table

REPORT = "report.md"

# Measures of results.json: name in the report and how a value is written.
MEASURES = {
    "images": ("images", "{:,.0f}"),
    "error": ("error", "{:.2%}"),
    "nll": ("negative log-likelihood (nats)", "{:.4f}"),
    "brier": ("Brier score", "{:.4f}"),
    "rms_calibration_error": ("RMS calibration error", "{:.2%}"),
    "expected_calibration_error": ("expected calibration error", "{:.2%}"),
    "aurra": ("AURRA (accuracy, the surest answered first)", "{:.2%}"),
    "temperature": ("temperature of the probabilities", "{:.3f}"),
}
PICTURES = {
    "curves": "Loss, error, divergence and learning rate over the epochs",
    "confusion": "Confusion matrix of the clean test images",
    "reliability": "Reliability diagram: accuracy against confidence",
    "corruption_errors": "Error on each corruption",
    "error_over_severity": "Error over the severity of the corruption",
    "calibration_over_severity": "RMS calibration error over the severity of the corruption",
}
PLACES = {
    "config.json": "every setting of the run",
    "results.json": "the measurements, for programs",
    "metrics.csv": "loss, errors and speed over the training",
    "plots": "the pictures of this report",
    "checkpoints": "weights and optimizer state, from which the same command goes on",
    "logs": "the same curves and example pictures, for TensorBoard",
    "export": "versions of the model to serve (TensorFlow SavedModel)",
    "model.keras": "the model for Keras: images 0..255 in, probabilities out",
}


def write(workdir: files.PathLike) -> Path:
    """Writes `report.md` and its `plots/*.png` into a run folder.

    Reads its `config.json`, `results.json` and `metrics.csv` and nothing else. A plot is written
    where there is something to plot; what a file does not say is left out.

    Args:
        workdir: the run folder.

    Returns:
        The path of `report.md`.

    Raises:
        CommandError: the folder holds none of the three files.
        RunError: one of them is damaged, or a file cannot be written.
    """
    folder = Path(workdir)
    run = run_files.read(folder)
    drawn = figures(run)
    for name, picture in drawn.items():
        files.write_bytes_atomically(folder / _place(name), picture)
    shown = {name: f"![{PICTURES[name]}]({_place(name)})" for name in drawn}
    corrupted = run.results.get("corrupted") or {}
    sections = [
        _title(run),
        _results(run.results.get("clean") or {}),
        shown.get("confusion", ""),
        shift_sections.corrupted(corrupted),
        *(shown.get(name, "") for name in ("corruption_errors", "error_over_severity")),
        shift_sections.perturbed(run.results.get("perturbed") or {}),
        shift_sections.shifted(run.results.get("shifted") or {}),
        shift_sections.calibration(run.results),
        *(shown.get(name, "") for name in ("reliability", "calibration_over_severity")),
        _training(run.metrics, shown),
        _configuration(run),
        _places(folder),
        _next_commands(folder),
    ]
    files.write_text_atomically(folder / REPORT, "\n\n".join(filter(None, sections)) + "\n")
    return folder / REPORT


def _place(name: str) -> str:
    return f"plots/{name}.png"


def _title(run: run_files.RunFiles) -> str:
    settings = {**run.config, **(run.results.get("provenance") or {})}
    method, model, dataset = (settings.get(key) for key in ("method", "model", "dataset"))
    names = [_named(n) for n in (method, model, dataset)]
    title = "# {}: {} on {}".format(*names) if all(names) else "# Report of a run"
    facts = [
        f"{key}: {plain(settings[key])}"
        for key in ("epochs", "seed", "parameters", "finished")
        if settings.get(key) is not None
    ]
    return "\n\n".join(filter(None, [title, ", ".join(facts)]))


def _named(value: Any) -> str:
    """A name, also where the configuration nests what belongs to it."""
    value = value.get("name") if isinstance(value, Mapping) else value
    return cell(value) if value else ""


def _results(clean: Mapping[str, Any]) -> str:
    if not clean:
        return "## Results\n\nNot evaluated yet."
    rows = [
        (label, form.format(clean[key]))
        for key, (label, form) in MEASURES.items()
        if clean.get(key) is not None
    ]
    return "\n\n".join(
        ["## Results", "On the clean test images:", table(("measure", "value"), rows)]
    )


def _training(metrics: Mapping[str, list[float]], shown: Mapping[str, str]) -> str:
    if "curves" not in shown:
        return ""
    speed = [value for value in metrics.get("images_per_second", []) if value > 0]
    median = sorted(speed)[len(speed) // 2] if speed else None
    line = f"Median speed: {median:,.0f} images a second." if median else ""
    return "\n\n".join(filter(None, ["## Training", shown["curves"], line]))


def _configuration(run: run_files.RunFiles) -> str:
    parts = []
    if run.config:
        rows = [(f"`{cell(k)}`", plain(v)) for k, v in run_files.flat(run.config).items()]
        parts += ["## Configuration", table(("setting", "value"), rows, numbers_from=2)]
    versions = (run.results.get("provenance") or {}).get("versions")
    if isinstance(versions, Mapping) and versions:
        said = ", ".join(f"{cell(name)} {plain(value)}" for name, value in versions.items())
        parts.append(f"Made with {said}.")
    return "\n\n".join(parts)


def _places(folder: Path) -> str:
    rows = [
        (f"`{name}/`" if (folder / name).is_dir() else f"`{name}`", what)
        for name, what in PLACES.items()
        if (folder / name).exists()
    ]
    return "## What lies where\n\n" + table(("in this folder", "what it is"), rows, numbers_from=2)


def _next_commands(folder: Path) -> str:
    place = shlex.quote(str(folder))
    commands = []
    if (folder / "checkpoints").is_dir():
        commands += [
            ("measure again", f"python main.py --mode=evaluate --workdir={place}"),
            ("export to serve", f"python main.py --mode=export --workdir={place}"),
        ]
    if (folder / "logs").is_dir():
        commands.append(("look at the curves", f"tensorboard --logdir {place}/logs"))
    versions = [p.name for p in folder.glob("export/*") if p.name.isdecimal()]
    if versions:
        newest = f"{place}/export/{max(versions, key=int)}"
        commands.append(("see what a server offers", f"saved_model_cli show --dir {newest} --all"))
    commands.append(("write this report anew", f"python main.py --mode=report --workdir={place}"))
    width = max(len(command) for _, command in commands)
    lines = [f"{command:<{width}}  # {what}" for what, command in commands]
    return "\n".join(["## Next commands", "", "```sh", *lines, "```"])
