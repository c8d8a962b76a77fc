"""What TensorBoard shows of real runs, asked over HTTP, and what is counted and profiled for it."""

import contextlib
import io
import json
import types
import urllib.parse
import urllib.request

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import flags
import main
from augmix_tf.augment.method import BatchShape
from augmix_tf.commands import build, dashboard
from augmix_tf.data.pipeline import Position
from augmix_tf.evaluation.results import Results
from augmix_tf.ops import OPERATIONS, PAPER_OPERATIONS
from augmix_tf.report import directories
from augmix_tf.seeds import BatchSeeds
from augmix_tf.training.callbacks import Profile, Records
from augmix_tf.workdir import Workdir
from tests import run_folders
from tests.program import leave_out
from tests.test_monitoring import serving

# Ten steps in calls of eight and two; the last batch is completed.
TINY = ("--train_limit=38", "--batch_size=4", "--eval_limit=10", "--depth=10", "--widen_factor=1")
TINY += ("--calibration_images=0", "--epochs=1", "--model=wrn", "--precision=float32")
STANDARD = ("--method=standard", "--seed=5", *TINY)
AUGMIX = ("--method=augmix", "--aug_severity=2", *TINY)
RESULTS = {
    "schema": 2,
    "clean": run_folders.measures(0.5),
    "corrupted": run_folders.corrupted({"fog": [0.0625] * 5}),
}
STEP = {"step/loss", "step/cross_entropy", "step/jsd", "step/error"}
TRAIN = {name.replace("step", "train") for name in STEP}
TRAIN |= {"train/learning_rate", "train/images_per_second"}
MEASURED = {"test/error", "corrupted/mean_error"}
MEASURED |= {
    f"{part}/{name}"
    for part in ("test", "corrupted")
    for name in ("brier", "rms_calibration_error")
}


def log_begin_of_augmix_run(root) -> None:
    """What a run logs before and between its steps, and its results; untrained."""
    config, directory = flags.parse(AUGMIX).config, Workdir(root)
    directory.open(config)
    run = build.run(config, directory, build.load(config), tf.distribute.get_strategy())
    with contextlib.ExitStack() as stack:
        callbacks = dashboard.callbacks(run, Position(), stack)
        callbacks[0].on_epoch_begin(0)
        callbacks[0].on_epoch_begin(1)
    for document in ({"schema": 2, "clean": {"error": 0.75}}, RESULTS):
        dashboard.log_results(run, Results.from_json(document), {})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run that was trained, profiled and measured, and one that only began."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        leave_out(patch, kept="report")
        code = main.main([*STANDARD, f"--workdir={folder / 'standard'}", "--profile_steps=9,10"])
        assert code == 0
        log_begin_of_augmix_run(folder / "augmix")
    return folder


@pytest.fixture(scope="module")
def server(folder):
    with serving(folder) as server:
        server.wait_for(
            lambda s: (
                set(s.json("plugin/scalars/tags").get("augmix/logs/measured", {})) >= MEASURED
                and "standard/logs/measured" in s.json("plugin/images/tags")
            )
        )
        yield server


def posted(server, path: str, **query):
    request = urllib.request.Request(
        f"{server.url}/{path}", json.dumps(query).encode(), {"Content-Type": "application/json"}
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=30) as response:
        return json.load(response)


def points(server, run: str, tag: str) -> dict[int, float]:
    found = server.json("plugin/scalars/scalars", run=run, tag=tag)
    return {step: value for _, step, value in found}


def picture(server, run: str, tag: str) -> np.ndarray:
    (entry,) = server.json("plugin/images/images", run=run, tag=tag, sample="0")
    query = dict(urllib.parse.parse_qsl(entry["query"]))
    return np.asarray(Image.open(io.BytesIO(server.get("plugin/images/individualImage", **query))))


def test_scalars_are_there_of_each_look_at_the_steps_and_of_the_measurements(server, folder):
    tags = server.json("plugin/scalars/tags")
    assert set(tags["standard/logs"]) == TRAIN | STEP | {"test/error"}
    assert set(tags["standard/logs/measured"]) == MEASURED
    results = directories.read(folder / "standard").results
    wanted = (
        results.clean.metrics["error"],
        results.corrupted.metrics["mean_error"],
        results.corrupted.mean["rms_calibration_error"],
    )
    tags_in_order = ("test/error", "corrupted/mean_error", "corrupted/rms_calibration_error")
    for tag, value in zip(tags_in_order, wanted, strict=True):
        got = points(server, "standard/logs/measured", tag)
        assert got == {0: pytest.approx(value, rel=1e-6)}


