"""The model card: what a model is, how it was trained, its metrics and its limits.

`make` collects it from the documents of a run; `texts` writes it as JSON for programs and as
Markdown for readers, with the front matter that the Hugging Face Hub reads. `docs/serving.md`
describes the fields. Cards travel with models, so no path of a machine gets into them.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple

from augmix_tf.metrics import table

SCHEMA = 1
JSON_FILE, MARKDOWN_FILE = "model_card.json", "model_card.md"

_PACKAGES = ("tensorflow", "keras", "numpy")
_NAMES_SHOWN = 20
_UNKNOWN = "unknown"
_PATH_SUFFIXES = ("_dir", "_rates", "_path")  # of settings that hold paths
_NO_LICENCE = "none stated by its authors, who ask to be cited: {}"
_TINY_IMAGES = "A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009"


class Licence(NamedTuple):
    """The terms of a dataset.

    Attributes:
        text: for readers.
        identifier: of the Hugging Face Hub.
        hub_name: of the dataset on the Hugging Face Hub; None where it is not there.
    """

    text: str
    identifier: str
    hub_name: str | None


LICENCES = {
    "shapes": Licence("Apache-2.0, as the program that draws it", "apache-2.0", None),
    "cifar10": Licence(_NO_LICENCE.format(_TINY_IMAGES), _UNKNOWN, "uoft-cs/cifar10"),
    "cifar100": Licence(_NO_LICENCE.format(_TINY_IMAGES), _UNKNOWN, "uoft-cs/cifar100"),
    "imagenet2012": Licence(
        "ImageNet's terms of access: non-commercial research and education",
        "other",
        "ILSVRC/imagenet-1k",
    ),
}
UNKNOWN_LICENCE = Licence("unknown; ask the publisher of the data", _UNKNOWN, None)


def make(
    config: Mapping[str, Any],
    results: Mapping[str, Any],
    class_names: Sequence[str],
    image_size: tuple[int, int],
    temperature: float = 1.0,
    licence: str | None = None,
    left_out: str = "",
) -> dict[str, Any]:
    """Returns the card of a model.

    Args:
        config: the run's `config.json`; each field may be missing.
        results: its `results.json`; {} if nothing was measured.
        class_names: in the order of the logits.
        image_size: (H, W) of the network's input.
        temperature: by which the export divides the logits.
        licence: terms of the data; None takes those of `LICENCES`.
        left_out: which training examples could not be read, such as "2 of 40 images left out".
    """
    provenance = results.get("provenance") or {}
    dataset = str(config.get("dataset", _UNKNOWN))
    return {
        "schema": SCHEMA,
        "model": {
            "architecture": config.get("model"),
            "parameters": provenance.get("parameters"),
            "image_size": list(image_size),
            "class_names": list(class_names),
        },
        "data": {
            "dataset": dataset,
            "licence": licence or LICENCES.get(dataset, UNKNOWN_LICENCE).text,
        },
        "recipe": _without_paths(config),
        "seed": config.get("seed"),
        "epochs_trained": provenance.get("epochs"),
        "metrics": [
            {"name": v.column, "title": v.title, "value": v.value, "text": v.metric.text(v.value)}
            for v in table.compared(table.values(results))
        ],
        "errors": _errors(results),
        "calibration": _calibration(results, temperature),
        "versions": _versions(provenance),
        "limits": _limits(config, results, class_names, image_size, temperature, left_out),
    }


def texts(card: Mapping[str, Any]) -> dict[str, str]:
    """Returns file name -> content: `model_card.json` and `model_card.md`."""
    document = json.dumps(card, indent=2, ensure_ascii=False, allow_nan=False)
    return {JSON_FILE: document + "\n", MARKDOWN_FILE: markdown(card)}


def markdown(card: Mapping[str, Any]) -> str:
    """Returns the card for readers."""
    model, data = card["model"], card["data"]
    names = model["class_names"]
    shown = ", ".join(map(_plain, names[:_NAMES_SHOWN]))
    more = f", and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    height, width = model["image_size"]
    method = card["recipe"].get("method")
    parameters = _UNKNOWN if model["parameters"] is None else f"{model['parameters']:,}"
    lines = [
        *front_matter(card),
        "",
        f"# {_plain(model['architecture'])}, trained with {_plain(method)} on "
        f"{_plain(data['dataset'])}",
        "",
        f"- Input: images of {height} x {width} pixels",
        f"- Output: one of {len(names)} classes: {shown}{more}",
        f"- Parameters: {parameters}",
        f"- License of the data: {_plain(data['licence'])}",
        f"- Seed: {_plain(card['seed'])}",
        f"- Epochs trained: {_plain(card['epochs_trained'])}",
        *_table("Metrics", metric_rows(card)),
        *["", "## Limits", "", *(f"- {_plain(limit)}" for limit in card["limits"])],
        *_table("Recipe", ((_label(name), _plain(v)) for name, v in card["recipe"].items())),
        *_table("Versions", ((name, _plain(v)) for name, v in card["versions"].items())),
    ]
    return "\n".join(lines) + "\n"


def front_matter(card: Mapping[str, Any]) -> list[str]:
    """Returns the lines of YAML that the Hugging Face Hub reads at the top of a card."""
    dataset = card["data"]["dataset"]
    known = LICENCES.get(dataset, UNKNOWN_LICENCE)
    fields = {
        "library_name": "keras",
        "pipeline_tag": "image-classification",
        # The Hub has an identifier for the terms in `LICENCES`, but not for those of the user.
        "license": known.identifier if card["data"]["licence"] == known.text else "other",
        "datasets": [] if dataset == _UNKNOWN else [known.hub_name or dataset],
        "metrics": [] if card["errors"]["clean"] is None else ["accuracy"],
    }
    # A list in JSON is one in YAML.
    lines = (f"{k}: {v if isinstance(v, str) else json.dumps(v)}" for k, v in fields.items() if v)
    return ["---", *lines, "---"]


def metric_rows(card: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns (label, value with unit) of each metric, for readers."""
    calibration = card["calibration"]
    fitted = ""
    if calibration["images"] is not None:
        fitted = f", fitted on {calibration['images']} held-out images"
        fitted += f" of {calibration['held_out_of']}" if calibration["held_out_of"] else ""
    metrics = [(_plain(metric["title"]), metric["text"]) for metric in card["metrics"]]
    corruptions = card["errors"]["corruptions"].items()
    return [
        *(metrics or [("clean error", "not measured")]),
        *((f"error, {_label(name)}", _percent(error)) for name, error in corruptions),
        ("clean RMS calibration error with temperature", _percent(calibration["rms_with"])),
        (_plain(f"temperature{fitted}"), f"{calibration['temperature']:.3g}"),
    ]


