r"""The linear term :math:`A = 2HDF' + \delta U_{prox}`, formed so that no finite data overflow or lose digits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from etfopt._arrays import Array, Float64Array
from etfopt._scaling import in_range, normalized, rescaled


class LinearTerm(NamedTuple):
    """The linear term 2**exponent A in units of a power of two, so that no finite problem overflows or underflows.

    Rounding the data can change A by `rounding` = C u (2 ||HD|| ||F|| + delta ||U_prox||) in these units: singular
    values below it cannot be told from zero. See ``theory/certificate.py``.
    """

    A: Float64Array  # read-only, entries of order one
    exponent: int
    rounding: float


class _Term(NamedTuple):
    """A summand of A: 2**exponent * factor * matrix."""

    matrix: Float64Array
    factor: float
    exponent: int
    size: int  # exponent of its largest entry, or a little more
    norm: float  # a bound on the norm of what was rounded to form it, in units of 2**exponent


def simplex_term(H: Array, weights: Float64Array | None) -> _Term:
    """Return 2HDM', with 2||HD|| for its norm: M = (I - 11'/C)/sqrt(C-1) has norm 1 and needs no product."""
    X, h = _weighted(H, weights)
    norm = 2 * float(np.linalg.norm(X))
    # the rounding of the mean is common to all columns, and M does not see it: taken out as well, it costs no digits
    centred, t, size = in_range(without_common_mean(without_common_mean(X)))
    return _Term(centred, 2 / math.sqrt(H.shape[1] - 1), h + t, size + h + t, math.ldexp(norm, -t))


def frame_term(H: Array, F: Array, weights: Float64Array | None) -> _Term:
    """Return 2HDF', with 2 ||HD|| ||F|| for its norm."""
    X, h = _weighted(H, weights)
    Y, f = normalized(F)
    norm = 2 * float(np.linalg.norm(X)) * float(np.linalg.norm(Y))
    # a frame whose rows sum to zero does not see a mean common to all columns: taken out, it costs no digits
    row_sum = float(np.linalg.norm(Y.sum(axis=1)))
    if row_sum <= F.shape[1] * float(np.finfo(F.dtype).eps) * float(np.linalg.norm(Y)):
        X = np.asarray(without_common_mean(X), dtype=np.float64)
    T, t, size = in_range(2 * X @ Y.T)
    return _Term(T, 1.0, h + f + t, size + h + f + t, math.ldexp(norm, -t))


def _weighted(H: Array, weights: Float64Array | None) -> tuple[Float64Array, int]:
    """Return (X, h) with HD = 2**h X in range; D = I without weights."""
    X, h, _ = in_range(H)
    if weights is None:
        return X, h
    w, k = normalized(weights)
    return X * w, h + k


def proximal_term(prox: Array, delta: float) -> _Term:
    """Return delta U_prox."""
    mantissa, q = math.frexp(delta)
    X, p, size = in_range(prox)
    return _Term(X, mantissa, p + q, size + p + q, mantissa * float(np.linalg.norm(X)))


def gathered(terms: Sequence[_Term], unit: float) -> LinearTerm:
    """Return the sum of the terms, of which rounding the data can change `unit` times their norms."""
    # the largest size is taken out of all terms, so that none overflows; a zero term has no vote
    summands = [term for term in terms if term.matrix.any()] or terms[:1]
    e = max(term.size for term in summands)
    A = summands[0].matrix * math.ldexp(summands[0].factor, summands[0].exponent - e)
    for term in summands[1:]:
        A += term.matrix * math.ldexp(term.factor, term.exponent - e)
    norm = float(sum(rescaled(term.norm, term.exponent - e) for term in terms))
    A, shift, _ = in_range(A, bits=4)  # what cancels may be small
    A.flags.writeable = False
    return LinearTerm(A, e + shift, unit * float(rescaled(norm, -shift)))


def without_common_mean(X: Array) -> Array:
    """Return X(I - 11'/C); any rounding of the mean is common to all columns too."""
    C = X.shape[1]
    return np.asarray(X - X @ np.full((C, 1), 1 / C, dtype=X.dtype))
