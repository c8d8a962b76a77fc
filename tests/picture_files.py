"""Encoded pictures for tests, sound ones and such as somebody made to do harm."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image


def encoded(image: np.ndarray | Image.Image, kind: str = "png", **options) -> bytes:
    """A picture file, made by Pillow."""
    file = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(file, kind, **options)
    return file.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG of that size with a sound header and nothing behind it."""
    content = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    checksum = struct.pack(">I", zlib.crc32(content))
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", len(content) - 4) + content + checksum


def with_size(file: bytes, width: int, height: int) -> bytes:
    """The same JPEG, GIF or BMP, but its header announces another size."""
    if file[:2] == b"BM":
        place, sides = 18, struct.pack("<ii", width, -height)
    elif file[:3] == b"GIF":
        # The picture's own size; a viewer's window, which stands in front, says nothing.
        place, sides = file.index(b",\0\0\0\0") + 5, struct.pack("<HH", width, height)
    else:
        place, sides = file.index(b"\xff\xc0") + 5, struct.pack(">HH", height, width)
    return file[:place] + sides + file[place + len(sides) :]
