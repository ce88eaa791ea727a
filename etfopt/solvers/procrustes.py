r"""The closed form: orthogonal Procrustes, by an SVD or by cheaper routes to the same polar factor."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from etfopt._arrays import Array
from etfopt._scalars import as_choice
from etfopt._scaling import own_errstate
from etfopt.polar._gram import Unsuitable, gram_polar, newton_schulz_polar, newton_schulz_steps
from etfopt.polar._svd import refined_polar, robust_svd
from etfopt.problem import NearestETF
from etfopt.solvers.base import Candidate, Solver, Stats, Termination, require_free

__all__ = ["Procrustes", "ProcrustesStats"]

ROUTES = ("newton-schulz", "gram", "svd")
"""From the most demanding to the one that works for every matrix."""

PRODUCTS_FROM, FEW_STEPS = 64, 4
"""Where "auto" takes products alone, in float32: the least rows of the frame, and the most steps."""


@dataclass(frozen=True)
class ProcrustesStats(Stats):
    """What a run cost, and the method that gave the answer.

    Attributes
    ----------
    method : str
        "svd", "gram" or "newton-schulz".
    """

    method: str = "svd"


@dataclass(frozen=True)
class Procrustes(Solver):
    r"""The closed form: :math:`U^* = PQ'`, the polar factor of the linear term :math:`A = PSQ'`.

    The objective is linear on the Stiefel manifold, so the polar factor of :math:`A = 2HF' + \delta U_{prox}` is its
    global minimiser. It costs :math:`O(dr^2)` in the problem's dtype. Where A is rank deficient, one of the minimisers
    is returned and the certificate reports that it is not unique.

    Parameters
    ----------
    method : "auto", "svd", "gram" or "newton-schulz"
        How the polar factor is computed. All methods keep the same accuracy: one that cannot do so on a problem passes
        it to the next more robust one, and ``stats.fallback`` says why.

        - "auto": a good default. "gram"; but "newton-schulz" in float32 where r >= 64 and at most 4 steps are
          predicted, by the times in ``docs/howto/choose_solver.md``.
        - "svd": a singular value decomposition and a step of iterative refinement. Works for every matrix.
        - "gram": the eigendecomposition of A'A and a step of Newton-Schulz or refinement. For condition numbers up to
          8e3 (float32: 1e3) on the range of A.
        - "newton-schulz": matrix products alone. For well-conditioned A, as near collapse: the nearer A'A is to a
          multiple of I, the fewer steps.

    Raises
    ------
    InputError
        If the method is unknown.

    References
    ----------
    Schonemann (1966), A generalized solution of the orthogonal Procrustes problem. Higham (2008), Functions of
    Matrices, chapter 8. Chen and Chow (2014), A stable scaling of Newton-Schulz for improving the sign function
    computation of a Hermitian matrix. Proof: ``theory/closed_form.py``.

    Examples
    --------
    >>> import numpy as np
    >>> import etfopt
    >>> from etfopt.solvers import Procrustes
    >>> problem = etfopt.NearestETF(np.eye(6, 4))
    >>> solution = etfopt.solve(problem, Procrustes(method="svd"))
    >>> solution.stats.method, solution.converged
    ('svd', True)
    """

    method: Literal["svd", "gram", "newton-schulz", "auto"] = "auto"

    def __post_init__(self) -> None:
        as_choice(self.method, "method", (*ROUTES, "auto"))

    def gap_tolerance(self, problem: NearestETF) -> float:
        """Return 10 C u, u the rounding unit of the problem's dtype (C or r, whichever is larger)."""
        return 10 * max(problem.C, problem.r) * problem.unit

    @own_errstate
    def run(self, problem: NearestETF, initial_point: Array | None = None) -> Candidate:  # noqa: ARG002 - direct method
        """Return the polar factor of the linear term, with `ProcrustesStats`; the initial point has no effect."""
        require_free(problem)
        start = time.perf_counter()
        A = problem.scaled_linear_term.A.astype(problem.dtype, copy=False)
        reasons: list[str] = []
        for method in self._routes(problem):
            try:
                U, iterations, failure = _polar(method, problem, A)
                break
            except Unsuitable as reason:
                reasons.append(f"{method}: {reason}")
        seconds = time.perf_counter() - start
        fallback = "; ".join([*reasons, failure] if failure else reasons)
        stats = ProcrustesStats("Procrustes", seconds, iterations, method=method, fallback=fallback)
        return Candidate(U, Termination.CLOSED_FORM, stats)

    def _routes(self, problem: NearestETF) -> Sequence[str]:
        """Return the methods to try in turn."""
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


def _polar(method: str, problem: NearestETF, A: Array) -> tuple[Array, int, str]:
    """Return the polar factor by one route, its iterations, and the failure of LAPACK that it overcame."""
    if method == "newton-schulz":
        return *newton_schulz_polar(A, problem.gram), ""
    if method == "gram":
        return gram_polar(A, problem.gram_spectrum), 0, ""
    (P, S, Q), failure = robust_svd(A)
    return refined_polar(A, P @ Q.T, Q, S), 0, failure
