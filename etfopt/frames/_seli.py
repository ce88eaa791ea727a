"""The geometry of imbalanced classes: one frame for the class means and one for the classifier."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from etfopt._arrays import Float64Array, as_vector
from etfopt.errors import InputError
from etfopt.frames._frame import PROVEN_GAP, Frame, FrameCertificate
from etfopt.frames.reduced import reduced_simplex

__all__ = ["FramePair", "seli"]

LARGEST_RATIO = 1e12
"""Largest ratio of two class sizes: beyond it rounding decides the geometry of the rare classes."""


class FramePair(NamedTuple):
    r"""Two frames of C classes in the same coordinates: one for the class means, one for the classifier.

    Fit U to the class means with `F_H`, and classify with :math:`U F_W`.

    Attributes
    ----------
    F_H : Frame
        Where the class means go.
    F_W : Frame
        The classifier: its columns are the rows of W, up to the rotation U.

    References
    ----------
    Thrampoulidis, Kini, Vakilian and Behnia (2022), arXiv 2208.05512; ``theory/seli.py``.

    Examples
    --------
    >>> import etfopt.frames
    >>> F_H, F_W = etfopt.frames.seli([100, 10, 10])
    >>> F_H.r, F_W.C
    (2, 3)
    """

    F_H: Frame
    F_W: Frame

    @property
    def C(self) -> int:
        """Number of classes."""
        return self.F_H.C

    @property
    def r(self) -> int:
        """Number of rows of either frame."""
        return self.F_H.r

    @property
    def reason(self) -> str:
        """Why `etfopt.frames.best_frame` chose this pair; else empty."""
        return self.F_H.reason

    @property
    def scale(self) -> float:
        r"""The s in :math:`s\,F_H'F_W = I - 11'/C`: both frames have Frobenius norm 1, Z in the literature has not."""
        return (self.C - 1) / float(np.sum(self.F_H.F * self.F_W.F))

    @property
    def logit_gap(self) -> float:
        r"""Least lead of the right class's logit at collapse, for temperature 1 and W of unit mean-square row norm.

        A simplex has C/(C-1). The temperature for a confidence follows from it: ``theory/temperature.py``.
        """
        logits = np.sqrt(self.C) * self.F_H.vectors.T @ self.F_W.F
        right = np.diagonal(logits).copy()
        np.fill_diagonal(logits, -np.inf)
        return float((right - logits.max(axis=1)).min())


def seli(counts: ArrayLike) -> FramePair:
    r"""Return the geometry to which C classes of different sizes collapse, SELI.

    With :math:`S = I - 11'/C`, :math:`D = diag(n)` and :math:`S D S = V L^2 V'`,

    .. math:: F_W \propto L^{1/2} V', \qquad F_H \propto L^{-1/2} V', \qquad F_H'F_W \propto S.

    The class means then have a Gram matrix proportional to
    :math:`D^{-1/2} (D^{1/2} S D^{1/2})^{1/2} D^{-1/2}`, and the rows of the classifier one proportional to
    :math:`(S D S)^{1/2}`. Classes of equal size give the reduced simplex, twice.

    Parameters
    ----------
    counts : array_like, shape (C,)
        Number of training samples of each class, or their proportions: only ratios matter. All above 0. The ratio of
        the largest to the smallest is at most 1e12, and the result has an error of about 1e-16 times its root.

    Returns
    -------
    FramePair
        Frames F_H and F_W of shape (C-1, C), each of Frobenius norm 1. Of all rotations of :math:`V'`, the one that
        makes them continuous in the counts.

    Raises
    ------
    InputError
        If `counts` is not a vector of at least 2 finite positive numbers, or their ratio is too large.

    Notes
    -----
    The geometry holds in the limit of vanishing regularisation of an unconstrained-features model. At finite
    regularisation it depends on the regularisation. A class without samples has no place in it: leave the class out.

    References
    ----------
    Thrampoulidis, Kini, Vakilian and Behnia (2022), Imbalance trouble: revisiting neural-collapse geometry, arXiv
    2208.05512. Proof: ``theory/seli.py``.

    Examples
    --------
    >>> import numpy as np
    >>> import etfopt.frames
    >>> pair = etfopt.frames.seli([500, 100, 20, 5])
    >>> bool(np.allclose(pair.scale * pair.F_H.F.T @ pair.F_W.F, np.eye(4) - 1 / 4))
    True
    """
    n = as_counts(counts)
    C = len(n)
    Z = reduced_simplex(C) * np.sqrt(C - 1.0)
    P, L, _ = np.linalg.svd(Z * np.sqrt(n / n.max()), full_matrices=False)
    root = np.sqrt(L)
    # the symmetric roots of Z D Z': V' in these coordinates is P'Z
    return FramePair(*(_named(name, (P * s) @ P.T @ Z) for name, s in (("seli-H", 1 / root), ("seli-W", root))))


def as_counts(counts: ArrayLike) -> Float64Array:
    """Return class sizes as a vector of positive numbers, or raise `InputError`."""
    n = as_vector(counts, "counts")
    if len(n) < 2:
        raise InputError(f"counts must have an entry for each of C >= 2 classes; got {len(n)}", "counts", counts)
    if not (n > 0).all():
        c = int(np.argmin(n))
        message, remedy = f"counts must be above 0; class {c} has {n[c]:g}", "leave classes without samples out"
        raise InputError(message, "counts", counts, remedy)
    if n.max() / n.min() > LARGEST_RATIO:
        message = f"counts must differ by a factor of at most {LARGEST_RATIO:g}; got {n.max() / n.min():.3g}"
        raise InputError(message, "counts", counts, "pass numbers of samples")
    return n


def _named(name: str, F: Float64Array) -> Frame:
    """Return a factor with norm 1, and the largest cosine between its columns."""
    F = F / np.linalg.norm(F)
    unit = F / np.linalg.norm(F, axis=0)
    cosines = unit.T @ unit
    np.fill_diagonal(cosines, -1.0)
    largest, bound = float(cosines.max()), -1.0 / (F.shape[1] - 1)
    return Frame(name, F, FrameCertificate(largest, bound, None, "Rankin", largest - bound <= PROVEN_GAP))
