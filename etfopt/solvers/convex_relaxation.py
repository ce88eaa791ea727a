r"""The convex relaxation: the spectral-norm ball in place of the Stiefel manifold, as a check on the closed form."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import scipy.linalg

from etfopt._arrays import Array, Float64Array
from etfopt._scalars import as_choice, as_integer
from etfopt._scaling import own_errstate
from etfopt.errors import ConvergenceError, InputError, require_extra
from etfopt.polar import polar_factor
from etfopt.polar._products import feasibility, sym
from etfopt.problem import NearestETF
from etfopt.solvers.base import Candidate, Solver, Stats, Termination, require_free

require_extra("convex", "cvxpy")

import cvxpy

__all__ = ["ConvexRelaxation", "RelaxationStats"]

BACKENDS = {"CLARABEL": 1e-6, "SCS": 1e-4}
"""Conic solvers, and the relative gap that each promises after rounding to the manifold."""

ON_MANIFOLD = 1e-3
"""||X'X - I|| up to which the relaxation's minimiser counts as a point of the manifold."""

OPTIONS: dict[str, dict[str, Any]] = {"CLARABEL": {}, "SCS": {"use_indirect": False}}
"""Options of each. SCS factorises with its own QDLDL, as on every platform: with MKL, its choice where there is one, it
returned NaN for one rank-deficient problem in some 150."""


@dataclass(frozen=True)
class RelaxationStats(Stats):
    r"""The relaxation's minimiser X before it was rounded to the manifold.

    Attributes
    ----------
    primal, dual : float
        Bounds primal <= ||A||_* <= dual, in units of the spectral norm of A: the value of X, shrunk into the ball, and
        that of the multipliers, shifted until they are feasible. They meet up to the conic solver's accuracy.
    nuclear_norm : float
        ||A||_* from the singular values of A, in the same units.
    infeasibility, on_manifold : float, bool
        :math:`\|X'X - I\|_F`, and whether it is small. Where A is rank deficient the minimisers are a face of the
        ball, and an interior-point method returns a point inside it.
    status : str
        The conic solver's status.

    Notes
    -----
    Proofs of the bounds: ``theory/duality.py``.
    """

    primal: float = 0.0
    dual: float = 0.0
    nuclear_norm: float = 0.0
    infeasibility: float = 0.0
    on_manifold: bool = False
    status: str = ""


@dataclass(frozen=True)
class ConvexRelaxation(Solver):
    r"""Maximise :math:`\langle A, X\rangle` over :math:`\|X\|_2 \le 1`, the convex hull of St(d, r), with CVXPY.

    With A = QR, only the r x r block R goes to the conic solver: X = QY with
    :math:`\max_Y \langle R, Y\rangle` subject to :math:`\begin{pmatrix} I & Y \\ Y' & I \end{pmatrix} \succeq 0`.
    Its dual is to minimise tr D1 + tr D2 over multipliers with
    :math:`\begin{pmatrix} D_1 & -R/2 \\ -R'/2 & D_2 \end{pmatrix} \succeq 0`. The minimiser is rounded to the
    manifold by its polar factor. Use it to check other solvers: interior-point time grows like :math:`r^6`.

    Parameters
    ----------
    backend : "CLARABEL" or "SCS"
        An interior-point method (accurate), or a first-order method.
    max_size : int
        Largest r that is accepted; r = 40 takes seconds.

    Raises
    ------
    InputError
        If the backend is unknown or max_size not positive; in `run`, if r exceeds max_size.
    ConvergenceError
        In `run`, if the conic solver fails.

    References
    ----------
    Diamond and Boyd (2016), CVXPY. Goulart and Chen (2024), Clarabel. O'Donoghue et al. (2016), SCS. That the
    relaxation is tight, and its dual: ``theory/duality.py``.

    Examples
    --------
    >>> import numpy as np
    >>> import etfopt
    >>> from etfopt.solvers import ConvexRelaxation
    >>> problem = etfopt.NearestETF(np.eye(6, 3))
    >>> solution = etfopt.solve(problem, ConvexRelaxation())
    >>> bool(abs(solution.stats.dual - solution.stats.primal) < 1e-5)
    True
    """

    backend: Literal["CLARABEL", "SCS"] = "CLARABEL"
    max_size: int = 40

    def __post_init__(self) -> None:
        as_integer(self.max_size, "max_size", at_least=1)
        as_choice(self.backend, "backend", tuple(BACKENDS))

    def gap_tolerance(self, problem: NearestETF) -> float:
        """Return 1e-6 (Clarabel) or 1e-4 (SCS), or 10 C u where the problem's dtype is coarser."""
        return max(BACKENDS[self.backend], 10 * max(problem.C, problem.r) * problem.unit)

    @own_errstate
    def run(self, problem: NearestETF, initial_point: Array | None = None) -> Candidate:  # noqa: ARG002 - needs no start
        """Solve the relaxation and round its minimiser, with `RelaxationStats`; the initial point has no effect.

        Raises
        ------
        InputError
            If r exceeds max_size. A conic solver that fails raises `ConvergenceError`.
        """
        require_free(problem)
        if problem.r > self.max_size:
            message = (
                f"the relaxation of {problem!r} has a semidefinite block of order {2 * problem.r}; max_size = "
                f"{self.max_size} rows of the frame are accepted"
            )
            raise InputError(message, "max_size", self.max_size, "use Procrustes(), or raise max_size and wait")
        start = time.perf_counter()
        A = problem.scaled_linear_term.A
        s = np.linalg.svd(A, compute_uv=False)
        Q, R = scipy.linalg.qr(A / (s[0] or 1.0), mode="economic")
        Y, dual, status, iterations = self._conic(np.asarray(R))
        infeasibility = feasibility(Y)
        stats = RelaxationStats(
            solver=f"ConvexRelaxation ({self.backend})",
            seconds=time.perf_counter() - start,
            iterations=iterations,
            primal=float(np.sum(R * Y)) / max(1.0, float(np.linalg.norm(Y, 2))),
            dual=dual,
            nuclear_norm=float(s.sum() / (s[0] or 1.0)),
            infeasibility=infeasibility,
            on_manifold=infeasibility <= ON_MANIFOLD,
            status=status,
        )
        U = (Q @ polar_factor(Y)).astype(problem.dtype)
        return Candidate(U, Termination.CONIC, stats)

    def _conic(self, R: Float64Array) -> tuple[Float64Array, float, str, int]:
        """Return the minimiser Y, the dual bound, the solver's status and its iterations."""
        r = R.shape[0]
        Z = cvxpy.Variable((2 * r, 2 * r), PSD=True)
        blocks = [Z[:r, :r] == np.eye(r), Z[r:, r:] == np.eye(r)]
        conic: Any = cvxpy.Problem(cvxpy.Maximize(cvxpy.trace(R.T @ Z[:r, r:])), blocks)
        try:
            with warnings.catch_warnings():
                # an inaccurate solution is judged by the certificate, not by a warning
                warnings.filterwarnings("ignore", message="Solution may be inaccurate.*", category=UserWarning)
                conic.solve(solver=self.backend, **OPTIONS[self.backend])
        except cvxpy.error.SolverError as error:
            raise ConvergenceError(self._failure(R, str(error))) from error
        if Z.value is None:
            raise ConvergenceError(self._failure(R, conic.status))
        Y = np.asarray(Z.value[:r, r:], dtype=np.float64)
        dual = _dual_bound(R, *(np.asarray(block.dual_value) for block in blocks))
        return Y, dual, str(conic.status), int(conic.solver_stats.num_iters or 0)

    def _failure(self, R: Float64Array, word: str) -> str:
        s = np.linalg.svd(R, compute_uv=False)
        condition = s[0] / s[-1] if s[-1] > 0 else np.inf
        return (
            f"{self.backend} found no solution of the relaxation with r = {len(R)} and condition number "
            f"{condition:.1e}: {word}. Use Procrustes(), or the other backend"
        )


def _dual_bound(R: Float64Array, D1: Float64Array, D2: Float64Array) -> float:
    """Return an upper bound on <R, Y> over the ball from multipliers that the conic solver left almost feasible.

    That multipliers bound it: ``theory/duality.py``.
    """
    r = len(R)
    sign = 1.0 if np.trace(D1) + np.trace(D2) >= 0 else -1.0
    block = np.block([[sign * sym(D1), -R / 2], [-R.T / 2, sign * sym(D2)]])
    # adding a multiple of the identity makes them feasible, whatever the solver's tolerance
    shift = max(0.0, -float(np.linalg.eigvalsh(block)[0]))
    return sign * float(np.trace(D1) + np.trace(D2)) + 2 * r * shift
