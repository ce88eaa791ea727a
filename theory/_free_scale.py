"""The formulas of `theory.free_scale`, and the same in fifty digits."""

from __future__ import annotations

from typing import Any

import mpmath
import numpy as np
from numpy.typing import NDArray

from theory._linalg import nuclear
from theory.draws import Matrix, polar

__all__ = ["gradient", "one_sided", "precise_distance", "relative_gradient", "squared_distance", "two_sided"]

DIGITS = 50


def squared_distance(H: NDArray[Any], F: NDArray[Any]) -> float:
    """Return the squared distance of H to the ETFs sUF of any size, a difference of squares."""
    return float(np.linalg.norm(H)) ** 2 - nuclear(H @ F.T) ** 2 / float(np.linalg.norm(F)) ** 2


def gradient(H: NDArray[Any], F: NDArray[Any]) -> Matrix:
    """Return the gradient of the squared distance where the nearest ETF is unique."""
    return np.asarray(2 * (H - nuclear(H @ F.T) / np.linalg.norm(F) ** 2 * polar(H @ F.T) @ F))


def relative_gradient(H: NDArray[Any], F: NDArray[Any]) -> Matrix:
    """Return the gradient of the squared distance over the squared norm of H."""
    size = float(np.linalg.norm(H)) ** 2
    rho = squared_distance(H, F) / size
    return np.asarray((gradient(H, F) - 2 * rho * H) / size)


def _matrix(X: NDArray[Any]) -> mpmath.matrix:
    return mpmath.matrix(X.tolist())


def _precise(H: mpmath.matrix, F: NDArray[Any]) -> mpmath.mpf:
    frame = _matrix(F)
    singular = mpmath.svd_r(H * frame.T, compute_uv=False)
    return mpmath.norm(H, 2) ** 2 - sum(singular) ** 2 / mpmath.norm(frame, 2) ** 2


def one_sided(H: NDArray[Any], X: NDArray[Any], F: NDArray[Any]) -> float:
    """Return the one-sided derivative of the squared distance along X."""
    # rounding of H leaves 1e-16 in place of zeros, so the step must be much larger than that
    with mpmath.workdps(DIGITS):
        here, h = _matrix(H), mpmath.mpf(10) ** -8
        return float((_precise(here + h * _matrix(X), F) - _precise(here, F)) / h)


def two_sided(H: NDArray[Any], X: NDArray[Any], F: NDArray[Any], relative: bool = False) -> float:
    """Return the derivative along X of the squared distance, or of the relative one."""
    with mpmath.workdps(DIGITS):
        h = mpmath.mpf(10) ** -12
        ends = [_matrix(H) + sign * h * _matrix(X) for sign in (1, -1)]
        ahead, behind = (_precise(end, F) / (mpmath.norm(end, 2) ** 2 if relative else 1) for end in ends)
        return float((ahead - behind) / (2 * h))


def precise_distance(H: NDArray[Any], F: NDArray[Any]) -> float:
    """Return the distance with all digits of a float."""
    with mpmath.workdps(DIGITS):
        return float(mpmath.sqrt(_precise(_matrix(H), F)))
