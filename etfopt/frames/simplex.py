"""The simplex equiangular tight frame, the frame of neural collapse."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

from etfopt._arrays import Array
from etfopt._scalars import as_integer
from etfopt.errors import InputError
from etfopt.frames._frame import Frame
from etfopt.frames._regimes import simplex_certificate
from etfopt.frames.reduced import reduced_simplex

__all__ = ["simplex", "simplex_etf"]


def simplex(C: int) -> Frame:
    r"""Return the simplex equiangular tight frame of C vectors in C coordinates, with its certificate.

    .. math:: M = (I - 11'/C) / \sqrt{C-1}

    It is the matrix of Markou, Ajanthan and Gould (2024). `etfopt.frames.reduced` is the same frame in C - 1
    coordinates.

    Parameters
    ----------
    C : int
        Number of classes, at least 2.

    Returns
    -------
    Frame
        F of shape (C, C), proven optimal in every dimension.

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
    >>> etfopt.frames.simplex(10)
    Frame('simplex', r=10, C=10, largest cosine -0.111111, proven optimal)
    """
    C = as_integer(C, "C", at_least=2)
    return Frame("simplex", np.asarray(simplex_etf(C), dtype=np.float64), simplex_certificate(C))


def simplex_etf(C: int, *, reduced: bool = False, dtype: DTypeLike = np.float64) -> Array:
    r"""Return the simplex equiangular tight frame of C vectors.

    .. math:: M = (I - 11'/C) / \sqrt{C-1}, \qquad
              F = Z / \sqrt{C-1} \quad (Z \text{ the Helmert matrix, } ZZ' = I,\; Z1 = 0).

    Both have Frobenius norm 1 and columns of norm :math:`1/\sqrt C` with pairwise cosine :math:`-1/(C-1)`.

    Parameters
    ----------
    C : int
        Number of classes, at least 2.
    reduced : bool
        False returns :math:`M`, the choice of Markou, Ajanthan and Gould (2024), which needs d >= C features. True
        returns :math:`F`, the same frame in coordinates with orthogonal rows: d >= C - 1 is enough.
    dtype : dtype
        float64 or float32.

    Returns
    -------
    ndarray, shape (C, C), or (C-1, C) if `reduced`

    Raises
    ------
    InputError
        If C or dtype is no such number or type.

    References
    ----------
    Markou, Ajanthan and Gould (2024). Both are simplex equiangular tight frames, and no C unit vectors are better
    separated: ``theory/simplex.py``. What a choice between them changes: ``theory/gauge.py``, 3.

    Examples
    --------
    >>> import etfopt
    >>> etfopt.simplex_etf(2, reduced=True).round(4)
    array([[ 0.7071, -0.7071]])
    """
    C = as_integer(C, "C", at_least=2)
    try:
        supported = np.dtype(dtype) in (np.dtype(np.float32), np.dtype(np.float64))
    except TypeError:
        supported = False
    if not supported:
        raise InputError(f"dtype must be float32 or float64; got {dtype!r}", "dtype", dtype)
    frame: Array = reduced_simplex(C) if reduced else (np.eye(C) - 1.0 / C) / np.sqrt(C - 1.0)
    return frame.astype(dtype)
