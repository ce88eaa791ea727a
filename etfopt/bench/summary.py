"""Summary of a comparison: a line for each problem and solver, and performance profiles."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from etfopt.bench._measure import Row, Status

__all__ = ["Summary", "performance_profile", "ratios", "summarise"]


@dataclass(frozen=True)
class Summary:
    """All runs of a solver on a problem; None where no run gave an answer."""

    problem: str
    solver: str
    runs: int
    certified: int  # runs that reached the optimum, by the certificate and the solver's own tolerance
    seconds: float | None  # median
    fastest: float | None
    slowest: float | None
    relative_gap: float | None  # the worst of the answers, as the next two
    relative_stationarity: float | None
    etf_distance: float | None
    iterations: float | None  # median
    reason: str  # the most frequent one why runs were not certified; empty if all were


def summarise(rows: Sequence[Row]) -> list[Summary]:
    """Return a line for each pair of problem and solver, in the order in which they first appear."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for problem in dict.fromkeys(row.problem for row in rows):
        for row in rows:
            if row.problem == problem:
                groups.setdefault((problem, row.solver), []).append(row)
    return [_summary(problem, solver, group) for (problem, solver), group in groups.items()]


def _summary(problem: str, solver: str, rows: Sequence[Row]) -> Summary:
    seconds = _known(row.seconds for row in rows)
    iterations = _known(row.iterations for row in rows)
    missed = Counter(_reason(row) for row in rows if row.status is not Status.CERTIFIED)
    return Summary(
        problem=problem,
        solver=solver,
        runs=len(rows),
        certified=sum(row.status is Status.CERTIFIED for row in rows),
        seconds=statistics.median(seconds) if seconds else None,
        fastest=min(seconds, default=None),
        slowest=max(seconds, default=None),
        relative_gap=max(_known(row.relative_gap for row in rows), default=None),
        relative_stationarity=max(_known(row.relative_stationarity for row in rows), default=None),
        etf_distance=max(_known(row.etf_distance for row in rows), default=None),
        iterations=statistics.median(iterations) if iterations else None,
        reason=missed.most_common(1)[0][0] if missed else "",
    )


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _reason(row: Row) -> str:
    if row.status is not Status.NOT_OPTIMAL or row.termination is None:
        return row.status.value
    if row.feasible is False:
        return "infeasible"
    # the solver's own verdict on a point that is not optimal
    return row.termination.lower().replace("_", " ")


def ratios(rows: Sequence[Row], gap: float) -> dict[str, list[float]]:
    r"""Return performance ratios: for each solver its time over the fastest solver's, on every problem and start.

    A time ends when the trace first reaches the relative gap, the same for all solvers, so that none pays for digits
    that the others did not compute. A ratio is infinite if the solver never reached it. A direct solver's only row
    counts for every start.
    """
    solvers = list(dict.fromkeys(row.solver for row in rows))
    starts: dict[str, set[int]] = {}
    times: dict[tuple[str, str, int | None], float] = {}
    for row in rows:
        starts.setdefault(row.problem, set()).update(() if row.seed is None else {row.seed})
        times[row.solver, row.problem, row.seed] = row.seconds_to(gap)
    table: dict[str, list[float]] = {solver: [] for solver in solvers}
    for problem, seeds in starts.items():
        for seed in sorted(seeds) or (None,):
            cell = {s: times.get((s, problem, seed), times.get((s, problem, None), math.inf)) for s in solvers}
            fastest = min(cell.values())
            for solver, seconds in cell.items():
                table[solver].append(seconds / fastest if seconds < math.inf else math.inf)
    return table


def performance_profile(values: Sequence[float]) -> tuple[list[float], list[float]]:
    r"""Return the steps of :math:`\rho(\tau)`, the share of problems solved within a factor tau of the fastest solver.

    Parameters
    ----------
    values : sequence of float
        Performance ratios of a solver over all problems, inf where it failed.

    Returns
    -------
    tau, share : list of float
        The share is constant from each tau to the next, and 0 below the first. Both are empty if nothing was solved.

    References
    ----------
    Dolan and More (2002), Benchmarking optimization software with performance profiles, Math. Program. 91.
    """
    solved = sorted(value for value in values if value < math.inf)
    tau = sorted(set(solved))
    return tau, [sum(value <= t for value in solved) / len(values) for t in tau]
