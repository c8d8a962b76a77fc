"""Holds an exported SavedModel against the model in memory, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from augmix_tf import files
from augmix_tf.checks import RunError, require

TOLERANCE = 1e-5  # about what another order of float32 sums can change
TIMEOUT_SECONDS = 600
SIGNATURES = ("serving_default", "serve_bytes")

# Runs without this package, as a user's program or server would.
_RELOAD = """
import sys
from pathlib import Path
import numpy as np
import tensorflow as tf

version, exchange = sys.argv[1], Path(sys.argv[2])
signatures = tf.saved_model.load(version).signatures
images = np.load(exchange / "images.npy", allow_pickle=False)
encoded = [(exchange / f"{i}.png").read_bytes() for i in range(len(images))]
broken = [encoded[0][:-20], b""]
results = {
    "serving_default": signatures["serving_default"](images=tf.constant(images)),
    "serve_bytes": signatures["serve_bytes"](image_bytes=tf.constant(encoded + broken, tf.string)),
}
assert "augmix_tf" not in sys.modules
errors = results["serve_bytes"].pop("errors").numpy()
if any(errors[:-2]) or not all(errors[-2:]):
    sys.exit(f"two broken images behind sound ones give the errors {errors.tolist()}")
empty = signatures["serve_bytes"](image_bytes=tf.constant([], tf.string))["logits"]
if empty.shape[0] != 0:
    sys.exit(f"no images give logits of {empty.shape}")
for name, outputs in results.items():
    np.save(exchange / f"{name}.npy", outputs["logits"][: len(images)].numpy())
"""


def reference_logits(classifier: keras.Model, images: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Returns the logits that `verify` expects, computed on the CPU as its process computes them.

    An accelerator's own logits may differ by far more than the tolerance (it may round products).

    Args:
        classifier: float32 [N, H, W, 3] in 0..255 to logits [N, K].
        images: uint8 [N, H, W, 3], N >= 1.

    Returns:
        float32 [N, K].
    """
    with tf.device("CPU:0"):
        logits = classifier(tf.cast(images, tf.float32), training=False)
    return np.asarray(logits, np.float32)


def verify(
    folder_version: files.PathLike, images: npt.ArrayLike, expected_logits: npt.ArrayLike
) -> float:
    """Reloads a SavedModel in a fresh process and compares both its signatures with the model.

    The process has plain TensorFlow on the CPU and does not import this package. It gets `images`
    as they are through `serving_default`, and as PNG files through `serve_bytes`, there with two
    broken files behind them, of which each must have its error and no more.

        difference = max |logits - expected_logits| / max(1, max |expected_logits|)

    Args:
        folder_version: `<folder>/export/<version>`, as `export` returns it.
        images: uint8 [N, H, W, 3] of the model's size, N >= 1; a few are enough.
        expected_logits: float [N, K] from the model in memory, see `reference_logits`.

    Returns:
        The largest difference of the two signatures, at most 1e-5.

    Raises:
        CommandError: no images, of another type or rank, or not one row of logits for each.
        RunError: it cannot be loaded or run, differs, or takes broken files for images.
    """
    images, expected = np.asarray(images), np.asarray(expected_logits, np.float64)
    sound = images.dtype == np.uint8 and images.ndim == 4 and images.size > 0
    require(sound, "uint8 images [N, H, W, 3], N >= 1", f"{images.dtype} {images.shape}")
    rows = len(images)
    require(expected.shape[:1] == (rows,), f"{rows} rows of expected logits", expected.shape)
    logits = _reload(Path(folder_version), images)
    differences = {name: _difference(logits[name], expected) for name in SIGNATURES}
    for name, difference in differences.items():
        if not difference <= TOLERANCE:  # NaN differs
            raise RunError(
                f"{folder_version} gives other logits than the model through {name}: "
                f"want a difference of at most {TOLERANCE}, got {difference:.3g}"
            )
    return max(differences.values())


def _difference(logits: npt.NDArray[np.float32], expected: npt.NDArray[np.float64]) -> float:
    if logits.shape != expected.shape:
        return float("inf")
    scale = max(1.0, np.abs(expected).max())
    return float(np.abs(logits - expected).max() / scale)


def _reload(version: Path, images: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[np.float32]]:
    with tempfile.TemporaryDirectory(prefix="augmix_verify_") as name:
        exchange = Path(name)
        np.save(exchange / "images.npy", images)
        for i, image in enumerate(images):
            (exchange / f"{i}.png").write_bytes(tf.io.encode_png(image).numpy())
        _run_reload(version, exchange)
        return {name: np.load(exchange / f"{name}.npy", allow_pickle=False) for name in SIGNATURES}


def _run_reload(version: Path, exchange: Path) -> None:
    # A GPU's memory is likely taken by this process, and its results would not be the CPU's.
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    # -P: the current folder, perhaps a checkout of this package, is no place to import from.
    command = [sys.executable, "-P", "-c", _RELOAD, str(version.absolute()), str(exchange)]
    try:
        result = subprocess.run(
            command,
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise RunError(f"{version} did not answer in {TIMEOUT_SECONDS} s") from error
    if result.returncode != 0:
        last = (result.stderr.strip().splitlines() or [f"exit code {result.returncode}"])[-1]
        raise RunError(f"{version} cannot be loaded and run by itself: {last}")
