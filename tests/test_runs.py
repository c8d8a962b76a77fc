"""The program as users start it: what a run leaves behind, how it goes on, how it says no."""

import csv
import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from augmix_tf import files
from augmix_tf.data import shapes
from augmix_tf.errors import Interrupted
from augmix_tf.report import plots
from augmix_tf.training.callbacks import COLUMNS, Progress
from tests.program import Outcome, command, finish, leave_out, shapes_drawn_once
from tests.runs import leave_out_xla

REPOSITORY = Path(__file__).parents[1]
EPOCHS, STEPS, TEST_IMAGES = 2, 12, 60
# More steps than the loop takes between two looks at signals (8), and a last batch of 2.
TINY = ("--train_limit=90", "--eval_limit=60", "--epochs=2", "--batch_size=8", "--seed=3")
TINY += ("--depth=10", "--widen_factor=1", "--deterministic")
# Most runs are looked at for something else: measured on the clean test images alone. Not every
# processor takes the quick start's bfloat16.
PLAIN = ("--calibration_images=0", "--nocorrupted", "--precision=float32")
TINY += PLAIN
SMALLEST = ("--train_limit=20", "--eval_limit=10", "--epochs=1", "--batch_size=10", *PLAIN)

# Short, with rates that do not depend on the number of epochs.
CONSTANT = (*SMALLEST, "--method=standard", "--schedule=constant", "--deterministic")

# The real program, which waits for a line on stdin when it has trained its second epoch.
WAITING = """
import runpy, sys
from augmix_tf import runtime
runtime.import_tensorflow()
from augmix_tf.training.callbacks import COLUMNS, Progress
shown = Progress.on_train_batch_end
def wait(self, batch, logs=None):
    shown(self, batch, logs)
    if self._epoch == 1:
        print("waiting", flush=True)
        sys.stdin.readline()
Progress.on_train_batch_end = wait
runpy.run_path("main.py", run_name="__main__")
"""


def contents(folder):
    """Every file's bytes and time; the lock is touched by whoever asks."""
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in paths}


def rows(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def served(folder, version="1"):
    """The default signature of an exported version."""
    with files.without_patterns(folder) as plain:
        loaded = tf.saved_model.load(str(plain / "export" / version))
    return loaded.signatures["serving_default"]


def results(folder):
    return json.loads((folder / "results.json").read_text())


def checkpoint(folder):
    """The values of the newest checkpoint, without the number of checkpoints before it."""
    with files.without_patterns(folder) as plain:
        reader = tf.train.load_checkpoint(str(plain / "checkpoints"))
        names = [name for name in reader.get_variable_to_shape_map() if "save_counter" not in name]
        return {name: reader.get_tensor(name) for name in names if "OBJECT_GRAPH" not in name}


def position(folder):
    values = checkpoint(folder)
    return tuple(int(values[f"{name}/.ATTRIBUTES/VARIABLE_VALUE"]) for name in ("epoch", "step"))


def pictures_to_test(count=TEST_IMAGES):
    images, labels = shapes.make("test")
    return images[:count], labels[:count]


def kept_error(folder, count=TEST_IMAGES):
    """The error of the saved Keras model, computed here."""
    images, labels = pictures_to_test(count)
    probabilities = keras.saving.load_model(folder / "model.keras").predict(images, verbose=0)
    return np.mean(probabilities.argmax(1) != labels)


def assert_same_run(folder, wanted):
    """Weights, momenta, batch statistics, chance and logs of two runs: the same bytes."""
    ours, theirs = checkpoint(folder), checkpoint(wanted)
    assert set(ours) == set(theirs)
    for name, value in ours.items():
        np.testing.assert_array_equal(value, theirs[name], err_msg=name)
    ours, theirs = rows(folder), rows(wanted)
    for row in (*ours, *theirs):
        del row["images_per_second"]
    assert ours == theirs
    assert results(folder)["clean"] == results(wanted)["clean"]


@pytest.fixture(scope="module", autouse=True)
def pictures_drawn_once():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shapes, "make", shapes_drawn_once)
        yield


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A finished run and what it printed; its folder is only looked at.

    TensorFlow takes some characters of its name for patterns.
    """
    folder = tmp_path_factory.mktemp("first") / "run[1]*?"
    return folder, finish(*TINY, workdir=folder)


@pytest.fixture(scope="module")
def run(first):
    return first[0]


@pytest.fixture
def own(run, tmp_path):
    """A copy of the finished run to do something to, in another place."""
    shutil.copytree(run, tmp_path / "own")
    return tmp_path / "own"


@pytest.fixture
def interruptible():
    """SIGINT raises KeyboardInterrupt, also where the tests run in the background of a shell."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def quick(monkeypatch):
    """Leaves out what the finished run has passed."""
    leave_out(monkeypatch)


