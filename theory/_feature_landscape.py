"""The layer of `theory.unconstrained_features`, and the checks that look at its landscape."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from etfopt import simplex_etf
from etfopt._arrays import Array
from etfopt.nn import FixedETFHead, NearestETFHead
from etfopt.nn.functional import nearest_etf
from theory.draws import Matrix, stiefel, unit_columns
from theory.registry import Residual, at_least
from theory.temperature import bound

__all__ = ["layer", "loss", "optimise", "saddle", "spurious", "value_and_gradient"]

# angles of the features of three classes at 0, 120 and 240 degrees, where the loss has a spurious minimum
ASTRAY = (math.pi, -1.3923, 1.3923, 2.7494, 2.7494, 2.7494, 3.5338, 3.5338, 3.5338)
UNIT = float(np.finfo(np.float64).eps)


def loss(f: Array, W: Array) -> float:
    """Return the mean cross-entropy with b = -W mu_G, of features sorted by class."""
    z = (f - f.mean(axis=0)) @ W.T
    z = z - z.max(axis=1, keepdims=True)
    right = np.repeat(np.arange(len(W)), len(f) // len(W))
    return float(np.mean(np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(f)), right]))


def layer(
    C: int, d: int, tau: float, implicit: bool = True, delta: float = 1e-3, prox: Matrix | None = None
) -> NearestETFHead:
    """Return the layer without a running mean, at its first step or after one that ended at U_prox."""
    frame = torch.from_numpy(simplex_etf(C, reduced=True))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the claims hold at every temperature
        head = NearestETFHead(
            d,
            C,
            statistics="paper",
            temperature=tau,
            delta=delta,
            averaging=1.0,
            implicit_gradient=implicit,
            frame=frame,
        ).double()
    if prox is not None:
        head.U.copy_(torch.from_numpy(prox))
        head.means.steps.fill_(1)
    return head


def value_and_gradient(head: torch.nn.Module, f: Matrix, C: int) -> tuple[float, Matrix]:
    """Return the loss of a head in training, and its gradient in features of norm tau."""
    leaf, y = torch.from_numpy(f).requires_grad_(), torch.arange(C).repeat_interleave(len(f) // C)
    value = torch.nn.functional.cross_entropy(head(leaf, y), y)
    (gradient,) = torch.autograd.grad(value, leaf)
    return float(value.detach()), gradient.numpy()


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


def optimise(rng: np.random.Generator) -> Iterator[Residual]:
    """Start anywhere with room for one more dimension: with the frozen ETF, both paths, and one."""
    C, m, tau = int(rng.integers(3, 6)), int(rng.integers(2, 4)), float(rng.uniform(1, 2.5))
    d = C + int(rng.integers(0, 3))
    h = rng.standard_normal((C * m, d))
    head = FixedETFHead(d, C, statistics="paper")
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


def saddle(rng: np.random.Generator) -> Iterator[Residual]:
    """Reverse k features a class: critical for both losses, and the direction that W does not see leads down."""
    C, m, tau = int(rng.integers(3, 6)), int(rng.integers(3, 6)), float(rng.uniform(0.5, 6))
    d, k = C + int(rng.integers(0, 3)), int(rng.integers(1, (m + 1) // 2))
    basis = stiefel(rng, d, C)
    W, q = math.sqrt(C) * (basis[:, : C - 1] @ simplex_etf(C, reduced=True)).T, basis[:, -1]
    signs = np.tile(np.where(np.arange(m) < k, -1.0, 1.0), C)
    f = tau * np.repeat(W, m, axis=0) * signs[:, None]
    for implicit in (True, False):
        _, gradient = value_and_gradient(layer(C, d, tau, implicit), f, C)
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


def spurious(rng: np.random.Generator) -> Iterator[Residual]:
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
