"""The checks of `theory.gradient`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import mpmath
import numpy as np
import torch

from etfopt import InputError, NearestETF, solve
from etfopt._arrays import Array
from etfopt.adjoint import kkt_vjp, nearest_etf_jvp, nearest_etf_vjp, polar_derivative
from etfopt.nn import functional
from etfopt.polar import polar_factor
from etfopt.polar._products import sym
from theory._gradient_faint import faint_prox, thirty_delta
from theory.draws import Matrix, matrix, polar, problem, spectrum, stiefel
from theory.registry import Part, Residual

__all__ = ["PARTS"]

UNIT = float(np.finfo(np.float64).eps)
SECOND = 3 * np.sqrt(2)
REGULAR = ("generic", "equal", "repeated", "clustered", "graded", "tiny", "huge")
MILD = ("generic", "equal", "repeated", "clustered")


def size(X: Array, order: int | None = None) -> float:
    """Return the Frobenius norm, or another, as a plain number."""
    return float(np.linalg.norm(X, order))


def closed_form(U: Array, B: Array, G: Array) -> Matrix:
    """Return D_{U,B}[G] as it is stated."""
    s, Q = np.linalg.eigh(B)
    K = U.T @ G
    Omega = Q @ ((Q.T @ (K - K.T) @ Q) / (s[:, None] + s)) @ Q.T
    return np.asarray(U @ Omega + (G - U @ K) @ (Q / s) @ Q.T)


def _fifty_digits(rng: np.random.Generator) -> Iterator[Residual]:
    """Compare with central differences of the polar factor in fifty digits."""
    r = int(rng.integers(1, 4))
    d, s = r + int(rng.integers(0, 3)), spectrum(rng, r, str(rng.choice(REGULAR)))
    A, G = matrix(rng, d, s), rng.standard_normal((d, r))
    U = polar_factor(A)
    exact = _differences(A, G, float(s[-1]) * 1e-12)
    # U and B belong to a matrix within 15 r u |A| of A, which part 5 turns into an error of the derivative
    allowed = SECOND * 15 * r * UNIT * s[0] / s[-1] * size(G) / s[-1]
    yield Residual(size(closed_form(U, sym(U.T @ A), G) - exact), allowed, "the formula as stated")
    yield Residual(size(polar_derivative(A, U, G) - exact), allowed, "polar_derivative")
    # a problem whose linear term is A: F = I, H = A/2
    pulled = nearest_etf_vjp(NearestETF(A / 2, frame=np.eye(r)), U, G).H if r > 1 else 2 * exact
    yield Residual(size(pulled - 2 * exact), 2 * allowed, "nearest_etf_vjp")
    if r > 1:
        H = torch.from_numpy(A / 2).requires_grad_()
        torch.sum(torch.from_numpy(G) * functional.nearest_etf(H, frame=torch.eye(r, dtype=H.dtype))).backward()  # type: ignore[no-untyped-call] # torch leaves it untyped
        assert H.grad is not None
        yield Residual(size(H.grad.numpy() - 2 * exact), 2 * allowed, "autograd")


def _differences(A: Array, X: Array, step: float) -> Matrix:
    with mpmath.workdps(50):
        a, x, h = mpmath.matrix(A.tolist()), mpmath.matrix(X.tolist()), mpmath.mpf(step)
        change = (_exact_polar(a + h * x) - _exact_polar(a - h * x)) / (2 * h)
        return np.array(change.tolist(), dtype=np.float64)


def _exact_polar(A: Any) -> Any:
    squares, Q = mpmath.eigsy(A.T * A)
    return A * Q * mpmath.diag([1 / mpmath.sqrt(x) for x in squares]) * Q.T


def _rules(rng: np.random.Generator) -> Iterator[Residual]:
    """Any well-posed problem: VJP, JVP, adjoint, kernel, norm, and what F does not see."""
    p, kappa = _regular(rng, 1e7)
    U, A = solve(p).U, p.linear_term
    s = np.linalg.svd(A, compute_uv=False)
    G, D, E = (rng.standard_normal(shape) for shape in ((p.d, p.r), p.H.shape, p.H.shape))
    scale, rounding = size(G) / s[-1], SECOND * 30 * p.r * UNIT * kappa
    expected = closed_form(polar(A), sym(polar(A).T @ A), G)
    found = nearest_etf_vjp(p, U, G)
    spectral = size(p.F, 2)
    yield Residual(size(found.H - 2 * expected @ p.F), 2 * rounding * spectral * scale, "dL/dH = 2 D[G] F")
    if found.prox is not None:
        yield Residual(size(found.prox - p.delta * expected), rounding * p.delta * scale, "dL/dU_prox")
    pulled, pushed = nearest_etf_vjp(p, U, E @ p.F.T).H, nearest_etf_jvp(p, U, D)
    terms = size(E) * size(D) * 2 * spectral**2 / s[-1]
    yield Residual(float(abs(np.vdot(pulled, D) - np.vdot(E, pushed))), rounding * terms, "adjoint identity")
    S = sym(rng.standard_normal((p.r, p.r)))
    zero = nearest_etf_vjp(p, U, U @ S).H
    yield Residual(size(zero), 2 * rounding * spectral * size(S) / s[-1], "symmetric cotangent")
    leak, seen = size(found.H.sum(axis=1)), size(p.F.sum(axis=1))
    # F as stored sums to zero up to rounding; what it adds up to is seen, and no more
    yield Residual(leak, 2 * scale * (seen + 10 * p.C * rounding * spectral), "rows of dL/dH against F1")
    if p.r > 1 or p.d > 1:
        norm = 1 / s[-1] if p.d > p.r else 2 / (s[-1] + s[-2])
        yield Residual(size(expected), norm * size(G) * (1 + rounding), "norm of D")


def _large(rng: np.random.Generator) -> Iterator[Residual]:
    """Take sizes at which the code gathers its products."""
    r, d = 40, int(rng.choice([40, 90]))
    s, kind = np.sort(rng.uniform(0.1, 1, r))[::-1], str(rng.choice(["generic", "equal"]))
    A, G = matrix(rng, d, s if kind == "generic" else np.ones(r)), rng.standard_normal((d, r))
    U = polar_factor(A)
    stated = closed_form(U, sym(U.T @ A), G)
    allowed = SECOND * 30 * r * UNIT * s[0] / s[-1] ** 2 * size(G)
    a = torch.from_numpy(A).requires_grad_()
    (found,) = torch.autograd.grad((functional.polar_factor(a) * torch.from_numpy(G)).sum(), a)
    yield Residual(size(found.numpy() - stated), allowed, f"autograd, {kind}")
    pulled = nearest_etf_vjp(NearestETF(A / 2, frame=np.eye(r)), U, G).H
    yield Residual(size(pulled - 2 * stated), 2 * allowed, f"nearest_etf_vjp, {kind}")


def _dense(rng: np.random.Generator) -> Iterator[Residual]:
    """Compare the implicit formula with the closed form at (U, sym(U'A)), at the minimiser and away from it."""
    p, kappa = _regular(rng, 1e3, MILD)  # at a scale near that of F: the dense formula subtracts 2FF' from itself
    U, A = solve(p).U, p.linear_term
    s, G = np.linalg.svd(A, compute_uv=False)[-1], rng.standard_normal((p.d, p.r))
    away = polar(U + float(rng.uniform(0, 0.3)) / kappa * stiefel(rng, p.d, p.r))
    scale = 2 * size(p.F, 2) * size(G) / s
    for what, point in (("at the minimiser", U), ("away from it", away)):
        B = sym(point.T @ A)
        assert np.linalg.eigvalsh(B)[0] > 0.3 * s, "the condition of part 3"
        expected = 2 * closed_form(point, B, G) @ p.F
        # B is formed from terms of the size of A and of 2FF', whose rounding the dense solves multiply
        own = 1 + size(p.F, 2) ** 2 / size(A, 2)
        allowed = 100 * p.r**2 * UNIT * own * kappa**2 * scale
        yield Residual(size(kkt_vjp(p, point, G) - expected), allowed, f"kkt_vjp {what}")
        yield Residual(size(2 * _bordered(point, B, G) @ p.F - expected), allowed, f"bordered system {what}")


def _bordered(U: Array, B: Array, G: Array) -> Matrix:
    """Solve YB + U Lambda = G, U'Y + Y'U = 0, Lambda symmetric, as one linear system."""
    (d, r), rows = U.shape, np.triu_indices(U.shape[1])
    J = []
    for i, j in zip(*rows, strict=True):
        S = np.zeros((r, r))
        S[i, j] = S[j, i] = 1
        J.append((U @ S).ravel())
    Jm = np.array(J)
    full = np.block([[np.kron(np.eye(d), B), Jm.T], [Jm, np.zeros((len(J), len(J)))]])
    return np.asarray(np.linalg.solve(full, np.append(G.ravel(), np.zeros(len(J))))[: d * r].reshape(d, r))


def _inexact(rng: np.random.Generator) -> Iterator[Residual]:
    """Points at all distances: the error against its bound and against the first-order term, and the refusal."""
    r = int(rng.integers(2, 6))
    d, s = r + int(rng.integers(0, 4)), spectrum(rng, r, str(rng.choice([*MILD, "graded", "tiny"])))
    A, G = matrix(rng, d, s), rng.standard_normal((d, r))
    best = polar(A)
    U = polar(best + 10.0 ** rng.uniform(-7, 0) * s[-1] / s[0] * stiefel(rng, d, r))
    exact, total = closed_form(best, sym(best.T @ A), G), size(G)
    for B in (sym(U.T @ A), sym(best.T @ A)):
        least, eps = float(np.linalg.eigvalsh(B)[0]), float(size(A - U @ B))
        if least <= 0 or eps >= 0.9 * s[-1]:
            yield Residual(0, 1, "outside the assumption")
            continue
        rounding = SECOND * 60 * r * UNIT * s[0] / s[-1] * total / s[-1]
        error = closed_form(U, B, G) - exact
        bound = SECOND * eps / (s[-1] * (s[-1] - eps)) * total
        yield Residual(size(error), bound + rounding, "error of an inexact solution")
        apart = 2 * eps / (s[-1] + least) + 60 * r * UNIT * s[0] / s[-1]
        yield Residual(size(U - best), apart, "distance to the minimiser")
        if eps < 1e-2 * s[-1]:
            first = second_derivative(A, G, U @ B - A)
            third = 100 * total * eps**2 / s[-1] ** 3
            yield Residual(size(error - first), third + 3 * rounding, "first-order term of the error")
    eps = size(A - U @ sym(U.T @ A))
    if eps > 2e-6 * s[0]:
        yield Residual(float(_accepts(A, U, G)), 0.5, "a point that is no minimiser is refused")


def _accepts(A: Array, U: Array, G: Array) -> int:
    """Return how many of etfopt's two derivatives at A take U for the minimiser; the second starts from A'A."""
    accepted = 0
    p = NearestETF(A / 2, frame=np.eye(A.shape[1])) if A.shape[1] > 1 else None
    for derivative in (lambda: polar_derivative(A, U, G), lambda: p and nearest_etf_vjp(p, U, G)):
        with contextlib.suppress(InputError):
            accepted += derivative() is not None
    return accepted


def second_derivative(A: Matrix, X: Array, E: Array) -> Matrix:
    """Return the second derivative of the polar factor as part 4 states it."""
    U = polar(A)
    B = sym(U.T @ A)
    V, W = closed_form(U, B, X), closed_form(U, B, E)
    Lambda, dB, Sigma = U.T @ (X - V @ B), U.T @ (E - W @ B), -sym(W.T @ V)
    return np.asarray(U @ Sigma - closed_form(U, B, V @ dB + W @ Lambda + U @ Sigma @ B))


def _sharp(rng: np.random.Generator) -> Iterator[Residual]:
    """Try the example in one column, where the error is known in closed form and nearly the bound."""
    d, s, angle = int(rng.integers(2, 6)), 10.0 ** rng.uniform(-3, 3), float(rng.uniform(1e-3, 1.2))
    basis = stiefel(rng, d, 2)
    best, U = basis[:, :1], np.cos(angle) * basis[:, :1] + np.sin(angle) * basis[:, 1:]
    eps, B = s * np.sin(angle), U.T @ (s * best)
    yield Residual(abs(size(s * best - U @ B) - eps), 1e-14 * s, "the gradient norm left")
    error = size(closed_form(U, B, best))
    yield Residual(abs(error - eps / (s * np.sqrt(s**2 - eps**2))), 1e-13 * (1 + error), "the error in one column")


def _second_order(rng: np.random.Generator) -> Iterator[Residual]:
    """Differentiating the backward pass again gives the second derivative, also where singular values repeat."""
    r = int(rng.integers(1, 5))
    d, s = r + int(rng.integers(0, 3)), spectrum(rng, r, str(rng.choice(MILD)))
    A, X, E, G = matrix(rng, d, s), *(rng.standard_normal((d, r)) for _ in range(3))
    stated = second_derivative(A, X, E)
    scale = SECOND / s[-1] ** 2 * size(X) * size(E)
    yield Residual(size(stated), scale * (1 + 1e-12), "bound on the second derivative")
    t = 1e-4 * s[-1] / size(E)
    ahead, behind = (closed_form(polar(Y), sym(polar(Y).T @ Y), X) for Y in (A + t * E, A - t * E))
    yield Residual(size((ahead - behind) / (2 * t) - stated), 1e-6 * scale, "against differences")
    a, e, g = (torch.from_numpy(Y) for Y in (A, E, G))
    a.requires_grad_()
    (first,) = torch.autograd.grad((functional.polar_factor(a) * g).sum(), a, create_graph=True)
    (second,) = torch.autograd.grad((first * e).sum(), a)
    # the Hessian of <G, pi> is self-adjoint: <second, X> = <G, D^2 pi [X, E]>
    gap = abs(np.vdot(second.numpy(), X) - np.vdot(G, stated))
    allowed = 100 * r * UNIT * (s[0] / s[-1]) ** 2 * scale * size(G)
    yield Residual(gap, allowed, "double backward")


def _rank_deficient(rng: np.random.Generator) -> Iterator[Residual]:
    """Where A loses rank, minimisers jump by two, and no gradient is returned."""
    r = int(rng.integers(1, 5))
    d, s = r + int(rng.integers(0, 3)), spectrum(rng, r, "deficient")
    P, Q = stiefel(rng, d, r), stiefel(rng, r, r)
    step = 10.0 ** rng.uniform(-9, -3) * np.outer(P[:, -1], Q[:, -1])
    A = P * s @ Q.T
    jump = size((polar_factor(A + step) - polar_factor(A - step)) @ Q[:, -1])
    yield Residual(abs(jump - 2), 1e-4, "the jump across a rank-deficient A")
    yield Residual(float(_accepts(A, polar(A), rng.standard_normal((d, r)))), 0.5, "no gradient there")


def _regular(rng: np.random.Generator, limit: float, kinds: tuple[str, ...] = REGULAR) -> tuple[NearestETF, float]:
    """Draw problems until one has full rank and a moderate condition; return it and its condition number."""
    while True:
        p = problem(rng, str(rng.choice(kinds)))
        s = np.linalg.svd(p.linear_term, compute_uv=False)
        if s[-1] * limit > s[0]:
            return p, float(s[0] / s[-1])


PARTS = (
    Part(_fifty_digits, 0.3),
    Part(_rules, 2),
    Part(_large, 0.1),
    Part(_dense),
    Part(_inexact, 2),
    Part(_sharp, 0.5),
    Part(_second_order),
    Part(_rank_deficient, 0.5),
    Part(faint_prox),
    Part(thirty_delta, 0.3),
)
