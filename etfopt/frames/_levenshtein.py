r"""Levenshtein's polynomials: the best ones of their degree in Delsarte's bound, known in closed form.

For degree :math:`m = 2k-1` it is :math:`(t-s)\prod_i(t-\alpha_i)^2`; for :math:`m = 2k` it has the factor t + 1 too.
The :math:`\alpha_i` and s are the nodes of the Gauss-Radau rule for the weight
:math:`(1-t)(1+t)^a(1-t^2)^{(d-3)/2}`, a = 0 for odd m and 1 for even m. Whatever the :math:`\alpha_i` are, the
polynomial is not positive on [-1, s], so they may be rounded.
"""

from __future__ import annotations

from fractions import Fraction
from math import comb

import numpy as np
import scipy.linalg
import scipy.optimize

from etfopt._arrays import Float64Array
from etfopt.frames._gegenbauer import multiplied, values_and_slopes

__all__ = ["best_degree", "design_size", "levenshtein"]

HIGHEST = 59
"""Highest degree; exact arithmetic would take too long beyond."""

SHORT = 40
"""Binary digits of the nodes: the bound depends on their errors by the squares."""


def design_size(d: int, m: int) -> int:
    """Return the least possible size of a spherical m-design: Levenshtein's polynomial of degree m begins there."""
    k = m // 2
    return 2 * comb(k + d - 1, d - 1) if m % 2 else comb(k + d - 1, d - 1) + comb(k + d - 2, d - 1)


def best_degree(d: int, C: int) -> int:
    """Return the degree m with ``design_size(m) <= C < design_size(m + 1)``, at most `HIGHEST`."""
    return next((m for m in range(1, HIGHEST) if design_size(d, m + 1) > C), HIGHEST)


def levenshtein(d: int, C: int) -> tuple[float, list[Fraction]]:
    """Return s and the Gegenbauer coefficients of a polynomial that proves: C unit vectors have a cosine above s.

    The arithmetic that decides is exact, and s is within a few rounding units of the best that the degree can prove:
    ``theory/delsarte.py``.
    """
    m = best_degree(d, C)
    C = min(C, design_size(d, m + 1) - 1)  # at the highest degree: a part of the code has the bound of that part
    low, high = _ends(d, m)
    s = low  # a code of that size is often a design
    if _size(d, m, low) < C:
        s = float(scipy.optimize.brentq(lambda s: _size(d, m, s) - C, low, high, xtol=1e-16, rtol=1e-15))
    for step in range(60):
        trial = s - (2.0**step - 1) * 1e-16 * max(1e-3, abs(s))
        f = _polynomial(d, m, trial)
        if min(f) >= 0 and f[0] > 0 and sum(f) < C * f[0]:
            return trial, f
    raise AssertionError("rounding is far below the last step")


def _size(d: int, m: int, s: float) -> float:
    """Return Levenshtein's bound on the number of vectors without a cosine above s, a rising function of s."""
    G = values_and_slopes(d, m // 2 + 1, np.array([s]))[0][:, 0]
    k = (m + 1) // 2
    if m % 2:
        return float(comb(k + d - 3, k - 1) * ((2 * k + d - 3) / (d - 1) - (G[k - 1] - G[k]) / ((1 - s) * G[k])))
    ratio = (1 + s) * (G[k] - G[k + 1]) / ((1 - s) * (G[k] + G[k + 1]))
    return float(comb(k + d - 2, k) * ((2 * k + d - 1) / (d - 1) - ratio))


def _ends(d: int, m: int) -> tuple[float, float]:
    """Return the interval of s on which the degree m is the best one."""
    k, (one, both) = (m + 1) // 2, ((d - 3) / 2, (d - 1) / 2)

    def largest(n: int, beta: float) -> float:
        return float(scipy.linalg.eigvalsh_tridiagonal(*_jacobi(d, n, beta))[-1]) if n else -1.0

    return (largest(k - 1, both), largest(k, one)) if m % 2 else (largest(k, one), largest(k, both))


def _jacobi(d: int, n: int, beta: float) -> tuple[Float64Array, Float64Array]:
    """Return diagonal and off-diagonal of the Jacobi matrix of (1-t)^((d-1)/2) (1+t)^beta."""
    alpha, i = (d - 1) / 2, np.arange(n)
    total = 2 * i + alpha + beta
    diagonal = np.zeros(n) if alpha == beta else (beta**2 - alpha**2) / (total * (total + 2))
    i, total = i[1:], total[1:]
    squares = 4 * i * (i + alpha) * (i + beta) * (i + alpha + beta) / (total**2 * (total**2 - 1))
    return diagonal, np.sqrt(squares)


def _polynomial(d: int, m: int, s: float) -> list[Fraction]:
    """Return the Gegenbauer coefficients of Levenshtein's polynomial of degree m with its nodes rounded."""
    diagonal, off = _jacobi(d, (m + 1) // 2, (d - 3) / 2 if m % 2 else (d - 1) / 2)
    if len(off):  # the last entry that makes s an eigenvalue
        head = np.diag(s - diagonal[:-1]) - np.diag(off[:-1], 1) - np.diag(off[:-1], -1)
        diagonal[-1] = s - off[-1] ** 2 * np.linalg.inv(head)[-1, -1]
    nodes = scipy.linalg.eigvalsh_tridiagonal(diagonal, off)[:-1]
    f = multiplied(d, [Fraction(1)], Fraction(s))
    if m % 2 == 0:
        f = multiplied(d, f, Fraction(-1))
    for node in nodes:
        root = Fraction(round(float(node) * 2**SHORT), 2**SHORT)
        f = multiplied(d, multiplied(d, f, root), root)
    return f
