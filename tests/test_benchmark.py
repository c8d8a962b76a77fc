"""`augmix_tf.evaluation.benchmark`: any callable, measured as the commands measure."""

import io
import json
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from scipy import special

from augmix_tf import corruptions
from augmix_tf.data import shapes
from augmix_tf.errors import ArgumentError, RunError
from augmix_tf.evaluation import benchmark
from tests import run_folders
from tests.program import finish
from tests.test_examples import program

CLASSES, SIZE = 4, (16, 20)
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (12, *SIZE, 3), np.uint8)
LABELS = np.arange(12) % CLASSES
WEIGHTS = RNG.normal(size=(SIZE[0] * SIZE[1] * 3, CLASSES)) / 255


def logits(images):
    """A linear classifier."""
    assert (images.dtype, images.shape[1:]) == (np.uint8, (*SIZE, 3))
    return images.reshape(len(images), -1) @ WEIGHTS


def measure(predict=logits, images=IMAGES, labels=LABELS, **options):
    settings = {"corruptions": ["contrast"], "severities": [3], "progress": False} | options
    return benchmark(predict, images, labels, **settings)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A saved classifier, and the directory of its evaluation by the command."""
    folder = tmp_path_factory.mktemp("saved")
    keras.utils.set_random_seed(1)
    layers = [keras.layers.Rescaling(1 / 255), keras.layers.AveragePooling2D(4)]
    layers += [keras.layers.Flatten(), keras.layers.Dense(10, activation="softmax")]
    model = keras.Sequential([keras.Input((32, 32, 3)), *layers])
    model.save(folder / "model.keras")
    options = (f"--model_path={folder / 'model.keras'}", "--eval_limit=8")
    finish("--mode=evaluate", *options, workdir=folder / "command")
    return model, folder / "command"


@pytest.fixture(scope="module")
def measured(saved):
    images, labels = (part[:8] for part in shapes.make("test"))
    names = {"dataset": "shapes", "model": "network", "method": "in memory"}
    return benchmark(
        saved[0],
        images,
        labels[:, None],
        from_logits=False,
        class_names=shapes.CLASS_NAMES,
        progress=False,
        **names,
    )


def test_results_are_those_of_the_command_for_the_same_model(saved, measured):
    document = json.loads((saved[1] / "results.json").read_text())
    got = json.loads(json.dumps(measured.to_json()))
    origin, provenance = got["corrupted"]["data"], got.pop("provenance")
    assert "shapes" in origin["description"]
    assert provenance["versions"] == document.pop("provenance")["versions"]
    assert origin.pop("description") == document["corrupted"]["data"].pop("description")
    assert got == document
    assert len(got["corrupted"]["corruptions"]) in (14, 15)


def test_results_in_memory_are_compared_with_those_of_runs_and_saved_models(
    saved, measured, tmp_path
):
    measured.write(tmp_path / "memory" / "results.json")
    document = json.loads((saved[1] / "results.json").read_text())
    for name in "ab":  # two files of one name
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").write_text(json.dumps(document))
    parts = {"clean": run_folders.measures(0.5, images=8), "corrupted": document["corrupted"]}
    run_folders.write_run(tmp_path / "run", parts, dataset="shapes")
    places = [tmp_path / name for name in ("memory", "a", "b", "run")]
    out = finish(
        "--mode=report", f"--workdirs={','.join(map(str, places))}", workdir=tmp_path / "out"
    ).out
    assert "in memory" in out
    text = (tmp_path / "out" / "comparison.md").read_text()
    error = f"{100 * document['clean']['error']:.2f}"
    assert "| method | model.keras | network | wrn |" in text
    assert re.search(rf"\| in memory \| – \| {error} \([\d. to]+\) \| – \|", text)
    for place in places[1:3]:
        row = rf"\| saved model, directory {place} \| {error} \([\d. to]+\) \| – \| – \|"
        assert re.search(row, text)
    assert "| augmix | – | – | 50.00 |" in text
    assert "not all comparable" not in text
    finish("--mode=report", workdir=places[0])
    assert "# in memory: network on shapes" in (places[0] / "report.md").read_text()


def test_errors_are_those_of_plain_numpy_at_some_severities():
    names, seed = ["fog", "gaussian_noise", "saturate"], 7
    got = measure(corruptions=names, severities=(5, 2), seed=seed)
    assert got.clean.metric("error") == np.mean(logits(IMAGES).argmax(axis=1) != LABELS)
    errors = {}
    for name in names:
        copies = [corruptions.corrupt(IMAGES, name, severity, seed) for severity in (2, 5)]
        errors[name] = [np.mean(logits(copy).argmax(axis=1) != LABELS) for copy in copies]
        assert [cell.metric("error") for cell in got.corrupted.corruptions[name]] == errors[name]
    assert (got.corrupted.severities, got.corrupted.counted) == ([2, 5], ["gaussian_noise", "fog"])
    mean = np.mean([errors["fog"], errors["gaussian_noise"]])
    assert got.corrupted.metrics["mean_error"] == pytest.approx(mean)
    assert got.corrupted.at_severity(["fog"], "error", 5) == errors["fog"][1]
    assert got.corrupted.at_severity(["fog"], "error", 3) is None
    assert type(got).from_json(json.loads(json.dumps(got.to_json()))).to_json() == got.to_json()


def test_corruptions_of_c_bar_are_a_benchmark_of_their_own():
    square = {"images": IMAGES[:, :, :16], "severities": [5]}
    square["predict"] = lambda images: logits(np.pad(images, [(0, 0), (0, 0), (0, 4), (0, 0)]))
    got = measure(corruptions=["fog", "lines", "ripple"], **square)
    assert (got.corrupted.counted, got.cbar.counted) == (["fog"], ["ripple", "lines"])
    alone = measure(corruptions=["lines"], **square)
    assert alone.figure().get_suptitle().startswith("Error on each C-bar")


class OnDevice:
    """As a tensor of PyTorch that belongs to a graph of gradients, on another device."""

    def __init__(self, values):
        self.values = values

    def detach(self):
        return self

    def cpu(self):
        return self.values


def test_probabilities_and_every_kind_of_output_give_the_results_of_the_logits():
    wanted = measure().to_json()
    for output in (np.ndarray.tolist, tf.constant, np.float32, OnDevice):
        assert measure(lambda images, to=output: to(logits(images))).to_json() == wanted
    got = measure(lambda images: special.softmax(logits(images), axis=1), from_logits=False)
    assert got.clean.metric("error") == wanted["clean"]["error"]
    for name in ("nll", "brier", "rms_calibration_error"):
        assert got.clean.metric(name) == pytest.approx(wanted["clean"][name], rel=1e-4)


def test_every_image_is_predicted_once_for_each_severity_after_a_first_batch():
    seen = []

    def predict(images):
        images.sort(axis=0)  # it may change what it gets
        seen.append(len(images))
        return logits(images)

    before = IMAGES.copy()
    measure(predict, severities=[1, 2])
    assert seen == [12] * 4
    np.testing.assert_array_equal(IMAGES, before)


def test_notebooks_show_the_text_and_the_figure():
    results = measure()
    assert results._repr_markdown_() == results.to_markdown()
    drawn = results.figure()
    heights = [bar.get_height() for bar in drawn.axes[0].patches]
    error = results.corrupted.over_severities("contrast", "error")
    assert heights == pytest.approx([100 * results.clean.metric("error"), *[100 * error] * 2])
    assert Image.open(io.BytesIO(drawn._repr_png_())).format == "PNG"


def with_nan(images):
    return np.where(np.arange(CLASSES) == 1, np.nan, logits(images))


def test_logits_that_look_like_probabilities_are_warned_of():
    with pytest.warns(UserWarning, match=r"look like probabilities.*`from_logits=False`"):
        measure(lambda images: special.softmax(logits(images), axis=1), corruptions=())


SHAPE = r"Expected predictions \[12, K\], one row per image with a value for .*; received "
REFUSED = {
    "class ids": ({"predict": lambda x: logits(x).argmax(axis=1)}, SHAPE + r"shape \[12\]\.$"),
    "one column": ({"predict": lambda x: logits(x)[:, :1]}, SHAPE + r"shape \[12, 1\]\.$"),
    "a list of outputs": ({"predict": lambda x: [logits(x)]}, SHAPE + r"shape \[1, 12, 4\]\.$"),
    "text": ({"predict": lambda x: [["a"] * 4] * 12}, SHAPE + r"list \(could not convert .*\)\.$"),
    "other classes": ({"class_names": "abc"}, r"predictions \[12, 3\].*received shape \[12, 4\]"),
    "logits": ({"from_logits": False}, "Expected probabilities of at least 0 with sum 1 in each"),
    "labels": ({"labels": LABELS + 1}, "labels from 0 to 3, as .* 4 classes; .* from 1 to 4"),
    "one-hot labels": ({"labels": np.eye(4)[LABELS]}, r"Expected labels \[12\] of integers"),
    "no images": ({"images": IMAGES[:0], "labels": []}, "at least one image; received none"),
    "float images": ({"images": IMAGES / 255}, r"images uint8 \[N, H, W, 3\]; received float64"),
    "corruption": ({"corruptions": ["fogg"]}, "Unknown corruption 'fogg'. Did you mean 'fog'"),
    "severity": ({"severities": [0]}, "an integer severity from 1 to 5; received 0"),
    "no severity": ({"severities": []}, "at least one corruption and one severity; received none"),
}  # fmt: skip


@pytest.mark.parametrize(("options", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_measured_is_refused_in_a_sentence(options, message):
    with pytest.raises(ArgumentError, match=message):
        measure(**options)


def test_predictions_that_are_not_finite_or_change_are_refused():
    with pytest.raises(RunError, match=r"Expected finite scores; received .*nan"):
        measure(with_nan)
    with pytest.raises(RunError, match="contrast, severity 3: Expected finite scores"):
        measure(lambda x: logits(x) if np.array_equal(x, IMAGES) else with_nan(x))
    counts = iter([4, 4, 3])
    with pytest.raises(ArgumentError, match=r"predictions \[12, 4\].*received shape \[12, 3\]"):
        measure(lambda x: logits(x)[:, : next(counts)])


def network():
    """`logits` as a network of Keras."""
    dense = keras.layers.Dense(CLASSES, use_bias=False)
    model = keras.Sequential([keras.Input((*SIZE, 3)), keras.layers.Flatten(), dense])
    dense.kernel.assign(WEIGHTS)
    return model


def onnx_file(path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("tf2onnx")
    network().export(path, format="onnx", verbose=False, opset_version=17)


def torch_file(path):
    torch = pytest.importorskip("torch")
    dense = torch.nn.Linear(len(WEIGHTS), CLASSES, bias=False)
    by_channel = WEIGHTS.reshape(*SIZE, 3, CLASSES).transpose(3, 2, 0, 1).reshape(CLASSES, -1)
    dense.weight.data = torch.tensor(255 * by_channel, dtype=torch.float32)
    torch.jit.save(torch.jit.script(torch.nn.Sequential(torch.nn.Flatten(), dense)), path)


@pytest.mark.parametrize(
    ("suffix", "save"),
    [("keras", lambda path: network().save(path)), ("onnx", onnx_file), ("pt", torch_file)],
)
def test_the_example_evaluates_a_file(tmp_path, monkeypatch, suffix, save):
    """On a few images and two cells."""
    save(tmp_path / f"model.{suffix}")
    np.savez(tmp_path / "set.npz", images=IMAGES, labels=LABELS)
    content = program("benchmark_any_model")
    monkeypatch.setattr(content["evaluation"], "benchmark", measure, raising=False)
    paths = [tmp_path / name for name in (f"model.{suffix}", "set.npz", "run")]
    document = content["main"](*map(str, paths))
    assert document["clean"]["error"] == measure().clean.metrics["error"]
    assert document["provenance"]["dataset"] == "set"
    written = json.loads((tmp_path / "run" / "results.json").read_text())
    assert written["corrupted"] == document["corrupted"]
