"""What `theory.landscape` measures with: Hessians, flows and descents, written out plainly."""

from __future__ import annotations

import numpy as np
import scipy.integrate

from etfopt import NearestETF
from theory.draws import Matrix, polar, stiefel

__all__ = ["descend", "flow_block", "hessian", "integrate", "signs", "start_on_barrier"]


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