@pytest.mark.parametrize("name", ["loss", "cross_entropy", "error"])
def test_means_of_the_steps_add_up_to_the_mean_of_the_epoch(server, folder, name):
    step, train = (points(server, "standard/logs", f"{kind}/{name}") for kind in ("step", "train"))
    assert set(step) == set(train) == {8, 10}
    assert step[8] == pytest.approx(train[8], rel=1e-6)
    assert (8 * step[8] + 2 * step[10]) / 10 == pytest.approx(train[10], rel=1e-5)
    column = {"error": "train_error"}.get(name, name)
    assert train[10] == pytest.approx(directories.read(folder / "standard").metrics[column][0])


def test_the_figures_of_the_report_are_shown_as_they_are(server, folder):
    files = {path.stem: path for path in (folder / "standard" / "plots").glob("*.png")}
    assert {"confusion", "reliability", "corruption_errors", "curves"} <= set(files)
    assert set(server.json("plugin/images/tags")["standard/logs/measured"]) == set(files)
    for name in ("confusion", "corruption_errors"):
        shown = picture(server, "standard/logs/measured", name)
        np.testing.assert_array_equal(shown, np.asarray(Image.open(files[name]).convert("RGB")))


def test_runs_are_rows_that_can_be_sorted_by_their_corruption_error(server):
    experiment = posted(server, "plugin/hparams/experiment", experimentName="")
    columns = {info["name"]: info for info in experiment["hparamInfos"]}
    assert {"method", "model", "seed", "epochs", "learning_rate", "depth"} <= set(columns)
    assert "aug_severity" in columns
    assert not {"data_dir", "profile_steps", "mixup_alpha"} & set(columns)
    assert columns["method"]["differs"]
    metrics = [info["name"]["tag"] for info in experiment["metricInfos"]]
    assert set(metrics) == MEASURED
    rows = {}
    for order in ("ORDER_ASC", "ORDER_DESC"):
        found = posted(
            server,
            "plugin/hparams/session_groups",
            allowedStatuses=["STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_FAILURE"],
            colParams=[{"metric": {"tag": "corrupted/mean_error"}, "order": order}],
            startIndex=0,
            sliceSize=10,
        )
        rows[order] = [group["hparams"]["method"] for group in found["sessionGroups"]]
        assert len({group["name"] for group in found["sessionGroups"]}) == 2
    # One in sixteen is less than what ten images of ten classes are taken for after one epoch.
    assert rows == {"ORDER_ASC": ["augmix", "standard"], "ORDER_DESC": ["standard", "augmix"]}


def test_what_was_measured_before_is_gone(server, folder):
    (entry,) = (folder / "augmix" / "logs" / "measured").iterdir()
    assert "tfevents" in entry.name
    assert points(server, "augmix/logs/measured", "test/error") == {0: 0.5}


def test_histograms_count_what_is_drawn_for_each_epoch(server):
    tags = server.json("plugin/histograms/tags")
    wanted = {"operation", "chain_depth", "chain_weight", "mixed_share"}
    assert set(tags["augmix/logs"]) == {f"draws/{name}" for name in wanted}
    assert "standard/logs" not in tags
    served = server.json("plugin/histograms/histograms", run="augmix/logs", tag="draws/mixed_share")
    assert [step for _, step, _ in served] == [0, 10]
    for _, _, bins in served:
        assert sum(count for *_, count in bins) == 4 * 2
        assert [bins[0][0], bins[-1][1]] == [0, 1]


def test_the_graph_is_that_of_the_network(server):
    assert {"standard/logs", "augmix/logs"} <= set(server.json("plugin/graphs/info"))
    text = server.get("plugin/graphs/graph", run="standard/logs").decode()
    # A stem, three blocks of two, and the two shortcuts that change the width.
    assert text.count('op: "Conv2D"') == 1 + 3 * 2 + 2
    assert 'name: "images"' in text
    assert text.count('op: "MatMul"') == 1


def test_the_steps_asked_for_were_profiled(server, folder):
    (trace,) = (folder / "standard" / "logs" / "plugins" / "profile").glob("*/*.xplane.pb")
    assert trace.stat().st_size > 1000
    assert not (folder / "augmix" / "logs" / "plugins").exists()


class Scalars:
    """A monitor that keeps what it is given."""

    def __init__(self) -> None:
        self.of_step = {}

    def scalars(self, step, values) -> None:
        self.of_step[step] = values


