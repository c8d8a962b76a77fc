"""Plots of results: what is drawn, as matplotlib's objects and as PNG files."""

import io
import math

import matplotlib
import numpy as np
import pytest
from matplotlib.text import Text
from PIL import Image

from augmix_tf.metrics import ReliabilityBin, pool_bins
from augmix_tf.report import directories, plots, run
from augmix_tf.report.directories import Estimate
from tests.run_folders import CORRUPTIONS, corrupted, measures, write_run

RISING = {name: [0.1, 0.2, 0.3, 0.4, 0.5] for name in CORRUPTIONS}
# Gaussian noise is worse by 0.15 at each severity: the mean rises by 0.01.
ERRORS = RISING | {"gaussian_noise": [0.25, 0.35, 0.45, 0.55, 0.65]}
BINS = [ReliabilityBin(0.3, 0.25, 40), ReliabilityBin(None, None, 0), ReliabilityBin(0.9, 0.8, 960)]


@pytest.fixture
def drawn_figures(monkeypatch):
    """The figures that are drawn, as matplotlib's objects."""
    drawn, png = [], plots.png
    monkeypatch.setattr(plots, "png", lambda figure: drawn.append(figure) or png(figure))
    return drawn


def test_curves_join_points_over_gaps_and_scale_errors(drawn_figures):
    png = plots.curves({"epoch": [1.0, 2.0, 3.0], "test_error": [0.5, math.nan, 0.25]})
    assert Image.open(io.BytesIO(png)).format == "PNG"
    loss, error, *_ = drawn_figures[0].axes
    (line,) = error.get_lines()
    np.testing.assert_array_equal(line.get_xydata(), [[1, 50], [3, 25]])
    assert [text.get_text() for text in loss.texts] == ["not recorded"]


def test_reliability_shows_the_bins_that_hold_images(drawn_figures):
    plots.reliability({"caption": {"": BINS}})
    (axes,) = drawn_figures[0].axes
    points, (gaps,) = axes.collections[1], axes.collections[:1]
    np.testing.assert_allclose(points.get_offsets(), [[0.3, 0.25], [0.9, 0.8]])
    want = [[[0.3, 0.3], [0.3, 0.25]], [[0.9, 0.9], [0.9, 0.8]]]
    np.testing.assert_allclose(gaps.get_segments(), want)


def test_a_confusion_matrix_is_drawn_in_percent_of_each_class(drawn_figures):
    names = ["cat", "dog", "owl"]
    plots.confusion_matrix(names, [[3, 1, 0], [0, 0, 0], [1, 1, 998]])
    axes = drawn_figures[0].axes[0]
    shown = axes.get_images()[0].get_array()
    np.testing.assert_allclose(shown, [[75, 25, 0], [0, 0, 0], [0.1, 0.1, 99.8]])
    written = {text.get_position(): text.get_text() for text in axes.texts}
    assert written == {(0, 0): "75", (1, 0): "25", (0, 2): "<1", (1, 2): "<1", (2, 2): "100"}
    for axis in (axes.get_xticklabels(), axes.get_yticklabels()):
        assert [label.get_text() for label in axis] == names


def pixels(png: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(png))
    assert image.format == "PNG"
    return np.asarray(image.convert("RGB"))


def test_figures_of_a_run_decode_and_are_the_same_again(tmp_path):
    parts = {"clean": measures(0.05), "corrupted": corrupted(ERRORS)}
    files_of_run = directories.read(write_run(tmp_path / "run", parts))
    drawn = run.figures(files_of_run)
    assert list(drawn) == [
        "curves",
        "reliability",
        "corruption_errors",
        "error_over_severity",
        "calibration_over_severity",
    ]
    for png in drawn.values():
        height, width, _ = pixels(png).shape
        assert 450 <= height <= 800
        assert 700 <= width <= 1700
        assert 0.01 < (pixels(png) < 250).any(axis=-1).mean() < 0.5
    text = run.write(tmp_path / "run").read_text()
    for name, png in drawn.items():
        assert (tmp_path / "run" / "plots" / f"{name}.png").read_bytes() == png
        assert text.count(f"](plots/{name}.png)") == 1


def test_bars_stand_side_by_side_and_as_high_as_the_errors(drawn_figures):
    methods = {
        "standard": {"clean": Estimate(0.05), "fog": Estimate(0.4, 0.1), "mean": Estimate(0.3)},
        "augmix": {"clean": Estimate(0.04), "fog": Estimate(None), "mean": Estimate(0.2)},
    }
    plots.corruption_bars(methods, "title")
    (axes,) = drawn_figures[0].axes
    ticks = dict(
        zip((t.get_text() for t in axes.get_xticklabels()), axes.get_xticks(), strict=True)
    )
    assert list(ticks) == ["clean", *(name.partition("_")[0] for name in CORRUPTIONS), "mean"]
    standard, augmix = (c.patches for c in axes.containers if hasattr(c, "patches"))
    assert [round(bar.get_height(), 6) for bar in standard] == [5, 40, 30]
    assert [round(bar.get_height(), 6) for bar in augmix] == [4, 20]
    ends = [bar.get_x() + bar.get_width() for bar in standard]
    np.testing.assert_allclose(ends, [ticks["clean"], ticks["fog"], ticks["mean"]], atol=1e-9)
    np.testing.assert_allclose(
        [bar.get_x() for bar in augmix], [ticks["clean"], ticks["mean"]], atol=1e-9
    )
    said = [text.get_text() for text in axes.texts]
    assert said.count("excluded") == 14


