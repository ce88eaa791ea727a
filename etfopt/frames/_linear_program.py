"""Delsarte's linear program: polynomials of a higher degree than Levenshtein's, which prove more for some codes."""

from __future__ import annotations

from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import scipy.optimize

from etfopt._arrays import Float64Array
from etfopt.frames._gegenbauer import monomials, values_and_slopes
from etfopt.frames._nonpositive import proven_nonpositive

__all__ = ["improved"]

ROUNDS = 14
"""Most times that the program is solved again with the maxima of its polynomial as further points."""

WORTH = 1e-6
"""A higher degree is tried only if the last one lowered the bound on the number of vectors by at least this share."""

FAN = np.array([0.0, *(sign * 10.0**-k for k in range(1, 6) for sign in (-1, 1))])
"""New points about a zero of the polynomial, in units of the distance between the points that enclose it."""

ENOUGH = 2e-10
"""A polynomial that is at most this far above zero is good enough."""

HIGHS: Any = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}


class Answer(NamedTuple):
    """A polynomial with c_0 = 1, its maxima on [-1, s], and the bound that it proves once they are shifted to zero."""

    coefficients: Float64Array
    tops: Float64Array
    heights: Float64Array
    excess: float
    size: float


def improved(d: int, C: int, s: float, degree: int) -> tuple[float, list[Fraction]] | None:
    """Return what `levenshtein` does for a larger s, by polynomials up to this degree; None if they prove no more.

    HiGHS finds the polynomial; exact arithmetic decides. What HiGHS leaves above zero is subtracted:
    ``theory/delsarte.py``, (e).
    """
    first = _solve(d, s, degree)
    if first is None or first.size > C * (1 - WORTH):
        return None
    best, slope = _largest(d, C, s, first.size, degree)
    for step in range(7):
        trial = best - 10.0**step * 1e-14 * C / slope
        found = _solve(d, trial, degree) if trial > s else None
        if found is not None and (f := _rigorous(d, C, trial, found)):
            return trial, f
    return None


def _largest(d: int, C: int, s: float, size: float, degree: int) -> tuple[float, float]:
    """Return the s at which the program's bound is C, and about the slope of the bound there."""
    sizes = {s: size}

    def excess(trial: float) -> float:
        if trial not in sizes:
            found = _solve(d, trial, degree)
            sizes[trial] = np.inf if found is None else found.size
        return min(sizes[trial], 2.0 * C) - C

    step = 1e-3
    while excess(s + step) <= 0:
        step *= 2
    root = float(scipy.optimize.brentq(excess, s, s + step, xtol=1e-13))
    return root, (C - size) / (root - s)


def _solve(d: int, s: float, degree: int) -> Answer | None:
    """Minimise 1 + sum_k c_k with c >= 0 and 1 + sum_k c_k G_k <= 0 on points of [-1, s], and add points."""
    if not s < 1:
        return None
    angles = np.linspace(0, np.pi, 8 * degree + 1)
    best: Answer | None = None
    for _ in range(ROUNDS):
        points = -1 + (1 + s) * np.sin(angles / 2) ** 2
        G = values_and_slopes(d, degree, points)[0][1:]
        found = scipy.optimize.linprog(np.ones(degree), G.T, -np.ones(len(points)), method="highs-ds", options=HIGHS)
        if found.x is None:
            return best
        answer = _answer(d, s, np.append(1.0, np.maximum(found.x, 0.0)))
        if best is None or answer.size < best.size:
            best = answer
        if answer.excess < ENOUGH:
            return _polished(d, s, answer)
        tops, heights = answer.tops, answer.heights
        cuts = 2 * np.arcsin(np.sqrt((tops[heights > 0] + 1) / (1 + s)))
        angles = np.concatenate([angles, cuts, _zeros(angles, -found.ineqlin.marginals, np.pi / (8 * degree))])
    return best


