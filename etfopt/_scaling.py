"""Powers of two taken out of matrices and put back, so that no finite scale overflows or underflows on the way."""

from __future__ import annotations

from typing import Any

import numpy as np

from etfopt._inputs import Array, Float64Array

__all__ = ["normalized", "rescaled"]


def normalized(X: Array) -> tuple[Float64Array, int]:
    """Return (Y, e) in float64 with X = 2**e Y exactly and the largest entry of Y in [1/2, 1); (X, 0) for zero."""
    X64 = np.asarray(X, dtype=np.float64)
    e = int(np.frexp(np.abs(X64).max())[1])
    return np.ldexp(X64, -e), e


def rescaled(Y: Array | np.floating[Any] | float, e: int) -> Float64Array:
    """Return 2**e Y, infinite where it is out of range."""
    with np.errstate(over="ignore"):
        return np.asarray(np.ldexp(Y, e), dtype=np.float64)
