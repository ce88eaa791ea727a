r"""The closed form: orthogonal Procrustes, by an SVD or by cheaper routes to the same polar factor."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from etfopt._arrays import Array
from etfopt._scaling import own_errstate
from etfopt.errors import InputError
from etfopt.geometry import svd_polar
from etfopt.polar import Unsuitable, gram_polar, newton_schulz_polar, newton_schulz_steps
from etfopt.problem import NearestETF
from etfopt.solvers.base import Candidate, Solver, Stats, Termination

__all__ = ["Procrustes", "ProcrustesStats"]

ROUTES = ("newton-schulz", "gram", "svd")
"""From the most demanding to the one that serves every matrix."""

PRODUCTS_FROM, FEW_STEPS = 64, 4
"""Where "auto" prefers products alone, in float32: at least so many rows of the frame, at most so many steps."""


@dataclass(frozen=True)
class ProcrustesStats(Stats):
    """What a run cost, and the route it took.

    Attributes
    ----------
    method : str
        The route that gave the answer: "svd", "gram" or "newton-schulz".
    fallback : str
        Why the routes tried before it could not keep the promised accuracy; empty where none failed.
    """

    method: str = "svd"


@dataclass(frozen=True)
class Procrustes(Solver):
    r"""Global minimiser :math:`U^* = PQ'`, the polar factor of the linear term :math:`A = PSQ'`.

    The objective is linear on the Stiefel manifold, so its minimiser is the polar factor of
    :math:`A = 2HF' + \delta U_{prox}`. Works in the problem's dtype, at :math:`O(dr^2)`. Where A is rank deficient the
    minimiser is not unique and one of them is returned; the certificate says so.

    Parameters
    ----------
    method : "auto", "svd", "gram" or "newton-schulz"
        How the polar factor is found, always to the same promises: the one that cannot keep them on a problem hands
        over to the next more robust one, and ``stats.fallback`` says why.

        - "svd": a singular value decomposition and a step of iterative refinement. Serves every matrix.
        - "gram": the eigendecomposition of A'A, then a Newton-Schulz step, or (where A is less well conditioned) a
          step of refinement, so that squaring the condition number costs no accuracy. Up to condition numbers of 8e3
          (float32: 1e3) on the range of A.
        - "newton-schulz": matrix products alone, on r x r matrices, and a last step in the long dimension. For
          well-conditioned A, as near collapse; the fewer steps, the nearer A'A is to a multiple of I.
        - "auto": "gram"; but products alone in float32 where r >= 64 and at most 4 steps are predicted.

    Raises
    ------
    InputError
        If the method is unknown.

    Notes
    -----
    What "auto" rests on: milliseconds of a solve, medians of `etfopt bench` on two cores with OpenBLAS, the paper's
    frame and proximal term, 2026-11-23.

    =========================== ======= ===== ===== =============
    d x C, class means          dtype   svd   gram  newton-schulz
    =========================== ======= ===== ===== =============
    512 x 10, random            float64 0.26  0.18  not suited
    512 x 100, random           float64 9.2   2.0   2.4
    512 x 100, random           float32 8.8   1.9   1.7
    2048 x 1000, random         float64 840   250   470
    2048 x 1000, random         float32 700   190   220
    2048 x 1000, near collapse  float32 670   180   190
    =========================== ======= ===== ===== =============

    The proximal term keeps A'A from a multiple of I even at collapse: the direction that the simplex does not see has
    the singular value delta. With the reduced frame and no proximal term products alone take 0.6 ms against 1.0 at
    512 x 100, and 100 ms against 150 at 2048 x 1000 (the polar factor alone, float32, near collapse).

    References
    ----------
    Schonemann (1966), A generalized solution of the orthogonal Procrustes problem. Higham (2008), Functions of
    Matrices, chapter 8. Chen and Chow (2014), A stable scaling of Newton-Schulz for improving the sign function
    computation of a Hermitian matrix. Proof: ``theory/closed_form.py``.

    Examples
    --------
    >>> import numpy as np
    >>> import etfopt
    >>> from etfopt.solvers.procrustes import Procrustes
    >>> problem = etfopt.NearestETF(np.eye(6, 4))
    >>> solution = etfopt.solve(problem, Procrustes(method="svd"))
    >>> solution.stats.method, solution.converged
    ('svd', True)
    """

    method: Literal["svd", "gram", "newton-schulz", "auto"] = "auto"

    def __post_init__(self) -> None:
        if self.method not in (*ROUTES, "auto"):
            raise InputError(f"method = {self.method!r} is not known; choose one of: {', '.join(ROUTES)}, auto")

    def gap_tolerance(self, problem: NearestETF) -> float:
        """Return 10 C u, u the rounding unit of the problem's dtype (C or r, whichever is larger).

        Parameters
        ----------
        problem : NearestETF
            Its size and dtype say what rounding allows.

        Returns
        -------
        float
            The relative gap that is promised.
        """
        return 10 * max(problem.C, problem.r) * problem.unit

    @own_errstate
    def run(self, problem: NearestETF, initial_point: Array | None = None) -> Candidate:  # noqa: ARG002 - direct method
        """Return the polar factor of the linear term.

        Parameters
        ----------
        problem : NearestETF
            What to solve.
        initial_point : ndarray, shape (d, r), optional
            Of no effect: a closed form needs no start.

        Returns
        -------
        Candidate
            With `ProcrustesStats`.
        """
        start = time.perf_counter()
        A = problem.scaled_linear_term.A.astype(problem.dtype, copy=False)
        reasons: list[str] = []
        for method in self._routes(problem):
            try:
                U, iterations = _polar(method, problem, A, reasons)
            except Unsuitable as reason:
                reasons.append(f"{method}: {reason}")
            else:
                break
        seconds = time.perf_counter() - start
        stats = ProcrustesStats("Procrustes", seconds, iterations, method=method, fallback="; ".join(reasons))
        return Candidate(U, Termination.CLOSED_FORM, stats)

    def _routes(self, problem: NearestETF) -> Sequence[str]:
        """Return the methods to try in turn; the last one serves every matrix."""
        first = self.method
        if first == "auto":
            first = "newton-schulz" if _products_pay(problem) else "gram"
        return ROUTES[ROUTES.index(first) :]


def _products_pay(problem: NearestETF) -> bool:
    # LAPACK takes float32 through float64, so an eigendecomposition costs the most, in products, there
    if problem.dtype != np.float32 or problem.r < PRODUCTS_FROM:
        return False
    try:
        return newton_schulz_steps(problem.gram, problem.unit) <= FEW_STEPS
    except Unsuitable:
        return False


def _polar(method: str, problem: NearestETF, A: Array, failures: list[str]) -> tuple[Array, int]:
    """Return the polar factor by one route, and its iterations."""
    if method == "newton-schulz":
        return newton_schulz_polar(A, problem.gram)
    if method == "gram":
        return gram_polar(A, problem.gram_spectrum), 0
    return svd_polar(A, failures), 0
