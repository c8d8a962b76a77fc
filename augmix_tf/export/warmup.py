"""Requests that TensorFlow Serving sends to a version as it loads it, before any client does.

The server reads `assets.extra/tf_serving_warmup_requests`, a TFRecord file of at most 1000
`PredictionLog` messages. They are encoded here, in 20 lines whose bytes the tests compare with
those of `tensorflow-serving-api`: that package would be a large dependency of every export.

    PredictionLog   predict_log = 6
    PredictLog      request = 1
    PredictRequest  model_spec = 1; inputs = 2, a map: key = 1, value = 2 (a TensorProto)
    ModelSpec       name = 1; signature_name = 3

Source: apis/prediction_log.proto, predict.proto and model.proto of TensorFlow Serving.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

FILE = Path("assets.extra") / "tf_serving_warmup_requests"
MODEL_NAME = "classifier"  # required, but the server uses the model that it loads
_LENGTH_DELIMITED = 2  # wire type of messages and strings


class Request(NamedTuple):
    """One call of a signature.

    Attributes:
        signature: its name, such as "serving_default".
        inputs: name of an input -> anything that `tf.make_tensor_proto` accepts.
    """

    signature: str
    inputs: Mapping[str, Any]


def requests(height: int, width: int) -> list[Request]:
    """Returns a request for each of the two signatures, with one image of the given size."""
    ramp = np.linspace(0, 255, height * width * 3).astype(np.uint8)
    image = ramp.reshape(height, width, 3)
    return [
        Request("serving_default", {"images": image[None]}),
        Request("serve_bytes", {"image_bytes": [tf.io.encode_png(image).numpy()]}),
    ]


def write(version: Path, calls: Sequence[Request]) -> None:
    """Writes the warm-up file of a SavedModel."""
    path = version / FILE
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for call in calls:
            writer.write(prediction_log(call))


def prediction_log(call: Request) -> bytes:
    """Returns the `PredictionLog` message of a call."""
    spec = _field(1, MODEL_NAME.encode()) + _field(3, call.signature.encode())
    message = _field(1, spec)
    for name, value in call.inputs.items():
        tensor = tf.make_tensor_proto(value).SerializeToString()
        message += _field(2, _field(1, name.encode()) + _field(2, tensor))
    return _field(6, _field(1, message))


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | _LENGTH_DELIMITED) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    """Seven bits per byte, lowest first; the eighth bit marks that another byte follows."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])
