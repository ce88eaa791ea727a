"""The cases of claim `certificate`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import mpmath
import numpy as np

from etfopt import NearestETF, certify, simplex_etf, solve
from etfopt.polar._svd import thin_svd
from theory import _exact as e
from theory.draws import Matrix, matrix, polar, problem, spectrum, stiefel
from theory.registry import Residual, at_least

U = 2.0**-53
EPS = 2 * U


def svd_units(d: int, r: int) -> int:
    """Return p of assumption (S)."""
    return d + 10 * r + 100


def gap_rounding(d: int, r: int, eta: float, norm: float) -> float:
    """Return gamma, the bound on the rounding of the gap."""
    return 1.01 * (2 * d + 12 * r + 100) * U * math.sqrt(r + math.sqrt(r) * eta) * norm


def change(p: NearestETF) -> float:
    """Return omega, the bound on what forming A and its SVD change, in the problem's own units."""
    A, e2 = p.scaled_linear_term.A, 2.0**p.scaled_linear_term.exponent
    return forming_units(p) + 1.01 * svd_units(p.d, p.r) * U * float(np.linalg.norm(A)) * e2


def forming_units(p: NearestETF) -> float:
    """Return the part of it that forming A costs."""
    prox = 0.0 if p.prox is None else p.delta * float(np.linalg.norm(p.prox))
    return (p.C + 4) * EPS * (2 * float(np.linalg.norm(p.H)) * float(np.linalg.norm(p.F)) + prox)


def _symmetric_factor(A: Matrix) -> Matrix:
    _, s, Qt = np.linalg.svd(A, full_matrices=False)
    return np.asarray(Qt.T * s @ Qt)


def _shape(rng: np.random.Generator) -> tuple[int, int]:
    r = int(rng.integers(1, 6))
    return r + int(rng.choice([0, 1, 2 * r + 5])), r


def _moved(rng: np.random.Generator, point: Matrix) -> Matrix:
    """Return a point of the manifold at any distance from another one, or that one itself."""
    step = float(rng.choice([0.0, 10.0 ** rng.uniform(-9, 1)]))
    return polar(point + step * rng.standard_normal(point.shape)) if step else point


def identity(rng: np.random.Generator) -> Iterator[Residual]:
    """Compare both sides of the gap identity, and the distance bound, for points on, in, off and far off the ball."""
    d, r = _shape(rng)
    A = matrix(rng, d, spectrum(rng, r))
    s = np.linalg.svd(A, compute_uv=False)
    A, s = (A / s[0], s / s[0]) if s[0] > 0 else (A, s)
    best, B = polar(A), _symmetric_factor(A)
    X = stiefel(rng, d, r) * rng.uniform(0, 1, r) @ stiefel(rng, r, r).T
    on = _moved(rng, best)
    for what, V in (("on the manifold", on), ("in the ball", X), ("far", 5 * rng.standard_normal((d, r)))):
        gap = float(s.sum() - np.sum(A * V))
        terms = np.trace((best - V) @ B @ (best - V).T) / 2 + np.trace(B @ (np.eye(r) - V.T @ V)) / 2
        relative = (svd_units(d, r) + 4 * d) * EPS * (1 + float(np.sum(V * V)))
        rounding = relative * max(float(s.sum()), 1e-300)
        yield Residual(abs(gap - float(terms)), rounding, f"gap identity {what}")
        eta = float(np.linalg.norm(V.T @ V - np.eye(r)))
        if what != "far":
            distance = float(np.linalg.norm(V - best))
            yield Residual(s[-1] * distance**2 - 2 * gap, 2 * rounding, f"distance {what}")
        m = max(1.0, float(np.linalg.norm(V, 2)))
        yield Residual(float(np.linalg.norm(V - V / m)) - eta / 2 * math.sqrt(r), relative, f"to the ball, {what}")
        inside = float(s.sum() - np.sum(A * V / m))
        yield Residual(inside - gap - eta / 2 * float(s.sum()), rounding, f"gap in the ball, {what}")


