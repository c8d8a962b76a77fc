"""The model card: what a model is, how it was trained, its metrics and its limits.

`make` collects it from the documents of a run; `texts` writes it as JSON for programs and as
Markdown for readers, with the front matter that the Hugging Face Hub reads in a `README.md`.
`docs/serving.md` describes the fields. Cards travel with models, so they contain no paths.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from augmix_tf.evaluation.results import CORRUPTED_PARTS, Results
from augmix_tf.evaluation.values import metric_values
from augmix_tf.metrics import table

SCHEMA = 2
_NAMES_SHOWN = 20
_CIFAR = (
    "none stated by its authors, who ask to be cited: A. Krizhevsky, Learning Multiple Layers of "
    "Features from Tiny Images, 2009"
)


class Licence(NamedTuple):
    """The terms of a dataset."""

    text: str
    identifier: str  # of the Hugging Face Hub
    hub_name: str | None  # of the dataset there


LICENCES = {
    "shapes": Licence("Apache-2.0, as the program that draws it", "apache-2.0", None),
    "cifar10": Licence(_CIFAR, "unknown", "uoft-cs/cifar10"),
    "cifar100": Licence(_CIFAR, "unknown", "uoft-cs/cifar100"),
    "imagenet2012": Licence(
        "ImageNet's terms of access: non-commercial research and education",
        "other",
        "ILSVRC/imagenet-1k",
    ),
}
UNKNOWN_LICENCE = Licence("unknown; ask the publisher of the data", "unknown", None)


def make(
    settings: Mapping[str, Any],
    results: Results,
    class_names: Sequence[str],
    image_size: tuple[int, int],
    temperature: float = 1.0,
    left_out: str = "",
) -> dict[str, Any]:
    """Returns the card of a model, from the settings (without paths) and results of its run.

    `left_out` says which training examples could not be read, such as "2 of 40 images left out".
    """
    provenance, dataset = results.provenance, str(settings.get("dataset", "unknown"))
    parts = map(results.part, CORRUPTED_PARTS)
    return {
        "schema": SCHEMA,
        "model": {
            "architecture": settings.get("model"),
            "parameters": provenance.get("parameters"),
            "image_size": list(image_size),
            "class_names": list(class_names),
        },
        "data": {"dataset": dataset, "licence": LICENCES.get(dataset, UNKNOWN_LICENCE).text},
        "recipe": {name: value for name, value in settings.items() if value is not None},
        "epochs_trained": provenance.get("epochs"),
        "metrics": [
            {"name": v.column, "title": v.title, "value": v.value, "text": v.metric.text(v.value)}
            for v in metric_values(results)
            if v.metric.compared and v.value is not None and not v.adapted
        ],
        "corruption_errors": {
            name: part.over_severities(name, "error") for part in parts for name in part.corruptions
        },
        "temperature": results.to_json().get("temperature", {}) | {"value": temperature},
        "versions": dict(provenance.get("versions") or {}),
        "limits": _limits(settings, results, class_names, image_size, temperature, left_out),
    }


def texts(card: Mapping[str, Any]) -> dict[str, str]:
    """Returns file name -> content: `model_card.json` and `model_card.md`."""
    document = json.dumps(card, indent=2, ensure_ascii=False, allow_nan=False)
    return {"model_card.json": document + "\n", "model_card.md": markdown(card)}


def markdown(card: Mapping[str, Any]) -> str:
    """Returns the card for readers."""
    model, data, recipe = card["model"], card["data"], card["recipe"]
    names = model["class_names"]
    shown = ", ".join(map(_plain, names[:_NAMES_SHOWN]))
    more = f", and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    height, width = model["image_size"]
    parts = model["architecture"], recipe.get("method"), data["dataset"]
    title = "{}, trained with {} on {}".format(*map(_plain, parts))
    parameters = "unknown" if model["parameters"] is None else f"{model['parameters']:,}"
    lines = [
        *_front_matter(card),
        "",
        f"# {title}",
        "",
        f"- Input: images of {height} x {width} pixels",
        f"- Output: one of {len(names)} classes: {shown}{more}",
        f"- Parameters: {parameters}",
        f"- License of the data: {_plain(data['licence'])}",
        f"- Epochs trained: {_plain(card['epochs_trained'])}",
        *_table("Metrics", metric_rows(card)),
        *["", "## Limits", "", *(f"- {_plain(limit)}" for limit in card["limits"])],
        *_table("Recipe", recipe.items()),
        *_table("Versions", card["versions"].items()),
    ]
    return "\n".join(lines) + "\n"


def metric_rows(card: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns (label, value with unit) of each metric, for readers."""
    error, temperature = table.select("images", name="error")[0], card["temperature"]
    fitted = ""
    if temperature.get("images") is not None:
        fitted = f", fitted on {temperature['images']} held-out images"
    return [
        *[(metric["title"], metric["text"]) for metric in card["metrics"]],
        *[(f"error, {n}", error.text(value)) for n, value in card["corruption_errors"].items()],
        (f"temperature{fitted}", f"{temperature['value']:.3g}"),
    ]


