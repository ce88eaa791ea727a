r"""What the Riemannian solvers share: limits, starts and derivatives, on pymanopt's Stiefel manifold."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from etfopt._arrays import Array, Float64Array
from etfopt._scalars import as_choice, as_integer, as_positive
from etfopt._scaling import own_errstate
from etfopt.geometry import random_stiefel
from etfopt.problem import NearestETF
from etfopt.solvers import _pymanopt
from etfopt.solvers.base import Candidate, Solver, Stats, Termination, TracePoint, require_free

# how pymanopt words its reasons to stop
REASONS = {
    "min grad norm": Termination.GRADIENT_TOLERANCE,
    "min step_size": Termination.STEP_TOLERANCE,
    "max iterations": Termination.ITERATION_LIMIT,
    "max time": Termination.TIME_LIMIT,
}


@dataclass(frozen=True)
class RiemannianSolver(Solver):
    r"""Base class of the Riemannian solvers.

    They minimise the objective as the paper writes it, quadratic terms included, in float64,

    .. math:: \|H - UF\|_F^2 + \tfrac{\delta}{2}\|U - U_{prox}\|_F^2,

    with H and F scaled to norm 1, and the whole scaled so that the larger of its two weights is 1. Tolerances are
    therefore relative.

    Parameters
    ----------
    max_iterations : int
        Limit on the outer iterations. The paper's release allows 30.
    gradient_tolerance : float
        Stop where the norm of the Riemannian gradient of the scaled objective is below this.
    derivatives, retraction : "analytic" or "autograd", "qr" or "polar"
        Derivatives in closed form (faster) or by the package autograd, and how a step returns to the manifold.
    max_seconds : float
        Time limit of each start, in seconds.
    restarts : int
        Number of further starts. The lowest objective wins. The first of them is the original start reflected into the
        other component of the manifold: use at least 1 where d = r. The others are random.
    seed : int
        Seed of the random starts, and of the first one where no initial point is given.

    Raises
    ------
    InputError
        If a limit is not positive, or a name is unknown.

    References
    ----------
    Absil, Mahony and Sepulchre (2008), Optimization algorithms on matrix manifolds. Townsend, Koep and Weichwald
    (2016), Pymanopt. Where such solvers end, and why d = r differs: ``theory/landscape.py``.
    """

    starts: ClassVar[bool] = True

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
        as_choice(self.derivatives, "derivatives", ("analytic", "autograd"))
        as_choice(self.retraction, "retraction", ("qr", "polar"))

    def gap_tolerance(self, problem: NearestETF) -> float:
        """Return 1e-10, or 10 C u where the problem's dtype is coarser than that."""
        return max(1e-10, 10 * max(problem.C, problem.r) * problem.unit)

    @own_errstate
    def run(self, problem: NearestETF, initial_point: Array | None = None) -> Candidate:
        """Descend from the initial point, or a random one, and keep the best of all starts, with its trace."""
        require_free(problem)
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
        # pymanopt's conjugate gradients divide by zero after a step of no length
        with np.errstate(divide="ignore", invalid="ignore"):
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
