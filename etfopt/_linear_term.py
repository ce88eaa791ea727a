r"""The linear term :math:`A = 2HDF' + \delta U_{prox}`, formed so that no finite data overflow or lose digits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from etfopt._arrays import Array, Float64Array
from etfopt._scaling import SAFE, in_range, normalized, normalized_columns, rescaled, weighted


class LinearTerm(NamedTuple):
    """The linear term 2**exponent A in units of a power of two, so that no finite problem overflows or underflows.

    Rounding the data can change A by `rounding` = C u (2 ||HD|| ||F|| + delta ||U_prox||) in these units: singular
    values below it cannot be told from zero. See ``theory/certificate.py``.
    """

    A: Float64Array  # read-only, entries of order one
    exponent: int
    rounding: float


class Term(NamedTuple):
    """A summand of A: 2**exponent * factor * matrix."""

    matrix: Float64Array
    factor: float
    exponent: int
    size: int  # exponent of its largest entry, or a little more
    norm: float  # a bound on the norm of what was rounded to form it, in units of 2**exponent


def simplex_term(H: Array, weights: Float64Array | None) -> Term:
    """Return 2HDM', with 2||HD|| for its norm: M = (I - 11'/C)/sqrt(C-1) has norm 1 and needs no product."""
    X, h = _weighted(H, weights)
    norm = 2 * float(np.linalg.norm(X))
    # the rounding of the mean is common to all columns, and M does not see it: taken out as well, it costs no digits
    centred, t, size = in_range(without_common_mean(without_common_mean(X)))
    return Term(centred, 2 / math.sqrt(H.shape[1] - 1), h + t, size + h + t, math.ldexp(norm, -t))


def frame_term(H: Array, F: Array, weights: Float64Array | None) -> Term:
    """Return 2HDF', with 2 ||HD|| ||F|| for its norm. See ``theory/weights.py``."""
    X, h = _weighted(H, weights)
    Y, f = normalized(F)
    norm = 2 * float(np.linalg.norm(X)) * float(np.linalg.norm(Y))
    # a frame whose rows sum to zero does not see a mean common to all columns: taken out, it costs no digits
    row_sum = float(np.linalg.norm(Y.sum(axis=1)))
    if row_sum <= F.shape[1] * float(np.finfo(F.dtype).eps) * float(np.linalg.norm(Y)):
        X = np.asarray(without_common_mean(X), dtype=np.float64)
    T, t, size = in_range(2 * X @ Y.T)
    return Term(T, 1.0, h + f + t, size + h + f + t, math.ldexp(norm, -t))


def _weighted(H: Array, weights: Float64Array | None) -> tuple[Float64Array, int]:
    """Return (X, h) with HD = 2**h X in range; D = I without weights."""
    if weights is None:
        X, h, _ = in_range(H)
        return X, h
    Y, e = weighted(H, weights)
    X, h, _ = in_range(Y)
    return X, e + h


def proximal_term(prox: Array, delta: float) -> Term:
    """Return delta U_prox."""
    mantissa, q = math.frexp(delta)
    X, p, size = in_range(prox)
    return Term(X, mantissa, p + q, size + p + q, mantissa * float(np.linalg.norm(X)))


def data_in_range(H: Array, weights: Float64Array | None) -> tuple[Array, Float64Array | None, int]:
    """Return (X, w, f) with HD = 2**f X diag(w), all far from the ends of their ranges; H and D if they are so."""
    safe = SAFE if H.dtype == np.float64 else 60
    Y, h = normalized_columns(H)
    v, k = np.frexp(np.ones(H.shape[1]) if weights is None else weights)
    if np.abs(h).max() <= safe and np.abs(k).max() <= SAFE:
        return H, weights, 0
    seen = Y.any(axis=0) & (v > 0)
    total = np.where(seen, h + k, 0)
    e = int(total[seen].max()) if seen.any() else 0
    # the largest power of two goes to the weights, what they cannot take to H, and what that cannot take to the frame
    of_weights = int(np.clip(e, -900, 900))
    of_means = int(np.clip(e - of_weights, -safe, safe))
    w = np.ldexp(v, np.where(seen, total - e + of_weights, 0))
    return rescaled(Y, of_means), w, e - of_weights - of_means


def proximal_in_range(prox: Array, delta: float) -> tuple[Array, float]:
    """Return (P, p) with delta U_prox = p P, both far from the ends of their ranges where that is possible."""
    X, p, _ = in_range(prox)
    if p == 0:
        return prox, delta
    mantissa, q = math.frexp(delta)
    kept = min(max(p + q, -1000), 1000)
    return rescaled(X, p + q - kept), math.ldexp(mantissa, kept)


def gathered(terms: Sequence[Term], unit: float) -> LinearTerm:
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
