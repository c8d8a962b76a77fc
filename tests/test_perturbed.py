"""-P sets: readers of `.npy` files and videos, and what is measured along the sequences."""

import json

import cv2
import numpy as np
import pytest

from augmix_tf import metrics
from augmix_tf.data import benchmark, perturbed
from augmix_tf.errors import ArgumentError, FileError, RunError
from augmix_tf.evaluation import measure, sets
from augmix_tf.evaluation.results import Results
from augmix_tf.robustness import ALEXNET_RATES, PERTURBATIONS, is_noise

SIZE = (6, 8)
LENGTHS = {"gaussian_noise": 4, "translate": 3, "shear": 5, "shot_noise_2": 4}


def sequences(count, frames, seed=0, size=SIZE):
    return np.random.default_rng(seed).integers(0, 256, (count, frames, *size, 3), np.uint8)


@pytest.fixture
def files(tmp_path):
    contents = {n: sequences(7, t, s) for s, (n, t) in enumerate(LENGTHS.items())}
    for name, array in contents.items():
        np.save(tmp_path / f"{name}.npy", array)
    return tmp_path, contents


@pytest.fixture
def small_batches(monkeypatch):
    """Eight frames: two sequences of four, one of five."""
    monkeypatch.setattr(benchmark, "BATCH", 8)


@pytest.mark.parametrize(("limit", "used"), [(0, 7), (5, 5), (99, 7)])
def test_sequences_come_in_chunks_and_in_order(files, small_batches, limit, used):
    folder, contents = files
    found = perturbed.open_set(folder, SIZE, limit)
    assert found.names == tuple(name for name in perturbed.PERTURBATIONS if name in LENGTHS)
    assert found.data["images"] == used
    assert found.data["source"] == "official"
    for name, frames in LENGTHS.items():
        chunks = list(found.sequences(name))
        assert max(map(len, chunks)) == 8 // frames
        np.testing.assert_array_equal(np.concatenate(chunks), contents[name][:used])


