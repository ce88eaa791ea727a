"""Riemannian steepest descent."""

from __future__ import annotations

from dataclasses import dataclass

from etfopt.solvers import _pymanopt
from etfopt.solvers._riemannian import RiemannianSolver

__all__ = ["SteepestDescent"]


@dataclass(frozen=True)
class SteepestDescent(RiemannianSolver):
    """Riemannian steepest descent: the simplest of the three, and the slowest.

    The parameters are those of every Riemannian solver: ``max_iterations``, ``gradient_tolerance``, ``derivatives``
    ("analytic" or "autograd"), ``retraction`` ("qr" or "polar"), ``max_seconds``, ``restarts`` and ``seed``.

    References
    ----------
    Absil, Mahony and Sepulchre (2008), section 4.2. Where it ends:
    ``theory/landscape.py``.

    Examples
    --------
    >>> import numpy as np
    >>> import etfopt
    >>> from etfopt.solvers import SteepestDescent
    >>> problem = etfopt.NearestETF(np.eye(6, 3), frame="reduced")
    >>> solver = SteepestDescent(max_iterations=2000)
    >>> etfopt.solve(problem, solver, initial_point=np.eye(6, 2)).certificate.relative_gap < 1e-8
    True
    """

    _optimizer = _pymanopt.SteepestDescent
