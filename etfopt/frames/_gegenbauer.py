r"""Gegenbauer polynomials :math:`G_k` of dimension d with :math:`G_k(1) = 1`: values, slopes, and exact products.

They obey :math:`(k+d-2)\,G_{k+1} = (2k+d-2)\,t\,G_k - k\,G_{k-1}`, :math:`G_0 = 1`, :math:`G_1 = t`. A polynomial is
the list of its coefficients in this basis.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from etfopt._arrays import Float64Array

__all__ = ["monomials", "multiplied", "values_and_slopes"]


def values_and_slopes(d: int, degree: int, t: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Return G_0 ... G_degree and their derivatives at the points t, one row a polynomial."""
    G, slopes = np.empty((degree + 1, len(t))), np.zeros((degree + 1, len(t)))
    G[0] = 1.0
    if degree:
        G[1], slopes[1] = t, 1.0
    for k in range(1, degree):
        a, b, c = 2 * k + d - 2, k, k + d - 2
        G[k + 1] = (a * t * G[k] - b * G[k - 1]) / c
        slopes[k + 1] = (a * (G[k] + t * slopes[k]) - b * slopes[k - 1]) / c
    return G, slopes


def multiplied(d: int, f: Sequence[Fraction], root: Fraction) -> list[Fraction]:
    """Return the coefficients of (t - root) f, exactly."""
    product = [-root * c for c in f] + [Fraction(0)]
    for k, c in enumerate(f):
        if k == 0:
            product[1] += c
        else:
            product[k + 1] += c * Fraction(k + d - 2, 2 * k + d - 2)
            product[k - 1] += c * Fraction(k, 2 * k + d - 2)
    return product


def monomials(d: int, f: Sequence[Fraction]) -> list[Fraction]:
    """Return the coefficients of 1, t, t^2, ... of the same polynomial, exactly."""
    total = [Fraction(0)] * len(f)
    before, now = [Fraction(0)], [Fraction(1)]
    for k, c in enumerate(f):
        for power, x in enumerate(now):
            total[power] += c * x
        a, b = (Fraction(1), Fraction(0)) if k == 0 else (Fraction(2 * k + d - 2, k + d - 2), Fraction(k, k + d - 2))
        after = [Fraction(0), *(a * x for x in now)]
        for power, x in enumerate(before):
            after[power] -= b * x
        before, now = now, after
    return total
