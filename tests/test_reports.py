import errno
import io
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from augmix_tf import files
from augmix_tf.checks import CommandError, RunError
from augmix_tf.reports import (
    confusion_plots,
    draw_plots,
    drawing,
    pictures,
    plots,
    run_files,
    shift_plots,
    summary,
)

WHITE = 255
CONFIG = {
    "dataset": "shapes",
    "model": {"name": "wrn", "depth": 16},
    "method": "augmix",
    "note": "a|b\nc",
    "all_ops": False,
    "data_dir": None,
}
RESULTS = {
    "schema": 1,
    "clean": {
        "images": 1000,
        "error": 0.1234,
        "nll": 0.41,
        "brier": 0.18,
        "rms_calibration_error": 0.056,
        "expected_calibration_error": 0.04,
        "temperature": 1.25,
        "reliability": [
            {"confidence": 0.3, "accuracy": 0.25, "count": 40},
            {"confidence": None, "accuracy": None, "count": 0},
            {"confidence": 0.9, "accuracy": 0.8, "count": 960},
        ],
    },
    "provenance": {
        "dataset": "shapes",
        "model": "wrn",
        "method": "augmix",
        "seed": 12345,
        "epochs": 3,
        "parameters": 77850,
        "versions": {"tensorflow": "2.21.0", "keras": "3.15.1"},
        "finished": "2026-01-02T03:04:05+00:00",
    },
}
METRICS = """\
epoch,step,loss,cross_entropy,jsd,train_error,test_error,learning_rate,images_per_second
1,40,2.5,2.25,0.02,0.8,,0.1,900
2,80,2.0,1.75,0.02,0.6,0.55,0.05,1100
3,120,1.5,1.25,0.02,0.4,nan,0.0,1000
"""


@pytest.fixture
def run(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "results.json").write_text(json.dumps(RESULTS))
    (tmp_path / "metrics.csv").write_text(METRICS)
    return tmp_path


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def some_views(rows=2, columns=3, height=20, width=50) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.uniform(0, 250, (rows, columns, height, width, 3)).astype(np.float32)


def places_of(sheet: np.ndarray, cell: np.ndarray) -> list[tuple[int, int]]:
    """Where a picture stands in a sheet (row, column of its corner)."""
    height, width, _ = cell.shape
    corners = np.argwhere((sheet == cell[0, 0]).all(axis=-1))
    return [
        (y, x)
        for y, x in corners.tolist()
        if np.array_equal(sheet[y : y + height, x : x + width], cell)
    ]


def test_views_stand_in_a_grid_enlarged_by_a_whole_factor(tmp_path):
    views = some_views()
    sheet = pixels(pictures.save_views(tmp_path / "new" / "views.png", views, ["cat", "dog"]))
    cells = np.rint(views).astype(np.uint8).repeat(5, axis=2).repeat(5, axis=3)  # 20 -> 100 pixels
    found = [[places_of(sheet, cell) for cell in row] for row in cells]
    assert all(len(places) == 1 for row in found for places in row)
    places = np.array(found)[:, :, 0]
    assert len(set(places[:, 0, 1])) == 1  # one column below the other
    assert (np.diff(places[:, :, 0], axis=1) == 0).all()  # and one row beside the other
    assert (np.diff(places[:, :, 0], axis=0) == 100 + 6).all()
    assert (np.diff(places[:, :, 1], axis=1) == [250 + 18, 250 + 6]).all()
    gutter = places[0, 1, 1] - 10
    assert (sheet[:, gutter] == WHITE).all()


def test_titles_are_written_beside_and_above(tmp_path):
    views = np.full((2, 3, 32, 32, 3), 255.0, np.float32)  # white on white: text alone is seen
    named = pixels(pictures.save_views(tmp_path / "named.png", views, ["café", "x" * 500]))
    plain = pixels(pictures.save_views(tmp_path / "plain.png", views))
    assert named.shape[0] == plain.shape[0]
    assert 150 < named.shape[1] - plain.shape[1] < 230  # the long title is cut
    margin = named.shape[1] - plain.shape[1]
    rows_with_ink = np.flatnonzero((named[:, :margin] < 128).any(axis=(1, 2)))
    assert rows_with_ink.min() > 60  # row titles stand beside the middle of their pictures
    assert (plain[30:] == WHITE).all()
    assert (plain[:30] < 128).any()  # column titles


