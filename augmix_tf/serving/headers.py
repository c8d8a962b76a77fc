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
_MOST_EXTENSIONS = 1000  # before a GIF's first picture; one to three are usual


def kind(encoded: tf.Tensor) -> tf.Tensor:
    """Returns `PNG`, `JPEG`, `GIF`, `BMP` or `UNKNOWN`, int32, by the first bytes."""
    found = [
        tf.where(tf.strings.substr(encoded, 0, len(start)) == start, number, UNKNOWN)
        for start, number in _STARTS.items()
    ]
    return tf.add_n(found)


def announced(encoded: tf.Tensor, its_kind: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the file to decode, and the pixels that it announces.

    The file is the given one, but of a GIF the part up to the end of its first picture: TensorFlow
    unpacks all of them, whatever their sizes, also where only the first is asked for.

    Returns:
        The file, string, and width x height, int64; 0 for an unknown kind.

    Raises:
        tf.errors.InvalidArgumentError: the header of a JPEG is damaged or cut off, or a GIF ends
            before its first picture does, or has none.
    """
    readers = {
        UNKNOWN: lambda: (encoded, tf.constant(0, tf.int64)),
        PNG: lambda: (encoded, _png_area(_head(encoded))),
        JPEG: lambda: (encoded, _jpeg_area(encoded)),
        GIF: lambda: _first_picture(encoded),
        BMP: lambda: (encoded, _bmp_area(_head(encoded))),
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


def _png_area(head: tf.Tensor) -> tf.Tensor:
    sides = [_number(head[first : first + 4][::-1]) for first in (16, 20)]
    width, height = (tf.minimum(side, 2**31) for side in sides)  # the product fits into int64
    return width * height


def _jpeg_area(jpeg: tf.Tensor) -> tf.Tensor:
    return tf.reduce_prod(tf.cast(tf.io.extract_jpeg_shape(jpeg)[:2], tf.int64))


def _bmp_area(head: tf.Tensor) -> tf.Tensor:
    # Both are signed; a negative height stands for rows from the top.
    sides = [_number(head[first : first + 4]) for first in (18, 22)]
    width, height = (tf.minimum(side, 2**32 - side) for side in sides)
    return width * height


def _first_picture(gif: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """A GIF without what follows its first picture, and the pixels of that.

    Source: GIF89a specification, CompuServe 1990, sections 18 to 26.
    """
    data = tf.cast(tf.io.decode_raw(gif, tf.uint8), tf.int32)
    ends = _ends_of_chains(data)
    place = tf.while_loop(
        lambda place: tf.gather(data, place) == _EXTENSION,
        lambda place: (tf.gather(ends, place + 2) + 1,),
        (13 + _table_bytes(tf.gather(data, 10)),),
        maximum_iterations=_MOST_EXTENSIONS,
    )[0]
    sides = tf.gather(data, place + tf.range(5, 9))
    first_block = place + 11 + _table_bytes(tf.gather(data, place + 9))
    # Anything else in place of a picture counts as the end of the file.
    first_block = tf.where(tf.gather(data, place) == _PICTURE, first_block, tf.size(data))
    end = tf.gather(ends, first_block)
    length = end + 1 + tf.gather(data, end)  # that byte is 0; without it, an error
    return tf.strings.substr(gif, 0, length) + b";", _number(sides[:2]) * _number(sides[2:])


def _table_bytes(flags: tf.Tensor) -> tf.Tensor:
    """Bytes of the colour table that a byte of flags announces."""
    entries = tf.bitwise.left_shift(2, flags & 7)
    return tf.where(flags & 0x80 > 0, 3 * entries, 0)


def _ends_of_chains(data: tf.Tensor) -> tf.Tensor:
    """For each byte, where a chain of blocks that begins there ends: at a block of no bytes.

    A block is its length and so many bytes. All chains are followed at once, with jumps that
    double, so that a file of many tiny blocks takes no longer than another: O(n log n).

    Returns:
        int32 [n]; n where the file ends before the chain does.
    """
    count = tf.size(data)
    places = tf.range(count)
    next_places = tf.where(data == 0, places, tf.minimum(places + 1 + data, count))
    _, jumps = tf.while_loop(
        lambda blocks, jumps: blocks < count,
        lambda blocks, jumps: (2 * blocks, tf.gather(jumps, jumps)),
        (1, tf.concat([next_places, [count]], 0)),
    )
    return jumps[:-1]
