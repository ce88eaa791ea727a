r"""The distance to the nearest ETF as a loss: its gradient needs no derivative of U, its curvature does.

## Statement

Let $w \in R^C$, $w \ge 0$, D = diag(w), $\|X\|_D^2 = \sum_c w_c\|x_c\|^2$, $N = HDF'$ with d >= r, and

$$D_s(H, w) = \min_{U \in St(d, r)} \|H - sUF\|_D^2, \qquad D(H, w) = \min_s D_s(H, w).$$

U is a minimiser of both exactly if it is a polar factor of N (for s > 0). Write $E = sUF$ for the nearest ETF, with
$s = s^* = \|N\|_*/\|F\|_D^2$ where the size is free (s = 0 if FD = 0).

1. *Value.* $D_1 = \|H\|_D^2 - 2\|N\|_* + \|F\|_D^2$. $D = \|H\|_D^2 - \|N\|_*^2/\|F\|_D^2$, and $\|H\|_D^2$ if FD = 0.
2. *Bounds from one minimiser.* For every minimiser, every X, and every $v \ge 0$,
   $$D(H + X, w) \le D(H, w) + 2\langle (H - E)D, X\rangle + \|X\|_D^2, \qquad D(H, v) \le \sum_c v_c\|h_c - e_c\|^2.$$
   The right sides touch D at X = 0 and v = w. The same holds for $D_1$.
3. *Gradient.* Where ED is the same for all minimisers, D and $D_1$ are differentiable in H with
   $\nabla_H = 2(H - E)D$. Where also w > 0, $\partial/\partial w_c = \|h_c - e_c\|^2$. At $w_c = 0$ the derivative to
   the right is the least $\|h_c - e_c\|^2$ among the minimisers. At collapse, H = E, both gradients are 0.
4. *Curvature.* Let N have rank r, dU the derivative of its polar factor along $M = XDF'$, and $\kappa = \langle dU, M
   \rangle \ge 0$. Then along X
   $$D_1'' = 2\|X\|_D^2 - 2\kappa, \qquad
     D'' = 2\|X\|_D^2 - \frac{2}{\|F\|_D^2}\bigl(\langle U, M\rangle^2 + \|N\|_*\,\kappa\bigr).$$
   Holding U constant would leave out $\kappa$, and give a curvature that is too large.

## Assumptions

d >= r; F any r x C matrix. In 3, differentiability in H is that at fixed w, and in w that at fixed H.

## Proof

**1.** $\|sUf_c\| = s\|f_c\|$, so $\|H - sUF\|_D^2 = \|H\|_D^2 - 2s\langle N, U\rangle + s^2\|F\|_D^2$. The maximum of
$\langle N, U\rangle$ is $\|N\|_*$, reached by the polar factors alone (`theory/gauge.py`, 1); then over s.

**2.** D(H + X, w) is at most the value of E, which is $\|H + X - E\|_D^2 = \|H - E\|_D^2 + 2\langle (H - E)D,
X\rangle + \|X\|_D^2$. D(H, v) is at most the value of E with weights v.

**3.** In H: $D = \|H\|_D^2 - \psi(H)$ with $\psi$ the maximum of the functions $2\langle HD, sUF\rangle -
s^2\|F\|_D^2$ that are affine in H. It is convex, and its subdifferential is the convex hull of the $2ED$ of the
maximisers (Danskin; s may be bounded near H). One point means differentiable, with that gradient. In w: D is the
minimum of functions linear in w, over a compact set, so its one-sided derivative along v is the minimum of $\sum_c
v_c\|h_c - e_c\|^2$ over the minimisers (Danskin). If ED is unique and w > 0, E is unique, and this is linear in v.

**4.** By 3 the gradient is $2(H - E)D$ near H, with U differentiable as N has full rank (`theory/gradient.py`, 1). For
s = 1, $dE = dU\,F$ and $D_1'' = 2\langle (X - dU\,F)D, X\rangle = 2\|X\|_D^2 - 2\langle dU, XDF'\rangle$. The
derivative of the polar factor is self-adjoint and positive semidefinite (`theory/gradient.py`, 2), so $\kappa \ge 0$.
For the free size, $\|N\|_*$ has the derivative $\langle U, M\rangle$, of which $\kappa$ is the derivative again; apply
the chain rule to $\|N\|_*^2$.

## In the code

- `etfopt.nn.functional.etf_distance`: value and gradient from one U by 3; by 4 its second derivatives go through U.
- `etfopt.nn.ETFDistance`: the same as a module.

## References

Danskin (1967), The Theory of Max-Min. Milgrom and Segal (2002), Envelope theorems for arbitrary choice sets.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from etfopt import simplex_etf
from etfopt.adjoint import polar_derivative
from etfopt.nn.functional import etf_distance
from theory._envelope import curvature, distance, gradients, nearest, precise_change
from theory._linalg import EPS, values
from theory.draws import Matrix, frame, matrix, polar, spectrum, stiefel
from theory.registry import Evidence, Part, Residual, gather

KINDS = ("generic", "equal", "repeated", "clustered", "deficient")


def _case(rng: np.random.Generator, kinds: tuple[str, ...] = KINDS) -> tuple[Matrix, Matrix, Matrix, bool]:
    """Draw class means whose HDF' has a spectrum of a kind, weights, a frame, and whether the size is free."""
    C, kind = int(rng.integers(2, 7)), str(rng.choice(kinds))
    F = frame(rng, C) * 10.0 ** rng.uniform(-0.5, 0.5)
    if "deficient" not in kinds and values(F)[-1] < 1e-9:  # the square simplex makes every N deficient
        F = simplex_etf(C, reduced=True)
    r = len(F)
    d, w = r + int(rng.choice([0, 1, 5])), 10.0 ** rng.uniform(-2, 2, C)
    N = matrix(rng, d, spectrum(rng, r, kind))
    inverse = np.linalg.pinv(F * w)
    H = N @ inverse.T + 0.1 * rng.standard_normal((d, C)) @ (np.eye(C) - inverse @ (F * w))  # and what F does not see
    return H, w, F, bool(rng.integers(2))


