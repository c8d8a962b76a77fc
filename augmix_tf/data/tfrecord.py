"""TFRecord files, read past damage: TensorFlow's own reader stops at the first broken record.

A record is its length (uint64), a checksum of the length, the data and a checksum of the data, all
little-endian. The checksum is the CRC-32C (polynomial 0x1EDC6F41, here with its bits reversed),
rotated right by 15 bits, plus 0xA282EAD8. Source: TensorFlow's guide "TFRecord and
tf.train.Example".
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import BinaryIO, NamedTuple

import numpy as np

WRONG_CHECKSUM = "wrong checksum"
_HEADER = 12
_CHECKSUM = 4
_REVERSED_POLYNOMIAL = 0x82F63B78
_MASK = 0xA282EAD8
# Records whose checksums are computed at a time.
_COUNT = 1000
_BYTES = 64 << 20


class Record(NamedTuple):
    """One record of a file.

    Attributes:
        data: as it was stored; None: neither it nor any record behind it can be found.
        problem: what is wrong, "" where nothing is.
    """

    data: bytes | None
    problem: str = ""


def read(file: BinaryIO, check: bool = True) -> Iterator[Record]:
    """Yields the records of a file, damaged ones too, as far as they can be found.

    Args:
        file: at the start of its first record.
        check: whether to hold the data against their checksums. The lengths are always.
    """
    waiting: list[tuple[bytes, int]] = []
    size = 0
    problem = ""
    while not problem and (header := file.read(_HEADER)):
        problem = _header_problem(header)
        if problem:
            break
        length = int.from_bytes(header[:8], "little")
        data = file.read(length)
        stored = file.read(_CHECKSUM)
        if len(stored) < _CHECKSUM:
            problem = "the file ends in it"
            break
        waiting.append((data, int.from_bytes(stored, "little")))
        size += length
        if len(waiting) == _COUNT or size > _BYTES:
            yield from _checked(waiting, check)
            waiting, size = [], 0
    yield from _checked(waiting, check)
    if problem:
        yield Record(None, problem)


def checksums(texts: Sequence[bytes]) -> np.ndarray:
    """Returns the checksums of some texts as TFRecord files hold them, uint32 [N]."""
    longest = max(map(len, texts))
    rows = np.zeros((len(texts), longest), np.uint8)
    # At the right edge: a register of zero stays zero over the zeros before a text.
    starts: dict[int, list[int]] = {}
    for row, text in enumerate(texts):
        rows[row, longest - len(text) :] = np.frombuffer(text, np.uint8)
        starts.setdefault(longest - len(text), []).append(row)
    table, ones = _table(), np.uint32(0xFFFFFFFF)
    register = np.zeros(len(texts), np.uint32)
    for column, values in enumerate(np.ascontiguousarray(rows.T)):
        if column in starts:
            register[starts[column]] = ones
        register = table[(register ^ values) & 255] ^ (register >> 8)
    register[starts.get(longest, [])] = ones  # empty texts
    register ^= ones
    return (register >> 15 | register << 17) + np.uint32(_MASK)


@functools.cache
def _table() -> np.ndarray:
    """What each value of a byte does to the register, uint32 [256]."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, table >> 1 ^ np.uint32(_REVERSED_POLYNOMIAL), table >> 1)
    return table


# Lengths repeat, and a checksum of eight bytes at a time is slow.
@functools.lru_cache(maxsize=1 << 16)
def _header_problem(header: bytes) -> str:
    if len(header) < _HEADER:
        return "the file ends in it"
    stored = int.from_bytes(header[8:], "little")
    return "" if checksums([header[:8]])[0] == stored else "its length is damaged"


def _checked(waiting: list[tuple[bytes, int]], check: bool) -> Iterator[Record]:
    if not check or not waiting:
        yield from (Record(data) for data, _ in waiting)
        return
    found = checksums([data for data, _ in waiting])
    for (data, stored), checksum in zip(waiting, found.tolist(), strict=True):
        yield Record(data, "" if checksum == stored else WRONG_CHECKSUM)
