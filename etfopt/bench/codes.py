"""Codes against the best known ones, and a code of thousands of vectors against a few subgradient steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from etfopt._arrays import Float64Array
from etfopt._scalars import as_integer
from etfopt.errors import InputError
from etfopt.frames import code
from etfopt.frames._energy import largest_cosine, unit_rows
from etfopt.frames._margin import one_vs_rest_margin

__all__ = ["REFERENCES", "CodeRow", "LargeRow", "bench_codes", "bench_large_code", "subgradient_code"]

REFERENCES: Mapping[tuple[int, int], float] = {
    (3, 7): 0.2101383127306,
    (3, 8): 0.2612038749637,
    (3, 9): 1 / 3,
    (3, 10): 0.4043943252163,
    (3, 12): 5**-0.5,
    (4, 24): 1 / 2,
    (5, 16): 1 / 5,
    (6, 27): 1 / 4,
    (7, 56): 1 / 3,
    (8, 240): 1 / 2,
    (22, 100): 1 / 11,
    (21, 162): 1 / 7,
    (4, 120): (1 + 5**0.5) / 4,
}
"""The smallest largest cosine that is known for C vectors in d dimensions."""

STEP = 0.01
"""First step of the subgradient method in the released code of Jiang et al. (2023)."""


@dataclass(frozen=True)
class CodeRow:
    """A code, beside the best known one."""

    d: int
    C: int
    reference: float
    largest_cosine: float
    error: float  # largest cosine minus reference
    lower_bound: float
    gap: float
    method: str  # of the bound
    proven: bool
    starts: int  # most of them
    seconds: float
    cpu_seconds: float


@dataclass(frozen=True)
class LargeRow:
    """One code of many vectors, by one method."""

    d: int
    C: int
    method: str
    largest_cosine: float
    lower_bound: float
    rho: float
    rho_lower_bound: float
    seconds: float  # for the code
    cpu_seconds: float
    margin_seconds: float


def bench_codes(
    pairs: Sequence[tuple[int, int]] = tuple(REFERENCES),
    seed: int = 0,
    starts: int = 64,
    on_step: Callable[[], None] | None = None,
) -> list[CodeRow]:
    """Search for codes whose best known largest cosine is in `REFERENCES`.

    Parameters
    ----------
    pairs : sequence of pair of int
        d and C of each code.
    seed, starts : int
        Seed of the random starts and their number, see `etfopt.frames.code`.
    on_step : callable, optional
        Called after every code.

    Returns
    -------
    list of CodeRow
        One for each pair.

    Raises
    ------
    InputError
        If a pair has no reference value.
    """
    for pair in pairs:
        if tuple(pair) not in REFERENCES:
            raise InputError(f"pairs holds {pair}, which has no reference value", "pairs", pairs)
    rows = []
    for d, C in pairs:
        wall, cpu = time.perf_counter(), time.process_time()
        frame = code(d, C, seed=seed, starts=starts, cache=False)
        taken = time.perf_counter() - wall, time.process_time() - cpu
        known = frame.certificate
        reference, cosine = REFERENCES[d, C], known.largest_cosine
        rows.append(
            CodeRow(
                *(d, C, reference, cosine, cosine - reference, known.lower_bound, known.gap, known.method),
                *(known.proven, starts, *taken),
            )
        )
        if on_step:
            on_step()
    return rows


def bench_large_code(
    d: int = 512, C: int = 10000, seed: int = 0, tolerance: float = 1e-3, on_step: Callable[[], None] | None = None
) -> list[LargeRow]:
    """Compare one start of the search with ten subgradient steps, by largest cosine and one-vs-rest margin.

    Parameters
    ----------
    d, C : int
        Dimension and number of vectors, C > 2d.
    seed : int
        Seed of both random starts.
    tolerance : float
        Duality gap of the margins.
    on_step : callable, optional
        Called after each of the two methods.

    Returns
    -------
    list of LargeRow
        The search, then the subgradient steps.
    """

    def searched() -> Float64Array:
        return code(d, C, seed=seed, starts=1, cache=False).vectors

    from etfopt.frames._delsarte import delsarte_bound

    bound, rows = delsarte_bound(d, C).value, []
    for method, make in (("search", searched), ("10 subgradient steps", lambda: subgradient_code(d, C, seed=seed))):
        wall, cpu = time.perf_counter(), time.process_time()
        X = make()
        seconds, cpu_seconds = time.perf_counter() - wall, time.process_time() - cpu
        wall = time.perf_counter()
        margin = one_vs_rest_margin(X, tolerance=tolerance)
        cosine = largest_cosine(np.ascontiguousarray(X.T))
        taken = (seconds, cpu_seconds, time.perf_counter() - wall)
        rows.append(LargeRow(d, C, method, cosine, bound, margin.rho, margin.lower_bound, *taken))
        if on_step:
            on_step()
    return rows


def subgradient_code(d: int, C: int, *, seed: int = 0, steps: int = 10) -> Float64Array:
    """Return unit columns after projected subgradient steps on the largest cosine, from a random start.

    Each step moves the two vectors of the largest cosine apart. The step falls linearly from 0.01 to 0, as in the
    released code of Jiang et al. (2023), arXiv 2310.05351, which takes 10 steps for (512, 10000).

    Parameters
    ----------
    d, C : int
        Dimension and number of vectors.
    seed : int
        Seed of the start.
    steps : int
        Number of steps.

    Returns
    -------
    ndarray, shape (d, C)
        Unit columns.
    """
    d, C, steps = (as_integer(value, name, at_least=1) for value, name in ((d, "d"), (C, "C"), (steps, "steps")))
    X = unit_rows(np.random.default_rng(seed).standard_normal((C, d)))
    K = X @ X.T
    np.fill_diagonal(K, -np.inf)
    for step in np.linspace(STEP, 0.0, steps):
        i, j = np.unravel_index(int(K.argmax()), K.shape)
        X[[i, j]] = unit_rows(X[[i, j]] - step * X[[j, i]])
        for k in (i, j):
            K[k] = K[:, k] = X @ X[k]
            K[k, k] = -np.inf
    return np.ascontiguousarray(X.T)
