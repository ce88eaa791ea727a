"""The simplex in C - 1 coordinates: its rows are orthogonal, so that d = C - 1 features are enough."""

from __future__ import annotations

import numpy as np

from etfopt._arrays import Float64Array
from etfopt._scalars import as_integer

__all__ = ["reduced_simplex"]


def reduced_simplex(C: int) -> Float64Array:
    r"""Return :math:`F = Z / \sqrt{C-1}`, Z the Helmert matrix: :math:`ZZ' = I`, :math:`Z1 = 0`.

    It is `etfopt.simplex_etf` with ``reduced=True``, of shape (C-1, C) and Frobenius norm 1: ``theory/simplex.py``.
    """
    # row k of the Helmert matrix: k ones, then -k, over sqrt(k (k + 1))
    C = as_integer(C, "C", at_least=2)
    k, column = np.arange(1, C)[:, None], np.arange(C)[None, :]
    helmert = np.where(column < k, 1.0, np.where(column == k, -k, 0.0)) / np.sqrt(k * (k + 1.0))
    return np.asarray(helmert / np.sqrt(C - 1.0))
