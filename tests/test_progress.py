"""What a person sees while something takes long: a bar on a terminal, lines elsewhere."""

import contextlib
import io
import re
import time

import pytest

from augmix_tf.data.pipeline import Position
from augmix_tf.training.callbacks import Counter, Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture(params=[io.StringIO, Terminal], ids=["file", "terminal"])
def stream(request):
    return request.param()


def lines(stream):
    """What a terminal shows at the end: of each line what stands behind the last return."""
    shown = [line.rpartition("\r")[2] for line in stream.getvalue().split("\n")]
    return [line for line in shown if line.strip()]


def train(progress, start=Position()):
    for epoch in range(start.epoch, 2):
        progress.on_epoch_begin(epoch)
        for batch in (7, 9):
            progress.on_train_batch_end(batch, {"loss": 2.5, "error": 0.5})
        progress.on_epoch_end(epoch, {"loss": 2.5, "error": 0.5, "test_error": 0.25 * epoch})
    progress.close()


def test_each_epoch_is_one_line(stream):
    with contextlib.redirect_stderr(stream):
        train(Progress(2, 10, 4))
    numbers = r"[0-9]+ images/s  loss 2\.5000  train error 50\.0 %"
    first, second = lines(stream)
    assert re.fullmatch(rf"epoch 1/2  {numbers}  test error 0\.0 %", first)
    assert re.fullmatch(rf"epoch 2/2  {numbers}  test error 25\.0 %", second)


def test_a_run_of_one_call_has_no_speed_to_show(stream):
    with contextlib.redirect_stderr(stream):
        progress = Progress(1, 10, 4)
        progress.on_train_batch_end(9, {"loss": 2.5})
        progress.on_epoch_end(0, {"loss": 2.5})
        progress.close()
    assert lines(stream) == ["epoch 1/1  loss 2.5000"]


def test_a_terminal_sees_a_bar_of_the_whole_run_and_a_file_does_not(stream):
    with contextlib.redirect_stderr(stream):
        progress = Progress(2, 10, 4, Position(1, 0))
        progress.on_epoch_begin(1)
        progress.on_train_batch_end(7, {"loss": 2.5})
        progress._bar.refresh()
    text = stream.getvalue()
    assert ("| 72.0/80.0 [" in text) == stream.isatty()
    assert ("epoch 2/2:  90%" in text) == stream.isatty()
    assert ("images/s, loss 2.5000]" in text) == stream.isatty()
    assert bool(text) == stream.isatty()
    progress.close()


def test_the_speed_leaves_out_the_first_call_which_compiles(monkeypatch):
    progress, seconds = Progress(2, 10, 4, Position(1, 0)), iter([50.0, 52.0])
    progress.on_epoch_begin(1)
    monkeypatch.setattr(time, "perf_counter", lambda: next(seconds))
    progress.on_train_batch_end(7)
    assert progress.images_per_second == 0
    progress.on_train_batch_end(9)
    assert progress.images_per_second == 2 * 4 / 2  # two steps of four images in two seconds


def test_a_counter_leaves_one_line(stream):
    with contextlib.redirect_stderr(stream):
        count = Counter("corrupted images")
        for done in (0, 500, 2000):
            count(done, 2000)
    [line] = lines(stream)
    assert re.fullmatch(r"corrupted images: 2,000 in 00:0\d", line)
    assert ("\r" in stream.getvalue()) == stream.isatty()
