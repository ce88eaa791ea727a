"""What a solver is: frozen hyper-parameters and one verb, from a problem to a candidate that it does not grade."""

from __future__ import annotations

import abc
import enum
from dataclasses import dataclass

from etfopt._inputs import Array
from etfopt.problem import NearestETF

__all__ = ["Candidate", "Solver", "Stats", "Termination"]


class Termination(enum.Enum):
    """Why a solver stopped, by its own account; the value is advice. Whether U is optimal is the certificate's word."""

    CLOSED_FORM = "The closed form was evaluated: nothing iterates, so there is nothing to tune."


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
    trace : tuple of (float, float)
        (seconds, objective) along the run, where the solver has one.
    """

    solver: str
    seconds: float
    iterations: int = 0
    trace: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class Candidate:
    """A solver's answer before it is judged: U of shape (d, r), why it stopped, and what it cost."""

    U: Array
    termination: Termination
    stats: Stats


class Solver(abc.ABC):
    """Base class of the solvers. A subclass is a frozen dataclass of hyper-parameters."""

    @abc.abstractmethod
    def gap_tolerance(self, problem: NearestETF) -> float:
        """Return the relative gap that this solver promises, and above which its answer counts as a failure."""

    @abc.abstractmethod
    def run(self, problem: NearestETF, initial_point: Array | None = None) -> Candidate:
        """Return a candidate for the minimiser. `initial_point`, shape (d, r), is where iterative solvers start."""
