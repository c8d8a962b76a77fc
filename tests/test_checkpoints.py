"""Checkpoints: damage, full disks, weights that went wrong, what they carry, other replicas."""

import contextlib
import math
import re
import resource

import keras
import numpy as np
import pytest
import tensorflow as tf

from augmix_tf.data.pipeline import Position
from augmix_tf.errors import FileError, RunError
from augmix_tf.training.checkpoints import Best, Checkpoints
from tests.arrays import assert_same
from tests.test_training import CLASSES, trainer_of


def variables_of(trainer):
    means = [v for metric in trainer.metrics for v in metric.variables]
    return [*trainer.classifier.variables, *trainer.optimizer.variables, *means]


def fill(trainer, seed):
    """Gives every variable other values, and returns all of them."""
    rng = np.random.default_rng(seed)
    for variable in variables_of(trainer):
        values = rng.integers(0, 9, variable.shape)
        variable.assign(values.astype(variable.dtype) / (4 if "float" in variable.dtype else 1))
    return values_of(trainer)


def values_of(trainer):
    return [np.asarray(variable) for variable in variables_of(trainer)]


@pytest.fixture(scope="module")
def trainer():
    """One for all tests here: each gives it values of its own."""
    return trainer_of(dropout=0.5)


@pytest.fixture
def saved(trainer, tmp_path):
    """Folder, trainer and the values in its checkpoints 1 and 2; the trainer has others."""
    checkpoints, values = Checkpoints(trainer, tmp_path), {}
    for number in (1, 2):
        values[number] = fill(trainer, number)
        checkpoints.save(Position(0, number))
    fill(trainer, 9)
    return tmp_path, trainer, values


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def numbers(folder):
    """Of the checkpoints that have all their files."""
    found = [re.fullmatch(r"ckpt-(\d+)\.index", name) for name in names(folder)]
    whole = sorted(int(match[1]) for match in found if match)
    wanted = {f"ckpt-{n}.{part}" for n in whole for part in (INDEX, DATA)}
    assert set(names(folder)) == {"checkpoint", *wanted}
    return whole


def cut(share):
    return lambda data: data[: int(share * len(data))]


def flipped(place):
    def change(data):
        at = int(place * (len(data) - 1))
        return data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]

    return change


DATA, INDEX = "data-00000-of-00001", "index"
DAMAGE = {
    "data cut": (DATA, cut(0.7)),
    "first byte of the data": (DATA, flipped(0)),
    "last byte of the data": (DATA, flipped(1)),
    "data missing": (DATA, None),
    "index empty": (INDEX, cut(0)),
    "byte of the index": (INDEX, flipped(0.37)),
    "index missing": (INDEX, None),
}


def harm(path, change):
    if change is None:
        path.unlink()
    else:
        path.write_bytes(change(path.read_bytes()))


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_checkpoint_gives_way_to_the_one_before(saved, capfd, kind):
    folder, trainer, values = saved
    part, change = DAMAGE[kind]
    harm(folder / f"ckpt-2.{part}", change)
    checkpoints = Checkpoints(trainer, folder)
    assert checkpoints.restore() == Position(0, 1)
    assert_same(values_of(trainer), values[1])
    said = [line for line in capfd.readouterr().err.splitlines() if line.startswith("damaged in")]
    assert len(said) == 1
    assert re.fullmatch(
        rf"damaged in {re.escape(str(folder))}: ckpt-2 \(.{{5,}}\); ckpt-1 is used", said[0]
    )

    later = fill(trainer, 3)
    checkpoints.save(Position(1, 0))  # replaces it
    assert numbers(folder) == [1, 2]
    fill(trainer, 9)
    assert Checkpoints(trainer, folder).restore() == Position(1, 0)
    assert_same(values_of(trainer), later)
    assert "damaged" not in capfd.readouterr().err


def test_several_damaged_checkpoints_are_all_named(saved):
    folder, trainer, _ = saved
    harm(folder / f"ckpt-1.{DATA}", cut(0.5))
    harm(folder / "ckpt-2.index", cut(0.5))
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(FileError, match=r"Cannot read .*: ckpt-2 \(.+\), ckpt-1 \(.+\)\.$"):
        Checkpoints(trainer, folder).restore()
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize(
    "state",
    [None, b"", b"\xff\x00garbage", b'model_checkpoint_path: "ckpt-1"\n', b'"ckpt-'],
)
def test_the_file_that_names_the_newest_may_be_missing_or_wrong(saved, state):
    """And what a killed process left is removed."""
    folder, trainer, values = saved
    (folder / "ckpt-3_temp").mkdir()
    (folder / "ckpt-3_temp" / "part-00000-of-00001.index").write_bytes(b"half")
    (folder / f"ckpt-3.{DATA}").write_bytes(b"an index was to follow")
    harm(folder / "checkpoint", None if state is None else lambda _: state)
    checkpoints = Checkpoints(trainer, folder)
    assert checkpoints.restore() == Position(0, 2)
    assert_same(values_of(trainer), values[2])
    checkpoints.save(Position(0, 3))
    assert numbers(folder) == [2, 3]
    assert tf.train.latest_checkpoint(str(folder)) == str(folder / "ckpt-3")


