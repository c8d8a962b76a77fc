"""The requests that TensorFlow Serving sends to a model before anybody else does.

A server reads `assets.extra/tf_serving_warmup_requests` of a version as it loads it, so that no
client waits for what TensorFlow prepares at its first call. The file is a TFRecord of protocol
messages, at most 1000. These messages are small and the package that brings them is one more to
install, so they are put together here from their public numbers:

    PredictionLog   predict_log = 6
    PredictLog      request = 1
    PredictRequest  model_spec = 1; inputs = 2, a map: key = 1, value = 2 (a TensorProto)
    ModelSpec       name = 1; signature_name = 3

Source: apis/prediction_log.proto, predict.proto and model.proto of TensorFlow Serving. In the
encoding of Protocol Buffers each of these fields is its number, a length and so many bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

FILE = Path("assets.extra") / "tf_serving_warmup_requests"
MODEL_NAME = "classifier"  # a server that warms up knows which model it loads
_LENGTH_DELIMITED = 2


class Request(NamedTuple):
    """One call of a signature.

    Attributes:
        signature: such as "serving_default".
        inputs: name of an input -> what `tf.make_tensor_proto` takes.
    """

    signature: str
    inputs: Mapping[str, Any]


def requests(height: int, width: int) -> list[Request]:
    """Returns a request with one picture of that size for each of the two signatures."""
    ramp = np.linspace(0, 255, height * width * 3).astype(np.uint8)
    picture = ramp.reshape(height, width, 3)
    return [
        Request("serving_default", {"images": picture[None]}),
        Request("serve_bytes", {"image_bytes": [tf.io.encode_png(picture).numpy()]}),
    ]


def write(version: Path, calls: Sequence[Request]) -> None:
    """Writes the warm-up file of a SavedModel."""
    path = version / FILE
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for call in calls:
            writer.write(prediction_log(call))


def prediction_log(call: Request) -> bytes:
    """Returns a `PredictionLog` message that asks for this call."""
    spec = _field(1, MODEL_NAME.encode()) + _field(3, call.signature.encode())
    message = _field(1, spec)
    for name, value in call.inputs.items():
        tensor = tf.make_tensor_proto(value).SerializeToString()
        message += _field(2, _field(1, name.encode()) + _field(2, tensor))
    return _field(6, _field(1, message))


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | _LENGTH_DELIMITED) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; the eighth says that another byte follows."""
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])
