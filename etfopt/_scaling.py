"""What keeps arithmetic in range: powers of two taken out of matrices and put back, and NumPy's own error handling."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from etfopt._arrays import Array, Float64Array

P = ParamSpec("P")
T = TypeVar("T")

_within: ContextVar[bool] = ContextVar("_within", default=False)

SAFE = 300
"""Bits up to which products, sums and squares of a few matrices stay far from overflow."""


def own_errstate(function: Callable[P, T]) -> Callable[P, T]:
    """Make a function compute with NumPy's default error handling, whichever `numpy.errstate` its caller has set.

    Every public function of the core is decorated: underflow is part of many right answers here, and
    ``numpy.errstate(all="raise")`` is meant for the caller's own code. `simplex_etf` is not: nothing in it can leave
    the range, and PyTorch's compiler could not trace it. A call from within another leaves what that one has set.

    "Invalid value" is ignored, since OpenBLAS raises that flag in products of finite matrices now and then (its issue
    1924): every argument is checked to be finite, and a certificate accepts no NaN.
    """

    @functools.wraps(function)
    def computing(*arguments: P.args, **options: P.kwargs) -> T:
        if _within.get():
            return function(*arguments, **options)
        token = _within.set(True)
        try:
            with np.errstate(divide="warn", over="warn", under="ignore", invalid="ignore"):
                return function(*arguments, **options)
        finally:
            _within.reset(token)

    return computing


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


def weighted(X: Array, w: Array) -> tuple[Float64Array, int]:
    """Return (Y, e) in float64 with X diag(w) = 2**e Y, whatever the sizes of single columns and weights.

    A column underflows only where it is negligible beside the largest.
    """
    X64 = np.where(w, np.asarray(X, dtype=np.float64), 0.0)
    columns, (v, k) = column_exponents(X64), np.frexp(w)
    if max(np.abs(columns).max(), np.abs(k).max()) <= SAFE:
        return np.asarray(X64 * w), 0
    seen = X64.any(axis=0)
    e = int((columns + k)[seen].max()) if seen.any() else 0
    return _shifted(_shifted(X64, -columns) * v, np.where(seen, columns + k - e, 0)), e


def weighted_columns(X: Array, w: Array, e: int) -> Float64Array:
    """Return 2**e X diag(w), each column with all its digits unless it is out of range by itself."""
    (Y, columns), (v, k) = normalized_columns(X), np.frexp(w)
    with np.errstate(over="ignore"):
        return _shifted(Y * v, columns + k + e)


def normalized_columns(X: Array) -> tuple[Float64Array, NDArray[np.int_]]:
    """Return (Y, k) in float64 with X = Y diag(2**k) exactly and the largest entry of each column in [1/2, 1) or 0."""
    k = column_exponents(X)
    return _shifted(np.asarray(X, dtype=np.float64), -k), k


def _shifted(X: Float64Array, k: NDArray[np.int_]) -> Float64Array:
    """Return X diag(2**k): a product rounds as ldexp does, and is faster, where the factors are in range."""
    return np.asarray(X * np.ldexp(1.0, k) if np.abs(k).max() <= 1000 else np.ldexp(X, k))


def column_exponents(X: Array) -> NDArray[np.int_]:
    """Return k with the largest entry of each column in [1/2, 1) 2**k; 0 for a column of zeros."""
    return np.asarray(np.frexp(np.maximum(X.max(axis=0), -X.min(axis=0)))[1], dtype=np.int_)


def _exponent(X: Float64Array) -> int:
    return math.frexp(max(X.max(), -X.min()))[1]


def rescaled(Y: Array | np.floating[Any] | float, e: int) -> Float64Array:
    """Return 2**e Y, infinite where it is out of range."""
    if e == 0:
        return np.asarray(Y, dtype=np.float64)
    if not isinstance(Y, np.ndarray):  # of a number, this takes a third of the time
        try:
            return np.asarray(math.ldexp(Y, e))
        except OverflowError:
            return np.asarray(math.copysign(math.inf, Y))
    with np.errstate(over="ignore"):
        # a product rounds as ldexp does, and is faster, where the factor itself is in range
        return np.asarray(Y * 2.0**e if -1022 <= e <= 1023 else np.ldexp(Y, e), dtype=np.float64)


def numerical_rank(X: Array) -> int:
    """Return the number of singular values of X above the rounding of its dtype."""
    s = np.linalg.svd(normalized(X)[0], compute_uv=False)
    return int(np.count_nonzero(s > max(X.shape) * float(np.finfo(X.dtype).eps) * s[0]))


def squared_norm(X: Float64Array) -> float:
    """Return ||X||_F^2, inf where it is out of range."""
    if not np.isfinite(X).all():
        return float("inf")
    Y, e = normalized(X)
    return float(rescaled(np.vdot(Y, Y), 2 * e))
