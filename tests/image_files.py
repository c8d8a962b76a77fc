"""Encoded images for tests: valid ones, and ones made to do harm."""

import io
import struct
import zlib

import numpy as np
from PIL import Image


def encoded(image: np.ndarray | Image.Image, kind: str = "png", **options) -> bytes:
    """An image file, written by Pillow."""
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
    """The same JPEG or WebP, but its header states another size."""
    if file[12:16] == b"VP8 ":
        place, sides = 26, struct.pack("<HH", width, height)
    elif file[12:16] == b"VP8L":
        place, sides = 21, struct.pack("<I", (width - 1) | (height - 1) << 14)
    elif file[12:16] == b"VP8X":
        place, sides = 24, b"".join(struct.pack("<I", n - 1)[:3] for n in (width, height))
    else:
        place, sides = file.index(b"\xff\xc0") + 5, struct.pack(">HH", height, width)
    return file[:place] + sides + file[place + len(sides) :]
