"""Beside single runs: benchmarks written and evaluated, comparisons, the quick start, views."""

import csv
import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import special

from augmix_tf import corruptions, metrics, models
from augmix_tf.commands import dashboard
from augmix_tf.data import shapes
from augmix_tf.report import directories
from tests import class_folders
from tests.program import command, finish, leave_out
from tests.runs import leave_out_xla
from tests.tiny_models import torch_state

IMAGES = 10
WRITTEN = ("gaussian_noise", "brightness", "jpeg_compression")
# Ten steps, of which the speed is measured without those of the first call.
QUICK = ("--eval_limit=10", "--train_limit=40", "--epochs=1", "--batch_size=3")
QUICK += ("--calibration_images=10",)


def refused(*arguments, workdir=None):
    """The one line that a wrong command line is answered with."""
    outcome = command(*arguments, workdir=workdir)
    assert outcome.code == 2
    assert outcome.out == ""
    return outcome.line()


def results(folder):
    return json.loads((folder / "results.json").read_text())


def contents(folder):
    """Each file's bytes; the lock is touched by whoever asks."""
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {path.relative_to(folder): path.read_bytes() for path in paths}


def rows_of(comparison):
    with (comparison / "comparison.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def served(folder, images):
    signatures = tf.saved_model.load(str(folder / "export" / "1")).signatures
    answers = signatures["serving_default"](images=tf.constant(images))
    return {name: value.numpy() for name, value in answers.items()}


def write_set(folder, *arguments, kind="corrupted"):
    finish("--mode=corrupt", "--eval_limit=10", "--workers=1", f"--{kind}_dir={folder}", *arguments)
    return folder


@pytest.fixture(scope="module", autouse=True)
def quick():
    with pytest.MonkeyPatch.context() as patch:
        leave_out(patch, kept="report, export")
        leave_out_xla(patch)
        patch.setattr(dashboard, "log_results", lambda *arguments: None)
        yield


@pytest.fixture(scope="module")
def quick_start(tmp_path_factory):
    """The folder in which the quick start ran."""
    place = tmp_path_factory.mktemp("quick")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        finish(*QUICK)
    return place


@pytest.fixture(scope="module")
def runs(quick_start):
    """Directories of its two runs, standard training first."""
    return sorted((quick_start / "runs").glob("shapes-wrn-*"), key=lambda p: "augmix" in p.name)


@pytest.fixture(scope="module")
def run(runs):
    """A run that was evaluated on generated corruptions; its directory is only looked at."""
    return runs[1]


@pytest.fixture
def copied(run, tmp_path):
    return shutil.copytree(run, tmp_path / "copied")


@pytest.fixture(scope="module")
def corrupted_set(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("set") / "C", f"--names={','.join(WRITTEN)}")


def test_a_run_without_a_set_is_evaluated_on_generated_corruptions(run):
    corrupted = results(run)["corrupted"]
    assert corrupted["data"]["source"] == "generated"
    assert corrupted["data"]["images"] == IMAGES
    assert corrupted["missing"] == ["frost"]
    assert set(corrupted["corruptions"]) == set(corruptions.CORRUPTIONS) - {"frost"}
    errors = [[cell["error"] for cell in cells] for cells in corrupted["corruptions"].values()]
    assert corrupted["mean_error"] == pytest.approx(np.mean(errors), abs=1e-12)


def test_a_written_set_holds_the_corruptions_that_are_generated_during_evaluation(
    copied, run, corrupted_set
):
    """An explicit directory implies --corrupted, also of a run with --nocorrupted."""
    config = json.loads((copied / "config.json").read_text()) | {"corrupted": False}
    (copied / "config.json").write_text(json.dumps(config))
    outcome = finish("--mode=evaluate", f"--corrupted_dir={corrupted_set}", workdir=copied)
    assert "error on 3 corruptions" in outcome.out
    before, after = results(run), results(copied)
    assert sorted(after["corrupted"]["corruptions"]) == sorted(WRITTEN)
    for name in WRITTEN:
        assert after["corrupted"]["corruptions"][name] == before["corrupted"]["corruptions"][name]
    for name in ("clean", "temperature"):
        assert after[name] == before[name]
    assert json.loads((copied / "config.json").read_text()) == config


def test_a_run_is_evaluated_on_c_bar_and_the_gap_is_its_distance_from_c(copied, tmp_path):
    assert "cbar" not in results(copied)
    folder = write_set(tmp_path / "bar", "--names=lines,sparkles", kind="cbar")
    outcome = finish("--mode=evaluate", f"--cbar_dir={folder}", workdir=copied)
    after = results(copied)
    assert after["cbar"]["counted"] == ["lines", "sparkles"]
    assert "C-bar error on 2 corruptions" in outcome.out
    want = after["cbar"]["mean_error"] - after["corrupted"]["mean_error"]
    assert after["cbar"]["gap"] == pytest.approx(want)


def test_a_run_is_evaluated_on_the_sequences_of_a_perturbed_set(copied, tmp_path):
    folder = write_set(tmp_path / "P", "--names=translate", kind="perturbed")
    arguments = ("--nocorrupted", f"--perturbed_dir={folder}", "--eval_limit=7")
    finish("--mode=evaluate", *arguments, workdir=copied)
    assert "corrupted" not in results(copied)
    perturbed = results(copied)["perturbed"]
    assert perturbed["data"]["images"] == 7
    frames = np.load(folder / "translate.npy")[:7]
    classes = served(copied, frames.reshape(-1, *frames.shape[2:]))["classes"]
    classes = classes.reshape(frames.shape[:2])
    flips = np.mean(classes[:, 1:] != classes[:, :-1])
    assert list(perturbed["perturbations"]) == ["translate"]
    translated = perturbed["perturbations"]["translate"]
    assert translated["flip_probability"] == pytest.approx(flips, abs=1e-12)
    assert translated["sequences"] == 7


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("--epochs=2",), ["--epochs=1", "--epochs=2"]),
        (("--method=mixup",), ["--method=augmix", "--method=mixup"]),
        (("--corrupted_dir=nowhere/at/all",), ["nowhere/at/all"]),
    ],
)
def test_evaluating_with_another_training_or_without_the_set_is_refused(run, arguments, parts):
    before = contents(run)
    line = refused("--mode=evaluate", *arguments, workdir=run)
    assert all(part in line for part in parts)
    assert contents(run) == before


