"""C-bar sets: written, read in both layouts, generated, evaluated and reported beside -C."""

import csv
import json

import numpy as np
import pytest

import flags
from augmix_tf import corruptions, recipes, robustness
from augmix_tf.data import corrupted
from augmix_tf.errors import ArgumentError, FileError
from augmix_tf.evaluation import measure, results, sets
from augmix_tf.report import comparison, model_card
from augmix_tf.report import run as run_report
from augmix_tf.robustness import CBAR
from tests.image_stores import class_names, in_memory
from tests.run_folders import alike, measures, write_run
from tests.run_folders import corrupted as on_corrupted
from tests.test_class_folders import SIZE, image, path_of, save
from tests.test_corruptions import some_images

CIFAR, IMAGENET = (corruptions.CBAR_BENCHMARKS[table] for table in ("cifar", "imagenet"))
IMAGES = some_images(6, 16, 16)
LABELS = np.array([0, 1, 2, 0, 1, 2])


def open_set(place, size=(16, 16), limit=0):
    return corrupted.open_set(place, size, class_names(3), limit, kind=CBAR)


@pytest.fixture
def written(tmp_path):
    names = ("lines", "ripple", "fog")
    corruptions.write_corrupted(tmp_path, IMAGES, LABELS, names, seed=3, workers=1)
    return tmp_path


def test_a_written_set_reads_back_as_what_is_generated(written):
    read = open_set(written)
    made = sets.generate_corrupted(in_memory(IMAGES), seed=3, names=("ripple", "lines"))
    for opened in (read, made):
        assert opened.counted == CIFAR
        assert len(opened.missing) == 8
        assert opened.data["source"] == "generated"
    assert read.names == ("ripple", "lines")  # in the benchmark's order; fog is of -C
    for name in read.names:
        for severity in corruptions.SEVERITIES:
            ((images, labels),), ((same, _),) = (s.cell(name, severity) for s in (read, made))
            np.testing.assert_array_equal(images, same)
            np.testing.assert_array_equal(labels, LABELS)
    assert corrupted.open_set(written, (16, 16), class_names(3)).names == ("fog",)


def test_a_truncated_file_and_a_set_of_another_benchmark_are_refused_with_what_is_left(written):
    path = written / "lines.npy"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(FileError, match=r"lines\.npy: .*truncated.*still be evaluated: ripple"):
        open_set(written)
    path.unlink()
    (written / "ripple.npy").unlink()
    message = r"CIFAR-C-bar.*<corruption> is blue_noise_sample.*received .*fog\.npy"
    with pytest.raises(ArgumentError, match=message):
        open_set(written)


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        (some_images(2, 16, 20), {}, "Expected square images; received 16x20 pixels for lines"),
        (IMAGES[:2], {"table": "imagenet"}, "severity table 'imagenet'; received 'lines'"),
    ],
)
def test_a_set_that_cannot_be_made_is_refused_before_a_file_is_written(
    tmp_path, images, options, message
):
    folder = tmp_path / "set"
    with pytest.raises(ArgumentError, match=message):
        corruptions.write_corrupted(folder, images, LABELS[:2], ["lines", "sparkles"], **options)
    assert not folder.exists()


CONSTANTS = {  # as the authors' script names the folders; in text order 10.00 would come first
    "plasma_noise": ("4.75", "7.00", "8.50", "9.25", "10.00"),
    "perlin_noise": ("1", "2", "3", "4", "5"),
}


@pytest.fixture
def tree(tmp_path):
    for at, (name, folders) in enumerate(CONSTANTS.items()):
        for severity, folder in enumerate(folders):
            for number in (1, 4, 9):
                path = path_of(tmp_path / name / folder, number)
                save(path, image(100 * at + 10 * severity + number, SIZE), quality=85)
    return tmp_path


def test_folders_of_constants_are_severities_in_numerical_order(tree):
    opened = corrupted.open_set(tree, SIZE, class_names(3), kind=CBAR)
    assert opened.names == ("perlin_noise", "plasma_noise")
    assert opened.counted == IMAGENET
    assert "ImageNet-C-bar files" in opened.data["description"]
    for name, folders in CONSTANTS.items():
        for severity, folder in enumerate(folders, 1):
            ((images, _),) = opened.cell(name, severity)
            paths = [path_of(tree / name / folder, number) for number in (1, 4, 9)]
            want = [corrupted.read_image(path, SIZE, "canonical") for path in paths]
            np.testing.assert_array_equal(images, want)


def test_a_missing_folder_of_a_constant_is_named_with_what_is_left(tree):
    (tree / "plasma_noise" / "8.50").rename(tree / "elsewhere")
    message = r"plasma_noise: expected folders of 5 severities; received 10.00, 4.75, 7.00, 9.25"
    with pytest.raises(FileError, match=f"{message}; can still be evaluated: perlin_noise"):
        open_set(tree, SIZE)


