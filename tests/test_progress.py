"""The line that a person looks at while something takes long."""

from __future__ import annotations

import io

import pytest

from augmix_tf.training import progress
from augmix_tf.training.progress import Counter


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test sets."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])

    def set_to(seconds):
        now[0] = 100.0 + seconds

    return set_to


def counted(stream, clock, *calls):
    count = Counter("corrupted images", stream)
    for seconds, done, total in calls:
        clock(seconds)
        count(done, total)
    return stream.getvalue()


def test_a_file_gets_one_line_at_the_end(clock):
    said = counted(io.StringIO(), clock, (0, 0, 2000), (5, 500, 2000), (65, 2000, 2000))
    assert said == "corrupted images: 2,000 of 2,000, 1:05\n"


def test_a_terminal_sees_how_far_it_is_and_the_time_that_is_left(clock):
    said = counted(Terminal(), clock, (0, 0, 40), (60, 10, 40), (240, 40, 40))
    lines = [line.removesuffix("\033[K") for line in said.removesuffix("\n").split("\r")[1:]]
    assert lines == [
        "corrupted images: 0 of 40, 0:00",
        "corrupted images: 10 of 40, 1:00, 3:00 left",
        "corrupted images: 40 of 40, 4:00",
    ]
    assert said.endswith("\033[K\n")
    assert said.count("\n") == 1


def test_what_an_earlier_process_finished_does_not_count_as_speed(clock):
    said = counted(Terminal(), clock, (0, 90, 100), (10, 95, 100))
    assert said.rpartition("\r")[2].startswith("corrupted images: 95 of 100, 0:10, 0:10 left")


def test_nothing_left_to_do_is_one_line(clock):
    said = counted(io.StringIO(), clock, (0, 20, 20))
    assert said == "corrupted images: 20 of 20, 0:00\n"


def test_hours_are_shown_as_hours(clock):
    said = counted(Terminal(), clock, (0, 0, 3), (3661, 1, 3))
    assert "1:01:01, 2:02:02 left" in said


def test_it_writes_to_standard_error(clock, capsys):
    Counter("sequences")(3, 3)
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", "sequences: 3 of 3, 0:00\n")
