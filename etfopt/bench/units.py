"""The closed form's cost in units of familiar operations: a product A'A, a linear layer. One row for each method."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from etfopt._arrays import Array, Seed, as_generator
from etfopt.adjoint import nearest_etf_vjp
from etfopt.bench.timing import linear_layer, seconds
from etfopt.frames import simplex_etf
from etfopt.geometry import random_stiefel
from etfopt.problem import NearestETF
from etfopt.solvers.procrustes import Procrustes, ProcrustesStats

__all__ = ["SHAPES", "SPECTRA", "STEPS_PER_SHAPE", "UnitRow", "means_and_prox", "units"]

SHAPES = ((512, 10), (512, 47), (512, 100), (2048, 1000))
SPECTRA = ("random", "near collapse")
SOLVERS = (Procrustes("svd"), Procrustes("gram"), Procrustes("newton-schulz"), Procrustes("auto"))
STEPS_PER_SHAPE = 2 * len(SPECTRA)
DELTA = 1e-3
REPEATS = 7


@dataclass(frozen=True)
class UnitRow:
    """Median seconds of one method on one problem, with the paper's proximal term."""

    d: int
    C: int
    dtype: str  # float32 or float64
    spectrum: str  # "random" class means, or "near collapse": a simplex ETF and 1 % noise
    method: str
    route: str  # the one that kept the promised accuracy
    forward: float
    backward: float
    square: float  # A'A, which NumPy knows to be symmetric and computes with half the operations
    product: float  # A'B for a B of the same shape and dtype
    linear: float  # the three products of a linear layer's forward and backward pass at batch 256

    @property
    def total(self) -> float:
        """Seconds of forward and backward together."""
        return self.forward + self.backward


def means_and_prox(d: int, C: int, spectrum: str, rng: Seed) -> tuple[Array, Array]:
    """Return class means of norm 1 and a proximal point; both near one U unless the means are random.

    "near collapse" is a simplex ETF and 1 % noise, "collapse" is the ETF alone.
    """
    rng = as_generator(rng, "rng")
    U = random_stiefel(d, C, rng)
    noise = rng.standard_normal((d, C))
    noise /= np.linalg.norm(noise)
    H = noise if spectrum == "random" else U @ simplex_etf(C) + 0.01 * noise * (spectrum == "near collapse")
    return H / np.linalg.norm(H), U


def units(
    shapes: Sequence[tuple[int, int]] = SHAPES, seed: int = 0, on_step: Callable[[], None] | None = None
) -> list[UnitRow]:
    """Time every method of `Procrustes` and the gradient, in both dtypes, on random means and near collapse.

    Returns a row for each shape, spectrum, dtype and method; `on_step` is called `STEPS_PER_SHAPE` times a shape.
    """
    rows = []
    for d, C in shapes:
        for spectrum in SPECTRA:
            H, U = means_and_prox(d, C, spectrum, as_generator(seed, "seed"))
            for dtype in (np.float32, np.float64):
                rows += _rows(H.astype(dtype), U.astype(dtype), spectrum)
                if on_step:
                    on_step()
    return rows


def _rows(H: Array, U: Array, spectrum: str) -> list[UnitRow]:
    d, C = H.shape
    rng = np.random.default_rng(0)
    G = (rng.standard_normal((d, C)) @ simplex_etf(C)).astype(H.dtype)
    solvers: list[str] = [solver.method for solver in SOLVERS]
    yardsticks = {"square": lambda: U.T @ U, "product": lambda: U.T @ G, "linear": linear_layer(d, C, rng, H.dtype)}
    taken: dict[str, list[tuple[float, ...]]] = {name: [] for name in (*solvers, *yardsticks)}
    routes: dict[str, str] = {}
    for _ in range(REPEATS + 1):  # in turn, so that a busy moment of the machine meets every method
        for solver in SOLVERS:
            forward, backward, routes[solver.method] = _once(solver, H, U, G)
            taken[solver.method].append((forward, backward))
        for name, run in yardsticks.items():
            taken[name].append((seconds(run),))
    # the first of each warms up
    medians = {name: [statistics.median(c) for c in zip(*rows[1:], strict=True)] for name, rows in taken.items()}
    scale = {name: medians[name][0] for name in yardsticks}
    return [
        UnitRow(
            d=d,
            C=C,
            dtype=str(H.dtype),
            spectrum=spectrum,
            method=name,
            route=routes[name],
            forward=medians[name][0],
            backward=medians[name][1],
            **scale,
        )
        for name in solvers
    ]


def _once(solver: Procrustes, H: Array, U: Array, G: Array) -> tuple[float, float, str]:
    problem = NearestETF(H, U, DELTA)  # a fresh one, with nothing computed beforehand
    start = time.perf_counter()
    answer = solver.run(problem)
    middle = time.perf_counter()
    nearest_etf_vjp(problem, answer.U, G)
    end = time.perf_counter()
    route = answer.stats.method if isinstance(answer.stats, ProcrustesStats) else ""
    return middle - start, end - middle, route
