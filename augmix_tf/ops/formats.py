"""Formats of encoded images: one table for training, evaluation and serving.

JPEG, PNG and still WebP are decoded. GIF, BMP and animated WebP are recognised to be refused by
name. The format follows from the first bytes of a file, not from its name.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf

from augmix_tf.errors import FileError, first_line
from augmix_tf.ops.packed import CHANNELS

DECODED = ("JPEG", "PNG", "WebP")
REFUSED = ("GIF", "BMP", "animated WebP")
NAMES = (*DECODED, *REFUSED)
UNKNOWN = -1
# Of files that are taken for images where a directory is listed.
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp")
HEAD_BYTES = 32  # contain every signature, and the sizes in the headers of PNG and WebP

# Pillow's transform. TensorFlow's default differs by a few levels and is hardly faster.
TRANSFORM = "INTEGER_ACCURATE"

# Offset -> bytes of a file with that format. If several fit, the last counts.
_SIGNATURES = {
    "JPEG": {0: b"\xff\xd8\xff"},
    "PNG": {0: b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"},
    "WebP": {0: b"RIFF", 8: b"WEBP"},
    "GIF": {0: b"GIF8"},
    "BMP": {0: b"BM"},
    "animated WebP": {0: b"RIFF", 8: b"WEBPVP8X", 20: b"\x02"},
}
_VALUES, _MASKS = np.zeros([2, len(NAMES), HEAD_BYTES], np.uint8)
for _row, _name in enumerate(NAMES):
    for _offset, _bytes in _SIGNATURES[_name].items():
        _VALUES[_row, _offset : _offset + len(_bytes)] = list(_bytes)
        _MASKS[_row, _offset : _offset + len(_bytes)] = 0xFF
_MASKS[NAMES.index("animated WebP"), 20] = 0x02  # the animation flag among the flags of a file


def name_of(head: bytes) -> str | None:
    """Returns the name of a file's format, one of `NAMES`; None for any other.

    >>> name_of(b"GIF89a..."), name_of(b"GIMP")
    ('GIF', None)
    """
    padded = np.frombuffer(head[:HEAD_BYTES].ljust(HEAD_BYTES, b"\0"), np.uint8)
    fitting = np.flatnonzero((padded & _MASKS == _VALUES).all(axis=1))
    return NAMES[fitting[-1]] if len(fitting) else None


def format_of(encoded: tf.Tensor) -> tf.Tensor:
    """Returns the position in `NAMES` of a file's format, `UNKNOWN` for any other, int32 []."""
    fits = tf.reduce_all(_head(encoded) & _MASKS == _VALUES, axis=1)
    return tf.reduce_max(tf.where(fits, tf.range(len(NAMES)), UNKNOWN))


def size(encoded: tf.Tensor) -> tf.Tensor:
    """Returns the height and width that the header of a file states, int64 [2].

    Nothing is decoded. The result is (0, 0) for formats that are not decoded, and for a WebP file
    whose first chunk holds no image. A damaged header of a JPEG is an `InvalidArgumentError`.
    """
    readers = {
        "JPEG": lambda: tf.cast(tf.io.extract_jpeg_shape(encoded)[:2], tf.int64),
        "PNG": lambda: _png_size(_head(encoded)),
        "WebP": lambda: _webp_size(_head(encoded)),
    }
    branches = [readers[name] for name in DECODED]
    # The last branch is taken for all other positions.
    return tf.switch_case(format_of(encoded), [*branches, lambda: tf.zeros([2], tf.int64)])


