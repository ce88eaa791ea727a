"""The best size of an ETF, and the distance that it leaves, for class means of any scale."""

from __future__ import annotations

import numpy as np

from etfopt._arrays import Array, Float64Array
from etfopt._scaling import normalized, rescaled, weighted
from etfopt.problem import NearestETF


def best_scale(problem: NearestETF, U: Array) -> tuple[float, float]:
    """Return the best size of U F and its distance to H, both with the weights of the classes."""
    roots = np.ones(problem.C) if problem.weights is None else np.sqrt(problem.weights)
    (H, h), (F, f) = (_normalized_columns(X, roots) for X in (problem.H, problem.F))
    E = np.asarray(U, dtype=np.float64) @ F
    s = np.vdot(H, E) / (np.vdot(F, F) or 1.0)  # classes whose vertices are all zero have no size
    return float(rescaled(s, h - f)), float(rescaled(np.linalg.norm(H - s * E), h))


def _normalized_columns(X: Array, roots: Float64Array) -> tuple[Float64Array, int]:
    """Return (Y, e) with X diag(roots) = 2**e Y and the largest entry of Y in [1/2, 1)."""
    Y, e = weighted(X, roots)
    Y, k = normalized(Y)
    return Y, e + k
