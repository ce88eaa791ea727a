r"""The certificate of optimality: checks of a point U that use the problem alone and trust no solver."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from etfopt._arrays import Float64Array, as_matrix
from etfopt._display import Described, Rows
from etfopt._held import Held
from etfopt._linear_term import LinearTerm
from etfopt._rounding import ROUNDOFF, change_bound, frame_ignores, gap_bound, number, residual_bound, unseen
from etfopt._scaling import normalized, own_errstate, rescaled
from etfopt.polar._products import TALL, feasibility, sym, tall_product
from etfopt.polar._svd import SVD, thin_svd
from etfopt.problem import NearestETF, require_problem

__all__ = ["Certificate", "certify"]

FEASIBLE_UNITS = 100
"""A point of up to `TALL` rows counts as feasible when ||U'U - I||_F is at most this many r u; the closed form stays
below 10 r u. What more rows add: `_feasibility_tolerance`."""


@dataclass(frozen=True, repr=False)
class Certificate(Described):
    r"""Bounds on how far a point U is from optimal, whichever solver found it.

    With :math:`A = 2HDF' + \delta U_{prox}` and :math:`\|A\|_*` its nuclear norm, every feasible U has the excess
    objective :math:`\|A\|_* - \langle A, U\rangle \ge 0`, and U is a global minimiser exactly when :math:`A = UK` with
    K symmetric positive semidefinite: stationarity is zero and curvature is not negative. (Only if d = r is it enough
    that :math:`U'A` is symmetric positive semidefinite.) Everything is computed in float64 from one SVD of A.

    Attributes
    ----------
    feasibility : float
        :math:`\|U'U - I\|_F`.
    stationarity, relative_stationarity : float
        :math:`\|A - U\,\mathrm{sym}(U'A)\|_F`, zero exactly at critical points, and the same over :math:`\|A\|_2`.
    curvature : float
        :math:`\lambda_{min}(\mathrm{sym}(U'A))`. If d = r, it is negative at critical points that are not minimisers.
    gap, relative_gap : float
        :math:`\|A\|_* - \langle A, U\rangle`, the excess objective of a feasible U, and the same over
        :math:`\|A\|_*` (0 if A is zero, where every point is optimal). Rounding changes the gap by at most
        :math:`1.01\sqrt r\,(2d + 12r + 100)\,u\,\|A\|_F`, so it can be below zero; so it can where U is infeasible.
    margin, unique : float, bool
        :math:`\sigma_{min}(A)`, and whether it exceeds the rounding of the data: then U is unique. Always False for the
        paper's frame without a proximal term, which leaves one direction of U free; see `etf_unique`.
    etf_unique : bool
        Whether the nearest ETF U F is unique: whether A has the numerical rank of F at least, and F' vanishes on the
        numerical null space of A, up to the root of rounding.
    distance_bound : float
        Bound on :math:`\|U - U^*\|_F`: the smaller of :math:`\sqrt{2\,gap/\sigma_{min}(A)}`, which holds for any U, and
        :math:`2\,stationarity/\sigma_{min}(A)`, which is small near the minimiser, plus what infeasibility of U and
        rounding of A, of its SVD and of the gap can add; inf where U* is not `unique`.
    etf_distance_bound : float
        Bound on :math:`\|UF - U^*F\|_F` for every minimiser U*, from the smallest singular value of A that is not
        rounding; inf where the ETF is not unique.
    feasibility_tolerance : float
        U is feasible up to this: 100 r u, and r u more each time that d doubles beyond 2048.
    held : float
        :math:`\|(U - U_0) Q\|_F` on the span of the held classes, with Q an orthonormal basis of it: feasible up to the
        same tolerance. 0 where nothing is held.

    Notes
    -----
    Where classes are held, A, its norms and the gap are those of the smaller problem ``problem.free``, which has the
    same excess objective; feasibility and the distance bounds are those of the whole U.

    The bounds by the gap follow from :math:`gap = \tfrac12 tr((U^*-U)B(U^*-U)') + \tfrac12 tr(B(I-U'U))` with B the
    symmetric polar factor of A; those by stationarity from U being the minimiser for UK, K = sym(U'A) semidefinite. The
    gap is of second order in the distance: its rounding would hide all distances below its root. Proofs with rounding:
    ``theory/certificate.py``. Uniqueness of U and of the ETF: ``theory/closed_form.py`` and ``theory/gauge.py``.
    Curvature: ``theory/landscape.py``. Absent classes, whose vertices may be free: ``theory/weights.py``.

    Examples
    --------
    >>> import numpy as np
    >>> import etfopt
    >>> problem = etfopt.NearestETF(np.eye(5, 3), reduced=True)
    >>> certificate = etfopt.certify(problem, -etfopt.solve(problem).U)
    >>> certificate.feasibility < 1e-14, certificate.stationarity < 1e-14, certificate.curvature < 0
    (True, True, True)
    >>> round(certificate.relative_gap, 4)  # a critical point, and the worst of all points
    2.0
    """

    feasibility: float
    stationarity: float
    relative_stationarity: float
    curvature: float
    gap: float
    relative_gap: float
    margin: float
    unique: bool
    etf_unique: bool
    distance_bound: float
    etf_distance_bound: float
    feasibility_tolerance: float
    held: float = 0.0

    @property
    def feasible(self) -> bool:
        """Whether U lies on the manifold, and keeps what is held, up to rounding in the working dtype."""
        return max(self.feasibility, self.held) <= self.feasibility_tolerance

    def optimal(self, gap_tolerance: float) -> bool:
        """Return whether U is feasible and its relative gap is at most a tolerance.

        Parameters
        ----------
        gap_tolerance : float

        Returns
        -------
        bool
        """
        return self.feasible and self.relative_gap <= gap_tolerance

    def _rows(self) -> Rows:
        tolerance = f"(feasible up to {self.feasibility_tolerance:.1e})"
        rotation = f"; ||U - U*|| at most {self.distance_bound:.1e}" if self.unique else ""
        unique = f"U and the ETF (margin {self.margin:.1e})" if self.unique else "neither U nor the ETF"
        if self.etf_unique and not self.unique:
            unique = "the ETF; the frame ignores a direction of U"
        return [
            ("feasibility", f"{self.feasibility:.1e} {tolerance}"),
            ("gap", f"{self.gap:.1e} (relative {self.relative_gap:.1e})"),
            ("||UF - U*F||", f"at most {self.etf_distance_bound:.1e}{rotation}"),
            ("unique", unique),
            ("critical", f"stationarity {self.stationarity:.1e}, curvature {self.curvature:.1e}"),
            *([("held", f"off by {self.held:.1e} {tolerance}")] if self.held else []),
        ]


@own_errstate
def certify(problem: NearestETF, U: ArrayLike) -> Certificate:
    """Certify a point against the problem's global optimum, by one SVD of the linear term.

    Parameters
    ----------
    problem : NearestETF
    U : array_like, shape (d, r)
        The point, from any solver. It need not be feasible: `Certificate.feasible` tells.

    Returns
    -------
    Certificate

    Raises
    ------
    InputError
        If U is not a finite real matrix of shape (d, r).

    Notes
    -----
    Proofs with rounding: ``theory/certificate.py``. How the data move U*: ``theory/conditioning.py``. Held classes:
    ``theory/held.py``.

    Examples
    --------
    >>> import numpy as np
    >>> import etfopt
    >>> problem = etfopt.NearestETF(np.eye(5, 3))
    >>> abs(etfopt.certify(problem, np.eye(5, 3)).relative_gap) < 1e-14
    True
    >>> round(etfopt.certify(problem, -np.eye(5, 3)).relative_gap, 4)
    2.0
    """
    require_problem(problem)
    U = np.asarray(as_matrix(U, "U", shape=(problem.d, problem.r)), dtype=np.float64)
    return _certified(problem, U) if problem.held is None else _certified_holding(problem, problem.held, U)


def _certified_holding(problem: NearestETF, held: Held, U: Float64Array) -> Certificate:
    """Certify a point of a problem with held classes: its part in the smaller problem, and that the rest stays."""
    inner = _certified(problem.free, held.part(U))
    off = held.moved(U)
    with np.errstate(over="ignore", invalid="ignore"):
        # U* has no part of the free directions in the held places
        across = number(float(np.linalg.norm(held.V.T @ U @ held.Q_free)))
    rounding = 4 * (problem.d + problem.r) * problem.r * ROUNDOFF
    beside = math.hypot(off, across) + rounding
    return replace(
        inner,
        feasibility=feasibility(U),
        distance_bound=math.hypot(inner.distance_bound, beside),
        etf_distance_bound=inner.etf_distance_bound + problem._frame_norm * beside,
        feasibility_tolerance=_feasibility_tolerance(problem.d, problem.r, problem.unit),
        held=off,
    )


def _certified(problem: NearestETF, U: Float64Array) -> Certificate:
    term = problem.scaled_linear_term
    svd = thin_svd(term.A)
    nuclear, spectral, margin = float(svd.S.sum()), float(svd.S[0]), float(svd.S[-1])

    infeasibility = feasibility(U)
    Y, e = normalized(U)
    YtA = tall_product(Y, term.A)
    gap = nuclear - float(rescaled(np.trace(YtA), e))
    K, least = rescaled(sym(YtA), e), np.linalg.eigvalsh(sym(YtA))[0]
    with np.errstate(over="ignore", invalid="ignore"):
        residual = number(float(np.linalg.norm(term.A - U @ K)))
    rank, etf_unique = _uniqueness(problem, term, svd)
    off = 1.05 * (infeasibility + problem.d * problem.r * ROUNDOFF)  # the computed one is rounded too
    excess, change = gap_bound(gap, svd, off, problem.d), change_bound(problem, term, svd)
    beside = residual_bound(term.A, U, K, residual, float(rescaled(least, e)), off)

    def bound(sigma: float) -> float:
        # U* moves with A, more where only part of it is determined
        factor = (2 if rank == problem.r else 4) / sigma
        by_gap = math.sqrt(2 * excess / sigma) + off * math.sqrt(problem.r)
        return min(by_gap, off + factor * beside) + factor * change

    hidden = unseen(problem, svd.Q[:, rank:]) if rank < problem.r else 0.0
    return Certificate(
        feasibility=infeasibility,
        stationarity=_natural(residual, term),
        relative_stationarity=residual / spectral if spectral > 0 else 0.0,
        curvature=float(rescaled(least, e + term.exponent)),
        gap=_natural(gap, term),
        relative_gap=gap / nuclear if nuclear > 0 else 0.0,
        margin=_natural(margin, term),
        unique=rank == problem.r,
        etf_unique=etf_unique,
        distance_bound=bound(margin) if rank == problem.r else math.inf,
        etf_distance_bound=(problem._frame_norm * bound(float(svd.S[rank - 1])) + hidden if etf_unique else math.inf),
        feasibility_tolerance=_feasibility_tolerance(problem.d, problem.r, problem.unit),
    )


def _feasibility_tolerance(d: int, r: int, unit: float) -> float:
    """Return what rounding alone may make of ||U'U - I||_F.

    A solver divides by a U'U that it has computed, and `feasibility` computes it again. By `tall_product` each halving
    beyond `TALL` rows adds one addition to every sum, of relative error u/2, which moves U'U by at most u/2 of
    |U|'|U|, whose norm is at most ||U||_F^2 = r: u/2 r each time, for the solver and for the check.
    """
    return (FEASIBLE_UNITS + math.log2(max(1.0, d / TALL))) * r * unit


def _uniqueness(problem: NearestETF, term: LinearTerm, svd: SVD) -> tuple[int, bool]:
    """Return the numerical rank of A, and whether F' vanishes on the null space that is left."""
    rank = int(np.count_nonzero(term.rounding < svd.S))
    if rank in (0, problem.r):
        return rank, rank == problem.r
    return rank, frame_ignores(problem, np.asarray(svd.Q[:, rank:]), float(svd.S[rank - 1]))


def _natural(value: float, term: LinearTerm) -> float:
    return float(rescaled(value, term.exponent))
