"""What only networks for ImageNet have in reports: means in % of AlexNet, and other test sets."""

import csv
import json
import re

import pytest

from augmix_tf.checks import RunError
from augmix_tf.reports import comparison, summary, terminal
from tests import run_folders

ALEXNET_C = {"mce": 68.44, "relative_mce": 77.96}
ALEXNET_P = {"mean_flip_rate": 37.44, "mean_top5_distance": 52.16}


def shifted(error, classes=200, images=30_000):
    data = {"source": "folder", "description": "the folder sets/r", "images": images}
    measured = run_folders.measures(error, rms=error / 4, aurra=0.625)
    return measured | {"images": images, "classes": classes, "data": data}


def parts(**more):
    return {
        "clean": run_folders.measures(0.25),
        "corrupted": run_folders.corrupted(run_folders.alike(0.5)) | {"alexnet": ALEXNET_C},
        "perturbed": run_folders.perturbed(dict.fromkeys(run_folders.PERTURBATIONS, 0.125))
        | ALEXNET_P,
        "shifted": {"imagenet-r": shifted(0.5625), "imagenetv2-matched|1": shifted(0.375, 1000)},
        "provenance": {},
    } | more


def rows(text):
    """Title -> the rest of each line of an aligned table."""
    found = (re.split(r"  +", line.strip(), maxsplit=1) for line in text.splitlines())
    return {row[0]: row[1] for row in found if len(row) == 2}


def test_the_report_of_a_run_has_them(tmp_path):
    run_folders.write_run(tmp_path / "run", parts(), dataset="imagenet2012")
    text = summary.write(tmp_path / "run").read_text()
    assert "In % of AlexNet, as published for ImageNet: mCE 68.4, relative mCE 78.0." in text
    assert "mean flip rate, in % of AlexNet: 37.4" in text
    assert "mean top-5 distance, in % of AlexNet: 52.2" in text
    _, _, section = text.partition("## Other test sets\n")
    section, _, _ = section.partition("\n## ")
    assert "| imagenet-r | 30,000 | 200 | 56.25 | 14.06 | 62.50 |" in section
    assert "| imagenetv2-matched\\|1 | 30,000 | 1,000 | 37.50 | 9.38 | 62.50 |" in section
    assert "- imagenet-r: the folder sets/r, 30,000 images." in section


def test_the_table_after_a_run_has_them(tmp_path):
    run_folders.write_run(tmp_path / "run", parts())
    found = rows(terminal.results_table(tmp_path / "run"))
    assert found["mCE, of AlexNet's"] == "68.4 %"
    assert found["relative mCE"] == "78.0 %"
    assert found["mFR, of AlexNet's"] == "37.4 %"
    assert found["mT5D, of AlexNet's"] == "52.2 %"
    assert found["error on imagenet-r"] == "56.25 %"
    lines = [line for line in terminal.results_table(tmp_path / "run").splitlines() if line]
    names = [re.match(r"  .*?  +|  error on imagenetv2-matched\|1 ", line) for line in lines]
    assert len({match.end() for match in names}) == 1  # values stand below each other


def test_runs_on_small_pictures_say_nothing_of_them(tmp_path):
    plain = {name: part for name, part in parts().items() if name in ("clean", "provenance")}
    run_folders.write_run(tmp_path / "run", plain)
    texts = [
        summary.write(tmp_path / "run").read_text(),
        terminal.results_table(tmp_path / "run"),
        terminal.comparison_table([tmp_path / "run"]),
        comparison.write([tmp_path / "run"], tmp_path / "out").read_text(),
    ]
    for text in texts:
        assert not re.search("AlexNet|mCE|error on imagenet|Other test sets", text)
    header = (tmp_path / "out" / "comparison.csv").read_text().splitlines()[0].split(",")
    assert not {"alexnet_relative_mce", "mean_flip_rate", "mean_top5_distance"} & set(header)


