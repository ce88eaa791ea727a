"""The constants of `theory.conditioning`, and its cases about proximity, collapse and rank loss."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from etfopt import NearestETF, certify, simplex_etf
from theory._linalg import EPS, values
from theory.draws import Matrix, matrix, polar, spectrum, stiefel, unit_columns
from theory.registry import Residual, at_least

__all__ = ["FULL", "collapse", "drawn_matrix", "etf_constant", "polar_constant", "proximity", "rank_loss"]

FULL = ("generic", "equal", "repeated", "clustered", "graded", "tiny", "huge")


def polar_constant(d: int, s: Matrix) -> float:
    """Return the norm of the derivative of the polar factor at a d x r matrix with singular values s, descending."""
    if d > len(s):
        return float(1 / s[-1])
    return float(2 / (s[-2] + s[-1])) if len(s) > 1 else 0.0


def etf_constant(A: NDArray[Any], F: NDArray[Any]) -> float:
    """Return 2 lambda_max(F'B^-1 F), B the symmetric polar factor of A."""
    _, s, Qt = np.linalg.svd(A, full_matrices=False)
    return float(2 * np.linalg.norm(Qt @ F / np.sqrt(s)[:, None], 2) ** 2)


def drawn_matrix(rng: np.random.Generator, kinds: tuple[str, ...] | None = None) -> tuple[int, int, Matrix, Matrix]:
    r = int(rng.integers(1, 6))
    d = r + int(rng.choice([0, 1, 4]))
    A = matrix(rng, d, spectrum(rng, r, None if kinds is None else str(rng.choice(kinds))))
    return d, r, A, values(A)


def proximity(rng: np.random.Generator) -> Iterator[Residual]:
    """See what delta adds to the smallest singular value, near the minimiser and far from it, rank deficient or not."""
    d, r, A, s = drawn_matrix(rng)
    U, scale = polar(A), s[0] or 1.0
    delta = scale * 10.0 ** rng.uniform(-6, 1)
    close = polar(U + 10.0 ** rng.uniform(-6, 0) * rng.standard_normal((d, r)))
    rounding = 40 * r * EPS * (scale + delta)
    for what, P in (("near", close), ("far", stiefel(rng, d, r))):
        after = values(A + delta * P)[-1]
        floor = s[-1] + delta * (1 - np.linalg.norm(P - U, 2) ** 2 / 2)
        yield Residual((floor - after) / (scale + delta), rounding / (scale + delta), f"smallest value, prox {what}")
    off = rng.standard_normal((d, r))
    floor = s[-1] + delta * np.linalg.eigvalsh(U.T @ off + off.T @ U)[0] / 2
    after = values(A + delta * off)[-1]
    yield Residual((floor - after) / (scale + delta), 10 * rounding / (scale + delta), "smallest value, prox anywhere")
    grown = values(A + delta * U)
    yield Residual(np.abs(grown - s - delta).max(), rounding, "prox at the minimiser")
    margin = certify(NearestETF(A / 2, prox=U, delta=delta, frame=np.eye(r)), U).margin if r > 1 else s[-1] + delta
    yield Residual(abs(margin - s[-1] - delta), rounding, "margin of the certificate")


def collapse(rng: np.random.Generator) -> Iterator[Residual]:
    """Centred means of unit norm: constant 1 at an ETF, more elsewhere, by differences of NumPy's polar factor."""
    C = int(rng.integers(3, 8))
    d, F = C - 1 + int(rng.integers(1, 5)), simplex_etf(C, reduced=True)
    E = stiefel(rng, d, C - 1) @ F
    H = E + 10.0 ** rng.uniform(-2, 1) * (rng.standard_normal((d, C)) @ F.T) @ F
    H /= np.linalg.norm(H)
    sigma = values(H)[C - 2]
    yield Residual(abs(etf_constant(2 * E @ F.T, F) - 1), 100 * C * EPS, "the constant at an ETF")
    constant = etf_constant(2 * H @ F.T, F)
    yield Residual(abs(constant * np.sqrt(C - 1) * sigma - 1), 1e3 * C * EPS * constant, "the constant elsewhere")
    yield at_least(constant, 1 + 1e-9, "the constant away from an ETF")
    step = 1e-5 * unit_columns(rng.standard_normal((d * C, 1))).reshape(d, C)
    moved = (polar((E + step) @ F.T) - polar((E - step) @ F.T)) @ F
    yield Residual(float(np.linalg.norm(moved)) / 2e-5 - 1, 1e-8, "a step at an ETF")
    s = spectrum(rng, C, str(rng.choice(FULL[:5])))
    for d in (C, C + 1):
        least = np.sqrt(C) / np.linalg.norm(s)
        yield Residual(1 - polar_constant(d, s) / least, 4 * C * EPS, "a constant below that of equal values")


def rank_loss(rng: np.random.Generator) -> Iterator[Residual]:
    """Matrices beside a rank-deficient one: factors 2 apart; the constant explodes, or for d = r, once, does not."""
    r = int(rng.integers(2, 6))
    d, rank = r + int(rng.integers(0, 3)), int(rng.integers(1, r))
    s = np.where(np.arange(r) < rank, spectrum(rng, r, "generic"), 0.0)
    P, Q = stiefel(rng, d, r), stiefel(rng, r, r)
    epsilon = 10.0 ** rng.uniform(-7, -3)
    beside = s + epsilon * (np.arange(r) >= rank)
    other = beside * np.where(np.arange(r) < r - 1, 1, -1)
    A, B = P * beside @ Q.T, P * other @ Q.T
    yield Residual(abs(float(np.linalg.norm(polar(A) - polar(B))) - 2), 1e3 * r * EPS / epsilon, "the jump")
    norm = polar_constant(d, np.sort(beside)[::-1])
    if d == r and rank == r - 1:
        yield Residual(abs(norm * s[-2] / 2 - 1), 2 * epsilon / s[-2], "the constant at a simple loss, d = r")
        turn = rng.standard_normal((r, r))
        near = polar(A + 1e-9 * turn)  # the same side of det = 0 for epsilon much larger
        bound = 2 / s[-2] * 1e-9 * np.linalg.norm(turn) * 1.1
        if np.linalg.det(near) * np.linalg.det(polar(A)) > 0:
            yield Residual(np.linalg.norm(near - polar(A)) - bound, 1e3 * EPS / epsilon, "continuity from one side")
    else:
        yield Residual(abs(norm * epsilon - 1), 1e-12, "explosion of the constant")
