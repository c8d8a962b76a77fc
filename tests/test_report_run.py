"""The report of one run, its reader of damaged files, and the table in the terminal."""

import csv
import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from augmix_tf.errors import FileError
from augmix_tf.metrics import Outcomes
from augmix_tf.report import run as run_report
from tests.run_folders import (
    CORRUPTIONS,
    METRICS,
    PERTURBATIONS,
    corrupted,
    imagenet_parts,
    measures,
    perturbed,
    shifted,
    write_run,
)

PARTS = {
    "clean": measures(0.1234),
    "provenance": {
        "seed": 12345,
        "epochs": 2,
        "parameters": 77850,
        "versions": {"tensorflow": "2.21.0", "keras": "3.15.1"},
    },
}


@pytest.fixture
def drawn():
    """A test that has this one gets the plots; the others are about text, and faster without."""


@pytest.fixture(autouse=True)
def no_plots(request, monkeypatch):
    if "drawn" not in request.fixturenames:
        monkeypatch.setattr(run_report, "figures", lambda run: {})


@pytest.fixture
def run(tmp_path):
    settings = {"dataset": "shapes", "note": "a|b\nc", "all_ops": False, "data_dir": None}
    folder = write_run(tmp_path / "run", PARTS, **settings)
    (folder / "metrics.csv").write_text(METRICS + "3,120,1.5,1.25,0.02,0.4,nan,0.0,1000\n")
    return folder


@pytest.mark.usefixtures("drawn")
def test_report_says_what_the_files_say(run):
    report = run_report.write(run)
    assert report == run / "report.md"
    text = report.read_text()
    assert text.startswith("# augmix: wrn on shapes\n\nepochs: 2, seed: 12345, parameters: 77850")
    for row in (
        "| error | 12.34 % |",
        "| `note` | a\\|b c |",
        "| `all_ops` | no |",
        "| `data_dir` | not set |",
        "Median throughput: 1,000 images/s.",
        "Software: tensorflow 2.21.0, keras 3.15.1.",
    ):
        assert row in text
    for plot in ("plots/curves.png", "plots/reliability.png"):
        assert f"]({plot})" in text
        assert Image.open(run / plot).format == "PNG"
    assert run_report.write(run).read_text() == text
    assert not list(run.glob("**/.*.unfinished*/*")), "nothing half-written"


@pytest.mark.usefixtures("drawn")
@pytest.mark.parametrize("missing", ["config.json", "results.json", "metrics.csv"])
def test_a_missing_file_is_left_out(run, missing):
    (run / missing).unlink()
    text = run_report.write(run).read_text()
    assert ("Not evaluated yet." in text) == (missing == "results.json")
    assert ("plots/curves.png" in text) == (missing != "metrics.csv")


def test_a_run_that_has_just_begun(tmp_path):
    (tmp_path / "metrics.csv").write_text(METRICS.splitlines()[0] + "\n")
    text = run_report.write(tmp_path).read_text()
    assert text.startswith("# Report of a run\n\n## Clean test images\n\nNot evaluated yet.")
    assert not (tmp_path / "plots").exists()


DAMAGES = {
    "cut": ("config.json", '{"dataset": "sha', "Unterminated string"),
    "list": ("config.json", "[1]", "cannot convert"),
    "binary": ("results.json", b"\xff\xfe\x00", "'utf-8' codec can't decode"),
    "schema": ("results.json", {"schema": 3}, ".*schema must be 1 or 2; received 3"),
    "type": ("results.json", {"schema": 2, "clean": {"error": "x"}}, ".*float, received 'x'"),
    "number": ("metrics.csv", "epoch,loss\n1,x\n", "could not convert string to float: 'x'"),
}


