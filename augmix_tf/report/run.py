"""The report of one run, from the files of its directory: `report.md`, plots, a terminal table."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from augmix_tf import files, robustness
from augmix_tf.evaluation.results import (
    CorruptedResults,
    Data,
    ImageResults,
    Measured,
    PerturbedResults,
    Results,
    ShiftedResults,
)
from augmix_tf.evaluation.values import Value, compared, metric_values
from augmix_tf.metrics import table as metrics
from augmix_tf.report import (
    ABSENT,
    adapted,
    cell,
    describe,
    directories,
    heading,
    integer,
    literature,
    plain,
    plots,
    spoken,
    table,
)
from augmix_tf.report.cells import CELLS, cells_csv
from augmix_tf.report.directories import Estimate, Run, estimate
from augmix_tf.report.significance import TITLES
from augmix_tf.robustness import CORRUPTION_GROUPS, SEVERITIES, at_severities, describe_corruptions

REPORT = "report.md"
RMS = "rms_calibration_error"
IMAGES_PER_CELL = "images per corruption and severity"
SEQUENCES = "sequences per perturbation"
INTERVALS = "In parentheses: 95 % intervals over test images."
NOISE_FLOOR = (
    "The noise floor is what a perfectly calibrated network with the same confidences measures. "
    "Above 0, overconfidence says that confidence exceeds accuracy."
)
# Benchmark -> what its mean corruption error is published for.
PUBLISHED = {
    "C": "CIFAR-10-C and CIFAR-100-C",
    "C-bar": "CIFAR-10-C-bar",
    "3DCC": "ImageNet-3DCC",
}
GROUPS = CORRUPTION_GROUPS.items()
TITLE_WIDTH = 24  # in the terminal; longer titles widen it
# Plots over severity: name, metric, start of the title, label of the y axis.
SEVERITY_CURVES = (
    ("error_over_severity", "error", "Error", "error (%)"),
    ("calibration_over_severity", RMS, "Calibration", "RMS calibration error (%)"),
)


def write(workdir: files.PathLike, drawn: Mapping[str, bytes] | None = None) -> Path:
    """Writes `report.md`, `results.csv` and `plots/*.png` into a run directory; returns the first.

    What the files of the directory do not have is left out of the report. `drawn` are its
    `figures`, if they were drawn before.
    """
    run = directories.read(workdir)
    drawn, path = figures(run) if drawn is None else drawn, run.folder / REPORT
    for name, png in drawn.items():
        files.write_bytes_atomically(run.folder / "plots" / f"{name}.png", png)
    if run.results.clean:
        files.write_text_atomically(run.folder / CELLS, cells_csv(run.results))
    images = {name: f"![{name.replace('_', ' ')}](plots/{name}.png)" for name in drawn}
    files.write_text_atomically(path, "\n\n".join(filter(None, _parts(run, images))) + "\n")
    return path


def results_text(results: Results) -> str:
    """Returns the report of results that are in no run directory, without plots."""
    run = Run(Path(), {}, results, {})
    return "\n\n".join(filter(None, _parts(run, {}))) + "\n"


def figures(run: Run) -> dict[str, bytes]:
    """Plots what the files of a run have: name -> PNG."""
    drawn: dict[str, bytes] = {}
    names, matrix, chosen = run.corrupted.counted, run.clean.confusion, {"error": [run]}
    if run.metrics.get("epoch"):
        drawn["curves"] = plots.curves(run.metrics)
    if matrix:
        drawn["confusion"] = plots.confusion_matrix(matrix.class_names, matrix.counts)
    diagrams = {"Clean test images": run.clean.reliability or []}
    diagrams["All corrupted test images"] = run.corrupted.reliability(names)
    if any(diagrams.values()):
        panels = {title: {"": bins} for title, bins in diagrams.items() if bins}
        drawn["reliability"] = plots.reliability(panels)
    if names:
        lines = {f"mean of {len(names)}": ([run], names)}
        lines |= {group: ([run], [n for n in members if n in names]) for group, members in GROUPS}
        drawn |= corruption_figures(chosen, lines, names, "", "the severity of the corruption")
    if cbar := run.results.part("cbar").counted:
        drawn["cbar_errors"] = plots.corruption_bars(*bars(chosen, cbar, part="cbar"))
    return drawn


def corruption_figures(
    methods: Mapping[str, Sequence[Run]],
    lines: Mapping[str, tuple[Sequence[Run], Sequence[str]]],
    names: Sequence[str],
    subject: str,
    over: str,
) -> dict[str, bytes]:
    """Plots the error on each corruption, and the metrics of `SEVERITY_CURVES` that have values.

    Bars are means over the runs of a label, lines means over its runs and corruptions. The titles
    of bars and curves end in `subject` and `over`.
    """
    drawn = {"corruption_errors": plots.corruption_bars(*bars(methods, names, subject))}
    for name, metric, title, y_label in SEVERITY_CURVES:
        points = {
            label: _points(runs, members, metric)
            for label, (runs, members) in lines.items()
            if members
        }
        if any(point.mean is not None for line in points.values() for point in line):
            drawn[name] = plots.severity_curves(points, f"{title} over {over}", y_label)
    return drawn


def bars(
    methods: Mapping[str, Sequence[Run]],
    names: Sequence[str],
    subject: str = "",
    part: str = "corrupted",
) -> tuple[dict[str, dict[str, Estimate]], str]:
    """Returns the arguments of `plots.corruption_bars` for the runs of each label.

    `part` is one of `results.CORRUPTED_PARTS`.
    """
    results = [run.results.part(part) for runs in methods.values() for run in runs]
    texts = dict.fromkeys(at_severities(one.severities) for one in results)
    at = " or".join(text or ", mean over severities 1 to 5" for text in texts)
    values = {label: errors_on_each(runs, names, part) for label, runs in methods.items()}
    kind = "C-bar corruption" if part == "cbar" else "corruption"
    return values, f"Error on each {kind}{at}{subject}"


def errors_on_each(runs: Sequence[Run], names: Sequence[str], part: str) -> dict[str, Estimate]:
    """Returns "clean", each corruption and their "mean" -> the error, over the runs that have it.

    `part` is one of `results.CORRUPTED_PARTS`.
    """
    clean, results = [run.clean for run in runs], [run.results.part(part) for run in runs]
    (error,) = metrics.select("images", name="error")
    errors = [(one.metric("error"), one.interval("error")) for one in clean]
    estimates = {"clean": estimate(*zip(*errors, strict=True), metric=error)}
    for title, group in ({name: [name] for name in names} | {"mean": names}).items():
        errors = [
            (one.mean_over(group, "error"), one.interval_over(group, "error")) for one in results
        ]
        estimates[title] = estimate(*zip(*errors, strict=True), metric=error)
    return estimates


def _points(runs: Sequence[Run], names: Sequence[str], metric: str) -> list[Estimate]:
    columns = [[run.clean.metric(metric) for run in runs]]
    for severity in SEVERITIES:
        columns.append([run.corrupted.at_severity(names, metric, severity) for run in runs])
    return [estimate(column) for column in columns]


def results_table(folder: Path) -> str:
    """Returns results and files of an evaluated run, for the terminal."""
    run = directories.read(folder)
    entries = compared(metric_values(run.results))
    rows = [(entry.short, entry.metric.text(entry.value)) for entry in entries]
    images = run.clean.images
    rows.append(("test images", ABSENT if images is None else str(images)))
    written = {
        "report and plots": REPORT,
        "Keras model": "model.keras",
        "TensorFlow Serving": "export",
    }
    rows += [(title, str(folder / n)) for title, n in written.items() if (folder / n).exists()]
    if (folder / "logs").exists():
        rows.append(("dashboard", f"tensorboard --logdir {folder / 'logs'}"))
    return terminal_table([(title, [value]) for title, value in rows], align="<")


def terminal_table(rows: Sequence[tuple[str, Sequence[str]]], align: str = ">") -> str:
    """Returns rows of a title and values, in columns."""
    width = max(TITLE_WIDTH, *(len(title) for title, _ in rows))
    widths = [max(map(len, column)) for column in zip(*(texts for _, texts in rows), strict=True)]
    lines = [
        "  ".join(
            [
                "",
                f"{title:<{width}}",
                *(f"{t:{align}{w}}" for t, w in zip(texts, widths, strict=True)),
            ]
        )
        for title, texts in rows
    ]
    return "\n".join(["", *(line.rstrip() for line in lines)])


def _parts(run: Run, images: Mapping[str, str]) -> Iterator[str]:
    """The parts of the report, which empty lines separate; some are empty."""
    results = run.results
    yield from _title(run)
    yield from _clean(results.clean)
    yield images.get("confusion", "")
    if results.corrupted:
        yield from _corrupted(results.corrupted)
    yield from (images.get(name, "") for name in ("corruption_errors", "error_over_severity"))
    if results.cbar:
        yield from _corrupted(results.cbar, results.corrupted, is_cbar=True)
    yield images.get("cbar_errors", "")
    if results.perturbed:
        yield from _perturbed(results.perturbed)
    if results.shifted:
        yield from _shifted(results.shifted)
    yield from _calibration(run)
    yield from (images.get(name, "") for name in ("reliability", "calibration_over_severity"))
    if results.adapted:
        yield from adapted.section(results, results.adapted)
    if "curves" in images:
        yield from ("## Training", images["curves"])
        speeds = [value for value in run.metrics.get("images_per_second", []) if value > 0]
        if speeds:
            yield f"Median throughput: {statistics.median_high(speeds):,.0f} images/s."
    if published := literature.beside([run]):
        yield from ("## Published results", published)
    yield from _configuration(run)


def _title(run: Run) -> Iterator[str]:
    settings = {**run.config, **run.results.provenance}
    names = [settings.get(key) for key in ("method", "model", "dataset")]
    yield "# {}: {} on {}".format(*map(cell, names)) if all(names) else "# Report of a run"
    keys = [key for key in ("epochs", "seed", "parameters", "finished") if key in settings]
    yield ", ".join(f"{key}: {plain(settings[key])}" for key in keys if settings[key] is not None)


def _clean(clean: ImageResults | None) -> Iterator[str]:
    yield "## Clean test images"
    if clean is None:
        yield "Not evaluated yet."
        return
    rows = [("images", integer(clean.images))] if clean.images is not None else []
    values = [(metric, clean.metric(metric.name)) for metric in metrics.select("images")]
    rows += [
        (metric.title, metric.text(value, clean.interval(metric.name)))
        for metric, value in values
        if value is not None
    ]
    yield table(("metric", "value"), rows)
    if clean.intervals:
        yield INTERVALS


def _corrupted(
    results: CorruptedResults, on_c: CorruptedResults | None = None, is_cbar: bool = False
) -> Iterator[str]:
    names, mean = results.counted, results.metrics.get("mean_corruption_error")
    at, (error,) = at_severities(results.severities), metrics.select("images", name="error")
    known = results.interval_over(names, "error")
    within = f" (95 % interval {error.range(known)})" if known else ""
    yield "## C-bar" if is_cbar else "## Corrupted test images"
    if mean is not None:
        published = PUBLISHED[robustness.title(results.benchmark)]
        yield (
            f"**Mean corruption error: {100 * mean:.2f} %**{within}, the mean over corruptions of "
            f"the mean error over severities, as published for {published}."
        )
    elif names:
        yield (
            f"**Mean error: {error.text(results.mean_over(names, 'error'))}**{within}, over "
            f"{describe_corruptions(names, results.benchmark)}{at}. "
            f"Published means are over all {len(results.benchmark)} corruptions"
            f"{' and five severities' if at else ''} and are not comparable with it."
        )
    else:
        yield f"None of the {len(results.benchmark)} corruptions of the mean was evaluated."
    if on_c and (gap := results.metrics.get("gap")) is not None:
        on_c_text = f"{100 * (on_c.mean_over(on_c.counted, 'error') or 0.0):.2f} % on -C, over "
        on_c_text += describe_corruptions(on_c.counted, on_c.benchmark)
        yield f"**Gap: {100 * gap:+.2f} points** to {on_c_text}{at_severities(on_c.severities)}."
    if relative := _texts(results, "corrupted", compared=True):
        yield f"As published for ImageNet-{robustness.title(results.benchmark)}: {relative}."
    yield _origin(results.data, IMAGES_PER_CELL)
    if names:
        yield "Error (%) at each severity:"
        yield _errors(results, names, with_mean=True)
    if results.extra:
        yield "Evaluated as well, but **in no mean** (error in %):"
        yield _errors(results, results.extra, with_mean=False)


def _errors(results: CorruptedResults, names: Sequence[str], with_mean: bool) -> str:
    (error,) = metrics.select("images", name="error")
    severities = results.evaluated_severities
    head = ["corruption", *(f"severity {severity}" for severity in severities), "mean"]
    ranges = {name: error.range(results.interval_over([name], "error")) for name in names}
    groups = {name: f"{group}: " for group, members in GROUPS for name in members}
    rows = []
    for name in names:
        values = [row.metric("error") for row in results.corruptions[name]]
        values.append(results.over_severities(name, "error"))
        title = groups.get(name, "") + spoken(name)
        rows.append([title, *map(error.number, values), ranges[name]])
    if with_mean:
        means = [results.at_severity(names, "error", severity) for severity in severities]
        means.append(results.mean_over(names, "error"))
        within = error.range(results.interval_over(names, "error"))
        rows.append(["**mean**", *(f"**{error.number(value)}**" for value in means), within])
    if any(ranges.values()):
        return table([*head, "95 % interval"], rows)
    return table(head, [row[:-1] for row in rows])


def _texts(results: Measured, inputs: metrics.Inputs, **attributes: bool) -> str:
    """Metrics with their values, without those that the report has a sentence for."""
    in_sentences = ("mean_corruption_error", "mean_error", "gap", "mean_flip_probability")
    return "; ".join(
        f"{metric.title} {metric.text(results.metric(metric.name), results.interval(metric.name))}"
        for metric in metrics.select(inputs, **attributes)
        if metric.name not in in_sentences and results.metric(metric.name) is not None
    )


def _origin(data: Data | None, unit: str) -> str:
    if data is None:
        return ""
    caution = " These are not the published files; compare only with results on the same files."
    return f"Data: {describe(data, unit)}.{'' if data.source == 'official' else caution}"


def _perturbed(results: PerturbedResults) -> Iterator[str]:
    mean, counted = results.metrics.get("mean_flip_probability"), results.perturbations_counted
    yield "## Perturbation sequences"
    if mean is None:
        yield "No mean flip probability: not all ten perturbations were evaluated."
    else:
        (metric,) = metrics.select("perturbed", name="mean_flip_probability")
        known = results.interval(metric.name)
        text = f"**Mean flip probability: {metric.text(mean)}**"
        text += f" (95 % interval {metric.range(known)})" if known else ""
        yield f"{text}, over the ten perturbations of the paper."
    if others := _texts(results, "perturbed"):
        yield f"{heading(others)}."
    yield _origin(results.data, SEQUENCES)
    chosen, rows = metrics.select("sequences"), results.perturbations
    extra = [name for name in rows if name not in counted]
    body = []
    for name in [*(name for name in counted if name in rows), *extra]:
        row = rows[name]
        numbers = [m.number(row.metric(m.name), row.interval(m.name)) for m in chosen]
        title = spoken(name) + (" \\*" if name in extra else "")
        body.append((title, *numbers, integer(row.sequences), integer(row.frames)))
    if body:
        head = [metric.title + metric.heading_unit for metric in chosen]
        yield table(("perturbation", *head, "sequences", "frames"), body)
    if extra:
        yield "\\* not one of the ten of the mean."


def _shifted(sets: Mapping[str, ShiftedResults]) -> Iterator[str]:
    chosen = [
        metric
        for metric in metrics.select("images")
        if any(part.metric(metric.name) is not None for part in sets.values())
    ]
    head = [metric.short_title + metric.heading_unit for metric in chosen]
    rows = []
    for name, part in sets.items():
        numbers = [metric.number(part.metric(metric.name)) for metric in chosen]
        if known := part.interval("error"):
            numbers[0] += f" ({chosen[0].range(known)})"
        rows.append((cell(name), integer(part.images), integer(part.classes), *numbers))
    yield "## Other test sets"
    yield "Each set is evaluated with the logits of its own classes only."
    yield table(("set", "images", "classes", *head), rows)
    origins = {cell(name): part.data for name, part in sets.items() if part.data}
    yield "\n".join(f"- {name}: {describe(data, 'images')}." for name, data in origins.items())


def _calibration(run: Run) -> Iterator[str]:
    """Metrics of probabilities, clean and corrupted, without and with the temperature."""
    names, temperature = run.corrupted.counted, run.results.temperature
    if not names and not temperature:
        return
    yield "## Calibration under corruption" if names else "## Calibration"
    if names:
        at = at_severities(run.corrupted.severities)
        over = describe_corruptions(names, run.corrupted.benchmark)
        if cbar := run.results.cbar:
            over += f"; C-bar: {describe_corruptions(cbar.counted, cbar.benchmark)}"
        yield f"Corrupted: mean over severities and {over}{at}."
    if temperature:
        text = "unknown" if temperature.value is None else f"{temperature.value:.3f}"
        if temperature.images is not None:
            text += f", fitted on {temperature.images:,} images"
        if temperature.held_out_of:
            text += f" held out of the {spoken(temperature.held_out_of)} set"
        yield f"Temperature: {text}. It divides the logits."
    chosen = [m for m in metrics.select("images", per_severity=True) if m.name != "error"]
    values = {value.column: value for value in metric_values(run.results)}
    columns = {
        f"{title}{suffix}": [values.get(f"{part}_{prefix}{metric.name}") for metric in chosen]
        for prefix, suffix in (("", ""), ("calibrated_", ", with temperature"))
        for part, title in ({"clean": "clean"} | TITLES).items()
    }
    columns = {title: row for title, row in columns.items() if any(map(_is_known, row))}
    rows = [
        (metric.title, *(metric.text(v and v.value, v and v.interval) for v in row))
        for metric, row in zip(chosen, zip(*columns.values(), strict=True), strict=False)
        if any(map(_is_known, row))
    ]
    if rows:
        yield table(("metric", *columns), rows)
    if run.clean.metric("rms_noise_floor") is not None:
        yield NOISE_FLOOR


def _is_known(value: Value | None) -> bool:
    return value is not None and value.value is not None


def _configuration(run: Run) -> Iterator[str]:
    if run.config:
        yield "## Configuration"
        rows = [(f"`{cell(name)}`", plain(value)) for name, value in run.config.items()]
        yield table(("setting", "value"), rows, numbers_from=2)
    versions = run.results.provenance.get("versions")
    if isinstance(versions, Mapping) and versions:
        texts = ", ".join(f"{cell(name)} {plain(value)}" for name, value in versions.items())
        yield f"Software: {texts}."
