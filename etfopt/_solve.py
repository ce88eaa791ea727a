"""The one verb: run a solver, certify its answer, and raise or report."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from etfopt._arrays import as_matrix, require_shape
from etfopt._scaling import own_errstate
from etfopt.certificate import certify
from etfopt.errors import ConvergenceError, InputError
from etfopt.problem import NearestETF, require_problem
from etfopt.solution import Solution
from etfopt.solvers.base import Solver, Termination
from etfopt.solvers.procrustes import Procrustes

__all__ = ["nearest_etf", "solve"]


@own_errstate
def solve(
    problem: NearestETF,
    solver: Solver | None = None,
    *,
    initial_point: ArrayLike | None = None,
    throw: bool = True,
) -> Solution:
    r"""Solve a nearest-ETF problem and certify the answer.

    Parameters
    ----------
    problem : NearestETF
        What to solve.
    solver : Solver, optional
        None is `etfopt.solvers.procrustes.Procrustes`, the closed form.
    initial_point : array_like, shape (d, r), optional
        Where an iterative solver starts; direct solvers do not use it.
    throw : bool
        Whether a rejected answer raises; otherwise it is returned with ``converged`` False.

    Returns
    -------
    Solution
        Certified: ``converged`` is the certificate's verdict at the gap that the solver promises.

    Raises
    ------
    InputError
        If an argument cannot be used.
    ConvergenceError
        If the certificate rejects the answer and `throw` is True; the solution is attached as ``error.solution``.

    Notes
    -----
    What the certificate is worth: ``theory/certificate.py``. Where local solvers end: ``theory/landscape.py``.

    Examples
    --------
    >>> import numpy as np
    >>> import etfopt
    >>> problem = etfopt.NearestETF(np.eye(5, 3))
    >>> solution = etfopt.solve(problem)
    >>> solution.converged, solution.certificate.etf_unique
    (True, True)
    """
    require_problem(problem)
    solver = Procrustes() if solver is None else solver
    if not isinstance(solver, Solver):
        raise InputError(f"solver must be an instance of a Solver such as Procrustes(); got {solver!r}")
    if initial_point is not None:
        initial_point = as_matrix(initial_point, "initial_point")
        require_shape(initial_point, (problem.d, problem.r), "initial_point")
    candidate = solver.run(problem, initial_point)
    certificate = certify(problem, candidate.U)
    tolerance = solver.gap_tolerance(problem)
    solution = Solution(
        problem=problem,
        U=candidate.U,
        termination=candidate.termination,
        certificate=certificate,
        stats=candidate.stats,
        converged=certificate.optimal(tolerance),
    )
    if throw and not solution.converged:
        raise ConvergenceError(
            f"{candidate.stats.solver} returned a point that the certificate rejects: relative gap "
            f"{certificate.relative_gap:.2e} (allowed {tolerance:.1e}), ||U'U - I|| = {certificate.feasibility:.2e} "
            f"(allowed {certificate.feasibility_tolerance:.1e}) for {problem!r}. The solver says: "
            f"{candidate.termination.value} Remedies: {_remedies(problem, solver, candidate.termination)}, or "
            "throw=False to inspect the point",
            solution,
        )
    return solution


SETTINGS = {
    Termination.GRADIENT_TOLERANCE: "restarts",
    Termination.ITERATION_LIMIT: "max_iterations",
    Termination.TIME_LIMIT: "max_seconds",
}
"""What to raise where a solver ended so, if it has such a setting."""


def _remedies(problem: NearestETF, solver: Solver, termination: Termination) -> str:
    if isinstance(solver, Procrustes):
        last = "pass H in float64" if problem.dtype == np.float32 else "report this as a bug"
        return last if solver.method == "svd" else "use Procrustes(method='svd')"
    name = SETTINGS.get(termination, "")
    value = getattr(solver, name, None)
    return "use Procrustes()" if value is None else f"raise {name} = {value}, use Procrustes()"


@own_errstate
def nearest_etf(
    H: ArrayLike,
    *,
    prox: ArrayLike | None = None,
    delta: float = 0.0,
    frame: ArrayLike | None = None,
    solver: Solver | None = None,
    initial_point: ArrayLike | None = None,
    throw: bool = True,
) -> Solution:
    r"""Find the simplex ETF nearest to given class means: build the problem and solve it.

    .. math:: \min_{U \in St(d, r)} \; \|H - U F\|_F^2 + \tfrac{\delta}{2} \|U - U_{prox}\|_F^2

    Parameters
    ----------
    H : array_like, shape (d, C)
        Class means, one column a class, of any finite scale.
    prox : array_like, shape (d, r), optional
        Proximal point.
    delta : float
        Proximal weight, at least 0.
    frame : array_like, shape (r, C), optional
        None is ``simplex_etf(C)``.
    solver : Solver, optional
        None is the closed form.
    initial_point : array_like, shape (d, r), optional
        Where an iterative solver starts.
    throw : bool
        Whether an answer that the certificate rejects raises.

    Returns
    -------
    Solution
        With U, the ETF, the classifier's weight and the certificate.

    Raises
    ------
    InputError
        As `NearestETF` and `solve`.
    ConvergenceError
        If the certificate rejects the answer and `throw` is True.

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
    problem = NearestETF(H, prox=prox, delta=delta, frame=frame)
    return solve(problem, solver, initial_point=initial_point, throw=throw)