def _bounds(rng: np.random.Generator) -> Iterator[Residual]:
    """Compare with the value by definition at other points; move H and w, with zeros among the weights."""
    H, w, F, free = _case(rng)
    w = w * (rng.random(len(w)) < 0.8)
    here, E = distance(H, w, F, free), nearest(H, w, F, free)
    size = float((w * (H**2 + E**2)).sum()) or 1.0
    tolerance = 200 * F.size * EPS
    found = etf_distance(torch.from_numpy(H), torch.from_numpy(F), torch.from_numpy(w), free)
    yield Residual(abs(float(found) - here) / size, tolerance, "etfopt's distance")
    yield Residual(abs(float((w * (H - E) ** 2).sum()) - here) / size, tolerance, "value of the nearest ETF")
    for t in (1.0, float(rng.uniform(0, 2))) if free else (1.0,):
        tried = float((w * (H - t * stiefel(rng, len(H), len(F)) @ F) ** 2).sum())
        yield Residual((here - tried) / size, tolerance, "a better point")
    of_H, of_w = gradients(H, w, E)
    X = 10.0 ** rng.uniform(-3, 1) * rng.standard_normal(H.shape)
    above = here + float((of_H * X).sum()) + float((w * X**2).sum())
    moved = size + float((w * X**2).sum())
    yield Residual((distance(H + X, w, F, free) - above) / moved, tolerance, "bound in H")
    v = w * 10.0 ** rng.uniform(-1, 1, len(w)) + (rng.random(len(w)) < 0.3)
    most = float((v * (H**2 + E**2)).sum()) or 1.0
    yield Residual((distance(H, v, F, free) - float(of_w @ v)) / most, tolerance, "bound in w")