def test_a_run_leaves_everything_in_its_folder(run):
    names = {"config.json", "metrics.csv", "results.json", "results.csv", "report.md", "plots"}
    names |= {"model.keras", "model_card.json", "model_card.md", "checkpoints", "export", "logs"}
    assert {path.name for path in run.iterdir()} - {".lock"} == names
    assert (run / "export" / "1" / "saved_model.pb").is_file()
    assert [path.name for path in (run / "export").iterdir()] == ["1"]
    for name in ("curves.png", "reliability.png"):
        with Image.open(run / "plots" / name) as picture:
            picture.verify()
    assert list((run / "logs").glob("*tfevents*"))
    assert not list(run.rglob("*unfinished*"))
    assert position(run) == (EPOCHS, 0)


def test_metrics_csv_has_a_row_for_each_epoch(run):
    made = rows(run)
    assert tuple(made[0]) == COLUMNS
    assert [(row["epoch"], row["step"]) for row in made] == [("1", "12"), ("2", "24")]
    for row in made:
        loss, cross_entropy, jsd = (float(row[n]) for n in ("loss", "cross_entropy", "jsd"))
        assert 0 < jsd < np.log(3)
        np.testing.assert_allclose(loss, cross_entropy + 12 * jsd, rtol=1e-5)
        # Shares of 12 full batches of 8 and of 60 test images.
        for name, count in (("train_error", 96), ("test_error", 60)):
            wrong = float(row[name]) * count
            assert abs(wrong - round(wrong)) < 1e-4
    # The rates of the last updates; the cosine ends at 1e-6, not at 0.
    rates = [0.1 * (1 + np.cos(np.pi * step / (EPOCHS * STEPS))) / 2 for step in (11, 23)]
    np.testing.assert_allclose([float(row["learning_rate"]) for row in made], rates, atol=2e-6)


def test_results_json_says_what_was_measured_and_with_what(run):
    document = results(run)
    assert document["schema"] == 2
    assert document["clean"]["images"] == TEST_IMAGES
    assert sum(bin_["count"] for bin_ in document["clean"]["reliability"]) == TEST_IMAGES
    provenance = document["provenance"]
    wanted = {"dataset": "shapes", "model": "wrn", "method": "augmix", "seed": 3, "epochs": 2}
    assert {name: provenance[name] for name in wanted} == wanted
    assert provenance["versions"]["tensorflow"] == tf.__version__
    model = keras.saving.load_model(run / "model.keras")
    sizes = [int(np.prod(weight.shape)) for weight in model.trainable_weights]
    assert provenance["parameters"] == sum(sizes)


def test_a_run_prints_what_it_is_each_epoch_and_its_results(first):
    folder, outcome = first
    parameters = f"{results(folder)['provenance']['parameters']:,} parameters"
    for part in ("shapes 90+60 images", "wrn depth=10 widen_factor=1", "augmix",
                 "2 epochs of batch 8", "float32", "seed 3", str(folder), parameters):  # fmt: skip
        assert part in outcome.out.splitlines()[0]
    for number, (line, row) in enumerate(
        zip(outcome.err.splitlines(), rows(folder), strict=True), 1
    ):
        assert line.startswith(f"epoch {number}/2 ")
        assert f"loss {float(row['loss']):.4f}" in line
        assert f"test error {100 * float(row['test_error']):.1f} %" in line
    clean = results(folder)["clean"]
    assert re.search(rf"clean error +{100 * clean['error']:.2f} %", outcome.out)
    assert f"{100 * clean['rms_calibration_error']:.2f} %" in outcome.out
    for path in ("report.md", "model.keras", "export", "logs"):
        assert str(folder / path) in outcome.out


