"""The spectrum of B = U'A that derivatives at the minimiser U are made of; elsewhere there is none."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from etfopt._arrays import Array, Float64Array
from etfopt.errors import InputError
from etfopt.polar._gram import Unsuitable
from etfopt.polar._products import sym, tall_product
from etfopt.problem import NearestETF

OPTIMALITY_TOLERANCE = 1e-6
"""Largest accepted ||A - U B|| / ||A||, and -lambda_min(B) / ||A||, of a point to differentiate at, in float64."""

PROBES = 8


class Spectrum(NamedTuple):
    """Eigenvectors Q of B and the inverses that the derivative needs, zero on the numerical null space of A."""

    Q: Float64Array
    inverse: Float64Array  # 1/s_i
    inverse_sum: Float64Array  # 1/(s_i + s_j)
    null: Float64Array  # orthonormal basis of the null space, shape (r, r - rank)
    rank: int
    smallest: float  # smallest s_i outside the null space
    benign: bool = False  # whether the condition number is so small that B^-1 may be formed


def spectrum_at(problem: NearestETF, U: Array) -> Spectrum:
    """Return the spectrum of B after checking that U is the minimiser: from A'A = B^2 where that resolves it."""
    term = problem.scaled_linear_term
    return _gram_spectrum(problem, U) or spectrum_of(term.A, U, term.rounding, problem.unit)


def _gram_spectrum(problem: NearestETF, U: Array) -> Spectrum | None:
    """Return the spectrum of B = (A'A)^(1/2), or None if A'A does not resolve it or U is not seen to be optimal."""
    term = problem.scaled_linear_term
    try:
        Q, s = problem.gram_spectrum
    except Unsuitable:
        return None
    if s[0] <= max(2 * term.rounding, s[-1] / (2 * problem.r)):
        return None
    if not _deviation(term.A, U, Q, s) <= _tolerance(problem.r, problem.unit):
        return None
    sums = s[:, None] + s[None, :]
    return Spectrum(Q, 1 / s, 1 / sums, null=Q[:, :0], rank=len(s), smallest=float(s[0]), benign=True)


def _deviation(A: Array, U: Array, Q: Float64Array, s: Float64Array) -> float:
    r"""Estimate :math:`\|A - UB\|_F/\|B\|_2 + \|U'U - I\|_F` for B = QSQ'; an orthonormal U with A = UB is optimal.

    :math:`U'A - B` would not do: it is of second order in a step of U out of the column space of A, of which the
    derivative has an error of first order. From products with a few random vectors (Freivalds, 1979): with 8 Gaussian
    ones, fixed here, an estimate a tenth of the norm has a chance of 1e-7, and costs next to nothing beside the
    products themselves.
    """
    Z = np.random.default_rng(0).standard_normal((len(s), PROBES))
    with np.errstate(over="ignore", invalid="ignore"):  # an infinite or undefined deviation is refused
        UZ = np.asarray(U @ Z.astype(U.dtype), dtype=np.float64)
        UBZ = np.asarray(U @ ((Q * s) @ (Q.T @ Z)).astype(U.dtype), dtype=np.float64)
        residual = np.linalg.norm(A @ Z - UBZ) / s[-1]
        stretch = np.linalg.norm(U.T @ UZ.astype(U.dtype) - Z)
        return float((residual + stretch) / np.sqrt(PROBES))


def _tolerance(r: int, unit: float) -> float:
    return max(OPTIMALITY_TOLERANCE, 50 * r * unit)


def spectrum_of(A: Array, U: Array, rounding: float, unit: float) -> Spectrum:
    """Eigendecompose B = U'A after checking that U is the polar factor, so that A = UB with B >= 0."""
    A64, U64 = np.asarray(A, dtype=np.float64), np.asarray(U, dtype=np.float64)
    with np.errstate(over="ignore", invalid="ignore"):  # an infinite or undefined residual is refused below
        B = sym(tall_product(U64, A64))
        residual = float(np.linalg.norm(A64 - U64 @ B))
    s, Q = np.linalg.eigh(B)
    norm = float(np.abs(s).max())
    tolerance = _tolerance(U.shape[1], unit) * norm
    if not residual <= tolerance or s[0] < -tolerance:
        message = (
            f"U is not the minimiser: ||A - U sym(U'A)|| = {residual:.2e} and lambda_min(sym(U'A)) = {s[0]:.2e} for "
            f"||A|| = {norm:.2e}"
        )
        remedy = "the derivative holds at the minimiser only, so pass etfopt.solve(problem).U"
        raise InputError(message, "U", U, remedy)
    null = s <= rounding
    s = np.where(null, 0.0, s)
    kept = s[~null]
    inverse = _pseudo_inverse(s)
    # B is turned as far as U is off; a step of Newton's method takes its null space to that of A, which U cannot turn
    turned = Q[:, null]
    step = (Q * inverse) @ (Q.T @ (U64.T @ (A64 @ turned)))
    return Spectrum(
        Q=Q,
        inverse=inverse,
        inverse_sum=_pseudo_inverse(s[:, None] + s[None, :]),
        null=np.linalg.qr(turned - step)[0],
        rank=len(kept),
        smallest=float(kept[0]) if len(kept) else 0.0,
    )


def _pseudo_inverse(x: Float64Array) -> Float64Array:
    return np.divide(1.0, x, out=np.zeros_like(x), where=x > 0)
