"""The checks of `theory.unconstrained_features`."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch

from etfopt import NearestETF, simplex_etf, solve
from etfopt._arrays import Array
from etfopt.adjoint import polar_derivative
from theory._feature_landscape import layer, loss, optimise, saddle, spurious, value_and_gradient
from theory.draws import Matrix, polar, stiefel, unit_columns
from theory.registry import Part, Residual, at_least
from theory.temperature import bound

__all__ = ["PARTS"]

UNIT = float(np.finfo(np.float64).eps)


def nearest_rows(f: Matrix, C: int) -> Matrix:
    """Return the rows of the simplex nearest to the centred means of features sorted by class: NumPy's SVD alone."""
    F = simplex_etf(C, reduced=True)
    H = f.reshape(C, -1, f.shape[1]).mean(axis=1).T
    return np.asarray(math.sqrt(C) * (polar((H - H.mean(axis=1, keepdims=True)) @ F.T) @ F).T)


def _shape(rng: np.random.Generator) -> tuple[int, int, int, float]:
    C = int(rng.integers(2, 6))
    return C, max(2, C - 1) + int(rng.integers(0, 4)), int(rng.integers(1, 4)), float(rng.uniform(0.3, 8))


def _rows(rng: np.random.Generator, C: int, d: int) -> Matrix:
    return np.asarray(math.sqrt(C) * (stiefel(rng, d, C - 1) @ simplex_etf(C, reduced=True)).T)


def _bound(rng: np.random.Generator) -> Iterator[Residual]:
    """Any features, the random and the nearly collapsed: the layer's loss is that of the nearest ETF, and bounded."""
    C, d, m, tau = _shape(rng)
    W = _rows(rng, C, d)
    size = float(10.0 ** rng.uniform(-4, 2))
    f = tau * unit_columns((np.repeat(W, m, axis=0) + size * rng.standard_normal((C * m, d))).T).T
    value, _ = value_and_gradient(layer(C, d, tau), f, C)
    own = loss(f, nearest_rows(f, C))
    yield Residual(bound(C, tau) - own, 1e-13 * (1 + tau), "loss below the bound")
    H = f.reshape(C, m, d).mean(axis=1)
    s = np.linalg.svd((H - H.mean(axis=0)).T @ simplex_etf(C, reduced=True).T, compute_uv=False)
    yield Residual(abs(value - own), 1e3 * UNIT * (1 + tau) * s[0] / s[-1], "the layer's loss")
    if size > 0.03:
        yield at_least(own - bound(C, tau), 1e-9 * math.exp(-tau * C / (C - 1)), "excess away from collapse")


def _collapse(rng: np.random.Generator) -> Iterator[Residual]:
    """At collapse the nearest ETF is that ETF, the bound is reached, and both paths carry nothing along the sphere."""
    C, d, m, tau = _shape(rng)
    W = _rows(rng, C, d)
    f = tau * np.repeat(W, m, axis=0)
    certificate = solve(NearestETF(f[::m].T, frame=simplex_etf(C, reduced=True))).certificate
    yield Residual(float(not certificate.etf_unique), 0.5, "the nearest ETF at collapse is unique")
    yield Residual(float(np.abs(nearest_rows(f, C) - W).max()), 100 * UNIT, "the nearest ETF at collapse")
    for implicit in (True, False):
        value, gradient = value_and_gradient(layer(C, d, tau, implicit), f, C)
        yield Residual(abs(value - bound(C, tau)), 100 * UNIT * (1 + tau), "loss of the layer at collapse")
        yield Residual(float(np.abs(gradient).max()), 100 * UNIT, f"gradient at collapse, indirect path {implicit}")


