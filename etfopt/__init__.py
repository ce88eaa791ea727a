"""etfopt: the nearest simplex equiangular tight frame, solved exactly, certified and differentiable."""

from __future__ import annotations

import importlib
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

__version__ = "0.1.0"

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
    return sorted({*globals(), *__all__})
