"""Powers of two taken out of matrices and put back, so that no finite scale overflows or underflows on the way."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from etfopt._inputs import Array, Float64Array

__all__ = ["in_range", "normalized", "rescaled"]

SAFE = 300
"""Bits up to which products, sums and squares of a few matrices stay far from overflow."""


def normalized(X: Array) -> tuple[Float64Array, int]:
    """Return (Y, e) in float64 with X = 2**e Y exactly and the largest entry of Y in [1/2, 1); (X, 0) for zero."""
    X64 = np.asarray(X, dtype=np.float64)
    e = _exponent(X64)
    return rescaled(X64, -e), e


def in_range(X: Array, bits: int = SAFE) -> tuple[Float64Array, int, int]:
    """Return (Y, e, k) in float64 with X = 2**e Y and 2**k the size of Y: Y is X if that size is 1 within `bits`."""
    X64 = np.asarray(X, dtype=np.float64)
    k = _exponent(X64)
    return (X64, 0, k) if -bits <= k <= bits else (rescaled(X64, -k), k, 0)


def _exponent(X: Float64Array) -> int:
    return math.frexp(max(X.max(), -X.min()))[1]


def rescaled(Y: Array | np.floating[Any] | float, e: int) -> Float64Array:
    """Return 2**e Y, infinite where it is out of range."""
    if e == 0:
        return np.asarray(Y, dtype=np.float64)
    with np.errstate(over="ignore"):
        # a product rounds as ldexp does, and is faster, where the factor itself is in range
        return np.asarray(Y * 2.0**e if -1022 <= e <= 1023 else np.ldexp(Y, e), dtype=np.float64)
