"""Orthogonal simplices: the best frames of d + 2 to 2d vectors, up to the orthoplex."""

from __future__ import annotations

import numpy as np

from etfopt.errors import InputError
from etfopt.frames._frame import Frame
from etfopt.frames._regimes import optimal, regime
from etfopt.frames.reduced import reduced_simplex

__all__ = ["orthoplex"]


def orthoplex(d: int, C: int) -> Frame:
    r"""Return C vectors in d dimensions with largest cosine 0, for d + 2 <= C <= 2d.

    They are k = C - d simplices in orthogonal subspaces. Their sizes are C // k and C // k + 1, the larger first.
    Equal sizes minimise the sum of all squared cosines among such frames. For C = 2d the simplices are the d pairs
    :math:`\pm e_i` of the orthoplex (cross-polytope). Classes of one simplex have consecutive numbers.

    Parameters
    ----------
    d : int
        Number of dimensions, at least 2.
    C : int
        Number of classes, d + 2 to 2d.

    Returns
    -------
    Frame
        F of shape (d, C). Proven optimal in every dimension up to C - 2.

    Raises
    ------
    InputError
        If d or C is not such an integer.

    References
    ----------
    Rankin (1955): no d + 2 unit vectors of :math:`R^d` have only negative cosines. Proof, and why equal sizes:
    ``theory/orthoplex.py``.

    Examples
    --------
    >>> import etfopt.frames
    >>> etfopt.frames.orthoplex(512, 1000)
    Frame('orthoplex', r=512, C=1000, largest cosine 0, proven optimal)
    """
    d, C, best = regime(d, C)
    if best == "simplex":
        message = f"orthogonal simplices need C >= d + 2 = {d + 2} vectors; got C = {C}"
        raise InputError(message, "C", C, f"use etfopt.frames.reduced({C}), which is better separated")
    if best != "orthoplex":
        message = (
            f"d = {d} dimensions have room for at most 2d = {2 * d} vectors without a positive cosine; got C = {C}"
        )
        raise InputError(message, "C", C, f"use etfopt.frames.best_frame({d}, {C}), or d >= {-(-C // 2)}")
    k = C - d
    size, larger = divmod(C, k)
    F = np.zeros((d, C))
    row = column = 0
    blocks = {n: reduced_simplex(n) * np.sqrt(n / C) for n in {size, size + 1}}
    for n in [size + 1] * larger + [size] * (k - larger):
        F[row : row + n - 1, column : column + n] = blocks[n]
        row, column = row + n - 1, column + n
    return Frame("orthoplex", F, optimal(0.0, C - 2))
