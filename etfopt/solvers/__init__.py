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

__all__ = ["SOLVERS"]

MODULES = modules_of("etfopt.solvers", Path(__file__).parent)
del MODULES["relaxation"]  # the deprecated place of convex_relaxation
SOLVERS = Registry("solver", MODULES)
"""Subclasses of `etfopt.solvers.base.Solver`."""


def as_solver(solver: Solver | str, **options: Any) -> Solver:
    """Return a solver from itself, or from its name or import path and the hyper-parameters of its class."""
    found = SOLVERS.load(solver, "solver") if isinstance(solver, str) else solver
    if isinstance(solver, str) and isinstance(found, type) and issubclass(found, Solver):
        try:
            found = found(**options)
        except TypeError as error:
            remedy = "give its parameters defaults, or name an instance"
            raise InputError(f"solver = {solver!r}: {error}", "solver", solver, remedy) from error
    if not isinstance(found, Solver):
        remedy = f"pass an instance such as Procrustes(), or a name, one of: {', '.join(SOLVERS)}"
        raise InputError(f"solver = {solver!r} is not a Solver", "solver", solver, remedy)
    return found


def __getattr__(name: str) -> Any:
    """Import the class TrustRegion from the module trust_region."""
    module = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
    if name[:1].isupper() and module.replace("_", "-") in SOLVERS.paths:
        return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
