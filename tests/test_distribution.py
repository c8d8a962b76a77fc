"""One device, two replicas in one process, two processes: the same views, weights and answers."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from augmix_tf.augment.augmix import AugMixMethod
from augmix_tf.augment.mixing import MixupMethod
from augmix_tf.data import pipeline
from augmix_tf.data.pipeline import Position
from augmix_tf.errors import ArgumentError, Interrupted, RunError
from augmix_tf.evaluation import predict
from augmix_tf.models import with_normalization
from augmix_tf.models.batch_norm import batch_normalization
from augmix_tf.training import distribution, loop
from augmix_tf.training.adversary import Adversary
from augmix_tf.training.checkpoints import Checkpoints
from augmix_tf.training.optimizer import CoupledSGD, cosine_schedule
from augmix_tf.training.step import METRICS, Trainer
from tests.image_stores import in_memory

ROOT = Path(__file__).parents[1]
# Batches of 4, 4 and 1: the last is completed with the first 3 examples of its epoch.
COUNT, BATCH, EPOCHS, STEPS, CLASSES = 9, 4, 3, 3, 6
CASES = [("mixup", "float32"), ("augmix", "float64")]
# float32 is what people train in, but a rounding error that turns a ReLU's sign is no longer small;
# in float64 none does, so that what is left is what the replicas do differently.
CLOSE = {"float32": 1e-5, "float64": 1e-11}


METHODS = {"mixup": MixupMethod(mixup_alpha=1.0), "augmix": AugMixMethod()}


def store():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (COUNT, 12, 16, 3), np.uint8)
    return in_memory(images, rng.integers(0, CLASSES, COUNT))


def batches_of(name, **options):
    options |= {"num_classes": CLASSES, "run_seed": 3, "batch_size": BATCH}
    return pipeline.training_batches(store(), METHODS[name], **options)


def network():
    """Convolutions, batch normalisation, ReLU: all of it in the precision that is set."""
    images = keras.Input((12, 16, 3))
    hidden = images
    for seed in (1, 2):
        start = keras.initializers.HeNormal(seed)
        options = {"use_bias": False, "kernel_initializer": start, "name": f"conv{seed}"}
        hidden = keras.layers.Conv2D(4, 3, 2, **options)(hidden)
        norm = batch_normalization(f"bn{seed}", momentum=0.9, epsilon=1e-5, synchronized=True)
        hidden = keras.layers.ReLU()(norm(hidden))
    hidden = keras.layers.GlobalAveragePooling2D()(hidden)
    start = keras.initializers.GlorotUniform(3)
    logits = keras.layers.Dense(CLASSES, kernel_initializer=start, name="logits")(hidden)
    return keras.Model(images, logits)


class AtEpoch(keras.callbacks.Callback):
    """Sends this process a signal when an epoch begins."""

    def __init__(self, epoch, number):
        super().__init__()
        self.at, self.number = epoch, number

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.at:
            os.kill(os.getpid(), self.number)


def train(devices, name, precision, folder=None, callbacks=()):
    """Returns weights, means and logits after all steps; goes on from a folder's checkpoint."""
    keras.mixed_precision.set_global_policy(precision)
    with devices.scope():
        classifier = with_normalization(network(), (0.5,) * 3, (0.25,) * 3)
        trainer = Trainer(classifier)
        rate = cosine_schedule(0.1, EPOCHS * STEPS)
        trainer.compile(optimizer=CoupledSGD(rate))
        trainer.optimizer.build(trainer.trainable_variables)

        start, save = Position(), lambda *_: None
        if folder is not None:
            checkpoints = Checkpoints(trainer, folder, distribution.is_chief(devices))
            start, save = checkpoints.restore() or start, checkpoints.save

        def batches(replicas):
            return batches_of(name, epochs=EPOCHS, start=start, replicas=replicas)

        distributed = distribution.distribute(devices, batches)
        options = {"start": start, "save": save, "callbacks": callbacks}
        loop.train(trainer, distributed, epochs=EPOCHS, steps_per_epoch=STEPS, **options)
        values = {f"weight {v.path}": v.numpy() for v in classifier.variables}
        values |= {f"mean {m.name}": np.asarray(m.result()) for m in trainer.metrics}
    program = predict.predictor(classifier)
    values["logits"] = predict.predict(program, store())
    values["one logit"] = predict.predict(program, store().slice(slice(1)))
    return values


