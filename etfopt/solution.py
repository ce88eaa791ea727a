r"""A solver's answer together with what the certificate says of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from etfopt._arrays import Array
from etfopt._scaling import normalized, own_errstate, rescaled
from etfopt.certificate import Certificate
from etfopt.geometry import polar_factor
from etfopt.problem import NearestETF
from etfopt.solvers.base import Stats, Termination

__all__ = ["Solution"]


@dataclass(frozen=True, eq=False)
class Solution:
    r"""The nearest ETF, named as one would on paper, with what the solver says of it and what was checked.

    Attributes
    ----------
    problem : NearestETF
        What was solved.
    U : ndarray, shape (d, r)
        The point of the Stiefel manifold.
    termination : Termination
        What the solver says of its run; ``termination.value`` is advice.
    certificate : Certificate
        What was checked of U, whichever solver found it.
    stats : Stats
        Iterations, seconds, solver, trace.
    converged : bool
        The certificate's verdict: U is feasible and its relative gap is within what the solver promises.

    Notes
    -----
    What the verdict is worth: ``theory/certificate.py``. Scale and distance: ``theory/free_scale.py``. Rows of the
    weight: ``theory/simplex.py``.

    Examples
    --------
    >>> import etfopt
    >>> solution = etfopt.nearest_etf(3.0 * etfopt.simplex_etf(4))
    >>> solution.etf.shape, solution.weight.shape
    ((4, 4), (4, 4))
    >>> round(float(solution.scale), 4), bool(solution.distance < 1e-14)
    (3.0, True)
    """

    problem: NearestETF
    U: Array
    termination: Termination
    certificate: Certificate
    stats: Stats
    converged: bool

    @cached_property
    @own_errstate
    def etf(self) -> Array:
        """The nearest ETF U F, shape (d, C): unique even where U is not, if ``certificate.etf_unique``."""
        return np.asarray(self.U @ self.problem.F, dtype=self.problem.dtype)

    @cached_property
    @own_errstate
    def weight(self) -> Array:
        r"""Classifier weight :math:`W = \sqrt C\,(UF)'/\|F\|_F`, shape (C, d).

        For the simplex the rows have unit norm and pairwise cosine -1/(C-1).
        """
        F, _ = normalized(self.problem.F)  # a power of two less: the same digits, in range for a frame of any size
        scale = math.sqrt(self.problem.C) / float(np.linalg.norm(F))
        return np.asarray(scale * np.asarray(self.U @ F, dtype=self.problem.dtype).T, dtype=self.problem.dtype)

    @cached_property
    @own_errstate
    def objective(self) -> float:
        r"""Objective :math:`\|H-UF\|^2 + \tfrac{\delta}{2}\|U-U_{prox}\|^2`, inf where float64 cannot hold it."""
        return self.problem.objective(self.U)

    @cached_property
    @own_errstate
    def scale(self) -> float:
        r"""Best size :math:`s = \langle H, UF\rangle / \|F\|^2` of this ETF, minimising :math:`\|H - s\,UF\|_F`."""
        return _best_scale(self.problem, self.U)

    @cached_property
    @own_errstate
    def distance(self) -> float:
        r"""Distance :math:`\min_{s, U} \|H - s\,UF\|_F` of H to the nearest ETF of any size, in the units of H.

        A residual, not the difference :math:`\|H\|^2 - \|HF'\|_*^2/\|F\|^2` that it equals: near collapse that
        difference has no correct digit. Without a proximal term the minimiser is this U; with one it is the polar
        factor of HF', computed when asked for.
        """
        problem, U = self.problem, self.U
        if problem.delta > 0 or not self.converged:
            (H, _), (F, _) = normalized(problem.H), normalized(problem.F)
            U = polar_factor(H @ F.T)
        (H, e), U64 = normalized(problem.H), np.asarray(U, dtype=np.float64)
        unit = NearestETF(H, frame=problem.F)
        return float(rescaled(np.linalg.norm(H - _best_scale(unit, U64) * (U64 @ problem.F)), e))


def _best_scale(problem: NearestETF, U: Array) -> float:
    (H, h), (F, f) = normalized(problem.H), normalized(problem.F)
    return float(rescaled(np.vdot(H, np.asarray(U, dtype=np.float64) @ F) / np.vdot(F, F), h - f))
