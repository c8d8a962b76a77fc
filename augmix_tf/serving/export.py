"""Exports a classifier: a SavedModel for servers and a `.keras` file for Keras users.

    <folder>/export/<version>/   SavedModel in the layout of TensorFlow Serving; in `assets.extra/`
                                 its warm-up requests and the model card
    <folder>/model.keras         the newest version for `keras.saving.load_model`
    <folder>/model_card.json     what the newest version is; `model_card.md` for readers

Both are made of TensorFlow's and Keras's own parts and load where this package is not installed.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import keras.layers as L
import tensorflow as tf

from augmix_tf import files
from augmix_tf.checks import RunError, require
from augmix_tf.serving import model_card, warmup
from augmix_tf.serving.decoding import decode

Outputs = dict[str, tf.Tensor]
NO_CLASS = -1  # of an image that could not be decoded


def export(
    classifier: keras.Model,
    class_names: Sequence[str],
    folder: files.PathLike,
    temperature: float = 1.0,
    card: Mapping[str, Any] | None = None,
    check: Callable[[Path, Path], object] | None = None,
    short_side: int | None = None,
) -> Path:
    """Writes the next version of a SavedModel, `model.keras` and the model card.

    The SavedModel has two signatures:

        serving_default   images       uint8 [N, H, W, 3]
        serve_bytes       image_bytes  string [N], each a PNG, JPEG, GIF or BMP of any size,
                                       prepared as `decoding.decode` says
        ->  logits float32 [N, K];  probabilities float32 [N, K] = softmax(logits / temperature);
            classes int64 [N];  class_names string [N], the names of `classes`
            serve_bytes also:  errors string [N], empty where the image was decoded

    An image with an error (`decoding.decode` has the three) gets logits and probabilities 0, class
    -1 and an empty name; the other images of its batch get their answers. An empty batch (N = 0)
    gives empty outputs; pixels of another shape or type are refused. `model.keras` takes float32 or
    uint8 [N, H, W, 3] in 0..255 and returns the same probabilities.

    A version is built and checked under a hidden name and appears in one rename; it never replaces
    another. An export that fails, also in its check, changes nothing in the folder. A killed one
    leaves at most that hidden `.unfinished` folder, which servers do not read.

    Args:
        classifier: functional model of Keras's own layers, float32 [N, H, W, 3] in 0..255 to
            logits [N, K], with H and W known. It is not changed.
        class_names: K names, in the order of the logits.
        folder: the run folder.
        temperature: divides the logits in `probabilities`; it changes no `classes`.
        card: of `model_card.make`, to be written beside; None writes none.
        check: is called with the SavedModel's folder and the `.keras` file, both complete and under
            their hidden names; they are published if it returns. `verify.verify` is meant for it.
        short_side: of files, before their centre is cut out, as in `decoding.decode`.

    Returns:
        `<folder>/export/<version>`.

    Raises:
        CommandError: a classifier, names, temperature or short side other than that.
        RunError: the files cannot be written.
        Exception: what `check` raises.
    """
    folder = Path(folder)
    _check(classifier, class_names, temperature)
    # A copy has plain variables also where the original was built under a distribution strategy.
    copy = keras.models.clone_model(classifier)
    copy.set_weights(classifier.get_weights())
    with _unfinished_folder(folder / "export") as unfinished:
        _write_saved_model(copy, class_names, temperature, short_side, unfinished / "version")
        warmup.write(unfinished / "version", warmup.requests(*copy.input_shape[1:3]))
        of_folder = {"model.keras", *_write_card(card, unfinished)}
        _with_probabilities(copy, temperature).save(unfinished / "model.keras")
        if check is not None:
            check(unfinished / "version", unfinished / "model.keras")
        _sync(unfinished)
        for name in sorted(of_folder):
            os.replace(unfinished / name, folder / name)
        version = _publish(unfinished / "version", folder / "export")
        files.sync_folder(folder)
    return version


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
        # TensorFlow's convolution on the CPU (2.21, oneDNN) gives an empty batch a wrong shape, so
        # that one gets a blank picture, whose results are cut off again.
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
        # The shape of a signature is not enforced, and a network may take another one.
        images = tf.ensure_shape(images, [None, height, width, 3])
        return outputs(tf.cast(images, tf.float32))

    def serve_bytes(image_bytes: tf.Tensor) -> Outputs:
        images, errors = decode(image_bytes, height, width, short_side)
        return _without_broken(outputs(images), errors)

    archive = keras.export.ExportArchive()
    archive.track(classifier)
    images = tf.TensorSpec([None, height, width, 3], tf.uint8, name="images")
    archive.add_endpoint("serving_default", serve_images, input_signature=[images])
    image_bytes = tf.TensorSpec([None], tf.string, name="image_bytes")
    archive.add_endpoint("serve_bytes", serve_bytes, input_signature=[image_bytes])
    archive.write_out(path, verbose=False)


def _without_broken(outputs: Outputs, errors: tf.Tensor) -> Outputs:
    """The outputs with none of a network's opinions on images that are none."""
    sound = errors == ""
    return {
        "logits": tf.where(sound[:, None], outputs["logits"], 0.0),
        "probabilities": tf.where(sound[:, None], outputs["probabilities"], 0.0),
        "classes": tf.where(sound, outputs["classes"], NO_CLASS),
        "class_names": tf.where(sound, outputs["class_names"], ""),
        "errors": errors,
    }


def _write_card(card: Mapping[str, Any] | None, unfinished: Path) -> list[str]:
    """Writes the card twice, for the version and for the folder; returns the names of its files."""
    texts = {} if card is None else model_card.texts(card)
    for name, text in texts.items():
        for place in (unfinished, unfinished / "version" / "assets.extra"):
            (place / name).write_text(text, encoding="utf-8")
    return list(texts)


def _with_probabilities(classifier: keras.Model, temperature: float) -> keras.Model:
    # The input stays float32: Keras would cut the fractions off what is fed to a uint8 one.
    logits = classifier.outputs[0]
    cooled = L.Rescaling(1.0 / temperature, dtype="float32", name="temperature")(logits)
    probabilities = L.Softmax(dtype="float32", name="probabilities")(cooled)
    return keras.Model(classifier.inputs, probabilities, name=classifier.name)


@contextlib.contextmanager
def _unfinished_folder(parent: Path) -> Iterator[Path]:
    """Yields a new hidden folder in `parent`, and removes what is left of it at the end."""
    folder = files.unfinished_name(parent / "version")
    try:
        with files.explained(parent):
            folder.mkdir(parents=True)
            yield folder
    except tf.errors.OpError as error:  # how TensorFlow reports a full disk
        reason = re.sub(r"\{\{.*?\}\} | \[Op:.*", "", error.message)  # less its names of nodes
        raise RunError(f"cannot write {parent}: {reason}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sync(folder: Path) -> None:
    """Brings every file to the disk: a rename must not become durable before what it names."""
    for path in folder.rglob("*"):
        if path.is_file():
            with open(path, "rb+") as file:
                os.fsync(file.fileno())


def _publish(finished: Path, export_folder: Path) -> Path:
    """Renames a SavedModel to the next free version."""
    while True:
        target = export_folder / str(max([0, *versions(export_folder.parent)]) + 1)
        try:
            # Fails where the target is a folder with anything in it, as every version is.
            os.rename(finished, target)
        except OSError:
            if not target.exists():
                raise
        else:
            files.sync_folder(export_folder)
            return target