def _zeros(angles: Float64Array, weights: Float64Array, spacing: float) -> Float64Array:
    """Return points about the zeros of the best polynomial: the centres of neighbours that share a weight.

    The dual program spreads the weight of a zero on the points that enclose it, and their centre is the zero up to the
    square of their distance.
    """
    weighted = np.flatnonzero(weights > 1e-9 * weights.max())
    weighted = weighted[np.argsort(angles[weighted])]
    groups = np.split(weighted, np.flatnonzero(np.diff(angles[weighted]) > 1.5 * spacing) + 1)
    new = []
    for group in groups:
        centre = np.average(angles[group], weights=weights[group])
        new.append(centre + max(np.ptp(angles[group]), 1e-6) * FAN)
    found = np.concatenate(new)
    return np.asarray(found[(found > 0) & (found < np.pi)])


def _answer(d: int, s: float, c: Float64Array) -> Answer:
    """Return a polynomial with its maxima, found by bisection of its slope to 1e-10, and the ends of [-1, s]."""
    t = -1 + (1 + s) * np.sin(np.linspace(0, np.pi, 60 * len(c)) / 2) ** 2
    slopes = c @ values_and_slopes(d, len(c) - 1, t)[1]
    top = np.flatnonzero((slopes[:-1] > 0) & (slopes[1:] <= 0))
    low, high = t[top], t[top + 1]
    for _ in range(26):
        middle = (low + high) / 2
        rising = c @ values_and_slopes(d, len(c) - 1, middle)[1] > 0
        low, high = np.where(rising, middle, low), np.where(rising, high, middle)
    tops = np.concatenate([[-1.0], low, [s]])
    heights = c @ values_and_slopes(d, len(c) - 1, tops)[0]
    excess = max(0.0, float(heights.max()))
    return Answer(c, tops, heights, excess, (c.sum() - excess) / (1 - excess) if excess < 1 else np.inf)


def _polished(d: int, s: float, answer: Answer) -> Answer:
    """Return the polynomial with exact zeros if that proves more: HiGHS stops at its tolerance of 1e-10.

    Newton's method on the dual program, 1 + sum_i w_i G_k(t_i) = 0 for all k with c_k > 0, moves the zeros; the
    coefficients follow from f(t_i) = 0, and f'(t_i) = 0 within the interval.
    """
    c, degree = answer.coefficients.copy(), len(answer.coefficients) - 1
    t = answer.tops[answer.heights > -1e-7]
    inner, used = (t > -1) & (t < s), np.flatnonzero(c > 1e-9)[1:]
    w = np.linalg.lstsq(values_and_slopes(d, degree, t)[0][used], -np.ones(len(used)))[0]
    for _ in range(5):
        G, slopes = values_and_slopes(d, degree, t)
        jacobian = np.hstack([G[used], w[inner] * slopes[used][:, inner]])
        step = np.linalg.lstsq(jacobian, -1 - G[used] @ w)[0]
        w = w + step[: len(t)]
        t[inner] = np.clip(t[inner] + step[len(t) :], -1, s)
    G, slopes = values_and_slopes(d, degree, t)
    wrong = np.concatenate([c @ G, (c @ slopes)[inner]])
    c[used] -= np.linalg.lstsq(np.vstack([G[used].T, slopes[used][:, inner].T]), wrong)[0]
    better = _answer(d, s, np.maximum(c, 0.0))
    return better if better.size < answer.size else answer


def _rigorous(d: int, C: int, s: float, found: Answer) -> list[Fraction] | None:
    """Return the coefficients, shifted down, if exact arithmetic confirms all that the bound needs."""
    f = [Fraction(float(c)) for c in found.coefficients]
    f[0] -= Fraction(1.01 * found.excess + 1e-14)
    if f[0] <= 0 or min(f) < 0 or sum(f) >= C * f[0]:
        return None
    return f if proven_nonpositive(monomials(d, f), Fraction(-1), Fraction(s)) else None