def _derivatives(rng: np.random.Generator) -> Iterator[Residual]:
    """Differentiate with fifty digits, once and twice, and compare the formulas and etfopt with that."""
    H, w, F, free = _case(rng, KINDS[:4])
    N, E = (H * w) @ F.T, nearest(H, w, F, free)
    kappa = 1 + float(values(N)[0] / values(N)[-1])
    X, v = rng.standard_normal(H.shape), rng.uniform(-1, 1, len(w)) * w
    tensors = [torch.tensor(Y, requires_grad=True) for Y in (H, w)]
    D = etf_distance(tensors[0], torch.from_numpy(F), tensors[1], free)
    slopes = torch.autograd.grad(D, tensors, create_graph=True)
    (twice,) = torch.autograd.grad((slopes[0] * torch.from_numpy(X)).sum(), tensors[0])
    size = float(np.linalg.norm(H * w) * np.linalg.norm(X) + (w * (H**2 + E**2)).sum())
    tolerance = 1e3 * F.size * EPS * kappa
    first = [precise_change(H, w, F, free, *moves)[0] for moves in ((X, 0 * v), (0 * X, v))]
    for name, formula, found, exact, move in zip(
        ("H", "w"), gradients(H, w, E), (slope.detach().numpy() for slope in slopes), first, (X, v), strict=True
    ):
        yield Residual(abs(float((formula * move).sum()) - exact) / size, tolerance, f"gradient in {name}")
        yield Residual(abs(float((found * move).sum()) - exact) / size, tolerance, f"etfopt's gradient in {name}")
    second = precise_change(H, w, F, free, X, 0 * v)[1]
    M = (X * w) @ F.T
    turned = float((polar_derivative(N, polar(N), M) * M).sum())
    scale = float((w * X**2).sum()) * kappa * (1 + float(np.linalg.norm(N, "nuc") / (w * F**2).sum()) * kappa)
    bent = float((twice.numpy() * X).sum())
    yield Residual(-turned / scale, tolerance, "sign of what U adds")
    yield Residual(abs(curvature(N, w, F, free, X, turned) - second) / scale, tolerance, "curvature")
    yield Residual(abs(bent - second) / scale, tolerance, "etfopt's curvature")


def _collapse(rng: np.random.Generator) -> Iterator[Residual]:
    """Near collapse etfopt's distance keeps the digits of the noise, and at collapse all is finite and 0."""
    _, w, F, _ = _case(rng)
    F = F / np.linalg.norm(F)
    E = 2.0 * stiefel(rng, len(F) + 2, len(F)) @ F
    noise = 10.0 ** rng.uniform(-10, -2)
    H = E + noise * rng.standard_normal(E.shape)
    leaf = torch.tensor(H, requires_grad=True)
    D = etf_distance(leaf, torch.from_numpy(F), torch.from_numpy(w))
    (slope,) = torch.autograd.grad(D, leaf)
    exact = precise_change(H, w, F, True, 0 * H, 0 * w)[2]
    yield Residual(abs(float(D.detach()) / exact - 1), 1e3 * F.size * EPS / noise, "distance near collapse")
    at = torch.tensor(E, requires_grad=True)
    (zero,) = torch.autograd.grad(etf_distance(at, torch.from_numpy(F), torch.from_numpy(w)), at)
    yield Residual(float(zero.norm()), 200 * F.size * EPS * float(w.max()), "gradient at collapse")
    off = float(np.linalg.norm(slope.numpy() - gradients(H, w, nearest(H, w, F, True))[0]))
    yield Residual(off, 200 * F.size * EPS * float(w.max()), "gradient near collapse")


PARTS = (Part(_bounds, 4), Part(_derivatives, 1), Part(_collapse, 0.5))


def check(rng: np.random.Generator, budget: int = 1000) -> Evidence:
    """Look for a counterexample: any frame, weights and ranks; derivatives in fifty digits; near collapse."""
    return gather(rng, budget, PARTS)