def optimality(rng: np.random.Generator) -> Iterator[Residual]:
    """Bound the gap by stationarity and curvature, and see U'A positive where the gap is not zero."""
    d, r = _shape(rng)
    A = matrix(rng, d, spectrum(rng, r, str(rng.choice(["generic", "repeated", "graded", "deficient"]))))
    P, s, Qt = np.linalg.svd(A, full_matrices=False)
    signs = np.where(rng.random(r) < 0.3, -1.0, 1.0)  # critical points, minimiser or not
    V = _moved(rng, (P * signs) @ Qt)
    F = stiefel(rng, r + 1, r).T
    certificate = certify(NearestETF(A @ F / 2, frame=F), V)
    K = (V.T @ A + A.T @ V) / 2
    gap, rho = float(s.sum() - np.sum(A * V)), float(np.linalg.norm(A - V @ K))
    negative = float(np.maximum(0, -np.linalg.eigvalsh(K)).sum())
    rounding = 4 * (svd_units(d, r) + 2 * d) * EPS * math.sqrt(r)
    yield Residual(gap - 2 * negative - math.sqrt(r) * rho, rounding, "gap above what rho and lambda allow")
    yield Residual(abs(certificate.stationarity - rho), rounding, "etfopt's stationarity")
    least = float(np.linalg.eigvalsh(K)[0])
    yield Residual(abs(certificate.curvature - least), rounding, "etfopt's curvature")
    if d > r:  # U'A = B, symmetric and positive, but A leaves the range of U
        tail = np.linalg.svd(V)[0][:, r:]
        tilted = V @ np.diag(rng.uniform(0.5, 1, r)) + tail[:, :1] @ np.ones((1, r))
        judged = certify(NearestETF(tilted @ F / 2, frame=F), V)
        yield at_least(judged.curvature, 0.4, "curvature of a point that is not optimal")
        yield at_least(judged.gap, 1e-2, "its gap")
        yield at_least(judged.stationarity, 0.9, "its stationarity")


def perturbation(rng: np.random.Generator) -> Iterator[Residual]:
    """Perturb A by any amount in any direction, the worst one included: a quarter turn in the weakest plane."""
    d, r = _shape(rng)
    s = spectrum(rng, r, str(rng.choice(["generic", "equal", "repeated", "graded", "deficient"])))
    P, Q = stiefel(rng, d, r), stiefel(rng, r, r)
    A = P * s @ Q.T
    E = rng.standard_normal((d, r))
    if r > 1 and rng.random() < 0.5:
        E = (np.outer(P[:, -1], Q[:, -2]) - np.outer(P[:, -2], Q[:, -1])) + 0.1 * E
    E *= 10.0 ** rng.uniform(-6, 0.5) / np.linalg.norm(E)
    other, norm = A + E, float(np.linalg.norm(E))
    sigma, (_, t, Qt) = np.linalg.svd(A, compute_uv=False)[-1], np.linalg.svd(other, full_matrices=False)
    difference = polar(A) - polar(other)
    rounding = 200 * svd_units(d, r) * EPS
    yield Residual(
        float(np.linalg.norm(difference)) * (sigma + t[-1]) - 2 * norm, rounding, "change of U above the bound"
    )
    for k in range(1, r + 1):
        yield Residual(
            float(np.linalg.norm(difference @ Qt[:k].T)) * t[k - 1] - 4 * norm, rounding, "change on a part, as above"
        )


def _judge_gap(p: NearestETF, V: Matrix) -> Iterator[Residual]:
    term, certificate = p.scaled_linear_term, certify(p, V)
    with e.digits():
        A, exact_V = e.exact(term.A), e.exact(V)
        gap = e.nuclear(A) - e.inner(A, exact_V)
        eta = e.frobenius(exact_V.T * exact_V - mpmath.eye(p.r))
        off = abs(float(mpmath.mpf(certificate.gap) / mpmath.mpf(2) ** term.exponent - gap))
        bound = gap_rounding(p.d, p.r, eta, e.frobenius(A) + 1e-300)
        yield Residual(off, bound, "computed gap against sixty digits")
        yield Residual(eta, 1.05 * (certificate.feasibility + p.d * p.r * U), "eta against its bound")