def test_3dcc_is_read_like_imagenet_c_and_compared_with_alexnet(tmp_path):
    for at, name in enumerate(robustness.THREE_D.names):
        for severity in corruptions.SEVERITIES:
            path = path_of(tmp_path / "set" / name / str(severity), 4)
            save(path, image(100 * at + severity, SIZE), quality=85)
    classes = [f"n{number:08}" for number in range(999)]
    opened = corrupted.open_set(tmp_path / "set", SIZE, ["n01440764", *classes])
    assert opened.names == opened.counted == tuple(robustness.ALEXNET_3DCC_ERRORS)
    assert "ImageNet-3DCC files" in opened.data["description"]

    def wrong(images):
        return np.tile(np.eye(1000, dtype=np.float32)[1], (len(images), 1))

    always_wrong = results.Results(results.ImageResults(metrics={"error": 1.0}))
    found, _ = measure.corrupted(wrong, opened, others=(always_wrong, results.Results()))
    ratios = [100 / error for error in robustness.ALEXNET_3DCC_ERRORS.values()]
    assert found.metrics["alexnet.mce"] == pytest.approx(np.mean(ratios))
    assert "alexnet.relative_mce" not in found.metrics
    document = {"clean": measures(0.125), "corrupted": results.Results(corrupted=found).to_json()}
    document["corrupted"] = document["corrupted"]["corrupted"]
    run = write_run(tmp_path / "run", document)
    text = run_report.write(run).read_text()
    assert "the mean over corruptions of the mean error over severities, as published for" in text
    assert f"As published for ImageNet-3DCC: mCE {np.mean(ratios):.1f} % of AlexNet" in text
    comparison.write([run], tmp_path / "out")


def by_brightness(images):
    """A network with three classes that most corruptions disturb."""
    means = np.asarray(images).mean(axis=(1, 2))
    return means.astype(np.float32)


def test_the_gap_is_the_difference_of_the_mean_errors():
    store = in_memory(IMAGES, LABELS)
    benchmarks = sets.Benchmarks(
        corrupted=sets.generate_corrupted(store, names=["fog", "contrast"], severities=[2, 5]),
        cbar=sets.generate_corrupted(store, names=CIFAR, severities=[5]),
    )
    found = measure.measure(by_brightness, store, list("abc"), benchmarks).to_json()
    on_c, on_cbar = found["corrupted"], found["cbar"]
    errors = [row[0]["error"] for row in on_cbar["corruptions"].values()]
    assert on_cbar["counted"] == list(CIFAR)
    assert on_cbar["mean_error"] == pytest.approx(np.mean(errors))
    assert on_cbar["gap"] == pytest.approx(on_cbar["mean_error"] - on_c["mean_error"])
    assert "gap" not in on_c
    alone = sets.Benchmarks(cbar=benchmarks.cbar)
    found = measure.measure(by_brightness, store, list("abc"), alone).to_json()
    assert "gap" not in found["cbar"]


def test_imagenet_c_bar_is_compared_with_alexnet():
    errors = {name: [2 * error / 3] * 5 for name, error in robustness.ALEXNET_CBAR_ERRORS.items()}
    summary = measure.metrics.CorruptionErrors(errors, 0.2, 1000, IMAGENET)
    computed, _ = measure.table.compute(measure.table.select("corrupted"), summary)
    assert computed["alexnet.mce"] == pytest.approx(200 / 3)
    assert "alexnet.relative_mce" not in computed


@pytest.fixture
def run(tmp_path):
    names = [name for name in corruptions.CORRUPTIONS if name != "frost"]
    on_cbar = on_corrupted(alike(0.25, CIFAR)) | {"missing": [], "gap": 0.125}
    parts = {"clean": measures(0.05), "corrupted": on_corrupted(alike(0.125, names))}
    parts |= {"cbar": on_cbar | {"mean_corruption_error": 0.25}, "provenance": {}}
    return write_run(tmp_path / "run", parts)


def test_reports_show_the_error_on_c_bar_beside_that_on_c_and_the_gap(run, tmp_path):
    text = run_report.write(run).read_text()
    assert "## C-bar\n\n**Mean corruption error: 25.00 %**" in text
    assert "as published for CIFAR-10-C-bar" in text
    gap = "**Gap: +12.50 points** to 12.50 % on -C, over 14 of 15 corruptions, frost excluded."
    assert gap in text
    assert "| pinch and twirl | 25.00 | 25.00 | 25.00 | 25.00 | 25.00 | 25.00 |" in text
    assert (run / "plots" / "cbar_errors.png").exists()
    table = run_report.results_table(run)
    assert [line.split()[-2] for line in table.splitlines() if "C-bar error" in line] == ["25.00"]
    assert [line.split()[-2] for line in table.splitlines() if "gap" in line] == ["12.50"]
    text = comparison.write([run], tmp_path / "out").read_text()
    assert "### C-bar error, mean over 10 corruptions (%)" in text
    assert "### Error on each C-bar corruption (%): wrn" in text
    assert (tmp_path / "out" / "plots" / "cifar10-wrn-cbar_errors.png").exists()
    with (tmp_path / "out" / "comparison.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["cbar_mean_error"], row["cbar_gap"]) == ("0.25", "0.125")
    assert row["cbar_source"] == "generated"
    assert row["error_lines"] == "0.25"
    document = results.Results.from_json(json.loads((run / "results.json").read_text()))
    card = model_card.make({}, document, list("abc"), (32, 32))
    assert "error, lines" in [name for name, _ in model_card.metric_rows(card)]


@pytest.mark.parametrize(
    ("arguments", "want"),
    [
        ([], False),
        (["--dataset=cifar10"], True),
        (["--dataset=mnist"], False),
        (["--dataset=cifar100", "--nocorrupted", "--cbar"], True),
        (["--cbar_dir=sets/cbar"], True),
    ],
)
def test_a_run_evaluates_c_bar(arguments, want):
    assert flags.parse(arguments).config.cbar is want


def test_a_directory_without_c_bar_is_refused():
    with pytest.raises(ArgumentError, match=r"--cbar_dir cannot be combined"):
        flags.parse(["--cbar_dir=sets/cbar", "--nocbar"])
    assert not recipes.recipe("imagenet2012").cbar
