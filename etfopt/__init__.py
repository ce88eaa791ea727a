"""The nearest simplex equiangular tight frame (ETF): solved exactly, certified and differentiable.

A tour, with class means H of shape (d, C), one column a class::

    solution = etfopt.nearest_etf(H)         # the nearest ETF, by the closed form
    solution.etf, solution.weight            # (d, C) and (C, d): the rows of weight classify
    solution.certificate                     # how far from optimal it can be
    etfopt.nearest_etf(H, frame="best")      # another frame where d < C - 1
    etfopt.nearest_etf(H, weights=counts)    # classes of different weight
    etfopt.solve(etfopt.NearestETF(H), "trust-region")    # an iterative solver
    etfopt.grow(solution, new_means)         # new classes; the old vertices stay

Modules, imported when they are first used:

- `etfopt.frames`: frames by name, with largest cosine and bound; ``best_frame(d, C)`` chooses one.
- `etfopt.solvers`: the closed form, trust region, gradient methods, convex relaxation.
- `etfopt.nn`: heads that replace ``nn.Linear``, and the differentiable ``nearest_etf``. Needs PyTorch.
- `etfopt.metrics`: measures of neural collapse. Needs torchmetrics.
- `etfopt.plotting`: figures. Needs matplotlib.
- `etfopt.experiments`, `etfopt.bench`: training runs and studies, comparisons of solvers.
- `etfopt.files`: read class means, save solutions and frames.

In a shell, ``etfopt --help`` lists the commands and ``etfopt doctor`` checks the installation. The package logs to
``logging.getLogger("etfopt")`` and prints nothing.
"""

from __future__ import annotations

import importlib
import logging
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from etfopt.errors import ConvergenceError, EtfoptError, InputError, MissingExtraError

if TYPE_CHECKING:
    from etfopt.certificate import Certificate, certify
    from etfopt.frames import simplex_etf
    from etfopt.geometry import random_stiefel
    from etfopt.growth import grow
    from etfopt.polar import polar_factor
    from etfopt.problem import NearestETF
    from etfopt.solution import Solution, nearest_etf, solve
    from etfopt.solvers.base import Termination

__version__ = "0.2.0"

__all__ = [
    "Certificate",
    "ConvergenceError",
    "EtfoptError",
    "InputError",
    "MissingExtraError",
    "NearestETF",
    "Solution",
    "Termination",
    "certify",
    "grow",
    "nearest_etf",
    "polar_factor",
    "random_stiefel",
    "simplex_etf",
    "solve",
]

logging.getLogger(__name__).addHandler(logging.NullHandler())  # the program decides what is shown, and where

MODULES = {"files": "", "frames": "", "solvers": "", "nn": "torch", "metrics": "torchmetrics", "plotting": "matplotlib"}
"""Modules that ``dir`` lists, if the package that they need is installed: ``help`` imports all that it lists."""

# NumPy and SciPy are imported when one of these is asked for: `etfopt train --help` needs neither
HOMES = {
    "certificate": ("Certificate", "certify"),
    "frames": ("simplex_etf",),
    "geometry": ("random_stiefel",),
    "growth": ("grow",),
    "polar": ("polar_factor",),
    "problem": ("NearestETF",),
    "solution": ("Solution", "nearest_etf", "solve"),
    "solvers.base": ("Termination",),
}


def __getattr__(name: str) -> Any:
    home = next((module for module, names in HOMES.items() if name in names), None)
    if home is None and not name.startswith("_") and find_spec(f"{__name__}.{name}"):
        return importlib.import_module(f"{__name__}.{name}")
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    return value


def __dir__() -> list[str]:
    found = (name for name, needed in MODULES.items() if not needed or find_spec(needed))
    return sorted({*__all__, *found, *(name for name in globals() if name.startswith("__"))})