def _front_matter(card: Mapping[str, Any]) -> list[str]:
    """Lines of YAML that the Hugging Face Hub reads at the top of a card."""
    dataset = card["data"]["dataset"]
    licence = LICENCES.get(dataset, UNKNOWN_LICENCE)
    fields = {
        "library_name": "keras",
        "pipeline_tag": "image-classification",
        "license": licence.identifier,
        "datasets": [] if dataset == "unknown" else [licence.hub_name or dataset],
        "metrics": ["accuracy"] if card["metrics"] else [],
    }
    # A list in JSON is one in YAML.
    lines = (f"{k}: {v if isinstance(v, str) else json.dumps(v)}" for k, v in fields.items() if v)
    return ["---", *lines, "---"]


def _table(title: str, rows: Iterable[tuple[str, Any]]) -> list[str]:
    cells = [f"| {_plain(name.replace('_', ' '))} | {_plain(value)} |" for name, value in rows]
    return ["", f"## {title}", "", "| | |", "|---|---|", *cells] if cells else []


def _plain(value: object) -> str:
    """One line of text without characters that are markup in Markdown or HTML."""
    if value is None:
        return "unknown"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return re.sub(r"([\\`*\[\]<>|#$]|(?<!\w)_|_(?!\w))", r"\\\1", " ".join(str(value).split()))


def _limits(
    settings: Mapping[str, Any],
    results: Results,
    class_names: Sequence[str],
    image_size: tuple[int, int],
    temperature: float,
    left_out: str,
) -> list[str]:
    corrupted, trained = results.part("corrupted"), results.provenance.get("epochs")
    height, width = image_size
    other_sizes = "Images of other sizes are resized, which was not measured."
    if settings.get("image_size"):
        other_sizes = "Files of other sizes are resized and center-cropped, as in evaluation."
    source = corrupted.data and corrupted.data.source
    missing = ", ".join(corrupted.missing)
    limited = ", ".join(name for name in ("train_limit", "eval_limit") if settings.get(name))
    epochs = settings.get("epochs")
    limits = {
        f"Every image gets one of the {len(class_names)} classes, whatever it shows.": True,
        f"Made for images of {height} x {width} pixels. {other_sizes}": True,
        "One run with one seed; the variation between seeds is unknown.": True,
        "Nothing was measured.": results.clean is None,
        "Not measured on corrupted images.": results.corrupted is None,
        f"Not measured on these corruptions: {missing}.": missing,
        "Measured on corruptions generated by this program, not the published files.": (
            source == "generated"
        ),
        "The probabilities are not calibrated.": temperature == 1.0,
        f"Trained or measured on part of the data: {limited}.": limited,
        f"Unreadable training data: {left_out}.": left_out,
        f"Trained for {trained} of {epochs} epochs.": trained not in (None, epochs),
        "Trained on simple drawn images: an example, of no use on photographs.": (
            settings.get("dataset") == "shapes"
        ),
    }
    return [limit for limit, holds in limits.items() if holds]