def work(out):
    """One of two workers: they train until the second is asked to stop, and again until it dies."""
    devices = distribution.make_strategy("multiworker")
    assert devices.num_replicas_in_sync == 2
    worker = distribution.worker_index(devices)
    distribution.require_same(devices, "names", "equal")
    with pytest.raises(RunError, match=r"The workers have different numbers\. Run the"):
        distribution.require_same(devices, "numbers", str(worker))
    arguments = (devices, *CASES[0], Path(out) / "checkpoints")
    with pytest.raises(Interrupted):
        train(*arguments, [AtEpoch(1, signal.SIGTERM)] * worker)
    try:
        train(*arguments, [AtEpoch(2, signal.SIGKILL)] * worker)
    except RunError as error:
        (Path(out) / "said.txt").write_text(str(error))


def go_on(out):
    """Both workers again, from the checkpoint that is left."""
    devices = distribution.make_strategy("multiworker")
    values = train(devices, *CASES[0], Path(out) / "checkpoints")
    distribution.wait_for_all(devices)
    np.savez(Path(out) / f"worker{distribution.worker_index(devices)}.npz", **values)


def start(call, worker, ports):
    task = {"type": "worker", "index": worker}
    cluster = {"worker": [f"127.0.0.1:{port}" for port in ports]}
    configuration = json.dumps({"cluster": cluster, "task": task})
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "TF_CONFIG": configuration}
    code = f"from tests import test_distribution as t; t.{call}"
    options = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", code], env=environment, cwd=ROOT, **options)


def free_ports(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def wait(processes, codes):
    for process, code in zip(processes, codes, strict=True):
        _, said = process.communicate(timeout=400)
        assert process.returncode == code, said[-3000:]


@pytest.fixture(scope="module")
def workers(tmp_path_factory):
    """What `train` values on each of two workers, and what a lost worker leaves."""
    out, ports = tmp_path_factory.mktemp("trained"), free_ports(4)
    wait([start(f"work({str(out)!r})", n, ports[:2]) for n in (0, 1)], [0, -signal.SIGKILL])
    wait([start(f"go_on({str(out)!r})", n, ports[2:]) for n in (0, 1)], [0, 0])
    values = [dict(np.load(out / f"worker{number}.npz")) for number in (0, 1)]
    return values, (out / "said.txt").read_text()


def assert_as_one_device(got, case):
    """Nine steps, with a count of examples that the batch does not divide."""
    policy = keras.config.dtype_policy()
    want = train(distribution.make_strategy("none"), *case)
    keras.config.set_dtype_policy(policy)
    assert want.keys() == got.keys()
    weights = [key for key in want if key.startswith("weight ")]
    assert len(weights) == 12, weights
    for key in weights:
        apart = np.linalg.norm(got[key] - want[key])
        assert apart <= CLOSE[case[1]] * np.linalg.norm(want[key]), key
    for metric in METRICS:
        np.testing.assert_allclose(got[f"mean {metric}"], want[f"mean {metric}"], atol=2e-6)
    for key in ("logits", "one logit"):
        np.testing.assert_allclose(got[key], want[key], atol=1e-5)
    np.testing.assert_allclose(got["one logit"], got["logits"][:1], atol=1e-6)


def test_a_run_whose_worker_was_stopped_and_killed_ends_as_on_one_device(workers):
    """A signal to one worker stops both at one step: they could not go on from different ones."""
    (first, second), said = workers
    assert said.startswith("Another worker stopped, or the connection to it was lost (")
    assert "Start all workers again" in said
    assert_as_one_device(first, CASES[0])
    assert first.keys() == second.keys()
    for key in first:
        np.testing.assert_array_equal(first[key], second[key], err_msg=key)


def test_one_device_without_a_reason_for_more(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    for name in ("auto", "none"):
        devices = distribution.make_strategy(name)
        assert distribution.describe(devices) == {"strategy": "none", "replicas": 1}
        assert distribution.is_chief(devices)


@pytest.mark.parametrize(
    ("name", "config", "wanted"),
    [
        ("mirrored", {"cluster": {"worker": ["a:1", "b:1"]}}, "mirrored"),
        ("auto", {"cluster": {"worker": ["a:1", "b:1"]}}, "multiworker"),
        ("auto", {"cluster": {"chief": ["a:1"], "worker": ["b:1"]}}, "multiworker"),
        ("auto", {"cluster": {"worker": ["a:1"]}}, "none"),
    ],
)
def test_several_workers_are_values_in_the_environment(monkeypatch, name, config, wanted):
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    for kind in ("_mirrored", "_multiworker"):
        monkeypatch.setattr(distribution, kind, lambda *_, kind=kind: kind[1:])
    made = distribution.make_strategy(name)
    assert made == wanted or (wanted == "none" and made is tf.distribute.get_strategy())
    monkeypatch.delenv("TF_CONFIG")
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["one", "two"])
    assert distribution.make_strategy() == "mirrored"  # all GPUs are used


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Strategy 'multiworker' needs the environment variable TF_CONFIG"),
        ("{", "Cannot read TF_CONFIG: "),
        ("[]", "Strategy 'multiworker' needs"),
    ],
)
def test_a_worker_without_a_cluster_is_refused(monkeypatch, text, message):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(ArgumentError, match=message):
        distribution.make_strategy("multiworker")


