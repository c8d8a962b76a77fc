"""Training on several devices: `tf.distribute` strategies by name, replicas and workers.

The strategy is created first and entered where a model is built; from then on it is the model's
`distribute_strategy`. A worker is a process; each has one replica or more.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from augmix_tf import runtime
from augmix_tf.data.pipeline import ONE_REPLICA, ReplicaSlice
from augmix_tf.errors import ArgumentError, RunError, first_line, lookup

# What a collective operation raises when one of the workers is gone.
_GONE = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.InternalError,
    tf.errors.DeadlineExceededError,
    tf.errors.CancelledError,
)

# Of x86 processors, as Linux names them.
_BFLOAT16 = frozenset({"avx512_bf16", "amx_bf16"})


def make_strategy(
    name: str = "auto", tpu: str | None = None, cpu_replicas: int = 0
) -> tf.distribute.Strategy:
    """Returns the strategy of that name. Call it before anything else runs in TensorFlow.

    `none`: one device. `mirrored`: all GPUs of this machine, or `cpu_replicas` on its CPU.
    `multiworker`: all GPUs of the machines that TF_CONFIG names. `tpu`: all cores of a TPU. `auto`:
    multiworker or mirrored if there are several workers or GPUs, otherwise none.
    """
    if name == "auto":
        multiple_gpus = len(tf.config.list_physical_devices("GPU")) > 1
        name = "multiworker" if _worker_count() > 1 else "mirrored" if multiple_gpus else "none"
    if cpu_replicas:
        (cpu, *_) = tf.config.list_physical_devices("CPU")
        parts = [tf.config.LogicalDeviceConfiguration()] * cpu_replicas
        tf.config.set_logical_device_configuration(cpu, parts)
    makers = {
        "none": tf.distribute.get_strategy,
        "mirrored": lambda: _mirrored(cpu_replicas),
        "multiworker": _multiworker,
        "tpu": lambda: _tpu(tpu),
    }
    strategy = lookup("strategy", name, makers)()
    tf.config.list_logical_devices()  # TensorFlow logs the devices on the first call
    return strategy


def fastest_precision() -> str:
    """Returns "mixed_bfloat16" where the devices have instructions for it, otherwise "float32".

    That is a TPU, GPUs of compute capability 8.0 or more, or without a GPU a processor with AMX or
    AVX512-BF16. Others convert each value back and forth, which is slower than float32.
    """
    if tf.config.list_logical_devices("TPU"):
        return "mixed_bfloat16"
    if gpus := tf.config.list_physical_devices("GPU"):
        details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
        has_it = all(each.get("compute_capability", (0, 0)) >= (8, 0) for each in details)
    else:
        has_it = not _BFLOAT16.isdisjoint(runtime.processor_features())
    return "mixed_bfloat16" if has_it else "float32"


def describe(devices: tf.distribute.Strategy) -> dict[str, Any]:
    """Returns name and number of replicas, for `results.json`."""
    names = {
        tf.distribute.MirroredStrategy: "mirrored",
        tf.distribute.MultiWorkerMirroredStrategy: "multiworker",
        tf.distribute.TPUStrategy: "tpu",
    }
    name = next((names[kind] for kind in names if isinstance(devices, kind)), "none")
    return {"strategy": name, "replicas": int(devices.num_replicas_in_sync)}


def worker_index(devices: tf.distribute.Strategy) -> int:
    """Returns the index of this process among the workers, 0 for the chief."""
    resolver = devices.cluster_resolver
    if resolver is None:
        return 0
    cluster = resolver.cluster_spec()  # None of a TPU of this machine
    chiefs = cluster.as_dict().get("chief", ()) if cluster else ()
    return int(resolver.task_id or 0) + (len(chiefs) if resolver.task_type == "worker" else 0)


def is_chief(devices: tf.distribute.Strategy) -> bool:
    """Returns whether this process writes the run directory."""
    return worker_index(devices) == 0


def has_several_workers() -> bool:
    """Returns whether the current strategy spans several processes."""
    strategy = tf.distribute.get_strategy()
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return False
    return _workers(strategy.cluster_resolver) > 1


def distribute(
    devices: tf.distribute.Strategy, batches: Callable[[ReplicaSlice], tf.data.Dataset]
) -> tf.data.Dataset:
    """Returns what the training loop iterates over: batches, or each replica's part of them.

    `batches` returns `data.pipeline.training_batches` for some of the replicas.
    """
    if devices.num_replicas_in_sync == 1:
        return batches(ONE_REPLICA)

    def of_pipeline(context: tf.distribute.InputContext) -> tf.data.Dataset:
        total = context.num_replicas_in_sync
        count = total // context.num_input_pipelines
        return batches(ReplicaSlice(context.input_pipeline_id * count, count, total))

    return devices.distribute_datasets_from_function(of_pipeline)


def require_same(devices: tf.distribute.Strategy, what: str, value: str) -> None:
    """Raises `RunError` if a worker passes another value or has stopped; all have to call it."""
    if devices.num_replicas_in_sync == 1:
        return
    # Workers can only sum: equal checksums below 2^31 have a sum that is a multiple of this one.
    mine = zlib.crc32(value.encode()) >> 1

    @tf.function
    def total() -> tf.Tensor:
        values = devices.run(lambda: tf.constant(mine, tf.int64))
        return devices.reduce(tf.distribute.ReduceOp.SUM, values, axis=None)

    try:
        received = int(total())
    except tf.errors.OpError as error:
        raise RunError(f"Another worker stopped: {first_line(error)}.") from error
    if received != mine * devices.num_replicas_in_sync:
        raise RunError(f"The workers have different {what}. Run the same command on each of them.")


def wait_for_all(devices: tf.distribute.Strategy) -> None:
    """Returns when all workers have called it; the others take an early exit for a crash."""
    require_same(devices, "ends", "")


@contextlib.contextmanager
def reraise_as_run_error() -> Iterator[None]:
    """Within it, an error of TensorFlow about a lost worker becomes a `RunError`."""
    try:
        yield
    except _GONE as error:
        if not has_several_workers():
            raise
        raise RunError(
            f"Another worker stopped, or the connection to it was lost ({first_line(error)}). The "
            "last checkpoint is kept. Start all workers again with the same commands."
        ) from error


def _mirrored(cpu_replicas: int) -> tf.distribute.Strategy:
    devices = [f"CPU:{number}" for number in range(cpu_replicas)]
    return tf.distribute.MirroredStrategy(devices or None)


def _multiworker() -> tf.distribute.Strategy:
    if _worker_count() == 0:
        raise ArgumentError(
            "Strategy 'multiworker' needs the environment variable TF_CONFIG, such as "
            '{"cluster": {"worker": ["one:2222", "two:2222"]}, "task": {"type": "worker", '
            '"index": 0}}, with another index on each worker.'
        )
    print(f"Waiting for all {_worker_count()} workers of TF_CONFIG.", flush=True)
    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    except (tf.errors.OpError, RuntimeError, ValueError) as error:
        raise RunError(f"Cannot join the workers of TF_CONFIG: {first_line(error)}.") from error


def _tpu(name: str | None) -> tf.distribute.Strategy:
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=name)
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except (tf.errors.OpError, ValueError, RuntimeError) as error:
        raise RunError(
            f"Cannot reach the TPU {name or 'of this machine'}: {first_line(error)}. The last "
            "TensorFlow with a build for TPUs is 2.19 (package tensorflow-tpu)."
        ) from error
    return tf.distribute.TPUStrategy(resolver)


def _worker_count() -> int:
    """Number of workers in TF_CONFIG, including the chief; 0 without it."""
    if not os.environ.get("TF_CONFIG"):
        return 0
    try:
        return _workers(tf.distribute.cluster_resolver.TFConfigClusterResolver())
    except (ValueError, AttributeError, TypeError) as error:
        raise ArgumentError(f"Cannot read TF_CONFIG: {first_line(error)}.") from error


def _workers(resolver: tf.distribute.cluster_resolver.ClusterResolver) -> int:
    tasks = resolver.cluster_spec().as_dict()
    return sum(len(tasks.get(kind, ())) for kind in ("chief", "worker"))
