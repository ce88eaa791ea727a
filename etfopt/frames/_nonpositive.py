"""A proof in exact arithmetic that a polynomial is not positive on an interval."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from math import comb, lcm

__all__ = ["proven_nonpositive"]

DEEPEST = 60
"""Times that an interval is halved before the proof is given up: its length is then 2^-60 of the first."""


def proven_nonpositive(coefficients: Sequence[Fraction], low: Fraction, high: Fraction) -> bool:
    """Return whether halving intervals proves ``sum_k coefficients[k] t^k <= 0`` on [low, high], without rounding.

    A polynomial lies below the largest of its Bernstein coefficients on an interval, and takes the first and the last
    of them at the ends. An interval is done if no coefficient is positive, and the polynomial is refused if one at an
    end is. A polynomial that touches zero between two halving points is refused too: shift it down, as
    ``theory/delsarte.py`` allows.
    """
    todo = [(_bernstein(coefficients, low, high), 0)]
    while todo:
        b, depth = todo.pop()
        if max(b) <= 0:
            continue
        if b[0] > 0 or b[-1] > 0 or depth == DEEPEST:
            return False
        todo += [(half, depth + 1) for half in _halves(b)]
    return True


def _bernstein(coefficients: Sequence[Fraction], low: Fraction, high: Fraction) -> list[int]:
    """Return positive multiples of the Bernstein coefficients on [low, high], as integers."""
    n = len(coefficients) - 1
    shifted = [coefficients[-1]]  # Horner's rule for t = low + (high - low) u
    for c in reversed(coefficients[:-1]):
        by_u = [Fraction(0), *((high - low) * x for x in shifted)]
        shifted = [by_u[i] + (low * shifted[i] if i < len(shifted) else 0) for i in range(len(by_u))]
        shifted[0] += c
    b = [sum((Fraction(comb(i, j), comb(n, j)) * shifted[j] for j in range(i + 1)), Fraction(0)) for i in range(n + 1)]
    scale = lcm(*(x.denominator for x in b))
    return [int(x * scale) for x in b]


def _halves(b: list[int]) -> tuple[list[int], list[int]]:
    """Return the coefficients on both halves by de Casteljau's scheme, times 2^n to stay integers."""
    n = len(b) - 1
    left, right, row = [b[0] << n], [b[-1] << n], b
    for step in range(1, n + 1):
        row = [x + y for x, y in pairwise(row)]  # 2^step times the means
        left.append(row[0] << (n - step))
        right.append(row[-1] << (n - step))
    return left, right[::-1]
