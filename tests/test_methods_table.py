"""The table of docs/methods.md: one of its cells for real, and how its rows are kept and shown."""

import importlib
import json
import re
import shutil

import keras
import numpy as np
import pytest

import flags
import main
from augmix_tf import recipes
from augmix_tf.errors import RunError

# Not imported by statement: the benchmarks are no part of what BUILD describes.
methods = importlib.import_module("benchmarks.methods")
methods_check = importlib.import_module("benchmarks.methods_check")

CELL = methods.Cell("wrn", "cutmix")
SETTINGS = (
    "--dataset=shapes",
    "--depth=10",
    "--widen_factor=1",
    "--epochs=1",
    "--batch_size=24",
    "--train_limit=100",
    "--eval_limit=50",
    "--calibration_images=0",
    "--nocorrupted",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("cell") / "run"


@pytest.fixture(scope="module")
def row(folder):
    return methods.run_cell(CELL, SETTINGS, folder)


def test_a_cell_trains_is_measured_and_reads_back_the_same(row, folder):
    assert row["model"] == "wrn"
    assert row["method"] == "cutmix"
    assert json.loads((folder / "config.json").read_text())["method"] == "cutmix"
    assert 0 <= row["keras_difference"] < methods_check.TOLERANCE
    assert 0 <= row["saved_model_difference"] < methods_check.TOLERANCE
    assert row["error"] == json.loads((folder / "results.json").read_text())["clean"]["error"]
    # TensorFlow alone takes hundreds of megabytes: kilobytes or pages would stand out.
    assert 200 < row["peak_mb"] < 20_000
    assert 1 < row["step_ms"] < 600_000
    assert 1 < row["step_cpu_ms"] < 600_000


def test_an_exported_model_with_another_weight_is_found(row, folder, tmp_path, monkeypatch):
    # The metrics are not evaluated again.
    monkeypatch.setattr(methods_check.program, "main", lambda _: 0)
    damaged = tmp_path / "run"
    shutil.copytree(folder, damaged)
    model = keras.saving.load_model(damaged / "model.keras")
    bias = model.trainable_variables[-1]
    bias.assign(bias.numpy() + 1e-3 * np.eye(bias.shape[0])[0])
    model.save(damaged / "model.keras")
    with pytest.raises(RunError, match=r"Expected a keras_difference below 1e-06; received \d"):
        methods_check.check(damaged)


def test_a_failed_run_raises_its_own_message(tmp_path, capsys):
    wrong = ("--epochs=0", f"--workdir={tmp_path / 'run'}")
    assert main.main([*SETTINGS, *wrong]) == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    with pytest.raises(RunError, match=re.escape(message)):
        methods.run_python("main.py", *SETTINGS, *wrong)


def test_every_model_meets_every_method_and_wrn_the_variants_too():
    cells = methods.cells()
    every = {(model, method) for model in recipes.MODELS for method in recipes.METHODS}
    variants = {("wrn", name) for name in methods.VARIANTS}
    assert {(cell.model, cell.method) for cell in cells} == every | variants
    assert len(cells) == len(every) + len(variants)


def test_the_command_of_a_cell_asks_for_what_the_row_says():
    wanted = {
        "augmix no JSD": {"jsd": False},
        "augmix 2 views": {"views": 2},
        "augmix 4 views": {"views": 4},
        "autoaugment + JSD": {"mix_ops": "autoaugment", "views": 3, "jsd": True},
        "augmix split BN": {"split_bn": True},
    }
    for cell in methods.cells():
        config = flags.parse([*methods.SETTINGS, *cell.flags, "--workdir=unused"]).config
        assert config.model.name == cell.model
        assert wanted.get(cell.method, {}).items() <= config.settings().items()
        assert config.method.name == ("augmix" if cell.method in methods.VARIANTS else cell.method)


def test_the_page_shows_the_rows_that_are_kept_with_it():
    page, document = methods.PAGE.read_text(), json.loads(methods.RESULTS.read_text())
    table = methods.table(document, methods.MODELS, tuple(methods.FLAGS))
    assert methods.with_table(page, table) == page


def test_the_page_names_every_method_and_only_flags_that_there_are():
    page = methods.PAGE.read_text()
    assert [name for name in recipes.METHODS if f"| `{name}` |" not in page] == []
    of_the_benchmark = {"table", "models", "methods", "out"}
    known = {*flags.declarations(), *of_the_benchmark, "nojsd"}
    assert set(re.findall(r"`--([a-z_]+)", page)) - known == set()