def test_a_set_of_other_images_is_refused(run, corrupted_set, tmp_path):
    folder = shutil.copytree(corrupted_set, tmp_path / "C")
    labels = np.load(folder / "labels.npy")
    np.save(folder / "labels.npy", (labels + 1) % 10)
    line = refused("--mode=evaluate", f"--corrupted_dir={folder}", workdir=run)
    assert "of the test images of shapes" in line


def test_the_temperature_is_fitted_on_the_last_training_images_and_served(run):
    """Compared with the exported logits of these images; the fit itself has its own tests."""
    images, labels = (part[30:40] for part in shapes.make("train"))
    answers, document = served(run, images), results(run)
    fitted = document["temperature"]
    want = metrics.fit_temperature(answers["logits"], labels)
    assert fitted == {"value": pytest.approx(want, rel=1e-3), "images": 10, "held_out_of": "train"}
    assert fitted["value"] != 1
    assert "calibrated" in document["clean"]
    probabilities = special.softmax(answers["logits"] / fitted["value"], axis=1)
    np.testing.assert_allclose(answers["probabilities"], probabilities, rtol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ((), "--mode=corrupt needs --corrupted_dir (for a -C benchmark), --cbar_dir"),
        (("--corrupted_dir=C", "--names=fogg"), "Did you mean 'fog'?"),
        (("--corrupted_dir=C", "--names=fog,fog"), "each corruption once"),
        (("--corrupted_dir=C", "--table=cifr"), "Did you mean 'cifar'?"),
        (("--corrupted_dir=C", "--shard_index=2", "--shard_count=2"), "shard_index"),
        (("--perturbed_dir=P", "--names=tranlate"), "Did you mean 'translate'?"),
    ],
)
def test_a_wrong_part_of_a_set_is_refused(tmp_path, monkeypatch, arguments, part):
    monkeypatch.chdir(tmp_path)
    assert part in refused("--mode=corrupt", "--eval_limit=10", *arguments)
    assert list(tmp_path.iterdir()) == []


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
    refused(f"--mode={mode}", *options[mode])


def test_the_quick_start_trains_both_methods_and_compares_them(quick_start, runs):
    methods = ["standard", "augmix"]
    assert [results(folder)["provenance"]["method"] for folder in runs] == methods
    comparison = quick_start / "runs" / "quick_start"
    names = {"comparison.md", "comparison.csv", "plots", "summary.json"}
    assert {path.name for path in comparison.iterdir()} == names
    rows = rows_of(comparison)
    assert [row["method"] for row in rows] == methods
    for row, folder in zip(rows, runs, strict=True):
        assert float(row["clean_error"]) == results(folder)["clean"]["error"]
    summary = json.loads((comparison / "summary.json").read_text())
    for method, folder in zip(methods, runs, strict=True):
        cells = results(folder)["corrupted"]["corruptions"]
        names = ("calibrated", "rms_calibration_error")
        delivered = [cell[names[0]][names[1]] for row in cells.values() for cell in row]
        value = summary[method]["corrupted_rms_calibration_error"]
        assert value == pytest.approx(np.mean(delivered))
        assert summary[method]["clean_error"] == results(folder)["clean"]["error"]
        assert summary[method]["seconds"] == directories.read(folder).training_seconds


def test_the_second_quick_start_only_shows_the_results(quick_start, monkeypatch):
    monkeypatch.chdir(quick_start)
    before = contents(quick_start / "runs")
    outcome = finish(*QUICK)
    assert outcome.err == ""
    assert outcome.out.count("is already trained") == 2
    [head] = [line.split() for line in outcome.out.splitlines() if line.split()[:1] == ["standard"]]
    assert head == ["standard", "augmix"]
    assert str(Path("runs", "quick_start", "comparison.md")) in outcome.out
    assert contents(quick_start / "runs") == before