def test_a_run_that_goes_on_in_the_middle_of_an_epoch_has_no_first_mean(tmp_path):
    kept = Scalars()
    start = Position(epoch=2, step=3)
    callback = Records(
        tmp_path / "metrics.csv", kept, 10, start, types.SimpleNamespace(images_per_second=1.0)
    )
    trainer = types.SimpleNamespace(optimizer=keras.optimizers.SGD(0.5))
    callback.set_model(trainer)
    # The looks of two epochs, as (step within the epoch, mean of the epoch so far).
    for epoch, looks in ((2, [(8, 3.0), (10, 2.5)]), (3, [(8, 2.0), (10, 1.0)])):
        callback.on_epoch_begin(epoch)
        for step, mean in looks:
            callback.on_train_batch_end(step - 1, {"loss": mean})
    got = {step: values.get("step/loss") for step, values in kept.of_step.items()}
    assert got == {
        28: None,
        30: pytest.approx((10 * 2.5 - 8 * 3.0) / 2),
        38: 2.0,
        40: pytest.approx((10 * 1.0 - 8 * 2.0) / 2),
    }
    assert [kept.of_step[step]["train/loss"] for step in got] == [3.0, 2.5, 2.0, 1.0]


def drawn_and_counted(*arguments):
    """The settings, all plans of the first batch of the third epoch, and what is shown of it."""
    config = flags.parse([*arguments, "--batch_size=7", "--seed=3"]).config
    plan = config.method.draw(BatchSeeds(3, 2, 0), BatchShape(7, (9, 6)))
    plan = getattr(plan, "policy", plan)
    data = types.SimpleNamespace(source=types.SimpleNamespace(image_size=(9, 6)))
    histograms = dashboard.draws(types.SimpleNamespace(config=config, data=data), 2)
    return config.method, plan if type(plan) is tuple else [plan], histograms


def applied(plan) -> list[int]:
    """The operations of a plan, one chain after the other, as far as each goes."""
    operation = plan.operation.numpy()
    depth = plan.chain_depth if hasattr(plan, "chain_depth") else plan.depth
    chains = operation.reshape(-1, operation.shape[-1]).tolist()
    lengths = depth.numpy().reshape(-1).tolist()
    return [one for chain, n in zip(chains, lengths, strict=True) for one in chain[:n]]


@pytest.mark.parametrize(
    "arguments",
    [
        ("--method=augmix",),
        ("--method=augmix", "--all_ops", "--views=4", "--mixture_depth=2"),
        ("--method=augmix", "--mix_ops=random_autoaugment", "--nojsd"),
        ("--method=autoaugment", "--cutout_size=3"),
    ],
    ids=" ".join,
)
def test_the_operations_counted_are_those_that_training_applies(arguments):
    method, plans, histograms = drawn_and_counted(*arguments)
    operations = histograms["draws/operation"]
    numbers = [number for plan in plans for number in applied(plan)]
    paper = method.name == "augmix" and method.mix_ops == "augmix" and not method.all_ops
    names = PAPER_OPERATIONS if paper else OPERATIONS
    assert operations.counts.tolist() == [numbers.count(n) for n in range(len(names))]
    assert operations.description.endswith(f"{len(names) - 1} {names[-1]}.")
    assert len(numbers) > 3


def test_weights_and_depths_are_counted_in_their_bins():
    _, [plan], histograms = drawn_and_counted("--method=augmix")
    depths = plan.chain_depth.numpy().reshape(-1).tolist()
    assert histograms["draws/chain_depth"].counts.tolist() == [depths.count(n) for n in (1, 2, 3)]
    for tag, values in (
        ("draws/chain_weight", plan.chain_weights),
        ("draws/mixed_share", plan.mixed_share),
    ):
        bins = [int(value * 20) for value in values.numpy().reshape(-1).astype(float)]
        assert histograms[tag].counts.tolist() == [bins.count(n) for n in range(20)]


@pytest.mark.parametrize(
    ("steps", "wanted"),
    [
        ((1, 1), range(1, 9)),
        ((8, 9), range(1, 17)),
        ((9, 9), range(9, 17)),
        ((10, 20), range(9, 28)),
        ((20, 20), range(17, 28)),  # the call before is short, so it may have held the step
        ((37, 38), range(36, 39)),
    ],
)
def test_the_calls_that_hold_the_steps_are_profiled(monkeypatch, steps, wanted):
    """Two epochs of 19 steps, in the loop's calls of up to eight."""
    said, found = [], []
    monkeypatch.setattr(tf.profiler.experimental, "start", lambda folder: said.append("start"))
    monkeypatch.setattr(tf.profiler.experimental, "stop", lambda: said.append("stop"))
    profile = Profile("nowhere", steps, steps_per_epoch=19)
    for epoch in range(2):
        profile.on_epoch_begin(epoch)
        for first, end in ((0, 8), (8, 16), (16, 19)):
            profile.on_train_batch_begin(first)
            if said == ["start"]:
                found += [19 * epoch + step + 1 for step in range(first, end)]
            profile.on_train_batch_end(end - 1)
    assert found == list(wanted)
    assert said == ["start", "stop"]
