"""One-vs-rest margin of a frame: how far each vector is from the convex hull of the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import scipy.optimize
from numpy.typing import ArrayLike

from etfopt._arrays import Array, Float64Array, as_matrix
from etfopt._scalars import as_positive
from etfopt.errors import InputError

__all__ = ["Margin", "one_vs_rest_margin"]

MANY = 500
"""With more vectors than this, bounds are first improved for all of them at once."""

EXACT, ROUGH, FEW = 1e-9, 1e-3, 1000
"""Duality gaps to stop at, and the most vectors for the first of them."""

SHARPNESS, STEPS = 400.0, 20
BLOCK = 2**24


@dataclass(frozen=True, eq=False)
class Margin:
    r"""The margin :math:`\rho = \min_k dist(f_k, conv\{f_j : j \ne k\})`, between two bounds.

    Attributes
    ----------
    rho : float
        Smallest distance found: that of a vector to a point of the hull of the others. The margin is at most this.
    lower_bound : float
        The margin is at least this: a hyperplane separates each vector from the others by that much.
    nearest : int
        The vector with the smallest distance.
    distances, bounds : ndarray, shape (C,)
        Upper and lower bound on the distance of each vector. They are far apart for vectors that cannot decide the
        margin: those are not solved.
    """

    rho: float
    lower_bound: float
    nearest: int
    distances: Float64Array = field(repr=False)
    bounds: Float64Array = field(repr=False)

    @property
    def gap(self) -> float:
        """``rho - lower_bound``: the duality gap, rounding errors when all problems are solved to the end."""
        return self.rho - self.lower_bound


def one_vs_rest_margin(
    F: ArrayLike, *, tolerance: float | None = None, progress: Callable[[float], object] | None = None
) -> Margin:
    r"""Return the one-vs-rest margin of the columns of F, with its duality gap.

    The distance of :math:`f_k` is a quadratic program,
    :math:`\min_\lambda \|f_k - \sum_{j \ne k}\lambda_j f_j\|` over the simplex. Any weights :math:`\lambda` bound it
    from above. Any unit vector w bounds it from below, by :math:`\min_{j \ne k} w'(f_k - f_j)`. A vector whose lower
    bound exceeds the smallest distance cannot decide the margin and is left out. An active-set method solves the
    others on the nearest vectors, and adds vectors that w does not separate.

    Parameters
    ----------
    F : array_like, shape (d, C)
        C >= 2 vectors, one column each; any length. Pass ``frame.vectors`` for unit vectors.
    tolerance : float, optional
        Duality gap at which to stop, relative to the longest vector. The default is 1e-9 for up to 1000 vectors and
        1e-3 for more, where exactness may take half an hour.
    progress : callable, optional
        Called with the gap after each quadratic program.

    Returns
    -------
    Margin
        The margin, its gap, and the bounds for each vector.

    Raises
    ------
    InputError
        If F is not a finite matrix with at least two columns, or the tolerance is not positive.

    References
    ----------
    Jiang, Zhou, Aich, et al. (2023), Generalized neural collapse for a large number of classes, arXiv 2310.05351. The
    reduction to non-negative least squares: Lawson and Hanson (1974), Solving Least Squares Problems, chapter 23.

    Examples
    --------
    >>> import etfopt.frames
    >>> etfopt.frames.simplex(5).margin.rho  # C/(C-1)
    1.25
    """
    X = np.ascontiguousarray(as_matrix(F, "F").T, dtype=np.float64)
    tolerance = (EXACT if len(X) <= FEW else ROUGH) if tolerance is None else as_positive(tolerance, "tolerance")
    if len(X) < 2:
        raise InputError(f"F has {len(X)} column; a margin needs at least 2", "F", F)
    scale = float(np.linalg.norm(X, axis=1).max())
    if scale == 0.0:
        return Margin(0.0, 0.0, 0, np.zeros(len(X)), np.zeros(len(X)))
    X = X / scale
    distances, bounds = _bounds(X)
    solved = np.zeros(len(X), dtype=bool)
    while True:
        k = int(np.argmin(np.where(solved, np.inf, bounds)))
        gap = float(distances.min() - bounds.min())
        if progress:
            progress(gap * scale)
        if solved[k] or gap <= tolerance:
            break
        distance, bound = _distance(X, k)
        distances[k], bounds[k] = min(distances[k], distance), max(bounds[k], bound)
        solved[k] = True
    nearest = int(np.argmin(distances))
    ends = float(distances[nearest]) * scale, float(min(bounds.min(), distances[nearest])) * scale
    return Margin(*ends, nearest, distances * scale, bounds * scale)


def _bounds(X: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Return cheap bounds on all distances: the nearest other vector from above, w = f_k from below."""
    C, size = len(X), max(1, BLOCK // len(X))
    distances, bounds = np.empty(C), np.empty(C)
    squares = np.sum(X * X, axis=1)
    for start in range(0, C, size):
        rows = np.arange(start, min(C, start + size))
        K = X[rows] @ X.T
        between = squares[rows, None] + squares - 2 * K
        between[np.arange(len(rows)), rows] = np.inf
        K[np.arange(len(rows)), rows] = -np.inf
        nearest = between.argmin(axis=1)
        distances[rows] = np.linalg.norm(X[rows] - X[nearest], axis=1)  # without cancellation
        norms = np.sqrt(np.maximum(squares[rows], np.finfo(float).tiny))
        bounds[rows] = np.maximum(0.0, (squares[rows] - K.max(axis=1)) / norms)
        if C > MANY:
            upper, lower = _smoothed(X, rows)
            distances[rows], bounds[rows] = np.minimum(distances[rows], upper), np.maximum(bounds[rows], lower)
    return distances, bounds


def _smoothed(X: Float64Array, rows: np.ndarray[tuple[int], np.dtype[np.intp]]) -> tuple[Float64Array, Float64Array]:
    """Return bounds by accelerated gradient steps on smoothed dual problems, many at once in float32.

    The dual variable w maximises w'f_k - log sum_j exp(b w'f_j)/b - |w|^2/2; the gradient is f_k - sum_j p_j f_j - w.
    The last w and p give the bounds, in float64.
    """
    V: Array = X.astype(np.float32)
    F = V[rows]
    W = Z = F
    momentum, own = 1.0, (np.arange(len(rows)), rows)
    for _ in range(STEPS):
        P = _softmax(Z @ V.T, own)
        new = Z + (F - P @ V - Z) / np.float32(SHARPNESS / 20)
        following = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        Z = new + np.float32((momentum - 1) / following) * (new - W)
        W, momentum = new, following
    P = _softmax(W @ V.T, own).astype(np.float64)
    upper = np.linalg.norm(X[rows] - (P / P.sum(axis=1, keepdims=True)) @ X, axis=1)
    w = W.astype(np.float64)
    w /= np.maximum(np.linalg.norm(w, axis=1, keepdims=True), np.finfo(float).tiny)
    S = w @ X.T
    at = S[own].copy()
    S[own] = -np.inf
    return upper, np.maximum(0.0, at - S.max(axis=1))


def _softmax(S: Array, own: tuple[np.ndarray, np.ndarray]) -> Array:
    """Return the weights of the other vectors: a softmax of the rows of S without the vector itself."""
    S[own] = -np.inf
    S -= S.max(axis=1, keepdims=True)
    S *= np.float32(SHARPNESS)
    np.maximum(S, -70.0, out=S)
    np.exp(S, out=S)
    S[own] = 0.0
    S /= S.sum(axis=1, keepdims=True)
    return S


def _distance(X: Float64Array, k: int) -> tuple[float, float]:
    """Return the distance of row k from the hull of the others, and the lower bound that its direction proves.

    The point of smallest norm in the hull of the columns of P is Py/1'y, where y >= 0 solves the least-squares problem
    [P; 1'] y = (0, ..., 0, 1).
    """
    C, d = X.shape
    differences = X[k] - X
    size = np.linalg.norm(differences, axis=1)
    size[k] = np.inf
    work = np.argsort(size)[: min(C - 1, 2 * d)]
    best, highest = float(size.min()), 0.0
    while best > 0:
        y = _nonnegative(np.vstack([differences[work].T, np.ones(len(work))]))
        if not y.any():
            break
        p = y / y.sum() @ differences[work]
        best = min(best, float(np.linalg.norm(p)))
        if best < 1e-15:
            break
        heights = differences @ (p / np.linalg.norm(p))
        heights[k] = np.inf
        highest = max(highest, float(heights.min()))
        new = np.setdiff1d(np.argsort(heights)[:d][np.sort(heights)[:d] < best - 1e-13], work)
        if not len(new):
            break
        work = np.append(work[y > 0], new)
    return best, highest


def _nonnegative(A: Float64Array) -> Float64Array:
    """Return y >= 0 that makes Ay nearest to the last unit vector; zeros if the method does not end."""
    b = np.zeros(len(A))
    b[-1] = 1.0
    try:
        return np.asarray(scipy.optimize.nnls(A, b, maxiter=30 * A.shape[1])[0])
    except RuntimeError:
        return np.zeros(A.shape[1])