def _table(title: str, rows: Iterable[tuple[str, str]]) -> list[str]:
    return ["", f"## {title}", "", "| | |", "|---|---|", *(f"| {a} | {b} |" for a, b in rows)]


def _label(name: str) -> str:
    """A name of a setting or corruption as words: "learning_rate" as "learning rate"."""
    return _plain(name.replace("_", " "))


def _plain(value: object) -> str:
    """One line of text without characters that are markup in Markdown or HTML."""
    if value is None:
        return _UNKNOWN
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return re.sub(r"([\\`*\[\]<>|#]|(?<!\w)_|_(?!\w))", r"\\\1", " ".join(str(value).split()))


def _percent(fraction: float | None) -> str:
    return "not measured" if fraction is None else f"{100 * fraction:.2f} %"


def _without_paths(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that were set, except paths."""
    return {
        name: value
        for name, value in config.items()
        if value is not None and not name.endswith(_PATH_SUFFIXES) and not _is_path(value)
    }


def _is_path(value: object) -> bool:
    # Names of datasets contain slashes, but do not start with one.
    return isinstance(value, str) and (value[:1] in ("/", "~", ".") or "\\" in value)


def _errors(results: Mapping[str, Any]) -> dict[str, Any]:
    corrupted = results.get("corrupted") or {}
    perturbed = results.get("perturbed") or {}
    cells = corrupted.get("corruptions") or {}
    return {
        "clean": (results.get("clean") or {}).get("error"),
        "mean_corruption_error": corrupted.get("mean_corruption_error"),
        "mean_over_counted": corrupted.get("mean_error"),
        "counted": list(corrupted.get("counted") or []),
        "source": (corrupted.get("data") or {}).get("source"),
        "corruptions": {name: fmean(cell["error"] for cell in row) for name, row in cells.items()},
        "flip_probability": perturbed.get("mean_flip_probability"),
    }


def _calibration(results: Mapping[str, Any], temperature: float) -> dict[str, Any]:
    clean, fitted = results.get("clean") or {}, results.get("temperature") or {}
    name = "rms_calibration_error"
    return {
        "temperature": temperature,
        "images": fitted.get("images"),
        "held_out_of": fitted.get("held_out_of"),
        "rms_without": clean.get(name),
        "rms_with": (clean.get("calibrated") or clean).get(name),
    }


def _versions(provenance: Mapping[str, Any]) -> dict[str, str]:
    """Those that the run was measured with, else the installed ones."""
    installed = {"python": platform.python_version()}
    installed |= {package: importlib.metadata.version(package) for package in _PACKAGES}
    return dict(provenance.get("versions") or installed)


def _limits(
    config: Mapping[str, Any],
    results: Mapping[str, Any],
    class_names: Sequence[str],
    image_size: tuple[int, int],
    temperature: float,
    left_out: str,
) -> list[str]:
    corrupted, trained = results.get("corrupted"), (results.get("provenance") or {}).get("epochs")
    height, width = image_size
    other_sizes = "Images of other sizes are resized, which was not measured."
    if config.get("image_size"):
        other_sizes = "Files of other sizes are resized and center-cropped, as in evaluation."
    source = ((corrupted or {}).get("data") or {}).get("source")
    missing = ", ".join((corrupted or {}).get("missing") or [])
    limited = ", ".join(n for n in ("train_limit", "eval_limit") if config.get(n))
    undertrained = trained is not None and trained != config.get("epochs")
    drawn = config.get("dataset") == "shapes"
    limits = [
        (True, f"Every image gets one of the {len(class_names)} classes, whatever it shows."),
        (True, f"Made for images of {height} x {width} pixels. {other_sizes}"),
        (True, "One run with one seed; the variation between seeds is unknown."),
        (not results.get("clean"), "Nothing was measured."),
        (not corrupted, "Not measured on corrupted images."),
        (missing, f"Not measured on these corruptions: {missing}."),
        (
            source == "generated",
            "Measured on corruptions generated by this program, not the published files.",
        ),
        (temperature == 1.0, "The probabilities are not calibrated."),
        (limited, f"Trained or measured on part of the data: {limited}."),
        (left_out, f"Unreadable training data: {left_out}."),
        (undertrained, f"Trained for {trained} of {config.get('epochs')} epochs."),
        (drawn, "Trained on simple drawn images: an example, of no use on photographs."),
    ]
    return [limit for holds, limit in limits if holds]
