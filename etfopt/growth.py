r"""Growth: more classes than before, with the old vertices held or moved as little as possible."""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from etfopt._arrays import Array, Float64Array, as_matrix
from etfopt._scalars import as_positive
from etfopt._scaling import normalized, normalized_columns, own_errstate
from etfopt.errors import InputError
from etfopt.problem import NearestETF
from etfopt.solution import Solution, solve
from etfopt.solvers.base import Solver

__all__ = ["grow"]

Classes: TypeAlias = NDArray[np.intp]

DETERMINED = 2.0**-100
"""Weight of new classes whose places are determined by the old ones: the old vertices do not move by rounding."""


@own_errstate
def grow(
    solution: Solution, new_means: ArrayLike, *, weight: float = 1e-3, solver: Solver | str | None = None
) -> Solution:
    r"""Add classes to a solved problem, and move the vertices of the old ones as little as possible.

    There are two cases.

    - *A known bound on the classes.* The problem of `solution` has classes of weight 0: these places are left. The new
      classes take the first of them in order. The old vertices stay where they are, to rounding; the new ones go to the
      nearest places that are left.
    - *No bound.* All :math:`K_1` classes have positive weights, and the frame is a simplex. The answer is a simplex of
      :math:`K_2 = K_1 + k` vertices, so every old vertex must move: the best mean cosine between an old vertex and its
      new place is :math:`\sqrt{(K_1-1)K_2/(K_1(K_2-1))}`. The problem has the old vertices as targets of weight 1 and
      the new means as targets of weight `weight`.

    Parameters
    ----------
    solution : Solution
        The old classes: those with a positive weight.
    new_means : array_like, shape (d, k)
        Means of the new classes, one column a class, of any size. Subtract the global mean that the old class means
        were centred by, not that of the new data: the old vertices lie around it.
    weight : float
        Weight of a new class where every vertex must move. The default 1e-3 keeps the old vertices within 1e-5 of the
        best mean cosine in most cases. 1 treats old and new classes alike.
    solver : Solver or str, optional
        A solver, as for `etfopt.solve`. Default: the closed form.

    Returns
    -------
    Solution
        Its problem has unit vectors as class means: the old vertices, then the new means. Old classes have weight 1.
        Without a bound its frame is the reduced simplex.

    Raises
    ------
    InputError
        If the new means have another number of features, or one of them is zero; if there are more of them than places,
        or than d allows; if the frame has no places left and is not a simplex; if `weight` is not above 0.

    Notes
    -----
    The best cosine: ``theory/growth.py``. Held vertices: ``theory/held.py``.

    Examples
    --------
    A bound of 8 classes, of which 4 are known at first:

    >>> import numpy as np
    >>> import etfopt
    >>> rng = np.random.default_rng(0)
    >>> H = np.where(np.arange(8) < 4, rng.standard_normal((16, 8)), 0)
    >>> first = etfopt.nearest_etf(H, weights=[1, 1, 1, 1, 0, 0, 0, 0], reduced=True)
    >>> second = etfopt.grow(first, rng.standard_normal((16, 2)))
    >>> bool(np.allclose(second.etf[:, :4], first.etf[:, :4], atol=1e-14)), second.problem.weights
    (True, array([1., 1., 1., 1., 1., 1., 0., 0.]))

    Without a bound:

    >>> third = etfopt.grow(etfopt.nearest_etf(rng.standard_normal((16, 4))), rng.standard_normal((16, 2)))
    >>> third.etf.shape
    (16, 6)
    """
    _require_solution(solution)
    weight = as_positive(weight, "weight")
    problem = solution.problem
    new = _unit_columns(new_means, "new_means", problem.d)
    weights = np.ones(problem.C) if problem.weights is None else problem.weights
    here, left = np.flatnonzero(weights > 0), np.flatnonzero(weights == 0)
    if not len(left):
        return solve(_larger_simplex(problem, solution.etf, new, weight), solver)
    if new.shape[1] > len(left):
        message = (
            f"new_means holds {new.shape[1]} classes, and the frame of C = {problem.C} has {len(left)} places left"
        )
        raise InputError(message, "new_means", new_means, "add fewer, or solve for a frame of more classes")
    return solve(_filled(solution, here, left[: new.shape[1]], new), solver)


def _require_solution(solution: object) -> None:
    if not isinstance(solution, Solution):
        message = f"solution must be a Solution; got {type(solution).__name__}"
        raise InputError(message, "solution", solution, "pass what etfopt.solve or etfopt.nearest_etf returned")


def _filled(solution: Solution, old: Classes, places: Classes, new: Float64Array) -> NearestETF:
    """Return the problem in which new classes take places of the frame, and the old ones are held."""
    problem = solution.problem
    H, weights = np.zeros((problem.d, problem.C)), np.zeros(problem.C)
    H[:, old], H[:, places] = _unit_columns(solution.etf[:, old], "etf", problem.d), new
    weights[old] = weights[places] = 1.0
    F, _ = normalized(problem.F)
    if np.linalg.matrix_rank(F[:, old]) < problem.frame_rank:
        hold = [int(c) for c in old]
        return NearestETF(H.astype(problem.dtype), frame=problem.F, weights=weights, hold=hold, hold_at=solution.U)
    # the old vertices determine all others: nothing is left to choose
    weights[places] = DETERMINED
    return NearestETF(H.astype(problem.dtype), frame=problem.F, weights=weights)


def _larger_simplex(problem: NearestETF, etf: Array, new: Float64Array, weight: float) -> NearestETF:
    """Return the problem of a simplex for old vertices and new means."""
    old = _unit_columns(etf, "etf", problem.d)
    K1, K2 = problem.C, problem.C + new.shape[1]
    gram = old.T @ old
    if np.abs(gram - (np.eye(K1) * K1 - 1) / (K1 - 1)).max() > math.sqrt(problem.unit):
        message = f"the frame of {problem!r} is not a simplex, and none of its classes has weight 0"
        remedy = "only simplices grow; with another frame of more classes, give those that are not there weight 0"
        raise InputError(message, "solution", problem, remedy)
    if problem.d < K2 - 1:
        message = f"a simplex of {K1} + {new.shape[1]} classes needs d >= {K2 - 1} features; got d = {problem.d}"
        remedy = f"add at most {problem.d + 1 - K1} classes, or use a frame from etfopt.frames for C > d + 1"
        raise InputError(message, "new_means", new, remedy)
    targets = np.hstack([old, new]).astype(problem.dtype)
    return NearestETF(targets, reduced=True, weights=np.repeat([1.0, weight], [K1, new.shape[1]]))


def _unit_columns(X: ArrayLike, name: str, d: int) -> Float64Array:
    """Return the columns of X, each divided by its norm, in float64; an `InputError` for those without a direction."""
    X = as_matrix(X, name)
    if X.shape[0] != d:
        remedy = "columns are classes: if its rows are, pass new_means.T"
        raise InputError(f"{name} has shape {X.shape}; it needs d = {d} rows, one for each feature", name, X, remedy)
    empty = np.flatnonzero(~X.any(axis=0))
    if len(empty):
        message = f"{name} has a zero column, number {empty[0]}, which has no direction"
        raise InputError(message, name, X, "leave this class out until it has a mean")
    Y, _ = normalized_columns(X)  # squares of any column are in range
    return np.asarray(Y / np.linalg.norm(Y, axis=0), dtype=np.float64)
