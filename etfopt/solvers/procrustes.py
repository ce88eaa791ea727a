r"""The closed form: orthogonal Procrustes through one SVD."""

from __future__ import annotations

import time
from dataclasses import dataclass

from etfopt._inputs import Array
from etfopt.geometry import refined_polar, thin_svd
from etfopt.problem import NearestETF
from etfopt.solvers.base import Candidate, Solver, Stats, Termination

__all__ = ["Procrustes"]


@dataclass(frozen=True)
class Procrustes(Solver):
    r"""Global minimiser :math:`U^* = PQ'` from the thin SVD :math:`A = PSQ'` of the linear term.

    The objective is linear on the Stiefel manifold, so its minimiser is the polar factor of
    :math:`A = 2HF' + \delta U_{prox}`. Works in the problem's dtype, at :math:`O(dr^2)`, with one step of iterative
    refinement. Where A is rank deficient
    the minimiser is not unique and one of them is returned; the certificate says so.

    References
    ----------
    Schonemann (1966), A generalized solution of the orthogonal Procrustes problem.
    """

    def gap_tolerance(self, problem: NearestETF) -> float:
        """Return 10 C u, u the rounding unit of the problem's dtype (C or r, whichever is larger)."""
        return 10 * max(problem.C, problem.r) * problem.unit

    def run(self, problem: NearestETF, initial_point: Array | None = None) -> Candidate:  # noqa: ARG002 - direct method
        """Return the polar factor of the linear term. Nothing iterates, so the initial point has no effect."""
        start = time.perf_counter()
        A = problem.scaled_linear_term.A.astype(problem.dtype)
        U = refined_polar(A, thin_svd(A))
        return Candidate(U, Termination.CLOSED_FORM, Stats("Procrustes", time.perf_counter() - start))
