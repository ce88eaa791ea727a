"""The formulas of `theory.envelope`, and the same in fifty digits."""

from __future__ import annotations

import mpmath
import numpy as np

from theory._linalg import nuclear
from theory.draws import Matrix, polar

__all__ = ["curvature", "distance", "gradients", "nearest", "precise_change"]

DIGITS = 60


def distance(H: Matrix, w: Matrix, F: Matrix, free: bool) -> float:
    """Return the weighted squared distance to the nearest ETF, a difference of squares."""
    square, size, x = float((w * H**2).sum()), float((w * F**2).sum()), nuclear((H * w) @ F.T)
    if not free:
        return square - 2 * x + size
    return square - x**2 / size if size > 0 else square


def nearest(H: Matrix, w: Matrix, F: Matrix, free: bool) -> Matrix:
    """Return a nearest ETF."""
    N, size = (H * w) @ F.T, float((w * F**2).sum())
    s = nuclear(N) / size if free and size > 0 else 1.0 - free
    return np.asarray(s * polar(N) @ F)


def gradients(H: Matrix, w: Matrix, E: Matrix) -> tuple[Matrix, Matrix]:
    """Return the gradients in H and in w, given the nearest ETF."""
    return 2 * (H - E) * w, np.asarray(((H - E) ** 2).sum(axis=0))


def curvature(N: Matrix, w: Matrix, F: Matrix, free: bool, X: Matrix, turned: float) -> float:
    """Return the second derivative along X; `turned` is that of the nuclear norm, where U turns."""
    plain, M, size = 2 * float((w * X**2).sum()), (X * w) @ F.T, float((w * F**2).sum())
    if not free:
        return plain - 2 * turned
    return plain - 2 / size * (float((polar(N) * M).sum()) ** 2 + nuclear(N) * turned)


def precise_change(H: Matrix, w: Matrix, F: Matrix, free: bool, X: Matrix, v: Matrix) -> tuple[float, float, float]:
    """Return the first and second derivative along (X, v), and the value, with all digits of a float."""
    with mpmath.workdps(DIGITS):
        h = mpmath.mpf(10) ** -14
        behind, here, ahead = (_precise(H, w, F, free, X, v, t) for t in (-h, mpmath.mpf(0), h))
        return float((ahead - behind) / (2 * h)), float((ahead - 2 * here + behind) / h**2), float(here)


def _precise(H: Matrix, w: Matrix, F: Matrix, free: bool, X: Matrix, v: Matrix, t: mpmath.mpf) -> mpmath.mpf:
    means = mpmath.matrix(H.tolist()) + t * mpmath.matrix(X.tolist())
    weights = [mpmath.mpf(float(a)) + t * mpmath.mpf(float(b)) for a, b in zip(w, v, strict=True)]
    frame, D = mpmath.matrix(F.tolist()), mpmath.diag(weights)
    x = sum(mpmath.svd_r(means * D * frame.T, compute_uv=False))
    square, size = (sum(c * Y[i, j] ** 2 for j, c in enumerate(weights) for i in range(Y.rows)) for Y in (means, frame))
    return square - x**2 / size if free else square - 2 * x + size
