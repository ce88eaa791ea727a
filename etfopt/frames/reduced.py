"""The simplex in C - 1 coordinates: its rows are orthogonal, so that d = C - 1 features are enough."""

from __future__ import annotations

import numpy as np

from etfopt._arrays import Float64Array
from etfopt._scalars import as_integer

__all__ = ["reduced_simplex"]


def reduced_simplex(C: int) -> Float64Array:
    r"""Return :math:`F = Z / \sqrt{C-1}`, Z the Helmert matrix: :math:`ZZ' = I`, :math:`Z1 = 0`.

    It is `etfopt.simplex_etf` with ``reduced=True``.

    Parameters
    ----------
    C : int
        Number of classes, at least 2.

    Returns
    -------
    ndarray, shape (C-1, C), float64
        F, of Frobenius norm 1.

    Raises
    ------
    InputError
        If C is not an integer of at least 2.

    References
    ----------
    Proof that it is a simplex equiangular tight frame: ``theory/simplex.py``.

    Examples
    --------
    >>> from etfopt.frames.reduced import reduced_simplex
    >>> reduced_simplex(2).round(4)
    array([[ 0.7071, -0.7071]])
    """
    # row k of the Helmert matrix: k ones, then -k, over sqrt(k (k + 1))
    C = as_integer(C, "C", at_least=2)
    k, column = np.arange(1, C)[:, None], np.arange(C)[None, :]
    helmert = np.where(column < k, 1.0, np.where(column == k, -k, 0.0)) / np.sqrt(k * (k + 1.0))
    return np.asarray(helmert / np.sqrt(C - 1.0))