DAMAGES = {
    "truncated": (lambda p: p.write_bytes(p.read_bytes()[:-1]), "truncated or damaged"),
    "single frames": (lambda p: np.save(p, sequences(7, 1)), r"uint8 \[7, 1, 6, 8, 3\]"),
    "pictures": (lambda p: np.save(p, sequences(7, 4)[:, 0]), r"uint8 \[7, 6, 8, 3\]"),
    "floats": (lambda p: np.save(p, sequences(7, 4) / 2.0), r"float64 \[7, 4"),
    "turned": (lambda p: np.save(p, sequences(7, 4, size=(8, 6))), r"uint8 \[7, 4, 8, 6, 3\]"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_named_with_what_was_wanted_and_what_is_left(files, damage):
    make, got = DAMAGES[damage]
    make(files[0] / "translate.npy")
    wanted = r"translate.npy: expected uint8 \[N, T, 6, 8, 3\], T of 2 or more"
    with pytest.raises(FileError, match=rf"{wanted}; received.*{got}.*: gaussian_noise, shear,"):
        perturbed.open_set(files[0], SIZE)


def test_a_file_with_fewer_sequences_than_most_is_named(files):
    np.save(files[0] / "shear.npy", sequences(6, 5))
    with pytest.raises(FileError, match=r"shear.npy: expected 7 rows .*; received 6.*: gaussian_"):
        perturbed.open_set(files[0], SIZE)


def test_a_folder_without_a_set_is_refused_with_what_it_must_hold(tmp_path):
    with pytest.raises(ArgumentError, match=r"<perturbation>.npy files \(CIFAR-P\), or with"):
        perturbed.open_set(tmp_path, SIZE)
    with pytest.raises(ArgumentError, match="Expected a folder with a set"):
        perturbed.open_set(tmp_path / "nowhere", SIZE)


VIDEOS = ("n02102040/ILSVRC2012_val_00000001", "n01440764/ILSVRC2012_val_00000002", "n0/z")


def write_video(path, frames):
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = frames.shape[1:3]
    code = cv2.VideoWriter_fourcc(*"mp4v")
    writer = cv2.VideoWriter(str(path), code, 30, (width, height))
    assert writer.isOpened()
    for frame in frames:
        writer.write(np.ascontiguousarray(frame[..., ::-1]))
    writer.release()


def smooth_sequence(seed, frames):
    """Plain colours, which survive the codec: each frame another."""
    colours = np.random.default_rng(seed).integers(30, 226, (frames, 1, 1, 3), np.uint8)
    return np.broadcast_to(colours, (frames, 48, 64, 3))


@pytest.fixture
def videos(tmp_path):
    contents = {}
    for number, (place, name, frames) in enumerate(
        [("noise/gaussian_noise", "gaussian_noise", 3), ("translate", "translate", 5)]
    ):
        contents[name] = [smooth_sequence(10 * number + i, frames) for i in range(len(VIDEOS))]
        for file, sequence in zip(VIDEOS, contents[name], strict=True):
            write_video(tmp_path / place / f"{file}.mp4", sequence)
    return tmp_path, contents


@pytest.mark.parametrize("limit", [0, 2])
def test_videos_are_read_in_order_and_in_colour(videos, small_batches, limit):
    folder, contents = videos
    found = perturbed.open_set(folder, (40, 50), limit)
    assert found.names == ("gaussian_noise", "translate")
    for name, wanted in contents.items():
        chunks = list(found.sequences(name))
        assert all(len(chunk) <= max(1, 8 // wanted[0].shape[0]) for chunk in chunks)
        read = np.concatenate(chunks)
        assert read.dtype == np.uint8
        # The codec moves a plain colour by a few levels; channels in another order would show.
        wanted = np.stack(wanted)[: limit or None, :, 4:44, 7:57]
        assert read.shape == wanted.shape
        assert np.abs(read.astype(int) - wanted).max() <= 8


def test_a_video_is_cut_around_its_centre(tmp_path):
    ramp = np.broadcast_to(np.arange(64, dtype=np.uint8)[:, None] * 3, (2, 48, 64, 3))
    write_video(tmp_path / "ramp.mp4", ramp)
    capture = cv2.VideoCapture(str(tmp_path / "ramp.mp4"))
    wanted = [capture.read()[1][4:44, 7:57, ::-1] for _ in range(2)]
    read = perturbed.read_video(tmp_path / "ramp.mp4", (40, 50))
    np.testing.assert_array_equal(read, wanted)
    assert len(np.unique(wanted)) > 40


def test_damaged_videos_are_named(videos):
    folder, _ = videos
    found = perturbed.open_set(folder, (40, 50))
    path = folder / "translate" / f"{VIDEOS[1]}.mp4"
    write_video(path, smooth_sequence(0, 4))
    with pytest.raises(FileError, match=r"00002.mp4: expected a video of 5 frames, .*; received 4"):
        list(found.sequences("translate"))
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(FileError, match=r"00002.mp4: expected a video of 5 frames, .*; received 0"):
        list(found.sequences("translate"))
    with pytest.raises(FileError, match=r"mp4: expected 49x50 pixels or more; received 48x64"):
        list(perturbed.open_set(folder, (49, 50)).sequences("gaussian_noise"))
    path.unlink()
    with pytest.raises(FileError, match=r"translate: expected the same 3 files .*: gaussian_noise"):
        perturbed.open_set(folder, (40, 50))


def evaluate(*args, **options):
    """Results on a -P set, as in `results.json`."""
    return Results(perturbed=measure.perturbed(*args, **options)).to_json()["perturbed"]


def in_pixels(shape):
    """Images that carry their own number in two pixels, and a way to read it."""
    numbers = np.arange(np.prod(shape)).reshape(shape)
    images = np.zeros((*shape, 2, 3, 3), np.uint8)
    images[..., 0, 0, 0], images[..., 1, 2, 1] = numbers // 256, numbers % 256
    return images


def looked_up(*tables):
    """A program that answers with logits [S, T, K] of one perturbation after the other."""
    flat = [table.reshape(-1, table.shape[-1]) for table in tables]
    calls = []

    def program(images):
        numbers = np.asarray(images[:, 0, 0, 0] * 256 + images[:, 1, 2, 1]).astype(int)
        calls.append(numbers)
        if len(flat) > 1 and sum(map(len, calls)) > len(flat[0]):
            del flat[0], calls[:-1]
        return flat[0][numbers]

    return program


def in_memory(tables, chunk=3):
    shapes = {name: table.shape[:2] for name, table in tables.items()}
    count = next(iter(shapes.values()))[0]

    def chunks(name):
        images = in_pixels(shapes[name])
        return (images[i : i + chunk] for i in range(0, count, chunk))

    return benchmark.PerturbedSet(tuple(tables), {"source": "official", "images": count}, chunks)


def random_tables(names, classes=7, count=5):
    rng = np.random.default_rng(1)
    return {n: rng.normal(size=(count, 4 + i % 3, classes)) for i, n in enumerate(names)}


def flips_by_hand(table, is_noise):
    flips = []
    for sequence in table.argmax(axis=2):
        for t in range(1, len(sequence)):
            flips.append(sequence[t] != sequence[0 if is_noise else t - 1])
    return np.mean(flips)


def test_results_are_those_computed_by_hand():
    names = (*PERTURBATIONS, "spatter", "speckle_noise_3")
    tables = random_tables(names)
    seen = []
    program = looked_up(*tables.values())
    got = evaluate(
        program, in_memory(tables), progress=lambda done, total: seen.append((done, total))
    )
    flips = {name: flips_by_hand(tables[name], "noise" in name) for name in names}
    rows = got["perturbations"]
    for name in names:
        assert rows[name]["flip_probability"] == pytest.approx(flips[name], abs=1e-12)
        distance = metrics.top5_distance(tables[name], "noise" in name)
        assert rows[name]["top5_distance"] == pytest.approx(distance, abs=1e-12)
        assert rows[name]["sequences"] == 5
        assert rows[name]["frames"] == tables[name].shape[1]
    paper = [flips[name] for name in PERTURBATIONS]
    assert got["mean_flip_probability"] == pytest.approx(np.mean(paper))
    by_script = [flips["spatter" if n == "snow" else n] for n in PERTURBATIONS]
    assert np.mean(by_script) != pytest.approx(np.mean(paper))
    assert got["mean_flip_probability_of_script"] == pytest.approx(np.mean(by_script))
    distances = [rows[name]["top5_distance"] for name in PERTURBATIONS]
    assert got["unnormalized_top5_distance"] == pytest.approx(np.mean(distances))
    assert got["perturbations_counted"] == list(PERTURBATIONS)
    assert "mean_flip_rate" not in got
    assert seen[0] == (0, 60)
    assert seen[-1] == (60, 60)
    assert json.loads(json.dumps(got)) == got


def test_means_need_all_their_perturbations():
    tables = random_tables([n for n in PERTURBATIONS if n != "tilt"])
    got = evaluate(looked_up(*tables.values()), in_memory(tables))
    for mean in ("flip_probability", "flip_probability_of_script"):
        assert got[f"mean_{mean}"] is None
    assert got["unnormalized_top5_distance"] is None


def test_infinite_logits_are_refused_by_name():
    tables = random_tables(["brightness"], classes=4)
    tables["brightness"][2, 1, 3] = np.nan
    with pytest.raises(RunError, match="brightness: Expected finite logits"):
        evaluate(looked_up(*tables.values()), in_memory(tables))


def test_intervals_are_over_sequences():
    tables = random_tables(PERTURBATIONS)
    got = evaluate(looked_up(*tables.values()), in_memory(tables), alexnet=rates())
    flips = {}
    for name, table in tables.items():
        flips[name] = np.array([flips_by_hand(row[None], is_noise(name)) for row in table])
        low, high = metrics.mean_interval(flips[name])
        want = max(low, 0.0), min(high, 1.0)
        assert got["perturbations"][name]["intervals"]["flip_probability"] == pytest.approx(want)
    want = metrics.mean_interval(np.mean(list(flips.values()), axis=0))
    assert got["intervals"]["mean_flip_probability"] == pytest.approx(want)
    theirs = rates()["flip_probability"]
    ratios = [100 * row / theirs[name] for name, row in flips.items()]
    want = metrics.mean_interval(np.mean(ratios, axis=0))
    assert got["intervals"]["mean_flip_rate"] == pytest.approx(want)
    low, high = got["intervals"]["unnormalized_top5_distance"]
    assert low < got["unnormalized_top5_distance"] < high
    some = measure.metrics.PerturbationRates(
        {},
        {},
        {n: {"flip_probability": row[: 4 if n == "tilt" else 5]} for n, row in flips.items()},
    )
    assert some.interval("flip_probability") is None
    assert some.interval("flip_probability", ["snow", "shear"]) is None
    want = metrics.mean_interval((flips["snow"] + flips["scale"]) / 2)
    assert some.interval("flip_probability", ["snow", "scale"]) == pytest.approx(want)


def rates(**changes):
    flips = {name: 0.1 + 0.05 * i for i, name in enumerate(PERTURBATIONS)}
    distances = {name: 1.0 + i for i, name in enumerate(PERTURBATIONS)}
    return {"flip_probability": flips, "top5_distance": distances} | changes


def test_relative_means_are_percentages_of_the_baseline(tmp_path):
    (tmp_path / "alexnet.json").write_text(json.dumps(rates()))
    alexnet = sets.read_rates(tmp_path / "alexnet.json")
    assert alexnet == rates()
    tables = random_tables(PERTURBATIONS)
    got = evaluate(looked_up(*tables.values()), in_memory(tables), alexnet=alexnet)
    rows = got["perturbations"]
    means = {"mean_flip_rate": "flip_probability", "mean_top5_distance": "top5_distance"}
    for mean, key in means.items():
        ratios = [rows[name][key] / rates()[key][name] for name in rows]
        assert got[mean] == pytest.approx(100 * np.mean(ratios))


def test_networks_for_imagenet_are_compared_with_alexnet():
    tables = random_tables(PERTURBATIONS, classes=1000)
    for alexnet in (None, {"top5_distance": dict.fromkeys(PERTURBATIONS, 4.0)}):
        got = evaluate(looked_up(*tables.values()), in_memory(tables), alexnet=alexnet)
        values = {n: row["flip_probability"] for n, row in got["perturbations"].items()}
        flips = ALEXNET_RATES["flip_probability"]
        assert got["mean_flip_rate"] == metrics.mean_flip_rate(values, flips)
        values = {n: row["top5_distance"] for n, row in got["perturbations"].items()}
        theirs = (alexnet or ALEXNET_RATES)["top5_distance"]
        assert got["mean_top5_distance"] == metrics.mean_top5_distance(values, theirs)


def broken(key, name, value):
    return rates(**{key: rates()[key] | {name: value}})


BROKEN_RATES = {
    "{": "Cannot read the rates of a network in .*rates.json: JSONDecodeError",
    json.dumps({"flip_probabilty": {}}): "Expected rates above 0",
    json.dumps({"flip_probability": {"snow": 0.1}}): "KeyError: .*gaussian_noise",
    json.dumps(broken("flip_probability", "snow", 23.65)): "Expected rates above 0 and up to",
    json.dumps(broken("top5_distance", "tilt", float("nan"))): "Expected rates above 0 and up to",
}


@pytest.mark.parametrize("content", BROKEN_RATES)
def test_malformed_rates_are_refused(tmp_path, content):
    (tmp_path / "rates.json").write_text(content)
    with pytest.raises(ArgumentError, match=BROKEN_RATES[content]):
        sets.read_rates(tmp_path / "rates.json")
