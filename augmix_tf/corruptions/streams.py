"""Random streams, one for each image: no state is shared, so no order can matter."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np


class Streams:
    """The random streams of all images under one (seed, name, severity).

    An image's stream is Philox 4x64 with a 128-bit key: the first 64 bits are a hash of
    (seed, name, severity), the others the image's id. It is read through numpy's legacy
    `RandomState`, whose distributions are frozen (NEP 19): later numpy releases draw the same, and
    `RandomState(seed)` put in its place draws what the original scripts drew.
    """

    def __init__(self, seed: int, name: str, severity: int) -> None:
        digest = hashlib.sha256(f"{seed}/{name}/{severity}".encode()).digest()
        self._key = np.array([int.from_bytes(digest[:8], "little"), 0], np.uint64)
        bits = np.random.Philox(key=self._key)
        self._start: dict[str, Any] = dict(bits.state)
        self._start["state"]["key"] = self._key
        self._stream = np.random.RandomState(bits)

    def of(self, image_id: int) -> np.random.RandomState:
        """Returns the stream of one image, at its beginning; valid until the next call."""
        # Setting the state back takes a tenth of the time that a new generator takes.
        self._key[1] = image_id
        self._stream.set_state(self._start)
        return self._stream
