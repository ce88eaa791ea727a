"""One cell of a comparison: a solver runs on a problem, the certificate judges its answer, and a row records it."""

from __future__ import annotations

import enum
import math
import statistics
import time
import warnings
from dataclasses import dataclass, replace

import numpy as np

from etfopt._arrays import Array, as_generator
from etfopt.bench.lineup import Entrant
from etfopt.bench.problems import NamedProblem
from etfopt.certificate import Certificate, certify
from etfopt.errors import InputError
from etfopt.geometry import random_stiefel
from etfopt.problem import NearestETF
from etfopt.solvers.base import Candidate

__all__ = ["Cell", "Row", "Status", "blank", "measure", "starting_point"]

REPEAT_SECONDS = 0.05
"""Runs are repeated until they have taken this long together, and the median is reported."""

REPEATS = 7
"""At most so many runs a cell."""

FLOOR = 2.0**-52
"""Relative gaps below the rounding unit of float64 are rounding."""


class Status(enum.Enum):
    """Result of a cell; the value is the text in the table."""

    CERTIFIED = "certified"
    NOT_OPTIMAL = "not optimal"
    REFUSED = "refused"
    FAILED = "failed"
    TIME_LIMIT = "time limit"


@dataclass(frozen=True)
class Cell:
    """A solver on a problem, from one start."""

    problem: NamedProblem
    entrant: Entrant
    seed: int | None  # of the start; None for a solver that needs none


@dataclass(frozen=True)
class Row:
    r"""Measurements of a cell, many from its `Certificate`; None if there is no answer, or nothing to measure."""

    problem: str
    family: str
    solver: str
    seed: int | None  # None for a direct solver
    d: int
    C: int
    r: int
    delta: float
    dtype: str
    status: Status  # certified: feasible, and the relative gap is within `gap_tolerance`, which the solver promises
    seconds: float | None = None  # median time of `repeats` runs
    repeats: int = 0
    relative_gap: float | None = None
    gap_tolerance: float | None = None
    relative_stationarity: float | None = None
    feasibility: float | None = None
    feasible: bool | None = None
    etf_distance: float | None = None  # |UF - U*F| / |F|, U* from LAPACK's SVD of A; None where the ETF is not unique
    iterations: int | None = None
    termination: str | None = None  # name of the solver's own verdict, a member of `Termination`
    message: str = ""  # why there is no answer, what the solver fell back from, or what the run warned of
    trace: tuple[tuple[float, float], ...] = ()
    """Pairs of seconds and relative gap: the first iterate, the first below each 10^(-k/4), and the answer. Of several
    starts, the best one."""

    @property
    def certified(self) -> bool:
        """Whether the certificate accepts the answer."""
        return self.status is Status.CERTIFIED

    def seconds_to(self, gap: float) -> float:
        """Return the time at which the relative gap first was small enough.

        Parameters
        ----------
        gap : float
            The relative gap to reach.

        Returns
        -------
        float
            Seconds; infinity if the gap was never reached, or if U is infeasible.
        """
        if not self.feasible or self.seconds is None or self.relative_gap is None or self.relative_gap > gap:
            return float("inf")
        return next((seconds for seconds, reached in self.trace if reached <= gap), self.seconds)


def measure(cell: Cell) -> Row:
    """Run a cell in this process, and return its row: an exception of the solver is a row, too."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            row = _answered(cell)
        except InputError as error:
            row = replace(blank(cell), status=Status.REFUSED, message=str(error))
        except Exception as error:  # whatever a solver raises
            row = replace(blank(cell), message=f"{type(error).__name__}: {error}")
    said = dict.fromkeys(str(warning.message) for warning in caught)
    return replace(row, message="; ".join([*([row.message] if row.message else []), *said]))


def blank(cell: Cell) -> Row:
    """Return the row of a cell that has no answer."""
    problem = cell.problem.problem
    return Row(
        problem=cell.problem.name,
        family=cell.problem.family,
        solver=cell.entrant.name,
        seed=cell.seed,
        d=problem.d,
        C=problem.C,
        r=problem.r,
        delta=problem.delta,
        dtype=str(problem.dtype),
        status=Status.FAILED,
    )


def _answered(cell: Cell) -> Row:
    problem, solver = cell.problem.problem, cell.entrant.solver
    start = None if cell.seed is None else starting_point(problem, cell.seed)
    runs: list[tuple[float, Candidate]] = []
    while not runs or (sum(seconds for seconds, _ in runs) < REPEAT_SECONDS and len(runs) < REPEATS):
        fresh = problem.fresh()
        begin = time.perf_counter()
        candidate = solver.run(fresh, start)
        runs.append((time.perf_counter() - begin, candidate))
    middle = statistics.median_low(seconds for seconds, _ in runs)
    seconds, candidate = next(run for run in runs if run[0] == middle)
    certificate, tolerance = certify(problem, candidate.U), solver.gap_tolerance(problem)
    return replace(
        blank(cell),
        status=Status.CERTIFIED if certificate.optimal(tolerance) else Status.NOT_OPTIMAL,
        seconds=seconds,
        repeats=len(runs),
        relative_gap=certificate.relative_gap,
        gap_tolerance=tolerance,
        relative_stationarity=certificate.relative_stationarity,
        feasibility=certificate.feasibility,
        feasible=certificate.feasible,
        etf_distance=_etf_distance(problem, candidate.U) if certificate.etf_unique else None,
        iterations=candidate.stats.iterations,
        termination=candidate.termination.name,
        message=f"{cell.entrant.name} fell back: {candidate.stats.fallback}" if candidate.stats.fallback else "",
        trace=_trace(problem, candidate, certificate, seconds),
    )


def starting_point(problem: NearestETF, seed: int) -> Array:
    """Return the point of St(d, r) from which every local solver starts."""
    start = random_stiefel(problem.d, problem.r, as_generator(seed, "seed"))
    start.flags.writeable = False  # it is the same array for every repetition
    return start


def _etf_distance(problem: NearestETF, U: Array) -> float:
    # not the closed form's own code: what LAPACK returns, as it is
    P, _, Qt = np.linalg.svd(problem.linear_term, full_matrices=False)
    F = problem.F.astype(np.float64)
    return float(np.linalg.norm((U - P @ Qt) @ F) / np.linalg.norm(F))


def _trace(
    problem: NearestETF, candidate: Candidate, certificate: Certificate, seconds: float
) -> tuple[tuple[float, float], ...]:
    """Return the trace as relative gaps, thinned without losing when each quarter of a decade was first reached."""
    points = candidate.stats.trace
    nuclear = float(np.linalg.norm(problem.linear_term, "nuc"))
    if not points or nuclear == 0:
        return ()
    end = problem.objective(candidate.U)
    # from the end: the certificate knows the last gap better than a difference of objectives does
    gaps = [max(certificate.relative_gap + (point.objective - end) / nuclear, FLOOR) for point in points]
    kept, level = [], math.inf
    for point, gap in zip(points, gaps, strict=True):
        if gap < level:
            kept.append((point.seconds, gap))
            # the power of 10**(1/4) at or below: what comes next in the same quarter of a decade is left out
            level = 10 ** (math.floor(4 * math.log10(gap)) / 4) if gap > FLOOR else FLOOR
    return (*kept, (seconds, gaps[-1]))
