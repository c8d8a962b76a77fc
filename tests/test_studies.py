"""Beside single runs: corrupted sets written and measured, comparisons, the quick start, views."""

from __future__ import annotations

import csv
import functools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from scipy import special

import main
from augmix_tf import corruptions, metrics
from augmix_tf.data import shapes
from augmix_tf.export import saved_model

IMAGES = 20
WRITTEN = ("gaussian_noise", "brightness", "jpeg_compression")
LIMITS = ("--eval_limit=20", "--train_limit=40", "--epochs=1", "--batch_size=16")
SMALL = (*LIMITS, "--depth=10", "--widen_factor=1", "--calibration_images=10")


def refused(capsys, *arguments):
    """The one line that a wrong request is answered with."""
    capsys.readouterr()
    assert main.main(list(arguments)) == 2
    told = capsys.readouterr()
    assert told.out == ""
    [line] = told.err.splitlines()
    assert line.startswith("main.py: ")
    return line


def results(folder):
    return json.loads((folder / "results.json").read_text())


def contents(folder):
    """Each file's bytes; the lock is touched by whoever asks."""
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {path.relative_to(folder): path.read_bytes() for path in paths}


def write_set(folder, *arguments, kind="corrupted"):
    limits = ("--eval_limit=20", "--workers=1", f"--{kind}_dir={folder}")
    assert main.main(["--mode=corrupt", *limits, *arguments]) == 0
    return folder


@pytest.fixture(scope="module", autouse=True)
def quick():
    """Leaves out what takes long and has been seen: reloading exports, drawing shapes again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shapes, "make", functools.cache(shapes.make))
        patch.setattr(saved_model, "verify", lambda *_: 0.0)
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that was measured on corruptions made for it; its folder is only looked at."""
    folder = tmp_path_factory.mktemp("run") / "run"
    assert main.main([*SMALL, "--model=wrn", f"--workdir={folder}"]) == 0
    return folder


@pytest.fixture
def own(run, tmp_path):
    shutil.copytree(run, tmp_path / "own")
    return tmp_path / "own"


@pytest.fixture(scope="module")
def corrupted_set(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("set") / "C", f"--names={','.join(WRITTEN)}")


@pytest.fixture(scope="module")
def perturbed_set(tmp_path_factory):
    folder = tmp_path_factory.mktemp("set") / "P"
    return write_set(folder, "--names=gaussian_noise,translate", kind="perturbed")


# Measured on corrupted images


def test_a_run_without_a_set_is_measured_on_corruptions_that_are_made_for_it(run):
    measured = results(run)["corrupted"]
    assert measured["data"]["source"] == "generated"
    assert measured["data"]["images"] == IMAGES
    assert "frost" not in measured["corruptions"]
    assert measured["missing"] == ["frost"]
    assert set(measured["corruptions"]) == set(corruptions.CORRUPTIONS) - {"frost"}
    for cells in measured["corruptions"].values():
        assert [cell["images"] for cell in cells] == [IMAGES] * 5
    errors = [[cell["error"] for cell in cells] for cells in measured["corruptions"].values()]
    assert measured["mean_error"] == pytest.approx(np.mean(errors), abs=1e-12)


def test_a_written_set_holds_the_corruptions_that_are_made_while_evaluating(
    own, run, corrupted_set, capsys
):
    before = results(run)
    assert (
        main.main(["--mode=evaluate", f"--corrupted_dir={corrupted_set}", f"--workdir={own}"]) == 0
    )
    assert "error on 3 corruptions" in capsys.readouterr().out
    after = results(own)
    assert sorted(after["corrupted"]["corruptions"]) == sorted(WRITTEN)
    for name in WRITTEN:
        assert after["corrupted"]["corruptions"][name] == before["corrupted"]["corruptions"][name]
    for name in ("clean", "temperature"):
        assert after[name] == before[name]
    assert (own / "config.json").read_bytes() == (run / "config.json").read_bytes()


