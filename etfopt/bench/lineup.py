"""The solvers that are compared, by name, with the settings they run under."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from etfopt._arrays import as_positive
from etfopt.errors import InputError, MissingExtraError
from etfopt.solvers.base import Solver
from etfopt.solvers.procrustes import Procrustes

__all__ = ["SOLVERS", "Entrant", "line_up"]

FIRST_ORDER_ITERATIONS = 5000
"""Ten times the trust region's 500, whose iterations hold up to d r products with the Hessian each."""


@dataclass(frozen=True)
class Entrant:
    """A solver in the comparison.

    Attributes
    ----------
    name : str
    solver : Solver
        With its settings.
    local : bool
        Whether it descends from a start; a direct solver does not depend on one and runs once a problem.
    """

    name: str
    solver: Solver
    local: bool = False


def _trust_region(
    name: str, limit: float, derivatives: Literal["analytic", "autograd"] = "analytic", restarts: int = 0
) -> Entrant:
    from etfopt.solvers.riemannian import TrustRegion

    # the limit is that of each start
    seconds = limit / (restarts + 1)
    return Entrant(name, TrustRegion(derivatives=derivatives, restarts=restarts, max_seconds=seconds), local=True)


def _first_order(name: str, limit: float) -> Entrant:
    from etfopt.solvers.riemannian import ConjugateGradient, SteepestDescent

    kind = ConjugateGradient if name == "conjugate-gradient" else SteepestDescent
    return Entrant(name, kind(max_iterations=FIRST_ORDER_ITERATIONS, max_seconds=limit), local=True)


def _relaxation(name: str, limit: float) -> Entrant:  # noqa: ARG001 - it has no time limit of its own
    from etfopt.solvers.relaxation import ConvexRelaxation

    return Entrant(name, ConvexRelaxation("CLARABEL" if name == "clarabel" else "SCS"))


SOLVERS: dict[str, Callable[[str, float], Entrant]] = {
    "procrustes": lambda name, _: Entrant(name, Procrustes()),
    "procrustes-svd": lambda name, _: Entrant(name, Procrustes("svd")),
    "procrustes-gram": lambda name, _: Entrant(name, Procrustes("gram")),
    "procrustes-newton-schulz": lambda name, _: Entrant(name, Procrustes("newton-schulz")),
    "trust-region": _trust_region,
    # the paper's release differentiates the cost automatically
    "trust-region-autograd": lambda name, limit: _trust_region(name, limit, derivatives="autograd"),
    "trust-region-restart": lambda name, limit: _trust_region(name, limit, restarts=1),
    "conjugate-gradient": _first_order,
    "steepest-descent": _first_order,
    "clarabel": _relaxation,
    "scs": _relaxation,
}
"""Solvers by name: each is made for a time limit in seconds."""


def line_up(names: Sequence[str] = (), limit: float = 20.0) -> tuple[list[Entrant], list[str]]:
    """Return the solvers that are named, or all that are installed, and a line for each that is left out.

    Parameters
    ----------
    names : sequence of str
        All, if empty.
    limit : float
        Seconds after which a solver that can stop itself does so and reports what it has.

    Returns
    -------
    entrants, notes : list of Entrant, list of str
        The solvers, and why others are left out.

    Raises
    ------
    InputError
        If a name is unknown (the known ones are listed), or the limit is not positive.
    MissingExtraError
        If a solver that was asked for by name is not installed.
    """
    limit = as_positive(limit, "limit")
    for name in names:
        if name not in SOLVERS:
            raise InputError(f"solver = {name!r} is not known; choose one of: {', '.join(SOLVERS)}")
    entrants, left_out = [], []
    for name, make in SOLVERS.items():
        if names and name not in names:
            continue
        try:
            entrants.append(make(name, limit))
        except MissingExtraError as error:
            if names:
                raise
            left_out.append(f"{name} is left out: {error}")
    return entrants, left_out
