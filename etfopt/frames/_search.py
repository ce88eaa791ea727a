"""Search for C unit vectors in R^d with a small largest cosine: annealing from several starts, then Newton's method."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import scipy.optimize

from etfopt._arrays import Float64Array
from etfopt.frames._energy import energy, largest_cosine, unit_rows
from etfopt.frames._polish import polished

__all__ = ["Progress", "Search", "SearchStep", "search"]

FIRST = (16.0, 4.0, 64.0, 8.0)
"""Where the starts begin to anneal, in turn: small codes need 4 or 64, symmetric ones in many dimensions 8 or 16."""

MANY = 32
"""In more dimensions than this annealing begins at larger beta."""

LAST = 16384.0
FACTOR = 4.0

LONG, SHORT = 3000, 200
"""Most iterations at the first beta, which decides where a start ends, and at each of the others."""

LARGE, FEW = (512, 10000), 100
"""A start for this d and C takes so many iterations, in minutes on two cores; others by the cube root of their cost."""

REACHED = 1e-10
"""A code this close to the lower bound is not searched further."""

NEAR = 1e-4
"""Polishing gains less than this; codes further from the best are not polished."""

KEPT = 5
"""How many of the best codes are kept for polishing."""

SINGLE = 2 * 10**7
"""With more multiplications a matrix of cosines than this, products are computed in float32."""


@dataclass(frozen=True)
class SearchStep:
    """Where a search is.

    Attributes
    ----------
    start, starts : int
        Number of the present start, from 0, and how many there are.
    beta : float
        Sharpness of the smooth maximum; 16384 is the last but one or the last.
    cosine : float
        Largest cosine of the present vectors, or a bound just above.
    best : float
        Smallest largest cosine so far; infinite before the first start ends.
    """

    start: int
    starts: int
    beta: float
    cosine: float
    best: float


Progress = Callable[[SearchStep], object]
"""Called after each iteration. It may raise StopIteration to end the search with the best code so far."""


class _Stopped(Exception):
    """The caller's `progress` asked for the end of the search."""


class Search(NamedTuple):
    """The best code of a search: unit columns, shape (d, C), and whether the search was cut short."""

    vectors: Float64Array
    largest_cosine: float
    starts: int
    interrupted: bool


def search(
    d: int,
    C: int,
    *,
    seed: int = 0,
    starts: int,
    target: float = -1.0,
    known: Float64Array | None = None,
    progress: Progress | None = None,
) -> Search:
    """Return the best of several starts, polished, and of the unit rows of a known code.

    The search ends early at a code that reaches the lower bound `target`. KeyboardInterrupt, or StopIteration from
    `progress`, ends it with the best code so far; then `Search.interrupted` is True.
    """
    run = _Run(d, C, starts, progress)
    interrupted = False
    if known is not None:
        run.keep(known)
    try:
        while run.start < starts and run.cosine > target + REACHED:
            run.once(np.random.default_rng([seed, run.start]), target)
        run.finish()
    except (KeyboardInterrupt, _Stopped):
        interrupted = True
        run.keep(run.latest)
    return Search(np.ascontiguousarray(run.codes[0].T), run.cosine, run.start, interrupted)


def _cost(d: int, C: int) -> float:
    """Return the cost of an iteration: products and exponentials, which cost as much as some 100 dimensions."""
    return C * C * (d + 100.0)


class _Run:
    """The state of a search: what an interruption keeps."""

    def __init__(self, d: int, C: int, starts: int, progress: Progress | None) -> None:
        self.shape, self.starts, self.progress = (C, d), starts, progress
        self.start = 0
        self.latest = unit_rows(np.random.default_rng(0).standard_normal(self.shape))
        self.codes: list[Float64Array] = []  # the best ones, best first
        self.cosines: list[float] = []

    @property
    def cosine(self) -> float:
        return self.cosines[0] if self.cosines else np.inf

    def keep(self, X: Float64Array) -> None:
        """Put a code where it belongs among the best."""
        cosine = largest_cosine(X)
        at = int(np.searchsorted(self.cosines, cosine))
        self.codes.insert(at, X)
        self.cosines.insert(at, cosine)
        del self.codes[KEPT:], self.cosines[KEPT:]

    def once(self, rng: np.random.Generator, target: float) -> None:
        """Anneal from one random start, and polish if the code may reach the target."""
        self.latest = unit_rows(rng.standard_normal(self.shape))
        C, d = self.shape
        beta = FIRST[self.start % len(FIRST)] * max(1.0, (d / MANY) ** 0.5)  # cosines are about 1/sqrt(d)
        levels = 1 + int(np.ceil(np.log(LAST / beta) / np.log(FACTOR)))
        half = FEW / 2 * (_cost(*LARGE) / _cost(d, C)) ** (1 / 3)
        long, short = int(min(LONG, half)), int(min(SHORT, 1 + half / (levels - 1)))
        for level in range(levels):
            self._descend(beta * FACTOR**level, short if level else long)
        self.keep(self.latest)
        if self.cosine < target + NEAR:
            self.keep(polished(self.codes[0]))
        self.start += 1

    def finish(self) -> None:
        """Polish the best codes: the order may change if they are close."""
        for X, cosine in zip(self.codes[:], self.cosines[:], strict=True):
            if cosine < self.cosine + NEAR:
                self.keep(polished(X))

    def _descend(self, beta: float, iterations: int) -> None:
        C, d = self.shape

        def keep(intermediate_result: Any) -> None:
            self.latest = unit_rows(intermediate_result.x.reshape(self.shape))
            if self.progress:
                step = SearchStep(self.start, self.starts, beta, float(intermediate_result.fun), self.cosine)
                try:
                    self.progress(step)
                except StopIteration as stop:  # SciPy would take it for the end of this descent
                    raise _Stopped from stop

        found = scipy.optimize.minimize(
            energy,
            self.latest.ravel(),
            (self.shape, beta, np.float32 if C * C * d > SINGLE else np.float64),
            "L-BFGS-B",
            jac=True,
            callback=keep,
            options={"maxiter": iterations, "maxfun": 2 * iterations, "maxcor": 10, "ftol": 1e-15, "gtol": 1e-9},
        )
        self.latest = unit_rows(found.x.reshape(self.shape))
