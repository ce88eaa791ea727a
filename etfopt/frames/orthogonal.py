"""Orthonormal vectors: the frame for features without negative entries."""

from __future__ import annotations

import numpy as np

from etfopt._scalars import as_integer
from etfopt.frames._frame import Frame, FrameCertificate

__all__ = ["orthogonal"]


def orthogonal(C: int) -> Frame:
    r"""Return C orthonormal vectors, :math:`F = I/\sqrt C`, the geometry of one-hot labels.

    Use it for features behind a ReLU: their cosines cannot be negative, so that no simplex fits them. For other
    features the simplex is better separated, by :math:`1/(C-1)` in the largest cosine.

    Parameters
    ----------
    C : int
        Number of classes, at least 2.

    Returns
    -------
    Frame
        F of shape (C, C), with largest cosine 0. It is not proven optimal, because the simplex is better.

    Raises
    ------
    InputError
        If C is not an integer of at least 2.

    References
    ----------
    The bound -1/(C-1) is Rankin's (1955): ``theory/simplex.py``.

    Examples
    --------
    >>> import etfopt.frames
    >>> etfopt.frames.orthogonal(5)
    Frame('orthogonal', r=5, C=5, largest cosine 0, at most 0.25 above the smallest possible)
    """
    C = as_integer(C, "C", at_least=2)
    certificate = FrameCertificate(0.0, -1.0 / (C - 1), None, "Rankin", proven=False)
    return Frame("orthogonal", np.eye(C) / np.sqrt(C), certificate)
