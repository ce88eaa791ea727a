"""Problems for `etfopt bench peers`, with their exact answers, and how wrong another answer is."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from etfopt.bench._exact import polar_and_slope, product
from etfopt.bench.units import DELTA, means_and_prox
from etfopt.frames import simplex_etf

__all__ = ["TOLERANCES", "Case", "Errors", "PeerProblem", "cases"]

Array = NDArray[Any]

TOLERANCES = {"float32": 1e-3, "float64": 1e-6}
"""Relative errors above which an answer is wrong: fewer than 3 right digits in float32, or 6 in float64."""

STEP = 1e-5
"""Of central differences: their error is some 1e-9, where the means are no nearer to a singular problem."""

SHAPES = ((64, 10), (512, 10), (512, 100), (2048, 1000))
BATCHES = ((64, 10, 64), (32, 5, 1000))

TERMS = ("proximal", "reduced frame", "rank-deficient")
"""Proximal: the simplex frame and the paper's proximal term. Reduced frame: without a proximal term, A has full rank.
Rank-deficient: the simplex frame without a proximal term; the ETF is unique, U is not."""


@dataclass(frozen=True)
class Case:
    """A problem by its description."""

    d: int
    C: int
    dtype: str = "float64"
    spectrum: str = "random"  # or "near collapse", or "collapse"
    term: str = "proximal"  # of TERMS
    batch: int = 0  # problems at once; 0 is one matrix

    @property
    def name(self) -> str:
        """What tables call it."""
        many = f"{self.batch} of " if self.batch else ""
        return f"{many}{self.d} x {self.C}, {self.dtype}, {self.spectrum}, {self.term}"


def cases(quick: bool = False) -> list[Case]:
    """Return the problems of the table, small ones first.

    Parameters
    ----------
    quick : bool
        Only 64 x 10 with the proximal term.

    Returns
    -------
    list of Case
        Single problems up to 2048 x 1000, and batches, in float32 and float64. "random" means are the start of
        training, "near collapse" and "collapse" its end.
    """
    if quick:
        return [Case(64, 10, dtype, spectrum) for dtype in TOLERANCES for spectrum in ("random", "near collapse")]
    kinds = [
        *((spectrum, term) for term in TERMS[:2] for spectrum in ("random", "near collapse")),
        ("collapse", "proximal"),
        ("random", "rank-deficient"),
    ]
    sizes = [(*SHAPES[0], 0), *((d, C, n) for d, C, n in BATCHES), *((d, C, 0) for d, C in SHAPES[1:])]
    return [
        Case(d, C, dtype, spectrum, term, batch)
        for d, C, batch in sizes
        for dtype in TOLERANCES
        for spectrum, term in kinds[: 2 if C == 1000 else None]  # they take a minute each
    ]


@dataclass(frozen=True)
class Errors:
    """How wrong an answer is; the worst of a batch. NaN counts as infinitely wrong."""

    orthonormality: float  # ||U'U - I||_F
    distance: float  # relative, from the exact U, or from the exact ETF where U is not unique
    derivative: float | None = None  # relative, of dL/dH; None where there is none
    second: float | None = None  # relative, of the derivative of dL/dH along `PeerProblem.along`

    def worst(self, other: Errors) -> Errors:
        """Return the larger of each; a derivative is that of `other`."""
        worst = (max(self.orthonormality, other.orthonormality), max(self.distance, other.distance))
        return Errors(*worst, other.derivative)


class PeerProblem:
    r"""Class means, a proximal point or the reduced frame, and a cotangent of U, that of a loss of the ETF.

    Every peer gets the linear term in its cheapest form: U does not depend on its size, and for the simplex frame
    :math:`HF' + \tfrac{\delta}{2} U_{prox}` is a multiple of the centred H plus `weight` times :math:`U_{prox}`.
    """

    def __init__(self, case: Case) -> None:
        self.case = case
        rng = np.random.default_rng(zlib.crc32(case.name.encode()))
        drawn = [means_and_prox(case.d, case.C, case.spectrum, rng) for _ in range(max(case.batch, 1))]
        H, prox = zip(*drawn, strict=True)
        frame = simplex_etf(case.C, reduced=case.term == "reduced frame")
        G = rng.standard_normal(np.shape(H)) @ frame.T
        shape = (case.batch, case.d, -1) if case.batch else (case.d, -1)
        self.H, self.G = (np.reshape(X, shape).astype(case.dtype) for X in (H, G))
        self.prox = np.reshape(prox, shape).astype(case.dtype) if case.term == "proximal" else None
        self.frame = frame.astype(case.dtype) if case.term == "reduced frame" else None

    @property
    def weight(self) -> Any:
        """Factor of the proximal point in the linear term."""
        return DELTA * np.sqrt(np.longdouble(self.case.C - 1)) / 2

    @cached_property
    def exact(self) -> tuple[Array, Array]:
        """U and dL/dH: of float32 data with the digits of float64, of float64 data with those of long double."""
        return self._exact(self.H)

    def _exact(self, H: Array) -> tuple[Array, Array]:
        wide: Any = np.longdouble if self.case.dtype == "float64" else np.float64
        H, G = H.astype(wide), self.G.astype(wide)
        if self.frame is not None:
            U, Y = polar_and_slope(product(H, self.frame.astype(wide).T), G)
            return U, product(Y, self.frame.astype(wide))
        A = _centred(H)
        if self.prox is not None:
            A = A + self.prox.astype(wide) * wide(self.weight)
        U, Y = polar_and_slope(A, G)
        return U, _centred(Y)

    @property
    def has_second(self) -> bool:
        """Whether second derivatives are judged: of one small problem in float64 where U is unique."""
        case = self.case
        return case.C <= 10 and case.dtype == "float64" and not case.batch and case.term != "rank-deficient"

    @cached_property
    def along(self) -> Array:
        """A direction of class means for second derivatives, of the size of H."""
        D = np.random.default_rng(1).standard_normal(self.H.shape)
        return np.asarray(D * (np.linalg.norm(self.H) / np.linalg.norm(D)))

    def second_error(self, found: Array) -> float:
        """Return the relative error of a derivative of dL/dH along `along`, by central differences of the exact one."""
        step = np.longdouble(STEP)
        ahead, back = (self._exact(self.H + sign * step * self.along)[1] for sign in (1, -1))
        right = (ahead - back) / (2 * STEP)
        return _worst(_norms(found - right) / _norms(right))

    def errors(self, U: Array, slope: Array | None = None) -> Errors:
        """Return how wrong U is, and a derivative dL/dH."""
        right, right_slope = self.exact
        wide = U.astype(np.float64)
        gram = wide.swapaxes(-1, -2) @ wide - np.eye(wide.shape[-1])
        off = U - right
        if self.case.term == "rank-deficient":  # the ETF U F does not see the direction that A leaves free
            off = _centred(off)
        return Errors(
            _worst(_norms(gram)),
            _worst(_norms(off) / _norms(right)),
            None if slope is None else _worst(_norms(slope - right_slope) / _norms(right_slope)),
        )

    @property
    def tolerance(self) -> float:
        """The relative error above which an answer is wrong."""
        return TOLERANCES[self.case.dtype]

    def right(self, errors: Errors) -> bool:
        """Whether U, and the derivative where there is one, has the digits that its dtype can give."""
        found = (errors.orthonormality, errors.distance, errors.derivative or 0.0)
        return max(found) <= self.tolerance


def _centred(X: Array) -> Array:
    return np.asarray(X - X.mean(-1, keepdims=True))


def _norms(X: Array) -> Array:
    """Return the Frobenius norm of each matrix."""
    return np.asarray(np.sqrt(np.square(X).sum((-2, -1))))


def _worst(errors: Array) -> float:
    return float(np.nan_to_num(errors, nan=np.inf, posinf=np.inf).max())