def test_curves_over_severity_begin_at_the_clean_images(tmp_path, drawn_figures):
    errors = {name: RISING[name] for name in ("fog", "snow")} | {"pixelate": [0.4] * 5}
    parts = {"clean": measures(0.05), "corrupted": corrupted(errors)}
    run.figures(directories.read(write_run(tmp_path / "run", parts)))
    axes = drawn_figures[-2].axes[0]
    lines = {c.get_label(): c.lines[0].get_xydata().round(6).tolist() for c in axes.containers}
    assert set(lines) == {"mean of 3", "weather", "digital"}
    assert lines["weather"] == [[0, 5], [1, 10], [2, 20], [3, 30], [4, 40], [5, 50]]
    assert lines["mean of 3"] == [[0, 5], [1, 20], [2, 26.666667], [3, 33.333333], [4, 40],
                                  [5, 46.666667]]  # fmt: skip
    assert [t.get_text() for t in axes.get_xticklabels()] == ["clean", *"12345"]


def test_corrupted_reliability_is_that_of_all_counted_cells(tmp_path, drawn_figures):
    part = corrupted({"fog": [0.1, 0.2, 0.3, 0.4, 0.5]}, {"saturate": [1.0] * 5})
    parts = {"clean": measures(0.05), "corrupted": part}
    run.figures(directories.read(write_run(tmp_path / "run", parts)))
    clean, shifted = drawn_figures[1].axes
    assert [axes.get_title() for axes in (clean, shifted)] == [
        "Clean test images",
        "All corrupted test images",
    ]
    np.testing.assert_allclose(shifted.collections[1].get_offsets(), [[0.5, 0.25], [0.9, 0.7]])
    np.testing.assert_allclose(clean.collections[1].get_offsets(), [[0.5, 0.25], [0.9, 0.95]])


# Read as formulas, these would be errors or lose their signs.
NAMES = ["a$b_1$c^", "x_^{$\\broken{$", "$\\frac{1}$", "price_$5_$10"]


def test_names_are_drawn_as_they_are_and_never_as_formulas(drawn_figures):
    points = [Estimate(0.1)] * 6
    with matplotlib.rc_context({"text.parse_math": True, "text.usetex": True}):
        plots.confusion_matrix(NAMES, np.eye(4, dtype=int).tolist())
        plots.severity_curves(dict.fromkeys(NAMES, points), f"Error: {NAMES[0]}", "error (%)")
        plots.corruption_bars({name: {"fog": Estimate(0.1)} for name in NAMES}, NAMES[1])
        plots.reliability({name: {"": BINS} for name in NAMES}, NAMES[2])
        plots.views_grid(np.zeros((4, 1, 2, 3, 3)), NAMES)
    for drawn in drawn_figures:
        named = [text for text in drawn.findobj(Text) if "$" in text.get_text()]
        assert {n for n in NAMES if any(n in text.get_text() for text in named)} == {*NAMES}
        assert not any(text.get_parse_math() for text in named)


def test_pooled_bins_are_means_weighted_by_images():
    first = [ReliabilityBin(0.5, 0.25, 10)]
    second = [ReliabilityBin(0.52, 0.75, 30), ReliabilityBin(1.0, 1.0, 5), BINS[1]]
    low, high = pool_bins([first, second])
    assert (low.confidence, low.accuracy, low.count) == pytest.approx((0.515, 0.625, 40))
    assert high == ReliabilityBin(1.0, 1.0, 5)


def test_views_stand_in_a_grid_with_titles_beside_and_above(drawn_figures):
    views = np.random.default_rng(0).uniform(-9, 270, (2, 3, 20, 50, 3)).astype(np.float32)
    plots.views_grid(views, ["café", "x" * 500])
    axes = drawn_figures[0].axes
    shown = np.stack([a.get_images()[0].get_array() for a in axes]).reshape(views.shape)
    np.testing.assert_array_equal(shown, np.rint(views.clip(0, 255)))
    assert [a.get_title() for a in axes] == ["original", "view 1", "view 2", "", "", ""]
    assert axes[0].get_ylabel() == "café"
    assert len(axes[3].get_ylabel()) < 30
    assert axes[0].get_window_extent().height > 80