def rounding(rng: np.random.Generator) -> Iterator[Residual]:
    """Judge points on the manifold and off it in float64 and in sixty digits."""
    p = problem(rng)
    V = _moved(rng, np.asarray(solve(p).U, dtype=np.float64))
    if rng.random() < 0.3:
        V = V + 10.0 ** rng.uniform(-16, 2) * rng.standard_normal(V.shape)
    yield from _judge_gap(p, V)


def long_columns(rng: np.random.Generator) -> Iterator[Residual]:
    """Let the same rounding occur many times: columns of equal terms. A bound without d fails here."""
    d, F = int(10.0 ** rng.uniform(2, 5.2)), simplex_etf(2, reduced=True)
    A = np.full((d, 1), rng.uniform(0.5, 1))
    p = NearestETF(A @ np.linalg.pinv(F.T) / 2, frame=F)
    V, term = A / np.linalg.norm(A), p.scaled_linear_term
    certificate, equal = certify(p, V), float(np.ptp(term.A)) == float(np.ptp(V)) == 0
    yield Residual(float(not equal), 0.5, "entries that are not equal")
    with e.digits():
        a, v = mpmath.mpf(float(term.A[0, 0])), mpmath.mpf(float(V[0, 0]))
        gap, norm, eta = mpmath.sqrt(d) * a - d * a * v, float(mpmath.sqrt(d) * a), float(abs(d * v * v - 1))
        off = float(abs(mpmath.mpf(certificate.gap) / mpmath.mpf(2) ** term.exponent - gap))
    yield Residual(off, gap_rounding(d, 1, eta, norm), "computed gap against sixty digits")
    yield Residual(eta, 1.05 * (certificate.feasibility + d * U), "eta against its bound")
    solution = solve(p)
    counted = _counted(np.asarray(solution.U, dtype=np.float64))
    with e.digits():
        best = mpmath.mpf(1) / mpmath.sqrt(d)
        distance = mpmath.sqrt(mpmath.fsum((mpmath.mpf(float(x)) - best) ** 2 * n for x, n in counted))
    yield Residual(float(distance), solution.certificate.distance_bound, "distance from the minimiser")
    yield Residual(solution.certificate.feasibility, 20 * EPS, "feasibility, which must not grow with d")


def _counted(X: Matrix) -> list[tuple[float, int]]:
    values, counts = np.unique(X, return_counts=True)
    return list(zip(values.tolist(), counts.tolist(), strict=True))


def backward_stability(rng: np.random.Generator) -> Iterator[Residual]:
    """Test assumption (S): the computed SVD is near the exact one of a near matrix."""
    d, r = _shape(rng)
    A = matrix(rng, d, spectrum(rng, r))
    A = A / (np.abs(A).max() or 1.0)
    P, S, Q = thin_svd(A)
    with e.digits():
        near = [_orthonormal(e.exact(np.asarray(X, dtype=np.float64))) for X in (P, Q)]
        off = e.frobenius(near[0] * mpmath.diag(S.tolist()) * near[1].T - e.exact(A))
        vectors = e.frobenius(near[1] - e.exact(Q))
    yield Residual(off, svd_units(d, r) * U * float(np.linalg.norm(A)) + 1e-300, "backward error of the SVD")
    yield Residual(vectors, svd_units(d, r) * U * math.sqrt(r), "singular vectors off orthonormal ones")


def _orthonormal(X: Any) -> Any:
    # two Newton-Schulz steps square an error of 1e-14 twice
    for _ in range(2):
        X = X * (3 * mpmath.eye(X.cols) - X.T * X) / 2
    return X