def test_large_pictures_keep_their_size_and_values_are_clipped(tmp_path):
    views = np.zeros((1, 1, 96, 120, 3), np.float32)
    views[..., 0], views[..., 1], views[..., 2] = -20.0, 99.6, 300.0
    sheet = pixels(pictures.save_views(tmp_path / "views.png", views))
    assert (sheet == [0, 100, 255]).all(axis=-1).sum() == 96 * 120


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (0, 3, 4, 5, 3), (2, 3, 4, 5, 1)])
def test_views_of_another_shape_are_refused(tmp_path, shape):
    with pytest.raises(CommandError, match=r"want views .* got"):
        pictures.save_views(tmp_path / "views.png", np.zeros(shape))
    assert list(tmp_path.iterdir()) == []


def test_titles_must_be_as_many_as_images(tmp_path):
    with pytest.raises(CommandError, match="want 2 titles, got 1"):
        pictures.save_views(tmp_path / "views.png", some_views(), ["cat"])


def test_report_says_what_the_files_say(run):
    for name in ("checkpoints", "logs", "export/9", "export/10", "export/.10.unfinished"):
        (run / name).mkdir(parents=True)
    report = summary.write(run)
    assert report == run / "report.md"
    text = report.read_text()
    assert text.startswith("# augmix: wrn on shapes\n\nepochs: 3, seed: 12345, parameters: 77850")
    for row in (
        "| error | 12.34% |",
        "| RMS calibration error | 5.60% |",
        "| `model.depth` | 16 |",
        "| `note` | a\\|b c |",
        "| `all_ops` | no |",
        "| `data_dir` | not set |",
        "| `checkpoints/` |",
        "Median speed: 1,000 images a second.",
        "Made with tensorflow 2.21.0, keras 3.15.1.",
        f"tensorboard --logdir {run}/logs ",
        f"--dir {run}/export/10 --all",
    ):
        assert row in text
    for picture in ("plots/curves.png", "plots/reliability.png"):
        assert f"]({picture})" in text
        height, width, _ = pixels(run / picture).shape
        assert 400 < height < 1200
        assert 400 < width < 1600
    assert not list(run.glob("**/.*.unfinished*/*")), "nothing half-written"


def test_report_is_made_anew_in_place(run):
    (run / "report.md").write_text("old")
    first = summary.write(run).read_bytes()
    assert summary.write(run).read_bytes() == first
    assert {p.name for p in run.iterdir()} == {
        "config.json", "results.json", "metrics.csv", "report.md", "plots"
    }  # fmt: skip


def test_a_folder_with_spaces_is_quoted_in_commands(run):
    folder = run.rename(run.parent / "my run")
    assert f"--workdir='{folder}'" in summary.write(folder).read_text()


@pytest.mark.parametrize("missing", ["config.json", "results.json", "metrics.csv"])
def test_a_missing_file_is_left_out(run, missing):
    (run / missing).unlink()
    text = summary.write(run).read_text()
    assert f"`{missing}`" not in text
    assert ("Not evaluated yet." in text) == (missing == "results.json")
    assert ("plots/curves.png" in text) == (missing != "metrics.csv")


@pytest.mark.parametrize("gone", ["reliability", "temperature", "nll", "rms_calibration_error"])
def test_a_missing_measure_is_left_out(run, gone):
    clean = {name: value for name, value in RESULTS["clean"].items() if name != gone}
    (run / "results.json").write_text(json.dumps({"schema": 1, "clean": clean}))
    text = summary.write(run).read_text()
    assert "| error | 12.34% |" in text
    assert ("plots/reliability.png" in text) == (gone != "reliability")