def test_the_set_is_of_the_first_test_images_in_the_published_layout(corrupted_set):
    images, labels = (part[:IMAGES] for part in shapes.make("test"))
    assert np.load(corrupted_set / "labels.npy").tolist() == labels.tolist() * 5
    for name in WRITTEN:
        pictures = np.load(corrupted_set / f"{name}.npy")
        wanted = corruptions.corrupt(images, name, 5, ids=np.arange(IMAGES))
        np.testing.assert_array_equal(pictures[4 * IMAGES :], wanted)
    settings = json.loads((corrupted_set / "manifest.json").read_text())["settings"]
    assert (settings["source"]["dataset"], settings["source"]["split"]) == ("shapes", "test")
    assert (settings["seed"], settings["table"]) == (0, "cifar")


def test_a_perturbed_set_is_measured_where_there_is_one(own, perturbed_set):
    arguments = ["--nocorrupted", f"--perturbed_dir={perturbed_set}", "--eval_limit=7"]
    assert main.main(["--mode=evaluate", *arguments, f"--workdir={own}"]) == 0
    measured = results(own)
    assert "corrupted" not in measured
    assert measured["perturbed"]["data"]["images"] == 7
    found = measured["perturbed"]["perturbations"]
    assert sorted(found) == ["gaussian_noise", "translate"]
    frames = np.load(perturbed_set / "translate.npy")[:7]
    served = tf.saved_model.load(str(own / "export" / "1")).signatures["serving_default"]
    classes = served(images=tf.constant(frames.reshape(-1, *frames.shape[2:])))["classes"].numpy()
    classes = classes.reshape(frames.shape[:2])
    flips = np.mean(classes[:, 1:] != classes[:, :-1])
    assert found["translate"]["flip_probability"] == pytest.approx(flips, abs=1e-12)
    assert found["translate"]["sequences"] == 7


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (("--epochs=2",), ["--epochs=1", "--epochs=2"]),
        (("--calibration_images=5",), ["--calibration_images=10", "--calibration_images=5"]),
        (("--method=mixup",), ["--method=augmix", "--method=mixup"]),
        (("--corrupted_dir=nowhere/at/all",), ["nowhere/at/all"]),
    ],
)
def test_evaluating_with_another_training_or_without_the_set_is_refused(
    run, capsys, arguments, wanted
):
    before = contents(run)
    line = refused(capsys, "--mode=evaluate", *arguments, f"--workdir={run}")
    for part in wanted:
        assert part in line
    assert contents(run) == before


# The temperature


def test_the_temperature_is_fitted_on_the_last_training_images(run):
    """Held against the exported logits of these images; the fit itself has its own tests."""
    images, labels = (part[30:40] for part in shapes.make("train"))
    served = tf.saved_model.load(str(run / "export" / "1")).signatures["serving_default"]
    logits = served(images=tf.constant(images))["logits"].numpy()
    measured = results(run)
    found = measured["temperature"]
    assert (found["images"], found["held_out_of"]) == (10, "train")
    assert found["value"] == pytest.approx(metrics.fit_temperature(logits, labels), rel=1e-3)
    assert found["value"] != 1
    assert "calibrated" in measured["clean"]


def test_served_probabilities_are_those_of_the_temperature(own):
    images = tf.constant(shapes.make("test")[0][:7])
    served = tf.saved_model.load(str(own / "export" / "1")).signatures["serving_default"]
    answer = {name: value.numpy() for name, value in served(images=images).items()}
    wanted = special.softmax(answer["logits"] / results(own)["temperature"]["value"], axis=1)
    np.testing.assert_allclose(answer["probabilities"], wanted, rtol=1e-4)


# Writing sets


def test_two_shards_write_what_one_writes(tmp_path, corrupted_set):
    names = f"--names={','.join(WRITTEN)}"
    for shard in (0, 1):
        write_set(tmp_path, names, "--shard_count=2", f"--shard_index={shard}")
    for name in (*WRITTEN, "labels"):
        pictures = (tmp_path / f"{name}.npy").read_bytes()
        assert pictures == (corrupted_set / f"{name}.npy").read_bytes()
    files = [
        json.loads((f / "manifest.json").read_text())["files"] for f in (tmp_path, corrupted_set)
    ]
    assert files[0] == files[1]


