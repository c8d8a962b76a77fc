import io
import json

import numpy as np
import pytest
from PIL import Image

from augmix_tf import metrics
from augmix_tf.checks import RunError
from augmix_tf.reports import cells, drawing, figures, run_files, shift_plots, summary, terminal
from tests.run_folders import (
    CORRUPTIONS,
    PERTURBATIONS,
    alike,
    corrupted,
    measures,
    perturbed,
    write_run,
)

RISING = {name: [0.1, 0.2, 0.3, 0.4, 0.5] for name in CORRUPTIONS}
# Gaussian noise is worse by 0.15 at each severity: the mean rises by 0.01.
ERRORS = RISING | {"gaussian_noise": [0.25, 0.35, 0.45, 0.55, 0.65]}
SYNTHETIC = {"frost_synthetic": [0.9] * 5, "saturate": [0.01] * 5}


@pytest.fixture
def figures_drawn(monkeypatch):
    """The figures that are drawn, as matplotlib's objects."""
    drawn, png = [], drawing.png
    monkeypatch.setattr(drawing, "png", lambda figure: drawn.append(figure) or png(figure))
    return drawn


def report(folder, **parts):
    write_run(folder, {"clean": measures(0.05)} | parts)
    return summary.write(folder).read_text()


def test_the_corruptions_are_the_ones_that_count_in_the_metrics():
    assert cells.COUNTED == metrics.COUNTED_CORRUPTIONS == tuple(CORRUPTIONS)


def test_a_whole_evaluation_has_the_published_quantity(tmp_path):
    text = report(tmp_path / "run", corrupted=corrupted(ERRORS, SYNTHETIC))
    assert (
        "**Mean corruption error: 31.00%** (plain mean of the error over the severities of 15 "
        in text
    )
    assert "The set: generated, made here, 100 images of each corruption and severity, seed 0." in (
        text
    )
    assert "not the published set" in text
    for row in (
        "| noise: gaussian noise | 25.00 | 35.00 | 45.00 | 55.00 | 65.00 | 45.00 |",
        "| digital: jpeg compression | 10.00 | 20.00 | 30.00 | 40.00 | 50.00 | 30.00 |",
        "| **mean** | **11.00** | **21.00** | **31.00** | **41.00** | **51.00** | **31.00** |",
    ):
        assert row in text
    counted, _, extra = text.partition("**not counted** in any mean")
    assert "frost synthetic" not in counted
    assert "| frost synthetic | 90.00 | 90.00 | 90.00 | 90.00 | 90.00 | 90.00 |" in extra
    assert "| saturate | 1.00 |" in extra


def test_a_part_of_the_corruptions_is_never_called_by_the_published_name(tmp_path):
    errors = {name: row for name, row in RISING.items() if name != "frost"}
    text = report(tmp_path / "run", corrupted=corrupted(errors, SYNTHETIC))
    assert "**Mean error: 30.00%**, over 14 of 15 corruptions, without frost." in text
    assert "mCE" not in text
    assert "ean corruption error" not in text
    table = terminal.results_table(tmp_path / "run")
    assert "  error on 14 corruptions  30.00 %\n" in table


def test_corruptions_that_do_not_count_make_no_headline(tmp_path):
    part = corrupted(RISING, SYNTHETIC)
    cells_left = {name: part["corruptions"][name] for name in SYNTHETIC}
    nothing = {"mean_corruption_error": None, "mean_error": None, "counted": [], "mean": {}}
    nothing |= {"missing": CORRUPTIONS, "corruptions": cells_left}
    text = report(tmp_path / "run", corrupted=part | nothing)
    assert "None of the 15 corruptions that count was measured." in text
    assert "Mean" not in text
    assert "| saturate | 1.00 |" in text
    assert "corruption_errors.png" not in text
    measured = [
        line for line in terminal.results_table(tmp_path / "run").splitlines() if "%" in line
    ]
    assert [line.split("  ")[1] for line in measured] == ["clean error", "calibration error (RMS)"]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (CORRUPTIONS, "15 corruptions"),
        (CORRUPTIONS[:-2], "13 of 15 corruptions, without pixelate, jpeg_compression"),
        (("fog", "frost"), "2 of 15 corruptions: fog, frost"),
    ],
)
def test_a_set_is_named_by_what_it_lacks_or_what_it_has(names, said):
    assert cells.set_name(names) == said


def test_alexnet_quantities_are_shown_where_they_are(tmp_path):
    part = corrupted(RISING) | {"alexnet": {"mce": 71.23, "relative_mce": 80.0}}
    text = report(tmp_path / "run", corrupted=part)
    assert "In % of AlexNet, as published for ImageNet: mCE 71.2, relative mCE 80.0." in text


