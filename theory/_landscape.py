"""What `theory.landscape` measures with: Hessians, flows and descents, written out plainly; two kinds of its cases."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import scipy.integrate

from etfopt import NearestETF, certify, solve
from theory._linalg import EPS, nuclear, values
from theory.draws import Matrix, matrix, polar, spectrum, stiefel
from theory.registry import Residual

__all__ = ["component", "curve", "descend", "flow_block", "hessian", "integrate", "signs", "start_on_barrier"]


def signs(rng: np.random.Generator, r: int, rank: int) -> Matrix:
    """Return signs of r singular values, +1 beyond the rank: any, or only the last one negative."""
    epsilon = rng.choice([-1.0, 1.0], r)
    if rng.integers(3) == 0:
        epsilon = np.where(np.arange(r) == r - 1, -1.0, 1.0)
    return np.asarray(np.where(np.arange(r) < rank, epsilon, 1.0))


def hessian(problem: NearestETF, U: Matrix) -> Matrix:
    """Return the Riemannian Hessian of etfopt's objective at U in an orthonormal basis of the tangent space."""
    d, r = U.shape
    rest = np.linalg.svd(U)[0][:, r:]
    tangents = [np.outer(rest[:, k], row) for k in range(d - r) for row in np.eye(r)]
    for i, j in zip(*np.triu_indices(r, 1), strict=True):
        turn = np.zeros((r, r))
        turn[i, j], turn[j, i] = 0.5**0.5, -(0.5**0.5)
        tangents.append(U @ turn)
    if not tangents:
        return np.zeros((0, 0))
    slope = U.T @ problem.gradient(U)
    slope = (slope + slope.T) / 2
    images = [problem.hessian_vector_product(X) - X @ slope for X in tangents]
    basis = np.reshape(tangents, (len(tangents), -1))
    form = basis @ np.reshape(images, basis.shape).T
    return np.asarray((form + form.T) / 2)


def integrate(A: Matrix, start: Matrix, time: float) -> Matrix:
    """Follow the canonical gradient flow dU/dt = A - UA'U by a Runge-Kutta method."""

    def slope(_: float, u: Matrix) -> Matrix:
        U = u.reshape(start.shape)
        return np.asarray((A - U @ A.T @ U).ravel())

    run = scipy.integrate.solve_ivp(slope, (0, time), start.ravel(), method="DOP853", rtol=1e-9, atol=1e-9)
    return np.asarray(run.y[:, -1].reshape(start.shape))


def flow_block(W: Matrix, s: Matrix, time: float) -> Matrix:
    """Return P_1'U(t)Q_1 of the flow in closed form, from W = P_1'U(0)Q_1."""
    identity, decay = np.eye(len(s)), np.exp(-time * s)
    Y = decay[:, None] * ((identity - W) @ np.linalg.inv(identity + W)) * decay
    return np.asarray((identity - Y) @ np.linalg.inv(identity + Y))


def start_on_barrier(rng: np.random.Generator, P: Matrix, Q: Matrix) -> Matrix:
    """Return a point with UQv = -Pv for a random unit vector v, and any other columns."""
    (d, rank), r = P.shape, len(Q)
    v = stiefel(rng, rank, 1)
    p, q = P @ v, Q @ v
    across_p, across_q = np.linalg.svd(p)[0][:, 1:], np.linalg.svd(q)[0][:, 1:]
    if r == 1:
        return np.asarray(-p @ q.T)
    return np.asarray(across_p @ stiefel(rng, d - 1, r - 1) @ across_q.T - p @ q.T)


def descend(A: Matrix, start: Matrix, steps: int = 20000) -> Matrix:
    """Descend along the Riemannian gradient of -<A, U> with the polar retraction and a constant step."""
    U, size = start, float(np.linalg.norm(A, 2))
    for _ in range(steps):
        K = U.T @ A
        downhill = A - U @ (K + K.T) / 2
        if np.linalg.norm(downhill) <= 1e-7 * size:
            break
        U = polar(U + downhill / (2 * size))
    return U


def curve(rng: np.random.Generator) -> Iterator[Residual]:
    """Take the second difference of the objective along a curve through a critical point, by NumPy alone."""
    r = int(rng.integers(1, 6))
    d = r + int(rng.choice([0, 1, 4]))
    A = matrix(rng, d, spectrum(rng, r, str(rng.choice(["generic", "repeated", "equal", "deficient"]))))
    left, s, Qt = np.linalg.svd(A, full_matrices=False)
    epsilon = rng.choice([-1.0, 1.0], r)
    U = (left * epsilon) @ Qt
    X = rng.standard_normal((d, r))
    X -= U @ (U.T @ X + X.T @ U) / 2
    X /= max(float(np.linalg.norm(X)), 1e-300) if d * r > 1 else 1.0
    t = 1e-3
    ahead, here, behind = (-np.vdot(A, polar(U + h * X)) for h in (t, 0.0, -t))
    form = np.trace(X @ (Qt.T * (epsilon * s)) @ Qt @ X.T)
    yield Residual(abs(float((ahead - 2 * here + behind) / t**2 - form)), 1e-5, "second difference along a curve")


def component(rng: np.random.Generator) -> Iterator[Residual]:
    """Look in the component without the minimiser for anything better than the smallest sign flipped; the data of 5."""
    r = int(rng.integers(2, 6))
    A = matrix(rng, r, spectrum(rng, r, str(rng.choice(["generic", "repeated", "equal", "clustered", "graded"]))))
    left, s, Qt = np.linalg.svd(A)
    false = (left * np.append(np.ones(r - 1), -1)) @ Qt
    best = nuclear(A) - 2 * s[-1]
    for scale in (1e-4, 1e-2, 1.0, 30.0):
        U = polar(false + scale * rng.standard_normal((r, r)))
        if np.linalg.det(U) * np.linalg.det(false) < 0:
            U = U * np.append(-1, np.ones(r - 1))
        yield Residual(float(np.vdot(A, U)) - best, 50 * r * EPS, "better than the false minimum")
    C = r
    H, P = rng.standard_normal((C, C)), stiefel(rng, C, C)
    delta = 10.0 ** rng.uniform(-6, 0)
    paper = NearestETF(H, P, delta)
    left, s, Qt = np.linalg.svd(paper.linear_term)
    false = (left * np.append(np.ones(C - 1), -1)) @ Qt
    found = certify(paper, false)
    yield Residual(found.gap - 2 * delta, 1e-13, "excess of the false minimum, paper's frame")
    yield Residual(abs(found.gap + 2 * found.curvature), 1e-13, "excess against curvature")
    smallest = values(2 * H @ paper.F)[C - 2]
    off = float(np.linalg.norm((false - solve(paper).U) @ paper.F))
    yield Residual(off - 4 * delta / (np.sqrt(C - 1) * smallest), 1e-13 / smallest, "its ETF")
    one = polar(2 * H @ paper.F)
    two = one @ (np.eye(C) - 2 / C)  # turned over along 1
    for U in (one, two):
        free = certify(NearestETF(H), U)
        yield Residual(free.gap + free.feasibility, 1e-13 * C, "the paper's frame without a proximal term")
    yield Residual(float(np.linalg.det(one) * np.linalg.det(two)), 0, "minimisers in both components")
