"""Comparisons of several runs: tables, CSV, warnings, plots and the terminal."""

import csv
import dataclasses
import json
import math
import os
import re

import numpy as np
import pytest
from PIL import Image

from augmix_tf.errors import ArgumentError
from augmix_tf.metrics import Interval, Outcomes, errors_per_image, mcnemar, wilson_interval
from augmix_tf.report import comparison, directories
from augmix_tf.report.significance import clearly_best
from augmix_tf.robustness import CBAR_BENCHMARKS
from tests.run_folders import (
    CORRUPTIONS,
    PERTURBATIONS,
    alike,
    corrupted,
    imagenet_parts,
    measures,
    perturbed,
    shifted,
    write_run,
)


def add(root, name, error=0.1, shifted=0.3, *, errors=None, parts=None, **config):
    """A run with this error on clean images and this one in each corrupted cell."""
    document = {"clean": measures(error, brier=2 * error)}
    if shifted is not None or errors:
        document["corrupted"] = corrupted(errors or alike(shifted))
    return write_run(root / name, document | (parts or {}), **config)


def table_of(text, title):
    """The rows of the table under a title, cell by cell."""
    block = text.split(f"### {title}\n\n")[1].split("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()]
    assert set(map(len, rows)) == {len(rows[0])}
    return [rows[0], *rows[2:]]


@pytest.fixture
def drawn():
    """A test that has this one gets the plots; the others are about tables, and faster without."""


@pytest.fixture(autouse=True)
def no_plots(request, monkeypatch):
    if "drawn" not in request.fixturenames:
        monkeypatch.setattr(comparison, "figures", lambda dataset, runs: {})


@pytest.fixture
def folders(tmp_path):
    """Two methods on two models, two seeds of one of them."""
    return [
        add(tmp_path, "a", 0.10, 0.30, method="standard", seed=1),
        add(tmp_path, "b", 0.14, 0.34, method="standard", seed=2),
        add(tmp_path, "c", 0.11, 0.20, seed=1),
        add(tmp_path, "d", 0.11, 0.26, seed=2),
        add(tmp_path, "e", 0.20, 0.40, method="standard", model="allconv"),
        add(tmp_path, "f", 0.30, 0.36, model="allconv"),
    ]


def test_tables_are_methods_by_models(folders, tmp_path):
    path = comparison.write(folders, tmp_path / "out")
    assert path == tmp_path / "out" / "comparison.md"
    text = path.read_text()
    assert text.startswith("# Comparison of 6 runs\n")
    # Sample deviations of two values: their distance over the root of 2, 4 / 1.414 and 6 / 1.414.
    assert table_of(text, "Clean error (%)") == [
        ["method", "allconv", "wrn", "mean"],
        ["standard", "20.00 (n = 1)", "12.00 ± 2.83 (n = 2)", "16.00"],
        ["augmix", "30.00 (n = 1)", "11.00 ± 0.00 (n = 2)", "20.50"],
    ]
    assert table_of(text, "Mean corruption error (%)") == [
        ["method", "allconv", "wrn", "mean"],
        ["standard", "40.00 (n = 1)", "32.00 ± 2.83 (n = 2)", "36.00"],
        ["augmix", "36.00 (n = 1)", "23.00 ± 4.24 (n = 2)", "29.50"],
    ]
    assert table_of(text, "Clean Brier score")[2][2] == "0.2200 ± 0.0000 (n = 2)"
    title = "RMS calibration error, mean over 15 corruptions (%)"
    assert table_of(text, title)[2][3] == "14.75"
    assert "not all comparable" not in text
    text = comparison.write(folders[:4], tmp_path / "out").read_text()
    assert table_of(text, "Clean error (%)")[0] == ["method", "wrn"]
    assert "(n = " not in text
    assert text.count("n = 2 in each cell.") == 6


def test_each_corruption_has_a_column_as_in_the_paper(tmp_path):
    errors = alike(0.2) | {"fog": [0.0, 0.1, 0.2, 0.3, 0.1]}
    one = add(tmp_path, "a", 0.04, errors=errors, seed=1)
    two = add(tmp_path, "b", 0.06, errors=alike(0.2) | {"fog": [0.24] * 5}, seed=2)
    three = add(tmp_path, "c", 0.05, 0.15, method="standard")
    text = comparison.write([one, two, three], tmp_path / "out").read_text()
    head, standard, augmix = table_of(text, "Error on each corruption (%): wrn")
    assert head[:4] == ["method", "clean", "mean", "gaussian"]
    assert augmix[head.index("fog")] == "19.0"  # of 14.0 and 24.0
    assert standard[head.index("fog")] == "15.0"
    assert (standard[1], augmix[1], augmix[2]) == ("5.0", "5.0", "19.9")


def test_means_are_over_the_corruptions_that_all_runs_have(tmp_path):
    errors = alike(0.2) | {"frost": [0.95] * 5}
    whole = add(tmp_path, "a", errors=errors, method="standard")
    names = [name for name in CORRUPTIONS if name != "frost"]
    part = add(tmp_path, "b", errors=alike(0.1, names))
    text = comparison.write([whole, part], tmp_path / "out").read_text()
    title = "Error, mean over 14 of 15 corruptions, frost excluded (%)"
    assert table_of(text, title)[1:] == [["standard", "20.00"], ["augmix", "10.00"]]
    assert "Mean corruption error" not in text
    assert (
        f"> - Corrupted: generated, 100 images, seed 0, 15 corruptions (`{whole}`); generated, "
        f"100 images, seed 0, 14 of 15 corruptions, frost excluded (`{part}`)"
    ) in text
    assert "frost" not in table_of(text, "Error on each corruption (%): wrn")[0]
    said = comparison.comparison_table([whole, part])
    assert "error on 14 corruptions" in said


def test_what_was_not_measured_is_a_dash(tmp_path):
    clean = add(tmp_path, "a", 0.1, None, method="standard")
    (clean / "results.json").write_text(json.dumps({"schema": 1, "clean": measures(0.1)}))
    ten = perturbed(dict.fromkeys(PERTURBATIONS, 0.03))
    whole = add(tmp_path, "b", 0.2, 0.3, parts={"perturbed": ten})
    text = comparison.write([clean, whole], tmp_path / "out").read_text()
    assert table_of(text, "Mean corruption error (%)")[1:] == [
        ["standard", "–"],
        ["augmix", "30.00"],
    ]
    flips = table_of(text, "Mean flip probability (%)")
    assert flips[1:] == [["standard", "–"], ["augmix", "3.00"]]
    assert f"Corrupted: not evaluated (`{clean}`); " in text
    assert f"Perturbed: not evaluated (`{clean}`); " in text
    assert "temperature" not in text
    assert comparison.write([clean], tmp_path / "alone").read_text().count("### ") == 3


LABELS = [
    ({"method": "standard", "jsd": False}, "wrn", "standard"),
    ({}, "wrn", "augmix"),
    ({"jsd": False, "depth": 10, "widen_factor": 1}, "wrn-10-1", "augmix, no JSD"),
    ({"views": 2, "model": "allconv"}, "allconv", "augmix, 2 views"),
    ({"views": 5, "split_bn": True, "depth": 16}, "wrn-16", "augmix, 5 views, split BN"),
    ({"mix_ops": "augmix"}, "wrn", "augmix"),
    ({"mix_ops": "autoaugment"}, "wrn", "autoaugment + JSD"),
    ({"mix_ops": "random_autoaugment", "jsd": False}, "wrn", "random_autoaugment, no JSD"),
]


@pytest.mark.parametrize(("config", "model", "method"), LABELS)
def test_a_run_is_named_by_its_settings(tmp_path, config, model, method):
    (run,) = directories.read_runs([add(tmp_path, "a", **config)])
    assert (run.model, run.method) == (model, method)


def test_runs_with_other_settings_are_not_averaged(tmp_path):
    folders = [
        add(tmp_path, "a", 0.1, seed=1, epochs=2, alpha=1.0, data_dir="x"),
        add(tmp_path, "b", 0.2, seed=2, epochs=5, alpha=1.0, data_dir="y"),
        add(tmp_path, "c", 0.3, seed=3, epochs=5),
        add(tmp_path, "d", 0.4, seed=4, epochs=7, method="standard"),
    ]
    text = comparison.write(folders, tmp_path / "out").read_text()
    rows = table_of(text, "Clean error (%)")[1:]
    assert [row[0] for row in rows] == ["standard", "augmix, epochs 2", "augmix, epochs 5"]
    assert rows[2][1] == "25.00 ± 7.07 (n = 2)"
    differ = f"Epochs of wrn: 7 (`{folders[3]}`); 2 (`{folders[0]}`); 5 ("
    assert differ in text


def test_the_methods_come_in_the_order_of_the_paper(tmp_path):
    settings = [{}, {"method": "stylized"}, {"jsd": False}, {"method": "mixup"},
                {"mix_ops": "autoaugment"}, {"method": "standard"}]  # fmt: skip
    folders = [add(tmp_path, f"{i}", **config) for i, config in enumerate(settings)]
    text = comparison.write(folders, tmp_path / "out").read_text()
    order = [row[0] for row in table_of(text, "Clean error (%)")[1:]]
    ours = ["standard", "mixup", "stylized", "augmix, no JSD", "autoaugment + JSD", "augmix"]
    assert order == ours


def with_data(**data):
    return {"parts": {"corrupted": corrupted(alike(0.2)) | {"data": data}}}


WARNINGS = {
    "images": ({"parts": {"clean": measures(0.1, images=50)}}, "Clean test images: 100 ("),
    "source": (
        with_data(source="official", images=100),
        "Corrupted: generated, 100 images, seed 0, 15 corruptions (",
    ),
    "seed": (
        with_data(source="generated", seed=1, images=100),
        "100 images, seed 1, 15 corruptions (",
    ),
    "severities": (
        {"parts": {"corrupted": corrupted({n: [0.2] for n in CORRUPTIONS}) | {"severities": [3]}}},
        "100 images, seed 0, 15 corruptions at severity 3 (",
    ),
    "cells": (
        with_data(source="generated", seed=0, images=50),
        "Corrupted: generated, 100 images, seed 0, 15 corruptions (",
    ),
    "epochs": ({"epochs": 9}, "Epochs of wrn: 2 ("),
    "train_limit": ({"train_limit": 10}, "Limit on training images: 0 ("),
    "seeds": ({"method": "standard"}, "Several runs of standard of wrn have seed 1"),
}


@pytest.mark.parametrize(("other", "message"), WARNINGS.values(), ids=WARNINGS)
def test_what_makes_a_comparison_unfair_is_said(tmp_path, other, message):
    folders = [add(tmp_path, "a", method="standard"), add(tmp_path, "b", **other)]
    text = comparison.write(folders, tmp_path / "out").read_text()
    (warning,) = [line for line in text.splitlines() if line.startswith("> - ")]
    assert message in warning


def test_datasets_have_sections_of_their_own(tmp_path):
    folders = [add(tmp_path, "a", 0.1), add(tmp_path, "b", 0.5, dataset="cifar100", epochs=200)]
    text = comparison.write(folders, tmp_path / "out").read_text()
    first, second = text.split("## cifar100\n")
    assert table_of(first, "Clean error (%)")[1] == ["augmix", "10.00"]
    assert table_of(second, "Clean error (%)")[1] == ["augmix", "50.00"]
    assert "not all comparable" not in text


def test_the_csv_has_a_row_for_each_run(folders, tmp_path):
    comparison.write([*folders, add(tmp_path, "g", 0.07, None, seed=7)], tmp_path / "out")
    with (tmp_path / "out" / "comparison.csv").open(newline="") as file:
        rows = {row["workdir"]: row for row in csv.DictReader(file)}
    assert set(rows) == {*map(str, folders), str(tmp_path / "g")}
    row = rows[str(folders[3])]
    assert [row[name] for name in ("dataset", "model", "method", "seed", "temperature")] == [
        "cifar10", "wrn", "augmix", "2", ""
    ]  # fmt: skip
    assert float(row["clean_brier"]) == 0.22
    assert float(row["mean_corruption_error"]) == pytest.approx(0.26)
    assert float(row["error_jpeg_compression"]) == pytest.approx(0.26)
    assert rows[str(tmp_path / "g")]["error_fog"] == ""


@pytest.mark.usefixtures("drawn")
def test_a_comparison_is_the_same_again_in_any_order(folders, tmp_path):
    def content(order, out):
        comparison.write(order, tmp_path / out)
        found = {p.relative_to(tmp_path / out): p for p in (tmp_path / out).rglob("*.*")}
        return {str(name): path.read_bytes() for name, path in found.items() if path.is_file()}

    first = content(folders[1:3], "one")
    assert content(folders[2:0:-1], "two") == first
    names = [f"plots/cifar10-wrn-{name}.png" for name in (
        "reliability", "corruption_errors", "error_over_severity", "calibration_over_severity"
    )]  # fmt: skip
    assert sorted(first) == sorted(["comparison.md", "comparison.csv", *names])
    for name in names:
        assert f"]({name})" in first["comparison.md"].decode()
        sheet = np.asarray(Image.open(tmp_path / "one" / name).convert("RGB"))
        assert 450 <= sheet.shape[0] <= 800
        assert 0.01 < (sheet < 250).any(axis=-1).mean() < 0.5


@pytest.mark.usefixtures("drawn")
def test_a_name_with_odd_characters_makes_a_legal_file_name(tmp_path):
    folder = add(tmp_path, "a", shifted=None, dataset="my/data set:1", depth=16)
    comparison.write([folder], tmp_path / "out")
    (path,) = (tmp_path / "out" / "plots").iterdir()
    assert path.name == "my-data-set-1-wrn-16-reliability.png"


def test_a_directory_without_an_evaluated_run_is_refused(tmp_path):
    valid, bare = add(tmp_path, "a"), add(tmp_path, "b")
    (bare / "results.json").unlink()
    unknown = add(tmp_path, "c", parts={"clean": {"nll": 1.0}})
    for folder in (bare, unknown):
        with pytest.raises(ArgumentError, match=rf"Expected evaluated runs.*received {folder}"):
            comparison.write([valid, folder], tmp_path / "out")
    with pytest.raises(ArgumentError, match=r"Expected a run directory .*nowhere"):
        comparison.write([valid, tmp_path / "nowhere"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_no_folder_and_a_folder_twice_are_refused(tmp_path, monkeypatch):
    folder = add(tmp_path, "a")
    with pytest.raises(ArgumentError, match="Expected at least one run directory; received none"):
        comparison.write([], tmp_path / "out")
    monkeypatch.chdir(tmp_path)
    os.symlink(folder, tmp_path / "link")
    with pytest.raises(ArgumentError, match="each run directory once"):
        comparison.comparison_table([folder, "link"])


def test_an_estimate_is_mean_sample_deviation_and_interval():
    got = directories.estimate([1.0, None, 3.0])
    assert got[:3] == pytest.approx((2.0, math.sqrt(2), 2))
    # Of two runs: 12.706 standard errors.
    assert got.interval == pytest.approx((2.0 - 12.706, 2.0 + 12.706), abs=1e-3)
    assert directories.estimate([5.0], [(4.5, 6.0)]) == (5.0, None, 1, (4.5, 6.0))
    assert directories.estimate([5.0]) == (5.0, None, 1, None)
    assert directories.estimate([None]) == (None, None, 0, None)
    # Seeds that agree by luck: the images still vary.
    same = directories.estimate([5.0, 5.0], [(4.0, 6.0), (4.5, 6.5)])
    assert same.interval == (4.25, 6.25)


def test_only_a_value_better_beyond_the_intervals_is_clearly_the_best():
    def value(mean, low, high):
        return directories.Estimate(mean, interval=(Interval(low, high)))

    best, near, far = value(10, 7, 13), value(14.9, 10.9, 16), value(15.1, 11.1, 16)
    # Distances of 3 and 4 towards each other make a margin of 5.
    assert clearly_best([near, best], higher_is_better=False) is None
    assert clearly_best([far, best], higher_is_better=False) is best
    assert clearly_best([far, best], higher_is_better=True) is far
    assert clearly_best([far, near, best], higher_is_better=False) is None
    unknown = directories.Estimate(20.0)
    assert clearly_best([unknown, best], higher_is_better=False) is None
    assert clearly_best([best, directories.Estimate(None)], higher_is_better=False) is None


def test_runs_stand_side_by_side_in_the_terminal(folders):
    lines = comparison.comparison_table([folders[2], folders[0]]).splitlines()
    assert [line.split() for line in lines[1:]] == [
        ["augmix", "standard"],
        ["clean", "error", "11.00", "%", "10.00", "%"],
        ["mean", "corruption", "error", "20.00", "%", "30.00", "%"],
        ["clean", "Brier", "score", "0.2200", "0.2000"],
        ["corrupted", "Brier", "score", "0.2000", "0.2000"],
        ["clean", "RMS", "calibration", "error", "5.00", "%", "5.00", "%"],
        ["corrupted", "RMS", "calibration", "error", "10.00", "%", "15.00", "%"],
        # 40 steps of 100 images at 800 and 40 at 1,600 images a second.
        ["training", "time,", "about", "0.1", "min", "0.1", "min"],
    ]
    assert len({len(line) for line in lines[1:]}) == 1
    head = comparison.comparison_table(folders[:2]).splitlines()[1]
    assert head.split() == [str(folder) for folder in folders[:2]]


def outcomes(error, count=400, seed=0, labels=0):
    """Outcomes of a network with about this error, on images that are hard for every network."""
    hardness = np.random.default_rng(7).permutation(count) / count
    noise = np.random.default_rng(seed).normal(scale=0.05, size=count)
    return Outcomes.of(hardness + noise >= error, np.full(count, labels))


def measured(error, seed=0, labels=0):
    of_clean = outcomes(error, seed=seed, labels=labels)
    wrong = int((~of_clean.is_correct).sum())
    return measures(
        wrong / 400,
        images=400,
        intervals={"error": list(wilson_interval(wrong, 400)), "brier": [0.1, 0.3]},
        outcomes=dataclasses.asdict(of_clean),
        rms_noise_floor=0.03,
        debiased_rms_calibration_error=0.04,
        overconfidence=-0.015,
    )


def add_measured(root, name, error, seed=0, labels=0, **config):
    parts = {"clean": measured(error, seed, labels)}
    for part, names in (("corrupted", CORRUPTIONS), ("cbar", CBAR_BENCHMARKS["cifar"])):
        parts[part] = corrupted(alike(0.5, names)) | {"missing": []}
        parts[part]["corruptions"] = {
            corruption: [measured(error + 0.02 * s, 31 * seed + s, labels) for s in range(5)]
            for corruption in names
        }
    return write_run(root / name, parts, **config)


def test_only_clear_differences_are_in_bold_and_intervals_stand_beside(tmp_path):
    folders = [
        add_measured(tmp_path, "a", 0.20, method="standard"),
        add_measured(tmp_path, "b", 0.17, seed=1),
    ]
    text = comparison.write(folders, tmp_path / "out").read_text()
    augmix = table_of(text, "Clean error (%)")[2][1]
    assert re.fullmatch(r"[\d.]+ \([\d.]+ to [\d.]+\)", augmix)
    shown = [float(number) for number in re.findall(r"[\d.]+", augmix)]
    wrong = round(shown[0] * 4)
    assert shown[1:] == [round(100 * bound, 2) for bound in wilson_interval(wrong, 400)]
    folders.append(add_measured(tmp_path, "c", 0.05, seed=2, method="cutout"))
    text = comparison.write(folders, tmp_path / "out").read_text()
    rows = table_of(text, "Clean error (%)")[1:]
    assert [row[0] for row in rows if "**" in row[1]] == ["cutout"]
    rows = table_of(text, "Error on each corruption (%): wrn")[1:]
    assert {row[0] for row in rows if "**" in " ".join(row)} == {"cutout"}
    assert all("to" not in cell for row in rows for cell in row[1:])
    assert table_of(text, "Clean Brier score")[1][1] == "0.2000 (0.1000 to 0.3000)"
    assert table_of(text, "Calibration (%): wrn")[:2] == [
        ["method", "images", "RMS calibration error", "RMS noise floor", "debiased RMS",
         "overconfidence"],
        ["standard", "clean", "5.00", "3.00", "4.00", "-1.50"],
    ]  # fmt: skip


def test_methods_are_tested_on_the_same_images(tmp_path):
    folders = [
        add_measured(tmp_path, "a", 0.20, method="standard"),
        add_measured(tmp_path, "b", 0.16, seed=1),
    ]
    text = comparison.write(folders, tmp_path / "out").read_text()
    ((method, clean, p_value, shifted, cbar),) = table_of(
        text, "Augmix against the others on the same images: wrn"
    )[1:]
    runs = [directories.read(folder) for folder in folders]
    pair = [run.clean.outcomes.is_correct for run in runs]
    assert method == "standard"
    difference, low, high = map(float, re.findall(r"[-+][\d.]+", clean))
    assert difference == pytest.approx(100 * (pair[1].mean() - pair[0].mean()), abs=0.005)
    assert low < difference < high
    # Paired on the same hard images the difference is surer than the two intervals say.
    widths = [np.diff(run.clean.interval("error")) * 100 for run in runs]
    assert high - low < min(widths)
    assert p_value == f"{mcnemar(*pair).p_value:.2g}"
    cells = [cell.outcomes for name in CORRUPTIONS for cell in runs[0].corrupted.corruptions[name]]
    theirs = runs[1].corrupted.errors_per_image(CORRUPTIONS)
    want = 100 * (errors_per_image(cells).mean() - theirs.mean())
    assert float(shifted.split()[0]) == pytest.approx(want, abs=0.005)
    # The cells of both benchmarks have the same outcomes here.
    assert cbar == shifted


def test_seeds_are_averaged_before_methods_are_tested(tmp_path):
    folders = [
        add_measured(tmp_path, "a", 0.20, method="standard"),
        add_measured(tmp_path, "b", 0.16, seed=1),
        add_measured(tmp_path, "c", 0.15, seed=2),
    ]
    for number, folder in enumerate(folders):
        config = json.loads((folder / "config.json").read_text()) | {"seed": number}
        (folder / "config.json").write_text(json.dumps(config))
    text = comparison.write(folders, tmp_path / "out").read_text()
    (row,) = table_of(text, "Augmix against the others on the same images: wrn")[1:]
    wrong = [1 - directories.read(f).clean.outcomes.is_correct.mean() for f in folders]
    want = 100 * (wrong[0] - (wrong[1] + wrong[2]) / 2)
    assert float(row[1].split()[0]) == pytest.approx(want, abs=0.005)
    assert row[2] == "–"


def test_other_images_are_not_tested(tmp_path):
    folders = [
        add_measured(tmp_path, "a", 0.20, method="standard"),
        add_measured(tmp_path, "b", 0.16, labels=1),
    ]
    text = comparison.write(folders, tmp_path / "out").read_text()
    title = "Augmix against the others on the same images: wrn"
    assert table_of(text, title)[1:] == [["standard", "–", "–", "–", "–"]]


@pytest.fixture
def two(tmp_path):
    """AugMix, and standard training, which was not evaluated on ImageNet-R."""
    first = write_run(tmp_path / "augmix", imagenet_parts())
    other = imagenet_parts(
        corrupted=corrupted(alike(0.75)) | {"alexnet": {"mce": 76.7, "relative_mce": None}},
        shifted={"imagenetv2-matched|1": shifted(0.4375, 1000, 10)},
    )
    second = write_run(tmp_path / "standard", other, method="standard")
    return [second, first]


def test_a_comparison_has_the_metrics_of_imagenet(two, tmp_path):
    text = comparison.write(two, tmp_path / "out").read_text()
    for title, rows in {
        "mCE (% of AlexNet)": [["standard", "76.7"], ["augmix", "68.4"]],
        "Relative mCE (% of AlexNet)": [["standard", "–"], ["augmix", "78.0"]],
        "Error on imagenet-r (%)": [["standard", "–"], ["augmix", "56.25"]],
        "Error on imagenetv2-matched\\|1 (%)": [["standard", "43.75"], ["augmix", "37.50"]],
    }.items():
        assert table_of(text, title)[1:] == rows
    assert "imagenet-r: the folder sets/r, 30,000 images." in text
    assert "imagenet-r: not evaluated (" in text
    assert "imagenetv2-matched\\|1: folder, 10 images (" in text
    with (tmp_path / "out" / "comparison.csv").open(newline="") as file:
        found = {row["method"]: row for row in csv.DictReader(file)}
    assert found["augmix"]["alexnet_relative_mce"] == "77.96"
    assert found["augmix"]["error_on_imagenet-r"] == "0.5625"
    assert found["standard"]["error_on_imagenet-r"] == ""