def test_an_official_set_has_no_caution(tmp_path):
    part = corrupted(RISING) | {"data": {"source": "official", "description": "a|b\nc"}}
    text = report(tmp_path / "run", corrupted=part)
    assert "The set: official, a|b c.\n" in text
    assert "not the published set" not in text


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
    assert "Temperature 1.500, fitted on 500 images held out of the train set" in text
    assert "| measure | clean | corrupted | clean, with temperature | corrupted, with temp" in text
    assert "| RMS calibration error | 5.00% | 15.50% | 1.00% | 6.00% |" in text
    assert "| Brier score | 0.2000 | 0.2000 | – | – |" in text


def test_a_run_on_clean_images_only_has_no_other_sections(tmp_path):
    text = report(tmp_path / "run")
    for title in ("Corrupted test images", "Perturbed", "Calibration under"):
        assert title not in text
    measured = [
        line for line in terminal.results_table(tmp_path / "run").splitlines() if "%" in line
    ]
    assert [line.split("  ")[1] for line in measured] == ["clean error", "calibration error (RMS)"]


def test_perturbations_are_listed_and_strangers_marked(tmp_path):
    flips = dict(zip(PERTURBATIONS, np.arange(10) / 100, strict=True)) | {"spatter": 0.2}
    text = report(tmp_path / "run", perturbed=perturbed(flips))
    assert "**Mean flip probability: 4.50%** (the ten perturbations of the paper)." in text
    assert "| shot noise | 1.00 | 1.500 | 1,200 | 31 |" in text
    assert "| spatter \\* | 20.00 |" in text
    assert "  flip probability         4.50 %\n" in terminal.results_table(tmp_path / "run")


def test_a_part_of_the_perturbations_has_no_mean(tmp_path):
    text = report(tmp_path / "run", perturbed=perturbed({"tilt": 0.1}))
    assert "No mean flip probability: not all ten" in text
    assert "| tilt | 10.00 |" in text


def test_the_terminal_shows_corrupted_rows(tmp_path):
    report(tmp_path / "run", corrupted=corrupted(ERRORS))
    table = terminal.results_table(tmp_path / "run")
    assert "  mean corruption error    31.00 %\n" in table
    assert "  calibration error (RMS)  5.00 %\n  the same, corrupted      15.50 %\n" in table


def test_pooled_bins_are_means_weighted_by_images():
    first = [{"confidence": 0.5, "accuracy": 0.25, "count": 10}]
    second = [
        {"confidence": 0.52, "accuracy": 0.75, "count": 30},
        {"confidence": 1.0, "accuracy": 1.0, "count": 5},
        {"confidence": None, "accuracy": None, "count": 0},
    ]
    low, high = cells.pooled([first, second])
    assert low == pytest.approx({"confidence": 0.515, "accuracy": 0.625, "count": 40})
    assert high == {"confidence": 1.0, "accuracy": 1.0, "count": 5}


# Pictures


def picture(png: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(png))
    assert image.format == "PNG"
    return np.asarray(image.convert("RGB"))


def test_figures_of_a_run_decode_and_are_the_same_again(tmp_path):
    parts = {"clean": measures(0.05), "corrupted": corrupted(ERRORS)}
    run = run_files.read(write_run(tmp_path / "run", parts))
    drawn = figures.figures(run)
    assert list(drawn) == [
        "curves",
        "reliability",
        "corruption_errors",
        "error_over_severity",
        "calibration_over_severity",
    ]
    for png in drawn.values():
        height, width, _ = picture(png).shape
        assert 450 <= height <= 800
        assert 700 <= width <= 1700
        assert 0.01 < (picture(png) < 250).any(axis=-1).mean() < 0.5
    assert figures.figures(run) == drawn
    text = summary.write(tmp_path / "run").read_text()
    for name, png in drawn.items():
        assert (tmp_path / "run" / "plots" / f"{name}.png").read_bytes() == png
        assert text.count(f"](plots/{name}.png)") == 1


def test_bars_stand_side_by_side_and_as_high_as_the_errors(figures_drawn):
    methods = {
        "standard": {"clean": (0.05, None), "fog": (0.4, 0.1), "mean": (0.3, None)},
        "augmix": {"clean": (0.04, None), "fog": (None, None), "mean": (0.2, None)},
    }
    shift_plots.corruption_bars(methods, "title")
    (axes,) = figures_drawn[0].axes
    ticks = dict(
        zip((t.get_text() for t in axes.get_xticklabels()), axes.get_xticks(), strict=True)
    )
    assert list(ticks) == ["clean", *cells.SHORT.values(), "mean"]
    standard, augmix = (c.patches for c in axes.containers if hasattr(c, "patches"))
    assert [round(bar.get_height(), 6) for bar in standard] == [5, 40, 30]
    assert [round(bar.get_height(), 6) for bar in augmix] == [4, 20]
    ends = [bar.get_x() + bar.get_width() for bar in standard]
    np.testing.assert_allclose(ends, [ticks["clean"], ticks["fog"], ticks["mean"]], atol=1e-9)
    np.testing.assert_allclose(
        [bar.get_x() for bar in augmix], [ticks["clean"], ticks["mean"]], atol=1e-9
    )
    said = [text.get_text() for text in axes.texts]
    assert said.count("left out") == 14