def test_the_seed_of_a_set_is_0_unless_one_is_given(tmp_path, corrupted_set):
    write_set(tmp_path / "zero", "--names=gaussian_noise", "--seed=0")
    write_set(tmp_path / "seven", "--names=gaussian_noise", "--seed=7")
    zero, seven, wanted = (
        (folder / "gaussian_noise.npy").read_bytes()
        for folder in (tmp_path / "zero", tmp_path / "seven", corrupted_set)
    )
    assert zero == wanted
    assert seven != wanted


def test_a_set_is_written_to_a_place_that_was_named(capsys):
    line = refused(capsys, "--mode=corrupt", "--eval_limit=20")
    assert "--corrupted_dir" in line
    assert "--perturbed_dir" in line


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (("--names=fogg",), "Did you mean 'fog'?"),
        (("--names=fog,fog",), "each corruption once"),
        (("--table=cifr",), "Did you mean 'cifar'?"),
        (("--shard_index=2", "--shard_count=2"), "shard_index"),
        (("--workers=0",), "workers"),
    ],
)
def test_a_wrong_part_of_a_set_is_refused(tmp_path, capsys, arguments, wanted):
    place = tmp_path / "C"
    line = refused(
        capsys, "--mode=corrupt", "--eval_limit=20", f"--corrupted_dir={place}", *arguments
    )
    assert wanted in line
    assert not place.exists()


def test_a_wrong_perturbation_is_answered_with_the_nearest(tmp_path, capsys):
    place = f"--perturbed_dir={tmp_path / 'P'}"
    line = refused(capsys, "--mode=corrupt", "--eval_limit=20", place, "--names=tranlate")
    assert "Did you mean 'translate'?" in line
    assert list(tmp_path.iterdir()) == []


# The quick start and comparisons


@pytest.mark.parametrize("mode", ["report", "views", "corrupt", "export"])
def test_what_one_process_does_waits_for_no_other_workers(tmp_path, monkeypatch, mode):
    """The environment may name workers for the runs that train."""
    cluster = {"worker": ["127.0.0.1:1", "127.0.0.1:2"]}
    task = {"type": "worker", "index": 0}
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": task}))
    options = {
        "report": [f"--workdirs={tmp_path}/none"],
        "views": ["--train_limit=-1"],
        "corrupt": [],
        "export": [f"--workdir={tmp_path}/none"],
    }
    assert main.main([f"--mode={mode}", *options[mode]]) == 2


@pytest.fixture(scope="module")
def quick_start(tmp_path_factory):
    """The folder in which the quick start ran."""
    place = tmp_path_factory.mktemp("quick")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert main.main([*LIMITS, "--calibration_images=10", "--nocorrupted"]) == 0
    return place