def test_a_run_that_has_just_begun(tmp_path):
    (tmp_path / "metrics.csv").write_text(METRICS.splitlines()[0] + "\n")
    text = summary.write(tmp_path).read_text()
    assert text.startswith("# Report of a run\n\n## Results\n\nNot evaluated yet.")
    assert not (tmp_path / "plots").exists()


DAMAGES = {
    "cut_json": ("config.json", '{"dataset": "sha', "it is not JSON"),
    "list": ("config.json", "[1]", "want an object, got list"),
    "binary": ("results.json", b"\xff\xfe\x00", "it is not UTF-8 text"),
    "schema": ("results.json", {"schema": 3}, "want schema 1 or 2, got schema 3"),
    "clean": ("results.json", {"schema": 1, "clean": 3}, "want clean to be an object, got int"),
    "error": (
        "results.json",
        {"schema": 1, "clean": {"error": "x"}},
        "a number as clean.error, got 'x'",
    ),
    "bins": (
        "results.json",
        {"schema": 1, "clean": {"reliability": [{"confidence": 0.5, "count": 3}]}},
        "want bins with confidence, accuracy, count",
    ),
    "confusion": (
        "results.json",
        {"schema": 2, "clean": {"confusion": {"class_names": ["a", "b"], "counts": [[1, 2]]}}},
        r"want 2 rows of 2 counts in clean.confusion, got \[2\]",
    ),
    "confusion_names": (
        "results.json",
        {"schema": 2, "clean": {"confusion": {"counts": [[1]]}}},
        "want class_names and counts in clean.confusion, got counts",
    ),
    "confusion_counts": (
        "results.json",
        {"schema": 2, "clean": {"confusion": {"class_names": ["a"], "counts": [["x"]]}}},
        "want counts from 0 on in clean.confusion",
    ),
    "empty": ("metrics.csv", "", "want a header with a column epoch"),
    "number": ("metrics.csv", "epoch,loss\n1,abc\n", "want a number in line 2, got 'abc'"),
    "cut_row": ("metrics.csv", "epoch,loss\n1,2\n2\n", "want 2 values in line 3, got 1"),
}


