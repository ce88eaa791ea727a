"""The solvers that are compared, by name, with the hyper-parameters that they run with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from etfopt._registry import Registry
from etfopt._scalars import as_positive
from etfopt.errors import MissingExtraError
from etfopt.solvers import SOLVERS, as_solver
from etfopt.solvers.base import Solver

__all__ = ["ENTRANTS", "Entrant", "line_up"]

FIRST_ORDER = {"max_iterations": 5000}
"""Ten times the trust region's 500, whose iterations hold up to d r products with the Hessian each."""

VARIANTS: dict[str, tuple[str, Mapping[str, Any]]] = {
    "procrustes": ("procrustes", {}),
    "procrustes-svd": ("procrustes", {"method": "svd"}),
    "procrustes-gram": ("procrustes", {"method": "gram"}),
    "procrustes-newton-schulz": ("procrustes", {"method": "newton-schulz"}),
    "trust-region": ("trust-region", {}),
    # the paper's release differentiates the cost automatically
    "trust-region-autograd": ("trust-region", {"derivatives": "autograd"}),
    "trust-region-restart": ("trust-region", {"restarts": 1}),
    "conjugate-gradient": ("conjugate-gradient", FIRST_ORDER),
    "steepest-descent": ("steepest-descent", FIRST_ORDER),
    "clarabel": ("convex-relaxation", {"backend": "CLARABEL"}),
    "scs": ("convex-relaxation", {"backend": "SCS"}),
}
"""Solvers of `etfopt.solvers.SOLVERS` with other hyper-parameters than their defaults."""

USED = {solver for solver, _ in VARIANTS.values()}
ENTRANTS = (*VARIANTS, *(name for name in SOLVERS if name not in USED))
"""The names that are compared by default: the variants, and every solver that has none."""


@dataclass(frozen=True)
class Entrant:
    """A solver in the comparison.

    Attributes
    ----------
    name : str
        Its name in the tables.
    solver : Solver
        The solver, with its hyper-parameters.
    local : bool
        Whether it runs from several starts. A direct solver does not depend on the start and runs once a problem.
    """

    name: str
    solver: Solver
    local: bool = False


def line_up(names: Sequence[str] = (), limit: float = 20.0) -> tuple[list[Entrant], list[str]]:
    """Return the named solvers, or all that are installed, and a line for each that is left out.

    Parameters
    ----------
    names : sequence of str
        Names of `ENTRANTS`, or import paths ``package.module:name`` of solvers of your own. Empty means all.
    limit : float
        Time limit in seconds for solvers that have a ``max_seconds``.

    Returns
    -------
    entrants, notes : list of Entrant, list of str
        The solvers, and why others are left out.

    Raises
    ------
    InputError
        If a name is unknown (the error lists the known ones), or the limit is not positive.
    MissingExtraError
        If a solver that is named is not installed.
    """
    limit = as_positive(limit, "limit")
    known = Registry("solver", dict.fromkeys((*ENTRANTS, *SOLVERS), ""))
    entrants, left_out = [], []
    for name in dict.fromkeys(known.checked(name) for name in names or ENTRANTS):
        try:
            entrants.append(_entrant(name, limit))
        except MissingExtraError as error:
            if names:
                raise
            left_out.append(f"{name} is left out: {error}")
    return entrants, left_out


def _entrant(name: str, limit: float) -> Entrant:
    path, options = VARIANTS.get(name, (name, {}))
    solver: Any = as_solver(path, **options)
    if "max_seconds" in getattr(solver, "__dataclass_fields__", ()):
        # the limit is that of each start
        solver = replace(solver, max_seconds=limit / (getattr(solver, "restarts", 0) + 1))
    return Entrant(name, solver, solver.starts)
