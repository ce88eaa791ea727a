"""Solvers by name: one module a solver, found by its file name and imported when it is used.

``from etfopt.solvers import TrustRegion`` imports the module ``trust_region`` alone, so a solver's extra is needed
only by those who use that solver.
"""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

from etfopt._registry import Registry, modules_of
from etfopt.errors import InputError
from etfopt.solvers.base import Solver

__all__ = ["SOLVERS", "as_solver"]

DEPRECATED = {"relaxation"}
MODULES = modules_of("etfopt.solvers", Path(__file__).parent)
SOLVERS = Registry("solver", {name: path for name, path in MODULES.items() if name not in DEPRECATED})
"""Subclasses of `etfopt.solvers.base.Solver`."""


def as_solver(solver: Solver | str, **options: Any) -> Solver:
    """Return a solver that is given as such, by name or by import path.

    Parameters
    ----------
    solver : Solver or str
        A solver; a name such as "trust-region"; or the import path ``package.module:name`` of a `Solver` subclass or
        of an instance of one.
    **options : object
        Hyper-parameters for a class that is given by name.

    Returns
    -------
    Solver
        With its defaults, but for the options.

    Raises
    ------
    InputError
        If the name is not known or leads to something else.
    MissingExtraError
        If the solver needs an extra that is not installed.

    References
    ----------
    Where each solver ends: ``theory/closed_form.py``, ``theory/duality.py`` and ``theory/landscape.py``.

    Examples
    --------
    >>> from etfopt.solvers import as_solver
    >>> as_solver("procrustes", method="svd")
    Procrustes(method='svd')
    """
    found = SOLVERS.load(solver, "solver") if isinstance(solver, str) else solver
    if isinstance(solver, str) and isinstance(found, type) and issubclass(found, Solver):
        found = found(**options)
    if not isinstance(found, Solver):
        raise InputError(
            f"solver = {solver!r} is not a Solver",
            argument="solver",
            value=solver,
            remedy=f"pass an instance such as Procrustes(), or a name, one of: {', '.join(SOLVERS)}",
        )
    return found


def __getattr__(name: str) -> Any:
    """Import the class TrustRegion from the module trust_region."""
    module = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
    if name[:1].isupper() and module.replace("_", "-") in SOLVERS.paths:
        return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *("".join(map(str.title, name.split("-"))) for name in SOLVERS)]
