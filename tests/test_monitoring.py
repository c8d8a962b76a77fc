import contextlib
import json
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request

import numpy as np
import pytest

from augmix_tf.errors import ArgumentError, RunError
from augmix_tf.training.callbacks import Monitor

LOSSES = [2.5, 1.75, 1.25, 0.5]
AFTER_RESTART = [1.0, 0.25]  # logged anew for steps 30 and 40


def log_interrupted_run(folder) -> None:
    """A run that is resumed from step 20 after it has logged step 40."""
    with Monitor(folder) as monitor:
        for step, loss in zip((10, 20, 30, 40), LOSSES, strict=True):
            monitor.scalars(step, {"train/loss": loss, "train/learning_rate": 0.1})
    with Monitor(folder, resumed_step=20) as monitor:
        for step, loss in zip((30, 40), AFTER_RESTART, strict=True):
            monitor.scalars(step, {"train/loss": loss, "test/error": np.float32(0.25)})


class Server:
    """A TensorBoard on loopback, asked over HTTP as its web page asks it."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/data"

    def get(self, path: str, **query: str) -> bytes:
        address = f"{self.url}/{path}?{urllib.parse.urlencode(query)}"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(address, timeout=30) as response:
            return response.read()

    def json(self, path: str, **query: str):
        return json.loads(self.get(path, **query))

    def wait_for(self, condition, seconds: float = 60.0) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with contextlib.suppress(OSError):
                if condition(self):
                    return
            time.sleep(0.3)
        pytest.fail(f"TensorBoard did not show the data within {seconds} s")


@contextlib.contextmanager
def serving(folder, *options: str):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    where = ["--logdir", str(folder), "--host", "127.0.0.1", "--port", str(port)]
    command = [sys.executable, "-m", "tensorboard.main", *where, "--reload_interval", "1"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([*command, *options], **quiet)
    try:
        yield Server(port)
    finally:
        process.terminate()
        process.wait(20)


# The Python reader; the dashboard's tests have the native one where it is installed.
@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("logs")
    log_interrupted_run(folder / "run")
    with serving(folder, "--load_fast", "false") as server:
        server.wait_for(lambda s: "test/error" in s.json("plugin/scalars/tags").get("run", {}))
        yield server


def points(server: Server, tag: str) -> list[tuple[int, float]]:
    found = server.json("plugin/scalars/scalars", run="run", tag=tag)
    return [(step, value) for _, step, value in found]


def test_tensorboard_serves_the_scalars_once(server):
    tags = server.json("plugin/scalars/tags")["run"]
    assert set(tags) == {"train/loss", "train/learning_rate", "test/error"}
    want = list(zip((10, 20, 30, 40), LOSSES[:2] + AFTER_RESTART, strict=True))
    assert points(server, "train/loss") == want
    assert points(server, "test/error") == [(30, 0.25), (40, 0.25)]


def recorded(folder) -> list[tuple[int, float]]:
    """The losses that TensorBoard's own Python reader finds in a folder."""
    from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    reader = EventAccumulator(str(folder)).Reload()
    events = reader.Tensors("train/loss")
    return [(event.step, float(make_ndarray(event.tensor_proto))) for event in events]


def test_a_second_restart_from_the_same_step_leaves_no_double(tmp_path):
    log_interrupted_run(tmp_path)
    with Monitor(tmp_path, resumed_step=20) as monitor:
        monitor.scalars(30, {"train/loss": 0.125})
    assert recorded(tmp_path) == [(10, 2.5), (20, 1.75), (30, 0.125)]


def test_a_fresh_start_in_an_old_folder_forgets_everything(tmp_path):
    with Monitor(tmp_path) as monitor:
        monitor.scalars(0, {"train/loss": 4.0})
        monitor.scalars(5, {"train/loss": 3.0})
    with Monitor(tmp_path) as monitor:
        monitor.scalars(0, {"train/loss": 2.0})
    assert recorded(tmp_path) == [(0, 2.0)]


@pytest.mark.parametrize("name", ["a[1]", "*?"])
def test_a_folder_may_have_any_name(tmp_path, name):
    """TensorFlow takes these characters for patterns."""
    log_interrupted_run(tmp_path / name)
    want = list(zip((10, 20, 30, 40), LOSSES[:2] + AFTER_RESTART, strict=True))
    assert recorded(tmp_path / name) == want


def test_missing_tensorboard_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ArgumentError, match="python -m pip install tensorboard"):
        Monitor(tmp_path)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"^cannot write TensorBoard logs to .*logs: .*file is"):
        Monitor(tmp_path / "file" / "logs")
