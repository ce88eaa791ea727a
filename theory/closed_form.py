r"""The nearest-ETF problem is linear on the Stiefel manifold: closed form, optimal value, and what is unique.

## Statement

Let H be d x C, F any r x C with r <= d, $\delta \ge 0$, $U_0 = U_{prox}$ any d x r, and

$$f(U) = \|H - UF\|^2 + \tfrac\delta2\|U - U_0\|^2, \qquad A = 2HF' + \delta U_0.$$

(a) On the manifold $St(d, r) = \{U : U'U = I\}$, $f(U) = c - \langle A, U\rangle$ with
$c = \|H\|^2 + \|F\|^2 + \frac\delta2(r + \|U_0\|^2)$.

(b) $\min f = c - \|A\|_*$, with the nuclear norm. Where $U_0$ lies on the manifold, $\|U_0\|^2 = r$ and
$c = \|H\|^2 + \|F\|^2 + \delta r$; elsewhere this c is wrong by $\frac\delta2(\|U_0\|^2 - r)$.

(c) Let $A = P_1S_1Q_1'$ with $S_1$ the k positive singular values, $Q_2$ an orthonormal basis of the null space of A.
The minimisers are exactly

$$U = P_1Q_1' + ZQ_2', \qquad Z \in R^{d\times(r-k)},\; Z'Z = I,\; P_1'Z = 0.$$

In particular every polar factor of A is one. The minimiser is unique if and only if A has full column rank, k = r; it
is then $U^* = P_1Q_1' = A(A'A)^{-1/2}$.

(d) UF is the same for all minimisers if and only if F' vanishes on the null space of A, $F'Q_2 = 0$. Where it does
not, Z and -Z give frames at distance $2\|F'Q_2\|$. For $\delta = 0$ this says rank HF' = rank F; with M, rank HM = C-1.

## Assumptions

None but the shapes. C, H and F are any; F need not have full rank, nor $U_0$ lie on the manifold. d = r is allowed.

## Proof

*(a)* $\|UF\|^2 = tr(F'U'UF) = \|F\|^2$ and $\|U\|^2 = tr(U'U) = r$. Expanding both squares,
$f(U) = \|H\|^2 + \|F\|^2 - 2\langle H, UF\rangle + \frac\delta2(r + \|U_0\|^2) - \delta\langle U_0, U\rangle$, and
$2\langle H, UF\rangle = \langle 2HF', U\rangle$.

*(b), (c)* Let $p_i, q_i, s_i$, i <= k, be the columns of $P_1$, $Q_1$ and the singular values. For U on the manifold

$$\langle A, U\rangle = \sum_{i\le k} s_i\,p_i'Uq_i \le \sum_{i \le k} s_i = \|A\|_*,$$

since $\|p_i\| = \|Uq_i\| = 1$; by the equality case of Cauchy-Schwarz for unit vectors, and $s_i > 0$, equality holds
if and only if $Uq_i = p_i$ for all i <= k, that is, $UQ_1 = P_1$. Given this, let $Z = UQ_2$. Then
$Z'Z = Q_2'U'UQ_2 = I$, $P_1'Z = Q_1'U'UQ_2 = Q_1'Q_2 = 0$, and $U = U(Q_1Q_1' + Q_2Q_2') = P_1Q_1' + ZQ_2'$.
Conversely such a U has $UQ_1 = P_1$ and $U'U = Q_1Q_1' + Q_2Z'ZQ_2' + Q_1P_1'ZQ_2' + Q_2Z'P_1Q_1' = I$. A Z exists, for
the range of $P_1$ leaves d - k >= r - k dimensions; so the maximum of $\langle A, U\rangle$ is $\|A\|_*$, and (a) gives
(b). A thin SVD $A = PSQ'$ with P'P = I has in its last r - k columns of P such a Z, so that PQ' is a minimiser; and
every polar factor, that is, every U on the manifold with $A = U(A'A)^{1/2}$, satisfies $UQ_1S_1 = AQ_1 = P_1S_1$. If
k = r there is no Z, and $A(A'A)^{-1/2} = P_1S_1Q_1'Q_1S_1^{-1}Q_1'$. If k < r, then Z has at least one column, and -Z
gives another minimiser, since $2ZQ_2' \ne 0$.

*(d)* $UF = P_1Q_1'F + Z(F'Q_2)'$. If $F'Q_2 = 0$, Z does not enter. Otherwise the frames of Z and -Z differ by
$2Z(F'Q_2)'$, of norm $2\|F'Q_2\|$ because Z has orthonormal columns. If $\delta = 0$, A = 2HF': its null space contains
that of F', and is contained in it if and only if the ranks agree. rank M = C-1. For k = r there is nothing to show.

## In the code

- `etfopt.problem.NearestETF.linear_term`: A. `etfopt.problem.NearestETF.objective`: f, also off the manifold.
- `etfopt.solvers.procrustes.Procrustes`: a minimiser by each of its routes. `etfopt.polar.polar_factor`: the same.
- `etfopt.certificate.Certificate`: `unique` decides (c) and `etf_unique` (d), both up to rounding.
- `etfopt._rounding.frame_ignores`: (d).

## References

Schonemann (1966), A generalized solution of the orthogonal Procrustes problem. Higham (2008), Functions of Matrices,
theorems 8.1 and 8.4. Markou, Ajanthan and Gould (2024), for the problem. The statements for any frame and any proximal
point, and (d), are derived here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from etfopt import NearestETF, certify, solve
from etfopt.polar import polar_factor
from etfopt.solvers.procrustes import Procrustes
from theory._exact import digits, exact, inner, linear_term, nuclear
from theory.draws import Matrix, polar, problem, stiefel
from theory.registry import Evidence, Part, Residual, at_least, gather

EPS = float(np.finfo(np.float64).eps)


def constant(p: NearestETF) -> float:
    """Return c, the objective on the manifold but for its linear part."""
    prox = 0.0 if p.prox is None else float(np.sum(p.prox**2))
    return float(np.sum(p.H**2) + np.sum(p.F**2)) + p.delta / 2 * (p.r + prox)


def _value(p: NearestETF, U: NDArray[np.floating[Any]]) -> float:
    """Return the objective by its definition, entry by entry of H and U."""
    proximal = 0.0 if p.prox is None else p.delta / 2 * float(np.sum((U - p.prox) ** 2))
    return float(sum(np.sum((p.H[:, c] - U @ p.F[:, c]) ** 2) for c in range(p.C))) + proximal


def _size(p: NearestETF) -> float:
    """Return 2||H|| ||F|| + delta ||U_prox||, which the rounding of A goes with; never zero."""
    prox = 0.0 if p.prox is None else p.delta * float(np.linalg.norm(p.prox))
    return 2 * float(np.linalg.norm(p.H)) * float(np.linalg.norm(p.F)) + prox + 1e-300


def _linear(rng: np.random.Generator) -> Iterator[Residual]:
    """Compare the objective, its definition and the linear form at any point of the manifold."""
    p = problem(rng)
    U, A = stiefel(rng, p.d, p.r), 2 * p.H @ p.F.T + (0.0 if p.prox is None else p.delta * p.prox)
    c = constant(p)
    rounding = 2 * (10 * p.r + p.d + p.C) * EPS * c  # U is orthonormal to 10 r u; the sums
    yield Residual(abs(_value(p, U) - (c - float(np.sum(A * U)))), rounding, "definition against linear form")
    yield Residual(abs(p.objective(U) - _value(p, U)), rounding, "etfopt's objective")
    off = float(np.linalg.norm(p.linear_term - A))
    yield Residual(off, (2 * p.C + 8) * EPS * _size(p), "etfopt's linear term")


def _optimum(rng: np.random.Generator) -> Iterator[Residual]:
    """Compare the value of the closed form, by every route, with c - ||A||_*; no feasible point is lower."""
    p = problem(rng)
    c, A = constant(p), p.linear_term
    least, rounding = c - float(np.linalg.svd(A, compute_uv=False).sum()), 40 * (p.r + p.d + p.C) * EPS * c
    for method in ("svd", "gram", "newton-schulz"):
        U = solve(p, Procrustes(method)).U
        yield Residual(abs(_value(p, U) - least), rounding, f"optimal value, {method}")
    yield Residual(abs(_value(p, polar_factor(A)) - least), rounding, "optimal value, polar_factor")
    for step in (1e-4, 1e-1, 1e3):
        V = polar(U + step * rng.standard_normal(U.shape))
        yield Residual(least - _value(p, V), rounding, f"a point {step:g} away is lower")


def _value_in_sixty_digits(rng: np.random.Generator) -> Iterator[Residual]:
    """Find the gap of the closed form in sixty digits, where the constant cannot hide it."""
    p = problem(rng)
    with digits():
        A = linear_term(p)
        for U in (solve(p).U, polar(p.linear_term)):
            gap = float(nuclear(A) - inner(A, exact(U)))
            # ||U'U - I|| <= 10 r u changes <A, U> by half of it; a singular value that is rounding costs twice itself
            yield Residual(abs(gap), (20 * p.r + 4 * p.C + p.d) * p.r * EPS * _size(p), "||A||_* - <A, U>")


def _degenerate(rng: np.random.Generator) -> tuple[NearestETF, Matrix, Matrix, Matrix, bool]:
    """Draw a problem whose A has null space Q2 to the last few digits; also P1, Q1 and whether F' vanishes there."""
    r = int(rng.integers(1, 6))
    k, ignored = int(rng.integers(0, r)), bool(rng.random() < 0.5)
    d, C = r + int(rng.choice([0, 1, 6])), max(2, r + int(rng.integers(0, 3)))
    P, Q = stiefel(rng, d, r), stiefel(rng, r, r)
    P1, Q1, Q2 = P[:, :k], Q[:, :k], Q[:, k:]
    s, delta = rng.uniform(0.3, 1, k), float(rng.choice([0.0, 0.7]))
    ignored = ignored and k > 0
    G = stiefel(rng, C, r).T if r <= C else np.eye(r, C)
    F = Q1 @ G[:k] if ignored else G  # F' Q2 = 0, or F of full rank
    prox = stiefel(rng, d, r)
    if ignored:
        prox = prox @ Q1 @ Q1.T  # off the manifold, or A would see Q2 through it
    wanted = (P1 * s) @ Q1.T - delta * prox
    H = wanted @ np.linalg.pinv(F.T) / 2
    return NearestETF(H, prox=prox, delta=delta, frame=F), P1, Q1, Q2, ignored


