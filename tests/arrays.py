"""Several arrays compared at once."""

from collections.abc import Iterable

import numpy as np


def assert_same(got: Iterable, want: Iterable) -> None:
    """Asserts that both hold equal arrays, in one order."""
    for one, other in zip(got, want, strict=True):
        np.testing.assert_array_equal(one, other)


def assert_near(got: Iterable, want: Iterable, rtol: float = 1e-7, atol: float = 0.0) -> None:
    """The same up to rounding, as in NumPy's `assert_allclose`."""
    for one, other in zip(got, want, strict=True):
        np.testing.assert_allclose(one, other, rtol, atol)