def _torque(rng: np.random.Generator) -> Iterator[Residual]:
    """Turn all features: the full gradient has no part along it, the direct one has the stated one."""
    C, d, m, tau = _shape(rng)
    f = tau * unit_columns(rng.standard_normal((d, C * m))).T
    W, centred = nearest_rows(f, C), f - f.mean(axis=0)
    Gamma = _slope(f, W)
    stated = W.T @ Gamma - Gamma.T @ W
    H = f.reshape(C, m, d).mean(axis=1)
    s = np.linalg.svd((H - H.mean(axis=0)).T @ simplex_etf(C, reduced=True).T, compute_uv=False)
    allowed = 1e4 * UNIT * (1 + tau) ** 2 * (s[0] / s[-1]) ** 2
    (_, full), (_, direct) = (value_and_gradient(layer(C, d, tau, x, 0.0), f, C) for x in (True, False))
    for what, gradient, torque in (("full", full, 0 * stated), ("direct", direct, stated)):
        found = gradient.T @ f - f.T @ gradient
        yield Residual(float(np.abs(found - torque).max()), allowed, f"torque of the {what} gradient")
    delta, prox = float(rng.uniform(0.01, 1)), stiefel(rng, d, C - 1)
    _, full = value_and_gradient(layer(C, d, tau, True, delta, prox), f, C)
    A = 2 * (H - H.mean(axis=0)).T / np.linalg.norm(H - H.mean(axis=0)) @ simplex_etf(C, reduced=True).T
    least = np.linalg.svd(A + delta * prox, compute_uv=False)[-1]
    F, U = simplex_etf(C, reduced=True), polar(A + delta * prox)
    Y = polar_derivative(A + delta * prox, U, math.sqrt(C) * _slope(f, math.sqrt(C) * (U @ F).T).T @ F.T)
    error = np.abs(full.T @ f - f.T @ full - delta * (prox @ Y.T - Y @ prox.T)).max()
    yield Residual(float(error), allowed / least**2, "torque with a proximal term")
    leaf, y = torch.from_numpy(f).requires_grad_(), torch.arange(C).repeat_interleave(m)
    head = layer(C, d, tau, True, delta, prox)
    update = head.means.updated(leaf, y)
    assert update is not None
    weight, _ = head._classifier(update)  # features that the head has not normalised, which would project them
    value = torch.nn.functional.cross_entropy(torch.from_numpy(centred) @ weight.T, y)
    (indirect,) = torch.autograd.grad(value, leaf)
    yield Residual(
        abs(float(np.vdot(indirect.numpy(), f))), allowed / least**2, "work of the indirect gradient along f"
    )


def _slope(f: Array, W: Array) -> Matrix:
    """Return the derivative Gamma of the mean cross-entropy with b = -W mu_G in W."""
    centred = f - f.mean(axis=0)
    z = centred @ W.T
    p = np.exp(z - z.max(axis=1, keepdims=True))
    e = p / p.sum(axis=1, keepdims=True) - np.repeat(np.eye(len(W)), len(f) // len(W), axis=0)
    return np.asarray(e.T @ centred / len(f))


def _proximal(rng: np.random.Generator) -> Iterator[Residual]:
    """With a proximal point collapse is consistent at U_prox S alone, S a symmetric rotation that keeps B positive."""
    C, d, _, tau = _shape(rng)
    tau = min(tau, 3.0)  # so that an excess is no rounding
    F, r = simplex_etf(C, reduced=True), C - 1
    prox, Q = stiefel(rng, d, r), stiefel(rng, r, r)
    S = Q * rng.choice([1.0, -1.0], r) @ Q.T
    delta = float(rng.choice([1e-3, 0.2, 0.9, 1.1, 5]) * 2 / (C - 1))
    B = 2 * F @ F.T + delta * S
    other = polar(prox + 0.3 * stiefel(rng, d, r))
    T = other.T @ prox
    for what, V, consistent in (
        ("the proximal ETF", prox, True),
        ("its reflection", prox @ S, bool(np.linalg.eigvalsh(B)[0] > 0)),
        ("another ETF", other, False),
    ):
        if what == "another ETF" and np.linalg.norm(T - T.T) + np.linalg.norm(prox - other @ T) < 1e-2:
            continue  # it is of the form U_prox S
        gap = float(np.abs(solve(NearestETF(V @ F, prox, delta, F)).etf - V @ F).max())
        head = layer(C, d, tau, True, delta, prox)
        value, _ = value_and_gradient(head, tau * math.sqrt(C) * (V @ F).T, C)
        if consistent:
            # the condition number of B is at most 21
            yield Residual(gap, 1e4 * UNIT, f"nearest ETF at {what}")
            yield Residual(value - bound(C, tau), 1e4 * UNIT * (1 + tau), f"loss at {what}")
            continue
        yield at_least(gap, 1e-6, f"nearest ETF is another at {what}")
        if gap > 0.03:
            yield at_least(value - bound(C, tau), 1e-9, f"excess at {what}")


PARTS = (
    Part(_bound, 4),
    Part(_collapse, 2),
    Part(_torque, 1.5),
    Part(_proximal),
    Part(optimise, 0.05),
    Part(saddle),
    Part(spurious, 0.02),
)