def test_the_errors_logged_reported_and_of_the_saved_models_are_one(run):
    error = results(run)["clean"]["error"]
    assert float(rows(run)[-1]["test_error"]) == pytest.approx(error, abs=1e-12)
    assert kept_error(run) == pytest.approx(error, abs=1e-12)
    images, labels = pictures_to_test()
    classes = served(run)(images=tf.constant(images))["classes"].numpy()
    assert np.mean(classes != labels) == pytest.approx(error, abs=1e-12)
    assert f"{100 * error:.2f} %" in (run / "report.md").read_text()


def test_running_again_only_shows_the_table(first):
    """Also with another value of a setting that changes no result."""
    folder, outcome = first
    before = contents(folder)
    for more in ((), ("--checkpoint_steps=3",)):
        again = finish(*TINY, *more, workdir=folder)
        assert contents(folder) == before
        assert again.err == ""
        assert again.out.endswith(outcome.out.partition("\n")[2].lstrip("\n"))


@pytest.mark.parametrize(
    ("flag", "difference"),
    [
        ("--aug_severity=1", "aug_severity 3.0 -> 1.0"),
        ("--epochs=1", "epochs 2 -> 1"),
        ("--epochs=3", "--epochs must stay 2; received 3. The cosine schedule"),
    ],
)
def test_another_configuration_in_the_same_folder_is_refused(run, flag, difference):
    before = contents(run)
    outcome = command(*TINY, flag, workdir=run)
    assert outcome.code == 2
    assert difference in outcome.line()
    assert contents(run) == before


def test_steps_to_profile_behind_the_end_are_refused(tmp_path):
    arguments = (*SMALLEST, "--method=standard", "--profile_steps=1,3")
    outcome = command(*arguments, workdir=tmp_path)
    assert outcome.code == 2
    assert "profile_steps must be within the 2 steps of the run; received 1,3." in outcome.line()


@pytest.fixture(scope="module")
def at_once(tmp_path_factory):
    """A short run of two epochs; its folder is only looked at."""
    folder = tmp_path_factory.mktemp("at once") / "run"
    with pytest.MonkeyPatch.context() as patch:
        leave_out(patch)
        finish(*CONSTANT, "--epochs=2", workdir=folder)
    return folder


def test_a_run_whose_rates_do_not_depend_on_its_length_is_extended(at_once, tmp_path, quick):
    finish(*CONSTANT, workdir=tmp_path)
    finish(*CONSTANT, "--epochs=2", workdir=tmp_path)
    assert_same_run(tmp_path, at_once)
    assert json.loads((tmp_path / "config.json").read_text())["epochs"] == 2


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(at_once, tmp_path, quick):
    """Killed before its second epoch was saved; another process was refused until then."""
    folder = tmp_path / "[run]"
    arguments = (*CONSTANT, "--epochs=2")
    program = [sys.executable, "-c", WAITING, *arguments, f"--workdir={folder}"]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(program, cwd=REPOSITORY, text=True, **pipes) as process:
        try:
            lines = iter(process.stdout.readline, "")
            assert "waiting\n" in lines, process.stderr.read()
            second = command(*arguments, workdir=folder)
        finally:
            process.kill()
    assert process.returncode == -signal.SIGKILL
    assert second.code == 1
    assert second.line() == f"main.py: Another process uses {folder}."
    assert second.out == ""

    assert position(folder) == (1, 0)
    assert not (folder / "results.json").exists()
    outcome = finish(*arguments, workdir=folder)
    assert "resuming at epoch 2, step 1" in outcome.out
    assert_same_run(folder, at_once)


