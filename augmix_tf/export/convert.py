"""Converts a classifier to the formats of other runtimes, ONNX and LiteRT (TensorFlow Lite).

Keras converts; its packages are optional. The outputs are those of `serving_default` except the
class names, which are in a file beside it:

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
from augmix_tf.export.saved_model import require_equal

TOLERANCE = 1e-4  # runtimes sum in another order and approximate exponentials

Arrays = dict[str, npt.NDArray[Any]]


class Format(NamedTuple):
    """A format that Keras exports to."""

    file: str  # its name
    packages: Mapping[str, str]  # module -> distribution that contains it; all are needed
    options: Mapping[str, Any]  # of `keras.Model.export`
    run: Callable[[bytes, npt.NDArray[np.uint8]], Arrays]  # file and images -> outputs by name


def convert(
    classifier: keras.Model,
    class_names: Sequence[str],
    folder: files.PathLike,
    export_format: str,
    images: npt.NDArray[np.uint8],
    temperature: float = 1.0,
) -> Path:
    """Writes a classifier as "onnx" or "litert", after its runtime gave the outputs of the model.

    The file computes in float32, and is compared with the model in float32, also if the model was
    trained in another precision. Other arguments are as for `saved_model.export`.
    """
    check(export_format)
    target = FORMATS[export_format]
    inputs = keras.Input(classifier.input_shape[1:], dtype="uint8", name="images")
    model = keras.Model(inputs, _Answers(_float32_copy(classifier), temperature)(inputs))
    with tf.device("CPU:0"):
        expected = model(images)
    try:
        with tempfile.TemporaryDirectory(prefix="augmix_convert_") as scratch, tf.device("CPU:0"):
            model.export(Path(scratch, target.file), verbose=False, **target.options)
            content = Path(scratch, target.file).read_bytes()
        received = target.run(content, images)
    except Exception as error:  # converters and runtimes raise errors of every kind
        reason = first_line(error)
        raise RunError(f"Cannot convert the model to {export_format}: {reason}") from error
    for name in ("logits", "probabilities"):
        outputs = received.get(name, np.zeros(0))
        require_equal(f"the {export_format} file", outputs, expected[name], TOLERANCE)
    path = Path(folder) / target.file
    names = json.dumps(list(class_names), ensure_ascii=False)
    files.write_text_atomically(path.with_name("class_names.json"), names + "\n")
    files.write_bytes_atomically(path, content)
    return path


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


def _run_onnx(content: bytes, images: npt.NDArray[np.uint8]) -> Arrays:
    onnxruntime = importlib.import_module("onnxruntime")
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"images": images}), strict=True))


def _run_litert(content: bytes, images: npt.NDArray[np.uint8]) -> Arrays:
    interpreter = importlib.import_module("ai_edge_litert.interpreter").Interpreter
    return dict(interpreter(model_content=content).get_signature_runner()(images=images))


FORMATS = {
    "onnx": Format(
        "model.onnx",
        {"tf2onnx": "tf2onnx", "onnxruntime": "onnxruntime"},
        {"format": "onnx", "opset_version": 17},  # ONNX Runtime reads it since 1.12
        _run_onnx,
    ),
    "litert": Format(
        "model.tflite", {"ai_edge_litert": "ai-edge-litert"}, {"format": "litert"}, _run_litert
    ),
}
