"""NumPy's norm and singular values with plain types, and the rounding unit."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from theory.draws import Matrix

__all__ = ["EPS", "nuclear", "spectral", "values"]

EPS = float(np.finfo(np.float64).eps)


def values(X: NDArray[Any]) -> Matrix:
    """Return the singular values of X, descending."""
    return np.asarray(np.linalg.svd(X, compute_uv=False), dtype=np.float64)


def nuclear(X: NDArray[Any]) -> float:
    """Return the nuclear norm, the sum of the singular values."""
    return float(values(X).sum())


def spectral(X: NDArray[Any]) -> float:
    """Return the spectral norm, the largest singular value."""
    return float(values(X)[0])
