"""The cases of claim `duality`."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
import scipy.linalg

from etfopt import NearestETF, certify
from etfopt.solvers.convex_relaxation import ConvexRelaxation, RelaxationStats, _dual_bound
from theory.draws import Matrix, matrix, polar, spectrum, stiefel
from theory.registry import Residual, at_least

EPS = float(np.finfo(np.float64).eps)


def _svd(rng: np.random.Generator) -> tuple[Matrix, Matrix, Matrix, Matrix, Matrix, Matrix]:
    """Return A of size one and P1, s, Q1, P2, Q2; every rank, zero included."""
    r = int(rng.integers(1, 5))
    d, k = r + int(rng.choice([0, 1, 4])), int(rng.integers(0, r + 1))
    P, Q = np.linalg.qr(rng.standard_normal((d, d)))[0], stiefel(rng, r, r)
    s = np.sort(rng.uniform(0.2, 1, k))[::-1]
    return (P[:, :k] * s) @ Q[:, :k].T, P[:, :k], s, Q[:, :k], P[:, k:], Q[:, k:]


def _norm(X: Matrix) -> float:
    return float(np.linalg.norm(X, 2)) if X.size else 0.0


def _in_ball(rng: np.random.Generator, d: int, r: int) -> Matrix:
    s = np.where(rng.random(r) < 0.3, 1.0, rng.uniform(0, 1, r))
    return matrix(rng, d, s) if r else np.zeros((d, 0))


def tightness(rng: np.random.Generator) -> Iterator[Residual]:
    """Write points of the ball as convex combinations of points of the manifold; none of these is a midpoint."""
    r = int(rng.integers(1, 5))
    d = r + int(rng.choice([0, 1, 4]))
    X, A = _in_ball(rng, d, r), matrix(rng, d, spectrum(rng, r, "graded"))
    P, s, Qt = np.linalg.svd(X, full_matrices=False)
    total, weights, best = np.zeros((d, r)), 0.0, -math.inf
    for signs in itertools.product([1.0, -1.0], repeat=r):
        weight, point = float(np.prod((1 + np.array(signs) * s) / 2)), (P * signs) @ Qt
        total, weights, best = total + weight * point, weights + weight, max(best, float(np.sum(A * point)))
    rounding = 100 * d * EPS
    yield Residual(float(np.linalg.norm(total - X)) + abs(weights - 1), rounding, "convex combination")
    yield Residual(float(np.sum(A * X)) - best, rounding, "a point of the ball above all vertices of its box")
    nuclear = float(np.linalg.svd(A, compute_uv=False).sum())
    yield Residual(float(np.sum(A * X)) - nuclear, rounding, "a point of the ball above ||A||_*")
    yield Residual(abs(float(np.sum(A * polar(A))) - nuclear), rounding, "the maximum")
    V, E = stiefel(rng, d, r), rng.standard_normal((d, r))
    E *= 0.1 / np.linalg.norm(E)
    yield at_least(max(_norm(V + E), _norm(V - E)) - 1, 0.1**2 / (4 * r), "growth of the norm along a chord")


def bounds(rng: np.random.Generator) -> Iterator[Residual]:
    """Give any multipliers and any point to the bounds; the optimal ones reach the nuclear norm."""
    r = int(rng.integers(1, 6))
    R = matrix(rng, r, spectrum(rng, r, str(rng.choice(["generic", "equal", "repeated", "graded", "deficient"]))))
    P, s, Qt = np.linalg.svd(R)
    nuclear, rounding = float(s.sum()), 40 * r * r * EPS * (1 + float(s.sum()))
    D1, D2 = (P * s) @ P.T / 2, (Qt.T * s) @ Qt / 2
    block = np.block([[D1, -R / 2], [-R.T / 2, D2]])
    yield Residual(-float(np.linalg.eigvalsh(block)[0]), rounding, "the optimal multipliers are feasible")
    for sign in (1.0, -1.0):
        reported = _dual_bound(R, sign * D1, sign * D2)
        yield Residual(abs(reported - nuclear), rounding, "bound of the optimal multipliers")
    size = float(rng.choice([0.0, 1e-8, 1.0]))
    for what, start in (("none", 0.0), ("near", 1.0)):
        noise = [size * rng.standard_normal((r, r)) for _ in range(2)]
        reported = _dual_bound(R, start * D1 + noise[0], start * D2 + noise[1])
        yield Residual(nuclear - reported, rounding * (1 + size), f"nuclear norm above its bound, {what}")
    scaled = _dual_bound(np.eye(r), np.zeros((r, r)), np.zeros((r, r)))
    yield Residual(abs(scaled - r), 10 * r * EPS, "the shift alone, where it is exact")


def face(rng: np.random.Generator) -> Iterator[Residual]:
    """Walk the face of maximisers: all optimal, extreme only on the manifold, and nothing beside it is optimal."""
    A, P1, s, Q1, P2, Q2 = _svd(rng)
    (d, n), r = P2.shape[:1] + Q2.shape[1:], Q1.shape[0]
    rounding, nuclear = 100 * d * EPS, float(s.sum())
    Y = _in_ball(rng, P2.shape[1], n)
    X = P1 @ Q1.T + P2 @ Y @ Q2.T
    yield Residual(_norm(X) - 1, rounding, "norm of a point of the face")
    yield Residual(abs(float(np.sum(A * X)) - nuclear), rounding, "value of a point of the face")
    U = polar(X)
    yield Residual(nuclear - float(np.sum(A * U)), rounding, "gap of a rounded point of the face")
    if len(s):
        other = X + 10.0 ** rng.uniform(-3, 0) * rng.standard_normal(X.shape)
        other /= max(1.0, _norm(other))
        least = s[-1] / 2 * float(np.linalg.norm(other @ Q1 - P1)) ** 2
        yield Residual(least - (nuclear - float(np.sum(A * other))), rounding, "gap beside the face")
    if n:
        left, low, right = np.linalg.svd(Y, full_matrices=False)
        step = (1 - low[-1]) * np.outer(left[:, -1], right[-1])
        for sign in (1.0, -1.0):
            end = X + sign * P2 @ step @ Q2.T
            yield Residual(_norm(end) - 1, rounding, "end of a chord through a point of the face")
            yield Residual(abs(float(np.sum(A * end)) - nuclear), rounding, "value at the end of a chord")
    Q, R = scipy.linalg.qr(A, mode="economic")
    value = float(np.linalg.svd(R, compute_uv=False).sum())
    yield Residual(abs(value - nuclear), rounding, "nuclear norm of R")
    lifted = np.asarray(Q) @ polar(np.asarray(R))
    yield Residual(abs(float(np.sum(A * lifted)) - nuclear), rounding * r, "value of a lifted maximiser")


def central_path(rng: np.random.Generator) -> Iterator[Residual]:
    """Follow the central path by its formula: stationary, gap and distance as stated, to the centre of the face."""
    A, P1, s, Q1, P2, Q2 = _svd(rng)
    d, r = A.shape
    for mu in (1.0, 1e-3, 1e-6):
        full = np.concatenate([s, np.zeros(Q2.shape[1])])
        x = full / (mu + np.sqrt(mu * mu + full * full))
        P, Q = np.hstack([P1, P2[:, : Q2.shape[1]]]), np.hstack([Q1, Q2])
        X = (P * x) @ Q.T
        slope = A - 2 * mu * X @ np.linalg.inv(np.eye(r) - X.T @ X)
        yield Residual(float(np.linalg.norm(slope)), 1e3 * d * EPS / mu, "gradient on the path")
        gap = float(s.sum() - np.sum(A * X))
        yield Residual(gap - len(s) * mu, 100 * d * EPS, "gap on the path")
        yield Residual(float(np.max((1 - x[: len(s)]) - mu / s, initial=0.0)), 10 * EPS, "1 - x")
    yield Residual(float(np.linalg.norm(X - P1 @ Q1.T)), r * 1e-6 / 0.2, "distance from the centre of the face")
    off = float(np.linalg.norm(X.T @ X - np.eye(r)))
    yield Residual(abs(off - math.sqrt(r - len(s))), r * 2e-6 / 0.2, "distance from the manifold")


def rounded(rng: np.random.Generator) -> Iterator[Residual]:
    """Round any point of the ball: at most twice its gap is left, and as much where the bound is sharp."""
    r = int(rng.integers(1, 5))
    d = r + int(rng.choice([0, 1, 4]))
    A = matrix(rng, d, spectrum(rng, r, str(rng.choice(["generic", "equal", "graded", "deficient"]))))
    best = polar(A)
    X = best * rng.uniform(-1, 1) + 10.0 ** rng.uniform(-4, 0) * rng.standard_normal((d, r))
    X = X / max(1.0, _norm(X))
    nuclear = float(np.linalg.svd(A, compute_uv=False).sum())
    gap, after = nuclear - float(np.sum(A * X)), nuclear - float(np.sum(A * polar(X)))
    yield Residual(after - 2 * gap, 100 * d * EPS * (1 + nuclear), "gap of the rounded point")
    if nuclear > 0:
        turned = -1e-3 * best  # it rounds to -U*, the worst point of all
        gap, after = (nuclear - float(np.sum(A * V)) for V in (turned, polar(turned)))
        yield at_least(after / gap, 1.99, "ratio of the gaps in the sharp case")


def conic(rng: np.random.Generator) -> Iterator[Residual]:
    """Run the interior-point method: bounds on both sides, and a point as far off the manifold as A lacks rank."""
    A, P1, s, Q1, _, Q2 = _svd(rng)
    F = stiefel(rng, len(Q1) + 1, len(Q1)).T
    problem = NearestETF(A @ F / 2, frame=F)
    candidate = ConvexRelaxation("CLARABEL").run(problem)
    stats, unit = candidate.stats, (s[0] if len(s) else 1.0)
    assert isinstance(stats, RelaxationStats)
    nuclear, tolerance = float(s.sum()) / unit, 1e-6 * (1 + len(Q1))
    rounding = 100 * len(A) * EPS * (1 + nuclear)
    yield Residual(abs(stats.nuclear_norm - nuclear), rounding, "nuclear norm")
    yield Residual(stats.primal - nuclear, rounding, "primal above the nuclear norm")
    yield Residual(nuclear - stats.dual, rounding, "dual below the nuclear norm")
    yield Residual(stats.dual - stats.primal, tolerance, "duality gap")
    certificate = certify(problem, candidate.U)
    yield Residual(certificate.feasibility, 10 * len(Q1) * EPS, "the rounded minimiser off the manifold")
    gap = certificate.gap / unit
    yield Residual(gap - 2 * (nuclear - stats.primal), rounding, "gap of the rounded minimiser")
    yield Residual(abs(stats.infeasibility - math.sqrt(Q2.shape[1])), 1e-3, "distance from the manifold")
    yield Residual(float(stats.on_manifold != (Q2.shape[1] == 0)), 0.5, "on_manifold")
    yield Residual(float(np.linalg.norm(candidate.U @ Q1 - P1)), 1e-2, "U Q1 = P1 of the rounded minimiser")