def test_a_folder_may_have_any_name(trainer, tmp_path):
    """TensorFlow takes these characters for patterns."""
    folder = tmp_path / "a[1]*?[!a]{b}\\c"
    checkpoints = Checkpoints(trainer, folder)
    for step in (1, 2, 3):
        values = fill(trainer, step)
        checkpoints.save(Position(0, step))
    assert numbers(folder) == [2, 3]
    fill(trainer, 9)
    assert Checkpoints(trainer, folder).restore() == Position(0, 3)
    assert_same(values_of(trainer), values)


def test_where_nothing_was_saved_nothing_is_restored(trainer, tmp_path):
    assert Checkpoints(trainer, tmp_path / "none").restore() is None
    assert Checkpoints(trainer, tmp_path).restore() is None
    assert names(tmp_path) == []


def test_the_checkpoint_of_another_network_is_refused(saved):
    folder, _, _ = saved
    other = keras.Sequential([keras.layers.Input((6, 7, 3)), keras.layers.Flatten()])
    other.add(keras.layers.Dense(CLASSES))
    trainer = trainer_of()
    trainer.classifier = other
    with pytest.raises(FileError, match=r"ckpt-2 \(.+\), ckpt-1 \(.+\)"):
        Checkpoints(trainer, folder).restore()


def test_a_checkpoint_of_other_training_data_is_refused(trainer, tmp_path):
    Checkpoints(trainer, tmp_path, data=7).save(Position(1, 0))
    assert Checkpoints(trainer, tmp_path, data=7).restore() == Position(1, 0)
    with pytest.raises(RunError, match=r"The training data are not those that .* began with"):
        Checkpoints(trainer, tmp_path, data=8).restore()
    assert numbers(tmp_path) == [1]


@contextlib.contextmanager
def files_up_to(size):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("part", ["data-00000-of-00001", "index"])
def test_a_full_disk_leaves_what_was_there(saved, part):
    folder, trainer, values = saved
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    checkpoints = Checkpoints(trainer, folder)
    assert checkpoints.restore() == Position(0, 2)
    size = (folder / f"ckpt-2.{part}").stat().st_size
    with (
        files_up_to(size - 100),
        pytest.raises(FileError, match=rf"Cannot write a checkpoint to {re.escape(str(folder))}: "),
    ):
        checkpoints.save(Position(0, 3))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert checkpoints.restore() == Position(0, 2)
    assert_same(values_of(trainer), values[2])
    checkpoints.save(Position(0, 3))
    assert numbers(folder) == [2, 3]


def test_other_workers_leave_no_files(saved):
    folder, trainer, _ = saved
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    other = Checkpoints(trainer, folder, chief=False)
    assert other.restore() == Position(0, 2)
    other.save(Position(0, 3), 0.5)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("name", ["kernel", "moving_variance", "momentum"])
def test_weights_that_are_not_finite_are_never_saved(saved, name, value):
    folder, trainer, values = saved
    broken = next(v for v in variables_of(trainer) if name in v.path)
    spoilt = np.asarray(broken).copy()
    spoilt.flat[-1] = value
    broken.assign(spoilt)
    checkpoints = Checkpoints(trainer, folder)
    where = rf"{re.escape(broken.path)} is not finite after step 3 of epoch 2, .*learning rate"
    with pytest.raises(RunError, match=where):
        checkpoints.save(Position(1, 3))
    with pytest.raises(RunError, match="is not finite after epoch 2, "):
        checkpoints.save(Position(2, 0))
    assert numbers(folder) == [1, 2]
    assert checkpoints.restore() == Position(0, 2)
    assert_same(values_of(trainer), values[2])


def test_the_best_epoch_is_kept(trainer, tmp_path):
    checkpoints = Checkpoints(trainer, tmp_path)
    assert checkpoints.best is None
    seen = [(1, None, None), (2, 0.5, Best(0.5, 2)), (3, math.nan, Best(0.5, 2))]
    seen += [(4, 0.25, Best(0.25, 4)), (5, 0.25, Best(0.25, 4)), (6, 0.3, Best(0.25, 4))]
    for epoch, error, best in seen:
        checkpoints.save(Position(epoch), error)
        assert checkpoints.best == best
        again = Checkpoints(trainer, tmp_path)
        again.restore()
        assert again.best == best


def test_a_temperature_belongs_to_its_weights(saved):
    folder, trainer, values = saved
    checkpoints = Checkpoints(trainer, folder)
    assert checkpoints.restore() == checkpoints.position == Position(0, 2)
    assert checkpoints.temperature is None
    checkpoints.calibrated(1.37)
    assert checkpoints.temperature == 1.37
    assert numbers(folder) == [2, 3]

    fill(trainer, 9)
    again = Checkpoints(trainer, folder)
    assert again.restore() == Position(0, 2)
    assert again.temperature == 1.37
    assert_same(values_of(trainer), values[2])
    again.save(Position(0, 4))
    assert again.position == Position(0, 4)
    assert again.temperature is None