@pytest.fixture
def two(tmp_path):
    """AugMix, and standard training, which was not evaluated on ImageNet-R."""
    first = run_folders.write_run(tmp_path / "augmix", parts())
    other = parts(
        corrupted=run_folders.corrupted(run_folders.alike(0.75))
        | {"alexnet": {"mce": 76.7, "relative_mce": None}},
        shifted={"imagenetv2-matched|1": shifted(0.4375, 1000, 10)},
    )
    second = run_folders.write_run(tmp_path / "standard", other, method="standard")
    return [second, first]


def test_a_comparison_has_them(two, tmp_path):
    text = comparison.write(two, tmp_path / "out").read_text()

    def below(title):
        _, _, rest = text.partition(f"### {title}\n")
        table = [line for line in rest.partition("\n### ")[0].splitlines() if "|" in line]
        return {row.split(" | ")[0].strip("| "): row.split(" | ")[1] for row in table[2:]}

    assert below("mCE, relative to AlexNet (%)") == {
        "standard": "76.7 |",
        "augmix": "**68.4** |",
    }
    assert below("Relative mCE, relative to AlexNet (%)")["augmix"] == "78.0 |"
    assert below("Mean flip rate, relative to AlexNet (%)")["augmix"] == "**37.4** |"
    assert below("Mean top-5 distance, relative to AlexNet (%)")["augmix"] == "**52.2** |"
    assert below("Error on imagenet-r (%)") == {"standard": "– |", "augmix": "56.25 |"}
    _, _, sets = text.partition("### Error on imagenetv2-matched\\|1 (%)")
    assert "| standard | 43.75 |" in sets
    assert "| augmix | **37.50** |" in sets
    assert "imagenet-r: the folder sets/r, 30,000 images." in text
    assert "not evaluated on imagenet-r: " in text
    assert "differ in the images of imagenetv2-matched\\|1: " in text
    assert "the classes of" not in text
    with (tmp_path / "out" / "comparison.csv").open(newline="") as file:
        found = {row["method"]: row for row in csv.DictReader(file)}
    assert found["augmix"]["alexnet_relative_mce"] == "77.96"
    assert found["standard"]["alexnet_relative_mce"] == ""
    assert found["augmix"]["mean_flip_rate"] == "37.44"
    assert found["augmix"]["error_on_imagenet-r"] == "0.5625"
    assert found["standard"]["error_on_imagenet-r"] == ""


def test_the_table_of_several_runs_has_them(two):
    found = rows(terminal.comparison_table(two))
    assert re.split("  +", found["mCE, of AlexNet's"]) == ["76.7 %", "68.4 %"]
    assert re.split("  +", found["relative mCE"]) == ["–", "78.0 %"]
    assert re.split("  +", found["error on imagenet-r"]) == ["–", "56.25 %"]
    assert re.split("  +", found["error on imagenetv2-matched|1"]) == ["43.75 %", "37.50 %"]


DAMAGES = {
    "a list": ([], "want shifted to be an object, got list"),
    "no measures": ({"r": 0.5}, "want an object as shifted.r, got float"),
    "no error": ({"r": {"classes": 200}}, "want an error in shifted.r, got None"),
    "text": ({"r": {"error": "0.5"}}, "want an error in shifted.r, got '0.5'"),
    "classes": ({"r": {"error": 0.5, "classes": []}}, r"as shifted.r.classes, got \[\]"),
    "data": ({"r": {"error": 0.5, "data": "r"}}, "want shifted.r.data to be an object, got str"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_part_is_named(tmp_path, damage):
    content, message = DAMAGES[damage]
    run_folders.write_run(tmp_path / "run", parts())
    path = tmp_path / "run" / "results.json"
    path.write_text(json.dumps({"schema": 2, **parts(shifted=content)}))
    with pytest.raises(RunError, match=f"cannot read .*results.json: .*{message}"):
        summary.write(tmp_path / "run")
