"""The table of metrics: a row in it is all that a new metric needs."""

import csv
import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

from augmix_tf import robustness
from augmix_tf.data import benchmark
from augmix_tf.evaluation import measure, results, sets
from augmix_tf.evaluation.results import Results
from augmix_tf.evaluation.values import scalars
from augmix_tf.metrics import table
from augmix_tf.report import comparison, model_card
from augmix_tf.report import run as run_report
from tests.image_stores import in_memory
from tests.run_folders import write_run

SCHEMA_PAGE = Path(__file__).resolve().parents[1] / "docs" / "results-schema.md"


def top3_accuracy(predictions):
    """A metric that the program does not have, computed from logits."""
    hits, count = 0, 0
    for logits, labels in predictions.batches():
        top = np.argsort(-logits, axis=1)[:, :3]
        hits += (top == labels[:, None]).any(axis=1).sum()
        count += len(labels)
    return float(hits / count)


TOY = table.Metric(
    "top3_accuracy", "images", top3_accuracy, "top-3 accuracy", "top-3", higher_is_better=True
)


@pytest.fixture
def toy(monkeypatch):
    monkeypatch.setattr(table, "METRICS", (*table.METRICS, TOY))


def corrupted_set(names, count=8):
    """A model and a -C set whose images carry their number and severity; all labels are 0.

    Class 0 is the least likely one of the first `severity` images, the most likely of the others.
    """

    def cell(name, severity):
        images = np.zeros((count, 2, 3, 3), np.uint8)
        images[:, 0, 0, 0], images[:, 0, 0, 1] = np.arange(count), severity
        yield images, np.zeros(count, np.int64)

    def program(images):
        number, severity = np.asarray(images)[:, 0, 0, 0], np.asarray(images)[:, 0, 0, 1]
        right = number >= severity
        return np.where(right[:, None], [4.0, 3, 2, 1, 0], [1.0, 4, 3, 2, 0]).astype(np.float32)

    return program, benchmark.CorruptedSet(names, {"source": "official"}, cell)


@pytest.mark.usefixtures("toy")
def test_a_new_row_is_in_every_file_and_table(tmp_path):
    program, corrupted = corrupted_set(robustness.CORRUPTIONS)
    images = np.zeros((8, 2, 3, 3), np.uint8)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = np.arange(8), 2
    found = measure.measure(
        program, in_memory(images), list("abcde"),
        sets.Benchmarks(corrupted), results.Temperature(2.0, 10, "train"),
    )  # fmt: skip
    folder = write_run(tmp_path / "run", {})
    found.write(folder / "results.json")

    document = found.to_json()
    assert document["clean"]["top3_accuracy"] == 0.75
    cells = document["corrupted"]["corruptions"]["fog"]
    assert [cell["top3_accuracy"] for cell in cells] == [0.875, 0.75, 0.625, 0.5, 0.375]
    assert document["corrupted"]["mean"]["top3_accuracy"] == 0.625
    assert document["clean"]["calibrated"]["top3_accuracy"] == 0.75
    report = run_report.write(folder).read_text()
    assert "| top-3 accuracy | 75.00 % |" in report
    assert "| top-3 accuracy | 75.00 % | 62.50 % | 75.00 % | 62.50 % |" in report
    assert re.search("clean top-3 +75.00 %", run_report.results_table(folder))
    text = comparison.write([folder], tmp_path / "out").read_text()
    assert "### Clean top-3 accuracy (%; higher is better)" in text
    assert "| augmix | 62.50 |" in text
    assert re.search("corrupted top-3 +62.50 %", comparison.comparison_table([folder]))
    with (tmp_path / "out" / "comparison.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["clean_top3_accuracy"], row["corrupted_top3_accuracy"]) == ("0.75", "0.625")
    card = model_card.make({}, found, list("abcde"), (2, 3), 2.0)
    assert "| clean top-3 accuracy | 75.00 % |" in model_card.markdown(card)
    assert scalars(found)["test/top3_accuracy"] == 0.75


def described(title):
    """The names in the first column of the table under a title of the page."""
    text = SCHEMA_PAGE.read_text(encoding="utf-8")
    section = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    assert section, f"no section {title}"
    cells = re.findall(r"^\| (`.+?) \|", section[1], re.M)
    return {name for cell in cells for name in re.findall(r"`([\w.]+)`", cell)}


def fields(kind):
    """The keys that a part of `results.json` can have."""
    names = set()
    for field in dataclasses.fields(kind):
        inputs = field.metadata.get("inputs")
        names |= {metric.name for metric in table.select(inputs)} if inputs else {field.name}
    return names


SECTIONS = {
    "Parts": fields(Results) | {"schema"},
    "One set of images": fields(results.ImageResults),
    "reliability": fields(results.ReliabilityBin),
    "outcomes": fields(results.Outcomes),
    "confusion": fields(results.Confusion),
    "temperature": fields(results.Temperature),
    "corrupted": fields(results.CorruptedResults),
    "perturbed": fields(results.PerturbedResults),
    "perturbations": fields(results.PerturbationResults),
    "shifted": fields(results.ShiftedResults) - fields(results.ImageResults),
    "adapted": fields(results.AdaptedResults),
    "data": fields(results.Data),
}


@pytest.mark.parametrize("title", SECTIONS)
def test_the_page_on_the_schema_has_each_field_and_metric_and_no_other(title):
    assert described(title) == SECTIONS[title]
