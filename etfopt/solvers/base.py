"""What a solver is: frozen hyper-parameters and one verb, from a problem to a candidate that it does not grade."""

from __future__ import annotations

import abc
import enum
from dataclasses import dataclass
from typing import NamedTuple

from etfopt._arrays import Array
from etfopt.problem import NearestETF

__all__ = ["Candidate", "Solver", "Stats", "Termination", "TracePoint"]


class Termination(enum.Enum):
    """Why a solver stopped, by its own account; the value is advice that holds for every solver.

    Where a setting of the solver at hand would help, `etfopt.solve` names it in its error.

    Whether U is optimal is the certificate's word: a small gradient is what a solver says, and ``theory/landscape.py``
    shows the critical points that are not minimisers.
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
    seconds : float
        Time after the run began, all preparation and earlier starts included.
    iteration : int
        From 0 or 1, as the solver counts.
    objective : float
        Of the problem, not of what the solver minimises.
    gradient_norm : float
        Norm of the Riemannian gradient of what the solver minimises.
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
    solver : str
        Name of the solver.
    seconds : float
        Wall-clock time of the solve, without the certificate.
    iterations : int
        0 for a closed form.
    trace : tuple of TracePoint
        The iterates of the run that gave the answer, where the solver iterates.
    fallback : str
        Why what was tried before could not keep the promised accuracy; empty where nothing failed.
    """

    solver: str
    seconds: float
    iterations: int = 0
    trace: tuple[TracePoint, ...] = ()
    fallback: str = ""


@dataclass(frozen=True)
class Candidate:
    """A solver's answer before it is judged.

    Attributes
    ----------
    U : ndarray, shape (d, r)
        In the problem's dtype.
    termination : Termination
        Why the solver stopped.
    stats : Stats
        What it cost.
    """

    U: Array
    termination: Termination
    stats: Stats


class Solver(abc.ABC):
    """Base class of the solvers. A subclass is a frozen dataclass of hyper-parameters.

    It returns a candidate and does not grade it: `etfopt.solve` does, by the certificate. ``docs/howto/add_solver.md``
    writes one in a dozen lines.

    Notes
    -----
    Where solvers end that only look for small gradients: ``theory/landscape.py``.
    """

    @abc.abstractmethod
    def gap_tolerance(self, problem: NearestETF) -> float:
        """Return the relative gap that this solver promises.

        Parameters
        ----------
        problem : NearestETF
            Its dtype and size may matter.

        Returns
        -------
        float
            An answer with a larger gap counts as a failure.
        """

    @abc.abstractmethod
    def run(self, problem: NearestETF, initial_point: Array | None = None) -> Candidate:
        """Return a candidate for the minimiser.

        Parameters
        ----------
        problem : NearestETF
            What to solve.
        initial_point : ndarray, shape (d, r), optional
            Where iterative solvers start.

        Returns
        -------
        Candidate
            Not judged yet.
        """