@pytest.mark.parametrize(("name", "content", "message"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_is_named(run, name, content, message):
    content = json.dumps(content) if isinstance(content, dict) else content
    content = content.encode() if isinstance(content, str) else content
    (run / name).write_bytes(content)
    with pytest.raises(RunError, match=f"cannot read .*{name}: .*{message}") as raised:
        summary.write(run)
    assert "\n" not in str(raised.value)
    assert not (run / "report.md").exists()


def test_no_run_folder_is_refused(tmp_path):
    with pytest.raises(CommandError, match=r"want a run folder .*, got .*nowhere"):
        summary.write(tmp_path / "nowhere")


def test_empty_cells_are_nan(run):
    columns = run_files.read(run).metrics
    assert columns["epoch"] == [1, 2, 3]
    assert [math.isnan(value) for value in columns["test_error"]] == [True, False, True]


@pytest.fixture
def figures(monkeypatch):
    """The figures that are drawn, as matplotlib's objects."""
    drawn, png = [], drawing.png
    monkeypatch.setattr(drawing, "png", lambda figure: drawn.append(figure) or png(figure))
    return drawn


def test_curves_join_points_over_gaps_and_scale_errors(figures):
    png = plots.curves({"epoch": [1.0, 2.0, 3.0], "test_error": [0.5, math.nan, 0.25]})
    assert Image.open(io.BytesIO(png)).format == "PNG"
    loss, error, *_ = figures[0].axes
    (line,) = error.get_lines()
    np.testing.assert_array_equal(line.get_xydata(), [[1, 50], [3, 25]])
    assert [text.get_text() for text in loss.texts] == ["not recorded"]


def test_reliability_shows_the_bins_that_hold_images(figures):
    shift_plots.reliability({"caption": {"": RESULTS["clean"]["reliability"]}})
    (axes,) = figures[0].axes
    points, (gaps,) = axes.collections[1], axes.collections[:1]
    np.testing.assert_allclose(points.get_offsets(), [[0.3, 0.25], [0.9, 0.8]])
    want = [[[0.3, 0.3], [0.3, 0.25]], [[0.9, 0.9], [0.9, 0.8]]]
    np.testing.assert_allclose(gaps.get_segments(), want)


def test_a_confusion_matrix_is_drawn_in_per_cent_of_each_class(figures):
    names = ["cat", "dog", "owl"]
    confusion_plots.confusion_matrix(names, [[3, 1, 0], [0, 0, 0], [1, 1, 998]])
    axes = figures[0].axes[0]
    shown = axes.get_images()[0].get_array()
    np.testing.assert_allclose(shown, [[75, 25, 0], [0, 0, 0], [0.1, 0.1, 99.8]])
    written = {text.get_position(): text.get_text() for text in axes.texts}
    assert written == {(0, 0): "75", (1, 0): "25", (0, 2): "<1", (1, 2): "<1", (2, 2): "100"}
    for axis in (axes.get_xticklabels(), axes.get_yticklabels()):
        assert [label.get_text() for label in axis] == names


def test_the_report_shows_the_confusion_of_the_clean_images(run):
    confusion = {"class_names": ["cat", "dog"], "counts": [[3, 1], [0, 2]]}
    (run / "results.json").write_text(json.dumps({"schema": 2, "clean": {"confusion": confusion}}))
    summary.write(run)
    assert "plots/confusion.png" in (run / "report.md").read_text()
    assert Image.open(run / "plots" / "confusion.png").format == "PNG"


def test_a_hundred_classes_are_named_and_not_numbered(figures):
    names = [f"class {number}" for number in range(100)]
    png = confusion_plots.confusion_matrix(names, np.eye(100, dtype=int).tolist())
    axes = figures[0].axes[0]
    assert not axes.texts
    assert [label.get_text() for label in axes.get_yticklabels()] == names
    assert max(Image.open(io.BytesIO(png)).size) < 2000
    # Names of neighbours do not touch.
    heights = [label.get_window_extent().height for label in axes.get_yticklabels()]
    assert max(heights) < axes.get_window_extent().height / 100 * 1.2


def test_the_operations_of_a_batch_are_bars_with_their_names(figures):
    draw_plots.operation_bars({"rotate": 3, "shear_x": 0, "posterize": 6})
    (axes,) = figures[0].axes
    assert [bar.get_width() for bar in axes.patches] == [3, 0, 6]
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "rotate",
        "shear_x",
        "posterize",
    ]
    (mean,) = axes.get_lines()
    assert set(mean.get_xdata()) == {3}


def test_reports_need_no_tensorflow_and_no_pyplot(run):
    script = (
        "import sys\n"
        "from augmix_tf.reports import comparison, pictures, summary, terminal\n"
        "assert 'matplotlib' not in sys.modules\n"
        "summary.write(sys.argv[1])\n"
        "assert not {'tensorflow', 'keras', 'matplotlib.pyplot'} & set(sys.modules)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run([sys.executable, "-c", script, str(run)], env=environment, check=True)


def test_atomic_files_replace_and_keep(tmp_path, monkeypatch):
    path = tmp_path / "a" / "b.txt"
    files.write_text_atomically(path, "é\n")
    files.write_bytes_atomically(str(path), "ü\n".encode())
    assert path.read_bytes() == "ü\n".encode()

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match=r"^cannot write .*b\.txt: No space left on device$"):
        files.write_text_atomically(path, "new")
    assert path.read_bytes() == "ü\n".encode()
    assert [p.name for p in path.parent.iterdir()] == ["b.txt"]


def test_atomic_files_in_the_way_of_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"cannot write .*file/x\.txt: "):
        files.write_text_atomically(tmp_path / "file" / "x.txt", "")
    with pytest.raises(RunError, match=r"cannot write .*: Is a directory"):
        files.write_text_atomically(tmp_path, "")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
