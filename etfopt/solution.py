r"""Solve a nearest-ETF problem: run a solver, certify its answer, and return the solution or raise."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from etfopt._arrays import Array, as_matrix
from etfopt._display import Described, Rows
from etfopt._free_scale import best_scale
from etfopt._scaling import normalized, own_errstate
from etfopt.assignment import Permutation, best_assignment
from etfopt.certificate import Certificate, certify
from etfopt.errors import ConvergenceError
from etfopt.polar import polar_factor
from etfopt.problem import NearestETF, require_problem
from etfopt.solvers import as_solver
from etfopt.solvers.base import Candidate, Solver, Stats, Termination
from etfopt.solvers.procrustes import Procrustes

__all__ = ["Solution", "nearest_etf", "solve"]

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False, repr=False)
class Solution(Described):
    r"""The nearest ETF, with the solver's account of its run and the certificate.

    Proof of the verdict: ``theory/certificate.py``. Scale and distance: ``theory/free_scale.py``. Rows of the weight:
    ``theory/simplex.py``.

    Attributes
    ----------
    problem : NearestETF
    U : ndarray, shape (d, r)
        The point of the Stiefel manifold.
    termination : Termination
        Why the solver stopped. ``termination.value`` is advice.
    certificate, stats : Certificate, Stats
        Checks of U that trust no solver; solver, seconds, iterations and trace.
    converged : bool
        The certificate's verdict: U is feasible and its relative gap is within what the solver promises.
    assignment : ndarray of int, shape (C,), or None
        With ``nearest_etf(..., assign=True)``: class c has column ``assignment[c]`` of the frame that was passed. The
        problem here has the frame in this order, and `converged` and the certificate are for this order.
    assignment_certified : bool
        Whether no other order is better. False wherever the order was searched for: then the joint optimum over
        rotations and orders is not certified.

    Examples
    --------
    >>> import etfopt
    >>> solution = etfopt.nearest_etf(3.0 * etfopt.simplex_etf(4))
    >>> solution.etf.shape, solution.weight.shape
    ((4, 4), (4, 4))
    >>> round(float(solution.scale), 4), bool(solution.distance < 1e-14)
    (3.0, True)
    """

    problem: NearestETF
    U: Array
    termination: Termination
    certificate: Certificate
    stats: Stats
    converged: bool
    assignment: Permutation | None = None
    assignment_certified: bool = True

    @cached_property
    @own_errstate
    def etf(self) -> Array:
        """The nearest ETF U F, shape (d, C): unique even where U is not, if ``certificate.etf_unique``."""
        return np.asarray(self.U @ self.problem.F, dtype=self.problem.dtype)

    @cached_property
    @own_errstate
    def weight(self) -> Array:
        r"""Classifier weight :math:`W = \sqrt C\,(UF)'/\|F\|_F`, shape (C, d).

        For the simplex the rows have unit norm and pairwise cosine -1/(C-1).
        """
        F, _ = normalized(self.problem.F)  # a power of two less: the same digits, in range for a frame of any size
        scale = math.sqrt(self.problem.C) / float(np.linalg.norm(F))
        return np.asarray(scale * np.asarray(self.U @ F, dtype=self.problem.dtype).T, dtype=self.problem.dtype)

    @cached_property
    @own_errstate
    def objective(self) -> float:
        r"""Objective of the problem at U, inf where float64 cannot hold it."""
        return self.problem.objective(self.U)

    @cached_property
    @own_errstate
    def scale(self) -> float:
        r"""Best size :math:`s = \sum_c w_c h_c'Uf_c / \sum_c w_c\|f_c\|^2` of this ETF, see `distance`."""
        return best_scale(self.problem, self.U)[0]

    @cached_property
    @own_errstate
    def distance(self) -> float:
        r"""Distance :math:`\min_{s, U} (\sum_c w_c \|h_c - s\,Uf_c\|^2)^{1/2}` to the nearest ETF of any size.

        It is in the units of H for w = 1. Without a proximal term the minimiser is this U. With one it is the polar
        factor of HDF'. Where classes are held, U is the minimiser of the problem without its proximal term, and s alone
        varies: a negative size would move the held vertices.
        """
        # a residual: the equal difference |H|^2 - |HF'|_*^2/|F|^2 has no correct digit near collapse
        problem, U = self.problem, self.U
        if problem.delta > 0 or not self.converged:
            free = problem.without_prox.free
            nearest = polar_factor(free.scaled_linear_term.A)
            U = nearest if problem.held is None else problem.held.assembled(nearest)
        return best_scale(problem, U)[1]

    def _rows(self) -> Rows:
        verdict = "optimal" if self.converged else f"rejected ({self.termination.name.lower()})"
        if not self.assignment_certified:
            verdict += " for this assignment; the joint optimum over assignments is not certified"
        run = f"{self.stats.solver}, {self.stats.iterations} iterations, {self.stats.seconds:.2g} s"
        return [("problem", repr(self.problem)), ("solver", run), ("verdict", verdict), *self.certificate._rows()[1:4]]


@own_errstate
def solve(
    problem: NearestETF,
    solver: Solver | str | None = None,
    *,
    initial_point: ArrayLike | None = None,
    throw: bool = True,
) -> Solution:
    r"""Solve a nearest-ETF problem and certify the answer.

    Proof of the verdict: ``theory/certificate.py``. Where local solvers end: ``theory/landscape.py``.

    Parameters
    ----------
    problem : NearestETF
    solver : Solver or str, optional
        A solver, its name ("trust-region"), or the import path ``package.module:name`` of your own. Default: the
        closed form, `etfopt.solvers.procrustes.Procrustes`.
    initial_point : array_like, shape (d, r), optional
        Where an iterative solver starts. Direct solvers ignore it.
    throw : bool
        Whether a rejected answer raises. False returns it, with ``converged`` False.

    Returns
    -------
    Solution

    Raises
    ------
    InputError
        If an argument cannot be used.
    ConvergenceError
        If the certificate rejects the answer and `throw` is True. ``error.solution`` is the rejected solution.

    Examples
    --------
    >>> import numpy as np
    >>> import etfopt
    >>> solution = etfopt.solve(etfopt.NearestETF(np.eye(5, 3)), "procrustes")
    >>> solution.converged, solution.certificate.etf_unique
    (True, True)
    """
    require_problem(problem)
    solver = as_solver("procrustes" if solver is None else solver)
    if initial_point is not None:
        initial_point = as_matrix(initial_point, "initial_point", shape=(problem.d, problem.r))
    candidate, U = _run(problem, solver, initial_point)
    certificate = certify(problem, U)
    converged = certificate.optimal(solver.gap_tolerance(problem))
    solution = Solution(problem, U, candidate.termination, certificate, candidate.stats, converged)
    stats, gap = candidate.stats, certificate.relative_gap
    LOG.debug("%r: %s took %.2g s, relative gap %.1e", problem, stats.solver, stats.seconds, gap)
    if stats.fallback:
        LOG.info("%s fell back to another method: %s", stats.solver, stats.fallback)
    if throw and not converged:
        raise ConvergenceError(_rejection(solution, solver), solution)
    return solution


def _run(problem: NearestETF, solver: Solver, initial_point: Array | None) -> tuple[Candidate, Array]:
    """Return what a solver makes of the problem, or of the smaller one that held classes leave, and the whole U."""
    held = problem.held
    if held is None:
        candidate = solver.run(problem, initial_point)
        return candidate, candidate.U
    start = None if initial_point is None else polar_factor(held.part(initial_point))
    candidate = solver.run(problem.free, start)
    U = held.assembled(candidate.U).astype(problem.dtype)
    if not candidate.stats.trace:
        return candidate, U
    # both objectives differ by a constant
    whole, part = problem.objective(U), problem.free.objective(candidate.U)
    shift = whole - part if math.isfinite(whole) else 0.0
    trace = tuple(point._replace(objective=point.objective + shift) for point in candidate.stats.trace)
    return replace(candidate, stats=replace(candidate.stats, trace=trace)), U


SETTINGS = {
    Termination.GRADIENT_TOLERANCE: "restarts",
    Termination.ITERATION_LIMIT: "max_iterations",
    Termination.TIME_LIMIT: "max_seconds",
}
"""The hyper-parameter to raise where a solver stopped for this reason, if it has one of that name."""


def _rejection(solution: Solution, solver: Solver) -> str:
    certificate, problem = solution.certificate, solution.problem
    return (
        f"{solution.stats.solver} returned a point that the certificate rejects: relative gap "
        f"{certificate.relative_gap:.2e} (allowed {solver.gap_tolerance(problem):.1e}), ||U'U - I|| = "
        f"{certificate.feasibility:.2e} (allowed {certificate.feasibility_tolerance:.1e}) for {problem!r}. The solver "
        f"says: {solution.termination.value} Remedies: {_remedies(problem, solver, solution.termination)}, or "
        "throw=False to inspect the point"
    )


def _remedies(problem: NearestETF, solver: Solver, termination: Termination) -> str:
    if isinstance(solver, Procrustes):
        last = "pass H in float64" if problem.dtype == np.float32 else "report this as a bug"
        return last if solver.method == "svd" else "use Procrustes(method='svd')"
    name = SETTINGS.get(termination, "")
    value = getattr(solver, name, None)
    return "use Procrustes()" if value is None else f"raise {name} = {value}, use Procrustes()"


def nearest_etf(
    H: ArrayLike,
    *,
    prox: ArrayLike | None = None,
    delta: float | None = None,
    frame: ArrayLike | str | None = None,
    reduced: bool = False,
    weights: ArrayLike | None = None,
    hold: Sequence[int] | None = None,
    hold_at: ArrayLike | None = None,
    assign: bool = False,
    solver: Solver | str | None = None,
    initial_point: ArrayLike | None = None,
    throw: bool = True,
) -> Solution:
    r"""Find the simplex ETF nearest to given class means: `NearestETF` and `solve` in one call.

    .. math:: \min_{U \in St(d, r)} \; \sum_c w_c \|h_c - U f_c\|^2 + \tfrac{\delta}{2} \|U - U_{prox}\|_F^2

    Parameters
    ----------
    H : array_like, shape (d, C)
        Class means, one column a class, of any finite scale.
    prox : array_like, shape (d, r), optional
        Proximal point.
    delta : float, optional
        Proximal weight, at least 0. Default: 1e-3 with a `prox` (the paper's value, for means of norm 1), 0 without.
    frame, reduced : array_like, shape (r, C), or str, optional; bool
        The frame F, by default "simplex"; with ``reduced=True``, d = C - 1 is enough. See `NearestETF`.
    weights, hold, hold_at : array_like of shape (C,), sequence of int, array_like of shape (d, r), optional
        Weights of the classes, by default 1 each; classes whose vertices stay where `hold_at` has them. See
        `NearestETF`.
    assign : bool
        Whether to look for the best order of the frame's vectors too, by `etfopt.assignment.best_assignment`. Use it
        for frames other than a simplex. ``solution.assignment`` is the order; its optimality is not certified.
    solver, initial_point, throw : Solver or str, array_like of shape (d, r), bool
        Which solver (the closed form), its start, and whether a rejected answer raises: see `solve`.

    Returns
    -------
    Solution
        With U, the ETF, the classifier's weight and the certificate.

    Raises
    ------
    InputError, ConvergenceError
        If an argument cannot be used, or the certificate rejects the answer.

    References
    ----------
    Markou, Ajanthan and Gould (2024), arXiv 2411.01248. Proof of the closed form: ``theory/closed_form.py``.

    Examples
    --------
    >>> import numpy as np
    >>> import etfopt
    >>> means = np.random.default_rng(0).standard_normal((16, 4))
    >>> solution = etfopt.nearest_etf(means)
    >>> solution.weight.shape, bool(solution.certificate.relative_gap < 1e-14)
    ((4, 16), True)
    """
    problem = NearestETF(
        H, prox=prox, delta=delta, frame=frame, reduced=reduced, weights=weights, hold=hold, hold_at=hold_at
    )
    if not assign:
        return solve(problem, solver, initial_point=initial_point, throw=throw)
    order, certified = best_assignment(problem)
    solution = solve(problem._reordered(order), solver, initial_point=initial_point, throw=throw)
    return replace(solution, assignment=order, assignment_certified=certified)
