"""Products of tall matrices, with rounding that hardly grows with the number of rows."""

from __future__ import annotations

import math

import numpy as np

from etfopt._arrays import Array
from etfopt._scaling import own_errstate

__all__ = ["FAR_OFF", "TALL", "feasibility", "tall_product"]

FAR_OFF = 1e-3
"""Distance from orthonormality that no rounding explains."""

TALL = 2048
"""Rows from which `tall_product` adds halves: sums of so many terms round by little beside what is promised."""


@own_errstate
def tall_product(X: Array, Y: Array) -> Array:
    r"""Return the product X'Y, whose rounding hardly grows with the number of rows.

    A sum of d equal terms can round the same way d times. The rows are halved down to blocks of `TALL`, and the
    blocks' products are added pairwise: :math:`\log_2(d/TALL)` additions more than a block has.

    Parameters
    ----------
    X, Y : ndarray, shapes (d, r) and (d, s)
        The factors.

    Returns
    -------
    ndarray, shape (r, s)
        In their dtype.

    References
    ----------
    Higham (2002), Accuracy and Stability of Numerical Algorithms, section 4.2. What rests on it:
    ``theory/certificate.py``, (f).

    Examples
    --------
    >>> import numpy as np
    >>> from etfopt.polar import tall_product
    >>> tall_product(np.ones((10000, 1)), np.ones((10000, 1)))
    array([[10000.]])
    """
    if len(X) <= TALL:
        return np.asarray(X.T @ Y)
    half = len(X) // 2
    return tall_product(X[:half], Y[:half]) + tall_product(X[half:], Y[half:])


@own_errstate
def feasibility(U: Array) -> float:
    r"""Return the distance from orthonormality :math:`\|U'U - I\|_F`, computed in float64.

    Parameters
    ----------
    U : ndarray, shape (d, r)
        Any matrix.

    Returns
    -------
    float
        0 for a point of the Stiefel manifold; inf where the value is out of range.

    Notes
    -----
    What rounding may add to it: ``theory/certificate.py``.

    Examples
    --------
    >>> import numpy as np
    >>> from etfopt.geometry import feasibility
    >>> feasibility(np.eye(4, 2)), feasibility(2 * np.eye(4, 1))
    (0.0, 3.0)
    """
    U64 = np.asarray(U, dtype=np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        distance = float(np.linalg.norm(tall_product(U64, U64) - np.eye(U64.shape[1])))
    return math.inf if math.isnan(distance) else distance
