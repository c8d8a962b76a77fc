"""Results of evaluation, and the file that holds them."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from augmix_tf import metrics, robustness
from augmix_tf.data import benchmark
from augmix_tf.errors import ArgumentError, FileError, RunError
from augmix_tf.evaluation import measure, predict, results
from augmix_tf.evaluation.values import metric_values
from augmix_tf.metrics import classification, table
from augmix_tf.report import directories
from tests.image_stores import StoreOnDisk, in_memory

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results"


def of_images(logits, labels, temperature=None):
    """Results on one set of images, as in `results.json`."""
    return as_json(measure.of_images(logits, labels, temperature))


def evaluate(*args, **options):
    """Results on a -C set, as in `results.json`."""
    return as_json(measure.corrupted(*args, **options)[0])


def as_json(part):
    return results.Results(clean=part).to_json()["clean"]


def random_logits(count, classes=4, seed=0):
    rng = np.random.default_rng(seed)
    return 3 * rng.normal(size=(count, classes)), rng.integers(0, classes, count)


def test_results_are_those_of_the_metrics():
    logits, labels = random_logits(230)
    got = of_images(logits, labels)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    sure, right = p.max(axis=1), p.argmax(axis=1) == labels
    assert got["images"] == 230
    assert got["error"] == pytest.approx(1 - right.mean())
    assert got["nll"] == pytest.approx(-np.log(p[np.arange(230), labels]).mean())
    assert got["brier"] == pytest.approx(((p - np.eye(4)[labels]) ** 2).sum(axis=1).mean())
    assert got["rms_calibration_error"] == metrics.rms_calibration_error(sure, right)
    assert got["expected_calibration_error"] == metrics.expected_calibration_error(sure, right)
    assert got["aurra"] == metrics.aurra(sure, right)
    assert sum(entry["count"] for entry in got["reliability"]) == 230
    assert got["overconfidence"] == pytest.approx(sure.mean() - right.mean())
    assert got["rms_noise_floor"] == metrics.rms_noise_floor(sure)
    assert "calibrated" not in got


def test_intervals_and_outcomes_stand_beside_the_metrics():
    logits, labels = random_logits(230)
    got = measure.of_images(logits, labels)
    right = logits.argmax(axis=1) == labels
    assert got.intervals["error"] == metrics.wilson_interval((~right).sum(), 230)
    for name in ("nll", "brier", "overconfidence"):
        low, high = got.interval(name)
        assert (low + high) / 2 == pytest.approx(got.metrics[name])
    np.testing.assert_array_equal(got.outcomes.is_correct, right)
    one = measure.of_images(logits[:1], labels[:1])
    assert set(one.intervals) == {
        "error", "rms_calibration_error", "debiased_rms_calibration_error"
    }  # fmt: skip


def test_confusion_counts_each_class_by_what_it_is_taken_for():
    logits, labels = random_logits(230)
    wanted = [[0] * 4 for _ in range(4)]
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        wanted[label][row.index(max(row))] += 1
    got = measure.confusion(logits, labels, ["a", "b", "c", "d"])
    assert dataclasses.asdict(got) == {"class_names": ["a", "b", "c", "d"], "counts": wanted}
    assert wanted != [list(column) for column in zip(*wanted, strict=True)]


@pytest.mark.parametrize("temperature", [0.25, 3.0])
def test_a_temperature_adds_the_metrics_of_divided_logits(temperature):
    logits, labels = random_logits(230)
    got = of_images(logits, labels, temperature)
    plain, divided = (
        of_images(logits, labels),
        of_images(logits / temperature, labels),
    )
    names = {"nll", "brier", "rms_calibration_error", "expected_calibration_error"}
    names |= {"rms_noise_floor", "debiased_rms_calibration_error", "overconfidence"}
    calibrated, intervals = got.pop("calibrated"), got.pop("intervals")
    assert plain == of_images(logits, labels, 1.0)
    scaled = {f"calibrated.{name}": ends for name, ends in divided["intervals"].items()}
    scaled.pop("calibrated.error")
    assert intervals == plain.pop("intervals") | scaled
    exported = results.Results(clean=measure.of_images(logits, labels, temperature)).delivered()
    assert as_json(exported.clean)["intervals"] == divided["intervals"]
    assert got == plain
    assert calibrated == {name: divided[name] for name in names}
    assert all(calibrated[name] != plain[name] for name in names)


def test_logits_of_large_sets_are_measured_in_pieces(monkeypatch):
    logits, labels = random_logits(230)
    whole = of_images(logits, labels, 1.5)
    monkeypatch.setattr(classification, "VALUES_PER_BATCH", 100)
    pieces = of_images(logits, labels, 1.5)
    assert pieces["nll"] == pytest.approx(whole["nll"], rel=1e-14)
    assert pieces["calibrated"]["brier"] == pytest.approx(whole["calibrated"]["brier"], rel=1e-14)
    for key in ("images", "error", "aurra", "rms_calibration_error", "reliability"):
        assert pieces[key] == whole[key]
    with pytest.raises(ArgumentError, match="labels, one for each row"):
        of_images(logits, labels[:-1])


def everything():
    """Results with all parts, on random logits."""
    logits, labels = random_logits(9)
    clean = measure.of_images(logits, labels, 1.5)
    names = ["[1,", " 2 ]", "c", "d"]
    clean = dataclasses.replace(clean, confusion=measure.confusion(logits, labels, names))
    tables, classes = tables_of([*robustness.CORRUPTIONS, "saturate"])
    parts = dataclasses.asdict(measure.of_images(logits, labels))
    return results.Results(
        clean=clean,
        temperature=results.Temperature(1.5, 50, "train"),
        corrupted=measure.corrupted(looked_up(tables), set_of(tables, classes), 1.5)[0],
        perturbed=results.PerturbedResults(
            results.Data("official", "a set", 3),
            {"mean_flip_probability": None, "mean_flip_rate": 50.0},
            {"mean_flip_rate": [45.0, 55.5]},
            ["tilt"],
            {"tilt": results.PerturbationResults({"flip_probability": 0.5}, None, 3, 5)},
        ),
        shifted={"r.1": results.ShiftedResults(**parts, classes=4, data=results.Data("folder"))},
        provenance={"seed": 3},
    )


def test_the_document_has_a_schema_and_versions(tmp_path):
    path = tmp_path / "results.json"
    written = everything()
    written.write(path)
    first_row = ", ".join(map(str, written.clean.confusion.counts[0]))
    assert f"\n        [ {first_row} ],\n" in path.read_text()
    document = json.loads(path.read_text())
    assert document["schema"] == 2
    provenance = document.pop("provenance")
    assert document == {k: v for k, v in written.to_json().items() if k != "provenance"}
    assert provenance["seed"] == 3
    assert provenance["versions"]["tensorflow"] == tf.__version__


def test_results_are_the_same_after_writing_and_reading():
    written = everything()
    document = json.loads(json.dumps(written.to_json()))
    read = results.Results.from_json(document)
    assert read.to_json() == document
    assert read.clean == dataclasses.replace(
        written.clean, reliability=list(written.clean.reliability)
    )
    # A metric without a value stays apart from one that was not evaluated.
    assert document["perturbed"]["mean_flip_probability"] is None
    assert "mean_top5_distance" not in document["perturbed"]


@pytest.mark.parametrize(
    "path", sorted(RESULTS.glob("*/results.json")), ids=lambda p: p.parent.name
)
def test_files_of_earlier_runs_can_be_read(path):
    document = json.loads(path.read_text())
    assert results.Results.from_json(document, path).to_json() == document


def test_files_of_schema_1_have_the_temperature_in_clean_and_unknown_parts_are_ignored():
    clean = {"error": 0.5, "temperature": 1.25, "novel": [1]}
    document = {"schema": 1, "clean": clean, "other": 3}
    read = results.Results.from_json(document)
    assert read.temperature == results.Temperature(1.25)
    assert read.clean.metrics == {"error": 0.5}


def test_damaged_outcomes_are_refused_with_the_name_of_the_file():
    document = everything().to_json()
    document["clean"]["outcomes"]["correct"] = "AA"
    with pytest.raises(FileError, match=r"Cannot read a/results.json: .*outcomes in base64"):
        results.Results.from_json(document, "a/results.json")


def test_images_on_disk_are_predicted_batch_by_batch(monkeypatch):
    monkeypatch.setattr(benchmark, "BATCH", 3)
    images = np.random.default_rng(1).integers(0, 256, (7, 4, 5, 3), np.uint8)
    weights = np.random.default_rng(2).normal(size=(3, 2)).astype(np.float32)

    def program(images):
        assert images.dtype == tf.float32
        return tf.reduce_mean(images, axis=(1, 2)) @ weights

    on_disk = in_memory(images, kind=StoreOnDisk)
    got = predict.predict(program, on_disk)
    assert on_disk.sizes == [3, 3, 1]
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, images.mean(axis=(1, 2)) @ weights, rtol=1e-4, atol=1e-3)
    np.testing.assert_array_equal(predict.predict(program, in_memory(images)), got)


CLASSES = 4


def tables_of(names, count=12, classes=CLASSES):
    """Logits [5, count, classes] of each corruption, and labels [count]."""
    rng = np.random.default_rng(3)
    tables = {name: rng.normal(size=(5, count, classes)).astype(np.float32) for name in names}
    return tables, rng.integers(0, classes, count)


def set_of(tables, labels, batch=5):
    """A set whose images carry their corruption, severity and number in their pixels."""
    names = tuple(tables)

    def cell(name, severity):
        images = np.zeros((len(labels), 2, 3, 3), np.uint8)
        images[:, 0, 0, 0], images[:, 1, 2, 1] = names.index(name), severity - 1
        images[:, 0, 2, 2] = np.arange(len(labels))
        for first in range(0, len(labels), batch):
            yield images[first : first + batch], labels[first : first + batch]

    return benchmark.CorruptedSet(names, {"source": "official", "images": len(labels)}, cell)


def looked_up(tables, seen=None):
    stacked = np.stack(list(tables.values()))

    def program(images):
        assert images.dtype == tf.float32
        keys = np.asarray(images).astype(int)
        keys = keys[:, 0, 0, 0], keys[:, 1, 2, 1], keys[:, 0, 2, 2]
        if seen is not None:
            seen.extend(zip(*(key.tolist() for key in keys), strict=True))
        return tf.constant(stacked[keys])

    return program


def errors_by_hand(tables, labels):
    return {name: (t.argmax(axis=2) != labels).mean(axis=1) for name, t in tables.items()}


def test_all_cells_are_measured_and_predicted_once():
    names = (*robustness.CORRUPTIONS, "saturate", "frost_synthetic")
    tables, labels = tables_of(names)
    seen, steps = [], []
    got = evaluate(
        looked_up(tables, seen),
        set_of(tables, labels),
        progress=lambda done, total: steps.append((done, total)),
    )
    assert len(seen) == len(set(seen)) == 17 * 5 * 12
    assert steps == [(done, 85) for done in range(86)]
    errors = errors_by_hand(tables, labels)
    for name in names:
        for severity in range(5):
            wanted = of_images(tables[name][severity], labels)
            del wanted["aurra"]
            assert got["corruptions"][name][severity] == wanted
            assert wanted["error"] == errors[name][severity]
    # The extra ones and the stand-in change no mean.
    counted = [errors[name].mean() for name in robustness.CORRUPTIONS]
    assert got["mean_corruption_error"] == pytest.approx(np.mean(counted), abs=1e-15)
    assert got["mean_error"] == pytest.approx(np.mean(counted), abs=1e-15)
    assert (got["counted"], got["missing"]) == (list(robustness.CORRUPTIONS), [])
    assert got["data"] == {"source": "official", "images": 12}
    assert "alexnet" not in got
    assert json.loads(json.dumps(got)) == got


def test_the_interval_of_the_mean_error_is_over_images():
    tables, labels = tables_of(robustness.CORRUPTIONS, classes=1000)
    got, _ = measure.corrupted(looked_up(tables), set_of(tables, labels))
    wrong = np.stack([t.argmax(axis=2) != labels for t in tables.values()])  # [15, 5, 12]
    mean = metrics.mean_interval(wrong.mean(axis=(0, 1)))
    assert got.intervals["mean_corruption_error"] == pytest.approx(mean)
    assert got.intervals["mean_error"] == pytest.approx(mean)
    assert got.interval_over(["snow", "fog"], "error") == pytest.approx(
        metrics.mean_interval(wrong[[7, 9]].mean(axis=(0, 1)))
    )
    ratios = wrong.mean(axis=1) / np.array(list(robustness.ALEXNET_ERRORS.values()))[:, None]
    mce = metrics.mean_interval(100 * ratios.mean(axis=0))
    assert got.intervals["alexnet.mce"] == pytest.approx(mce)
    value = {v.column: v for v in metric_values(results.Results(corrupted=got))}
    assert value["mean_error"].interval == pytest.approx(mean)
    assert value["alexnet_mce"].interval == pytest.approx(mce)
    bounds = [cell.interval("brier") for row in got.corruptions.values() for cell in row]
    assert value["corrupted_brier"].interval == pytest.approx(np.mean(bounds, axis=0))


def test_intervals_of_few_images_and_seeds_stay_within_the_possible_values():
    tables, _ = tables_of(robustness.CORRUPTIONS, classes=1000)
    first = next(iter(tables.values()))
    first[:] = np.eye(1000, dtype=np.float32)[0]  # predicts class 0 on all images
    tables = dict.fromkeys(tables, first)
    # One image of twelve is wrong, then all but one: Student's interval reaches over 0 and over 1.
    for labels, cut in ((np.eye(12)[0], "low"), (1 - np.eye(12)[0], "high")):
        got, _ = measure.corrupted(looked_up(tables), set_of(tables, labels.astype(np.int64)))
        end = {"low": 0.0, "high": 1.0}[cut]
        raw = getattr(metrics.mean_interval(labels), cut)
        assert raw < 0 if cut == "low" else raw > 1
        assert getattr(got.interval_over(["snow", "fog"], "error"), cut) == end
        for name in ("mean_corruption_error", "mean_error"):
            assert getattr(got.intervals[name], cut) == end
        # Relative to AlexNet an error may be above 100 %.
        relative = got.intervals["alexnet.mce"]
        assert relative.low == 0 if cut == "low" else relative.high > 100
    (error,), (over,) = (table.select("images", name=n) for n in ("error", "overconfidence"))
    assert directories.estimate([0.1, 0.3], metric=error).interval == (0, 1)
    assert directories.estimate([-0.4, 0.5], metric=over).interval == (-1, 1)


def test_corruptions_of_other_images_have_no_interval_of_the_mean():
    tables, labels = tables_of(["snow", "fog"])

    def cell(name, severity):
        ((images, classes),) = set_of(tables, labels, batch=12).cell(name, severity)
        order = slice(None, None, -1 if name == "fog" else 1)
        yield images[order], classes[order]

    shuffled = dataclasses.replace(set_of(tables, labels), cell=cell)
    got, _ = measure.corrupted(looked_up(tables), shuffled)
    assert got.intervals is None
    assert got.interval_over(["snow", "fog"], "error") is None
    assert got.interval_over(["fog"], "error") is not None


@pytest.mark.parametrize("key", ["error", "nll", "brier", "rms_calibration_error"])
def test_means_are_over_the_counted_corruptions_that_are_there(key):
    tables, labels = tables_of(["snow", "fog", "frost_synthetic"])
    got = evaluate(looked_up(tables), set_of(tables, labels))
    cells = [of_images(tables[n][s], labels)[key] for n in ("snow", "fog") for s in range(5)]
    assert got["mean"][key] == pytest.approx(np.mean(cells), abs=1e-14)
    assert got["mean_corruption_error"] is None
    assert got["mean_error"] == got["mean"]["error"]
    assert got["counted"] == ["snow", "fog"]
    assert len(got["missing"]) == 13
    assert "frost" in got["missing"]


def test_means_over_some_severities_are_none_of_the_published_ones():
    tables, labels = tables_of(robustness.CORRUPTIONS, classes=1000)
    some = dataclasses.replace(set_of(tables, labels), severities=(2, 4))
    got = evaluate(looked_up(tables), some)
    assert got["severities"] == [2, 4]
    assert got["mean_corruption_error"] is None
    assert "alexnet" not in got
    errors = np.stack(list(errors_by_hand(tables, labels).values()))[:, [1, 3]]
    assert got["mean_error"] == pytest.approx(errors.mean())
    document = {"schema": 2, "corrupted": got}
    assert results.Results.from_json(document).to_json() == document


@pytest.mark.parametrize("clean_error", [None, 0.2])
def test_imagenet_is_compared_with_alexnet(clean_error):
    tables, labels = tables_of(robustness.CORRUPTIONS, classes=1000)
    program, found = looked_up(tables), set_of(tables, labels)
    clean = clean_error and results.ImageResults(metrics={"error": clean_error})
    got = evaluate(program, found, others=(results.Results(clean), results.Results()))
    errors = errors_by_hand(tables, labels)
    means = {name: errors[name].mean() for name in errors}
    ratios = [means[name] / robustness.ALEXNET_ERRORS[name] for name in means]
    assert got["alexnet"]["mce"] == pytest.approx(100 * np.mean(ratios))
    relative = got["alexnet"]["relative_mce"]
    if clean_error is None:
        assert relative is None
    else:
        ratios = [(means[n] - 0.2) / (robustness.ALEXNET_ERRORS[n] - 0.4348) for n in means]
        assert relative == pytest.approx(100 * np.mean(ratios))


def test_infinite_logits_are_refused_with_the_name_of_the_cell():
    tables, labels = tables_of(["snow", "fog"])
    tables["fog"][3, 7, 1] = np.inf
    with pytest.raises(RunError, match="fog, severity 4: Expected finite scores"):
        evaluate(looked_up(tables), set_of(tables, labels))