def test_what_is_missing_of_a_finished_run_is_made_up_for(own, run, monkeypatch):
    """As after a kill before the measurements."""
    leave_out(monkeypatch, kept="report, export")
    shutil.rmtree(own / "export")
    for name in ("results.json", "report.md", "model.keras"):
        (own / name).unlink()
    outcome = finish(*TINY, workdir=own)
    assert "epoch" not in outcome.err  # nothing is trained again
    assert (own / "report.md").is_file()
    assert (own / "export" / "1" / "saved_model.pb").is_file()
    assert_same_run(own, run)
    assert kept_error(own) == results(run)["clean"]["error"]


@pytest.mark.parametrize("name", ["config.json", "results.json"])
def test_a_damaged_file_is_named(own, name):
    (own / name).write_text("{")
    outcome = command(*TINY, workdir=own)
    assert outcome.code in (1, 2)
    assert name in outcome.line()


def test_a_damaged_checkpoint_is_named_and_the_one_before_goes_on(own, run, quick):
    """What was trained after it is trained again, to the same bytes."""
    (own / "results.json").unlink()
    newest = max((own / "checkpoints").glob("ckpt-*.data*"))
    newest.write_bytes(newest.read_bytes()[:1000])
    for name in ("export", "model.keras"):
        shutil.rmtree(own / name, ignore_errors=True)
    outcome = finish(*TINY, workdir=own)
    assert f"damaged in {own}/checkpoints: {newest.name.partition('.')[0]} (" in outcome.err
    assert_same_run(own, run)


def test_interrupted_runs_save_in_the_middle_of_an_epoch_and_go_on(
    run, tmp_path, monkeypatch, quick
):
    """SIGTERM in the first epoch, SIGINT in the second; then to the end."""
    folder, signals = tmp_path / "run", {0: signal.SIGTERM, 1: signal.SIGINT}

    def interrupt(self, batch, logs=None):
        if self._epoch in signals:
            signal.raise_signal(signals.pop(self._epoch))

    monkeypatch.setattr(Progress, "on_train_batch_end", interrupt)
    for code, name, saved in ((143, "SIGTERM", (0, 8)), (130, "SIGINT", (1, 8))):
        outcome = command(*TINY, workdir=folder)
        assert outcome.code == code
        message = f"main.py: Stopped by {name}. Run the same command again to resume."
        assert outcome.err.splitlines()[-1] == message
        assert position(folder) == saved
    assert "resuming at epoch 1, step 9" in outcome.out
    assert [row["epoch"] for row in rows(folder)] == ["1"]

    outcome = finish(*TINY, workdir=folder)
    assert "resuming at epoch 2, step 9" in outcome.out
    assert_same_run(folder, run)


@pytest.mark.parametrize("place", ["build.load", "evaluate.measure_run"])
def test_control_c_outside_of_training_ends_with_130_and_no_traceback(
    own, monkeypatch, place, quick, interruptible
):
    place = f"augmix_tf.commands.{place}"
    monkeypatch.setattr(place, lambda *_, **__: signal.raise_signal(signal.SIGINT))
    (own / "results.json").unlink()
    try:
        outcome = command(*TINY, workdir=own)
    except KeyboardInterrupt:
        pytest.fail("KeyboardInterrupt leaves main(): a traceback")
    assert outcome.code == 128 + signal.SIGINT
    assert str(Interrupted(signal.SIGINT)) in outcome.line()


