r"""The polar factor and its derivative with more digits than float64, for stacks of matrices: the judge of peers.

NumPy's SVD gives a first answer, and the closed forms of :math:`A = PSQ'` correct it once. The residual that they
correct is computed in long double, and has the digits that float64 lacks. No other code of etfopt is used here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["polar_and_slope", "product"]

Array = NDArray[Any]


def product(X: Array, Y: Array) -> Array:
    """Return XY; in long double, where one of them is, from products of pieces that BLAS computes without rounding."""
    if np.longdouble not in (X.dtype, Y.dtype):
        return np.asarray(X @ Y)
    bits = (53 - int(np.ceil(np.log2(X.shape[-1])))) // 2
    (a, b, c), (d, e, f) = _pieces(X, -1, bits), _pieces(Y, -2, bits)
    small = a @ f + b @ e + c @ d
    return np.asarray((small + (a @ e).astype(np.longdouble)) + b @ d + a @ d)


def _pieces(X: Array, axis: int, bits: int) -> tuple[Array, Array, Array]:
    """Cut numbers into two integers of so many bits, times powers of two shared along the axis, and what is left."""
    high = X.astype(np.float64)
    low = (X - high).astype(np.float64)
    _, exponent = np.frexp(np.abs(high).max(axis, keepdims=True))
    pieces = []
    for k in (1, 2):
        shift = np.ldexp(1.5, exponent + 52 - k * bits)  # beside it a float64 holds no smaller digit than the piece's
        pieces.append((high + shift) - shift)
        high = high - pieces[-1]
    return pieces[0], pieces[1], high + low


def polar_and_slope(A: Array, G: Array) -> tuple[Array, Array]:
    """Return the polar factors U of A (..., d, r) and dL/dA where dL/dU = G, in the dtype of A.

    In float64 both have the error of float64; in long double they are corrected. Where A is rank deficient, the
    directions without a singular value have no part in dL/dA.
    """
    P, s, Qh = np.linalg.svd(A.astype(np.float64), full_matrices=False)
    U, Q, U0 = (P @ Qh).astype(A.dtype), Qh.swapaxes(-1, -2), P @ Qh
    null = s[..., :1] * A.shape[-1] * 2.0**-52

    def derivative(X: Array) -> Array:
        X = X.astype(np.float64)
        K = U0.swapaxes(-1, -2) @ X
        sums = s[..., :, None] + s[..., None, :]
        turn = _over(Qh @ (K - K.swapaxes(-1, -2)) @ Q, sums, null[..., None])
        return np.asarray(U0 @ Q @ turn @ Qh + _over((X - U0 @ K) @ Q, s[..., None, :], null[..., None]) @ Qh)

    if A.dtype != np.longdouble:
        return U, derivative(G)
    U = product(U, 3 * np.eye(A.shape[-1]) - product(U.swapaxes(-1, -2), U)) / 2  # columns orthonormal to all digits
    U = U + derivative(A - product(U, _symmetric(U, A)))
    B = _symmetric(U, A)
    Y = _tangent(U, derivative(G))
    return U, Y + derivative(_tangent(U, G - _inverse(U, B, Y)))


def _inverse(U: Array, B: Array, Y: Array) -> Array:
    """Return a G of which a tangent Y is the dL/dA."""
    K = product(U.swapaxes(-1, -2), Y)
    turn = product(B, K - K.swapaxes(-1, -2)) / 2
    return product(Y, B) + product(U, turn + turn.swapaxes(-1, -2)) / 2


def _tangent(U: Array, X: Array) -> Array:
    """Return X without its part that is U times a symmetric matrix."""
    return np.asarray(X - product(U, _symmetric(U, X)))


def _symmetric(U: Array, X: Array) -> Array:
    """Return the symmetric part of U'X."""
    K = product(U.swapaxes(-1, -2), X)
    return np.asarray((K + K.swapaxes(-1, -2)) / 2)


def _over(X: Array, s: Array, null: Array) -> Array:
    return np.divide(X, s, out=np.zeros_like(X), where=np.broadcast_to(s > null, X.shape))
