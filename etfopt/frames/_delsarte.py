"""Rigorous lower bounds on the largest cosine of C unit vectors, the best of several theorems."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from fractions import Fraction

from etfopt._scalars import as_integer
from etfopt.frames._levenshtein import best_degree, levenshtein
from etfopt.frames._linear_program import improved

__all__ = ["DelsarteBound", "delsarte_bound"]

FURTHER = 8
"""The linear program looks at this many degrees beyond Levenshtein's polynomial."""

HIGHEST = 30
"""Highest degree of the linear program."""


@dataclass(frozen=True)
class DelsarteBound:
    r"""A number below the largest cosine of any C unit vectors in R^d, with what proves it.

    Attributes
    ----------
    value : float
        The largest cosine is greater than this number, or equal to it for Rankin's bounds and the angles of a polygon.
    method : str
        "Rankin", "Delsarte, degree 7", "Fejes Toth" (d = 3), or "angles" (d <= 2).
    polynomial : tuple of Fraction
        Gegenbauer coefficients :math:`c_0, c_1, \dots` of the polynomial f of Delsarte's bound, exact:
        :math:`c_0 > 0`, :math:`c_k \ge 0`, :math:`f \le 0` on [-1, value], and :math:`f(1)/c_0 < C`. Empty for the
        other methods.
    """

    value: float
    method: str
    polynomial: tuple[Fraction, ...] = ()


def delsarte_bound(d: int, C: int) -> DelsarteBound:
    r"""Return the best known-by-proof lower bound on the largest cosine of C unit vectors in :math:`R^d`.

    Delsarte's bound: let :math:`f = \sum_k c_k G_k` with Gegenbauer polynomials of dimension d, :math:`c_0 > 0`,
    :math:`c_k \ge 0`, and :math:`f \le 0` on [-1, s]. Then at most :math:`f(1)/c_0` unit vectors have all cosines at
    most s. So if :math:`f(1)/c_0 < C`, the largest cosine of C vectors is above s. The polynomial is Levenshtein's, or
    the solution of a linear program where a higher degree proves more. All conditions are checked in exact arithmetic
    with the rounded coefficients, so no rounding error enters the bound.

    Parameters
    ----------
    d : int
        Dimension, at least 1.
    C : int
        Number of vectors, at least 2.

    Returns
    -------
    DelsarteBound
        Value, method, and the polynomial as evidence.

    Raises
    ------
    InputError
        If d or C is no such integer.

    References
    ----------
    Delsarte, Goethals and Seidel (1977), Spherical codes and designs. Levenshtein (1992), Designs as maximum codes in
    polynomial metric spaces. Fejes Toth (1943), Uber eine Abschatzung des kurzesten Abstandes zweier Punkte eines auf
    einer Kugelflache liegenden Punktsystems. Proofs: ``theory/delsarte.py``; Rankin's bounds: ``theory/simplex.py``.

    Examples
    --------
    >>> from etfopt.frames._delsarte import delsarte_bound
    >>> bound = delsarte_bound(8, 240)
    >>> round(bound.value, 12), bound.method
    (0.5, 'Delsarte, degree 7')
    """
    return _bound(as_integer(d, "d", at_least=1), as_integer(C, "C", at_least=2))


@functools.lru_cache(maxsize=256)
def _bound(d: int, C: int) -> DelsarteBound:
    if d + 1 >= C:
        return DelsarteBound(-1.0 / (C - 1), "Rankin")
    if d <= 2:
        return DelsarteBound(1.0 if d == 1 else math.cos(2 * math.pi / C) - 4e-16, "angles")
    if 2 * d >= C:
        return DelsarteBound(0.0, "Rankin")
    bounds = [_by_polynomial(d, C)]
    if d == 3:
        bounds.append(DelsarteBound(_fejes_toth(C), "Fejes Toth"))
    return max(bounds, key=lambda bound: bound.value)


def _by_polynomial(d: int, C: int) -> DelsarteBound:
    s, f = levenshtein(d, C)
    degree = best_degree(d, C) + FURTHER
    if degree <= HIGHEST and (found := improved(d, C, s, degree)):
        s, f = found
    highest = max(k for k, c in enumerate(f) if c)
    return DelsarteBound(float(s), f"Delsarte, degree {highest}", tuple(f[: highest + 1]))


def _fejes_toth(C: int) -> float:
    """Return Fejes Toth's bound for d = 3, which C = 3, 4, 6 and 12 reach, minus more than its rounding errors."""
    angle = math.pi * C / (6 * (C - 2))
    return (1 / math.tan(angle) ** 2 - 1) / 2 - 1e-14