def forming(rng: np.random.Generator) -> Iterator[Residual]:
    """Form A from data of any scale, with a large common mean, with a proximal term that cancels them."""
    p = problem(rng)
    if p.r >= p.C - 1 and rng.random() < 0.5:
        mean = 10.0 ** rng.uniform(0, 8) * float(np.linalg.norm(p.H)) * rng.standard_normal((p.d, 1))
        p = NearestETF(p.H + mean, prox=p.prox, delta=p.delta, frame=simplex_etf(p.C, reduced=p.r < p.C))
    term = p.scaled_linear_term
    with e.digits():
        off = e.frobenius(_linear_term(p) - e.exact(term.A) * mpmath.mpf(2) ** term.exponent)
    yield Residual(off, forming_units(p) + 1e-300, "A as stored")


def _linear_term(p: NearestETF) -> Any:
    """Return A in sixty digits, with the frame that `etfopt` takes F for."""
    F, row_sum = e.exact(p.F), float(np.linalg.norm(p.F.sum(axis=1)))
    if p.r == p.C and np.array_equal(p.F, simplex_etf(p.C)):
        F = (mpmath.eye(p.C) - mpmath.ones(p.C) / p.C) / mpmath.sqrt(p.C - 1)
    elif row_sum <= p.C * EPS * float(np.linalg.norm(p.F)):
        F = F * (mpmath.eye(p.C) - mpmath.ones(p.C) / p.C)
    A = 2 * e.exact(p.H) * F.T
    return A if p.prox is None else A + mpmath.mpf(p.delta) * e.exact(p.prox)


def _bound(p: NearestETF, V: Matrix, sigma: float, factor: int) -> float:
    """Return the bound of (e) on the distance, from what was computed, in the problem's own units."""
    certificate, A = certify(p, V), p.linear_term
    norm = float(np.linalg.norm(A))
    nuclear = float(np.linalg.svd(A, compute_uv=False).sum())
    eta = 1.05 * (certificate.feasibility + p.d * p.r * U)
    excess = max(certificate.gap, 0.0) + gap_rounding(p.d, p.r, eta, norm) + eta / 2 * nuclear
    K = np.asarray(V.T @ A + A.T @ V) / 2
    size, m = float(np.linalg.norm(K)), max(0.0, -certificate.curvature)
    nu = certificate.stationarity + (svd_units(p.d, p.r) + p.r + 2) * U * norm
    nu += (p.r + 2) * U * float(np.linalg.norm(V)) * size
    nu = 1.01 * nu + eta * size + math.sqrt(p.r) * (m + svd_units(p.r, p.r) * U * size)
    by_gap = math.sqrt(2 * excess / sigma) + eta * math.sqrt(p.r)
    return min(by_gap, eta + factor * nu / sigma) + factor * change(p) / sigma


def _graded(rng: np.random.Generator, lowest: float) -> NearestETF:
    """Draw a problem with the reduced frame and singular values from 1 down to 10**lowest."""
    C = int(rng.integers(2, 5))
    F, d = simplex_etf(C, reduced=True), C - 1 + int(rng.choice([0, 1, 9]))
    s = np.geomspace(1, 10.0 ** rng.uniform(lowest, 0), C - 1) * rng.choice([1.0, 1e-80, 1e80])
    return NearestETF(matrix(rng, d, s) @ np.linalg.pinv(F.T) / 2, frame=F)


def distances(rng: np.random.Generator) -> Iterator[Residual]:
    """Measure how far points are from the exact minimiser, singular values down to rounding included."""
    p = _graded(rng, -15)
    F = np.asarray(p.F, dtype=np.float64)
    with e.digits():
        best = e.floats(e.polar(_linear_term(p)))
    V = _moved(rng, best if rng.random() < 0.5 else np.asarray(solve(p).U))
    if rng.random() < 0.3:
        V = V + 10.0 ** rng.uniform(-16, 1) * rng.standard_normal(V.shape)
    certificate = certify(p, V)
    yield Residual(float(np.linalg.norm(V - best)), certificate.distance_bound, "distance from the minimiser")
    yield Residual(float(np.linalg.norm((V - best) @ F)), certificate.etf_distance_bound, "distance of the ETFs")
    if certificate.unique:
        own = _bound(p, V, certificate.margin, 2)
        yield Residual(abs(certificate.distance_bound / own - 1), 1e-6, "etfopt's bound against that of (e)")


