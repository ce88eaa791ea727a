"""The simplex in C - 1 coordinates: its rows are orthogonal, so that d = C - 1 features are enough."""

from __future__ import annotations

import numpy as np

from etfopt._arrays import Float64Array
from etfopt._scalars import as_integer
from etfopt.frames._frame import Frame
from etfopt.frames._regimes import simplex_certificate

__all__ = ["reduced"]


def reduced(C: int) -> Frame:
    r"""Return the simplex of C vectors in C - 1 coordinates, with its certificate.

    .. math:: F = Z / \sqrt{C-1}, \qquad Z \text{ the Helmert matrix: } ZZ' = I,\; Z1 = 0

    Choose it before `etfopt.frames.simplex`: d = C - 1 features are enough, and the rotation U is unique without a
    proximal term.

    Parameters
    ----------
    C : int
        Number of classes, at least 2.

    Returns
    -------
    Frame
        F of shape (C-1, C), proven optimal in every dimension.

    Raises
    ------
    InputError
        If C is not an integer of at least 2.

    References
    ----------
    Rankin (1955). No C unit vectors are better separated: ``theory/simplex.py``.

    Examples
    --------
    >>> import etfopt.frames
    >>> etfopt.frames.reduced(10)
    Frame('reduced', r=9, C=10, largest cosine -0.111111, proven optimal)
    """
    F = reduced_simplex(C)
    return Frame("reduced", F, simplex_certificate(F.shape[1]))


def reduced_simplex(C: int) -> Float64Array:
    r"""Return :math:`F = Z / \sqrt{C-1}`, Z the Helmert matrix: :math:`ZZ' = I`, :math:`Z1 = 0`.

    It is `etfopt.simplex_etf` with ``reduced=True``, of shape (C-1, C) and Frobenius norm 1: ``theory/simplex.py``.
    """
    # row k of the Helmert matrix: k ones, then -k, over sqrt(k (k + 1))
    C = as_integer(C, "C", at_least=2)
    k, column = np.arange(1, C)[:, None], np.arange(C)[None, :]
    helmert = np.where(column < k, 1.0, np.where(column == k, -k, 0.0)) / np.sqrt(k * (k + 1.0))
    return np.asarray(helmert / np.sqrt(C - 1.0))
