"""Cases for `theory.near_collapse`: errors made so large that rounding does not hide them, and the code itself."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import mpmath
import numpy as np
import torch

from etfopt.adjoint import polar_derivative
from etfopt.nn.polar._collapsed import BINOMIAL, MOST_TERMS, STEPS, _terms, near_collapse
from theory._exact import digits
from theory.draws import Matrix, polar, stiefel
from theory.registry import Part, Residual, at_least

__all__ = ["PARTS"]

ROUNDING = 1e-12
LARGEST = 1.2e-4
"""The rho for which the statement has numbers."""


@dataclass(frozen=True)
class Split:
    """A matrix by its parts: A'A = sigma (I + E - (1 - tau) vv')."""

    A: Matrix
    E: Matrix
    v: Matrix
    sigma: float
    tau: float

    @property
    def alpha(self) -> float:
        """Of B^-1 along v."""
        return float(self.tau**-0.5 - 1)

    @property
    def e(self) -> float:
        """Spectral norm of E."""
        return float(np.linalg.norm(self.E, 2))

    @property
    def nu(self) -> float:
        """Bound on the spectral norm of N."""
        return float((1 - self.e) ** -0.5 - 1)

    @property
    def N(self) -> Matrix:
        """(I + E)^(-1/2) - I by eigenvectors."""
        values, Q = np.linalg.eigh(self.E)
        return np.asarray(Q * np.expm1(-np.log1p(values) / 2) @ Q.T)

    @property
    def root(self) -> Matrix:
        """B^-1, times the root of sigma."""
        return np.eye(len(self.E)) + self.N + self.alpha * np.outer(self.v, self.v)


def _draw(rng: np.random.Generator, largest: float, tau: float, *, centred: bool = False) -> Split:
    """Return a matrix whose |E| is at most the largest, tr E = 0 if it is to be centred."""
    r = int(rng.integers(3, 12))
    Q = stiefel(rng, r, r)
    values = rng.uniform(-1, 1, r - 1) if rng.random() < 0.7 else rng.choice([-1.0, 0.0, 1.0], r - 1)
    if centred:
        values = values - values.mean()
    values = largest * rng.uniform(0.5, 1) * values / max(float(np.abs(values).max()), 1e-3)
    sigma = float(10 ** rng.uniform(-2, 2))
    P = stiefel(rng, r + int(rng.integers(0, 3)), r)
    A = math.sqrt(sigma) * P * np.sqrt(np.append(1 + values, tau)) @ Q.T
    return Split(np.asarray(A), np.asarray(Q[:, :-1] * values @ Q[:, :-1].T), Q[:, -1], sigma, tau)


def _skew(rng: np.random.Generator, r: int) -> Matrix:
    K = rng.standard_normal((r, r))
    return np.asarray(K - K.T)


def _root(rng: np.random.Generator) -> Iterator[Residual]:
    """Try part 1: the inverse root, and the size of N."""
    case = _draw(rng, 0.9, float(10 ** rng.uniform(-4, 1)))
    S = case.root / math.sqrt(case.sigma)
    off = np.linalg.norm(S @ case.A.T @ case.A @ S - np.eye(len(S)))
    yield Residual(float(off), ROUNDING * (1 + case.alpha) ** 2 * 10, "B^-1 A'A B^-1 - I")
    yield Residual(float(np.linalg.norm(case.N @ case.v)), ROUNDING, "Nv")
    yield Residual(float(np.linalg.norm(case.N, 2)) - case.nu, ROUNDING, "|N| above nu")
    yield Residual(case.nu - case.e / (2 * (1 - case.e)), 0.0, "nu above its bound")


def _series(rng: np.random.Generator) -> Iterator[Residual]:
    """Try part 2: what is left of the series, in sixty digits, and the coefficients of the code."""
    n, e = int(rng.integers(1, MOST_TERMS + 1)), float(10 ** rng.uniform(-6, -0.05))
    with digits():
        c = [mpmath.binomial(mpmath.mpf(-1) / 2, k) for k in range(2 * n + 2)]
        coefficients = max(abs(float(c[k]) - BINOMIAL[k]) for k in range(2 * n + 2))

        def left(x: float) -> float:
            powers = mpmath.fsum(c[k] * mpmath.mpf(x) ** k for k in range(2 * n + 1))
            return abs(float((1 + mpmath.mpf(x)) ** -0.5 - powers))

        first = abs(float(c[-1])) * e ** (2 * n + 1)
        yield Residual(coefficients, 0.0, "coefficients of the code")
        for x in (e, -e, float(rng.uniform(-e, e))):
            yield Residual(left(x) * (1 - e) / first, 1 + ROUNDING, "rest of the series over its bound")
        yield at_least(left(-e) * (1 + ROUNDING), first, "rest of the series at -e")


def _derivative(rng: np.random.Generator) -> Iterator[Residual]:
    """Try part 3 against the closed form, at any spectrum."""
    case = _draw(rng, 0.9, float(10 ** rng.uniform(-2, 1)))
    G, U = rng.standard_normal(case.A.shape), polar(case.A)
    K, S = U.T @ G, case.root
    X = ((K - K.T) @ S - S @ (K - K.T)) / 2
    Lambda = (K + K.T) / 2 + _solved(S, X)
    slope = (G - U @ Lambda) @ S / math.sqrt(case.sigma)
    wanted = polar_derivative(case.A, U, G)
    yield Residual(float(np.linalg.norm(slope - wanted)), ROUNDING * 100 * float(np.linalg.norm(wanted)), "derivative")


def _split(rng: np.random.Generator) -> Iterator[Residual]:
    """Try part 4: the split, and how far the iterations are off, which is far above rounding."""
    n, case = int(rng.integers(1, MOST_TERMS + 1)), _draw(rng, 0.6, float(10 ** rng.uniform(-4, 0.6)))
    N, v, alpha, nu, r = case.N, case.v, case.alpha, case.nu, len(case.v)
    J, S = _skew(rng, r), case.root
    Delta, j, size = _solved(S, (J @ S - S @ J) / 2), J @ v, float(np.linalg.norm(J))
    y = Delta @ v
    M = Delta - np.outer(y, v) - np.outer(v, y)
    x, Nj = (alpha * j - N @ j) / 2, N @ j
    M_0 = (J @ N - N @ J + np.outer(Nj, v) + np.outer(v, Nj)) / 4
    yield Residual(abs(float(v @ y)), ROUNDING * size, "v'y")
    yield Residual(float(np.linalg.norm(M @ v)), ROUNDING * size, "Mv")
    yield Residual(float(np.linalg.norm((2 + alpha) * y + N @ y - x)), ROUNDING * size * (2 + alpha), "equation of y")
    yield Residual(float(np.linalg.norm(2 * M + N @ M + M @ N - 2 * M_0)), ROUNDING * size, "equation of M")
    y_n, M_n = x / (2 + alpha), M_0
    for _ in range(n):
        y_n = (x - N @ y_n) / (2 + alpha)
    for _ in range(n - 1):
        M_n = M_0 - (N @ M_n + M_n @ N) / 2
    if nu < 2 + alpha:
        bound = (nu / (2 + alpha)) ** (n + 1) * (abs(alpha) + nu) / (2 * (2 + alpha - nu)) * float(np.linalg.norm(j))
        yield Residual(float(np.linalg.norm(y_n - y)), bound + ROUNDING * size, "y_n")
    bound = _share(n) * math.sqrt(1 + case.e) * nu ** (n + 1) * size
    yield Residual(float(np.linalg.norm(M_n - M)), bound + ROUNDING * size, "M_n")


def _terms_left(rng: np.random.Generator) -> Iterator[Residual]:
    """Try part 5: what the chosen number of terms leaves out."""
    rho, size = LARGEST * float(10 ** rng.uniform(-12, 0)), float(10 ** rng.uniform(-16, -0.5))
    n, epsilon = _terms(size, rho), math.sqrt(size)
    if n is None:
        n = MOST_TERMS
        refused = max(2 * abs(BINOMIAL[2 * n + 1]) * epsilon ** (2 * n + 1), (epsilon / 2) ** (n + 1) / 16)
        yield at_least(refused, rho * (1 - epsilon), "what is refused")
        return
    rest = abs(BINOMIAL[2 * n + 1]) * epsilon ** (2 * n + 1) / (1 - epsilon)
    yield Residual(rest / rho, 0.5 + ROUNDING, "series over rho")
    nu = (1 - epsilon) ** -0.5 - 1
    steps = _share(n) * math.sqrt(1 + epsilon) * nu ** (n + 1) / rho
    exact = 16 * _share(n) * math.sqrt(1 + epsilon) * (1 - epsilon) ** -n
    yield Residual(steps / exact, 1 + 1e-6, "steps over their bound")
    yield Residual(exact, 3.0, "the number of the statement")


def _estimate(rng: np.random.Generator) -> Iterator[Residual]:
    """Try part 6: the estimate up to tau = 2, its failure beyond, and what it refuses."""
    case = _draw(rng, 0.9, float(rng.uniform(0, 2)) + 1e-9, centred=True)
    yield Residual(_estimated(case.A) - float(np.linalg.norm(case.E @ case.E)), ROUNDING, "estimate above |E^2|")
    beyond = _draw(rng, 1e-9, float(rng.uniform(4, 9)), centred=True)
    m, tau = len(beyond.v) - 1, beyond.tau
    least = m / math.sqrt(m + 1) * tau * ((m - 1) * tau - 2 * m) / (m + tau) ** 2
    yield Residual(least - _estimated(beyond.A), ROUNDING, "estimate for a large tau, below its bound")
    if m > 2 and tau > 2.1 * m / (m - 1):
        yield at_least(_estimated(beyond.A), 1e-3, "estimate where E is nothing")
    r, tau = int(rng.integers(64, 1001)), float(10 ** rng.uniform(math.log10(4), 6))
    spread = (r - 1) * (r - 1 + tau**2) / (r - 1 + tau) ** 2 - 1
    refused = _terms(spread * (r - 1) / math.sqrt(r), LARGEST) is None
    yield Residual(float(not refused), 0.0, "a tau of 4 and more that is not refused")
    A = stiefel(rng, 12, 9) * rng.uniform(0.7, 1.3, 9) @ stiefel(rng, 9, 9).T
    E = 9 * A.T @ A / np.sum(A * A) - np.eye(9)
    yield Residual(_estimated(A) - float(np.linalg.norm(E @ E)), ROUNDING, "estimate above |E^2| without v")


def _direction(rng: np.random.Generator) -> Iterator[Residual]:
    """Try part 7: one step turns w towards v by at least what is said."""
    case = _draw(rng, 0.5, float(rng.choice([1e-4, 0.1, 0.3, 3.0])), centred=True)
    m, square = len(case.v) - 1, case.A.T @ case.A
    w = case.v + 10.0 ** rng.uniform(-3, 0) * rng.standard_normal(m + 1)
    turned = w - square @ w * m / np.trace(square)
    factor = (case.e + case.tau / m) / abs(1 - case.tau + case.tau / m)
    yield Residual(_tangent(turned, case.v), factor * _tangent(w, case.v) * (1 + 1e-9) + ROUNDING, "angle after a step")


def _code(rng: np.random.Generator) -> Iterator[Residual]:
    """Try the code: U and the derivative of what it takes, and no direction that it has not found."""
    r, d = int(rng.integers(20, 60)), 64
    v = np.full(r, r**-0.5)
    basis = np.linalg.qr(np.column_stack([v, rng.standard_normal((r, r - 1))]))[0]
    values = float(10 ** rng.uniform(-9, -4.7)) * rng.uniform(-1, 1, r - 1)
    tau = float(10 ** rng.uniform(-2.2, 0))
    A = stiefel(rng, d, r) * np.sqrt(np.append(tau, 1 + values)) @ basis.T
    given = torch.from_numpy(np.ascontiguousarray(A))
    square = given.T @ given
    found = near_collapse(given, square, float(square.trace()), apart=True)
    assert found is not None, f"refused with {STEPS} steps for tau = {tau:g}"
    G, rounding = rng.standard_normal((d, r)), r * np.finfo(float).eps
    wanted = polar_derivative(A, polar(A), G)
    slope = found.derivative(torch.from_numpy(G)).numpy()
    yield Residual(float(np.linalg.norm(found.U.numpy() - polar(A))), 10 * rounding / math.sqrt(tau), "U")
    yield Residual(float(np.linalg.norm(slope - wanted)), 30 * rounding * float(np.linalg.norm(wanted)), "derivative")


def _share(n: int) -> float:
    return float(n**n / (2 * (n + 1) ** (n + 1)))


def _solved(S: Matrix, X: Matrix) -> Matrix:
    """Solve S Delta + Delta S = X by eigenvectors."""
    s, Q = np.linalg.eigh(S)
    return np.asarray(Q @ ((Q.T @ X @ Q) / (s[:, None] + s)) @ Q.T)


def _estimated(A: Matrix) -> float:
    square = A.T @ A
    m = len(square) - 1
    return float(m / math.sqrt(m + 1) * (m * np.sum(square**2) / np.trace(square) ** 2 - 1))


def _tangent(w: Matrix, v: Matrix) -> float:
    along = float(v @ w)
    return float(np.linalg.norm(w - along * v)) / abs(along)


PARTS = (
    Part(_root),
    Part(_series),
    Part(_derivative),
    Part(_split, 2),
    Part(_terms_left, 2),
    Part(_estimate),
    Part(_direction),
    Part(_code),
)