def test_curves_over_severity_begin_at_the_clean_images(tmp_path, figures_drawn):
    errors = {name: RISING[name] for name in ("fog", "snow")} | {"pixelate": [0.4] * 5}
    parts = {"clean": measures(0.05), "corrupted": corrupted(errors)}
    figures.figures(run_files.read(write_run(tmp_path / "run", parts)))
    axes = figures_drawn[-2].axes[0]
    lines = {c.get_label(): c.lines[0].get_xydata().round(6).tolist() for c in axes.containers}
    assert set(lines) == {"mean of 3", "weather", "digital"}
    assert lines["weather"] == [[0, 5], [1, 10], [2, 20], [3, 30], [4, 40], [5, 50]]
    assert lines["mean of 3"] == [[0, 5], [1, 20], [2, 26.666667], [3, 33.333333], [4, 40],
                                  [5, 46.666667]]  # fmt: skip
    assert [t.get_text() for t in axes.get_xticklabels()] == ["clean", *"12345"]


def test_corrupted_reliability_is_that_of_all_counted_cells(tmp_path, figures_drawn):
    part = corrupted({"fog": [0.1, 0.2, 0.3, 0.4, 0.5]}, {"saturate": [1.0] * 5})
    parts = {"clean": measures(0.05), "corrupted": part}
    figures.figures(run_files.read(write_run(tmp_path / "run", parts)))
    clean, shifted = figures_drawn[1].axes
    assert clean.get_title() == "Clean test images\nRMS calibration error 5.00%"
    assert shifted.get_title().endswith("mean RMS calibration error 15.00%")
    np.testing.assert_allclose(shifted.collections[1].get_offsets(), [[0.5, 0.25], [0.9, 0.7]])
    np.testing.assert_allclose(clean.collections[1].get_offsets(), [[0.5, 0.25], [0.9, 0.95]])


@pytest.mark.parametrize(("count", "shown"), [(1, 1), (3, 3), (5, 8)])
def test_many_reliability_panels_stand_in_rows(figures_drawn, count, shown):
    bins = [{"confidence": 0.5, "accuracy": 0.4, "count": 3}]
    panels = {f"method {i}": {"clean": bins, "corrupted": bins} for i in range(count)}
    shift_plots.reliability(panels, "title")
    axes = figures_drawn[0].axes
    assert len(axes) == shown
    assert [a.get_title() for a in axes if a.get_visible()] == list(panels)
    assert sum(a.get_legend() is not None for a in axes) == 1


def test_looks_differ_in_more_than_colour():
    assert len({(look.marker, look.line) for look in drawing.LOOKS}) == len(drawing.LOOKS)
    assert drawing.look(len(drawing.LOOKS)) == drawing.LOOKS[0]


# Damaged documents

FOG = alike(0.5, ["fog"])
DAMAGES = {
    "part": ({"corrupted": [1]}, "corrupted to be an object, got list"),
    "short": ({"corrupted": {"corruptions": {"fog": [measures(0.5)] * 4}}},
              "a list of 5 severities as corrupted.corruptions.fog, got 4"),
    "cell": ({"corrupted": {"corruptions": {"fog": [3] * 5}}}, "measures in corrupted.*fog, got 3"),
    "error": ({"corrupted": {"corruptions": {"fog": [{"nll": 1}] * 5}}}, "an error in corrupted"),
    "counted": ({"corrupted": corrupted(FOG) | {"counted": ["fog", "snow"]}},
                "snow, which is counted, in corrupted.corruptions, got none"),
    "stranger": ({"corrupted": corrupted(FOG, SYNTHETIC) | {"counted": ["saturate"]}},
                 "the corruptions of the benchmark as counted, got saturate"),
    "both": ({"corrupted": corrupted(FOG) | {"missing": ["fog"]}}, "both counted and missing"),
    "mean": ({"corrupted": {"mean_error": "x"}}, "a number as corrupted.mean_error, got 'x'"),
    "names": ({"corrupted": {"missing": "frost"}}, "a list of names as missing, got 'frost'"),
    "calibrated": ({"clean": measures(0.1, calibrated={"nll": "x"})},
                   "a number as clean.calibrated.nll, got 'x'"),
    "temperature": ({"temperature": {"value": "hot"}}, "a number as temperature.value"),
    "flips": ({"perturbed": {"perturbations": {"tilt": {}}}},
              "a flip_probability in perturbed.perturbations.tilt, got None"),
}  # fmt: skip


@pytest.mark.parametrize(("parts", "message"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_part_is_named(tmp_path, parts, message):
    write_run(tmp_path / "run", {"clean": measures(0.1)} | json.loads(json.dumps(parts)))
    with pytest.raises(RunError, match=f"cannot read .*results.json: want .*{message}"):
        summary.write(tmp_path / "run")
