"""What the program sets for XLA and Keras, whatever the user has set."""

import json
import os

import keras
import pytest

from augmix_tf import runtime
from tests.processes import python

WHOLE = "--xla_disable_hlo_passes=cpu-parallel-task-assigner"
WIDE = "--xla_cpu_prefer_vector_width=512"
NEWER, OLDER = "flags : fpu avx2 avx512f avx512dq\n", "flags : fpu avx2\n"


@pytest.mark.parametrize(
    ("chosen", "processor", "want"),
    [
        ("", NEWER, f"{WHOLE} {WIDE}"),
        ("", OLDER, WHOLE),
        ("", None, WHOLE),
        ("--xla_dump_to=there", NEWER, f"--xla_dump_to=there {WHOLE} {WIDE}"),
        ("--xla_cpu_prefer_vector_width=256", NEWER, f"--xla_cpu_prefer_vector_width=256 {WHOLE}"),
        ("--xla_disable_hlo_passes=fusion", NEWER, f"--xla_disable_hlo_passes=fusion {WIDE}"),
    ],
)
def test_options_are_added_to_those_that_the_user_chose(
    monkeypatch, tmp_path, chosen, processor, want
):
    path = tmp_path / "cpuinfo"
    if processor:
        path.write_text(processor)
    monkeypatch.setenv("XLA_FLAGS", chosen)
    for _ in range(2):
        runtime.tune_xla(path)
        assert os.environ["XLA_FLAGS"] == want


def test_the_program_sets_up_keras_whatever_the_user_has_configured(tmp_path):
    """In a process of its own: Keras reads its configuration when it is imported."""
    layers = [keras.layers.Conv2D(4, 3), keras.layers.AveragePooling2D(8), keras.layers.Flatten()]
    network = keras.Sequential([keras.Input((32, 32, 3)), *layers, keras.layers.Dense(10)])
    network.save(tmp_path / "model.keras")
    settings = {"backend": "jax", "image_data_format": "channels_first", "floatx": "float16"}
    (tmp_path / "keras.json").write_text(json.dumps(settings | {"epsilon": 0.1}))
    code = """
import sys
import main
path, out = sys.argv[1:]
data = ["--mode=evaluate", f"--model_path={path}", f"--workdir={out}"]
assert main.main([*data, "--nocorrupted", "--eval_limit=8"]) == 0
import keras
from augmix_tf import models
model = models.build("wrn", 10, (8, 12, 3), depth=10, widen_factor=1)
config = keras.config
print(keras.backend.backend(), config.image_data_format(), config.floatx(), config.epsilon())
print(config.dtype_policy().name, model.dtype, model.output_shape, model.layers[1].output.shape)
"""
    environment = {"KERAS_HOME": str(tmp_path), "KERAS_BACKEND": "jax"}
    printed = python(code, tmp_path / "model.keras", tmp_path / "out", **environment)
    first, second = printed.splitlines()[-2:]
    assert first == "tensorflow channels_last float32 1e-07"
    assert second.startswith("float32 float32 (None, 10) (None, 8, 12, ")
