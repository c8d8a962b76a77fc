"""Published results in reports: beside which runs they stand."""

import re

import pytest

from augmix_tf import recipes
from augmix_tf.report import comparison, literature
from augmix_tf.report import run as run_report
from augmix_tf.robustness import CBAR_BENCHMARKS, CORRUPTIONS, PERTURBATIONS
from tests.run_folders import alike, corrupted, measures, perturbed, write_run


@pytest.fixture(autouse=True)
def no_plots(monkeypatch):
    monkeypatch.setattr(run_report, "figures", lambda run: {})
    monkeypatch.setattr(comparison, "figures", lambda dataset, runs: {})


def on(names=CORRUPTIONS, source="official", images=10_000, **more):
    part = corrupted(alike(0.2, names)) | {"mean_corruption_error": 0.2, "missing": []}
    return part | {"data": {"source": source, "images": images}} | more


def published(folder):
    """Method -> other cells of its row in the report; empty without the section."""
    _, _, text = run_report.write(folder).read_text().partition("## Published results\n\n")
    lines, _, note = text.partition("\n\n")
    assert not text or note.startswith("Not measured by this program.")
    rows = [line.strip("| ").split(" | ") for line in lines.splitlines()[2:]]
    return {(row[0], row[-1]): row[1:-1] for row in rows}


def test_results_of_the_same_network_on_the_published_images_stand_beside(tmp_path):
    parts = {"clean": measures(0.05, images=10_000), "corrupted": on()}
    rows = published(write_run(tmp_path / "run", parts))
    assert rows["AugMix", "RobustBench, measured again"] == ["4.92", "11.18"]
    assert rows["standard", "AugMix paper, remembered"] == ["–", "26.90"]
    assert rows["Patch Gaussian", "Mintun et al."] == ["–", "17.00"]
    assert ("IPMix", "IPMix") not in rows
    parts["cbar"] = on(CBAR_BENCHMARKS["cifar"])
    rows = published(write_run(tmp_path / "both", parts))
    assert rows["AugMix", "Mintun et al."] == ["–", "11.10", "16.00"]
    text = comparison.write([tmp_path / "run"], tmp_path / "out").read_text()
    assert "### Published results: wrn\n" in text
    assert re.search(r"\| NoisyMix", text) is None
    wide = write_run(tmp_path / "wide", parts, depth=40, widen_factor=4, dataset="cifar10:3.0.2")
    assert set(published(wide)) == {("IPMix", "IPMix"), ("PixMix", "PixMix, remembered")}


OTHERS = {
    "generated": {"corrupted": on(source="generated")},
    "fewer images": {"corrupted": on(images=1000)},
    "fewer corruptions": {"corrupted": on(CORRUPTIONS[1:]) | {"mean_corruption_error": None}},
    "clean only": {},
}


@pytest.mark.parametrize("parts", OTHERS.values(), ids=OTHERS)
def test_results_on_other_images_have_nothing_published_beside_them(parts, tmp_path):
    parts = {"clean": measures(0.05, images=10_000), **parts}
    assert not published(write_run(tmp_path / "run", parts))


def test_other_datasets_and_networks_have_nothing_published_beside_them(tmp_path):
    parts = {"clean": measures(0.05, images=10_000), "corrupted": on()}
    assert not published(write_run(tmp_path / "a", parts, depth=16))
    assert not published(write_run(tmp_path / "b", parts, dataset="svhn_cropped"))
    assert not published(write_run(tmp_path / "c", parts, model="model.keras"))


def test_tfds_has_the_published_images_of_cifar_10_c_only(tmp_path):
    parts = {"clean": measures(0.05), "corrupted": on(source="tfds")}
    rows = published(write_run(tmp_path / "run", parts))
    # 100 clean images are not the test set.
    assert rows["AugMix", "RobustBench, measured again"] == ["11.18"]
    parts["corrupted"] = on(source="tfds", images=50_000)
    run = write_run(tmp_path / "imagenet", parts, dataset="imagenet2012", model="resnet50")
    assert not published(run)


@pytest.mark.parametrize("images", [5_000, 50_000])
def test_networks_for_imagenet_stand_beside_those_on_as_many_images(images, tmp_path):
    flips = perturbed(dict.fromkeys(PERTURBATIONS, 0.1))
    parts = {
        "clean": measures(0.25, images=50_000),
        "corrupted": on(images=images, alexnet={"mce": 70.0}),
        "perturbed": flips | {"data": {"source": "official", "images": 50_000}},
    }
    parts["perturbed"]["mean_flip_rate"] = 50.0
    run = write_run(tmp_path / "run", parts, dataset="imagenet2012", model="resnet50")
    rows = published(run)
    if images == 5_000:
        assert rows["AugMix", "RobustBench, measured again"] == ["–", "64.17", "–"]
        assert rows["standard", "README"] == ["23.90", "–", "58.00"]
    else:
        assert rows["standard", "README"] == ["23.90", "–", "76.70", "58.00"]
        assert rows["AugMix", "Mintun et al."] == ["–", "49.20", "–", "–"]
        assert ("AugMix", "RobustBench, measured again") not in rows


def test_what_was_measured_again_rounds_to_the_paper_s_numbers():
    again = {
        (row.dataset, row.network): row.values["c"]
        for row in literature.ROWS
        if (row.method, row.source) == ("AugMix", literature.REMEASURED) and "c" in row.values
    }
    assert len(again) == 4
    for (dataset, network), value in again.items():
        model = network.partition("-")[0]
        of_paper = recipes.METHODS["augmix"].cifar_errors[model]
        assert round(value, 1) == of_paper[dataset == "cifar100"]


def test_each_result_is_there_once():
    keys = [
        (row.dataset, row.network, row.method, row.source, row.images) for row in literature.ROWS
    ]
    assert len(set(keys)) == len(keys)
    assert all(0 < value < 100 for row in literature.ROWS for value in row.values.values())
    assert all(row.values.keys() <= literature.COLUMNS.keys() for row in literature.ROWS)
