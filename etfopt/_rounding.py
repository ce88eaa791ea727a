"""What rounding may add to the numbers of a certificate; the proofs are in ``theory/certificate.py``."""

from __future__ import annotations

import math

import numpy as np

from etfopt._arrays import Array
from etfopt._linear_term import LinearTerm
from etfopt._scaling import normalized, numerical_rank, rescaled
from etfopt.polar._svd import SVD
from etfopt.problem import NearestETF

ROUNDOFF = float(np.finfo(np.float64).eps) / 2
"""Unit roundoff of float64, in which everything here is computed."""


def svd_units(d: int, r: int) -> int:
    """Return p such that LAPACK's SVD of a d x r matrix A is taken to be that of a matrix within p u ||A||_F of A."""
    # its QR iteration drops what is below 99 u; the rest grows with the reflections
    return 100 + d + 10 * r


def gap_bound(gap: float, svd: SVD, off: float, d: int) -> float:
    """Bound the gap of U / ||U||_2, which lies in the spectral-norm ball, from the computed gap of U.

    `off` bounds ||U'U - I||_F. The gap is that for the matrix of which the SVD is exact.
    """
    r, norm = len(svd.S), float(np.linalg.norm(svd.S))
    # the SVD, the inner product of d r terms, the sum of r singular values, their difference
    units = 1.01 * (svd_units(d, r) + d + 2 * r)
    rounding = units * ROUNDOFF * math.sqrt(r + math.sqrt(r) * off) * norm
    # ||U||_2 <= 1 + off/2 moves <A, U> by at most off/2 ||A||_*
    return max(gap, 0.0) + rounding + off / 2 * float(svd.S.sum())


def residual_bound(A: Array, U: Array, K: Array, residual: float, least: float, off: float) -> float:
    """Bound ||A - W(K + mI)||_F, W the polar factor of U and K + mI semidefinite, from the computed ||A - UK||_F.

    W is then the minimiser for W(K + mI), and A is the matrix of which the SVD is exact. `off` bounds ||U'U - I||_F,
    and so ||U - W||_F; `least` is the computed smallest eigenvalue of K, which may be any symmetric matrix.
    """
    d, r = A.shape
    with np.errstate(over="ignore", invalid="ignore"):
        norm = float(np.linalg.norm(K))
        rounding = (svd_units(d, r) + r + 2) * ROUNDOFF * float(np.linalg.norm(A))
        rounding += (r + 2) * ROUNDOFF * float(np.linalg.norm(U)) * norm
        shift = max(0.0, -least) + svd_units(r, r) * ROUNDOFF * norm
        return number(1.01 * (residual + rounding) + off * norm + math.sqrt(r) * shift)


def number(value: float) -> float:
    """Return the value, or infinity for what is undefined because it is out of range."""
    return math.inf if math.isnan(value) else value


def change_bound(problem: NearestETF, term: LinearTerm, svd: SVD) -> float:
    """Bound ||dA||_F from the problem's A to the matrix of which the SVD is exact: forming A, and the SVD."""
    further = 4 if problem.weights is None else 5  # a product with a weight rounds once more
    formed = (1 + further / problem.C) * term.rounding * (2 * ROUNDOFF / problem.unit)
    return formed + 1.01 * svd_units(problem.d, problem.r) * ROUNDOFF * float(np.linalg.norm(svd.S))


def unseen(problem: NearestETF, null: Array) -> float:
    """Bound ||(U - U*) N N'F||_F, N a basis of the null space of A on which U and U* may differ at will."""
    units = 1.01 * math.sqrt(problem.r) * (svd_units(problem.d, problem.r) + problem.r)
    F, f = normalized(problem.F)
    return float(rescaled(2 * np.linalg.norm(null.T @ F) + 2 * units * ROUNDOFF * np.linalg.norm(F), f))


def frame_ignores(problem: NearestETF, null: Array, smallest: float, F: Array | None = None) -> bool:
    """Return whether F' vanishes on the null space of A, so that the ETF is unique although U is not.

    `null` is a basis of the numerical null space, and `smallest` the least singular value outside it. `F` may be some
    columns of the frame. Proofs: ``theory/gauge.py``, 1, ``theory/closed_form.py`` and, for absent classes,
    ``theory/weights.py``.
    """
    if F is None:
        rank, F, norm = problem.frame_rank, problem.F, problem._frame_norm
    else:
        rank, norm = numerical_rank(F), float(np.linalg.norm(F, 2))
    # a null space larger than that of F' holds something that a frame sees, however small its entries there
    if null.shape[1] > problem.r - rank:
        return False
    # Rounding turns the basis by rounding / smallest. A faint proximal term turns it by up to the root of that
    # before its own singular values rise above rounding.
    tolerance = np.sqrt(problem.scaled_linear_term.rounding / smallest) if smallest > 0 else 0.0
    seen = null.T @ F
    return bool(np.linalg.norm(seen, None if len(seen) == 1 else 2) <= tolerance * norm)
