"""The checks of `theory.unconstrained_features`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from etfopt import NearestETF, simplex_etf, solve
from etfopt._inputs import Array
from etfopt.adjoint import polar_derivative
from etfopt.nn import FixedETFHead, NearestETFHead
from etfopt.nn.functional import nearest_etf
from theory.draws import Matrix, polar, stiefel, unit_columns
from theory.registry import Part, Residual, at_least
from theory.temperature import bound

__all__ = ["PARTS"]

# angles of the features of three classes at 0, 120 and 240 degrees, where the loss has a spurious minimum
ASTRAY = (math.pi, -1.3923, 1.3923, 2.7494, 2.7494, 2.7494, 3.5338, 3.5338, 3.5338)
UNIT = float(np.finfo(np.float64).eps)


def nearest_rows(f: Matrix, C: int) -> Matrix:
    """Return the rows of the simplex nearest to the centred means of features sorted by class: NumPy's SVD alone."""
    F = simplex_etf(C, reduced=True)
    H = f.reshape(C, -1, f.shape[1]).mean(axis=1).T
    return np.asarray(math.sqrt(C) * (polar((H - H.mean(axis=1, keepdims=True)) @ F.T) @ F).T)


def loss(f: Array, W: Array) -> float:
    """Return the mean cross-entropy with b = -W mu_G, of features sorted by class."""
    z = (f - f.mean(axis=0)) @ W.T
    z = z - z.max(axis=1, keepdims=True)
    right = np.repeat(np.arange(len(W)), len(f) // len(W))
    return float(np.mean(np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(f)), right]))


def _shape(rng: np.random.Generator) -> tuple[int, int, int, float]:
    C = int(rng.integers(2, 6))
    return C, max(2, C - 1) + int(rng.integers(0, 4)), int(rng.integers(1, 4)), float(rng.uniform(0.3, 8))


def _rows(rng: np.random.Generator, C: int, d: int) -> Matrix:
    return np.asarray(math.sqrt(C) * (stiefel(rng, d, C - 1) @ simplex_etf(C, reduced=True)).T)


def _head(
    C: int, d: int, tau: float, implicit: bool = True, delta: float = 1e-3, prox: Matrix | None = None
) -> NearestETFHead:
    """Return the layer without a running mean, at its first step or after one that ended at U_prox."""
    frame = torch.from_numpy(simplex_etf(C, reduced=True))
    head = NearestETFHead(
        d, C, temperature=tau, delta=delta, averaging=1.0, implicit_gradient=implicit, frame=frame
    ).double()
    if prox is not None:
        head.U.copy_(torch.from_numpy(prox))
        head.means.steps.fill_(1)
    return head


