r"""Newton's method on the active pairs of a code: those whose cosine is the largest one.

At a locally best code many cosines are equal. The equations :math:`x_i'x_j = \mu` of these pairs are solved for the
vectors and :math:`\mu` together. Symmetric codes have more equations than unknowns; all hold, so Gauss-Newton steps
still converge quadratically. Vectors without an active pair stay where they are.
"""

from __future__ import annotations

import numpy as np
import scipy.linalg
import scipy.sparse
from numpy.typing import NDArray

from etfopt._arrays import Float64Array
from etfopt.frames._energy import largest_cosine, unit_rows

__all__ = ["polished"]

LARGEST = 5000
"""Most unknowns for which the normal equations are solved."""

WIDTHS = 10.0 ** np.arange(-2, -9.5, -0.5)
"""A pair is taken to be active if its cosine is within such a width of the largest; each width is tried."""

STEPS = 8
RIDGE = 1e-11
"""Relative to the largest diagonal entry: rotations leave the cosines as they are, so the equations are singular."""

EQUAL = 1e-12
"""Cosines this close to each other are equal."""

Indices = NDArray[np.intp]


def polished(X: Float64Array) -> Float64Array:
    """Return unit rows with a smaller largest cosine, or `X` itself if no set of active pairs improves it."""
    if X.size + 1 > LARGEST:
        return X
    i, j = np.triu_indices(len(X), 1)
    cosines = np.einsum("nd,nd->n", X[i], X[j])
    best, lowest, seen = X, largest_cosine(X), set[int]()
    for width in WIDTHS:
        active = np.flatnonzero(cosines >= cosines.max() - width)
        if len(active) in seen or len(active) < 2:
            continue
        seen.add(len(active))
        found, spread = _solve(X, i[active], j[active])
        if (cosine := largest_cosine(found)) < lowest:
            best, lowest = found, cosine
            if spread < EQUAL:
                break  # narrower widths leave out pairs that are active
    return best


def _solve(X: Float64Array, i: Indices, j: Indices) -> tuple[Float64Array, float]:
    """Return unit rows near X whose pairs (i, j) have nearly equal cosines, and how far these are apart."""
    best, least = X, np.inf
    for _ in range(STEPS):
        cosines = np.einsum("nd,nd->n", X[i], X[j])
        if (spread := float(np.ptp(cosines))) > least / 2:
            break
        best, least = X, spread
        step = _least_squares(_jacobian(X, i, j, cosines), cosines.max() - cosines)
        X = unit_rows(X + step[:-1].reshape(X.shape))
    return best, least


def _jacobian(X: Float64Array, i: np.ndarray, j: np.ndarray, cosines: Float64Array) -> scipy.sparse.csr_matrix:
    """Return the derivatives of the cosines minus mu, along the sphere, with respect to all vectors and mu."""
    (C, d), pairs = X.shape, len(i)
    values = [X[j] - cosines[:, None] * X[i], X[i] - cosines[:, None] * X[j], np.full((pairs, 1), -1.0)]
    columns = [i[:, None] * d + np.arange(d), j[:, None] * d + np.arange(d), np.full((pairs, 1), C * d)]
    rows = np.repeat(np.arange(pairs), 2 * d + 1)
    entries = (np.hstack(values).ravel(), (rows, np.hstack(columns).ravel()))
    return scipy.sparse.csr_matrix(entries, shape=(pairs, C * d + 1))


def _least_squares(J: scipy.sparse.csr_matrix, b: Float64Array) -> Float64Array:
    """Return the shortest solution, up to a small ridge, by the smaller system of normal equations."""
    wide = J.shape[0] < J.shape[1]
    N = (J @ J.T if wide else J.T @ J).toarray()
    N.flat[:: len(N) + 1] += RIDGE * N.diagonal().max()
    factor = scipy.linalg.cho_factor(N)
    return np.asarray(J.T @ scipy.linalg.cho_solve(factor, b) if wide else scipy.linalg.cho_solve(factor, J.T @ b))
