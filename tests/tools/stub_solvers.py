"""Solvers that misbehave. In a module of their own, since another process has to import them."""

import os
import time
import warnings
from dataclasses import dataclass
from itertools import count

import numpy as np

from etfopt import InputError
from etfopt.solvers.base import Candidate, Solver, Stats, Termination, TracePoint

WARM_UP = 4
"""Largest d of the problem that warms up: they are well-behaved there."""

CALLS = count()


@dataclass(frozen=True)
class Stub(Solver):
    """Returns its starting point."""

    def gap_tolerance(self, _problem):
        return 1e-10

    def run(self, problem, initial_point=None):
        U = np.eye(problem.d, problem.r) if initial_point is None else initial_point
        if problem.d > WARM_UP:
            self.misbehave()
        return Candidate(U, Termination.ITERATION_LIMIT, Stats(type(self).__name__, 0.0, 1))

    def misbehave(self):
        pass


@dataclass(frozen=True)
class Raises(Stub):
    def misbehave(self):
        raise ArithmeticError("out of luck")


@dataclass(frozen=True)
class Refuses(Stub):
    def misbehave(self):
        raise InputError("not this one")


@dataclass(frozen=True)
class Sleeps(Stub):
    seconds: float = 60.0

    def misbehave(self):
        time.sleep(self.seconds)


@dataclass(frozen=True)
class Hangs(Stub):
    """Does not even return from a tiny problem."""

    def run(self, _problem, _start=None):
        time.sleep(600)


@dataclass(frozen=True)
class Dies(Stub):
    def misbehave(self):
        os._exit(3)


@dataclass(frozen=True)
class Warns(Stub):
    def misbehave(self):
        warnings.warn("mind the gap", RuntimeWarning, stacklevel=1)


@dataclass(frozen=True)
class Infeasible(Stub):
    """Returns twice the minimiser: its gap is negative, and means nothing."""

    def run(self, problem, _start=None):
        P, _, Qt = np.linalg.svd(problem.linear_term, full_matrices=False)
        return Candidate(2 * P @ Qt, Termination.ITERATION_LIMIT, Stats("Infeasible", 0.0, 1))


@dataclass(frozen=True)
class ColdOnly(Stub):
    """Fails unless nothing was cached on the problem that it gets."""

    def run(self, problem, initial_point=None):
        assert "scaled_linear_term" not in vars(problem)
        problem.scaled_linear_term  # noqa: B018 - fills the cache
        return super().run(problem, initial_point)


@dataclass(frozen=True)
class FirstCallIsSlow(Stub):
    """Takes long in the first call of a process."""

    def run(self, problem, initial_point=None):
        if next(CALLS) == 0:
            time.sleep(0.5)
        return super().run(problem, initial_point)


@dataclass(frozen=True)
class Traced(Stub):
    """Ends at the start, with a trace whose objectives exceed the last by these multiples of the nuclear norm."""

    excess: tuple[float, ...] = ()

    def run(self, problem, initial_point=None):
        candidate = super().run(problem, initial_point)
        end, nuclear = problem.objective(candidate.U), np.linalg.norm(problem.linear_term, "nuc")
        trace = tuple(TracePoint(1e-9 * k, k, end + e * nuclear, 0.0) for k, e in enumerate(self.excess))
        return Candidate(candidate.U, candidate.termination, Stats("Traced", 0.0, 1, trace))
