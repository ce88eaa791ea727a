r"""Riemannian solvers: the paper's trust region, and its first-order relatives, on pymanopt's Stiefel manifold."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from etfopt._arrays import Array, Float64Array, as_integer, as_positive
from etfopt._scaling import own_errstate
from etfopt.errors import InputError
from etfopt.geometry import random_stiefel
from etfopt.problem import NearestETF
from etfopt.solvers import _pymanopt
from etfopt.solvers.base import Candidate, Solver, Stats, Termination, TracePoint

__all__ = ["ConjugateGradient", "RiemannianSolver", "SteepestDescent", "TrustRegion"]

DERIVATIVES = ("analytic", "autograd")
RETRACTIONS = ("qr", "polar")

# how pymanopt words its reasons to stop
REASONS = {
    "min grad norm": Termination.GRADIENT_TOLERANCE,
    "min step_size": Termination.STEP_TOLERANCE,
    "max iterations": Termination.ITERATION_LIMIT,
    "max time": Termination.TIME_LIMIT,
}


@dataclass(frozen=True)
class RiemannianSolver(Solver):
    r"""What the Riemannian solvers share: limits, start, derivatives.

    They minimise the cost as the paper writes it, quadratic terms included,

    .. math:: \|H - UF\|_F^2 + \tfrac{\delta}{2}\|U - U_{prox}\|_F^2,

    with H and F scaled to norm 1 and the whole scaled so that the larger of its two weights is 1; so the tolerance is
    relative, and any scale of H will do. Computed in float64.

    Parameters
    ----------
    max_iterations : int
        Outer iterations. The paper's release allows 30.
    gradient_tolerance : float
        Norm of the Riemannian gradient of the scaled cost below which to stop.
    derivatives : "analytic" or "autograd"
        The Euclidean gradient and Hessian-vector product written out, or those of the package autograd.
    retraction : "qr" or "polar"
        How a step is brought back to the manifold.
    max_seconds : float
        Time limit of each start, in seconds.
    restarts : int
        How many further starts are tried; the lowest objective wins. The first of them is the original start
        reflected into the other component of the manifold, which matters when d = r; the others are random.
    seed : int
        Of the random starts. The first start is random too where no initial point is given.

    Raises
    ------
    InputError
        If a limit is not positive, or a name is unknown.

    References
    ----------
    Absil, Mahony and Sepulchre (2008), Optimization algorithms on matrix manifolds. Townsend, Koep and Weichwald
    (2016), Pymanopt. Markou, Ajanthan and Gould (2024) for this use. Where such solvers end, and why d = r is another
    matter: ``theory/landscape.py``.
    """

    max_iterations: int = 500
    gradient_tolerance: float = 1e-9
    derivatives: Literal["analytic", "autograd"] = "analytic"
    retraction: Literal["qr", "polar"] = "qr"
    max_seconds: float = 1000.0
    restarts: int = 0
    seed: int = 0

    _optimizer: ClassVar[Any]

    def __post_init__(self) -> None:
        as_integer(self.max_iterations, "max_iterations", at_least=1)
        as_integer(self.restarts, "restarts", at_least=0)
        as_integer(self.seed, "seed", at_least=0)
        as_positive(self.gradient_tolerance, "gradient_tolerance")
        as_positive(self.max_seconds, "max_seconds")
        for name, known in (("derivatives", DERIVATIVES), ("retraction", RETRACTIONS)):
            if getattr(self, name) not in known:
                raise InputError(f"{name} = {getattr(self, name)!r} is not known; choose one of: {', '.join(known)}")

    def gap_tolerance(self, problem: NearestETF) -> float:
        """Return 1e-10, or 10 C u where the problem's dtype is coarser than that.

        Parameters
        ----------
        problem : NearestETF
            Its size and dtype say what rounding allows.

        Returns
        -------
        float
            The relative gap that is promised.
        """
        return max(1e-10, 10 * max(problem.C, problem.r) * problem.unit)

    @own_errstate
    def run(self, problem: NearestETF, initial_point: Array | None = None) -> Candidate:
        """Descend from the initial point, or a random one, and keep the best of all starts.

        Parameters
        ----------
        problem : NearestETF
            What to solve.
        initial_point : ndarray, shape (d, r), optional
            On the manifold.

        Returns
        -------
        Candidate
            Its trace is that of the best start.
        """
        begin = time.perf_counter()
        runs = [self._descend(problem, point, begin) for point in self._starts(problem, initial_point)]
        best = min(runs, key=lambda run: run.cost)
        U = best.point.astype(problem.dtype)
        seconds = time.perf_counter() - begin
        stats = Stats(type(self).__name__, seconds, sum(run.iterations for run in runs), best.trace(problem))
        return Candidate(U, best.termination, stats)

    def _starts(self, problem: NearestETF, initial_point: Array | None) -> list[Float64Array]:
        rng = np.random.default_rng(self.seed)
        first = random_stiefel(problem.d, problem.r, rng) if initial_point is None else initial_point
        reflected = np.array(first, dtype=np.float64)
        reflected[:, 0] *= -1
        others = [random_stiefel(problem.d, problem.r, rng) for _ in range(self.restarts - 1)]
        return [np.array(first, dtype=np.float64), reflected, *others][: self.restarts + 1]

    def _descend(self, problem: NearestETF, start: Float64Array, begin: float) -> _Run:
        manifold = _pymanopt.Manifold(problem.d, problem.r, retraction=self.retraction)
        scaled = _pymanopt.ScaledCost(problem)
        if problem.d == problem.r == 1 or not scaled.gradient(start).any():
            # no direction to follow, on two isolated points or at an exact critical point: pymanopt divides by zero
            return _Run.at_rest(start, scaled, time.perf_counter() - begin)
        optimizer = self._optimizer(
            max_iterations=self.max_iterations,
            min_gradient_norm=self.gradient_tolerance,
            max_time=self.max_seconds,
            max_cost_evaluations=10 * self.max_iterations + 1000,
            verbosity=0,
        )
        optimizer.watch(manifold, scaled, begin)
        with np.errstate(
            divide="ignore", invalid="ignore"
        ):  # by pymanopt's conjugate gradients, after a step of no length
            result = optimizer.run(scaled.on(manifold, self.derivatives), initial_point=start)
        reason = next((t for words, t in REASONS.items() if words in result.stopping_criterion), None)
        return _Run(
            point=result.point,
            cost=float(result.cost),
            iterations=result.iterations,
            termination=reason or Termination.STEP_TOLERANCE,
            iterates=tuple(optimizer.iterates),
            weight=scaled.weight,
        )


@dataclass(frozen=True)
class TrustRegion(RiemannianSolver):
    """The paper's solver: Riemannian trust region, truncated conjugate gradients inside.

    The parameters are those of `RiemannianSolver`.

    References
    ----------
    Absil, Baker and Gallivan (2007), Trust-region methods on Riemannian manifolds. Where it ends:
    ``theory/landscape.py``.

    Examples
    --------
    >>> import numpy as np
    >>> import etfopt
    >>> from etfopt.solvers.riemannian import TrustRegion
    >>> problem = etfopt.NearestETF(np.eye(6, 3), frame=etfopt.simplex_etf(3, reduced=True))
    >>> etfopt.solve(problem, TrustRegion(), initial_point=np.eye(6, 2)).converged
    True
    """

    _optimizer = _pymanopt.TrustRegions


@dataclass(frozen=True)
class ConjugateGradient(RiemannianSolver):
    """Riemannian conjugate gradients, without second derivatives.

    The parameters are those of `RiemannianSolver`.

    References
    ----------
    Absil, Mahony and Sepulchre (2008), section 8.3. Where it ends: ``theory/landscape.py``.

    Examples
    --------
    >>> import numpy as np
    >>> import etfopt
    >>> from etfopt.solvers.riemannian import ConjugateGradient
    >>> problem = etfopt.NearestETF(np.eye(6, 3), frame=etfopt.simplex_etf(3, reduced=True))
    >>> solver = ConjugateGradient(max_iterations=1000)
    >>> etfopt.solve(problem, solver, initial_point=np.eye(6, 2)).converged
    True
    """

    _optimizer = _pymanopt.ConjugateGradient


@dataclass(frozen=True)
class SteepestDescent(RiemannianSolver):
    """Riemannian steepest descent: the slowest of the three, and the simplest.

    The parameters are those of `RiemannianSolver`.

    References
    ----------
    Absil, Mahony and Sepulchre (2008), section 4.2. Where it ends: ``theory/landscape.py``.

    Examples
    --------
    >>> import numpy as np
    >>> import etfopt
    >>> from etfopt.solvers.riemannian import SteepestDescent
    >>> problem = etfopt.NearestETF(np.eye(6, 3), frame=etfopt.simplex_etf(3, reduced=True))
    >>> solver = SteepestDescent(max_iterations=2000)
    >>> etfopt.solve(problem, solver, initial_point=np.eye(6, 2)).certificate.relative_gap < 1e-8
    True
    """

    _optimizer = _pymanopt.SteepestDescent


class _Run(NamedTuple):
    """One descent, in the units of the scaled cost."""

    point: Float64Array
    cost: float
    iterations: int
    termination: Termination
    iterates: tuple[tuple[float, int, float, float], ...]
    weight: float

    @classmethod
    def at_rest(cls, point: Float64Array, scaled: _pymanopt.ScaledCost, seconds: float) -> _Run:
        """Return the run that ends where it starts: one iterate, whose gradient is zero."""
        cost = float(scaled.cost(point))
        return cls(point, cost, 1, Termination.GRADIENT_TOLERANCE, ((seconds, 1, cost, 0.0),), scaled.weight)

    def trace(self, problem: NearestETF) -> tuple[TracePoint, ...]:
        """Return the iterates with the problem's own objective: both differ by a constant and a factor alone."""
        end = problem.objective(self.point)
        return tuple(
            TracePoint(seconds, iteration, end + self.weight * (cost - self.cost), norm)
            for seconds, iteration, cost, norm in self.iterates
        )
