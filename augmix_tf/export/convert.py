"""Converts a classifier to the formats of other runtimes: ONNX and LiteRT (TensorFlow Lite).

Their packages are optional. The file has the outputs of `serving_default` except the class names,
which are in a file beside it:

    <folder>/model.onnx, <folder>/model.tflite
        images uint8 [N, H, W, 3]  ->  logits float32 [N, K]; probabilities float32 [N, K];
                                       classes int64 [N]
    <folder>/class_names.json       a list of K names
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from augmix_tf import files
from augmix_tf.errors import ArgumentError, RunError, first_line, lookup
from augmix_tf.export.verify import checked_images

TOLERANCE = 1e-4  # runtimes sum in another order and approximate exponentials
NAMES_FILE = "class_names.json"

Arrays = dict[str, npt.NDArray[Any]]


class Format(NamedTuple):
    """A format that Keras exports to.

    Attributes:
        file: name of the file.
        packages: module -> distribution that contains it; all are needed.
        options: of `keras.Model.export`.
        run: content of a file and uint8 images -> outputs by name.
    """

    file: str
    packages: Mapping[str, str]
    options: Mapping[str, Any]
    run: Callable[[bytes, npt.NDArray[np.uint8]], Arrays]


def convert(
    classifier: keras.Model,
    class_names: Sequence[str],
    folder: files.PathLike,
    export_format: str,
    images: npt.ArrayLike,
    temperature: float = 1.0,
) -> tuple[Path, float]:
    """Writes a classifier in another format, after its runtime gave the outputs of the model.

        difference = max |logits - logits of the model| / max(1, max |logits of the model|)

    and likewise for the probabilities; the larger one counts. The file computes in float32, and is
    compared with the model in float32, also if the model was trained in another precision. The
    runtime runs on all `images`, and on the first alone to check that the batch size is dynamic.

    Args:
        classifier: float32 [N, H, W, 3] in 0..255 to logits [N, K].
        class_names: K names, in the order of the logits.
        folder: the run directory.
        export_format: "onnx" or "litert".
        images: uint8 [N, H, W, 3] to compare on, N >= 1; a few are enough.
        temperature: divides the logits in `probabilities`.

    Returns:
        The file, and the difference, at most 1e-4.

    Raises:
        ArgumentError: the format is unknown, its packages are missing, or `images` have another
            type or shape.
        RunError: the classifier cannot be converted, or the file gives other outputs.
        FileError: the file cannot be written.
    """
    check(export_format)
    given = checked_images(images)
    model = _with_answers(_float32_copy(classifier), temperature)
    try:
        content = _converted(model, export_format)
        run = FORMATS[export_format].run
        found = [(batch, run(content, batch)) for batch in (given, given[:1])]
    except Exception as error:  # converters and runtimes raise errors of every kind
        reason = first_line(error)
        raise RunError(f"Cannot convert the model to {export_format}: {reason}") from error
    difference = max(_difference(model, batch, outputs) for batch, outputs in found)
    if not difference <= TOLERANCE:  # also refuses NaN
        raise RunError(
            f"The outputs of the {export_format} file differ from those of the model by "
            f"{difference:.3g}; at most {TOLERANCE} is expected."
        )
    path = Path(folder) / FORMATS[export_format].file
    names = json.dumps(list(class_names), ensure_ascii=False)
    files.write_text_atomically(path.with_name(NAMES_FILE), names + "\n")
    files.write_bytes_atomically(path, content)
    return path, difference


def check(export_format: str) -> None:
    """Raises `ArgumentError` if a format is unknown or its packages are not installed."""
    packages = lookup("export format", export_format, FORMATS).packages
    missing = [name for module, name in packages.items() if not importlib.util.find_spec(module)]
    if missing:
        raise ArgumentError(
            f"The export format {export_format!r} needs packages that are not installed. "
            f"Install them: pip install {' '.join(missing)}"
        )


def _float32_copy(classifier: keras.Model) -> keras.Model:
    """A copy in plain float32: other runtimes lack bfloat16."""

    def in_float32(layer: keras.layers.Layer) -> keras.layers.Layer:
        return type(layer).from_config(layer.get_config() | {"dtype": "float32"})

    copy = keras.models.clone_model(classifier, clone_function=in_float32, recursive=True)
    copy.set_weights(classifier.get_weights())
    return copy


class _Answers(keras.layers.Layer):
    """The outputs of the file, by name."""

    def __init__(self, classifier: keras.Model, temperature: float) -> None:
        super().__init__(dtype="float32")
        self.classifier, self.temperature = classifier, temperature

    def call(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        logits = self.classifier(tf.cast(images, tf.float32), training=False)
        return {
            "logits": logits,
            "probabilities": tf.nn.softmax(logits / self.temperature),
            # Not `keras.ops.argmax`, whose treatment of -0.0 ONNX has no operations for.
            "classes": tf.argmax(logits, axis=-1, output_type=tf.int64),
        }


def _with_answers(classifier: keras.Model, temperature: float) -> keras.Model:
    images = keras.Input(classifier.input_shape[1:], dtype="uint8", name="images")
    return keras.Model(images, _Answers(classifier, temperature)(images))


def _answers(model: keras.Model, images: npt.NDArray[np.uint8]) -> Arrays:
    with tf.device("CPU:0"):
        return {name: np.asarray(value) for name, value in model(images).items()}


def _converted(model: keras.Model, export_format: str) -> bytes:
    _answers(model, np.zeros((1, *model.input_shape[1:]), np.uint8))  # export wants a called model
    with tempfile.TemporaryDirectory(prefix="augmix_convert_") as folder, tf.device("CPU:0"):
        target = FORMATS[export_format]
        path = Path(folder, target.file)
        model.export(path, format=export_format, verbose=False, **target.options)
        return path.read_bytes()


def _difference(model: keras.Model, images: npt.NDArray[np.uint8], found: Arrays) -> float:
    expected = _answers(model, images)
    if {n: v.shape for n, v in expected.items()} != {n: v.shape for n, v in found.items()}:
        return float("inf")
    scale = max(1.0, float(np.abs(expected["logits"]).max()))
    logits = float(np.abs(found["logits"] - expected["logits"]).max()) / scale
    return max(logits, float(np.abs(found["probabilities"] - expected["probabilities"]).max()))


def _run_onnx(content: bytes, images: npt.NDArray[np.uint8]) -> Arrays:
    onnxruntime = importlib.import_module("onnxruntime")
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"images": images}), strict=True))


def _run_litert(content: bytes, images: npt.NDArray[np.uint8]) -> Arrays:
    interpreter = importlib.import_module("ai_edge_litert.interpreter").Interpreter
    runner = interpreter(model_content=content).get_signature_runner()
    return dict(runner(images=images))


FORMATS = {
    "onnx": Format(
        "model.onnx",
        {"tf2onnx": "tf2onnx", "onnxruntime": "onnxruntime"},
        {"opset_version": 17},  # ONNX Runtime reads it since 1.12
        _run_onnx,
    ),
    "litert": Format("model.tflite", {"ai_edge_litert": "ai-edge-litert"}, {}, _run_litert),
}