def decode(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes an image to uint8 [h, w, 3]; what is not in `DECODED` is `InvalidArgumentError`.

    - Grayscale becomes three equal channels. An alpha channel is dropped. Of 16 bits the upper
      eight count. Orientation tags are ignored.
    - JPEG values equal Pillow's, except CMYK: TensorFlow truncates where Pillow rounds, so values
      are up to one level lower, and it inverts only files with Adobe's marker, Pillow all files.
    - WebP needs TensorFlow 2.20 or later.

    The size of the result is that of the file: see `size` before decoding files of strangers.
    """
    branches = [lambda name=name: _DECODERS[name](encoded) for name in DECODED]
    pixels = tf.switch_case(format_of(encoded), [*branches, lambda: _refuse(encoded)])
    return tf.ensure_shape(pixels, [None, None, CHANNELS])


def read(path: str | os.PathLike[str]) -> np.ndarray:
    """Reads an image file with the values of `decode`, uint8 [h, w, 3], or raises `FileError`."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise FileError(f"{path}: {error.strerror or error}") from error
    name = name_of(content)
    if name not in DECODED:
        raise FileError(f"{path}: {_expected(name or 'an unknown format')}")
    try:
        pixels: np.ndarray = _DECODERS[name](content).numpy()
        return pixels
    except tf.errors.OpError as error:
        raise FileError(f"{path}: damaged {name} file ({first_line(error)})") from error


def _decode_webp(encoded: tf.Tensor) -> tf.Tensor:
    # `decode_image` instead of `decode_webp`, which TensorFlow 2.19 lacks: there a graph with this
    # operation can be loaded, and WebP files are errors. Any number of channels, because asking for
    # three refuses files with an alpha channel. An animation must never get here: TensorFlow 2.20
    # and 2.21 write its frames, of four channels, into a buffer that may be of three.
    pixels = tf.io.decode_image(encoded, channels=0, expand_animations=False)
    return tf.ensure_shape(pixels, [None, None, None])[..., :CHANNELS]


_DECODERS: dict[str, Callable[[tf.Tensor], tf.Tensor]] = {
    "JPEG": lambda encoded: tf.io.decode_jpeg(encoded, CHANNELS, dct_method=TRANSFORM),
    "PNG": lambda encoded: tf.io.decode_png(encoded, CHANNELS),
    "WebP": _decode_webp,
}


def _expected(name: str) -> str:
    return f"Expected one of {', '.join(DECODED)}; received {name}"


def _refuse(encoded: tf.Tensor) -> tf.Tensor:
    messages = tf.constant([_expected(name) for name in ("an unknown format", *NAMES)])
    assertion = tf.debugging.Assert(False, [messages[format_of(encoded) + 1]])
    with tf.control_dependencies([assertion]):
        return tf.zeros([0, 0, CHANNELS], tf.uint8)


def _head(encoded: tf.Tensor) -> tf.Tensor:
    """The first bytes, uint8 [HEAD_BYTES]; zeros after the end of a shorter file."""
    start = tf.strings.substr(encoded, 0, HEAD_BYTES)
    padded = tf.io.decode_raw(start + b"\0" * HEAD_BYTES, tf.uint8)
    return tf.ensure_shape(padded[:HEAD_BYTES], [HEAD_BYTES])


def _number(little_endian: tf.Tensor) -> tf.Tensor:
    """The number that up to 4 bytes stand for, int64."""
    weights = [256**place for place in range(little_endian.shape[0])]
    return tf.reduce_sum(tf.cast(little_endian, tf.int64) * weights)


def _png_size(head: tf.Tensor) -> tf.Tensor:
    return tf.stack([_number(head[first : first + 4][::-1]) for first in (20, 16)])


def _webp_size(head: tf.Tensor) -> tf.Tensor:
    """Source: RFC 9649 (WebP), sections 2.5 to 2.7 and 3.4; RFC 6386 (VP8), section 9.1."""
    extended = tf.stack([_number(head[first : first + 3]) + 1 for first in (27, 24)])
    packed = _number(head[21:25])  # 14 bits each of width - 1 and height - 1
    lossless = tf.stack([packed // 2**14 % 2**14, packed % 2**14]) + 1
    lossy = tf.stack([_number(head[first : first + 2]) % 2**14 for first in (28, 26)])
    by_chunk = {b"VP8X": extended, b"VP8L": lossless, b"VP8 ": lossy}
    chunk = head[12:16]
    return tf.add_n(
        [tf.where(tf.reduce_all(chunk == list(name)), sides, 0) for name, sides in by_chunk.items()]
    )
