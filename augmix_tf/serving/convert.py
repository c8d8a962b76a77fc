"""A classifier in the file formats of other runtimes: ONNX, and LiteRT (once TensorFlow Lite).

Their packages are no part of what this program needs; each is asked for when it is wanted. The file
has what `serving_default` has but for the names, which stand beside it:

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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from augmix_tf import files
from augmix_tf.checks import CommandError, RunError, lookup, require

TOLERANCE = 1e-4  # other programs take other sums, and other fast forms of exponentials
OPSET = 17  # of ONNX; read by ONNX Runtime since 1.12
NAMES_FILE = "class_names.json"
# Format -> module that is imported -> distribution that brings it.
PACKAGES = {
    "onnx": {"tf2onnx": "tf2onnx", "onnxruntime": "onnxruntime"},
    "litert": {"ai_edge_litert": "ai-edge-litert"},
}
FILES = {"onnx": "model.onnx", "litert": "model.tflite"}

Arrays = dict[str, npt.NDArray[Any]]


def convert(
    classifier: keras.Model,
    class_names: Sequence[str],
    folder: files.PathLike,
    export_format: str,
    images: npt.ArrayLike,
    temperature: float = 1.0,
) -> tuple[Path, float]:
    """Writes a classifier for another runtime, after that runtime has answered as the model does.

        difference = max |logits - logits of the model| / max(1, max |logits of the model|)

    and the same of the probabilities; the larger one counts. The file computes in float32, and is
    compared with the model in float32, also where that was trained in another precision. The
    runtime gets all `images`, and the first one alone, so that the file is known to take batches of
    any size.

    Args:
        classifier: float32 [N, H, W, 3] in 0..255 to logits [N, K].
        class_names: K names, in the order of the logits.
        folder: the run folder.
        export_format: "onnx" or "litert".
        images: uint8 [N, H, W, 3] to compare on, N >= 1; a few are enough.
        temperature: divides the logits in `probabilities`.

    Returns:
        The file, and the difference, at most 1e-4.

    Raises:
        CommandError: an unknown format, one whose package is missing, or no such images.
        RunError: the classifier cannot be converted, differs, or the file cannot be written.
    """
    check(export_format)
    given = np.asarray(images)
    sound = given.dtype == np.uint8 and given.ndim == 4 and given.size > 0
    require(sound, "uint8 images [N, H, W, 3], N >= 1", f"{given.dtype} {given.shape}")
    copy = _float32_copy(classifier)
    function = _function(copy, temperature)
    write, ask = _FORMATS[export_format]
    try:
        with tf.device("CPU:0"):
            content = write(copy, function)
        found = [(batch, ask(content, batch)) for batch in (given, given[:1])]
    except Exception as error:  # converters raise whatever their parts do
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise RunError(f"cannot convert the model to {export_format}: {reason}") from error
    difference = max(_difference(function, batch, got) for batch, got in found)
    if not difference <= TOLERANCE:  # NaN differs
        raise RunError(
            f"the {export_format} file gives other answers than the model: want a difference of at "
            f"most {TOLERANCE}, got {difference:.3g}"
        )
    path = Path(folder) / FILES[export_format]
    names = json.dumps(list(class_names), ensure_ascii=False)
    files.write_text_atomically(path.with_name(NAMES_FILE), names + "\n")
    files.write_bytes_atomically(path, content)
    return path, difference


def check(export_format: str) -> None:
    """Refuses a format that is unknown or whose packages are not installed.

    Raises:
        CommandError: it names the packages.
    """
    packages = lookup("export format", export_format, PACKAGES)
    missing = [name for module, name in packages.items() if not importlib.util.find_spec(module)]
    if missing:
        raise CommandError(
            f"want {' and '.join(packages.values())} for --export_format={export_format}, got none "
            f"of {', '.join(missing)}; pip install {' '.join(missing)}"
        )


def _float32_copy(classifier: keras.Model) -> keras.Model:
    """A copy with plain float32 variables and float32 arithmetic: other runtimes lack bfloat16."""

    def in_float32(layer: keras.layers.Layer) -> keras.layers.Layer:
        return type(layer).from_config(layer.get_config() | {"dtype": "float32"})

    copy = keras.models.clone_model(classifier, clone_function=in_float32, recursive=True)
    copy.set_weights(classifier.get_weights())
    return copy


def _function(classifier: keras.Model, temperature: float) -> tf.types.experimental.GenericFunction:
    spec = tf.TensorSpec([None, *classifier.input_shape[1:]], tf.uint8, name="images")

    @tf.function(input_signature=[spec])
    def answer(images: tf.Tensor) -> dict[str, tf.Tensor]:
        logits = tf.cast(classifier(tf.cast(images, tf.float32), training=False), tf.float32)
        return {
            "logits": logits,
            "probabilities": tf.nn.softmax(logits / temperature),
            "classes": tf.argmax(logits, axis=-1, output_type=tf.int64),
        }

    return answer


def _difference(function: Callable[..., Any], images: npt.NDArray[Any], got: Arrays) -> float:
    with tf.device("CPU:0"):
        want = {name: value.numpy() for name, value in function(tf.constant(images)).items()}
    if {n: v.shape for n, v in want.items()} != {n: v.shape for n, v in got.items()}:
        return float("inf")
    scale = max(1.0, float(np.abs(want["logits"]).max()))
    logits = float(np.abs(got["logits"] - want["logits"]).max()) / scale
    return max(logits, float(np.abs(got["probabilities"] - want["probabilities"]).max()))


def _write_onnx(_: keras.Model, function: Any) -> bytes:
    tf2onnx = importlib.import_module("tf2onnx")
    (spec,) = function.input_signature
    model, _ = tf2onnx.convert.from_function(function, input_signature=[spec], opset=OPSET)
    # It names the outputs as TensorFlow numbers them.
    names = function.get_concrete_function().structured_outputs
    return _with_output_names(model, sorted(names)).SerializeToString()


def _with_output_names(model: Any, names: Sequence[str]) -> Any:
    old = [output.name for output in model.graph.output]
    for before, name in zip(old, names, strict=True):
        for node in model.graph.node:
            node.output[:] = [name if x == before else x for x in node.output]
            node.input[:] = [name if x == before else x for x in node.input]
    for output, name in zip(model.graph.output, names, strict=True):
        output.name = name
    return model


def _ask_onnx(content: bytes, images: npt.NDArray[np.uint8]) -> Arrays:
    onnxruntime = importlib.import_module("onnxruntime")
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"images": images}), strict=True))


def _write_litert(classifier: keras.Model, function: Any) -> bytes:
    # Only a SavedModel has the signature by which inputs and outputs have names.
    with tempfile.TemporaryDirectory(prefix="augmix_convert_") as folder:
        archive = keras.export.ExportArchive()
        archive.track(classifier)
        archive.add_endpoint("serving_default", function)
        archive.write_out(folder, verbose=False)
        return tf.lite.TFLiteConverter.from_saved_model(folder).convert()


def _ask_litert(content: bytes, images: npt.NDArray[np.uint8]) -> Arrays:
    interpreter = importlib.import_module("ai_edge_litert.interpreter").Interpreter
    runner = interpreter(model_content=content).get_signature_runner()
    return dict(runner(images=images))


_FORMATS = {"onnx": (_write_onnx, _ask_onnx), "litert": (_write_litert, _ask_litert)}
