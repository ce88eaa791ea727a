"""The protocol of a solver: frozen hyper-parameters, and one method from a problem to a candidate."""

from __future__ import annotations

import abc
import enum
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

from etfopt._arrays import Array
from etfopt.errors import InputError
from etfopt.problem import NearestETF

__all__ = ["Candidate", "Solver", "Stats", "Termination", "TracePoint"]


class Termination(enum.Enum):
    """Why a solver stopped, by its own account. The value is advice that fits every solver.

    It does not say whether U is optimal: the certificate does. ``theory/landscape.py`` shows critical points that are
    not minimisers.
    """

    CLOSED_FORM = "The closed form was evaluated: nothing iterates, so there is nothing to tune."
    GRADIENT_TOLERANCE = (
        "The gradient fell below its tolerance: a critical point. If it is not the minimiser, the start lay on a "
        "saddle or, with d = r, in the wrong component of the manifold: start elsewhere, by initial_point."
    )
    STEP_TOLERANCE = "The line search found no further descent: the objective is flat to rounding there."
    ITERATION_LIMIT = "The iteration limit was reached: allow more iterations, or start nearer, by initial_point."
    CONIC = "A conic solver solved the relaxation, and its minimiser was rounded to the manifold: see stats.status."
    TIME_LIMIT = "The time limit was reached: allow more time, or start nearer, by initial_point."


class TracePoint(NamedTuple):
    """One iterate of a run.

    Attributes
    ----------
    seconds, iteration : float, int
        Time since the run began, with preparation and earlier starts; the number of the iterate.
    objective : float
        Objective of the problem, which may differ from the function that the solver minimises.
    gradient_norm : float
        Norm of the Riemannian gradient of the function that the solver minimises.
    """

    seconds: float
    iteration: int
    objective: float
    gradient_norm: float


@dataclass(frozen=True)
class Stats:
    """What a run cost.

    Attributes
    ----------
    solver, seconds, iterations : str, float, int
        Its name, the wall-clock time without the certificate, and 0 iterations for a closed form.
    trace : tuple of TracePoint
        The iterates of the run that gave the answer. Empty for a direct solver.
    fallback : str
        Which methods were tried first and why they failed. Empty where none did.
    """

    solver: str
    seconds: float
    iterations: int = 0
    trace: tuple[TracePoint, ...] = field(default=(), repr=False)
    fallback: str = ""


@dataclass(frozen=True)
class Candidate:
    """A solver's answer before it is certified.

    Attributes
    ----------
    U : ndarray, shape (d, r)
        In the problem's dtype.
    termination, stats : Termination, Stats
        Why the solver stopped, and what the run cost.
    """

    U: Array
    termination: Termination
    stats: Stats


class Solver(abc.ABC):
    """Base class of the solvers. A subclass is a frozen dataclass of hyper-parameters.

    A solver returns a candidate; `etfopt.solve` certifies it. ``docs/howto/add_solver.md`` writes one in a dozen lines.
    `etfopt compare` sets a field ``max_seconds``, where there is one, to its own time limit.

    Attributes
    ----------
    starts : bool
        Whether the answer can depend on the initial point. A comparison then runs the solver from several ones.

    Notes
    -----
    Where solvers end that look for a small gradient: ``theory/landscape.py``.
    """

    starts: ClassVar[bool] = False

    @abc.abstractmethod
    def gap_tolerance(self, problem: NearestETF) -> float:
        """Return the relative gap that this solver promises.

        Parameters
        ----------
        problem : NearestETF

        Returns
        -------
        float
            `etfopt.solve` rejects an answer with a larger gap.
        """

    @abc.abstractmethod
    def run(self, problem: NearestETF, initial_point: Array | None = None) -> Candidate:
        """Return a candidate for the minimiser.

        Parameters
        ----------
        problem : NearestETF
            Without held classes: `etfopt.solve` passes ``problem.free``.
        initial_point : ndarray, shape (d, r), optional
            Where an iterative solver starts. Direct solvers ignore it.

        Returns
        -------
        Candidate
        """


def require_free(problem: NearestETF) -> None:
    """Raise `InputError` for a problem with held classes, which no solver handles by itself."""
    if problem.held is not None:
        remedy = "use etfopt.solve(problem, solver), or run it on problem.free"
        raise InputError(f"{problem!r} holds classes, and a solver's run takes none", "problem", problem, remedy)
