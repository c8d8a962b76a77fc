"""Exports a classifier: a SavedModel for servers and a `.keras` file for Keras users.

    <folder>/export/<version>/   SavedModel in the layout of TensorFlow Serving; `assets.extra/`
                                 holds warm-up requests, the model card and `export.json`
    <folder>/model.keras         the newest version, for `keras.saving.load_model`
    <folder>/model_card.json     the card of the newest version; `model_card.md` for readers

Both models consist of operations and layers of TensorFlow and Keras and load where this package is
not installed. Serving WebP images needs TensorFlow 2.20 or later.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import keras.layers as L
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from augmix_tf import files
from augmix_tf.errors import FileError, RunError, first_line, require
from augmix_tf.export.decoding import decode

Outputs = dict[str, tf.Tensor]
NO_CLASS = -1  # of an image that could not be decoded
GRAPH_VERSION = 2  # increase it when the signatures or their decoding change
RECORD = Path("assets.extra") / "export.json"
WARMUP = Path("assets.extra") / "tf_serving_warmup_requests"
TOLERANCE = 1e-5  # about what another order of float32 sums can change


class Exported(NamedTuple):
    """The newest version, and whether this export wrote it."""

    version: Path
    is_new: bool


def export(
    classifier: keras.Model,
    class_names: Sequence[str],
    folder: files.PathLike,
    temperature: float = 1.0,
    card: Mapping[str, str] | None = None,
    images: npt.NDArray[np.uint8] | None = None,
    short_side: int | None = None,
) -> Exported:
    """Writes the next version of a SavedModel, `model.keras` and the model card.

    The SavedModel has two signatures:

        serving_default   images       uint8 [N, H, W, 3]
        serve_bytes       image_bytes  string [N], each a JPEG, PNG or still WebP of any size,
                                       prepared by `decoding.decode`
        ->  logits float32 [N, K];  probabilities float32 [N, K] = softmax(logits / temperature);
            classes int64 [N];  class_names string [N], the names of `classes`
            serve_bytes also:  errors string [N], empty where the image was decoded

    An image with an error has logits and probabilities 0, class -1 and an empty name. An empty
    batch gives empty outputs; pixels of another shape or type are refused. `model.keras` takes
    float32 or uint8 [N, H, W, 3] in 0..255 and returns the same probabilities.

    If the newest version has the same layers, weights, class names, temperature and short side, no
    version is written; only the card is replaced. A version is written and verified under a hidden
    name and appears in one rename. An export that fails changes nothing in the folder; one that is
    killed leaves at most a hidden `.unfinished` folder, which servers do not read.

    `classifier` is a functional model of Keras's own layers, float32 [N, H, W, 3] in 0..255 to
    logits [N, K] in the order of `class_names`. The files are verified on `images`, uint8
    [M, H, W, 3], if there are any. `card` has the files of the model card, name ->
    content; `short_side` is that of `decoding.decode`.
    """
    folder = Path(folder)
    _check(classifier, class_names, temperature)
    texts = card or {}
    contents = _contents(classifier, class_names, temperature, short_side)
    current = _current(folder, contents)
    if current is not None:
        _write_texts(texts, folder, current)
        return Exported(current, is_new=False)
    # A copy has plain variables also where the original was built under a distribution strategy.
    copy = keras.models.clone_model(classifier)
    copy.set_weights(classifier.get_weights())
    with _unfinished_folder(folder / "export") as unfinished:
        version, keras_file = unfinished / "version", unfinished / "model.keras"
        _write_saved_model(copy, class_names, temperature, short_side, version)
        (version / RECORD).parent.mkdir()
        _write_warmup(version, *copy.input_shape[1:3])
        _with_probabilities(copy, temperature).save(keras_file)
        _write_texts(texts, unfinished, version)
        record = {"contents": contents, "model.keras": _digest(keras_file.read_bytes())}
        (version / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        if images is not None:
            verify(version, keras_file, classifier, images, temperature)
        for path in unfinished.rglob("*"):  # no rename becomes durable before the contents
            files.sync(path)
        target = folder / "export" / str(max([0, *versions(folder)]) + 1)
        os.rename(version, target)  # fails where another process wrote this version meanwhile
        for name in ("model.keras", *texts):
            os.replace(unfinished / name, folder / name)
        for parent in (folder / "export", folder):
            files.sync(parent)
    return Exported(target, is_new=True)


def versions(folder: files.PathLike) -> list[int]:
    """Returns the numbers of the finished versions under `<folder>/export`, in order."""
    return sorted(int(p.name) for p in Path(folder, "export").glob("*") if p.name.isdecimal())


def _check(classifier: keras.Model, class_names: Sequence[str], temperature: float) -> None:
    shape, classes = classifier.input_shape, classifier.output_shape[-1]
    known = len(shape) == 4 and None not in shape[1:]
    require(known and shape[3] == 3, "a classifier of [N, H, W, 3], H and W known", shape)
    require(len(class_names) == classes, f"{classes} class names", len(class_names))
    require(0 < temperature < float("inf"), "a temperature above 0", temperature)
    layers = [classifier, *_layers_within(classifier)]
    foreign = [layer.name for layer in layers if not type(layer).__module__.startswith("keras.")]
    require(not foreign, "layers of Keras alone, so that the file loads anywhere", foreign)


def _layers_within(model: keras.Model) -> Iterator[L.Layer]:
    for layer in model.layers:
        yield layer
        if isinstance(layer, keras.Model):
            yield from _layers_within(layer)


def _contents(
    classifier: keras.Model, class_names: Sequence[str], temperature: float, short_side: int | None
) -> str:
    """A checksum of everything that an export depends on."""
    # Without names: Keras numbers the layers of a process.
    layers = [
        (type(layer).__name__, layer.get_config() | {"name": None})
        for layer in _layers_within(classifier)
        if not isinstance(layer, keras.Model)
    ]
    weights = [(w.dtype.name, w.shape, _digest(w.tobytes())) for w in classifier.get_weights()]
    settings = GRAPH_VERSION, list(class_names), temperature, short_side
    return _digest(repr((layers, weights, settings)).encode())


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _current(folder: Path, contents: str) -> Path | None:
    """The newest version, if it and `model.keras` have these contents."""
    numbers = versions(folder)
    if not numbers:
        return None
    version = folder / "export" / str(numbers[-1])
    try:
        record = json.loads((version / RECORD).read_bytes())
        digest = _digest((folder / "model.keras").read_bytes())
    except (OSError, ValueError):  # no record, or no `.keras` file
        return None
    return version if record == {"contents": contents, "model.keras": digest} else None


def _write_saved_model(
    classifier: keras.Model,
    class_names: Sequence[str],
    temperature: float,
    short_side: int | None,
    path: Path,
) -> None:
    height, width = classifier.input_shape[1:3]
    names = tf.constant(list(class_names))

    def outputs(images: tf.Tensor) -> Outputs:
        # TensorFlow's convolution on the CPU (2.21, oneDNN) gives an empty batch a wrong shape.
        # Append a blank image to it and drop the result.
        rows = tf.shape(images)[0]
        images = tf.pad(images, [[0, tf.cast(rows == 0, tf.int32)], [0, 0], [0, 0], [0, 0]])
        logits = tf.cast(classifier(images, training=False), tf.float32)[:rows]
        classes = tf.argmax(logits, axis=-1, output_type=tf.int64)
        return {
            "logits": logits,
            "probabilities": tf.nn.softmax(logits / temperature),
            "classes": classes,
            "class_names": tf.gather(names, classes),
        }

    def serve_images(images: tf.Tensor) -> Outputs:
        # TensorFlow does not enforce the shape of a signature.
        images = tf.ensure_shape(images, [None, height, width, 3])
        return outputs(tf.cast(images, tf.float32))

    def serve_bytes(image_bytes: tf.Tensor) -> Outputs:
        images, errors = decode(image_bytes, height, width, short_side)
        answers, decoded = outputs(images), errors == ""
        return {
            "logits": tf.where(decoded[:, None], answers["logits"], 0.0),
            "probabilities": tf.where(decoded[:, None], answers["probabilities"], 0.0),
            "classes": tf.where(decoded, answers["classes"], NO_CLASS),
            "class_names": tf.where(decoded, answers["class_names"], ""),
            "errors": errors,
        }

    archive = keras.export.ExportArchive()
    archive.track(classifier)
    images = tf.TensorSpec([None, height, width, 3], tf.uint8, name="images")
    archive.add_endpoint("serving_default", serve_images, input_signature=[images])
    image_bytes = tf.TensorSpec([None], tf.string, name="image_bytes")
    archive.add_endpoint("serve_bytes", serve_bytes, input_signature=[image_bytes])
    archive.write_out(path, verbose=False)


def _write_warmup(version: Path, height: int, width: int) -> None:
    """Writes what TensorFlow Serving sends to a version as it loads it, one image a signature.

    The messages are those of `tensorflow-serving-api`; without that package nothing is written.
    """
    if importlib.util.find_spec("tensorflow_serving") is None:
        return
    messages = importlib.import_module("tensorflow_serving.apis.prediction_log_pb2")
    image = np.linspace(0, 255, height * width * 3).astype(np.uint8).reshape(height, width, 3)
    inputs: dict[str, tuple[str, Any]] = {
        "serving_default": ("images", image[None]),
        "serve_bytes": ("image_bytes", [tf.io.encode_png(image).numpy()]),
    }
    with tf.io.TFRecordWriter(str(version / WARMUP)) as writer:
        for signature, (name, value) in inputs.items():
            log = messages.PredictionLog()
            request = log.predict_log.request
            # A name is required, but the server uses the model that it loads.
            request.model_spec.name = "classifier"
            request.model_spec.signature_name = signature
            request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
            writer.write(log.SerializeToString())


def _write_texts(texts: Mapping[str, str], folder: Path, version: Path) -> None:
    """Writes the files of the card beside the version and into it."""
    for name, text in texts.items():
        for path in (folder / name, version / "assets.extra" / name):
            files.write_text_atomically(path, text)


def _with_probabilities(classifier: keras.Model, temperature: float) -> keras.Model:
    # The input stays float32: Keras truncates fractions that are fed to a uint8 input.
    logits = classifier.outputs[0]
    scaled = L.Rescaling(1.0 / temperature, dtype="float32", name="temperature")(logits)
    probabilities = L.Softmax(dtype="float32", name="probabilities")(scaled)
    return keras.Model(classifier.inputs, probabilities, name=classifier.name)


@contextlib.contextmanager
def _unfinished_folder(parent: Path) -> Iterator[Path]:
    """A new hidden folder in `parent`, which is removed at the end."""
    folder = files.unfinished_name(parent / "version")
    try:
        with files.explained(parent):
            folder.mkdir(parents=True)
            yield folder
    except tf.errors.OpError as error:  # how TensorFlow reports a full disk
        raise FileError(f"cannot write {parent}: {first_line(error)}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def verify(
    version: files.PathLike,
    keras_file: files.PathLike,
    classifier: keras.Model,
    images: npt.NDArray[np.uint8],
    temperature: float = 1.0,
) -> None:
    """Reloads exported files and compares their outputs with those of the model, on the CPU.

    The SavedModel gets the images as pixels and as PNG files, with an unreadable file at the end.
    """
    logits = reference_logits(classifier, images)
    encoded = [*(tf.io.encode_png(image).numpy() for image in images), b""]
    try:
        with tf.device("CPU:0"), files.without_patterns(version) as path:
            signatures = tf.saved_model.load(str(path)).signatures
            of_images = signatures["serving_default"](images=tf.constant(images))
            of_files = signatures["serve_bytes"](image_bytes=tf.constant(encoded))
            model = keras.saving.load_model(keras_file, safe_mode=True)
            of_keras = model(tf.cast(images, tf.float32), training=False)
    except Exception as error:  # loading raises errors of every kind
        raise RunError(f"Cannot load and run the export: {first_line(error)}") from error
    of_readable = np.pad(logits, [[0, 1], [0, 0]])
    require_equal(f"{version} (serving_default)", of_images["logits"], logits, TOLERANCE)
    require_equal(f"{version} (serve_bytes)", of_files["logits"], of_readable, TOLERANCE)
    require_equal(str(keras_file), of_keras, tf.nn.softmax(logits / temperature), TOLERANCE)


def reference_logits(classifier: keras.Model, images: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Returns the logits float32 [N, K] of uint8 images [N, H, W, 3], computed on the CPU."""
    # Those of an accelerator may differ by far more than the tolerance, as it may round products.
    with tf.device("CPU:0"):
        logits = classifier(tf.cast(images, tf.float32), training=False)
    return np.asarray(logits, np.float32)


def require_equal(
    name: str, outputs: npt.ArrayLike, expected: npt.ArrayLike, tolerance: float
) -> None:
    """Raises `RunError` unless max |outputs - expected| / max(1, max |expected|) <= tolerance."""
    a, b, difference = np.asarray(outputs), np.asarray(expected), np.inf
    if a.shape == b.shape:
        difference = np.abs(a - b).max(initial=0.0) / np.abs(b).max(initial=1.0)
    if not difference <= tolerance:  # also refuses NaN
        raise RunError(
            f"The outputs of {name} differ from those of the model by {difference:.3g}; at most "
            f"{tolerance} is expected."
        )
