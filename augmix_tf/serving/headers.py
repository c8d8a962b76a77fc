"""What a picture file says of itself, read inside the graph before anything is decoded.

A few hundred bytes can announce a picture of gigabytes, so the size is looked at first. Every
function takes one file, a string scalar, and is for the CPU: there an index behind the end of the
file is an error, which is what a file that was cut off is to give.
"""

from __future__ import annotations

import tensorflow as tf

UNKNOWN, PNG, JPEG, GIF, BMP = range(5)

_STARTS = {
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR": PNG,
    b"\xff\xd8\xff": JPEG,
    b"GIF87a": GIF,
    b"GIF89a": GIF,
    b"BM": BMP,
}
_WEIGHTS = (1, 1 << 8, 1 << 16, 1 << 24)
_LONGEST_HEAD = 26  # bytes: as far as the sizes in PNG (16..23) and BMP (18..25) go
_EXTENSION, _PICTURE = 0x21, 0x2C
LONGEST_GIF = 2**24  # bytes to the end of its first picture
_LONGEST_BLOCK = 256  # bytes, with its length
_PIECE = 1 << 12  # bytes of a chain that are followed at once; longer ones take no less time
_MOST_EXTENSIONS = 1000  # before a GIF's first picture; one to three are usual


def kind(encoded: tf.Tensor) -> tf.Tensor:
    """Returns `PNG`, `JPEG`, `GIF`, `BMP` or `UNKNOWN`, int32, by the first bytes."""
    found = [
        tf.where(tf.strings.substr(encoded, 0, len(start)) == start, number, UNKNOWN)
        for start, number in _STARTS.items()
    ]
    return tf.add_n(found)


def announced(encoded: tf.Tensor, its_kind: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the file to decode, and the size of the picture that it announces.

    The file is the given one, but of a GIF the part up to the end of its first picture: TensorFlow
    unpacks all of them, whatever their sizes, also where only the first is asked for. That end is
    looked for piece by piece, which needs no memory that grows with the file.

    Returns:
        The file, string, and [width, height], int64, each at most 2**32; 0 for an unknown kind,
        2**32 for a GIF whose first picture does not end within its first `LONGEST_GIF` bytes.

    Raises:
        tf.errors.InvalidArgumentError: the header of a JPEG is damaged or cut off, or a GIF ends
            before its first picture does, or has none.
    """
    readers = {
        UNKNOWN: lambda: (encoded, tf.zeros([2], tf.int64)),
        PNG: lambda: (encoded, _png_sides(_head(encoded))),
        JPEG: lambda: (encoded, _jpeg_sides(encoded)),
        GIF: lambda: _first_picture(encoded),
        BMP: lambda: (encoded, _bmp_sides(_head(encoded))),
    }
    return tf.switch_case(its_kind, readers)


def _head(encoded: tf.Tensor) -> tf.Tensor:
    """The first bytes; zeros behind the end of a shorter file."""
    padded = tf.strings.substr(encoded, 0, _LONGEST_HEAD) + b"\0" * _LONGEST_HEAD
    return tf.io.decode_raw(padded, tf.uint8)


def _number(lowest_first: tf.Tensor) -> tf.Tensor:
    """The number that 2 or 4 bytes stand for, int64."""
    weights = _WEIGHTS[: lowest_first.shape[0]]
    return tf.reduce_sum(tf.cast(lowest_first, tf.int64) * weights)


def _png_sides(head: tf.Tensor) -> tf.Tensor:
    return tf.stack([_number(head[first : first + 4][::-1]) for first in (16, 20)])


def _jpeg_sides(jpeg: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.io.extract_jpeg_shape(jpeg)[1::-1], tf.int64)


def _bmp_sides(head: tf.Tensor) -> tf.Tensor:
    # Both are signed; a negative height stands for rows from the top.
    sides = [_number(head[first : first + 4]) for first in (18, 22)]
    return tf.stack([tf.minimum(side, 2**32 - side) for side in sides])


def _first_picture(gif: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """A GIF without what follows its first picture, and the size of that.

    Source: GIF89a specification, CompuServe 1990, sections 18 to 26.
    """
    place = tf.while_loop(
        lambda place: _byte(gif, place) == _EXTENSION,
        lambda place: (_end_of_chain(gif, place + 2) + 1,),
        (13 + _table_bytes(_byte(gif, 10)),),
        maximum_iterations=_MOST_EXTENSIONS,
    )[0]
    # Anything else in place of a picture counts as the end of the file.
    is_picture = _byte(gif, place) == _PICTURE
    place = tf.where(is_picture, place, tf.strings.length(gif))
    sides = tf.ensure_shape(_bytes(gif, place + 5, 4), [4])
    end = _end_of_chain(gif, place + 11 + _table_bytes(_byte(gif, place + 9)))
    file = tf.strings.substr(gif, 0, end + 1) + b";"
    size = tf.stack([_number(sides[:2]), _number(sides[2:])])
    return file, tf.where(end < LONGEST_GIF, size, 2**32)


def _table_bytes(flags: tf.Tensor) -> tf.Tensor:
    """Bytes of the colour table that a byte of flags announces."""
    entries = tf.bitwise.left_shift(2, flags & 7)
    return tf.where(flags & 0x80 > 0, 3 * entries, 0)


def _bytes(file: tf.Tensor, place: tf.Tensor | int, count: int) -> tf.Tensor:
    """int32 [count] from that place on; fewer where the file ends."""
    return tf.cast(tf.io.decode_raw(tf.strings.substr(file, place, count), tf.uint8), tf.int32)


def _byte(file: tf.Tensor, place: tf.Tensor | int) -> tf.Tensor:
    return tf.gather(_bytes(file, place, 1), 0)


def _end_of_chain(file: tf.Tensor, start: tf.Tensor) -> tf.Tensor:
    """Where the chain of blocks that begins at a place ends: at a block of no bytes, int32.

    A block is its length and so many bytes. Behind `LONGEST_GIF` any block counts as the end.

    Raises:
        tf.errors.InvalidArgumentError: the file ends before the chain does.
    """
    return tf.while_loop(
        lambda place: (_byte(file, place) != 0) & (place < LONGEST_GIF),
        lambda place: (place + _way_through(_bytes(file, place, _PIECE)),),
        (start,),
    )[0]


def _way_through(piece: tf.Tensor) -> tf.Tensor:
    """How far the chain that begins with a piece of a file leads: to its end, or behind the piece.

    From every byte the chain that would begin there is followed at once, with jumps that double,
    so that tiny blocks take little longer than others.
    """
    count = tf.size(piece)
    places = tf.range(count + _LONGEST_BLOCK)
    steps = tf.where(piece == 0, 0, piece + 1)
    jumps = places + tf.pad(steps, [[0, _LONGEST_BLOCK]])
    return tf.while_loop(
        lambda jumps: tf.gather(jumps, jumps[0]) != jumps[0],
        lambda jumps: (tf.gather(jumps, jumps),),
        (jumps,),
    )[0][0]