def test_workdirs_are_names_of_directories_or_patterns(runs, tmp_path):
    names = ["sweep[2]", "sweep[2]-seed2"]
    for folder, copy in zip(runs, reversed(names), strict=True):
        for file in ("config.json", "results.json"):
            (tmp_path / copy).mkdir(exist_ok=True)
            shutil.copy(folder / file, tmp_path / copy)
    (tmp_path / "sweep.txt").write_text("no run")
    (tmp_path / "sweep-plots").mkdir()
    exact = ",".join(f"{tmp_path}/{name}" for name in names)
    for given in (exact, f"{tmp_path}/sweep*"):
        finish("--mode=report", f"--workdirs={given}", workdir=tmp_path / "out")
        found = sorted(row["workdir"] for row in rows_of(tmp_path / "out"))
        assert found == [f"{tmp_path}/{name}" for name in names]


def test_a_report_without_runs_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "--workdirs" in refused("--mode=report")
    for name in ("nowhere", "c10-*"):
        line = refused("--mode=report", f"--workdirs={name}")
        assert f"--workdirs={name} matches no run directory." in line
    assert list(tmp_path.iterdir()) == []


def test_the_report_of_one_run_is_written_anew(run, copied):
    (copied / "report.md").write_text("old")
    before = set(contents(copied))
    finish("--mode=report", workdir=copied)
    want = (run / "report.md").read_text().replace(f"runs/{run.name}", str(copied))
    assert (copied / "report.md").read_text().split() == want.split()
    assert set(contents(copied)) == before


def evaluate_model(path, folder, *arguments):
    finish("--mode=evaluate", f"--model_path={path}", "--nocorrupted", *arguments, workdir=folder)
    return results(folder)


def test_a_saved_model_is_evaluated_like_the_run_that_it_comes_from(run, tmp_path):
    """Its probabilities are calibrated, so only what is right or wrong must be equal."""
    got = evaluate_model(run / "model.keras", tmp_path / "out", "--eval_limit=10")
    assert got["clean"]["error"] == results(run)["clean"]["error"]
    assert got["provenance"]["method"] == "saved model"
    assert (tmp_path / "out" / "report.md").exists()


def test_weights_of_a_pytorch_network_are_evaluated(tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy")
    network = models.build("wrn", 10, depth=10, widen_factor=1, seed=1)
    path = tmp_path / "weights.safetensors"
    half = np.full((1, 3, 1, 1), 0.5, np.float32)
    # The package writes transposed views wrongly.
    state = {n: np.ascontiguousarray(value) for n, value in torch_state(network).items()}
    safetensors.save_file(state | {"mu": half, "sigma": half}, path)
    sizes = ("--model=wrn", "--depth=10", "--widen_factor=1", "--eval_limit=30")
    got = evaluate_model(path, tmp_path / "out", *sizes)
    images, labels = (part[:30] for part in shapes.make("test"))
    logits = network.predict(images.astype(np.float32) / 127.5 - 1, verbose=0)
    nll = metrics.negative_log_likelihood(logits, labels)
    assert got["clean"]["nll"] == pytest.approx(nll, rel=1e-4)


def small_network(side, classes=10):
    layers = [keras.layers.Rescaling(1 / 255), keras.layers.AveragePooling2D(4)]
    layers += [keras.layers.Flatten(), keras.layers.Dense(classes)]
    return keras.Sequential([keras.Input((side, side, 3)), *layers])


def test_images_of_varying_size_come_at_the_size_of_the_model_s_own_input(tmp_path):
    data = class_folders.write(tmp_path / "sweep[2]" / "data", ("val",))
    path = tmp_path / "sweep[2]" / "model.keras"
    small_network(24, len(class_folders.CLASSES)).save(path)
    options = ("--dataset=folder", f"--data_dir={data}", f"--model_path={path}")
    assert evaluate_model(path, tmp_path / "out", *options)["clean"]["images"] == 12
    line = refused("--mode=evaluate", *options, "--image_size=32", workdir=tmp_path / "out")
    assert "--image_size must be 24, the input size of" in line


def test_a_flat_folder_of_classes_is_refused_by_the_flag(tmp_path):
    (tmp_path / "cat").mkdir()
    line = refused("--dataset=folder", f"--data_dir={tmp_path}", workdir=tmp_path / "out")
    assert "--data_dir must hold train/<class>/* and val/<class>/*" in line
    assert f"received {tmp_path} with cat." in line


def test_results_of_a_saved_model_have_a_directory_of_their_own(run):
    model = f"--model_path={run / 'model.keras'}"
    assert "--workdir" in refused("--mode=evaluate", model)
    assert "needs another --workdir" in refused("--mode=evaluate", model, workdir=run)
