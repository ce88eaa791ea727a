"""Products of tall matrices, with rounding that hardly grows with the number of rows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from etfopt._arrays import Array
from etfopt._scaling import own_errstate

FAR_OFF = 1e-3
"""Distance from orthonormality that no rounding explains."""

TALL = 2048
"""Rows from which `tall_product` adds halves: sums of so many terms round by little beside what is promised."""


@own_errstate
def tall_product(X: Array, Y: Array) -> Array:
    """Return X'Y, with the rows halved down to blocks of `TALL` and the blocks' products added pairwise.

    A sum of d equal terms can round the same way d times; here log2(d/TALL) additions follow those of a block. See
    Higham (2002), Accuracy and Stability of Numerical Algorithms, section 4.2; ``theory/certificate.py``, (f), uses it.
    """
    if len(X) <= TALL:
        return np.asarray(X.T @ Y)
    half = len(X) // 2
    return tall_product(X[:half], Y[:half]) + tall_product(X[half:], Y[half:])


@own_errstate
def feasibility(U: Array) -> float:
    """Return ||U'U - I||_F in float64, inf where it is out of range; its rounding: ``theory/certificate.py``."""
    U64 = np.asarray(U, dtype=np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        distance = float(np.linalg.norm(tall_product(U64, U64) - np.eye(U64.shape[1])))
    return math.inf if math.isnan(distance) else distance


@own_errstate
def sym(X: np.ndarray[Any, np.dtype[Any]]) -> Array:
    """Return the symmetric part (X + X')/2."""
    symmetric: Array = (X + X.T) / 2
    return symmetric
