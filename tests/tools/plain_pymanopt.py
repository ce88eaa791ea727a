"""The trust region as a user would script it: pymanopt with autograd's derivatives, defaults otherwise."""

from typing import NamedTuple

import autograd.numpy as anp
import numpy as np
import pymanopt

from etfopt import NearestETF
from etfopt.geometry import random_stiefel
from etfopt.solvers import TrustRegion


class Run(NamedTuple):
    U: np.ndarray
    iterations: int


def plain_trust_region(problem: NearestETF, start: np.ndarray, tolerance: float) -> Run:
    """Minimise the paper's cost, as it is written, with what pymanopt does by itself."""
    H, F, prox, delta = problem.H, problem.F, problem.prox, problem.delta
    manifold = pymanopt.manifolds.Stiefel(problem.d, problem.r)

    @pymanopt.function.autograd(manifold)
    def cost(U):
        return anp.sum((H - U @ F) ** 2) + delta / 2 * anp.sum((U - prox) ** 2)

    optimizer = pymanopt.optimizers.TrustRegions(verbosity=0, min_gradient_norm=tolerance, max_iterations=500)
    result = optimizer.run(pymanopt.Problem(manifold, cost), initial_point=start)
    return Run(result.point, result.iterations)


def our_trust_region(problem: NearestETF, start: np.ndarray, tolerance: float) -> Run:
    candidate = TrustRegion(gradient_tolerance=tolerance).run(problem, start)
    return Run(candidate.U, candidate.stats.iterations)


def paper_problem(d: int, C: int, seed: int) -> tuple[NearestETF, np.ndarray]:
    """Random class means of norm 1 with the paper's proximal term, and a random start."""
    rng = np.random.default_rng(seed)
    H = rng.standard_normal((d, C))
    H -= H.mean(axis=1, keepdims=True)
    H /= np.linalg.norm(H)
    return NearestETF(H, random_stiefel(d, C, rng), 1e-3), random_stiefel(d, C, rng)