def _value_and_gradient(head: torch.nn.Module, f: Matrix, C: int) -> tuple[float, Matrix]:
    """Return the loss of a head in training, and its gradient in features of norm tau."""
    leaf, y = torch.from_numpy(f).requires_grad_(), torch.arange(C).repeat_interleave(len(f) // C)
    value = torch.nn.functional.cross_entropy(head(leaf, y), y)
    (gradient,) = torch.autograd.grad(value, leaf)
    return float(value.detach()), gradient.numpy()


def _bound(rng: np.random.Generator) -> Iterator[Residual]:
    """Any features, the random and the nearly collapsed: the layer's loss is that of the nearest ETF, and bounded."""
    C, d, m, tau = _shape(rng)
    W = _rows(rng, C, d)
    size = float(10.0 ** rng.uniform(-4, 2))
    f = tau * unit_columns((np.repeat(W, m, axis=0) + size * rng.standard_normal((C * m, d))).T).T
    value, _ = _value_and_gradient(_head(C, d, tau), f, C)
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
        value, gradient = _value_and_gradient(_head(C, d, tau, implicit), f, C)
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
    (_, full), (_, direct) = (_value_and_gradient(_head(C, d, tau, x, 0.0), f, C) for x in (True, False))
    for what, gradient, torque in (("full", full, 0 * stated), ("direct", direct, stated)):
        found = gradient.T @ f - f.T @ gradient
        yield Residual(float(np.abs(found - torque).max()), allowed, f"torque of the {what} gradient")
    delta, prox = float(rng.uniform(0.01, 1)), stiefel(rng, d, C - 1)
    _, full = _value_and_gradient(_head(C, d, tau, True, delta, prox), f, C)
    A = 2 * (H - H.mean(axis=0)).T / np.linalg.norm(H - H.mean(axis=0)) @ simplex_etf(C, reduced=True).T
    least = np.linalg.svd(A + delta * prox, compute_uv=False)[-1]
    F, U = simplex_etf(C, reduced=True), polar(A + delta * prox)
    Y = polar_derivative(A + delta * prox, U, math.sqrt(C) * _slope(f, math.sqrt(C) * (U @ F).T).T @ F.T)
    error = np.abs(full.T @ f - f.T @ full - delta * (prox @ Y.T - Y @ prox.T)).max()
    yield Residual(float(error), allowed / least**2, "torque with a proximal term")
    leaf, y = torch.from_numpy(f).requires_grad_(), torch.arange(C).repeat_interleave(m)
    head = _head(C, d, tau, True, delta, prox)
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
        head = _head(C, d, tau, True, delta, prox)
        value, _ = _value_and_gradient(head, tau * math.sqrt(C) * (V @ F).T, C)
        if consistent:
            # the condition number of B is at most 21
            yield Residual(gap, 1e4 * UNIT, f"nearest ETF at {what}")
            yield Residual(value - bound(C, tau), 1e4 * UNIT * (1 + tau), f"loss at {what}")
            continue
        yield at_least(gap, 1e-6, f"nearest ETF is another at {what}")
        if gap > 0.03:
            yield at_least(value - bound(C, tau), 1e-9, f"excess at {what}")


def _descend(value: Callable[[Tensor], Tensor], h: Matrix) -> tuple[float, Matrix]:
    """Minimise over features of any length by L-BFGS; return the value and the point."""

    def both(x: Matrix) -> tuple[float, Matrix]:
        leaf = torch.from_numpy(x.reshape(h.shape)).requires_grad_()
        out = value(leaf)
        (gradient,) = torch.autograd.grad(out, leaf)
        return float(out.detach()), gradient.numpy().ravel()

    found = minimize(both, h.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": 3000, "ftol": 0, "gtol": 1e-9})
    return float(found.fun), np.asarray(found.x.reshape(h.shape))


def _torch_loss(h: Tensor, C: int, tau: float, W: Tensor | None = None, *, indirect: bool = True) -> Tensor:
    f = tau * h / h.norm(dim=1, keepdim=True)
    y = torch.arange(C).repeat_interleave(len(f) // C)
    if W is None:
        F = torch.from_numpy(simplex_etf(C, reduced=True))
        H = f.reshape(C, -1, f.shape[1]).mean(dim=1).T @ F.T
        W = math.sqrt(C) * (nearest_etf(H if indirect else H.detach(), frame=torch.eye(C - 1, dtype=H.dtype)) @ F).T
    return torch.nn.functional.cross_entropy((f - f.mean(dim=0)) @ W.T, y)


def _optimise(rng: np.random.Generator) -> Iterator[Residual]:
    """Start anywhere with room for one more dimension: with the frozen ETF, both paths, and one."""
    C, m, tau = int(rng.integers(3, 6)), int(rng.integers(2, 4)), float(rng.uniform(1, 2.5))
    d = C + int(rng.integers(0, 3))
    h = rng.standard_normal((C * m, d))
    head = FixedETFHead(d, C)
    W = head.weight.double()
    frozen, at = _descend(lambda x: _torch_loss(x, C, tau, W), h)
    yield Residual(abs(frozen - bound(C, tau)), 1e-6, "minimum with a frozen ETF")
    yield Residual(float(np.abs(unit_columns(at.T).T - np.repeat(W.numpy(), m, axis=0)).max()), 1e-2, "where it is")
    full, _ = _descend(lambda x: _torch_loss(x, C, tau), h)
    yield Residual(abs(full - bound(C, tau)), 1e-6, "minimum with both paths")
    x, value = torch.from_numpy(unit_columns(h.T).T), math.inf
    for _ in range(1000):
        x.requires_grad_()
        out = _torch_loss(x, C, tau, indirect=False)
        (gradient,) = torch.autograd.grad(out, x)
        value = float(out.detach())
        x = (x - C * m / tau**2 * gradient).detach()
        x = x / x.norm(dim=1, keepdim=True)
        if value - bound(C, tau) < 1e-5:
            break
    yield Residual(value - bound(C, tau), 1e-5, "descent by the direct path alone")


def _saddle(rng: np.random.Generator) -> Iterator[Residual]:
    """Reverse k features a class: critical for both losses, and the direction that W does not see leads down."""
    C, m, tau = int(rng.integers(3, 6)), int(rng.integers(3, 6)), float(rng.uniform(0.5, 6))
    d, k = C + int(rng.integers(0, 3)), int(rng.integers(1, (m + 1) // 2))
    basis = stiefel(rng, d, C)
    W, q = math.sqrt(C) * (basis[:, : C - 1] @ simplex_etf(C, reduced=True)).T, basis[:, -1]
    signs = np.tile(np.where(np.arange(m) < k, -1.0, 1.0), C)
    f = tau * np.repeat(W, m, axis=0) * signs[:, None]
    for implicit in (True, False):
        _, gradient = _value_and_gradient(_head(C, d, tau, implicit), f, C)
        yield Residual(float(np.abs(gradient).max()), 1e3 * UNIT, "reversed features are critical")
    z = -tau * W @ W[0]
    p = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
    multiplier = float(W[0] @ (W.T @ (np.eye(C)[0] - p))) / (tau * C * m)  # D_i = lambda f_i, f_i = -tau w
    angle = 1e-3
    turned = f.copy()
    turned[0] = np.cos(angle) * f[0] + tau * np.sin(angle) * q
    change = (loss(turned, W) - loss(f, W)) * 2 / angle**2
    yield Residual(abs(change + multiplier * tau**2), 1e-4 * (1 + tau**2), "curvature along what W does not see")
    yield at_least(multiplier, 1e-6, "multiplier of a reversed feature")


def _spurious(rng: np.random.Generator) -> Iterator[Residual]:
    """Try the counterexample in d = C-1: three classes of three in the plane, one feature gone astray."""
    C, tau, turn = 3, 5.0, float(rng.uniform(0, 2 * np.pi))
    axes = torch.arange(3, dtype=torch.float64) * (2 * math.pi / 3) + turn
    W = torch.stack([axes.cos(), axes.sin()], dim=1)
    angles = torch.tensor(ASTRAY, dtype=torch.float64) + turn
    for what, rows, zero in (("a frozen ETF", W, 0), ("both paths", None, 1)):

        def value(a: Tensor, rows: Tensor | None = rows) -> Tensor:
            return _torch_loss(torch.stack([a.cos(), a.sin()], dim=1), C, tau, rows)

        a = angles
        for _ in range(4):
            g, hessian = torch.autograd.functional.jacobian(value, a), torch.autograd.functional.hessian(value, a)  # type: ignore[no-untyped-call] # torch leaves them untyped
            a = a - torch.linalg.pinv(hessian, rtol=1e-9, hermitian=True) @ g
        curvature = torch.linalg.eigvalsh(torch.autograd.functional.hessian(value, a))  # type: ignore[no-untyped-call] # as above
        yield Residual(float(torch.autograd.functional.jacobian(value, a).norm()), 1e-13, f"critical, {what}")  # type: ignore[no-untyped-call] # as above
        yield Residual(float(curvature[:zero].abs().sum()), 1e-12, "joint rotations change nothing")
        yield at_least(float(curvature[zero]), 0.025, f"curvature of the spurious minimum, {what}")
        yield at_least(float(value(a)) - bound(C, tau), 0.4, f"its excess, {what}")


PARTS = (
    Part(_bound, 4),
    Part(_collapse, 2),
    Part(_torque, 1.5),
    Part(_proximal),
    Part(_optimise, 0.05),
    Part(_saddle),
    Part(_spurious, 0.02),
)
