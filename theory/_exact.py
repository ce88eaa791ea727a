"""Sixty digits: what rounding is measured against. Call within `digits()`."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import mpmath
import numpy as np
from numpy.typing import NDArray

from etfopt import NearestETF
from theory.draws import Matrix

__all__ = ["digits", "exact", "floats", "frobenius", "inner", "linear_term", "nuclear", "polar", "spectral"]


def digits() -> AbstractContextManager[Any]:
    """Work with sixty digits inside this context."""
    return mpmath.workdps(60)  # type: ignore[no-any-return]  # mpmath ships no types


def exact(X: NDArray[np.floating[Any]]) -> Any:
    """Return the very matrix of floats: nothing is rounded."""
    return mpmath.matrix(np.asarray(X, dtype=np.float64).tolist())


def floats(X: Any) -> Matrix:
    """Return the matrix rounded to floats."""
    return np.array(X.tolist(), dtype=np.float64)


def inner(X: Any, Y: Any) -> Any:
    """Return <X, Y>."""
    return mpmath.fdot(list(X), list(Y))


def frobenius(X: Any) -> float:
    """Return the Frobenius norm."""
    return float(mpmath.sqrt(inner(X, X)))


def spectral(A: Any) -> tuple[list[Any], Any]:
    """Return the singular values, descending, and the right singular vectors of A, to half the digits."""
    squares, Q = mpmath.eigsy(A.T * A)
    order = range(A.cols - 1, -1, -1)
    vectors = mpmath.matrix([[Q[j, i] for i in order] for j in range(A.cols)])
    return [mpmath.sqrt(max(squares[i], 0)) for i in order], vectors


def nuclear(A: Any) -> Any:
    """Return the nuclear norm."""
    return mpmath.fsum(spectral(A)[0])


def polar(A: Any) -> Any:
    """Return the polar factor of A of full column rank."""
    s, Q = spectral(A)
    return A * Q * mpmath.diag([1 / value for value in s]) * Q.T


def linear_term(problem: NearestETF) -> Any:
    """Return 2HF' + delta U_prox from the data as given, without rounding."""
    A = 2 * exact(problem.H) * exact(problem.F).T
    return A if problem.prox is None else A + mpmath.mpf(problem.delta) * exact(problem.prox)
