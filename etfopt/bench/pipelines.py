r"""The closed form against the paper's pipeline, on the same drifting class means, in one run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from etfopt._arrays import Float64Array, as_generator
from etfopt.adjoint import kkt_memory, kkt_vjp, nearest_etf_vjp
from etfopt.bench.problems import drifting_means
from etfopt.bench.timing import linear_layer, median_seconds, peak_bytes
from etfopt.certificate import certify
from etfopt.frames import simplex_etf
from etfopt.problem import NearestETF
from etfopt.solvers import TrustRegion
from etfopt.solvers.procrustes import Procrustes

__all__ = ["CASES", "Case", "Row", "bench"]

PAPER_ITERATIONS = 30
PAPER_TOLERANCE = 1e-6
DELTA = 1e-3


@dataclass(frozen=True)
class Case:
    """A shape, and how many steps of the drifting sequence are timed with both pipelines."""

    d: int
    C: int
    steps: int


CASES = (Case(512, 10, 20), Case(512, 47, 5), Case(512, 100, 2), Case(2048, 1000, 1))

MEMORY_LIMIT = 16 * 2**30
"""Bytes beyond which the paper's dense gradient is not run, only reported."""


@dataclass(frozen=True)
class Row:
    """Measurements of a shape; seconds are medians over the steps, None where the paper's pipeline cannot run.

    The paper's forward pass is the trust region with autograd's derivatives, at most 30 iterations from the previous U
    and tolerance 1e-6; its backward pass is the dense gradient.
    """

    d: int
    C: int
    steps: int
    forward: float  # of the closed form
    backward: float
    paper_forward: float | None
    paper_backward: float | None
    ratio: float | None  # median over the steps of the paper's time over ours, forward and backward, same H
    memory: int  # peak bytes of forward and backward
    paper_memory: int  # measured, or computed where the pipeline was not run
    gap: float  # largest relative gap of the answers
    paper_gap: float | None
    gradient_error: float | None  # largest relative difference of the two gradients
    product: float  # one product A'A
    linear: float  # the three products of a linear layer's forward and backward pass at batch 256

    @property
    def seconds(self) -> dict[str, float | None]:
        """Seconds a step, forward and backward together, by the name of what was timed."""
        paper = None if self.paper_forward is None else self.paper_forward + (self.paper_backward or 0.0)
        ours = self.forward + self.backward
        return {"closed form": ours, "trust region, dense gradient": paper, "linear layer, batch 256": self.linear}


@dataclass(frozen=True)
class _Step:
    forward: float
    backward: float
    gap: float
    dH: Float64Array
    U: Float64Array


def bench(cases: Sequence[Case] = CASES, seed: int = 0, on_step: Callable[[], None] | None = None) -> list[Row]:
    """Time both pipelines, in turn, on the same sequences of problems; `on_step` is called after every step."""
    return [_row(case, as_generator(seed, "seed"), on_step or (lambda: None)) for case in cases]


def _row(case: Case, rng: np.random.Generator, on_step: Callable[[], None]) -> Row:
    d, C = case.d, case.C
    feasible = kkt_memory(d, C) <= MEMORY_LIMIT
    means = drifting_means(d, C, rng)
    U = Procrustes().run(NearestETF(next(means))).U
    pairs: list[tuple[_Step, _Step | None]] = []
    for k in range(case.steps + 1):
        problem, G = NearestETF(next(means), U, DELTA), rng.standard_normal((d, C)) @ simplex_etf(C)
        ours = _ours(problem, G)
        paper = _paper(problem, G) if feasible and k > 0 else None
        U = ours.U
        if k > 0:  # the first step warms up libraries and caches
            pairs.append((ours, paper))
            on_step()
    problem = NearestETF(next(means), U, DELTA)
    ran = [(ours, paper) for ours, paper in pairs if paper is not None]
    return Row(
        d=d,
        C=C,
        steps=case.steps,
        forward=statistics.median(ours.forward for ours, _ in pairs),
        backward=statistics.median(ours.backward for ours, _ in pairs),
        paper_forward=statistics.median(paper.forward for _, paper in ran) if ran else None,
        paper_backward=statistics.median(paper.backward for _, paper in ran) if ran else None,
        ratio=statistics.median(_total(paper) / _total(ours) for ours, paper in ran) if ran else None,
        memory=peak_bytes(lambda: _ours(problem, G)),
        paper_memory=peak_bytes(lambda: _paper(problem, G)) if feasible else kkt_memory(d, C),
        gap=max(ours.gap for ours, _ in pairs),
        paper_gap=max(paper.gap for _, paper in ran) if ran else None,
        gradient_error=max(_difference(paper, ours) for ours, paper in ran) if ran else None,
        product=median_seconds(lambda: U.T @ U),
        linear=median_seconds(linear_layer(d, C, rng)),
    )


def _total(step: _Step) -> float:
    return step.forward + step.backward


def _difference(first: _Step, second: _Step) -> float:
    return float(np.linalg.norm(first.dH - second.dH) / np.linalg.norm(second.dH))


def _ours(problem: NearestETF, G: Float64Array) -> _Step:
    fresh = problem.fresh()
    return _timed(fresh, lambda: Procrustes().run(fresh).U, lambda U: nearest_etf_vjp(fresh, U, G).H)


def _paper(problem: NearestETF, G: Float64Array) -> _Step:
    fresh = problem.fresh()
    # the release differentiates the cost automatically; so does this
    solver = TrustRegion(max_iterations=PAPER_ITERATIONS, gradient_tolerance=PAPER_TOLERANCE, derivatives="autograd")
    return _timed(fresh, lambda: solver.run(fresh, fresh.prox).U, lambda U: kkt_vjp(fresh, U, G))


def _timed(problem: NearestETF, forward: Callable[[], Any], backward: Callable[[Any], Any]) -> _Step:
    start = time.perf_counter()
    U = forward()
    middle = time.perf_counter()
    dH = backward(U)
    end = time.perf_counter()
    return _Step(middle - start, end - middle, certify(problem, U).relative_gap, dH, U)
