r"""The certificate of optimality: what is known about a point U from the problem alone, whichever solver found it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from etfopt._inputs import as_matrix, require_shape
from etfopt._scaling import normalized, rescaled
from etfopt.geometry import SVD, feasibility, sym, thin_svd
from etfopt.problem import LinearTerm, NearestETF

__all__ = ["Certificate", "certify"]

FEASIBLE_UNITS = 100
"""A point counts as feasible when ||U'U - I||_F is at most this many r u; the closed form stays below 10 r u."""


@dataclass(frozen=True)
class Certificate:
    r"""How far a point U is from optimal, in terms that trust no solver.

    With :math:`A = 2HF' + \delta U_{prox}` and :math:`\|A\|_*` its nuclear norm, every feasible U has the excess
    objective :math:`\|A\|_* - \langle A, U\rangle \ge 0`, and U is a global minimiser exactly when :math:`U'A` is
    symmetric positive semidefinite. Everything is computed in float64 from one SVD of A.

    Attributes
    ----------
    feasibility : float
        :math:`\|U'U - I\|_F`.
    stationarity : float
        :math:`\|A - U\,\mathrm{sym}(U'A)\|_F`, zero exactly at critical points.
    relative_stationarity : float
        The same divided by :math:`\|A\|_2`.
    curvature : float
        :math:`\lambda_{min}(\mathrm{sym}(U'A))`, negative at critical points that are not minimisers when d = r.
    gap : float
        :math:`\|A\|_* - \langle A, U\rangle`, the excess objective. Rounding can leave it below zero by a few u.
    relative_gap : float
        gap divided by :math:`\|A\|_*` (0 if A is zero, where every point is optimal).
    margin : float
        :math:`\sigma_{min}(A)`, which decides uniqueness of U.
    unique : bool
        Whether the margin exceeds what rounding the data can cause. The paper's frame without a proximal term
        leaves one direction of U free, so this is then always False; see `etf_unique`.
    etf_unique : bool
        Whether the nearest ETF U F is unique: whether F' vanishes on the numerical null space of A, up to the root of
        rounding (what it sees there is part of `etf_distance_bound`).
    distance_bound : float
        Bound on :math:`\|U - U^*\|_F`: :math:`\sqrt{2\,gap/\sigma_{min}(A)}` plus what rounding of U and of the gap
        can add; inf where U* is not unique.
    etf_distance_bound : float
        Bound on :math:`\|UF - U^*F\|_F`, from the smallest singular value of A that is not rounding; inf where the
        ETF is not unique.
    feasibility_tolerance : float
        100 r u, up to which U counts as feasible.

    Notes
    -----
    The bound follows from :math:`gap = \tfrac12 tr((U^*-U)B(U^*-U)') + \tfrac12 tr(B(I-U'U))` with B the symmetric
    polar factor of A.
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

    @property
    def feasible(self) -> bool:
        """Whether U lies on the manifold up to rounding in the working dtype."""
        return self.feasibility <= self.feasibility_tolerance

    def optimal(self, gap_tolerance: float) -> bool:
        """Whether U is feasible and its relative gap is at most `gap_tolerance`."""
        return self.feasible and self.relative_gap <= gap_tolerance


def certify(problem: NearestETF, U: ArrayLike) -> Certificate:
    """Certify a point of any origin against the problem's global optimum.

    Parameters
    ----------
    problem : NearestETF
    U : array_like, shape (d, r)
        The point to judge. It need not be feasible: `Certificate.feasibility` says whether it is.

    Returns
    -------
    Certificate

    Raises
    ------
    InputError
        If U is not a finite real matrix of shape (d, r).
    """
    U = np.asarray(as_matrix(U, "U"), dtype=np.float64)
    require_shape(U, (problem.d, problem.r), "U")
    term = problem.scaled_linear_term
    svd = thin_svd(term.A)
    nuclear, spectral, margin = float(svd.S.sum()), float(svd.S[0]), float(svd.S[-1])

    infeasibility = feasibility(U)
    Y, e = normalized(U)
    YtA = Y.T @ term.A
    gap = nuclear - float(rescaled(np.trace(YtA), e))
    with np.errstate(over="ignore", invalid="ignore"):
        residual = float(np.linalg.norm(term.A - U @ rescaled(sym(YtA), e)))
    stationarity = math.inf if math.isnan(residual) else residual
    rank, etf_unique = _uniqueness(problem, term, svd)
    excess = _gap_bound(gap, nuclear, infeasibility, problem.r)
    formed = term.rounding * float(np.finfo(np.float64).eps) / problem.unit

    def bound(sigma: float) -> float:
        # the gap; leaving the ball; and the change of U* when A is off by what forming it in float64 has rounded
        # (Li, 1995: at most 2 ||dA|| / sigma)
        return math.sqrt(2 * excess / sigma) + infeasibility * math.sqrt(problem.r) + 2 * formed / sigma

    # U and U* may differ at will on the null space of A, of which F' sees no more than rounding
    unseen = 2 * float(np.linalg.norm(svd.Q[:, rank:].T @ problem.F)) if rank < problem.r else 0.0
    return Certificate(
        feasibility=infeasibility,
        stationarity=_natural(stationarity, term),
        relative_stationarity=stationarity / spectral if spectral > 0 else 0.0,
        curvature=float(rescaled(np.linalg.eigvalsh(sym(YtA))[0], e + term.exponent)),
        gap=_natural(gap, term),
        relative_gap=gap / nuclear if nuclear > 0 else 0.0,
        margin=_natural(margin, term),
        unique=rank == problem.r,
        etf_unique=etf_unique,
        distance_bound=bound(margin) if rank == problem.r else math.inf,
        etf_distance_bound=(
            float(np.linalg.norm(problem.F, 2)) * bound(float(svd.S[rank - 1])) + unseen if etf_unique else math.inf
        ),
        feasibility_tolerance=FEASIBLE_UNITS * problem.r * problem.unit,
    )


def _uniqueness(problem: NearestETF, term: LinearTerm, svd: SVD) -> tuple[int, bool]:
    """Return the numerical rank of A, and whether F' vanishes on the null space that is left."""
    rank = int(np.count_nonzero(term.rounding < svd.S))
    if rank in (0, problem.r):
        return rank, rank == problem.r
    return rank, problem.frame_ignores(np.asarray(svd.Q[:, rank:]), float(svd.S[rank - 1]))


def _gap_bound(gap: float, nuclear: float, infeasibility: float, r: int) -> float:
    """Bound the gap of U / ||U||_2, which lies in the spectral-norm ball, from the computed gap of U."""
    # ||U||_2 <= 1 + feasibility/2 moves <A, U> by at most feasibility/2 ||A||_*; an SVD in float64 and the inner
    # product are each good to a small multiple of r eps ||A||_*
    rounding = 10 * r * float(np.finfo(np.float64).eps)
    return max(gap, 0.0) + (infeasibility / 2 + rounding) * nuclear


def _natural(value: float, term: LinearTerm) -> float:
    return float(rescaled(value, term.exponent))