def partial_distances(rng: np.random.Generator) -> Iterator[Residual]:
    """Do the same with the paper's frame and no or a faint proximal term: only the ETF is determined."""
    C = int(rng.integers(2, 5))
    d, s = C + int(rng.choice([0, 1, 9])), np.geomspace(1, 10.0 ** -rng.uniform(0, 12), C - 1)
    H = matrix(rng, d, s) @ simplex_etf(C, reduced=True)
    prox, delta = stiefel(rng, d, C), float(rng.choice([1e-25, 1e-18, 1e-16, 1e-15]))
    p = NearestETF(H, prox=prox, delta=delta)
    with e.digits():  # the faint term singles out one of the minimisers
        best = e.floats(e.polar(_linear_term(p)))
    V = _moved(rng, best if rng.random() < 0.3 else np.asarray(solve(p).U))
    certificate, term = certify(p, V), p.scaled_linear_term
    S, Q = (np.asarray(X) for X in thin_svd(term.A)[1:])
    k = int(np.count_nonzero(term.rounding < S))
    distance = float(np.linalg.norm((V - best) @ p.F))
    yield Residual(distance, certificate.etf_distance_bound, "distance of the ETFs")
    if k < p.r and certificate.etf_unique:
        own = _bound(p, V, float(S[k - 1]) * 2.0**term.exponent, 4)
        unseen = 2 * float(np.linalg.norm(Q[:, k:].T @ p.F))
        unseen += 2.02 * math.sqrt(p.r) * (svd_units(p.d, p.r) + p.r) * U * float(np.linalg.norm(p.F))
        total = own * float(np.linalg.norm(p.F, 2)) + unseen
        yield Residual(abs(certificate.etf_distance_bound / total - 1), 1e-6, "etfopt's bound against that of (e)")


def decisions(rng: np.random.Generator) -> Iterator[Residual]:
    """Hold the verdicts against the exact gap and the exact singular values, the smallest near rounding or not."""
    p = problem(rng) if rng.random() < 0.5 else _graded(rng, -17)
    solution = solve(p)
    tolerance = 10.0 ** rng.uniform(-15, -1)
    V = (
        np.asarray(solution.U)
        if rng.random() < 0.3
        else polar(solution.U + math.sqrt(tolerance) * rng.standard_normal(solution.U.shape))
    )
    certificate = certify(p, V)
    with e.digits():
        A = _linear_term(p)
        s, _ = e.spectral(A)
        nuclear, inner = float(mpmath.fsum(s)), e.inner(A, e.exact(V))
        gap, least = float(mpmath.fsum(s) - inner), float(s[-1])
    omega, eta = change(p), 1.05 * (certificate.feasibility + p.d * p.r * U)
    known = gap_rounding(p.d, p.r, eta, float(np.linalg.norm(p.linear_term))) + eta / 2 * nuclear
    known += 2 * math.sqrt(p.r) * omega + 1e-300
    if certificate.optimal(tolerance):
        yield Residual(gap - tolerance * nuclear, 1.01 * known, "gap of a point called optimal")
    else:
        yield Residual(tolerance * nuclear - gap, 1.01 * known, "gap of a feasible point not called optimal")
    yield Residual(abs(certificate.margin - least), omega + 1e-300, "margin against the exact singular value")
    theta = p.C * p.unit * forming_units(p) / ((p.C + 4) * EPS)
    yield Residual(least - theta if not certificate.unique else theta - least, omega + 1e-300, "side of theta")