def _minimisers(rng: np.random.Generator) -> Iterator[Residual]:
    """Walk the family of minimisers: all as good, none missed, and the ETF as unique as F' on the null space says."""
    p, P1, Q1, Q2, ignored = _degenerate(rng)
    k, n = Q1.shape[1], Q2.shape[1]
    rounding = 100 * (p.d + p.C) * EPS * (1 + constant(p))
    rest = np.linalg.svd(np.hstack([P1, np.zeros((p.d, 1))]))[0][:, k:]
    Z = rest @ stiefel(rng, p.d - k, n)
    U, mirrored = P1 @ Q1.T + Z @ Q2.T, P1 @ Q1.T - Z @ Q2.T
    least = constant(p) - float(np.linalg.svd(p.linear_term, compute_uv=False).sum())
    for member in (U, mirrored):
        yield Residual(abs(_value(p, member) - least), rounding, "value of a member of the family")
    spread, expected = float(np.linalg.norm((U - mirrored) @ p.F)), 2 * float(np.linalg.norm(p.F.T @ Q2))
    yield Residual(abs(spread - expected), 100 * p.r * EPS, "distance of the frames of Z and -Z")
    certificate = certify(p, U)
    yield Residual(float(certificate.unique), 0.5, "called unique")
    yield Residual(float(certificate.etf_unique != ignored), 0.5, f"etf_unique, F' vanishes: {ignored}")
    if not ignored:
        yield at_least(spread, 1e-3, "distance of two nearest frames")
    for method in ("svd", "gram"):
        found = solve(p, Procrustes(method)).U
        yield Residual(
            float(np.linalg.norm(found @ Q1 - P1)), 400 * (p.d + p.C) * EPS, "U Q1 = P1 of a minimiser found"
        )
    outside = polar(U + 0.1 * rng.standard_normal(U.shape))
    if np.linalg.norm(outside @ Q1 - P1) > 1e-2:
        yield at_least(_value(p, outside) - least, 1e-6, "excess of a point outside the family")


