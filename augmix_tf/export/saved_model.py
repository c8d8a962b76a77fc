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
import itertools
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import keras.layers as L
import numpy.typing as npt
import tensorflow as tf

from augmix_tf import files
from augmix_tf.errors import FileError, require
from augmix_tf.export import model_card, warmup
from augmix_tf.export.decoding import decode
from augmix_tf.export.verify import verify

Outputs = dict[str, tf.Tensor]
NO_CLASS = -1  # of an image that could not be decoded
GRAPH_VERSION = 2  # increase it when the signatures or their decoding change
RECORD = Path("assets.extra") / "export.json"


class Exported(NamedTuple):
    """What an export wrote.

    Attributes:
        version: `<folder>/export/<version>`, the newest version.
        is_new: False if that version existed and has the same contents.
    """

    version: Path
    is_new: bool


def export(
    classifier: keras.Model,
    class_names: Sequence[str],
    folder: files.PathLike,
    temperature: float = 1.0,
    card: Mapping[str, Any] | None = None,
    images: npt.ArrayLike | None = None,
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

    An image with an error (`decoding.decode` lists them) has logits and probabilities 0, class -1
    and an empty name. It does not affect the other images of the batch. An empty batch (N = 0)
    gives empty outputs; pixels of another shape or type are refused. `model.keras` takes float32 or
    uint8 [N, H, W, 3] in 0..255 and returns the same probabilities.

    If the newest version has the same network, weights, class names, temperature and short side,
    and was exported by the same code, no version is written; only the card is replaced.

    A version is written and verified under a hidden name and appears in one rename; it never
    replaces another. An export that fails changes nothing in the folder. One that is killed leaves
    at most a hidden `.unfinished` folder, which servers do not read.

    Args:
        classifier: functional model of Keras's own layers, float32 [N, H, W, 3] in 0..255 to
            logits [N, K], with H and W known. It is not changed.
        class_names: K names, in the order of the logits.
        folder: the run directory.
        temperature: divides the logits in `probabilities`; it does not change `classes`.
        card: of `model_card.make`, to be written beside the models; None writes no card.
        images: uint8 [M, H, W, 3], M >= 1, on which the written files must give the outputs of
            `classifier` (see `verify.verify`); None skips that.
        short_side: to which encoded images are resized before their center is cropped, in pixels;
            see `decoding.decode`.

    Returns:
        The newest version, and whether it is new.

    Raises:
        ArgumentError: an argument is not as described.
        FileError: the files cannot be written.
        RunError: the written files give other outputs than `classifier`.
    """
    folder = Path(folder)
    _check(classifier, class_names, temperature)
    texts = {} if card is None else model_card.texts(card)
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
        warmup.write(version, warmup.requests(*copy.input_shape[1:3]))
        _with_probabilities(copy, temperature).save(keras_file)
        _write_texts(texts, unfinished, version)
        record = json.dumps(contents | {"model.keras": _digest(keras_file.read_bytes())}, indent=2)
        (version / RECORD).write_text(record + "\n", encoding="utf-8")
        if images is not None:
            verify(version, keras_file, classifier, images, temperature)
        _sync(unfinished)
        for name in ("model.keras", *texts):
            os.replace(unfinished / name, folder / name)
        published = _publish(version, folder / "export")
        files.sync_folder(folder)
    return Exported(published, is_new=True)


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
    classifier: keras.Model,
    class_names: Sequence[str],
    temperature: float,
    short_side: int | None,
) -> dict[str, Any]:
    """What a version is made of, as JSON."""
    network = classifier.to_json()
    # Keras numbers the layers of a process, so equal networks may have layers of other names.
    for number, name in enumerate(_names(json.loads(network))):
        network = network.replace(json.dumps(name), f'"layer {number}"')
    weights = [(w.dtype.name, w.shape, _digest(w.tobytes())) for w in classifier.get_weights()]
    return {
        "graph_version": GRAPH_VERSION,
        "network": _digest(network.encode()),
        "weights": _digest(repr(weights).encode()),
        "class_names": list(class_names),
        "temperature": temperature,
        "short_side": short_side,
    }


def _names(serialized: Any) -> Iterator[str]:
    """Names of the layers in the JSON of a model."""
    if isinstance(serialized, dict):
        config = serialized.get("config")
        if isinstance(config, dict) and serialized.get("class_name") != "DTypePolicy":
            yield from [config["name"]] if "name" in config else []
        serialized = list(serialized.values())
    if isinstance(serialized, list):
        yield from itertools.chain.from_iterable(map(_names, serialized))


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _current(folder: Path, contents: Mapping[str, Any]) -> Path | None:
    """The newest version, if it and `model.keras` have these contents."""
    numbers = versions(folder)
    if not numbers:
        return None
    version = folder / "export" / str(numbers[-1])
    try:
        record = json.loads((version / RECORD).read_bytes())
        expected = {**contents, "model.keras": _digest((folder / "model.keras").read_bytes())}
    except (OSError, ValueError):  # no record, or no `.keras` file
        return None
    return version if record == expected else None


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
        return _blank_errors(outputs(images), errors)

    archive = keras.export.ExportArchive()
    archive.track(classifier)
    images = tf.TensorSpec([None, height, width, 3], tf.uint8, name="images")
    archive.add_endpoint("serving_default", serve_images, input_signature=[images])
    image_bytes = tf.TensorSpec([None], tf.string, name="image_bytes")
    archive.add_endpoint("serve_bytes", serve_bytes, input_signature=[image_bytes])
    archive.write_out(path, verbose=False)


def _blank_errors(outputs: Outputs, errors: tf.Tensor) -> Outputs:
    """The outputs, blank for images that could not be decoded."""
    decoded = errors == ""
    return {
        "logits": tf.where(decoded[:, None], outputs["logits"], 0.0),
        "probabilities": tf.where(decoded[:, None], outputs["probabilities"], 0.0),
        "classes": tf.where(decoded, outputs["classes"], NO_CLASS),
        "class_names": tf.where(decoded, outputs["class_names"], ""),
        "errors": errors,
    }


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
    """Yields a new hidden folder in `parent`, which is removed at the end."""
    folder = files.unfinished_name(parent / "version")
    try:
        with files.explained(parent):
            folder.mkdir(parents=True)
            yield folder
    except tf.errors.OpError as error:  # how TensorFlow reports a full disk
        reason = re.sub(r"\{\{.*?\}\} | \[Op:.*", "", error.message)  # without names of nodes
        raise FileError(f"cannot write {parent}: {reason}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sync(folder: Path) -> None:
    """Flushes every file to disk, so that no rename becomes durable before its contents."""
    for path in folder.rglob("*"):
        if path.is_file():
            with open(path, "rb+") as file:
                os.fsync(file.fileno())


def _publish(finished: Path, export_folder: Path) -> Path:
    """Renames a SavedModel to the next free version."""
    while True:
        target = export_folder / str(max([0, *versions(export_folder.parent)]) + 1)
        try:
            # Fails if the target is a folder that is not empty, as every version is.
            os.rename(finished, target)
        except OSError:
            if not target.exists():
                raise
        else:
            files.sync_folder(export_folder)
            return target