@pytest.mark.parametrize(
    ("kind", "index", "number"), [("chief", 0, 0), ("worker", 0, 1), ("worker", 1, 2)]
)
def test_workers_behind_a_chief_are_numbered_after_it(monkeypatch, kind, index, number):
    cluster = {"chief": ["a:1"], "worker": ["b:1", "c:1"]}
    task = {"type": kind, "index": index}
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": task}))
    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    devices = SimpleNamespace(cluster_resolver=resolver)
    assert distribution.worker_index(devices) == number
    assert distribution.is_chief(devices) == (kind == "chief")


def test_no_tpu_is_said_in_one_line(monkeypatch):
    def resolver(tpu):
        raise ValueError("Please provide a TPU Name to connect to.\nMore")

    monkeypatch.setattr(tf.distribute.cluster_resolver, "TPUClusterResolver", resolver)
    wanted = "Cannot reach the TPU of this machine: Please provide a TPU Name to connect to. The "
    with pytest.raises(RunError, match=wanted) as error:
        distribution.make_strategy("tpu")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("views", [3, 1])
def test_the_step_compiles_as_a_tpu_wants_it(views):
    """Fixed shapes throughout, nothing from the host: neither strings nor Python."""
    adversary = Adversary(steps=2) if views == 1 else None
    trainer = Trainer(with_normalization(network(), (0.5,) * 3, (0.25,) * 3), adversary=adversary)
    trainer.compile(optimizer=CoupledSGD(cosine_schedule(0.1, 10)))
    trainer.optimizer.build(trainer.trainable_variables)
    batch = (tf.random.uniform([2, views, 12, 16, 3], 0, 255), tf.constant([1, 0], tf.int64))
    step = tf.function(trainer.train_step, jit_compile=True)
    hlo = step.experimental_get_compiler_ir(batch)(stage="hlo")
    opcodes = set(re.findall(r"[]})] ([a-z][a-z0-9-]*)\(", hlo))
    assert {"convolution", "dot", "while" if adversary else "exponential"} <= opcodes
    assert not opcodes & {"infeed", "outfeed", "send", "recv", "custom-call"}
    assert "<=" not in hlo  # how a dimension that is only bounded is written