def _full_rank(rng: np.random.Generator) -> Iterator[Residual]:
    """Ascend from a random start on the manifold: where A has full column rank there is one end."""
    d, r = int(rng.integers(3, 8)), int(rng.integers(1, 3))
    s, C = rng.uniform(0.5, 1, r), r + 1
    F = stiefel(rng, C, r).T
    p = NearestETF((stiefel(rng, d, r) * s @ stiefel(rng, r, r).T) @ F / 2, frame=F)
    A, U = p.linear_term, stiefel(rng, d, r)
    for _ in range(400):
        Q, R = np.linalg.qr(U + A - U @ (U.T @ A + A.T @ U) / 2)
        U = Q * np.where(np.diag(R) < 0, -1.0, 1.0)
    yield Residual(float(np.linalg.norm(U - solve(p).U)), 1e-6, "end of an ascent against the closed form")
    certificate = certify(p, U)
    yield Residual(float(not (certificate.unique and certificate.etf_unique)), 0.5, "not called unique")


PARTS = (
    Part(_linear, 3),
    Part(_optimum, 2),
    Part(_value_in_sixty_digits, 0.3),
    Part(_minimisers, 2),
    Part(_full_rank, 0.1),
)


def check(rng: np.random.Generator, budget: int = 1000) -> Evidence:
    """Look for a counterexample: points better than the closed form, minimisers outside the family, wrong flags."""
    return gather(rng, budget, PARTS)
