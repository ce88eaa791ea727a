"""The paper's solver: a Riemannian trust region."""

from __future__ import annotations

from dataclasses import dataclass

from etfopt._deprecated import moved
from etfopt.solvers import _pymanopt
from etfopt.solvers._riemannian import RiemannianSolver

__all__ = ["TrustRegion"]

__getattr__ = moved(__name__, dict.fromkeys(("ConjugateGradient", "SteepestDescent"), "etfopt.solvers"))


@dataclass(frozen=True)
class TrustRegion(RiemannianSolver):
    """The paper's solver: a Riemannian trust region, with truncated conjugate gradients inside.

    The parameters are those of every Riemannian solver: ``max_iterations``, ``gradient_tolerance``, ``derivatives``
    ("analytic" or "autograd"), ``retraction`` ("qr" or "polar"), ``max_seconds``, ``restarts`` and ``seed``.

    References
    ----------
    Absil, Baker and Gallivan (2007), Trust-region methods on Riemannian manifolds. Where it ends:
    ``theory/landscape.py``.

    Examples
    --------
    >>> import numpy as np
    >>> import etfopt
    >>> from etfopt.solvers import TrustRegion
    >>> problem = etfopt.NearestETF(np.eye(6, 3), frame="reduced")
    >>> etfopt.solve(problem, TrustRegion(), initial_point=np.eye(6, 2)).converged
    True
    """

    _optimizer = _pymanopt.TrustRegions
