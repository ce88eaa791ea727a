"""Riemannian conjugate gradients."""

from __future__ import annotations

from dataclasses import dataclass

from etfopt.solvers import _pymanopt
from etfopt.solvers._riemannian import RiemannianSolver

__all__ = ["ConjugateGradient"]


@dataclass(frozen=True)
class ConjugateGradient(RiemannianSolver):
    """Riemannian conjugate gradients: no second derivatives.

    The parameters are those of every Riemannian solver: ``max_iterations``, ``gradient_tolerance``, ``derivatives``
    ("analytic" or "autograd"), ``retraction`` ("qr" or "polar"), ``max_seconds``, ``restarts`` and ``seed``.

    References
    ----------
    Absil, Mahony and Sepulchre (2008), section 8.3. Where it ends:
    ``theory/landscape.py``.

    Examples
    --------
    >>> import numpy as np
    >>> import etfopt
    >>> from etfopt.solvers import ConjugateGradient
    >>> problem = etfopt.NearestETF(np.eye(6, 3), frame="reduced")
    >>> etfopt.solve(problem, ConjugateGradient(max_iterations=1000), initial_point=np.eye(6, 2)).converged
    True
    """

    _optimizer = _pymanopt.ConjugateGradient
