"""CONTRIBUTING's way to add a method, followed with a toy: one class, one recipe, one command."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import tensorflow as tf

import flags
import main
from augmix_tf import recipes, seeds
from augmix_tf.augment.method import BatchShape, Method, Views
from augmix_tf.errors import CommandError
from augmix_tf.methods import MethodRecipe
from augmix_tf.seeds import BatchSeeds
from augmix_tf.settings import setting
from tests.program import leave_out

SMALL = ("--train_limit=32", "--eval_limit=10", "--epochs=1", "--batch_size=16", "--nocorrupted")
SMALL += ("--calibration_images=0", "--model=wrn", "--depth=10", "--widen_factor=1")
SMALL += ("--precision=float32",)


@dataclasses.dataclass(frozen=True)
class DimMethod(Method):
    """Multiplies each image by a random factor."""

    name = "dim"

    darkest: float = setting(0.5, "Smallest factor of the brightness", low=0, high=1)

    def draw(self, streams: BatchSeeds, batch: BatchShape) -> tf.Tensor:
        """A factor for each image, float64 [N]."""
        drawn = seeds.uniform(streams.stream(seeds.METHOD), [batch.size])
        return self.darkest + drawn * (1 - self.darkest)

    def apply(self, images: tf.Tensor, labels: tf.Tensor, plan: tf.Tensor) -> Views:
        """One darker view."""
        factor = tf.cast(plan, tf.float32)[:, None, None, None]
        return Views((factor * tf.cast(images, tf.float32))[:, None], labels)


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setitem(recipes.METHODS, "dim", MethodRecipe(DimMethod, {"weight_decay": 1e-3}))
    leave_out(monkeypatch, kept="report")


def test_its_views_follow_its_plan():
    images = tf.constant(np.full((2, 4, 5, 3), 200, np.uint8))
    views, labels = DimMethod().apply(images, tf.constant([1, 0]), tf.constant([0.5, 1.0]))
    assert views[:, 0, 0, 0, 0].numpy().tolist() == [100.0, 200.0]
    assert labels.numpy().tolist() == [1, 0]


def test_its_setting_is_a_flag_with_help_checks_and_refusals():
    assert "--darkest Smallest factor of the brightness (default: 0.5) [dim]." in " ".join(
        flags.help_text().split()
    )
    config = flags.parse(["--method=dim", "--darkest=0.25"]).config
    assert (config.method, config.weight_decay) == (DimMethod(0.25), 1e-3)
    assert recipes.from_json(config.to_json()) == config
    for arguments, expected in (
        (["--method=dim", "--darkest=2"], "--darkest must be 0 to 1; received 2.0."),
        (["--darkest=0.25"], "--darkest applies to --method=dim only (got --method=augmix)."),
        (
            ["--method=dim", "--alpha=2"],
            "--alpha applies to --method=augmix only (got --method=dim).",
        ),
    ):
        with pytest.raises(CommandError) as error:
            flags.parse(arguments)
        assert str(error.value) == expected


def test_it_trains_and_is_compared(tmp_path, capsys):
    run, other = tmp_path / "run", tmp_path / "other"
    assert main.main([*SMALL, "--method=dim", "--darkest=0.25", f"--workdir={run}"]) == 0
    settings = json.loads((run / "config.json").read_text())
    assert settings["darkest"] == 0.25
    assert "darkest" in (run / "report.md").read_text()
    shutil.copytree(run, other)
    (other / "config.json").write_text(json.dumps(settings | {"darkest": 0.75}))
    out = tmp_path / "comparison"
    compared = ["--mode=report", f"--workdirs={run},{other}", f"--workdir={out}"]
    assert main.main(compared) == 0
    # Runs that differ in a setting of the method are not averaged.
    assert "dim, darkest 0.25" in (out / "comparison.md").read_text()
    assert "dim, darkest 0.75" in capsys.readouterr().out
