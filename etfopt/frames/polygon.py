"""The regular polygon: the best frame in two dimensions."""

from __future__ import annotations

import numpy as np

from etfopt._scalars import as_integer
from etfopt.errors import InputError
from etfopt.frames._frame import Frame
from etfopt.frames._regimes import optimal

__all__ = ["polygon"]

ROUND_COSINES = {3: -0.5, 4: 0.0, 6: 0.5}
"""The rational values of cos(2 pi/C)."""


def polygon(C: int) -> Frame:
    r"""Return the corners of the regular polygon, C vectors in two dimensions.

    Class c lies at the angle :math:`2\pi c/C`, so neighbouring classes are neighbours in the plane.

    Parameters
    ----------
    C : int
        Number of classes, at least 3.

    Returns
    -------
    Frame
        F of shape (2, C), with largest cosine :math:`\cos(2\pi/C)`. Proven optimal for d = 2: C angles add up to
        :math:`2\pi`, so the smallest is at most :math:`2\pi/C`. In more dimensions better frames exist if C > 4.

    Raises
    ------
    InputError
        If C is not an integer of at least 3.

    References
    ----------
    Rankin (1955). Proof: ``theory/orthoplex.py``.

    Examples
    --------
    >>> import etfopt.frames
    >>> etfopt.frames.polygon(12)
    Frame('polygon', r=2, C=12, largest cosine 0.866025, proven optimal)
    """
    if as_integer(C, "C", at_least=2) == 2:
        raise InputError("C = 2 vectors are no polygon", "C", C, "use etfopt.frames.reduced(2)")
    angles = 2 * np.pi * np.arange(C) / C
    F = np.stack([np.cos(angles), np.sin(angles)])
    cosine = ROUND_COSINES.get(C, float(np.cos(2 * np.pi / C)))
    # the triangle is a simplex, which no dimension improves
    return Frame("polygon", F / np.sqrt(C), optimal(cosine, None if C == 3 else 2))
