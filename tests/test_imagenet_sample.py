"""A short run on real ImageNet images, if there are any: training, evaluation, export, serving."""

import dataclasses
import json
import os
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import main
from augmix_tf import models
from augmix_tf.ops import decoding
from tests.program import leave_out

REPOSITORY = Path(__file__).resolve().parents[1]
SAMPLE = REPOSITORY.parent / "shared" / "data" / "imagenet_sample" / "val"
SAMPLE = Path(os.environ.get("AUGMIX_IMAGENET", SAMPLE))
SIDE = 64


@dataclasses.dataclass(frozen=True)
class ShallowResNet(models.ResNet50):
    """One block in each stage: tracing all 16 takes most of the time and shows no more."""

    blocks: tuple[int, ...] = (1, 1, 1, 1)


def test_a_thin_resnet_trains_on_the_sample_and_its_export_answers(tmp_path, monkeypatch):
    if not SAMPLE.is_dir():
        pytest.skip(f"no {SAMPLE}: set AUGMIX_IMAGENET to a folder of images by class")
    for split in ("train", "val"):
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data" / split).symlink_to(SAMPLE)
    leave_out(monkeypatch, kept="export")
    monkeypatch.setitem(models.MODELS, "resnet50", ShallowResNet)
    run = tmp_path / "run"
    data = ["--dataset=folder", f"--data_dir={tmp_path / 'data'}", f"--image_size={SIDE}"]
    data += ["--method=standard", "--width_multiplier=0.0625", "--nocorrupted"]
    assert main.main([*data, "--epochs=1", "--batch_size=24", f"--workdir={run}"]) == 0

    paths = sorted(SAMPLE.glob("*/*.JPEG"))
    measured = json.loads((run / "results.json").read_text())
    assert measured["clean"]["images"] == len(paths)

    served = tf.saved_model.load(str(run / "export" / "1")).signatures["serve_bytes"]
    files = [path.read_bytes() for path in paths[:5]]
    answers = served(image_bytes=tf.constant(files))
    assert answers["errors"].numpy().tolist() == [b""] * 5
    model = keras.saving.load_model(run / "model.keras")
    # As evaluation sees them, but for its rounding to whole levels.
    centres = [decoding.decode_centre(file, (SIDE, SIDE), 73) for file in files]
    expected = model.predict(tf.cast(tf.stack(centres), tf.float32), verbose=0)
    np.testing.assert_allclose(answers["probabilities"], expected, atol=1e-3)
    names = sorted(path.parent.name for path in paths)
    answered = [name.decode() for name in answers["class_names"].numpy()]
    assert answered == [names[label] for label in answers["classes"].numpy()]
