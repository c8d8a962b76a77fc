"""Holds exported files against the model in memory, in a process of their own."""

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
_KERAS = "model.keras"

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
if sys.argv[3]:
    import keras
    try:
        model = keras.saving.load_model(sys.argv[3], safe_mode=True)
        probabilities = model(images.astype("float32"), training=False)
    except Exception as error:
        sys.exit(f"model.keras: {str(error).strip().splitlines()[:1]}")
    assert "augmix_tf" not in sys.modules
    np.save(exchange / "model.keras.npy", np.asarray(probabilities, "float32"))
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
    folder_version: files.PathLike,
    images: npt.ArrayLike,
    expected_logits: npt.ArrayLike,
    keras_file: files.PathLike | None = None,
    temperature: float = 1.0,
) -> float:
    """Reloads exported files in a fresh process and compares their answers with the model's.

    The process has plain TensorFlow and Keras on the CPU and does not import this package. It gets
    `images` as they are through `serving_default`, and as PNG files through `serve_bytes`, there
    with two broken files behind them, of which each must have its error and no more.

        difference = max |logits - expected_logits| / max(1, max |expected_logits|)

    and of the `.keras` file

        difference = max |probabilities - softmax(expected_logits / temperature)|

    Args:
        folder_version: a SavedModel that `export` wrote, published or under its hidden name.
        images: uint8 [N, H, W, 3] of the model's size, N >= 1; a few are enough.
        expected_logits: float [N, K] from the model in memory, see `reference_logits`.
        keras_file: a `.keras` file that gives probabilities; None compares none.
        temperature: of the `.keras` file.

    Returns:
        The largest difference, at most 1e-5.

    Raises:
        CommandError: no images, of another type or rank, or not one row of logits for each.
        RunError: a file cannot be loaded or run, differs, or takes broken files for images.
    """
    images, expected = np.asarray(images), np.asarray(expected_logits, np.float64)
    sound = images.dtype == np.uint8 and images.ndim == 4 and images.size > 0
    require(sound, "uint8 images [N, H, W, 3], N >= 1", f"{images.dtype} {images.shape}")
    rows = len(images)
    require(expected.shape[:1] == (rows,), f"{rows} rows of expected logits", expected.shape)
    want = dict.fromkeys(SIGNATURES, expected)
    if keras_file is not None:
        want[_KERAS] = _softmax(expected / temperature)
    got = _reload(Path(folder_version), images, keras_file)
    differences = {name: _difference(got[name], want[name]) for name in want}
    for name, difference in differences.items():
        if not difference <= TOLERANCE:  # NaN differs
            what = "probabilities" if name == _KERAS else "logits"
            raise RunError(
                f"{folder_version} gives other {what} than the model through {name}: "
                f"want a difference of at most {TOLERANCE}, got {difference:.3g}"
            )
    return max(differences.values())


def _softmax(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def _difference(got: npt.NDArray[np.float32], expected: npt.NDArray[np.float64]) -> float:
    if got.shape != expected.shape:
        return float("inf")
    scale = max(1.0, np.abs(expected).max())  # of probabilities 1
    return float(np.abs(got - expected).max() / scale)


def _reload(
    version: Path, images: npt.NDArray[np.uint8], keras_file: files.PathLike | None
) -> dict[str, npt.NDArray[np.float32]]:
    names = [*SIGNATURES, *([] if keras_file is None else [_KERAS])]
    with tempfile.TemporaryDirectory(prefix="augmix_verify_") as name:
        exchange = Path(name)
        np.save(exchange / "images.npy", images)
        for i, image in enumerate(images):
            (exchange / f"{i}.png").write_bytes(tf.io.encode_png(image).numpy())
        keras_path = "" if keras_file is None else str(Path(keras_file).absolute())
        _run_reload(version, exchange, keras_path)
        return {name: np.load(exchange / f"{name}.npy", allow_pickle=False) for name in names}


def _run_reload(version: Path, exchange: Path, keras_path: str) -> None:
    # A GPU's memory is likely taken by this process, and its results would not be the CPU's.
    environment = os.environ | {
        "CUDA_VISIBLE_DEVICES": "-1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "KERAS_BACKEND": "tensorflow",
    }
    # -P: the current folder, perhaps a checkout of this package, is no place to import from.
    arguments = [str(version.absolute()), str(exchange), keras_path]
    command = [sys.executable, "-P", "-c", _RELOAD, *arguments]
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
