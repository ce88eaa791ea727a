r"""Assignment: which vector of a frame belongs to which class, where rotations cannot exchange them."""

from __future__ import annotations

import math
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from etfopt._arrays import Array, Float64Array, Seed, as_generator
from etfopt._scalars import as_integer
from etfopt._scaling import normalized, own_errstate
from etfopt.errors import InputError
from etfopt.geometry import random_stiefel
from etfopt.polar import polar_factor
from etfopt.problem import NearestETF, require_problem

__all__ = ["Assignment", "best_assignment"]

Permutation: TypeAlias = NDArray[np.intp]


class Assignment(NamedTuple):
    """Which vector of a frame each class has.

    Attributes
    ----------
    vectors : ndarray of int, shape (C,)
        Class c has column ``vectors[c]`` of the frame: a permutation of 0 .. C-1.
    certified : bool
        Whether no other permutation is better. True only for a simplex without a proximal term, where all are alike.
    """

    vectors: Permutation
    certified: bool


@own_errstate
def best_assignment(problem: NearestETF, *, starts: int = 16, seed: Seed = 0) -> Assignment:
    r"""Look for the assignment of frame vectors to classes that, with the best rotation, lies nearest to H.

    .. math:: \min_{U \in St(d, r),\; \pi} \; \sum_c w_c \|h_c - U f_{\pi(c)}\|^2
              + \tfrac{\delta}{2}\|U - U_{prox}\|_F^2

    Rotations exchange the vectors of a simplex freely, so there the identity is returned. They cannot exchange those of
    other frames. Then two steps alternate: U is the polar factor for the current assignment, and the assignment is the
    best one for this U, by the Hungarian method. Each step is exact and never makes the objective worse. The best of
    several starts is returned. The joint optimum is *not* certified: another assignment may be better.

    Parameters
    ----------
    problem : NearestETF
        Without held classes.
    starts : int
        Number of starts: the identity, then random rotations and random permutations. With the default 16 and up to 5
        classes some nine in ten searches find the best permutation of all. Take more for more classes, and compare the
        objectives of different seeds.
    seed : numpy.random.Generator or seed
        Seed of the random starts.

    Returns
    -------
    Assignment

    Raises
    ------
    InputError
        If classes are held, `starts` is no positive integer, or `seed` cannot seed a generator.

    References
    ----------
    Kuhn (1955), The Hungarian method for the assignment problem. The polar factor is optimal for a fixed assignment:
    ``theory/closed_form.py``.

    Examples
    --------
    >>> import numpy as np
    >>> import etfopt
    >>> from etfopt.assignment import best_assignment
    >>> angles = 2 * np.pi * np.arange(5) / 5
    >>> pentagon = np.array([np.cos(angles), np.sin(angles)])
    >>> H = pentagon[:, [2, 0, 3, 1, 4]]
    >>> found = best_assignment(etfopt.NearestETF(H, frame=pentagon))
    >>> solution = etfopt.nearest_etf(H, frame=pentagon[:, found.vectors])
    >>> bool(np.allclose(solution.etf, H)), found.certified
    (True, False)
    """
    require_problem(problem)
    starts, rng = as_integer(starts, "starts", at_least=1), as_generator(seed, "seed")
    if problem.held is not None:
        remedy = "leave hold out, or pass the frame in the order of your classes, F[:, order]"
        raise InputError(f"{problem!r} holds classes, whose vectors are assigned already", "hold", problem, remedy)
    identity = np.arange(problem.C)
    if problem.delta == 0 and is_simplex(problem):
        return Assignment(identity, certified=True)
    search = _Search(problem)
    best, least = search.descended(identity)
    for start in range(1, starts):
        found, value = search.descended(search.turned(rng) if start % 2 else rng.permutation(problem.C))
        if value < least:
            best, least = found, value
    return Assignment(best, certified=False)


def is_simplex(problem: NearestETF) -> bool:
    """Return whether the vectors of the frame have equal norms and cosines of -1/(C-1), up to rounding."""
    F, C = normalized(problem.F)[0], problem.C
    gram = F.T @ F * (C / float(np.vdot(F, F)))
    simplex = (C * np.eye(C) - 1) / (C - 1)
    return bool(np.abs(gram - simplex).max() <= 100 * C * float(np.finfo(problem.F.dtype).eps))


class _Search:
    """The alternation, in units in which nothing is out of range. Objectives lack a constant."""

    def __init__(self, problem: NearestETF) -> None:
        (H, h), (self.F, f) = normalized(problem.H), normalized(problem.F)
        w, k = (np.ones(problem.C), 0) if problem.weights is None else normalized(problem.weights)
        (P, p), (delta, q) = (
            normalized(np.zeros(1) if problem.prox is None else problem.prox),
            math.frexp(problem.delta),
        )
        squares = np.sum(self.F**2, axis=0)
        squares -= squares.min()  # what vectors have in common does not choose between them
        squares[squares <= problem.C * float(np.finfo(problem.F.dtype).eps)] = 0.0
        unit = max(h, f if squares.any() else h, p + q - k - f if delta else h)
        self.HD = np.ldexp(2 * H * w, h - unit)
        self.lengths = np.ldexp(w[:, None] * squares, f - unit)
        self.prox = np.ldexp(delta * P, p + q - k - f - unit)

    def linear_term(self, vectors: Permutation) -> Float64Array:
        """Return A for an assignment."""
        return np.asarray(self.HD @ self.F[:, vectors].T + self.prox)

    def assignment(self, U: Array) -> Permutation:
        """Return the best assignment for U."""
        costs = self.lengths - self.HD.T @ U @ self.F  # what class c, row c, adds to the objective with each vector
        from scipy.optimize import linear_sum_assignment

        return np.asarray(linear_sum_assignment(costs)[1])

    def turned(self, rng: np.random.Generator) -> Permutation:
        """Return the best assignment for a random rotation of the frame, within the space that H fills most."""
        r, C = self.F.shape
        P = np.linalg.svd(self.HD, full_matrices=r > C)[0][:, :r]
        return self.assignment(P @ random_stiefel(r, r, rng))

    def descended(self, vectors: Permutation) -> tuple[Permutation, float]:
        """Alternate until the objective falls no more; return the assignment and its objective."""
        best, least = vectors, math.inf
        while True:
            A = self.linear_term(vectors)
            U = polar_factor(A)
            value = float(self.lengths[np.arange(len(vectors)), vectors].sum() - np.vdot(A, U))
            if not value < least:
                return best, least
            best, least = vectors, value
            vectors = self.assignment(U)
