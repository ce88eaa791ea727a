"""A frame with what is known about it: its largest cosine, and how small that of any other frame could be."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import DTypeLike

from etfopt._arrays import Array, Float64Array, as_matrix
from etfopt._display import Rows, Tabulated
from etfopt.errors import InputError

if TYPE_CHECKING:
    from etfopt.frames._margin import Margin

__all__ = ["Frame", "FrameCertificate"]

PROVEN_GAP = 1e-12
"""A computed frame is proven optimal if its largest cosine is within this gap of a rigorous lower bound."""


@dataclass(frozen=True)
class FrameCertificate:
    r"""How well separated the vectors of a frame are, and how well C vectors can be separated.

    The *largest cosine* of C unit vectors is :math:`\mu = \max_{i \ne j} f_i'f_j`. Small is well separated. A lower
    bound depends on the dimension d: more dimensions leave more room.

    Attributes
    ----------
    largest_cosine : float
        :math:`\mu` of the frame. Closed-form frames have the exact value, rounded once.
    lower_bound : float
        No C unit vectors in :math:`R^d` have a smaller largest cosine. The bound is rigorous, rounding included.
    d : int or None
        The dimension that `lower_bound` holds for. It then holds in every smaller dimension too. None means that it
        holds in every dimension.
    method : str
        Where the bound comes from: "Rankin", or "Delsarte, degree 7".
    proven : bool
        Whether no C unit vectors in :math:`R^d` are better separated: by a theorem for closed-form frames, by a gap
        of at most 1e-12 for computed ones. A frame that is not proven optimal may still be optimal.

    References
    ----------
    Rankin (1955), The closest packing of spherical caps in n dimensions. The simplex and the orthoplex regime:
    ``theory/simplex.py``, ``theory/orthoplex.py``.

    Examples
    --------
    >>> import etfopt.frames
    >>> etfopt.frames.simplex(5).certificate
    FrameCertificate(largest_cosine=-0.25, lower_bound=-0.25, d=None, method='Rankin', proven=True)
    """

    largest_cosine: float
    lower_bound: float
    d: int | None
    method: str
    proven: bool

    def __post_init__(self) -> None:
        # scalars of NumPy are no JSON, and print otherwise
        for name, kind in (("largest_cosine", float), ("lower_bound", float), ("proven", bool)):
            object.__setattr__(self, name, kind(getattr(self, name)))

    @property
    def gap(self) -> float:
        """``largest_cosine - lower_bound``: the most that another frame could gain. Rounding may leave it below 0."""
        return self.largest_cosine - self.lower_bound


@dataclass(frozen=True, eq=False)
class Frame(Tabulated):
    r"""C vectors, one column each, with what is known about them.

    A Frame is accepted wherever a matrix F is: ``etfopt.nearest_etf(H, frame=frame)``. ``numpy.asarray(frame)`` is F.

    Attributes
    ----------
    name : str
        What the frame is: "simplex", "orthoplex", "code".
    F : ndarray, shape (r, C)
        Frobenius norm 1, float64, read-only. All columns have norm :math:`1/\sqrt C`, except in the SELI geometry.
    certificate : FrameCertificate
        Largest cosine, lower bound, and whether the frame is proven optimal.
    reason : str
        Why `etfopt.frames.best_frame` chose this frame; else empty.

    Raises
    ------
    InputError
        If F is not a finite matrix of Frobenius norm 1 without zero columns.

    References
    ----------
    Closed-form frames: ``theory/simplex.py``, ``theory/orthoplex.py``, ``theory/seli.py``.

    Examples
    --------
    >>> import etfopt.frames
    >>> frame = etfopt.frames.polygon(4)
    >>> frame.r, frame.C, frame.largest_cosine
    (2, 4, 0.0)
    """

    name: str
    F: Float64Array
    certificate: FrameCertificate
    reason: str = ""

    def __post_init__(self) -> None:
        # a matrix that nobody can change is not copied: frames of thousands of classes fill gigabytes
        frozen = isinstance(self.F, np.ndarray) and not self.F.flags.writeable and self.F.base is None
        F = as_matrix(self.F, "F", copy=not frozen).astype(np.float64, copy=False)
        F.flags.writeable = False
        norms = np.linalg.norm(F, axis=0)
        if not norms.all():
            raise InputError(f"F has a zero column, number {int(np.argmin(norms))}", "F", F, "remove or replace it")
        if abs(np.linalg.norm(norms) - 1.0) > 1e-9:
            message = f"F must have Frobenius norm 1; got {np.linalg.norm(norms):.6g}"
            raise InputError(message, "F", F, "divide it by its norm: F / numpy.linalg.norm(F)")
        object.__setattr__(self, "F", F)

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> Array:
        changed = dtype is not None and np.dtype(dtype) != self.F.dtype
        if changed and copy is False:
            raise ValueError(f"F is float64; it cannot be had as {np.dtype(dtype)} without a copy")
        return np.array(self.F, dtype=dtype) if changed or copy else self.F

    def __repr__(self) -> str:
        cosine = f"largest cosine {self.largest_cosine:.6g}"
        return f"Frame({self.name!r}, r={self.r}, C={self.C}, {cosine}, {self._known()})"

    def _known(self) -> str:
        c = self.certificate
        return "proven optimal" if c.proven else f"at most {c.gap:.2g} above the smallest possible"

    def _rows(self) -> Rows:
        return [
            ("name", self.name),
            ("vectors C", str(self.C)),
            ("rows r", str(self.r)),
            ("largest cosine", f"{self.largest_cosine:.6g}"),
            ("optimality", self._known()),
            *([("reason", self.reason)] if self.reason else []),
        ]

    @property
    def r(self) -> int:
        """Number of rows: the least number of features that the frame needs."""
        return int(self.F.shape[0])

    @property
    def C(self) -> int:
        """Number of vectors, one a class."""
        return int(self.F.shape[1])

    @property
    def largest_cosine(self) -> float:
        """Largest cosine between two of the vectors, from the certificate."""
        return self.certificate.largest_cosine

    @cached_property
    def vectors(self) -> Float64Array:
        """The columns of F with norm 1, shape (r, C), read-only."""
        vectors: Float64Array = self.F / np.linalg.norm(self.F, axis=0)
        vectors.flags.writeable = False
        return vectors

    @cached_property
    def margin(self) -> Margin:
        r"""One-vs-rest margin of the unit vectors, :math:`\min_k dist(f_k, conv\{f_j : j \ne k\})`, computed once."""
        from etfopt.frames._margin import one_vs_rest_margin

        return one_vs_rest_margin(self.vectors)