def test_the_quick_start_trains_both_methods_and_compares_them(quick_start):
    standard, augmix = sorted(
        (quick_start / "runs").glob("shapes-wrn-*"), key=lambda p: "augmix" in p.name
    )
    names = [results(folder)["provenance"]["method"] for folder in (standard, augmix)]
    assert names == ["standard", "augmix"]
    comparison = quick_start / "runs" / "quick_start"
    assert {path.name for path in comparison.iterdir()} == {
        "comparison.md",
        "comparison.csv",
        "plots",
    }
    with (comparison / "comparison.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["method"] for row in rows] == ["standard", "augmix"]
    for row, folder in zip(rows, (standard, augmix), strict=True):
        assert float(row["clean_error"]) == results(folder)["clean"]["error"]


def test_the_second_quick_start_only_shows_the_results(quick_start, monkeypatch, capsys):
    monkeypatch.chdir(quick_start)
    before = contents(quick_start / "runs")
    assert main.main([*LIMITS, "--calibration_images=10", "--nocorrupted"]) == 0
    told = capsys.readouterr()
    assert told.err == ""
    assert told.out.count("is already trained") == 2
    [head] = [line.split() for line in told.out.splitlines() if line.split()[:1] == ["standard"]]
    assert head == ["standard", "augmix"]
    assert str(Path("runs", "quick_start", "comparison.md")) in told.out
    assert contents(quick_start / "runs") == before


def test_a_report_compares_runs_in_tables_and_plots(quick_start, run, tmp_path, capsys):
    folders = [*sorted((quick_start / "runs").glob("shapes-wrn-*")), run]
    listed = ",".join(map(str, folders))
    out = tmp_path / "out"
    assert main.main(["--mode=report", f"--workdirs={listed}", f"--workdir={out}"]) == 0
    told = capsys.readouterr().out
    assert str(out / "comparison.md") in told
    with (out / "comparison.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["workdir"] for row in rows) == sorted(map(str, folders))
    text = (out / "comparison.md").read_text()
    for row in rows:
        assert f"{100 * float(row['clean_error']):.2f} %" in told
        assert row["workdir"] in text
    plots = list((out / "plots").glob("*.png"))
    assert plots
    for path in plots:
        with Image.open(path) as picture:
            picture.verify()
        assert path.name in text


def test_a_report_without_runs_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert "--workdirs" in refused(capsys, "--mode=report")
    line = refused(capsys, "--mode=report", "--workdirs=nowhere")
    assert "nowhere" in line
    assert list(tmp_path.iterdir()) == []


# Views


def test_views_are_drawn_of_every_method(tmp_path):
    drawn = {}
    for name in ("cutmix", "cutout"):
        folder = tmp_path / name
        assert main.main(["--mode=views", f"--method={name}", f"--workdir={folder}"]) == 0
        drawn[name] = (folder / "views.png").read_bytes()
    assert drawn["cutmix"] != drawn["cutout"]


def test_views_are_drawn_with_other_operations_too(tmp_path, capsys):
    drawn = {}
    for name in ("augmix", "autoaugment"):
        folder = tmp_path / name
        assert main.main(["--mode=views", f"--mix_ops={name}", f"--workdir={folder}"]) == 0
        drawn[name] = (folder / "views.png").read_bytes()
    assert drawn["augmix"] != drawn["autoaugment"]


def test_a_saved_model_is_measured_like_the_run_that_it_comes_from(run, tmp_path):
    """Its probabilities are calibrated, so only what is right or wrong must be equal."""
    told = main.main(
        [
            *("--mode=evaluate", f"--model_path={run / 'model.keras'}"),
            *("--eval_limit=20", "--nocorrupted", f"--workdir={tmp_path / 'measured'}"),
        ]
    )
    assert told == 0
    want, got = (
        json.loads((folder / "results.json").read_text()) for folder in (run, tmp_path / "measured")
    )
    assert got["clean"]["error"] == want["clean"]["error"]
    assert got["provenance"]["method"] == "saved model"
    assert (tmp_path / "measured" / "report.md").exists()


def test_results_of_a_saved_model_want_a_folder(capsys):
    assert main.main(["--mode=evaluate", "--model_path=model.keras"]) == 2
    assert "--workdir" in capsys.readouterr().err


def test_a_saved_model_is_not_measured_into_the_folder_of_a_run(run, capsys):
    arguments = ("--mode=evaluate", f"--model_path={run / 'model.keras'}", f"--workdir={run}")
    assert "of its own" in refused(capsys, *arguments)


def test_the_report_of_one_run_is_written_anew(run, own):
    (own / "report.md").write_text("old")
    before = set(contents(own))
    assert main.main(["--mode=report", f"--workdir={own}"]) == 0
    want = (run / "report.md").read_text().replace(str(run), str(own))
    assert (own / "report.md").read_text().split() == want.split()
    assert set(contents(own)) == before


def test_who_names_a_set_gets_it_measured(own, tmp_path):
    """Also of a run that was trained with --nocorrupted."""
    config = json.loads((own / "config.json").read_text())
    (own / "config.json").write_text(json.dumps(config | {"corrupted": False}))
    place = write_set(tmp_path / "set", "--names=fog")
    arguments = ["--mode=evaluate", f"--corrupted_dir={place}", "--eval_limit=20"]
    assert main.main([*arguments, f"--workdir={own}"]) == 0
    assert list(results(own)["corrupted"]["corruptions"]) == ["fog"]


def test_a_set_of_other_images_is_refused(run, tmp_path, capsys):
    place = write_set(tmp_path / "set", "--names=fog")
    labels = np.load(place / "labels.npy")
    np.save(place / "labels.npy", (labels + 1) % 10)
    arguments = ("--mode=evaluate", f"--corrupted_dir={place}", "--eval_limit=20")
    assert "of the test images of shapes" in refused(capsys, *arguments, f"--workdir={run}")
