r"""Solvers side by side: every problem, every solver, every start; one run in one cell, and one row for each cell.

The rules, for a reader who doubts comparisons:

- Every local solver starts from the same point in the same cell of problem and seed: a uniformly random point of the
  Stiefel manifold, with and without a proximal term. The paper starts from U_prox, which lies near the solution during
  training; a random start also shows where a method converges from.
- All local solvers have the same tolerance on the gradient and the same time limit. Direct solvers run once a problem.
- The clock runs during ``solver.run`` alone, in a process that has imported the solver and run it on a small problem.
  The problem is built anew for every run, so that nothing is left in a cache. Cells of the same problem are neighbours.
- Optimality, gap and distance are computed afterwards, from the problem alone.
"""

from __future__ import annotations

import warnings
from collections.abc import Generator, Sequence
from dataclasses import replace

import numpy as np

from etfopt._processes import Overtime, Worker, WorkerDied
from etfopt._scalars import as_integer, as_positive
from etfopt.bench._measure import Cell, Row, Status, blank, measure
from etfopt.bench.lineup import Entrant
from etfopt.bench.problems import NamedProblem
from etfopt.problem import NearestETF

__all__ = ["cells", "compare", "warm_up"]

WARM_UP_LIMIT = 60.0
"""Seconds that a solver may take for its imports and a tiny problem."""

GRACE = 1.25
"""A run is killed one second after so many times its limit: solvers look at the clock between iterations only."""


def cells(problems: Sequence[NamedProblem], entrants: Sequence[Entrant], seeds: int) -> list[Cell]:
    """Return the grid, solvers innermost, so that a machine that slows down slows all of them.

    Parameters
    ----------
    problems : sequence of NamedProblem
        Outermost.
    entrants : sequence of Entrant
        Direct solvers get one cell a problem.
    seeds : int
        Starts of every local solver, at least 1.

    Returns
    -------
    list of Cell
        The cells, in the order in which they run.

    Raises
    ------
    InputError
        If `seeds` is not an integer of at least 1.
    """
    as_integer(seeds, "seeds", at_least=1)
    return [
        Cell(problem, entrant, seed if entrant.local else None)
        for problem in problems
        for seed in range(seeds)
        for entrant in entrants
        if entrant.local or seed == 0
    ]


def compare(grid: Sequence[Cell], limit: float = 20.0) -> Generator[Row]:
    """Run the cells one after the other, each within a time limit, and yield a row for each, also if it fails.

    Parameters
    ----------
    grid : sequence of Cell
    limit : float
        Seconds. A run that has not returned a quarter and one second later, with its repetitions and its certificate,
        is killed; solvers with a limit of their own return what they have before.

    Yields
    ------
    Row
        One row for each cell, in the order of the grid.

    Raises
    ------
    InputError
        If `limit` is not positive.
    WorkerDied
        If the process that runs the solvers cannot be started at all.
    """
    limit = as_positive(limit, "limit")
    with Worker() as worker:
        warm: set[tuple[int, str]] = set()
        for cell in grid:
            worker.start()
            allowed, work = WARM_UP_LIMIT, "on a tiny problem"
            try:
                if (key := (worker.generation, cell.entrant.name)) not in warm:
                    worker.call(warm_up, cell.entrant, limit=allowed)
                    warm.add(key)
                allowed, work = limit, "on this problem"
                row: Row = worker.call(measure, cell, limit=GRACE * limit + 1)
            except Overtime:
                message = f"stopped: more than {allowed:g} s {work}"
                row = replace(blank(cell), status=Status.TIME_LIMIT, message=message)
            except WorkerDied as error:
                row = replace(blank(cell), message=str(error))
            yield row


def warm_up(entrant: Entrant) -> None:
    """Run a solver once on a tiny problem, so that imports and first calls are behind it."""
    problem = NearestETF(np.eye(4, 3))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what the cells warn of is reported there
            entrant.solver.run(problem, np.eye(4, 3)[::-1].copy() if entrant.local else None)
    except Exception:  # it will fail in its cells too, where this becomes a row
        return
