"""The model card: what a model is, what it was made of and measured at, and what it is not for.

`make` gathers it from the documents of a run; `texts` writes it as JSON for programs and as
Markdown for people. `docs/serving.md` describes the fields. No path of a machine gets into a card,
because cards travel with models.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import re
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

SCHEMA = 1
JSON_FILE, MARKDOWN_FILE = "model_card.json", "model_card.md"

_PACKAGES = ("tensorflow", "keras", "numpy")
_NAMES_SHOWN = 20
_NO_LICENCE = "none stated by its makers, who ask to be cited: {}"
_TINY_IMAGES = "A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009"
_NAMES_OF_PLACES = ("_dir", "_rates", "_path")
LICENCES = {
    "shapes": "Apache-2.0, as the program that draws it",
    "cifar10": _NO_LICENCE.format(_TINY_IMAGES),
    "cifar100": _NO_LICENCE.format(_TINY_IMAGES),
    "imagenet2012": "ImageNet's terms of access: non-commercial research and education",
}
UNKNOWN_LICENCE = "not known to this program: see who publishes the data"


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
        results: its `results.json`; {} where nothing is measured.
        class_names: in the order of the logits.
        image_size: (H, W) that the network takes.
        temperature: that the export divides the logits by.
        licence: of the data; None looks the dataset up in `LICENCES`.
        left_out: which training examples could not be read, such as "2 of 40 records left out".
    """
    provenance = results.get("provenance") or {}
    dataset = str(config.get("dataset", "unknown"))
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
            "licence": licence or LICENCES.get(dataset, UNKNOWN_LICENCE),
        },
        "recipe": _without_places(config),
        "seed": config.get("seed"),
        "epochs_trained": provenance.get("epochs"),
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
    model, data, errors = card["model"], card["data"], card["errors"]
    names = model["class_names"]
    shown = ", ".join(map(_plain, names[:_NAMES_SHOWN]))
    more = f", and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    height, width = model["image_size"]
    method = card["recipe"].get("method")
    lines = [
        f"# {_plain(model['architecture'])}, trained with {_plain(method)} on "
        f"{_plain(data['dataset'])}",
        "",
        f"- Takes pictures of {height} x {width} pixels, gives one of {len(names)} classes: "
        f"{shown}{more}",
        f"- Parameters: {_plain(model['parameters'])}",
        f"- Licence of the data: {_plain(data['licence'])}",
        f"- Seed: {_plain(card['seed'])}; epochs trained: {_plain(card['epochs_trained'])}",
        "",
        "## Errors",
        "",
        "| measured on | value |",
        "|---|---|",
        f"| clean pictures, error | {_percent(errors['clean'])} |",
        f"| corrupted pictures, mean error over {len(errors['counted'])} corruptions | "
        f"{_percent(errors['mean_over_counted'])} |",
        *(f"| {_plain(name)} | {_percent(e)} |" for name, e in errors["corruptions"].items()),
        f"| perturbed sequences, mean flip probability | {_percent(errors['flip_probability'])} |",
        *_section("Calibration", card["calibration"]),
        *["", "## Limits", "", *(f"- {_plain(limit)}" for limit in card["limits"])],
        *_section("Recipe", card["recipe"]),
        *_section("Versions", card["versions"]),
    ]
    return "\n".join(lines) + "\n"


def _section(title: str, fields: Mapping[str, Any]) -> list[str]:
    rows = (f"| {_plain(name)} | {_plain(value)} |" for name, value in fields.items())
    return ["", f"## {title}", "", "| | |", "|---|---|", *rows]


def _plain(value: object) -> str:
    """One line of text in which nothing is taken for Markdown or HTML."""
    if value is None:
        return "not known"
    text = f"{value:.6g}" if isinstance(value, float) else " ".join(str(value).split())
    return re.sub(r"([\\`*\[\]<>|#]|(?<!\w)_|_(?!\w))", r"\\\1", text)


def _percent(fraction: float | None) -> str:
    return "not measured" if fraction is None else f"{100 * fraction:.2f} %"


def _without_places(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings but for folders and files of the machine, and what was never set."""
    return {
        name: value
        for name, value in config.items()
        if value is not None and not name.endswith(_NAMES_OF_PLACES) and not _is_place(value)
    }


def _is_place(value: object) -> bool:
    # A slash within is none: names of data sets have them.
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
    """Those that the run was measured with, or else the present ones."""
    present = {"python": platform.python_version()}
    present |= {package: importlib.metadata.version(package) for package in _PACKAGES}
    return dict(provenance.get("versions") or present)


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
    others = "Others are resized, unmeasured."
    if config.get("image_size"):
        others = "Files of other sizes are resized and cut as in testing: their centre counts."
    source = ((corrupted or {}).get("data") or {}).get("source")
    missing = (corrupted or {}).get("missing")
    cut = [name for name in ("train_limit", "eval_limit") if config.get(name)]
    rules = {
        f"Every picture gets one of the {len(class_names)} classes, whatever it shows.": True,
        f"Made for pictures of {height} x {width} pixels. {others}": True,
        "One run with one seed: how far another seed would be off is not known.": True,
        "Nothing was measured.": not results.get("clean"),
        "Not measured on corrupted pictures.": not corrupted,
        f"Not measured on these corruptions: {', '.join(missing or [])}.": bool(missing),
        "Measured on corruptions that this program made: not the published files.": (
            source == "generated"
        ),
        "The probabilities are not calibrated.": temperature == 1.0,
        f"Trained or measured on a part of the data: {', '.join(cut)}.": bool(cut),
        f"Damaged training data: {left_out}.": bool(left_out),
        f"Trained for {trained} of {config.get('epochs')} epochs.": (
            trained is not None and trained != config.get("epochs")
        ),
        "Learnt simple drawn pictures: an example, of no use on photographs.": (
            config.get("dataset") == "shapes"
        ),
    }
    return [limit for limit, holds in rules.items() if holds]