def test_data_that_are_not_there_end_the_program_with_1_and_one_line(tmp_path):
    """In a process of its own: nothing that TensorFlow or TFDS print may come along."""
    workdir, data = tmp_path / "run", tmp_path / "data"
    arguments = ["--dataset=cifar10", "--nodownload", f"--data_dir={data}", f"--workdir={workdir}"]
    result = subprocess.run(
        [sys.executable, "main.py", *arguments], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert result.returncode == 1
    assert result.stdout == ""
    line = Outcome(result.returncode, result.stdout, result.stderr).line()
    assert "cifar10" in line
    assert str(data) in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", ["train", "views"])
def test_a_folder_that_cannot_be_written_is_named(tmp_path, mode):
    (tmp_path / "file").write_text("mine")
    arguments = TINY if mode == "train" else ()
    outcome = command(*arguments, f"--mode={mode}", workdir=tmp_path / "file" / "run")
    assert outcome.code == 1
    assert f"{tmp_path / 'file' / 'run'}" in outcome.line()
    assert outcome.out == ""
    assert (tmp_path / "file").read_text() == "mine"


def test_a_wrong_command_ends_with_2_one_line_and_nothing_written(tmp_path):
    outcome = command(*TINY, "--dataset=cifra10", workdir=tmp_path / "run")
    assert outcome.code == 2
    assert "Did you mean 'cifar10'" in outcome.line()
    assert outcome.out == ""
    assert list(tmp_path.iterdir()) == []


def test_evaluate_measures_the_kept_weights_again(own, run):
    before = results(own)["clean"]
    outcome = finish("--mode=evaluate", workdir=own)
    assert results(own)["clean"] == before
    assert "clean error" in outcome.out

    finish("--mode=evaluate", "--eval_limit=30", "--adapt_bn=0", workdir=own)
    assert results(own)["clean"]["images"] == results(own)["adapted"]["clean"]["images"] == 30
    assert results(own)["clean"]["error"] == pytest.approx(kept_error(run, 30), abs=1e-12)
    for path in ("config.json", "metrics.csv", "model.keras", "checkpoints/checkpoint"):
        assert (own / path).read_bytes() == (run / path).read_bytes()


def test_an_unchanged_run_is_not_exported_again(own):
    before = {path: content for path, (content, _) in contents(own).items()}
    outcome = finish("--mode=export", workdir=own)
    assert f"unchanged since the last export: {own / 'export' / '1'} is current" in outcome.out
    assert {path: content for path, (content, _) in contents(own).items()} == before


@pytest.mark.parametrize("mode", ["evaluate", "export"])
def test_modes_that_want_a_run_say_so(tmp_path, run, mode):
    shutil.copy(run / "config.json", tmp_path)
    nowhere = tmp_path / "nowhere"
    for place, more, wanted in (
        (None, (), ["--workdir"]),
        (nowhere, (), [str(nowhere)]),
        (run, ("--seed=4",), ["--seed=3", "--seed=4"]),
        (tmp_path, (), ["has no checkpoint yet"]),
    ):
        outcome = command(f"--mode={mode}", *more, workdir=place)
        assert outcome.code == 2
        assert all(part in outcome.line() for part in wanted)
    assert not nowhere.exists()
    assert not (tmp_path / "results.json").exists()


def test_views_draws_originals_beside_their_views(tmp_path, monkeypatch):
    leave_out_xla(monkeypatch)
    drawn = []
    monkeypatch.setattr(plots, "views_grid", lambda *args: drawn.append(args) or b"image")
    outcome = finish("--mode=views", "--views=4", workdir=tmp_path)
    assert str(tmp_path / "views.png") in outcome.out
    assert (tmp_path / "views.png").read_bytes() == b"image"
    ((views, titles),) = drawn
    images, labels = (part[:6] for part in shapes.make("train"))
    np.testing.assert_array_equal(views[:, 0], images)
    assert views.shape[1] == len({views[0, v].tobytes() for v in range(4)}) == 4
    assert titles == [shapes.CLASS_NAMES[label] for label in labels]


def test_a_run_without_a_folder_gets_one_under_runs(tmp_path, monkeypatch):
    """In half precision: the results are those of the saved model, and the export was reloaded."""
    leave_out(monkeypatch, kept="export, verify")
    monkeypatch.chdir(tmp_path)
    outcome = finish(*SMALLEST[:-1], "--precision=mixed_float16", "--method=standard")
    [folder] = (tmp_path / "runs").iterdir()
    assert str(Path("runs", folder.name)) in outcome.out
    assert folder.name.startswith("shapes-wrn-standard-")
    [row] = rows(folder)
    assert float(row["jsd"]) == 0
    assert row["loss"] == row["cross_entropy"]
    assert float(row["learning_rate"]) == pytest.approx(0.05, rel=1e-4)  # step 1 of 0 and 1
    assert results(folder)["provenance"]["method"] == "standard"
    assert kept_error(folder, 10) == results(folder)["clean"]["error"]
