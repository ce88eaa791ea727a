"""The checks of part 6 of `theory.gradient`: a faint proximal weight."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from etfopt import NearestETF, simplex_etf, solve
from etfopt.adjoint import nearest_etf_vjp
from theory.draws import spectrum, stiefel
from theory.registry import Residual, at_least

__all__ = ["faint_prox", "thirty_delta"]


def faint_prox(rng: np.random.Generator) -> Iterator[Residual]:
    """Make the proximal weight faint: losses of UF change in proportion to it, more if the point is far."""
    C, rho = int(rng.integers(2, 6)), 10.0 ** rng.uniform(-3, 0)
    F, reduced = simplex_etf(C), simplex_etf(C, reduced=True)
    d, r, a = C + int(rng.integers(0, 3)), C, np.sqrt(1 - rho**2)
    s = spectrum(rng, C - 1, str(rng.choice(["generic", "equal", "repeated", "clustered"])))
    N = np.sqrt(C - 1) * reduced.T  # orthonormal basis of what F sees
    V = stiefel(rng, d, r)
    H = V[:, : C - 1] * s @ stiefel(rng, C - 1, C - 1).T @ N.T * np.sqrt(C - 1) / 2
    alpha = rng.standard_normal(C - 1)
    far = a * V[:, : C - 1] @ alpha / np.linalg.norm(alpha) + rho * V[:, -1]
    others = np.linalg.svd(far[:, None], full_matrices=True)[0][:, 1:] @ stiefel(rng, d - 1, C - 1)
    prox = others @ N.T + np.outer(far, np.ones(C)) / np.sqrt(C)
    delta, G = 1e-6 * rho * s[-1], rng.standard_normal(H.shape)
    plain, faint = NearestETF(H, frame=reduced), NearestETF(H, prox, delta)
    before, after = (nearest_etf_vjp(p, solve(p).U, G @ p.F.T).H for p in (plain, faint))
    constant = 3 * np.sqrt(2 * (r - 1)) + (d > r) * a**2 / rho + (1 + np.sqrt(2)) * a + 1
    bound = 2 * np.linalg.norm(F, 2) ** 2 * np.linalg.norm(G) / s[-1] ** 2 * constant
    # the second-order term has one more power of delta/(sigma rho) = 1e-6; rounding is divided by delta rho
    rounding = 1e3 * np.finfo(np.float64).eps * s[0] / s[-1] * np.linalg.norm(G) / (s[-1] * rho * delta)
    yield Residual(
        float(np.linalg.norm(after - before)) / delta,
        float(bound * (1 + 1e-3) + rounding),
        "change of dL/dH over delta",
    )


def thirty_delta(rng: np.random.Generator) -> Iterator[Residual]:
    """Try the counterexample to 30 delta: C = 2, d = 3, the proximal point nearly in the range of H."""
    V, rho = stiefel(rng, 3, 3), 10.0 ** rng.uniform(-4, -2.5)
    v, e, free = V.T
    far = np.sqrt(1 - rho**2) * v + rho * e
    prox = np.outer(free, [1, -1]) / np.sqrt(2) + np.outer(far, [1, 1]) / np.sqrt(2)
    H, delta = np.outer(v, [1, -1]) / np.sqrt(2), 1e-4 * rho
    G = np.outer(free, rng.standard_normal(2))
    problems = NearestETF(H, frame=simplex_etf(2, reduced=True)), NearestETF(H, prox, delta)
    before, after = (free @ nearest_etf_vjp(p, solve(p).U, G @ p.F.T).H for p in problems)
    relative = float(np.linalg.norm(after - before) / np.linalg.norm(before))
    yield Residual(abs(relative / (delta / (2 * rho)) - 1), 5 * rho + 1e-3, "relative error is delta/(sigma rho)")
    yield at_least(relative, 30 * delta, "the promise of 30 delta is broken")
