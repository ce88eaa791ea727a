"""What pymanopt sees of a problem: the scaled cost, a manifold and optimisers that can be watched."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np

from etfopt._arrays import Float64Array
from etfopt._scaling import normalized, rescaled, weighted
from etfopt.errors import require_extra
from etfopt.polar._products import sym
from etfopt.problem import NearestETF

require_extra("riemannian", "pymanopt", "autograd")

import autograd.numpy as anp
import pymanopt
from pymanopt.manifolds import Stiefel


class Manifold(Stiefel):  # type: ignore[misc] # pymanopt has no types
    """Remembers the current iterate: every optimiser here takes the norm of the gradient there, and nowhere else."""

    current: Float64Array

    def norm(self, point: Float64Array, tangent_vector: Float64Array) -> float:
        self.current = point
        return float(np.linalg.norm(tangent_vector))


class Watching:
    """Mixed into a pymanopt optimiser: keeps (seconds, iteration, cost, gradient norm) when it thinks of stopping."""

    def watch(self, manifold: Manifold, cost: ScaledCost, begin: float) -> None:
        self.iterates: list[tuple[float, int, float, float]] = []
        self._manifold, self._cost, self._begin = manifold, cost, begin

    def _check_stopping_criterion(self, *, iteration: int = -1, gradient_norm: float = math.inf, **rest: Any) -> Any:
        cost = self._cost.known(self._manifold.current)
        self.iterates.append((time.perf_counter() - self._begin, iteration, cost, float(gradient_norm)))
        check = super()._check_stopping_criterion  # type: ignore[misc] # of the optimiser it is mixed into
        return check(iteration=iteration, gradient_norm=gradient_norm, **rest)


class TrustRegions(Watching, pymanopt.optimizers.TrustRegions):  # type: ignore[misc] # pymanopt has no types
    pass


class ConjugateGradient(Watching, pymanopt.optimizers.ConjugateGradient):  # type: ignore[misc] # pymanopt has no types
    pass


class SteepestDescent(Watching, pymanopt.optimizers.SteepestDescent):  # type: ignore[misc] # pymanopt has no types
    pass


class ScaledCost:
    """The paper's cost with H and F at norm 1, divided so that the larger weight is 1.

    ``weight`` times this cost is the problem's objective up to a constant. With weights D of the classes it is that of
    HD^(1/2) and FD^(1/2).
    """

    def __init__(self, problem: NearestETF) -> None:
        (H, e), (F, k) = normalized(problem.H), normalized(problem.F)
        if problem.weights is not None:
            roots = np.sqrt(problem.weights)
            (H, m), (F, n) = weighted(H, roots), weighted(F, roots)
            e, k = e + m, k + n
        h, f = float(np.linalg.norm(H)) or 1.0, float(np.linalg.norm(F)) or 1.0
        self.N, self.S = (H / h) @ (F / f).T, (F / f) @ (F / f).T
        self.prox = np.zeros_like(self.N) if problem.prox is None else np.asarray(problem.prox, dtype=np.float64)
        size = float(rescaled(h * f, e + k))
        self.weight = max(size, problem.delta)
        self.data, self.pull = (1.0, 0.0) if math.isinf(size) else (size / self.weight, problem.delta / self.weight)
        self._last: tuple[Float64Array | None, float] = (None, math.inf)
        self._point: Float64Array | None = None

    def cost(self, U: Any) -> Any:
        value = self.data * (1 - 2 * anp.sum(self.N * U) + anp.sum((U @ self.S) * U))
        if self.pull:
            value = value + self.pull / 2 * anp.sum((U - self.prox) ** 2)
        if isinstance(value, float):  # not while autograd traces
            self._last = (U, value)
        return value

    def known(self, U: Float64Array) -> float:
        """Return the cost at U, from memory if U was the last point it was taken at."""
        return self._last[1] if self._last[0] is U else float(self.cost(U))

    def _at(self, U: Float64Array) -> tuple[Float64Array, Float64Array]:
        """Return the Euclidean gradient G at U and sym(U'G), computed once a point."""
        if self._point is not U:
            G = 2 * self.data * (U @ self.S - self.N) + self.pull * (U - self.prox)
            self._point, self._slope = U, (G, np.asarray(sym(U.T @ G), dtype=np.float64))
        return self._slope

    def gradient(self, U: Float64Array) -> Float64Array:
        G, symmetric = self._at(U)
        return np.asarray(G - U @ symmetric)

    def hessian(self, U: Float64Array, V: Float64Array) -> Float64Array:
        ambient = 2 * self.data * (V @ self.S) + self.pull * V - V @ self._at(U)[1]
        return np.asarray(ambient - U @ sym(U.T @ ambient))

    def on(self, manifold: Manifold, derivatives: str) -> pymanopt.Problem:
        """Return the problem for pymanopt."""
        if derivatives == "autograd":
            return pymanopt.Problem(manifold, pymanopt.function.autograd(manifold)(self.cost))
        numpy = pymanopt.function.numpy(manifold)
        return pymanopt.Problem(
            manifold, numpy(self.cost), riemannian_gradient=numpy(self.gradient), riemannian_hessian=numpy(self.hessian)
        )
