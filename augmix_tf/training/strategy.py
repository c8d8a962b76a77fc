"""Which devices train: `tf.distribute` strategies by name, and what every worker has to know.

The strategy is made first and entered where a model is built; from then on the model knows it
(`distribute_strategy`).
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from augmix_tf.checks import CommandError, RunError, lookup
from augmix_tf.data.pipeline import Share
from augmix_tf.training import workers


def make(
    name: str = "auto", tpu: str | None = None, cpu_replicas: int = 0
) -> tf.distribute.Strategy:
    """Returns the strategy of that name. To be called before anything else runs in TensorFlow.

    Args:
        name: `none`: one device. `mirrored`: all GPUs of this machine. `multiworker`: all GPUs of
            the machines that the environment variable TF_CONFIG names. `tpu`: all cores of a TPU.
            `auto`: multiworker where TF_CONFIG names several workers, mirrored where there are
            several GPUs, otherwise none.
        tpu: name or address of the TPU; None: the one that this machine belongs to.
        cpu_replicas: so many replicas of `mirrored` share this machine's processor; 0: GPUs, or one
            replica where there is none.

    Raises:
        CommandError: an unknown name, or TF_CONFIG is missing or damaged.
        RunError: the devices cannot be reached.
    """
    if name == "auto":
        several = len(tf.config.list_physical_devices("GPU")) > 1
        name = "multiworker" if _workers() > 1 else "mirrored" if several else "none"
    if cpu_replicas:
        _split_processor(cpu_replicas)
    makers = {
        "none": tf.distribute.get_strategy,
        "mirrored": lambda: _mirrored(cpu_replicas),
        "multiworker": _multiworker,
        "tpu": lambda: _tpu(tpu),
    }
    made = lookup("strategy", name, makers)()
    tf.config.list_logical_devices()  # prints, the first time
    return made


def describe(devices: tf.distribute.Strategy) -> dict[str, Any]:
    """What `results.json` says of them."""
    names = {
        tf.distribute.MirroredStrategy: "mirrored",
        tf.distribute.MultiWorkerMirroredStrategy: "multiworker",
        tf.distribute.TPUStrategy: "tpu",
    }
    name = next((names[kind] for kind in names if isinstance(devices, kind)), "none")
    return {"strategy": name, "replicas": int(devices.num_replicas_in_sync)}


def worker(devices: tf.distribute.Strategy) -> int:
    """Number of this process among those that train together."""
    resolver = devices.cluster_resolver
    if resolver is None:
        return 0
    cluster = resolver.cluster_spec()  # None of a TPU of this machine
    chiefs = cluster.as_dict().get("chief", ()) if cluster else ()
    return int(resolver.task_id or 0) + (len(chiefs) if resolver.task_type == "worker" else 0)


def is_chief(devices: tf.distribute.Strategy) -> bool:
    """Whether this process is the one that writes the run's folder."""
    return worker(devices) == 0


def is_one_device(devices: tf.distribute.Strategy) -> bool:
    """Whether batches stay whole: one replica, and not one that wants fixed shapes."""
    return devices.num_replicas_in_sync == 1 and not isinstance(devices, tf.distribute.TPUStrategy)


def distribute(
    devices: tf.distribute.Strategy, batches: Callable[[Share | None], tf.data.Dataset]
) -> tf.data.Dataset:
    """Returns what the training loop iterates over: batches, or each replica's part of them.

    Args:
        devices: the replicas.
        batches: makes them, of `data.pipeline.training_batches`.
    """
    if is_one_device(devices):
        return batches(None)

    def of_pipeline(context: tf.distribute.InputContext) -> tf.data.Dataset:
        total = context.num_replicas_in_sync
        own = total // context.num_input_pipelines
        return batches(Share(context.input_pipeline_id * own, own, total))

    return devices.distribute_datasets_from_function(of_pipeline)


def require_same(devices: tf.distribute.Strategy, what: str, value: str) -> None:
    """Makes sure that all workers have the same; all of them have to call it.

    Args:
        devices: the replicas.
        what: named in the message.
        value: is compared.

    Raises:
        RunError: a worker has another one, or has stopped.
    """
    if is_one_device(devices):
        return
    # Each adds a whole number below 2^31: all have the same if the sum is a multiple of this one.
    mine = zlib.crc32(value.encode()) >> 1

    @tf.function
    def total() -> tf.Tensor:
        own = devices.run(lambda: tf.constant(mine, tf.int64))
        return devices.reduce(tf.distribute.ReduceOp.SUM, own, axis=None)

    try:
        found = int(total())
    except tf.errors.OpError as error:
        raise RunError(f"another worker stopped: {workers.reason(error)}") from error
    if found != mine * devices.num_replicas_in_sync:
        raise RunError(f"the workers have different {what}; want the same command on each of them")


def wait_for_all(devices: tf.distribute.Strategy) -> None:
    """Returns when all workers have called it: one that leaves early is taken for a crash.

    Raises:
        RunError: a worker has stopped.
    """
    require_same(devices, "ends", "")


def _mirrored(cpu_replicas: int) -> tf.distribute.Strategy:
    if not cpu_replicas:
        return tf.distribute.MirroredStrategy()
    return tf.distribute.MirroredStrategy([f"CPU:{number}" for number in range(cpu_replicas)])


def _multiworker() -> tf.distribute.Strategy:
    if _workers() == 0:
        raise CommandError(
            "want TF_CONFIG in the environment for --strategy=multiworker, such as "
            '{"cluster": {"worker": ["one:2222", "two:2222"]}, "task": {"type": "worker", '
            '"index": 0}}, with another index on each worker'
        )
    print(f"waiting for all {_workers()} workers of TF_CONFIG", flush=True)
    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    except (tf.errors.OpError, RuntimeError, ValueError) as error:
        raise RunError(f"cannot join the workers of TF_CONFIG: {workers.reason(error)}") from error


def _tpu(name: str | None) -> tf.distribute.Strategy:
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=name)
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except (tf.errors.OpError, ValueError, RuntimeError) as error:
        raise RunError(
            f"cannot reach the TPU {name or 'of this machine'}: {workers.reason(error)}. The last "
            "TensorFlow with a build for TPUs is 2.19 (package tensorflow-tpu)"
        ) from error
    return tf.distribute.TPUStrategy(resolver)


def _split_processor(count: int) -> None:
    (processor, *_) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(
        processor, [tf.config.LogicalDeviceConfiguration()] * count
    )


def _workers() -> int:
    """Workers that TF_CONFIG names, the chief counted; 0 without it."""
    text = os.environ.get("TF_CONFIG", "")
    try:
        cluster = json.loads(text).get("cluster", {}) if text else {}
        return sum(len(cluster.get(kind, ())) for kind in ("chief", "worker"))
    except (ValueError, AttributeError, TypeError) as error:
        raise CommandError(f"want TF_CONFIG as JSON, got {text!r}: {error}") from error