@pytest.mark.parametrize(("name", "content", "message"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_is_named(run, name, content, message):
    content = json.dumps(content) if isinstance(content, dict) else content
    content = content.encode() if isinstance(content, str) else content
    (run / name).write_bytes(content)
    with pytest.raises(FileError, match=f"^Cannot read .*{name}: {message}.*\\.$") as raised:
        run_report.write(run)
    assert "\n" not in str(raised.value)
    assert not (run / "report.md").exists()


@pytest.mark.usefixtures("drawn")
def test_the_report_shows_the_confusion_of_the_clean_images(run):
    confusion = {"class_names": ["cat", "dog"], "counts": [[3, 1], [0, 2]]}
    (run / "results.json").write_text(json.dumps({"schema": 2, "clean": {"confusion": confusion}}))
    assert "plots/confusion.png" in run_report.write(run).read_text()
    assert Image.open(run / "plots" / "confusion.png").format == "PNG"


def test_reports_need_no_tensorflow_and_no_pyplot(run):
    script = (
        "import sys\n"
        "from augmix_tf.report import comparison, plots, run\n"
        "assert 'matplotlib' not in sys.modules\n"
        "run.write(sys.argv[1])\n"
        "assert not {'tensorflow', 'keras', 'matplotlib.pyplot'} & set(sys.modules)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run([sys.executable, "-c", script, str(run)], env=environment, check=True)


RISING = {name: [0.1, 0.2, 0.3, 0.4, 0.5] for name in CORRUPTIONS}
# Gaussian noise is worse by 0.15 at each severity: the mean rises by 0.01.
ERRORS = RISING | {"gaussian_noise": [0.25, 0.35, 0.45, 0.55, 0.65]}
SYNTHETIC = {"frost_synthetic": [0.9] * 5, "saturate": [0.01] * 5}


def terminal_rows(folder: Path) -> dict[str, str]:
    """Title -> value of the table in the terminal."""
    lines = run_report.results_table(folder).splitlines()
    found = (re.split(r"  +", line.strip(), maxsplit=1) for line in lines)
    return {row[0]: row[1] for row in found if len(row) == 2}


def report(folder, **parts):
    write_run(folder, {"clean": measures(0.05)} | parts)
    return run_report.write(folder).read_text()


def test_a_whole_evaluation_has_the_published_quantity(tmp_path):
    text = report(tmp_path / "run", corrupted=corrupted(ERRORS, SYNTHETIC))
    assert "**Mean corruption error: 31.00 %**, the mean over corruptions of the mean" in text
    assert "not the published files" in text
    for row in (
        "| noise: gaussian noise | 25.00 | 35.00 | 45.00 | 55.00 | 65.00 | 45.00 |",
        "| **mean** | **11.00** | **21.00** | **31.00** | **41.00** | **51.00** | **31.00** |",
    ):
        assert row in text
    counted, _, extra = text.partition("**in no mean**")
    assert "frost synthetic" not in counted
    assert "| frost synthetic | 90.00 | 90.00 | 90.00 | 90.00 | 90.00 | 90.00 |" in extra
    found = terminal_rows(tmp_path / "run")
    assert found["mean corruption error"] == "31.00 %"
    assert found["corrupted RMS calibration error"] == "15.50 %"


def test_a_part_of_the_corruptions_is_never_called_by_the_published_name(tmp_path):
    errors = {name: row for name, row in RISING.items() if name != "frost"}
    text = report(tmp_path / "run", corrupted=corrupted(errors, SYNTHETIC))
    assert "**Mean error: 30.00 %**, over 14 of 15 corruptions, frost excluded." in text
    assert "mCE" not in text
    assert "ean corruption error" not in text
    assert terminal_rows(tmp_path / "run")["error on 14 corruptions"] == "30.00 %"


@pytest.mark.usefixtures("drawn")
def test_corruptions_that_do_not_count_make_no_headline(tmp_path):
    part = corrupted(RISING, SYNTHETIC)
    cells_left = {name: part["corruptions"][name] for name in SYNTHETIC}
    nothing = {"mean_corruption_error": None, "mean_error": None, "counted": [], "mean": {}}
    nothing |= {"missing": CORRUPTIONS, "corruptions": cells_left}
    text = report(tmp_path / "run", corrupted=part | nothing)
    assert "None of the 15 corruptions of the mean was evaluated." in text
    assert "Mean" not in text
    assert "corruption_errors.png" not in text
    shown = [title for title, value in terminal_rows(tmp_path / "run").items() if "%" in value]
    assert shown == ["clean error", "clean RMS calibration error"]


def test_calibration_stands_beside_clean_and_with_temperature(tmp_path):
    scaled = {"nll": 0.25, "rms_calibration_error": 0.01}
    part = corrupted(ERRORS)
    for row in part["corruptions"].values():
        for number, cell in enumerate(row):
            cell["calibrated"] = {"nll": 0.5, "rms_calibration_error": 0.02 * (number + 1)}
    text = report(
        tmp_path / "run",
        clean=measures(0.05, calibrated=scaled),
        corrupted=part,
        temperature={"value": 1.5, "images": 500, "held_out_of": "train"},
    )
    assert "Temperature: 1.500, fitted on 500 images held out of the train set" in text
    assert "| metric | clean | corrupted | clean, with temperature | corrupted, with temp" in text
    assert "| RMS calibration error | 5.00 % | 15.50 % | 1.00 % | 6.00 % |" in text
    assert "| Brier score | 0.2000 | 0.2000 | – | – |" in text


def test_perturbations_are_listed_and_strangers_marked(tmp_path):
    flips = dict(zip(PERTURBATIONS, np.arange(10) / 100, strict=True)) | {"spatter": 0.2}
    text = report(tmp_path / "run", perturbed=perturbed(flips))
    assert "**Mean flip probability: 4.50 %**, over the ten perturbations of the paper." in text
    assert "| shot noise | 1.00 | 1.500 | 1,200 | 31 |" in text
    assert "| spatter \\* | 20.00 |" in text
    assert terminal_rows(tmp_path / "run")["mean flip probability"] == "4.50 %"
    part = perturbed(flips) | {"intervals": {"mean_flip_probability": [0.04, 0.0525]}}
    part["perturbations"]["tilt"]["intervals"] = {"top5_distance": [1.25, 1.75]}
    text = report(tmp_path / "sure", perturbed=part)
    assert "**Mean flip probability: 4.50 %** (95 % interval 4.00 to 5.25), over the ten" in text
    assert "| tilt | 8.00 | 1.500 (1.250 to 1.750) | 1,200 | 31 |" in text
    text = report(tmp_path / "part", perturbed=perturbed({"tilt": 0.1}))
    assert "No mean flip probability: not all ten" in text
    assert "Corrupted test images" not in text


def test_each_set_of_images_has_a_row_in_the_csv(tmp_path):
    part = corrupted({"fog": [0.1, 0.3], "snow": [0.2, 0.4]}) | {"severities": [2, 5]}
    part["corruptions"]["snow"][1] |= {
        "intervals": {"error": [0.31, 0.49], "calibrated.nll": [0.2, 0.3]},
        "calibrated": {"nll": 0.25},
    }  # fmt: skip
    parts = {"corrupted": part, "shifted": {"imagenet-r": shifted(0.5)}}
    report(tmp_path / "run", **parts)
    with (tmp_path / "run" / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    places = [(row["part"], row["name"], row["severity"]) for row in rows]
    cells = [(name, severity) for name in ("fog", "snow") for severity in "25"]
    want = [("clean", "", ""), *(("corrupted", *cell) for cell in cells)]
    assert places == [*want, ("shifted", "imagenet-r", "")]
    assert [float(row["error"]) for row in rows] == [0.05, 0.1, 0.3, 0.2, 0.4, 0.5]
    snow = rows[4]
    assert (snow["images"], snow["rms_calibration_error"]) == ("100", "0.2")
    assert (snow["error_low"], snow["error_high"]) == ("0.31", "0.49")
    assert (snow["calibrated_nll"], snow["calibrated_nll_low"]) == ("0.25", "0.2")
    assert (rows[3]["error_low"], rows[3]["calibrated_nll"]) == ("", "")
    assert "overconfidence" not in rows[0]


def test_the_report_has_intervals_beside_the_errors(tmp_path):
    part, hard = corrupted(ERRORS), np.arange(100) < 30
    outcomes = dataclasses.asdict(Outcomes.of(~hard, np.zeros(100)))
    for row in part["corruptions"].values():
        for entry in row:
            entry["outcomes"] = outcomes
    part["alexnet"] = {"mce": 64.17}
    part["intervals"] = {"alexnet.mce": [63.0, 65.5]}
    intervals = {"error": [0.0115, 0.1118], "brier": [0.1, 0.3]}
    clean = measures(0.05, intervals=intervals, rms_noise_floor=0.025)
    text = report(tmp_path / "run", clean=clean, corrupted=part)
    assert "| error | 5.00 % (1.15 to 11.18) |" in text
    assert "In parentheses: 95 % intervals over test images." in text
    # An error of 0.3 on 100 images, always the same ones: 1.984 standard errors of 4.606 %.
    assert "**Mean corruption error: 31.00 %** (95 % interval 20.86 to 39.14)" in text
    assert "| 45.00 | 20.86 to 39.14 |" in text
    assert "mCE 64.2 % of AlexNet (63.0 to 65.5)" in text
    calibration = text.partition("## Calibration under corruption")[2]
    assert "| Brier score | 0.2000 (0.1000 to 0.3000) | 0.2000 |" in calibration
    assert "| noise floor of the RMS calibration error | 2.50 % | – |" in calibration


def test_the_report_of_a_network_for_imagenet_has_its_metrics(tmp_path):
    write_run(tmp_path / "run", imagenet_parts(), dataset="imagenet2012")
    text = run_report.write(tmp_path / "run").read_text()
    assert "ImageNet-C: mCE 68.4 % of AlexNet; relative mCE 78.0 % of AlexNet." in text
    assert "ean flip rate 37.4 % of AlexNet" in text
    section = text.partition("## Other test sets\n")[2].partition("\n## ")[0]
    assert "| imagenet-r | 30,000 | 200 | 56.25 | 0.5000 | 0.2000 | 14.06 | 7.03 |" in section
    assert "| imagenetv2-matched\\|1 | 30,000 | 1,000 | 37.50 | 0.5000 |" in section
