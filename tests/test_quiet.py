"""The options that the program sets for XLA, without TensorFlow."""

import os

import pytest

from augmix_tf import quiet

WHOLE = "--xla_disable_hlo_passes=cpu-parallel-task-assigner"
WIDE = "--xla_cpu_prefer_vector_width=512"


@pytest.fixture
def processor(tmp_path):
    path = tmp_path / "cpuinfo"
    path.write_text("flags : fpu avx2 avx512f avx512dq\n")
    return path


@pytest.mark.parametrize(
    ("chosen", "want"),
    [
        ("", f"{WHOLE} {WIDE}"),
        ("--xla_dump_to=there", f"--xla_dump_to=there {WHOLE} {WIDE}"),
        ("--xla_cpu_prefer_vector_width=256", f"--xla_cpu_prefer_vector_width=256 {WHOLE}"),
        ("--xla_disable_hlo_passes=fusion", f"--xla_disable_hlo_passes=fusion {WIDE}"),
    ],
)
def test_options_are_added_to_those_that_the_user_chose(monkeypatch, processor, chosen, want):
    monkeypatch.setenv("XLA_FLAGS", chosen)
    for _ in range(2):
        quiet.tune_xla(processor)
        assert os.environ["XLA_FLAGS"] == want


def test_a_narrow_or_unknown_processor_keeps_its_width(monkeypatch, tmp_path):
    narrow = tmp_path / "narrow"
    narrow.write_text("flags : fpu avx2\n")
    for processor in (narrow, tmp_path / "missing"):
        monkeypatch.delenv("XLA_FLAGS", raising=False)
        quiet.tune_xla(processor)
        assert os.environ["XLA_FLAGS"] == WHOLE
