"""etfopt: the nearest simplex equiangular tight frame, solved exactly, certified and differentiable."""

from etfopt.certificate import Certificate, certify
from etfopt.errors import ConvergenceError, EtfoptError, InputError, MissingExtraError
from etfopt.frames import simplex_etf
from etfopt.geometry import random_stiefel
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
    "nearest_etf",
    "polar_factor",
    "random_stiefel",
    "simplex_etf",
    "solve",
]
